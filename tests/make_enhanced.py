"""The builder of Enhanced PET objects for every test, attribute by attribute after PS3.3 A.56."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedPETImageStorage, ExplicitVRLittleEndian

STARTED = datetime(2026, 3, 2, 9, 30)
INJECTED = datetime(2026, 3, 2, 8, 30)
HALF_LIFE_S = 6586.2
DOSE_MBQ = 350.0
WEIGHT_KG = 70.0
SPACING_MM = (3.0, 4.0, 5.0)
"""Of slices, rows and columns."""
CORRECTIONS = """
    DecayCorrected AttenuationCorrected ScatterCorrected DeadTimeCorrected GantryMotionCorrected PatientMotionCorrected
    CountLossNormalizationCorrected RandomsCorrected NonUniformRadialSamplingCorrected SensitivityCalibrated
    DetectorNormalizationCorrection
""".split()  # noqa: SIM905 - a long list
NOT_APPLIED = {"GantryMotionCorrected", "PatientMotionCorrected", "NonUniformRadialSamplingCorrected"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What one frame says of itself.

    z : index of the slice; slope : of the Real World Value Mapping [unit per stored value]
    start_s : after STARTED; position : Temporal Position Index; trigger_ms : after the R wave, of a gated frame
    """

    z: int
    slope: float
    start_s: float = 0.0
    duration_s: float = 180.0
    position: int = 1
    trigger_ms: float | None = None


def static(slices: int, *, slope: float = 2.0) -> list[Frame]:
    """One frame per slice, each with a slope of its own."""
    return [Frame(z=z, slope=slope * (1.0 + 0.25 * z)) for z in range(slices)]


def dynamic(slices: int, durations_s: Sequence[float], *, slope: float = 2.0) -> list[Frame]:
    """Frame after frame without a pause."""
    starts_s = np.concatenate([[0.0], np.cumsum(durations_s)[:-1]])
    return [
        Frame(z=z, slope=slope * (1.0 + 0.25 * z + t), start_s=start, duration_s=duration, position=t + 1)
        for t, (start, duration) in enumerate(zip(starts_s.tolist(), durations_s, strict=True))
        for z in range(slices)
    ]


def gated(slices: int, triggers_ms: Sequence[float], *, slope: float = 2.0) -> list[Frame]:
    """All gates were measured together."""
    return [
        Frame(z=z, slope=slope * (1.0 + 0.25 * z + t), trigger_ms=trigger)
        for t, trigger in enumerate(triggers_ms)
        for z in range(slices)
    ]


def pixels(frames: int, rows: int = 6, columns: int = 8, *, seed: int = 1) -> NDArray[np.uint16]:
    """Stored values (frames, rows, columns), all of them different from frame to frame."""
    return np.random.default_rng(seed).integers(0, 60_000, (frames, rows, columns), dtype=np.uint16)


def enhanced_pet(
    frames: Sequence[Frame],
    stored: NDArray[np.uint16],
    *,
    unit: str = "Bq/ml",
    decay_corrected_to: datetime | None = STARTED,
    instance: int = 1,
    series: str = "series",
    edit: Callable[[Dataset], Any] | None = None,
) -> Dataset:
    """One instance, ready for `make.save`.

    stored : uint16 (frames, rows, columns)
    unit : UCUM code of the Real World Value Mapping
    decay_corrected_to : Decay Correction DateTime, None for a series without decay correction
    """
    dataset = _identity(instance, series)
    dataset.DecayCorrected = "NO" if decay_corrected_to is None else "YES"
    if decay_corrected_to is not None:
        dataset.DecayCorrectionDateTime = _dt(decay_corrected_to)
    _equipment_and_acquisition(dataset, frames)
    _isotope(dataset)
    _image(dataset, stored)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups()]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(frame, unit, decay_corrected_to) for frame in frames]
    _dimensions(dataset, frames)
    if edit is not None:
        edit(dataset)
    return dataset


def concatenation(dataset: Dataset, sizes: Sequence[int]) -> list[Dataset]:
    """The same object as a concatenation of instances with so many frames each (PS3.3 C.7.6.16.1.1)."""
    parts = []
    first = 0
    for number, size in enumerate(sizes, start=1):
        part = deepcopy(dataset)
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = _uid(f"part {number}")
        part.SOPInstanceUIDOfConcatenationSource, part.ConcatenationUID = dataset.SOPInstanceUID, _uid("concatenation")
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, len(sizes)
        part.ConcatenationFrameOffsetNumber, part.NumberOfFrames = first, size
        part.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[first : first + size]
        frame_bytes = len(dataset.PixelData) // dataset.NumberOfFrames
        part.PixelData = dataset.PixelData[first * frame_bytes : (first + size) * frame_bytes]
        parts.append(part)
        first += size
    return parts


