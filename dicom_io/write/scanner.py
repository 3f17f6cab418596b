"""A simulated acquisition as the instances a PET/CT scanner would send.

The PET is written as one of three makers does (makers.py): unless told otherwise in Bq/mL with a rescale slope per
slice, corrected for decay to the start of the scan. Geometry is taken from the affine as it stands: flipped rows or a
tilted gantry need no option, only such an affine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp, expm1, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pydicom.valuerep import format_number_as_ds

from dicom_io.write import makers
from dicom_io.write.makers import HABITS, PHILIPS_BQML_PER_COUNT, GEScan, Habits, MakerName
from engines.contract import Acquisition, Affine, DynamicVolume, Quantity, Volume

NewUid = Callable[[str, int], str]
"""(role, number) → UID; the same arguments give the same UID."""

# PS3.16 CID 4020 and CID 4021.
RADIONUCLIDES = {
    "F-18": Code("77004003", "SCT", "^18^Fluorine"),
    "Ga-68": Code("35337001", "SCT", "^68^Gallium"),
    "Rb-82": Code("79197006", "SCT", "^82^Rubidium"),
    "C-11": Code("40565003", "SCT", "^11^Carbon"),
}
TRACERS = {
    "FDG": Code("35321007", "SCT", "Fluorodeoxyglucose F^18^"),
    "PSMA-1007": Code("126758", "DCM", "PSMA-1007 F^18^"),
    "PSMA-11": Code("C118961", "NCIt", "PSMA-11 Ga^68^"),
    "Rb-82": Code("129503007", "SCT", "Rubidium chloride Rb^82^"),
}
HIGHEST_STORED = 32767
POSITRON_FRACTION = {"F-18": 0.9673, "Ga-68": 0.8914, "Rb-82": 0.9543, "C-11": 0.9976}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Who was scanned, when and under which settings.

    started : start of the PET series, with a time zone; written as local time of that zone
    maker : whose way of writing the scanner follows; siemens-like unless told otherwise
    manufacturer, model : empty = those of the simulated maker
    units, decay_correction : (0054,1001), (0054,1102); None = the maker's units, of which CNTS is Philips' alone
    post_processed_s : how long after its start the series was processed once more, which rewrites Series Date and Time
    beds : bed positions, scanned one after the other from the last slice to the first, each for the frame duration
    timezone_offset : whether the scanner sends (0008,0201)
    phase : "rest", "stress": tells several PET series of one study apart, in their descriptions and UIDs; study and
        frame of reference are the same for all
    first_series : number of the CT series; static and dynamic PET follow
    study_started : None = five minutes before the PET, when its CT is taken
    """

    started: datetime
    patient_id: str = "SIM0001"
    patient_name: str = "SIMULATED^PATIENT"
    patient_birth_date: str = "19600101"
    accession_number: str = ""
    study_description: str = "PET/CT whole body"
    maker: MakerName = "siemens"
    manufacturer: str = ""
    model: str = ""
    station: str = "SIMPETCT1"
    units: Literal["BQML", "GML", "CNTS"] | None = None
    decay_correction: Literal["START", "ADMIN", "NONE"] = "START"
    post_processed_s: float = 0.0
    beds: int = 1
    timezone_offset: bool = False
    phase: str = ""
    first_series: int = 1
    study_started: datetime | None = None

    def __post_init__(self) -> None:
        if self.started.tzinfo is None:
            raise ValueError("started: expected a time with a time zone, got one without")
        if self.study_started is not None and self.study_started.tzinfo is None:
            raise ValueError("study_started: expected a time with a time zone, got one without")
        if self.beds < 1:
            raise ValueError(f"beds: expected at least 1, got {self.beds}")
        if self.post_processed_s < 0.0:
            raise ValueError(f"post_processed_s: expected not before the start, got {self.post_processed_s}")
        if self.units == "CNTS" and self.habits.units != "CNTS":
            raise ValueError(f"units: expected BQML or GML of {self.maker}, got CNTS; counts need Philips' factors")

    @property
    def habits(self) -> Habits:
        """What the maker writes in its own way."""
        return HABITS[self.maker]

    @property
    def written_units(self) -> str:
        """Units (0054,1001)."""
        return self.units or self.habits.units


