"""A volume computed from a PET series → a derived PET series on the source's grid (PS3.3 A.21, C.8.9).

Everything that gives the numbers their meaning is the source's: patient, injection, corrections, frame times, and above
all Series Date and Time, which is what Decay Correction START counts from (C.8.9.1.1.4). When and by whom the images
were made stands in Instance Creation, Content Date and Time, and Contributing Equipment.

Bq/mL is written as BQML with the source's decay correction. SUVbw is written as GML, SUV Type BW: no reader then has a
decay left to compute, so that all show the SUV the engine computed. Viewers ask for dose, weight and injection even so.

K1, k2 and blood flow of a series over time become one static series on the slices of its first time frame, which spans
the time from the first frame to the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pydicom.valuerep import TM, format_number_as_ds

from dicom_io import times
from dicom_io.errors import GeometryRefused, QuantityRefused
from dicom_io.geometry import apart_mm
from dicom_io.headers import PRIVATE_ELEMENTS
from dicom_io.volume import LoadedSeries
from dicom_io.write.concepts import KINETIC, MEANINGS, window_of
from dicom_io.write.header import FORMS, RESEARCH_USE_ONLY, Identity, arguments, ascii_text, settle
from dicom_io.write.sources import FAULT_OF_THE_ENGINE, GRID_TOLERANCE_MM, check_finite, frame_reference, slices
from engines.contract import DynamicVolume, FloatArray, Quantity, Volume

SOURCE_CLASSES: Final = (
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
FRAME_TOLERANCE_S: Final = 1e-3
NEGLIGIBLE: Final = 1e-12
"""Slices without a larger value [g/mL, Bq/mL] are written as zeros: their slope would be no number for most readers."""

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
KEPT_TAGS: Final = frozenset(map(Tag, KEPT_KEYWORDS))
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
OF_ONE_FRAME: Final = ("TemporalPositionIdentifier", "NumberOfTemporalPositions", "TemporalPositionIndex")
NEEDED_FOR_DECAY: Final = ("SeriesDate", "SeriesTime", "DecayCorrection")
NEEDED_FOR_SUV: Final = ("RadionuclideTotalDose", "RadionuclideHalfLife")
ENTRIES: Final = {"HF": codes.SCT.Headfirst, "FF": codes.SCT.FeetFirst}
POSTURES: Final = {
    "S": codes.SCT.Supine,
    "P": codes.SCT.Prone,
    "DR": codes.SCT.RightLateralDecubitus,
    "DL": codes.SCT.LeftLateralDecubitus,
}
"""What Patient Position (0018,5100) is made of, in codes (PS3.16 CID 20, 21)."""
OF_A_MULTI_FRAME: Final = ("SeriesType", "CountsSource", "FrameReferenceTime")
OF_A_GATE: Final = ("NumberOfRRIntervals", "NumberOfTimeSlots", "TriggerTime", "FrameTime")
"""Type 1 and 1C of a PET image that a multi-frame object may lack (PS3.3 C.8.9.1, C.8.9.4); no other than gates have
the latter."""
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
    """One PET image for every image of the source, in the order of `source.datasets`; for every slice of a kinetic map.

    volume : on the grid of the source; with its frames and in the quantity it was loaded in, or a static K1, k2 or
        MBF; a reader gets every value back to half a Rescale Slope, which is the largest absolute value of its slice
        / 65535 (/ 32767 where the series has negative values: one Pixel Representation for all)
    source : a series of PET images, single-frame or multi-frame; the copies are single-frame images

    Raises
    ------
    GeometryRefused
        not-source-grid, not-source-frames.
    QuantityRefused
        sop-class (other modalities), not-source-quantity, no-decay-correction (SUV is corrected for decay, the source
        says NONE), derived-header (the source lacks what decay correction or SUV rest on, or a multi-frame source what
        a single-frame image has to say).
    PixelsRefused
        not-finite.
    """
    originals = slices(source) if volume.quantity in KINETIC else source.datasets
    _check_source(source, volume.quantity)
    planes = _planes(volume, source)
    signed = bool((planes < 0.0).any())
    window = window_of(planes, volume.quantity)
    images: list[Dataset] = []
    with config.disable_value_validation():
        series = _new_series(originals[0], identity, derivation)
        for index, image_index in enumerate(_image_indices(originals)):
            original = originals[index]
            image = _of_series(series, identity.uid("pet", f"{derivation.name} instance", index))
            _keep(image, original, identity)
            _refer(image, source.datasets[index :: len(originals)])
            if volume.quantity in KINETIC:
                _stand_for_all_frames(image, source.volume)
            image.Units = MEANINGS[volume.quantity].pet_units
            if volume.quantity is Quantity.SUVBW:
                image.SUVType = "BW"
            for keyword in ("ImageIndex", "InstanceNumber"):
                _put(image, keyword, image_index)
            _count(image, volume)
            _store(image, planes[index], signed=signed)
            image.WindowCenter, image.WindowWidth = (_ds(sum(window) / 2.0), _ds(window[1] - window[0]))
            images.append(image)
    return images


def _check_source(source: LoadedSeries, quantity: Quantity) -> None:
    if any(original.SOPClassUID not in SOURCE_CLASSES for original in source.datasets):
        message = "SOP Class UID (0008,0016): expected a PET image, single-frame or multi-frame, on every source image"
        raise QuantityRefused(message, code="sop-class")
    if quantity not in MEANINGS or (quantity not in KINETIC and quantity is not source.volume.quantity):
        message = f"volume: expected the source's quantity, {source.volume.quantity.value}, got {quantity.value}"
        raise QuantityRefused(message, code="not-source-quantity")
    for original in source.datasets:
        missing = sorted(_missing(original, quantity))
        if missing:
            message = f"source: expected what a PET image has to say, {', '.join(missing)} absent or empty"
            raise QuantityRefused(message, code="derived-header")
        if quantity is Quantity.SUVBW and original.DecayCorrection == "NONE":
            message = "Decay Correction (0054,1102): expected START or ADMIN for a series of SUV, got NONE"
            raise QuantityRefused(message, code="no-decay-correction")


def _missing(original: Dataset, quantity: Quantity) -> Iterator[str]:
    """What viewers need to show SUV, and refuse to go without even where Units is GML; of a frame also the rest."""
    yield from (keyword for keyword in NEEDED_FOR_DECAY if not original.get(keyword))
    if "ReferencedFrameNumber" in original:
        yield from _missing_for_a_single_frame(original)
    if quantity is Quantity.SUVBW:
        given = next(iter(original.get("RadiopharmaceuticalInformationSequence") or ()), Dataset())
        yield from (keyword for keyword in NEEDED_FOR_SUV if not given.get(keyword))
        if not any(given.get(keyword) for keyword in START_TIMES):
            yield START_TIMES[0]
        if not original.get("PatientWeight"):
            yield "PatientWeight"


def _is_gated(image: Dataset) -> bool:
    return bool((image.get("SeriesType") or [""])[0] == "GATED")


def _missing_for_a_single_frame(original: Dataset) -> Iterator[str]:
    for keyword in (*OF_A_MULTI_FRAME, *(OF_A_GATE if _is_gated(original) else ())):
        if original.get(keyword) in (None, ""):  # 0 ms is a time
            yield keyword
    if original.get("DecayCorrection") != "NONE" and not original.get("DecayFactor"):
        yield "DecayFactor"


def _planes(volume: Volume | DynamicVolume, source: LoadedSeries) -> FloatArray:
    """float32 (images, y, x) in the order of the source's data sets."""
    expected = source.volume
    shape = expected.array.shape[-3:] if volume.quantity in KINETIC else expected.array.shape
    if volume.array.shape != shape:
        message = f"volume: expected the source's {shape} voxels, got {volume.array.shape}"
        raise GeometryRefused(message, code="not-source-grid", hint=FAULT_OF_THE_ENGINE)
    apart = apart_mm(volume.affine, expected.affine, volume.array.shape)
    if not apart <= GRID_TOLERANCE_MM:
        message = f"volume: expected its voxels at those of the source, got up to {apart:.3g} mm aside"
        raise GeometryRefused(message, code="not-source-grid", hint=FAULT_OF_THE_ENGINE)
    if volume.quantity not in KINETIC and not _same_frames(volume, expected):
        message = "volume: expected its frames at the times of the source's, got others"
        raise GeometryRefused(message, code="not-source-frames", hint=FAULT_OF_THE_ENGINE)
    check_finite(volume.array)
    return volume.array.reshape(-1, *volume.array.shape[-2:])


