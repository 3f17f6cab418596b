"""The scan of a reference object as one Enhanced PET Image (PS3.3 A.56): frames for slices, units in UCUM."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedPETImageStorage

from dicom_io.reference_scan import TRUE_SUV, Code, Scan, coded, instance, of_slice, series

UCUM = {"BQML": Code("Bq/ml", "UCUM", "Becquerels/milliliter"), "GML": Code("g/ml{SUVbw}", "UCUM", "SUVbw")}
"""Units (0054,1001) → code of the real world values (PS3.16 CID 84)."""
CORRECTED = ("Decay", "Attenuation", "Scatter", "DeadTime", "Randoms")
_OF_FRAMES = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "ActualFrameDuration", "FrameReferenceTime", "DecayFactor"),
    *("AcquisitionDate", "AcquisitionTime", "ImageIndex", "Units", "CorrectedImage", "DecayCorrection"),
    *("SeriesType", "NumberOfSlices", "AttenuationCorrectionMethod", "RandomsCorrectionMethod", "PixelData"),
)
"""Attributes of a PET Image that an Enhanced PET has in its functional groups, or under another name."""


def enhanced(scan: Scan, name: str) -> Dataset:
    """Both slices as frames of one instance, the last slice first.

    Dose is in MBq here (PS3.3 C.8.22.4), and Decay Correction DateTime names the reference itself.
    """
    slices = [series(scan, name, z) for z in reversed(range(len(TRUE_SUV)))]
    dataset = instance(name, "frames", EnhancedPETImageStorage)
    dataset.update({element.tag: element for element in slices[0] if element.keyword not in _OF_FRAMES})
    dataset.NumberOfFrames, dataset.ImageType = len(slices), ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    dataset["PixelData"].VR = "OW"
    dataset.AcquisitionDateTime = _date_time(scan, min(scan.acquired_s))
    for correction in CORRECTED:
        setattr(dataset, f"{correction}Corrected", "YES")
    dataset.DecayCorrectionDateTime = _date_time(scan, scan.reference_s)
    (injection,) = dataset.RadiopharmaceuticalInformationSequence
    injection.RadionuclideTotalDose = scan.dose_bq / 1e6
    dataset.SharedFunctionalGroupsSequence = [_shared(slices[0])]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(scan, one, z) for z, one in zip(reversed(range(len(slices))), slices, strict=True)
    ]
    return dataset


def _shared(first: Dataset) -> Dataset:
    """Pixel Measures and Plane Orientation (PS3.3 C.7.6.16.2.1, C.7.6.16.2.4)."""
    return _groups(
        PixelMeasuresSequence=of_slice(first, "PixelSpacing", "SliceThickness"),
        PlaneOrientationSequence=of_slice(first, "ImageOrientationPatient"),
    )


def _frame(scan: Scan, one: Dataset, z: int) -> Dataset:
    """Position, times and rescaling of one frame; the real world values say the same as the rescaling."""
    content, mapping = Dataset(), Dataset()
    content.FrameAcquisitionDateTime = _date_time(scan, scan.acquired_s[z])
    content.FrameReferenceDateTime = _date_time(scan, scan.acquired_s[z] + scan.mean_reached_s(scan.acquired_s[z]))
    content.FrameAcquisitionDuration = scan.frame_s * 1000.0
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 65535
    mapping["RealWorldValueFirstValueMapped"].VR = mapping["RealWorldValueLastValueMapped"].VR = "US"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = float(one.RescaleSlope), 0.0
    mapping.MeasurementUnitsCodeSequence = [coded(UCUM[scan.units])]
    rescaling = of_slice(one, "RescaleSlope", "RescaleIntercept")
    rescaling.RescaleType = scan.units
    return _groups(
        PlanePositionSequence=of_slice(one, "ImagePositionPatient"),
        FrameContentSequence=content,
        PixelValueTransformationSequence=rescaling,
        RealWorldValueMappingSequence=mapping,
    )


def _groups(**macros: Dataset) -> Dataset:
    item = Dataset()
    for keyword, macro in macros.items():
        setattr(item, keyword, [macro])
    return item


def _date_time(scan: Scan, after_s: float) -> str:
    return scan.at(after_s).strftime("%Y%m%d%H%M%S.%f")
