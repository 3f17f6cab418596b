"""A volume computed from a PET series → a derived PET series on the source's grid (PS3.3 A.21, C.8.9).

Everything that gives the numbers their meaning is the source's: patient, injection, corrections, frame times, and above
all Series Date and Time, which is what Decay Correction START counts from (C.8.9.1.1.4). When and by whom the images
were made stands in Instance Creation, Content Date and Time, and Contributing Equipment.

Bq/mL is written as BQML with the source's decay correction. SUVbw is written as GML, SUV Type BW: no reader then has a
decay left to compute, so that all show the SUV the engine computed. Viewers ask for dose, weight and injection even so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import PositronEmissionTomographyImageStorage
from pydicom.valuerep import TM, format_number_as_ds

from dicom_io import times
from dicom_io.errors import GeometryRefused, PixelsRefused, QuantityRefused
from dicom_io.geometry import apart_mm
from dicom_io.headers import PRIVATE_ELEMENTS
from dicom_io.volume import LoadedSeries
from dicom_io.write.header import RESEARCH_USE_ONLY, Identity, arguments, ascii_text, settle
from engines.contract import DynamicVolume, FloatArray, Quantity, Volume

GRID_TOLERANCE_MM: Final = 1e-2
FRAME_TOLERANCE_S: Final = 1e-3
NEGLIGIBLE: Final = 1e-12
"""Slices without a larger value [g/mL, Bq/mL] are written as zeros: their slope would be no number for most readers."""
SUV_WINDOW: Final = (0.0, 10.0)
"""What PET is usually looked at in [g/mL]; one window for the series, whatever the slope of a slice."""
FAULT_OF_THE_ENGINE: Final = "A fault of the engine that computed the volume: report it to its author."
UNITS: Final = {Quantity.SUVBW: "GML", Quantity.ACTIVITY_BQML: "BQML"}

_SERIES = """
    SeriesDate SeriesTime PerformingPhysicianName OperatorsName BodyPartExamined ProtocolName PatientPosition
    Laterality AnatomicalOrientationType ReferencedPerformedProcedureStepSequence RequestAttributesSequence
    SeriesType CountsSource CorrectedImage DecayCorrection RandomsCorrectionMethod AttenuationCorrectionMethod
    ScatterCorrectionMethod ReconstructionMethod ReprojectionMethod CollimatorType CollimatorGridName ConvolutionKernel
    AcquisitionTerminationCondition AcquisitionStartCondition AcquisitionStartConditionData
    AcquisitionTerminationConditionData ReconstructionDiameter GantryDetectorTilt GantryDetectorSlew FieldOfViewShape
    FieldOfViewDimensions EnergyWindowRangeSequence NumberOfRRIntervals NumberOfTimeSlots TypeOfDetectorMotion
    ScanProgressionDirection DetectorLinesOfResponseUsed AxialAcceptance AxialMash TransverseMash DetectorElementSize
    CoincidenceWindowWidth SecondaryCountsType InterventionDrugInformationSequence
    RadiopharmaceuticalInformationSequence PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence
    FrameOfReferenceUID PositionReferenceIndicator InstitutionName InstitutionalDepartmentName
    TriggerSourceOrType CardiacFramingType BeatRejectionFlag PVCRejection SkipBeats HeartRate
"""
_IMAGE = """
    AcquisitionUID AcquisitionDate AcquisitionTime AcquisitionDateTime AcquisitionDuration AcquisitionNumber
    IrradiationEventUID TemporalPositionIdentifier NumberOfTemporalPositions TemporalPositionIndex
    AnatomicRegionSequence PrimaryAnatomicStructureSequence PatientOrientation BurnedInAnnotation
    RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
    Rows Columns PixelSpacing ImagePositionPatient ImageOrientationPatient SliceThickness SpacingBetweenSlices
    SliceLocation TriggerTime NominalInterval FrameTime LowRRValue HighRRValue IntervalsAcquired IntervalsRejected
    ActualFrameDuration FrameReferenceTime DecayFactor SliceProgressionDirection PrimaryPromptsCountsAccumulated
    SecondaryCountsAccumulated SliceSensitivityFactor DoseCalibrationFactor ScatterFractionFactor DeadTimeFactor
    ViewCodeSequence AcquisitionContextSequence LongitudinalTemporalInformationModified SyntheticData