def _same_frames(volume: Volume | DynamicVolume, other: Volume | DynamicVolume) -> bool:
    times_s = _frame_times(volume), _frame_times(other)
    return np.allclose(*times_s, rtol=0.0, atol=FRAME_TOLERANCE_S, equal_nan=True)


def _frame_times(volume: Volume | DynamicVolume) -> NDArray[np.float64]:
    """float64 (2, t): starts and durations of the frames of a dynamic volume, (2, 0) of another."""
    if isinstance(volume, Volume):
        return np.empty((2, 0))
    return np.stack([volume.frame_start_s, volume.frame_duration_s])


def _new_series(original: Dataset, identity: Identity, derivation: Derivation) -> SOPClass:
    """What all images of a series of our own share, in the source's study: Patient, Study, Series, Equipment."""
    ours = arguments(identity, "pet", derivation.name, original, of=derivation.name)
    equipment = ours.pop("contributing_equipment")
    series = SOPClass(
        study_instance_uid=original.StudyInstanceUID,
        sop_class_uid=FORMS["pet"].sop_class_uid,
        modality=FORMS["pet"].modality,
        **ours,
    )
    series.ContributingEquipmentSequence = equipment
    settle(series, original, identity)
    for keyword in ("SeriesDate", "SeriesTime"):  # those of the source are kept
        del series[keyword]
    _describe_derivation(series, identity, derivation)
    return series


