"""A PET scan of a known SUV as the data sets a scanner sends: the forward model behind the reference objects.

It goes the way opposite to the reader's and shares no code with it: the SUV is chosen first, then dose and weight make
it activity at the injection, decay makes that activity at any later time, the mean over a frame makes it counts, and
the units of the series make it pixel values. Decay is written as halvings, the mean over a frame as a quadrature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import format_number_as_ds

SITE = ZoneInfo("Europe/Berlin")
"""Where the reference objects are scanned: a zone with daylight saving time."""
LEVELS_SUV = np.array([0.0, 0.2, 1.0, 4.0])
TRUE_SUV: NDArray[np.float64] = LEVELS_SUV[
    np.fromfunction(lambda z, y, x: (x + (z + 1) * y + z) % 4, (2, 4, 4), dtype=int)
]
"""float64 (z, y, x) [g/mL]: two slices that differ, so that one out of place shows."""
STEPS_PER_SUV = (1000, 8000)
"""Stored steps per g/mL of each slice: every level is a whole number of steps, every slice has its own slope."""
QUADRATURE = np.polynomial.legendre.leggauss(24)
"""Nodes and weights on [−1, 1]; exact to rounding for decay over a few half-lives."""


class PrivateTag(NamedTuple):
    """A private attribute as its maker describes it (PS3.5 7.8.1)."""

    group: int
    creator: str
    element: int
    vr: str


GE_SCAN_DATE_TIME = PrivateTag(0x0009, "GEMS_PETD_01", 0x0D, "DT")
PHILIPS_SUV = PrivateTag(0x7053, "Philips PET Private Group", 0x00, "DS")
PHILIPS_ACTIVITY = PrivateTag(0x7053, "Philips PET Private Group", 0x09, "DS")
SOMEBODY_ELSE = PrivateTag(0x7053, "SOMEBODY ELSE", 0x00, "DS")


class Code(NamedTuple):
    """A coded concept: value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Agent(NamedTuple):
    """What is injected (PS3.16 CID 4020, 4021) and how fast it decays."""

    tracer: Code
    radionuclide: Code
    half_life_s: float