def hashed_uids(root: str) -> NewUid:
    """UIDs 2.25.<128 bits of SHA-256(root|role|number)> (PS3.5 B.2): the same root gives the same UIDs."""

    def new_uid(role: str, number: int) -> str:
        digest = hashlib.sha256(f"{root}|{role}|{number}".encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    return new_uid


def write(acquisition: Acquisition, examination: Examination, *, new_uid: NewUid) -> list[Dataset]:
    """Every instance of the study: the CT series, then the PET series, each from the first slice to the last, of a
    dynamic PET frame after frame.

    The PET must be in SUVbw, the CT in HU, the dynamic PET in Bq/mL corrected for decay to the start of its series; a
    dynamic PET is written in the maker's units and no others. Data sets have file meta information and Explicit VR
    Little Endian pixels, ready for `Dataset.save_as(path, enforce_file_format=True)`.

    Raises
    ------
    ValueError
        A volume in another quantity, a dynamic PET in other units or with another decay correction, or a tracer or
        radionuclide without a code in this module.
    """
    instances = []
    if acquisition.ct is not None:
        _expect(acquisition.ct, Quantity.HU)
        instances += _ct_series(acquisition, acquisition.ct, examination, new_uid)
    if acquisition.pet is not None:
        _expect(acquisition.pet, Quantity.SUVBW)
        instances += _pet_series(acquisition, acquisition.pet, examination, new_uid)
    if acquisition.dynamic is not None:
        _expect(acquisition.dynamic, Quantity.ACTIVITY_BQML)
        units = examination.habits.units
        if (examination.written_units, examination.decay_correction) != (units, "START"):
            got = f"{examination.written_units} and {examination.decay_correction}"
            raise ValueError(f"a dynamic series is written in {units}, decay-corrected to its START, got {got}")
        instances += _dynamic_series(acquisition, acquisition.dynamic, examination, new_uid)
    return instances


def _expect(volume: Volume | DynamicVolume, quantity: Quantity) -> None:
    if volume.quantity is not quantity:
        raise ValueError(f"a scanner writes {quantity.value} here, got {volume.quantity.value}")


def _pet_series(acquisition: Acquisition, pet: Volume, examination: Examination, new_uid: NewUid) -> list[Dataset]:
    slices = len(pet.array)
    beds = [(slices - 1 - index) * examination.beds // slices for index in range(slices)]
    units_per_suv = [_units_per_suv(acquisition, examination, bed) for bed in beds]
    values = [pet.array[index] * units_per_suv[index] for index in range(slices)]
    slopes = _slopes(values, examination.habits)
    instances = []
    for index in range(slices):
        dataset = _instance(PositronEmissionTomographyImageStorage, _role("pet", examination), index, new_uid)
        _patient_and_study(dataset, acquisition, examination, new_uid)
        _series(dataset, examination, new_uid, number=1, role="pet")
        _plane(dataset, pet.affine, pet.array.shape, index)
        duration_s = acquisition.frame_duration_s
        _pet_timing(dataset, acquisition, examination, beds[index] * duration_s, duration_s)
        _pet_facts(dataset, acquisition, examination, slices=slices, index=index)
        decayed = examination.decay_correction != "NONE"
        _private_facts(dataset, acquisition, examination, 1.0 / units_per_suv[index] if decayed else 0.0)
        _pet_pixels(dataset, values[index], slopes[index], examination.habits)
        instances.append(dataset)
    return instances


def _dynamic_series(
    acquisition: Acquisition, dynamic: DynamicVolume, examination: Examination, new_uid: NewUid
) -> list[Dataset]:
    """Image Index runs through the slices of the first frame, then of the second … (PS3.3 C.8.9.4.1.9)."""
    times, slices = dynamic.array.shape[:2]
    counts = examination.written_units == "CNTS"
    values = dynamic.array / PHILIPS_BQML_PER_COUNT if counts else dynamic.array
    images = [values[place] for place in np.ndindex(times, slices)]
    slopes = _slopes(images, examination.habits)
    instances = []
    for time, index in np.ndindex(times, slices):
        number = time * slices + index
        dataset = _instance(PositronEmissionTomographyImageStorage, _role("dynamic pet", examination), number, new_uid)
        _patient_and_study(dataset, acquisition, examination, new_uid)
        _series(dataset, examination, new_uid, number=2, role="dynamic pet")
        _plane(dataset, dynamic.affine, dynamic.array.shape[1:], index)
        start_s, duration_s = float(dynamic.frame_start_s[time]), float(dynamic.frame_duration_s[time])
        _pet_timing(dataset, acquisition, examination, start_s, duration_s)
        _pet_facts(dataset, acquisition, examination, slices=slices, index=index)
        dataset.SeriesType = ["DYNAMIC", "IMAGE"]
        dataset.NumberOfTimeSlices, dataset.ImageIndex = times, number + 1
        corrected = _corrected_words(acquisition, examination)
        dataset.SeriesDescription = " ".join(f"PET dynamic {examination.phase} {corrected}".split())
        dataset.BodyPartExamined = "HEART"
        _private_facts(dataset, acquisition, examination, 0.0)
        _pet_pixels(dataset, images[number], slopes[number], examination.habits)
        instances.append(dataset)
    return instances


def _role(role: str, examination: Examination) -> str:
    """What a series and its instances are called when their UIDs are made."""
    return f"{examination.phase} {role}".strip()


def _ct_series(acquisition: Acquisition, ct: Volume, examination: Examination, new_uid: NewUid) -> list[Dataset]:
    instances = []
    for index in range(len(ct.array)):
        dataset = _instance(CTImageStorage, _role("ct", examination), index, new_uid)
        _patient_and_study(dataset, acquisition, examination, new_uid)
        _series(dataset, examination, new_uid, number=0, role="ct")
        _plane(dataset, ct.affine, ct.array.shape, index)
        _ct_facts(dataset, ct.affine, examination)
        _pixels(dataset, np.rint(ct.array[index] + 1024.0), bits_stored=12)
        dataset.RescaleSlope, dataset.RescaleIntercept = _ds(1.0), _ds(-1024.0)
        instances.append(dataset)
    return instances


def _instance(sop_class: UID, role: str, index: int, new_uid: NewUid) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(new_uid(f"{role} instance", index))
    dataset.InstanceNumber = index + 1
    return dataset


def _patient_and_study(dataset: Dataset, acquisition: Acquisition, examination: Examination, new_uid: NewUid) -> None:
    dataset.PatientName = examination.patient_name
    dataset.PatientID = examination.patient_id
    dataset.PatientBirthDate = examination.patient_birth_date
    dataset.PatientSex = acquisition.sex
    dataset.PatientWeight = _ds(acquisition.weight_kg)
    dataset.PatientSize = _ds(acquisition.height_m)
    dataset.StudyInstanceUID = new_uid("study", 0)
    dataset.StudyID = f"SIM{acquisition.seed}"[:16]
    dataset.StudyDescription = f"{examination.study_description} simulated seed {acquisition.seed}"[:64]
    dataset.AccessionNumber = examination.accession_number
    dataset.ReferringPhysicianName = ""
    dataset.StudyDate, dataset.StudyTime = _date_time(
        examination.study_started or _ct_started(examination), examination
    )
    if examination.timezone_offset:
        dataset.TimezoneOffsetFromUTC = examination.started.strftime("%z")


def _series(dataset: Dataset, examination: Examination, new_uid: NewUid, *, number: int, role: str) -> None:
    dataset.SeriesInstanceUID = new_uid(f"{_role(role, examination)} series", 0)
    dataset.FrameOfReferenceUID = new_uid("frame of reference", 0)
    dataset.PositionReferenceIndicator = ""
    dataset.SeriesNumber = examination.first_series + number
    dataset.Manufacturer = examination.manufacturer or examination.habits.manufacturer
    dataset.ManufacturerModelName = examination.model or examination.habits.model
    dataset.StationName = examination.station
    dataset.SoftwareVersions = "simulation"
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.PatientPosition = "HFS"


def _ct_started(examination: Examination) -> datetime:
    """The CT comes first; PET of the same visit five minutes later."""
    return examination.started - timedelta(minutes=5)


def _date_time(moment: datetime, examination: Examination) -> tuple[str, str]:
    """DA and TM; the fraction of a second is left out where there is none and the maker does so."""
    time = moment.strftime("%H%M%S.%f")
    whole = examination.habits.whole_seconds and moment.microsecond == 0
    return moment.strftime("%Y%m%d"), time[:6] if whole else time


def _plane(dataset: Dataset, affine: Affine, shape: tuple[int, ...], index: int) -> None:
    """Image Plane module (PS3.3 C.7.6.2) of slice `index`."""
    slice_step, column_step, row_step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    row_mm, column_mm = np.linalg.norm(row_step), np.linalg.norm(column_step)
    normal = np.cross(row_step, column_step) / (row_mm * column_mm)
    position = affine[:3, 3] + index * slice_step
    dataset.ImagePositionPatient = [_ds(float(c)) for c in position]
    dataset.ImageOrientationPatient = [_ds(float(c)) for c in (*row_step / row_mm, *column_step / column_mm)]
    dataset.PixelSpacing = [_ds(float(column_mm)), _ds(float(row_mm))]
    dataset.SliceThickness = _ds(float(abs(normal @ slice_step)))
    dataset.SliceLocation = _ds(float(normal @ position))
    dataset.Rows, dataset.Columns = shape[1], shape[2]


def _pet_timing(
    dataset: Dataset, acquisition: Acquisition, examination: Examination, delay_s: float, duration_s: float
) -> None:
    """Series, acquisition and frame times of a slice that is measured for duration_s from delay_s on."""
    decay_per_s = log(2.0) / acquisition.half_life_s
    in_frame = _decay_in_frame(acquisition, duration_s)
    in_frame_s = examination.habits.frame_reference_s(log(in_frame) / decay_per_s, duration_s)
    series = examination.started + timedelta(seconds=examination.post_processed_s)
    dataset.SeriesDate, dataset.SeriesTime = _date_time(series, examination)
    acquired = examination.started + timedelta(seconds=delay_s)
    dataset.AcquisitionDate, dataset.AcquisitionTime = _date_time(acquired, examination)
    dataset.ContentDate, dataset.ContentTime = _date_time(acquired, examination)
    dataset.ActualFrameDuration = round(duration_s * 1000.0)
    dataset.FrameReferenceTime = _ds(round((delay_s + in_frame_s) * 1000.0, 3))
    if examination.decay_correction != "NONE":
        since_reference_s = delay_s + (acquisition.uptake_s if examination.decay_correction == "ADMIN" else 0.0)
        dataset.DecayFactor = _ds(in_frame * exp(decay_per_s * since_reference_s))


def _decay_in_frame(acquisition: Acquisition, duration_s: float) -> float:
    """λT / (1 − e^(−λT)): activity at the start of a frame over its mean during the frame."""
    decayed = log(2.0) / acquisition.half_life_s * duration_s
    return decayed / -expm1(-decayed)


def _units_per_suv(acquisition: Acquisition, examination: Examination, bed: int) -> float:
    """What one g/mL SUVbw is in the written units, for a slice of a bed position."""
    if examination.written_units == "GML":
        return 1.0
    bqml_per_unit = PHILIPS_BQML_PER_COUNT if examination.written_units == "CNTS" else 1.0
    at_injection = acquisition.dose_bq / (acquisition.weight_kg * 1000.0) / bqml_per_unit
    decay_per_s = log(2.0) / acquisition.half_life_s
    if examination.decay_correction == "ADMIN":
        return at_injection
    if examination.decay_correction == "START":
        return at_injection * exp(-decay_per_s * acquisition.uptake_s)
    since_injection_s = acquisition.uptake_s + bed * acquisition.frame_duration_s
    in_frame = _decay_in_frame(acquisition, acquisition.frame_duration_s)
    return at_injection * exp(-decay_per_s * since_injection_s) / in_frame


def _pet_facts(
    dataset: Dataset, acquisition: Acquisition, examination: Examination, *, slices: int, index: int
) -> None:
    """PET Series and PET Image modules (PS3.3 C.8.9.1, C.8.9.4)."""
    habits, attenuated = examination.habits, acquisition.attenuation_corrected
    dataset.Modality = "PT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SeriesDescription = f"PET WB {_corrected_words(acquisition, examination)}"
    dataset.SeriesType = ["WHOLE BODY" if examination.beds > 1 and habits.whole_body else "STATIC", "IMAGE"]
    dataset.Units = examination.written_units
    if dataset.Units == "GML":
        dataset.SUVType = "BW"
    dataset.CountsSource = "EMISSION"
    dataset.CorrectedImage = _corrections(acquisition, examination)
    if {"SLSENS", "DCAL"} & set(dataset.CorrectedImage):
        dataset.SliceSensitivityFactor, dataset.DoseCalibrationFactor = "1", "1"
    dataset.DecayCorrection = examination.decay_correction
    dataset.NumberOfSlices = slices
    dataset.ImageIndex = index + 1
    dataset.CollimatorType = habits.collimator
    dataset.ReconstructionMethod = "SIMULATED"
    if (attenuation := habits.attenuation[not attenuated]) is not None:
        dataset.AttenuationCorrectionMethod = attenuation
    if (scatter := habits.scatter[not attenuated]) is not None:
        dataset.ScatterCorrectionMethod = scatter
    dataset.RandomsCorrectionMethod = habits.randoms
    dataset.RadiopharmaceuticalInformationSequence = [_radiopharmaceutical(acquisition, examination)]
    _lie_supine_head_first(dataset)


def _corrections(acquisition: Acquisition, examination: Examination) -> list[str]:
    """Corrected Image (0028,0051); without the correction for attenuation there is none for scatter."""
    left_out = set() if acquisition.attenuation_corrected else {"ATTN", "SCAT"}
    left_out |= {"DECY"} if examination.decay_correction == "NONE" else set()
    return [correction for correction in examination.habits.corrected_image if correction not in left_out]


def _corrected_words(acquisition: Acquisition, examination: Examination) -> str:
    return examination.habits.corrected_words if acquisition.attenuation_corrected else "NAC"


def _private_facts(dataset: Dataset, acquisition: Acquisition, examination: Examination, suv_per_unit: float) -> None:
    """The maker's private block; suv_per_unit is 0 where the pixels cannot be an SUV by one factor."""
    if examination.maker == "ge":
        (injection,) = dataset.RadiopharmaceuticalInformationSequence
        scan = GEScan(
            scanned="".join(_date_time(examination.started, examination)),
            injected=injection.RadiopharmaceuticalStartDateTime,
            tracer=injection.Radiopharmaceutical,
            radionuclide=acquisition.radionuclide,
            dose_bq=acquisition.dose_bq,
            half_life_s=acquisition.half_life_s,
            positron_fraction=POSITRON_FRACTION[acquisition.radionuclide],
        )
        makers.put_ge_block(dataset, scan)
    if examination.written_units == "CNTS":
        makers.put_philips_factors(dataset, suv_per_unit)


def _radiopharmaceutical(acquisition: Acquisition, examination: Examination) -> Dataset:
    """PET Isotope module (PS3.3 C.8.9.2)."""
    if acquisition.radionuclide not in RADIONUCLIDES or acquisition.tracer not in TRACERS:
        raise ValueError(
            f"no code for {acquisition.tracer} of {acquisition.radionuclide}; tracers {sorted(TRACERS)}, "
            f"radionuclides {sorted(RADIONUCLIDES)}"
        )
    injected = examination.started - timedelta(seconds=acquisition.uptake_s)
    item = Dataset()
    item.Radiopharmaceutical = TRACERS[acquisition.tracer].meaning
    item.RadiopharmaceuticalStartTime = _date_time(injected, examination)[1]
    item.RadiopharmaceuticalStartDateTime = "".join(_date_time(injected, examination))
    item.RadionuclideTotalDose = _ds(acquisition.dose_bq)
    item.RadionuclideHalfLife = _ds(acquisition.half_life_s)
    item.RadionuclidePositronFraction = _ds(POSITRON_FRACTION[acquisition.radionuclide])
    item.RadionuclideCodeSequence = [_code(RADIONUCLIDES[acquisition.radionuclide])]
    item.RadiopharmaceuticalCodeSequence = [_code(TRACERS[acquisition.tracer])]
    return item


def _lie_supine_head_first(dataset: Dataset) -> None:
    """NM/PET Patient Orientation module (PS3.3 C.8.4.6); it takes the place of Patient Position."""
    del dataset.PatientPosition
    recumbent = _code(Code("102538003", "SCT", "recumbent"))
    recumbent.PatientOrientationModifierCodeSequence = [_code(Code("40199007", "SCT", "supine"))]
    dataset.PatientOrientationCodeSequence = [recumbent]
    dataset.PatientGantryRelationshipCodeSequence = [_code(Code("102540008", "SCT", "headfirst"))]


def _ds(number: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    return format_number_as_ds(float(number))


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _ct_facts(dataset: Dataset, affine: Affine, examination: Examination) -> None:
    """CT Image module (PS3.3 C.8.2.1)."""
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription = "CT WB low dose"
    started = _ct_started(examination)
    dataset.SeriesDate, dataset.SeriesTime = _date_time(started, examination)
    dataset.AcquisitionDate, dataset.AcquisitionTime = _date_time(started, examination)
    dataset.ContentDate, dataset.ContentTime = _date_time(started, examination)
    dataset.AcquisitionNumber = 1
    dataset.KVP = "120"
    dataset.ConvolutionKernel = "SIMULATED"
    normal = np.cross(affine[:3, 2], affine[:3, 1])
    cosine = abs(normal @ affine[:3, 0]) / np.linalg.norm(normal) / np.linalg.norm(affine[:3, 0])
    dataset.GantryDetectorTilt = _ds(round(float(np.degrees(np.arccos(min(cosine, 1.0)))), 6))


def _slopes(values: list[NDArray[np.floating]], habits: Habits) -> list[float]:
    """Rescale Slope of each image: its own, or that of the whole series; the highest value uses all of 15 bits."""
    highest = [float(image.max(initial=0.0)) for image in values]
    if not habits.slope_per_slice:
        highest = [max(highest, default=0.0)] * len(highest)
    return [float(_ds(value / HIGHEST_STORED)) if value > 0.0 else 1.0 for value in highest]


def _pet_pixels(dataset: Dataset, values: NDArray[np.floating], slope: float, habits: Habits) -> None:
    """Signed or not, 15 bits are used."""
    _pixels(dataset, np.clip(np.rint(values / slope), 0, HIGHEST_STORED), bits_stored=16, signed=habits.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = _ds(slope), _ds(0.0)
    highest = float(values.max(initial=0.0))
    window = _ds(max(highest, 1.0))  # narrower is not permitted (PS3.3 C.11.2.1.2)
    dataset.WindowCenter, dataset.WindowWidth = _ds(float(window) / 2.0), window


def _pixels(dataset: Dataset, stored: NDArray[np.floating], *, bits_stored: int, signed: bool = False) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"