"""
KEPT_KEYWORDS: Final = (*_SERIES.split(), *_IMAGE.split())
"""Of the source, apart from Patient and Study: the list is closed, so that no overlay, icon, padding value, value
mapping, signature or vendor's private scale factor of other pixels comes along."""
EMPTY_IF_UNKNOWN: Final = (
    "CorrectedImage",
    "CollimatorType",
    "RadiopharmaceuticalInformationSequence",
    "PatientOrientationCodeSequence",
    "PatientGantryRelationshipCodeSequence",
    "PositionReferenceIndicator",
    "AcquisitionDate",
    "AcquisitionTime",
    "ActualFrameDuration",
    "SliceThickness",
)
"""Type 2 attributes of the kept ones."""
EQUIPMENT_KEYWORDS: Final = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
NEEDED_FOR_DECAY: Final = ("SeriesDate", "SeriesTime", "DecayCorrection")
NEEDED_FOR_SUV: Final = ("RadionuclideTotalDose", "RadionuclideHalfLife")
START_TIMES: Final = ("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime")


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a volume came about.

    name : of the volume among the products of the engine; begins the Series Description
    code : of PS3.16 CID 7203 Image Derivation
    description : one sentence that names the method and its parameters
    """

    name: str
    code: Code
    description: str


def derived_pet(
    volume: Volume | DynamicVolume, source: LoadedSeries, identity: Identity, derivation: Derivation
) -> list[Dataset]:
    """One PET image for every image of the source, in the order of `source.datasets`.

    volume : on the grid and with the frames of the source, and in the quantity the source was loaded in; a reader gets
        every value back to half a Rescale Slope, which is the largest absolute value of its slice / 65535 (/ 32767
        where the series has negative values: one Pixel Representation for all)
    source : a series of single-frame PET images

    Raises
    ------
    GeometryRefused
        not-source-grid, not-source-frames.
    QuantityRefused
        sop-class (multi-frame sources, other modalities), not-source-quantity, no-decay-correction (SUV is corrected
        for decay, the source says NONE), derived-header (the source lacks what decay correction or SUV rest on).
    PixelsRefused
        not-finite.
    """
    _check_source(source, volume.quantity)
    planes = _planes(volume, source)
    signed = bool((planes < 0.0).any())
    window = SUV_WINDOW if volume.quantity is Quantity.SUVBW else (0.0, max(1.0, float(planes.max())))
    images: list[Dataset] = []
    with config.disable_value_validation():
        for index, image_index in enumerate(_image_indices(source.datasets)):
            original = source.datasets[index]
            image = _new_image(original, identity, derivation, index)
            _keep(image, original, identity)
            _describe_derivation(image, original, identity, derivation)
            image.Units = UNITS[volume.quantity]
            if volume.quantity is Quantity.SUVBW:
                image.SUVType = "BW"
            image.ImageIndex = image.InstanceNumber = image_index
            _count(image, volume)
            _store(image, planes[index], signed=signed)
            image.WindowCenter, image.WindowWidth = (_ds(sum(window) / 2.0), _ds(window[1] - window[0]))
            images.append(image)
    return images


def _check_source(source: LoadedSeries, quantity: Quantity) -> None:
    if any(original.SOPClassUID != PositronEmissionTomographyImageStorage for original in source.datasets):
        message = "SOP Class UID (0008,0016): expected Positron Emission Tomography Image Storage on every source image"
        raise QuantityRefused(message, code="sop-class")
    if quantity is not source.volume.quantity or quantity not in UNITS:
        message = f"volume: expected the source's quantity, {source.volume.quantity.value}, got {quantity.value}"
        raise QuantityRefused(message, code="not-source-quantity")
    for original in source.datasets:
        missing = sorted(_missing(original, quantity))
        if missing:
            message = f"source: expected what decay correction and SUV rest on, {', '.join(missing)} absent or empty"
            raise QuantityRefused(message, code="derived-header")
        if quantity is Quantity.SUVBW and original.DecayCorrection == "NONE":
            message = "Decay Correction (0054,1102): expected START or ADMIN for a series of SUV, got NONE"
            raise QuantityRefused(message, code="no-decay-correction")


def _missing(original: Dataset, quantity: Quantity) -> Iterator[str]:
    """What viewers need to show SUV, and refuse to go without even where Units is GML."""
    yield from (keyword for keyword in NEEDED_FOR_DECAY if not original.get(keyword))
    if quantity is Quantity.SUVBW:
        given = next(iter(original.get("RadiopharmaceuticalInformationSequence") or ()), Dataset())
        yield from (keyword for keyword in NEEDED_FOR_SUV if not given.get(keyword))
        if not any(given.get(keyword) for keyword in START_TIMES):
            yield START_TIMES[0]
        if not original.get("PatientWeight"):
            yield "PatientWeight"


def _planes(volume: Volume | DynamicVolume, source: LoadedSeries) -> FloatArray:
    """float32 (images, y, x) in the order of the source's data sets."""
    expected = source.volume
    if volume.array.shape != expected.array.shape:
        message = f"volume: expected the source's {expected.array.shape} voxels, got {volume.array.shape}"
        raise GeometryRefused(message, code="not-source-grid", hint=FAULT_OF_THE_ENGINE)
    apart = apart_mm(volume.affine, expected.affine, volume.array.shape)
    if not apart <= GRID_TOLERANCE_MM:
        message = f"volume: expected its voxels at those of the source, got up to {apart:.3g} mm aside"
        raise GeometryRefused(message, code="not-source-grid", hint=FAULT_OF_THE_ENGINE)
    if not np.allclose(_frame_times(volume), _frame_times(expected), rtol=0.0, atol=FRAME_TOLERANCE_S, equal_nan=True):
        message = "volume: expected its frames at the times of the source's, got others"
        raise GeometryRefused(message, code="not-source-frames", hint=FAULT_OF_THE_ENGINE)
    faulty = int(np.count_nonzero(~np.isfinite(volume.array)))
    if faulty:
        message = f"volume: expected finite values, {faulty} of {volume.array.size} are not"
        raise PixelsRefused(message, code="not-finite", hint=FAULT_OF_THE_ENGINE)
    return volume.array.reshape(len(source.datasets), *volume.array.shape[-2:])


