"""Functional groups of an enhanced PET or CT → the attributes that single-frame images of its frames would have. Pure.

Enhanced objects (PS3.3 A.38 CT, A.56 PET) and Legacy Converted ones (A.70, A.72) describe their frames by macros,
shared or per frame (C.7.6.16). The rest of the node knows the classic attributes only, so they are put back here:

- Units come from the Real World Value Mapping (C.7.6.16.2.11; mandatory in an Enhanced PET, in UCUM, PS3.16 CID 84).
  Where the Pixel Value Transformation names the same unit and another slope, no unit is given: one of the two is wrong.
- Corrected Image and Decay Correction come from the YES and NO of the Enhanced PET Corrections module (C.8.22.6). A
  decay correction to no stated time is given as none, since "START" would mean the start of the series.
- A converted object keeps the classic attributes themselves, unassigned (C.7.6.16.2.25, C.7.6.16.2.26).

Radionuclide Total Dose of the Enhanced PET Isotope module is in MBq (C.8.22.4), of the classic one in Bq: it is kept
as sent, and both are read by their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engines.contract import Json

Attributes = Mapping[str, Json]
Groups = Mapping[str, Sequence[Attributes]]
"""Keyword of a macro's sequence → its items."""

ENHANCED_CT, LEGACY_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"
ENHANCED_PET, LEGACY_ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"
SOP_CLASSES = frozenset({ENHANCED_CT, LEGACY_ENHANCED_CT, ENHANCED_PET, LEGACY_ENHANCED_PET})
"""Classes whose frames are understood."""
FRAMES_MAX = 20_000
"""Ten times a whole-body PET with forty time frames; every frame costs its header."""

UNASSIGNED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
_FRAME_TYPE = {
    "FrameType": "ImageType",
    "VolumetricProperties": "VolumetricProperties",
    "VolumeBasedCalculationTechnique": "VolumeBasedCalculationTechnique",
}
CLASSIC: Mapping[str, Mapping[str, str]] = {
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "FrameContentSequence": {
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "FrameAcquisitionDuration": "ActualFrameDuration",  # both in ms
        "FrameReferenceDateTime": "FrameReferenceDateTime",
        "TemporalPositionIndex": "TemporalPositionIndex",
    },
    "PETFrameTypeSequence": _FRAME_TYPE,
    "CTImageFrameTypeSequence": _FRAME_TYPE,
    "PETFrameCorrectionFactorsSequence": {"DecayFactor": "DecayFactor"},
    "RespiratorySynchronizationSequence": {"NominalRespiratoryTriggerDelayTime": "TriggerTime"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
}
"""Macro → attribute within it → classic keyword. Of two gates the later line, the heart, gives the trigger."""
_MAPPING, _USAGE = "RealWorldValueMappingSequence", "RadiopharmaceuticalUsageSequence"
_AGENT = "RadiopharmaceuticalAgentNumber"
MAPPED_RANGE = ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped")
_MAPPED_RANGE_DOUBLE = tuple(f"DoubleFloat{keyword}" for keyword in MAPPED_RANGE)
_SLOPE, _INTERCEPT, _UNITS_CODE = "RealWorldValueSlope", "RealWorldValueIntercept", "MeasurementUnitsCodeSequence"
MACROS: Mapping[str, tuple[str, ...]] = {
    **{macro: tuple(attributes) for macro, attributes in CLASSIC.items()},
    _MAPPING: (_SLOPE, _INTERCEPT, _UNITS_CODE, *MAPPED_RANGE, *_MAPPED_RANGE_DOUBLE),
    _USAGE: (_AGENT,),
}
"""What `flattened` reads: macro → attributes; besides these, UNASSIGNED with any classic attribute."""
FRAME_KEYWORDS = ("FrameReferenceDateTime", "TemporalPositionIndex", *_FRAME_TYPE.values(), *MAPPED_RANGE)
"""Keywords of frames that no single-frame image has, or that this module fills."""

UNITS: Mapping[str, tuple[str, str | None]] = {
    "Bq/ml": ("BQML", None),
    "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBM"),
    "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"),
    "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
    "g/ml{SUVibw}": ("GML", "IBW"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
    "cm2/ml": ("CM2ML", None),
    "{counts}": ("CNTS", None),
    "{counts}/s": ("CPS", None),
    "{propcounts}": ("PROPCNTS", None),
    "{propcounts}/s": ("PROPCPS", None),
    "cm2": ("CM2", None),
    "%": ("PCNT", None),
    "mg/min/ml": ("MGMINML", None),
    "umol/min/ml": ("UMOLMINML", None),
    "umol/ml": ("UMOLML", None),
    "ml/min/g": ("MLMING", None),
    "ml/g": ("MLG", None),
    "/cm": ("1CM", None),
    "ml/min/ml": ("MLMINML", None),
    "ml/ml": ("MLML", None),
}
"""UCUM (PS3.16 CID 84) → Units (0054,1001), SUV Type (0054,1006); of several mappings the first in this order counts.

A bare g/ml is missing on purpose: it may be any SUV, or a density.
"""
PET_UNITS = tuple(units for units, _ in UNITS.values())
SAME_SLOPE = 1e-3
"""Relative: a DS may be written with few digits, a mapping is binary."""