_F18 = Code("77004003", "SCT", "^18^Fluorine")
FDG = Agent(Code("35321007", "SCT", "Fluorodeoxyglucose F^18^"), _F18, 6586.2)
FDG_OF_OLDER_SCANNERS = FDG._replace(half_life_s=6588.0)
PSMA_1007 = Agent(Code("126758", "DCM", "PSMA-1007 F^18^"), _F18, 6586.2)
PSMA_11 = Agent(Code("C118961", "NCIt", "PSMA-11 Ga^68^"), Code("35337001", "SCT", "^68^Gallium"), 4057.7)
RUBIDIUM = Agent(Code("79197006", "SCT", "^82^Rubidium"), Code("79197006", "SCT", "^82^Rubidium"), 76.38)
CHOLINE = Agent(Code("126757", "DCM", "Choline C^11^"), Code("40565003", "SCT", "^11^Carbon"), 1221.8)
AMMONIA = Agent(Code("129513004", "SCT", "Ammonia N^13^"), Code("21576001", "SCT", "^13^Nitrogen"), 597.9)
WATER = Agent(Code("129503007", "SCT", "Water O^15^"), Code("129504001", "SCT", "^15^Oxygen"), 122.24)
DOTATATE = Agent(Code("724025002", "SCT", "DOTATATE"), Code("3932008", "SCT", "^64^Copper"), 45721.0)
ANTIBODY = Agent(Code("", "", "Trastuzumab Zr^89^"), Code("63360001", "SCT", "^89^Zirconium"), 282240.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Two slices, each with a bed time of its own, and what this scanner writes in its own way.

    injected : with a zone; every time below is in seconds after it, and is written as wall-clock time of that zone
    reference_s : what the image is corrected for decay to, where `decay_correction` is START
    series_s, acquired_s : Series Time; Acquisition Time of each slice
    suv_per_unit : SUVbw [g/mL] of one unit of a rescaled pixel, where the units are no activity (GML, Philips' counts)
    bqml_per_count : activity [Bq/mL] of one count, where the units are Philips' counts
    differs : keyword → value written instead of the usual one, None to leave it out; also of the injection's item
    differs_in_last : the same, of the last slice alone
    private : private attributes, each block reserved in this order
    injections : items of Radiopharmaceutical Information Sequence
    enhanced : one multi-frame instance, corrected for decay to reference_s by its own word (private, differs: no part)
    """

    agent: Agent = FDG
    injected: datetime = datetime(2026, 3, 2, 8, 30, tzinfo=SITE)
    dose_bq: float = 370e6
    weight_kg: float = 75.0
    units: str = "BQML"
    decay_correction: str = "START"
    reference_s: float = 3600.0
    series_s: float = 3600.0
    acquired_s: tuple[float, float] = (3600.0, 3600.0)
    frame_s: float = 180.0
    suv_per_unit: float | None = None
    bqml_per_count: float = 1.0
    differs: Mapping[str, Any] = field(default_factory=dict)
    differs_in_last: Mapping[str, Any] = field(default_factory=dict)
    private: Mapping[PrivateTag, str] = field(default_factory=dict)
    injections: int = 1
    enhanced: bool = False

    def activity_bqml(self, after_s: float) -> float:
        """Activity concentration where SUVbw is 1 g/mL (PS3.16: dose per gram of body) that long after injection."""
        return self.dose_bq / (self.weight_kg * 1000.0) * float(2.0 ** (-after_s / self.agent.half_life_s))

    def measured_bqml(self, start_s: float) -> float:
        """Its mean over the frame that starts then: what is counted, before any correction for decay."""
        nodes, weights = QUADRATURE
        values = [self.activity_bqml(start_s + self.frame_s * (1.0 + node) / 2.0) for node in nodes]
        return float(np.dot(weights, values)) / 2.0

    def mean_reached_s(self, start_s: float) -> float:
        """How long after the start of a frame its activity equals the frame's mean (PS3.3 C.8.9.4.1.5)."""
        return -self.agent.half_life_s * log2(self.measured_bqml(start_s) / self.activity_bqml(start_s))

    def corrected_bqml(self, z: int) -> float:
        """Activity concentration where SUVbw is 1 g/mL, as Decay Correction (0054,1102) says."""
        if self.decay_correction == "ADMIN":
            return self.activity_bqml(0.0)
        if self.decay_correction == "START":
            return self.activity_bqml(self.reference_s)
        return self.measured_bqml(self.acquired_s[z])

    def units_per_suv(self, z: int) -> float:
        """Rescaled pixel value where SUVbw is 1 g/mL."""
        return 1.0 / self.suv_per_unit if self.suv_per_unit else self.corrected_bqml(z) / self.bqml_per_count

    def at(self, after_s: float) -> datetime:
        """Wall-clock time of the scanner that long after the injection."""
        elapsed = self.injected.astimezone(UTC) + timedelta(seconds=after_s)
        return elapsed.astimezone(self.injected.tzinfo)


def pet_images(scan: Scan, name: str) -> list[Dataset]:
    """The series, one PET Image per slice, the last slice first: the order of arrival means nothing.

    name : of the reference object; the UIDs are made from it
    """
    return [_pet_image(scan, name, z) for z in reversed(range(len(TRUE_SUV)))]


def _pet_image(scan: Scan, name: str, z: int) -> Dataset:
    dataset = instance(name, f"slice {z}", PositronEmissionTomographyImageStorage)
    dataset.update(series(scan, name, z))
    (injection,) = dataset.RadiopharmaceuticalInformationSequence
    differs = {**scan.differs, **(scan.differs_in_last if z == len(TRUE_SUV) - 1 else {})}
    for keyword, value in differs.items():
        _put(injection if keyword in injection else dataset, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = [injection] * scan.injections
    for tag, value in scan.private.items():
        dataset.private_block(tag.group, tag.creator, create=True).add_new(tag.element, tag.vr, value)
    return dataset


def _put(dataset: Dataset, keyword: str, value: object) -> None:
    if value is None:
        del dataset[keyword]
    else:
        setattr(dataset, keyword, value)


def instance(name: str, role: str, sop_class: UID) -> Dataset:
    """SOP Common module and File Meta Information of one instance."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = _uid(name, role)
    return dataset


def _uid(name: str, role: str) -> UID:
    """2.25.<128 bits of a hash> (PS3.5 B.2)."""
    digest = hashlib.sha256(f"reference object|{name}|{role}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def series(scan: Scan, name: str, z: int) -> Dataset:
    """Everything of one slice but its SOP Common module and what this scanner writes in its own way."""
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(name, "study"), _uid(name, "series")
    dataset.PatientName, dataset.PatientID = "REFERENCE^OBJECT", "REFERENCE"
    dataset.PatientBirthDate = dataset.ReferringPhysicianName = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.PatientSex, dataset.PatientSize, dataset.PatientWeight = "M", "1.8", _ds(scan.weight_kg)
    dataset.Manufacturer, dataset.Modality, dataset.ImageType = "SIMULATED", "PT", ["ORIGINAL", "PRIMARY"]
    dataset.SeriesDate, dataset.SeriesTime = _date_time(scan.at(scan.series_s))
    dataset.StudyDate, dataset.StudyTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.RadiopharmaceuticalInformationSequence = [_injection(scan)]
    _put_meaning(dataset, scan, z)
    _put_plane(dataset, name, z)
    _put_pixels(dataset, z, scan.units_per_suv(z))
    return dataset


def of_slice(dataset: Dataset, *keywords: str) -> Dataset:
    """Only these attributes."""
    chosen = Dataset()
    for keyword in keywords:
        chosen.add(dataset[keyword])
    return chosen


def _put_meaning(dataset: Dataset, scan: Scan, z: int) -> None:
    """PET Series and PET Image modules (PS3.3 C.8.9.1, C.8.9.4)."""
    acquired_s, corrected = scan.acquired_s[z], scan.decay_correction != "NONE"
    dataset.AcquisitionDate, dataset.AcquisitionTime = _date_time(scan.at(acquired_s))
    dataset.SeriesType, dataset.CountsSource = ["STATIC", "IMAGE"], "EMISSION"
    dataset.Units, dataset.DecayCorrection = scan.units, scan.decay_correction
    dataset.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "RAN", *(["DECY"] if corrected else [])]
    dataset.AttenuationCorrectionMethod, dataset.RandomsCorrectionMethod = "measured", "DLYD"
    dataset.NumberOfSlices, dataset.ImageIndex, dataset.InstanceNumber = len(TRUE_SUV), z + 1, z + 1
    dataset.ActualFrameDuration = round(scan.frame_s * 1000.0)
    since_reference_s = acquired_s - scan.reference_s
    dataset.FrameReferenceTime = _ds((since_reference_s + scan.mean_reached_s(acquired_s)) * 1000.0)
    if corrected:
        dataset.DecayFactor = _ds(scan.corrected_bqml(z) / scan.measured_bqml(acquired_s))


def _put_plane(dataset: Dataset, name: str, z: int) -> None:
    """Frame of Reference and Image Plane modules."""
    dataset.FrameOfReferenceUID = _uid(name, "frame of reference")
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-8, -8, 10 + 4 * z]
    dataset.PixelSpacing, dataset.SliceThickness = [4, 4], 4


def _injection(scan: Scan) -> Dataset:
    """One item of Radiopharmaceutical Information Sequence (PS3.3 C.8.9.2)."""
    date, time = _date_time(scan.injected)
    item = Dataset()
    item.Radiopharmaceutical = scan.agent.tracer.meaning
    item.RadiopharmaceuticalStartDateTime, item.RadiopharmaceuticalStartTime = date + time, time
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = _ds(scan.dose_bq), _ds(scan.agent.half_life_s)
    item.RadionuclideCodeSequence = [coded(scan.agent.radionuclide)]
    if scan.agent.tracer.value:
        item.RadiopharmaceuticalCodeSequence = [coded(scan.agent.tracer)]
    return item


def coded(code: Code) -> Dataset:
    """Item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _put_pixels(dataset: Dataset, z: int, units_per_suv: float) -> None:
    """Image Pixel module, with a Rescale Slope of this slice alone."""
    steps = STEPS_PER_SUV[z]
    dataset.Rows, dataset.Columns = TRUE_SUV.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = _ds(units_per_suv / steps), "0"
    dataset.PixelData = np.rint(TRUE_SUV[z] * steps).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _date_time(at: datetime) -> tuple[str, str]:
    return at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")


def _ds(number: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    return str(format_number_as_ds(float(number)))