def _frame_times(volume: Volume | DynamicVolume) -> NDArray[np.float64]:
    """float64 (2, t): starts and durations of the frames of a dynamic volume, (2, 0) of another."""
    if isinstance(volume, Volume):
        return np.empty((2, 0))
    return np.stack([volume.frame_start_s, volume.frame_duration_s])


def _new_image(original: Dataset, identity: Identity, derivation: Derivation, index: int) -> SOPClass:
    """An image of our own in the source's study: Patient, Study, Series, Equipment, SOP Common."""
    ours = arguments(identity, "pet", derivation.name, original)
    equipment = ours.pop("contributing_equipment")
    ours["series_instance_uid"] = identity.uid("pet", f"{derivation.name} series")
    ours["sop_instance_uid"] = identity.uid("pet", f"{derivation.name} instance", index)
    image = SOPClass(
        study_instance_uid=original.StudyInstanceUID,
        sop_class_uid=PositronEmissionTomographyImageStorage,
        modality="PT",
        **ours,
    )
    image.ContributingEquipmentSequence = equipment
    settle(image, original, identity)
    return image


def _others_equipment(original: Dataset) -> Iterator[Dataset]:
    """The scanner and whatever else had its hand in the source (PS3.3 C.12.1.1.5)."""
    if original.get("Manufacturer"):  # Type 1 here
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.AcquisitionEquipment)]
        for keyword in EQUIPMENT_KEYWORDS:
            if original.get(keyword):
                scanner[keyword] = original[keyword]
        yield scanner
    yield from deepcopy(list(original.get("ContributingEquipmentSequence") or ()))


def _keep(image: Dataset, original: Dataset, identity: Identity) -> None:
    for keyword in ("SeriesDate", "SeriesTime"):
        del image[keyword]
    for keyword in KEPT_KEYWORDS:
        if keyword in original:
            image[keyword] = deepcopy(original[keyword])
    for keyword in EMPTY_IF_UNKNOWN:
        if keyword not in image:
            setattr(image, keyword, None)
    if original.get("PatientOrientationCodeSequence"):
        image.pop("PatientPosition", None)  # may not stand beside the other one (PS3.3 C.7.3.1.1.2)
    for given in image.RadiopharmaceuticalInformationSequence or ():
        _say_start_time(given, original, identity)
    _keep_scan_date_time(image, original)