CORRECTIONS = {
    "DecayCorrected": "DECY",
    "AttenuationCorrected": "ATTN",
    "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM",
    "GantryMotionCorrected": "MOTN",
    "PatientMotionCorrected": "PMOT",
    "CountLossNormalizationCorrected": "CLN",
    "RandomsCorrected": "RAN",
    "NonUniformRadialSamplingCorrected": "RADL",
    "SensitivityCalibrated": "DCAL",
    "DetectorNormalizationCorrection": "NORM",
}
"""Enhanced PET Corrections module (C.8.22.6) → Corrected Image (0028,0051); the Standard names both in one line."""
_DECISIVE_CORRECTIONS = ("DecayCorrected", "AttenuationCorrected", "ScatterCorrected", "RandomsCorrected")


def flattened(header: Attributes, shared: Groups, per_frame: Sequence[Groups] | None) -> dict[str, Json]:
    """The header of a multi-frame object with its frames under classic keywords.

    header : attributes of the object itself
    shared : Shared Functional Groups
    per_frame : Per-Frame Functional Groups, None where there are none

    What all frames say alike stands in the header, the rest in "Frames", one dictionary per frame in their order.
    "Problems" has sentences about what contradicts itself. An object whose groups do not describe its Number of
    Frames gets no "Frames", and stays a multi-frame image that nobody can read.
    """
    count = header.get("NumberOfFrames") or 1
    described = len(per_frame or ())
    if not per_frame or described != count or described > FRAMES_MAX:
        problem = f"frames: expected functional groups of {count} frames, at most {FRAMES_MAX}, got {described}"
        return {**header, "Problems": [problem]}
    corrected, problems = _corrections(header)
    frames = []
    for groups in per_frame:
        attributes, problem_of_frame = _classic(header, {**shared, **groups})
        frames.append(attributes)
        if problem_of_frame and problem_of_frame not in problems:
            problems.append(problem_of_frame)
    alike = {
        keyword: value
        for keyword, value in frames[0].items()
        if all(keyword in frame and frame[keyword] == value for frame in frames)
    }
    differing = [{keyword: value for keyword, value in frame.items() if keyword not in alike} for frame in frames]
    found = {**header, **corrected, **alike, "Frames": differing}
    if corrected.get("DecayCorrection") != "START" and not all("AcquisitionDateTime" in frame for frame in frames):
        # The start of the whole acquisition is not that of each frame, and decay may be counted from it.
        found.pop("AcquisitionDateTime", None)
    return {**found, "Problems": problems} if problems else found


def _classic(header: Attributes, groups: Groups) -> tuple[dict[str, Json], str | None]:
    """Classic attributes of one frame, and what contradicts itself in it."""
    # Some converters leave attributes of the series where they were: Units of the object speak for its frames.
    frame: dict[str, Json] = {"Units": header["Units"]} if "Units" in header else {}
    for macro in UNASSIGNED:
        frame |= _first(groups, macro)
    for macro, keywords in CLASSIC.items():
        found = _first(groups, macro)
        frame |= {keyword: found[attribute] for attribute, keyword in keywords.items() if attribute in found}
    if header.get("Modality") != "PT":
        return frame, None
    agents = [item.get(_AGENT) for item in groups.get(_USAGE, ())]
    injections = header.get("RadiopharmaceuticalInformationSequence")
    if agents and isinstance(injections, list):
        frame["RadiopharmaceuticalInformationSequence"] = [item for item in injections if item.get(_AGENT) in agents]
    measured, problem = _measured(frame, groups.get(_MAPPING, ()), signed=header.get("PixelRepresentation") == 1)
    return frame | measured, problem