def _of_series(series: SOPClass, sop_instance_uid: str) -> Dataset:
    """A new image with the very elements of its series: making each anew takes most of the time.

    Elements of the series and of the source are therefore replaced (`_put`) and never changed.
    """
    image = Dataset()
    image.update(series)
    image.file_meta = FileMetaDataset()
    image.file_meta.update(series.file_meta)
    _put(image.file_meta, "MediaStorageSOPInstanceUID", UID(sop_instance_uid))
    _put(image, "SOPInstanceUID", UID(sop_instance_uid))
    return image


def _put(image: Dataset, keyword: str, value: object) -> None:
    image.pop(keyword, None)
    setattr(image, keyword, value)


def _others_equipment(original: Dataset) -> Iterator[Dataset]:
    """The scanner and whatever else had its hand in the source (PS3.3 C.12.1.1.5)."""
    if original.get("Manufacturer"):  # Type 1 here
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.AcquisitionEquipment)]
        for keyword in EQUIPMENT_KEYWORDS:
            if original.get(keyword):
                scanner[keyword] = original[keyword]
        yield scanner
    yield from original.get("ContributingEquipmentSequence") or ()


def _keep(image: Dataset, original: Dataset, identity: Identity) -> None:
    for tag in KEPT_TAGS & original.keys():
        image[tag] = original[tag]
    if not _is_gated(image):
        for keyword in OF_A_GATE:  # GE writes them of any series
            image.pop(keyword, None)
    for keyword in EMPTY_IF_UNKNOWN:
        if keyword not in image:
            setattr(image, keyword, None)
    _say_orientation(image)
    if image.RadiopharmaceuticalInformationSequence:
        given = [_with_start_time(one, original, identity) for one in image.RadiopharmaceuticalInformationSequence]
        _put(image, "RadiopharmaceuticalInformationSequence", given)
    _keep_scan_date_time(image, original)


def _say_orientation(image: Dataset) -> None:
    """Patient Position (0018,5100) in codes: it may not stand beside their sequences, which a PET has (C.7.3.1.1.2)."""
    position = str(image.get("PatientPosition") or "")
    entry, posture = ENTRIES.get(position[:2]), POSTURES.get(position[2:])
    if not image.PatientOrientationCodeSequence and entry and posture:
        recumbent = _coded(codes.SCT.Recumbent)
        recumbent.PatientOrientationModifierCodeSequence = [_coded(posture)]
        _put(image, "PatientOrientationCodeSequence", [recumbent])
        _put(image, "PatientGantryRelationshipCodeSequence", [_coded(entry)])
    if image.PatientOrientationCodeSequence:
        image.pop("PatientPosition", None)