def _say_start_time(given: Dataset, original: Dataset, identity: Identity) -> None:
    """Radiopharmaceutical Start Time (0018,1072) where only the DateTime was sent: some viewers read no other."""
    at = times.date_time(str(given.get("RadiopharmaceuticalStartDateTime") or ""))
    if at is not None and not given.get("RadiopharmaceuticalStartTime"):
        zone = times.utc_offset(str(original.get("TimezoneOffsetFromUTC") or "").strip()) or identity.timezone
        local = at.astimezone(zone) if at.tzinfo else at
        given.RadiopharmaceuticalStartTime = TM(local.time())


def _keep_scan_date_time(image: Dataset, original: Dataset) -> None:
    """GE (0009,xx0d), the decay reference where Series Time was rewritten: with its block, as it was sent."""
    group, creator, element, _ = PRIVATE_ELEMENTS["GEScanDateTime"]
    for block in range(0x10, 0x100):
        tags = (group, block), (group, block << 8 | element)
        if all(tag in original for tag in tags) and original[tags[0]].value == creator:
            for tag in tags:
                image.add(original[tag])


def _describe_derivation(image: Dataset, original: Dataset, identity: Identity, derivation: Derivation) -> None:
    """General Image and General Reference modules (PS3.3 C.7.6.1, C.12.4, C.8.9.4.1.1)."""
    made_by = f"{identity.engine} {identity.engine_version}, weights sha256 {identity.weights_sha256 or 'none'}"
    image.ContributingEquipmentSequence = [*_others_equipment(original), *image.ContributingEquipmentSequence]
    image.ImageType = ["DERIVED", "PRIMARY"]
    image.DerivationDescription = ascii_text(f"{RESEARCH_USE_ONLY}. {derivation.description} {made_by}")[:1024]
    image.DerivationCodeSequence = [_coded(derivation.code)]
    item = Dataset()
    item.ReferencedSOPClassUID = original.SOPClassUID
    item.ReferencedSOPInstanceUID = original.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
    item.SpatialLocationsPreserved = "YES"
    image.SourceImageSequence = [item]


def _coded(code: Code) -> CodedConcept:
    return CodedConcept.from_code(code)


def _image_indices(originals: Sequence[Dataset]) -> list[int]:
    """Image Index (0054,1330) of the source (PS3.3 C.8.9.4.1.9); counted anew where it does not number 1 … n."""
    numbers = range(1, len(originals) + 1)
    said = [int(original.get("ImageIndex") or 0) for original in originals]
    return said if sorted(said) == list(numbers) else list(numbers)


def _count(image: Dataset, volume: Volume | DynamicVolume) -> None:
    """Number of Slices, and of Time Slices where the series is dynamic (PS3.3 C.8.9.1)."""
    image.NumberOfSlices = volume.array.shape[-3]
    if (image.get("SeriesType") or [""])[0] == "DYNAMIC":
        image.NumberOfTimeSlices = volume.array.shape[0] if volume.array.ndim == 4 else 1


def _store(image: Dataset, plane: FloatArray, *, signed: bool) -> None:
    """Image Pixel module and Rescale of one slice (PS3.3 C.7.6.3, C.8.9.4): 16 bits, a slope of its own."""
    stored, slope = stored_values(plane, signed=signed)
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelRepresentation = int(signed)
    image.RescaleIntercept, image.RescaleSlope = "0", slope
    image.PixelData = stored.tobytes()
    image["PixelData"].VR = "OW"


def stored_values(plane: FloatArray, *, signed: bool) -> tuple[NDArray[np.uint16] | NDArray[np.int16], str]:
    """Stored values of one slice and their Rescale Slope as a decimal string: |stored · slope − value| ≤ slope / 2."""
    limit = 32767 if signed else 65535
    highest = float(np.abs(plane).max())
    slope = _ds(highest / limit) if highest > NEGLIGIBLE else "1"
    rounded = np.rint(plane.astype(np.float64) / float(slope))
    return rounded.astype("<i2" if signed else "<u2"), slope


def _ds(number: float) -> str:
    return format_number_as_ds(number)