def _identity(instance: int, series: str) -> Dataset:
    """Patient, General and Patient Study, General and Enhanced PET Series, Frame of Reference, SOP Common."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedPETImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(f"{series} instance {instance}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid("study"), _uid(series)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = _uid("frame of reference"), ""
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "E^T", "EN1", "19600101", "F"
    dataset.PatientWeight, dataset.PatientSize = str(WEIGHT_KG), "1.7"
    dataset.StudyDate, dataset.StudyTime = STARTED.strftime("%Y%m%d"), "090000"
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "PT", 3, "PET WB AC"
    dataset.SeriesDate, dataset.SeriesTime = STARTED.strftime("%Y%m%d"), "120000"  # the reconstruction
    dataset.PatientPosition = "HFS"
    dataset.InstanceNumber = instance
    dataset.ContentDate, dataset.ContentTime = STARTED.strftime("%Y%m%d"), "120000"
    return dataset


def _equipment_and_acquisition(dataset: Dataset, frames: Sequence[Frame]) -> None:
    """Enhanced General Equipment, Enhanced PET Acquisition and Corrections, Cardiac Synchronization."""
    dataset.Manufacturer, dataset.ManufacturerModelName = "SIMULATED", "Enhanced PET/CT"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"
    dataset.AcquisitionStartCondition, dataset.AcquisitionTerminationCondition = "MANU", "TIME"
    dataset.TerminationTimeThreshold = sum({frame.start_s: frame.duration_s for frame in frames}.values())
    dataset.TableMotion, dataset.TypeOfDetectorMotion = "STATIC", "STATIONARY"
    dataset.CollimatorType, dataset.DetectorGeometry = "NONE", "CYLINDRICAL_RING"
    dataset.TransverseDetectorSeparation, dataset.AxialDetectorDimension = 800.0, 4.0
    dataset.TimeOfFlightInformationUsed, dataset.SliceProgressionDirection = "TRUE", "HEAD_TO_FEET"
    window = Dataset()
    window.EnergyWindowLowerLimit, window.EnergyWindowUpperLimit = "435", "650"
    dataset.EnergyWindowRangeSequence = [window]
    dataset.ViewCodeSequence = [_code("260453008", "SCT", "Axial")]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.CoincidenceWindowWidth = 4.0
    dataset.CountsSource = "EMISSION"
    for keyword in CORRECTIONS[1:]:
        setattr(dataset, keyword, "NO" if keyword in NOT_APPLIED else "YES")
    dataset.AttenuationCorrectionSource, dataset.AttenuationCorrectionTemporalRelationship = "CT", "SIMULTANEOUS"
    dataset.RandomsCorrectionMethod, dataset.ScatterCorrectionMethod = "DLYD", "SIMULATED"
    if any(frame.trigger_ms is not None for frame in frames):
        dataset.CardiacSynchronizationTechnique, dataset.CardiacSignalSource = "RETROSPECTIVE", "ECG"
        dataset.CardiacRRIntervalSpecified, dataset.CardiacBeatRejectionTechnique = 800.0, "NONE"
        dataset.LowRRValue, dataset.HighRRValue, dataset.IntervalsAcquired, dataset.IntervalsRejected = 600, 1000, 90, 2


def _isotope(dataset: Dataset) -> None:
    injection = Dataset()
    injection.RadiopharmaceuticalAgentNumber = 1
    injection.RadionuclideCodeSequence = [_code("77004003", "SCT", "^18^Fluorine")]
    injection.AdministrationRouteCodeSequence = [_code("47625008", "SCT", "Intravenous route")]
    injection.RadiopharmaceuticalCodeSequence = [_code("35321007", "SCT", "Fluorodeoxyglucose F^18^")]
    injection.RadiopharmaceuticalStartDateTime = _dt(INJECTED)
    injection.RadionuclideTotalDose = str(DOSE_MBQ)  # PS3.3 C.8.22.4: in MBq
    injection.RadionuclideHalfLife, injection.RadionuclidePositronFraction = str(HALF_LIFE_S), "0.9673"
    dataset.RadiopharmaceuticalInformationSequence = [injection]


def _image(dataset: Dataset, stored: NDArray[np.uint16]) -> None:
    """Enhanced PET Image, Image Pixel, Acquisition Context."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.AcquisitionNumber, dataset.AcquisitionDateTime, dataset.AcquisitionDuration = 1, _dt(STARTED), 180.0
    dataset.ContentQualification = "RESEARCH"
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique, dataset.BurnedInAnnotation = "NONE", "NO"
    dataset.LossyImageCompression, dataset.PresentationLUTShape = "00", "IDENTITY"
    dataset.AcquisitionContextSequence = []
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = stored.astype("<u2").tobytes()