def _with_start_time(given: Dataset, original: Dataset, identity: Identity) -> Dataset:
    """Radiopharmaceutical Start Time (0018,1072) where only the DateTime was sent: some viewers read no other."""
    at = times.date_time(str(given.get("RadiopharmaceuticalStartDateTime") or ""))
    if at is None or given.get("RadiopharmaceuticalStartTime"):
        return given
    zone = times.utc_offset(str(original.get("TimezoneOffsetFromUTC") or "").strip()) or identity.timezone
    local = at.astimezone(zone) if at.tzinfo else at
    timed = Dataset()
    timed.update(given)
    _put(timed, "RadiopharmaceuticalStartTime", TM(local.time()))
    return timed


def _keep_scan_date_time(image: Dataset, original: Dataset) -> None:
    """GE (0009,xx0d), the decay reference where Series Time was rewritten: with its block, as it was sent."""
    group, creator, element, _ = PRIVATE_ELEMENTS["GEScanDateTime"]
    for block in [one.tag.element for one in original.group_dataset(group) if 0x10 <= one.tag.element < 0x100]:
        tags = (group, block), (group, block << 8 | element)
        if original[tags[0]].value == creator and tags[1] in original:
            for tag in tags:
                image.add(original[tag])


def _stand_for_all_frames(image: Dataset, measured: Volume | DynamicVolume) -> None:
    """A kinetic map: one static image of the whole measurement. It holds no activity that a decay was corrected in."""
    if "DecayFactor" in image:
        _put(image, "DecayFactor", "1")
    if isinstance(measured, Volume):
        return
    _put(image, "SeriesType", ["STATIC", *(image.get("SeriesType") or ["", "IMAGE"])[1:]])
    for keyword in OF_ONE_FRAME:
        image.pop(keyword, None)
    first_ms, span_ms = (1000.0 * float(s) for s in (measured.frame_duration_s[0], _span_s(measured)))
    if np.isfinite(span_ms) and image.get("FrameReferenceTime") is not None:
        _put(image, "FrameReferenceTime", _ds(float(image.FrameReferenceTime) + (span_ms - first_ms) / 2.0))
        _put(image, "ActualFrameDuration", round(span_ms))


def _span_s(measured: DynamicVolume) -> float:
    """From the start of the first frame to the end of the last [s]."""
    return float((measured.frame_start_s + measured.frame_duration_s).max() - measured.frame_start_s[0])


def _describe_derivation(series: Dataset, identity: Identity, derivation: Derivation) -> None:
    """General Image module (PS3.3 C.7.6.1, C.8.9.4.1.1)."""
    made_by = f"{identity.engine} {identity.engine_version}, weights sha256 {identity.weights_sha256 or 'none'}"
    series.ImageType = ["DERIVED", "PRIMARY"]
    series.DerivationDescription = ascii_text(f"{RESEARCH_USE_ONLY}. {derivation.description} {made_by}")[:1024]
    series.DerivationCodeSequence = [_coded(derivation.code)]


def _refer(image: Dataset, originals: Sequence[Dataset]) -> None:
    """General Reference module (PS3.3 C.12.4), and who made the source.

    originals : the images of one place that this one was computed from
    """
    equipment = [*_others_equipment(originals[0]), *image.ContributingEquipmentSequence]
    _put(image, "ContributingEquipmentSequence", equipment)
    frames: dict[str, list[Dataset]] = {}
    for original in originals:
        frames.setdefault(original.SOPInstanceUID, []).append(original)
    image.SourceImageSequence = [_source_image(of_instance) for of_instance in frames.values()]


def _source_image(frames: Sequence[Dataset]) -> Dataset:
    """Frames of one instance, or an instance of one frame."""
    item = frame_reference(frames[0])
    if len(frames) > 1:
        item.ReferencedFrameNumber = [int(frame.ReferencedFrameNumber) for frame in frames]
    item.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
    item.SpatialLocationsPreserved = "YES"
    return item


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