def _first(groups: Groups, macro: str) -> Attributes:
    """Macros have one item, except the mapping and the usage."""
    found = groups.get(macro, ())
    return found[0] if found else {}


def _measured(frame: Attributes, mappings: Sequence[Attributes], *, signed: bool) -> tuple[dict[str, Json], str | None]:
    """What the stored values of a PET frame mean: unit, slope, intercept, and the stored values that they hold for."""
    rescaled = frame.get("Units") or frame.get("RescaleType")
    linear = [mapping for mapping in mappings if _unit(mapping) in UNITS and _is_number(mapping.get(_SLOPE))]
    if not linear:
        return {"Units": rescaled if rescaled in PET_UNITS else None}, None
    mapping = min(linear, key=lambda mapping: list(UNITS).index(_unit(mapping)))
    units, suv_type = UNITS[_unit(mapping)]
    slope, intercept = mapping[_SLOPE], mapping.get(_INTERCEPT)
    lines = [(other[_SLOPE], other.get(_INTERCEPT)) for other in linear if _unit(other) == _unit(mapping)]
    if rescaled == units:
        lines.append((frame.get("RescaleSlope"), frame.get("RescaleIntercept")))
    if not all(_alike(line[0], slope) and (line[1] or 0) == (intercept or 0) for line in lines):
        return {"Units": None}, (
            f"units: Rescale Slope (0028,1053) and Real World Value Slope (0040,9225), or two of the latter, are said "
            f"to give {units} and differ"
        )
    meaning = {"Units": units, "SUVType": suv_type, "RescaleSlope": slope, "RescaleIntercept": intercept}
    return meaning | {"RescaleType": None} | _mapped_range(mapping, signed=signed), None


def _unit(mapping: Attributes) -> str:
    """UCUM code of Measurement Units Code Sequence (0040,08EA), empty where it is none."""
    codes = mapping.get(_UNITS_CODE) or [{}]
    code = codes[0] if isinstance(codes, list) else {}
    return str(code.get("CodeValue")) if code.get("CodingSchemeDesignator") == "UCUM" else ""


def _mapped_range(mapping: Attributes, *, signed: bool) -> dict[str, Json]:
    """First and last stored value that the mapping holds for; absent where it does not say."""
    found: dict[str, Json] = {}
    for keyword, double in zip(MAPPED_RANGE, _MAPPED_RANGE_DOUBLE, strict=True):
        stored, as_double = mapping.get(keyword), mapping.get(double)
        if isinstance(stored, int):
            # In Implicit VR nothing but Pixel Representation says that these two bytes have a sign.
            found[keyword] = stored - 0x10000 if signed and stored > 0x7FFF else stored
        elif _is_number(as_double):
            found[keyword] = as_double
    return found


def _alike(one: Json, other: Json) -> bool:
    return _is_number(one) and math.isclose(one, other, rel_tol=SAME_SLOPE)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _corrections(header: Attributes) -> tuple[dict[str, Json], list[str]]:
    """Corrected Image and Decay Correction of an Enhanced PET; nothing for other objects."""
    said = {keyword: header[keyword] for keyword in CORRECTIONS if keyword in header}
    if not said:
        return {}, []
    problems = []
    found: dict[str, Json] = {"CorrectedImage": None, "DecayCorrection": None}
    missing = [keyword for keyword in _DECISIVE_CORRECTIONS if said.get(keyword) not in ("YES", "NO")]
    if missing:
        problems.append(f"corrections: expected YES or NO in {', '.join(missing)}")
    else:
        found["CorrectedImage"] = [CORRECTIONS[keyword] for keyword, value in said.items() if value == "YES"]
    if said.get("DecayCorrected") == "NO":
        found["DecayCorrection"] = "NONE"
    elif said.get("DecayCorrected") == "YES" and header.get("DecayCorrectionDateTime"):
        found["DecayCorrection"] = "START"
    elif said.get("DecayCorrected") == "YES":
        problems.append("decay: Decay Correction DateTime (0018,9701): expected the time of the correction, got none")
    return found, problems