def _shared_groups() -> Dataset:
    groups = Dataset()
    slices_mm, rows_mm, columns_mm = SPACING_MM
    groups.PixelMeasuresSequence = [_item(PixelSpacing=[rows_mm, columns_mm], SliceThickness=slices_mm)]
    groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    groups.FrameAnatomySequence = [
        _item(FrameLaterality="U", AnatomicRegionSequence=[_code("38266002", "SCT", "Entire body")])
    ]
    groups.FrameVOILUTSequence = [_item(WindowCenter="20000", WindowWidth="40000")]
    groups.RadiopharmaceuticalUsageSequence = [_item(RadiopharmaceuticalAgentNumber=1)]
    groups.PETFrameTypeSequence = [
        _item(
            FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
        )
    ]
    groups.PETFrameAcquisitionSequence = [
        _item(DataCollectionDiameter=800.0, GantryDetectorTilt=0.0, GantryDetectorSlew=0.0, TableHeight=900.0)
    ]
    groups.PETPositionSequence = [
        _item(
            DataCollectionCenterPatient=[0.0, 0.0, 0.0],
            ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
            TablePosition=100.0,
        )
    ]
    groups.PETReconstructionSequence = [
        _item(
            ReconstructionAlgorithm="ITER",
            ReconstructionType="3D",
            ReconstructionDiameter="600",
            IterativeReconstructionMethod="YES",
            NumberOfIterations=3,
            NumberOfSubsets=21,
        )
    ]
    return groups


def _frame_groups(frame: Frame, unit: str, decay_corrected_to: datetime | None) -> Dataset:
    groups = Dataset()
    begun = STARTED + timedelta(seconds=frame.start_s)
    decay_factor = 1.0
    if decay_corrected_to is not None:  # PS3.3 C.8.9.4.1.6 and the mean over the frame
        decays = log(2.0) / HALF_LIFE_S * frame.duration_s
        elapsed_s = (begun - decay_corrected_to).total_seconds()
        decay_factor = exp(log(2.0) / HALF_LIFE_S * elapsed_s) * decays / (1.0 - exp(-decays))
    groups.FrameContentSequence = [
        _item(
            FrameAcquisitionDateTime=_dt(begun),
            FrameReferenceDateTime=_dt(begun + timedelta(seconds=frame.duration_s / 2)),
            FrameAcquisitionDuration=frame.duration_s * 1000.0,
            StackID="1",
            InStackPositionNumber=frame.z + 1,
            TemporalPositionIndex=frame.position,
        )
    ]
    groups.PlanePositionSequence = [_item(ImagePositionPatient=[-20.0, -30.0, SPACING_MM[0] * frame.z])]
    # The stored values are no unit of their own: only the mapping says what they are.
    groups.PixelValueTransformationSequence = [_item(RescaleSlope="1", RescaleIntercept="0", RescaleType="US")]
    groups.RealWorldValueMappingSequence = [mapping(unit, frame.slope)]
    groups.PETFrameCorrectionFactorsSequence = [
        _item(
            PrimaryPromptsCountsAccumulated=1000,
            SliceSensitivityFactor="1",
            DecayFactor=f"{decay_factor:.12g}",
            ScatterFractionFactor="0.3",
            DeadTimeFactor="1.1",
        )
    ]
    if frame.trigger_ms is not None:
        groups.CardiacSynchronizationSequence = [
            _item(NominalCardiacTriggerDelayTime=frame.trigger_ms, RRIntervalTimeNominal=800.0)
        ]
    return groups


def mapping(unit: str, slope: float, *, first: int = 0, last: int = 65535) -> Dataset:
    """An item of Real World Value Mapping Sequence."""
    item = _item(
        LUTExplanation="real world value",
        LUTLabel="RWV",
        RealWorldValueIntercept=0.0,
        RealWorldValueSlope=float(slope),
        MeasurementUnitsCodeSequence=[_code(unit, "UCUM", unit)],
    )
    item.add_new("RealWorldValueFirstValueMapped", "US", first)
    item.add_new("RealWorldValueLastValueMapped", "US", last)
    return item


def _dimensions(dataset: Dataset, frames: Sequence[Frame]) -> None:
    """Multi-frame Dimension: gates, then time, then the place in the stack."""
    organization = _uid("dimensions")
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    pointers = {"TemporalPositionIndex": "FrameContentSequence", "InStackPositionNumber": "FrameContentSequence"}
    if any(frame.trigger_ms is not None for frame in frames):
        pointers = {"NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence"} | pointers
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=_tag(pointer),
            FunctionalGroupPointer=_tag(group),
        )
        for pointer, group in pointers.items()
    ]
    triggers = sorted({frame.trigger_ms for frame in frames if frame.trigger_ms is not None})
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        gate = [] if frame.trigger_ms is None else [triggers.index(frame.trigger_ms) + 1]
        groups.FrameContentSequence[0].DimensionIndexValues = [*gate, frame.position, frame.z + 1]


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _dt(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S.%f")


def _uid(role: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(f'enhanced {role}'.encode()).digest()[:16], 'big')}"
