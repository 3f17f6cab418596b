"""Functional groups → classic attributes: units, corrections, and what contradicts itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom.sr.codedict import codes

from dicom_io.functional_groups import FRAMES_MAX, UNITS, flattened

PET: dict[str, Any] = {"Modality": "PT", "NumberOfFrames": 1, "PixelRepresentation": 0}
CORRECTED = dict.fromkeys(("DecayCorrected", "AttenuationCorrected", "ScatterCorrected", "RandomsCorrected"), "YES")


def mapped(unit: str = "Bq/ml", slope: Any = 2.5, **more: Any) -> dict[str, Any]:
    code = {"CodeValue": unit, "CodingSchemeDesignator": "UCUM"}
    return {
        "RealWorldValueSlope": slope,
        "RealWorldValueIntercept": 0.0,
        "MeasurementUnitsCodeSequence": [code],
        **more,
    }


def rescale(slope: float, kind: str | None = "US") -> dict[str, Any]:
    return {"PixelValueTransformationSequence": [{"RescaleSlope": slope, "RescaleIntercept": 0.0, "RescaleType": kind}]}


def mapping(*items: dict[str, Any]) -> dict[str, Any]:
    return {"RealWorldValueMappingSequence": list(items)}


def of_one_frame(*groups: dict[str, Any], **header: Any) -> dict[str, Any]:
    """The flattened header of an object with one frame: all it says is shared."""
    merged = {macro: items for group in groups for macro, items in group.items()}
    found = flattened({**PET, **header}, {}, [merged])
    assert found["Frames"] == [{}]
    return found


def test_what_frames_share_is_said_once() -> None:
    shared = {"PixelMeasuresSequence": [{"PixelSpacing": [4.0, 4.0], "SliceThickness": 3.0}]}
    frames = [
        {"PlanePositionSequence": [{"ImagePositionPatient": [0.0, 0.0, z]}], **rescale(2.0), **content}
        for z, content in (
            (0.0, {"FrameContentSequence": [{"FrameAcquisitionDuration": 180000.0, "TemporalPositionIndex": 1}]}),
            (3.0, {"FrameContentSequence": [{"FrameAcquisitionDuration": 180000.0, "TemporalPositionIndex": 2}]}),
        )
    ]
    found = flattened({**PET, "NumberOfFrames": 2, "Units": "BQML"}, shared, frames)
    assert found["Frames"] == [
        {"ImagePositionPatient": [0.0, 0.0, 0.0], "TemporalPositionIndex": 1},
        {"ImagePositionPatient": [0.0, 0.0, 3.0], "TemporalPositionIndex": 2},
    ]
    assert (found["PixelSpacing"], found["RescaleSlope"], found["ActualFrameDuration"]) == ([4.0, 4.0], 2.0, 180000.0)
    assert found["Units"] == "BQML"
    assert "Problems" not in found
    json.dumps(found, allow_nan=False)


def test_what_one_frame_alone_says_is_not_said_of_all() -> None:
    frames = [rescale(2.0), {}]
    found = flattened({**PET, "NumberOfFrames": 2}, {}, frames)
    assert "RescaleSlope" not in found
    assert [frame.get("RescaleSlope") for frame in found["Frames"]] == [2.0, None]


def test_a_groups_frame_overrides_what_is_shared() -> None:
    found = flattened({**PET, "NumberOfFrames": 2}, rescale(1.0), [rescale(2.0), {}])
    assert [frame["RescaleSlope"] for frame in found["Frames"]] == [2.0, 1.0]


@pytest.mark.parametrize("described", [None, [], [{}], [{}] * 3])
def test_groups_that_do_not_describe_the_frames_give_none(described: list[Any] | None) -> None:
    found = flattened({**PET, "NumberOfFrames": 2}, {}, described)
    assert "Frames" not in found
    assert found["NumberOfFrames"] == 2, "it stays a multi-frame image, which nobody takes for a slice"
    (problem,) = found["Problems"]
    assert problem.startswith("frames: ")
    assert "of 2 frames" in problem
    assert f"got {len(described or ())}" in problem


def test_frames_have_a_limit() -> None:
    count = 20_001
    assert count == FRAMES_MAX + 1
    assert "Frames" not in flattened({**PET, "NumberOfFrames": count}, {}, [{}] * count)
    assert "Frames" in flattened({**PET, "NumberOfFrames": count - 1}, {}, [{}] * (count - 1))


# Units


@pytest.mark.parametrize(
    ("ucum", "units", "suv_type"),
    [
        ("Bq/ml", "BQML", None),
        ("g/ml{SUVbw}", "GML", "BW"),
        ("g/ml{SUVlbm}", "GML", "LBM"),
        ("g/ml{SUVlbm(James128)}", "GML", "LBMJAMES128"),
        ("g/ml{SUVlbm(Janma)}", "GML", "LBMJANMA"),
        ("g/ml{SUVibw}", "GML", "IBW"),
        ("cm2/ml{SUVbsa}", "CM2ML", "BSA"),
        ("{counts}", "CNTS", None),
        ("{counts}/s", "CPS", None),
        ("{propcounts}", "PROPCNTS", None),
    ],
)
def test_units_come_from_the_mapping(ucum: str, units: str, suv_type: str | None) -> None:
    found = of_one_frame(mapping(mapped(ucum)), rescale(1.0))
    assert (found["Units"], found["SUVType"], found["RescaleSlope"]) == (units, suv_type, 2.5)
    assert found["RescaleType"] is None, "that of the other transformation"


def test_every_pet_unit_of_the_standard_is_known() -> None:
    """PS3.16 CID 84, by pydicom's copy of it."""
    standard = {getattr(codes.cid84, name).value for name in codes.cid84.dir()}
    assert standard <= set(UNITS)
    assert len(standard) >= 19


@pytest.mark.parametrize("ucum", ["g/ml", "kBq/ml", "bq/ml", "", "1"])
def test_another_unit_is_none(ucum: str) -> None:
    found = of_one_frame(mapping(mapped(ucum)), rescale(1.0))
    assert (found["Units"], found["RescaleSlope"]) == (None, 1.0)


def test_a_code_of_another_scheme_is_no_unit() -> None:
    item = mapped() | {"MeasurementUnitsCodeSequence": [{"CodeValue": "Bq/ml", "CodingSchemeDesignator": "99LOCAL"}]}
    assert of_one_frame(mapping(item))["Units"] is None


@pytest.mark.parametrize("slope", [None, "2.5", float("inf")])
def test_a_mapping_without_a_slope_is_none(slope: Any) -> None:
    """A table (LUT) instead of a line, or no number."""
    assert of_one_frame(mapping(mapped(slope=slope)))["Units"] is None


def test_of_two_mappings_the_activity_counts() -> None:
    """The SUV of another program is worth less than what it was computed from."""
    for items in ((mapped("g/ml{SUVbw}", 0.1), mapped("Bq/ml", 3.0)), (mapped("Bq/ml", 3.0), mapped("{counts}", 9.0))):
        found = of_one_frame(mapping(*items))
        assert (found["Units"], found["RescaleSlope"], found["SUVType"]) == ("BQML", 3.0, None)


def test_without_a_mapping_rescale_type_may_name_the_unit() -> None:
    assert of_one_frame(rescale(4.0, "BQML"))["Units"] == "BQML"
    assert of_one_frame(rescale(4.0, "US"))["Units"] is None
    assert of_one_frame(rescale(4.0, "HU"))["Units"] is None
    assert of_one_frame()["Units"] is None


@pytest.mark.parametrize(
    ("rescaled", "mapped_to", "units"),
    [
        (2.5, 2.5, "BQML"),
        (2.5, 2.5012, "BQML"),  # 0.05 %: a DS of few digits
        (2.5, 2.51, None),  # 0.4 %
        (2.5, 2500.0, None),
    ],
)
def test_two_slopes_for_one_unit_must_agree(rescaled: float, mapped_to: float, units: str | None) -> None:
    found = of_one_frame(rescale(rescaled, "BQML"), mapping(mapped("Bq/ml", mapped_to)))
    assert found["Units"] == units
    assert ("Problems" in found) is (units is None)
    if units:
        assert found["RescaleSlope"] == mapped_to
    else:
        assert found["Problems"][0].startswith("units: ")


def test_two_mappings_to_one_unit_must_agree() -> None:
    """A curve of several lines, each for some stored values, is none that one slope can give."""
    assert of_one_frame(mapping(mapped(slope=2.5), mapped(slope=2.5)))["Units"] == "BQML"
    assert of_one_frame(mapping(mapped(slope=2.5), mapped(slope=5.0)))["Units"] is None
    assert of_one_frame(mapping(mapped(), mapped(RealWorldValueIntercept=-10.0)))["Units"] is None
    assert of_one_frame(rescale(2.5, "BQML"), mapping(mapped(RealWorldValueIntercept=-10.0)))["Units"] is None


def test_two_slopes_for_two_units_do_not_contradict_each_other() -> None:
    found = of_one_frame(rescale(1.0, "CNTS"), mapping(mapped("Bq/ml", 77.0)))
    assert (found["Units"], found["RescaleSlope"]) == ("BQML", 77.0)


def test_the_mapped_range_is_kept() -> None:
    of_range = {"RealWorldValueFirstValueMapped": 1, "RealWorldValueLastValueMapped": 4000}
    found = of_one_frame(mapping(mapped(**of_range)))
    assert (found["RealWorldValueFirstValueMapped"], found["RealWorldValueLastValueMapped"]) == (1, 4000)
    double = {f"DoubleFloat{keyword}": float(value) for keyword, value in of_range.items()}
    found = of_one_frame(mapping(mapped(**double)))
    assert (found["RealWorldValueFirstValueMapped"], found["RealWorldValueLastValueMapped"]) == (1.0, 4000.0)
    assert "RealWorldValueFirstValueMapped" not in of_one_frame(mapping(mapped()))


def test_in_implicit_vr_pixel_representation_gives_the_sign() -> None:
    of_range = {"RealWorldValueFirstValueMapped": 0x8000, "RealWorldValueLastValueMapped": 0x7FFF}
    found = of_one_frame(mapping(mapped(**of_range)), PixelRepresentation=1)
    assert (found["RealWorldValueFirstValueMapped"], found["RealWorldValueLastValueMapped"]) == (-32768, 32767)
    found = of_one_frame(mapping(mapped(**of_range)))
    assert found["RealWorldValueFirstValueMapped"] == 32768


def test_a_ct_keeps_its_hounsfield_units() -> None:
    found = of_one_frame(rescale(1.0, "HU"), mapping(mapped("Bq/ml", 7.0)), Modality="CT")
    assert (found["RescaleSlope"], found["RescaleType"]) == (1.0, "HU")
    assert "Units" not in found


# Corrections


def test_corrections_are_named_as_in_corrected_image() -> None:
    found = of_one_frame(**CORRECTED, DeadTimeCorrected="NO", DetectorNormalizationCorrection="YES")
    assert found["CorrectedImage"] == ["DECY", "ATTN", "SCAT", "RAN", "NORM"]


@pytest.mark.parametrize(
    ("decayed", "at", "correction", "problems"),
    [
        ("YES", "20260302093000", "START", 0),
        ("YES", None, None, 1),
        ("YES", "", None, 1),
        ("NO", None, "NONE", 0),
        ("NO", "20260302093000", "NONE", 0),
        ("MAYBE", "20260302093000", None, 1),
    ],
)
def test_decay_correction_needs_its_time(decayed: str, at: str | None, correction: str | None, problems: int) -> None:
    """Without Decay Correction DateTime it must not pass for one to the start of the series."""
    found = of_one_frame(**{**CORRECTED, "DecayCorrected": decayed}, DecayCorrectionDateTime=at)
    assert found["DecayCorrection"] == correction
    assert len(found.get("Problems", ())) == problems


@pytest.mark.parametrize("keyword", sorted(CORRECTED))
def test_what_is_not_said_of_a_correction_is_not_no(keyword: str) -> None:
    rest = {name: value for name, value in CORRECTED.items() if name != keyword}
    found = of_one_frame(**rest, DecayCorrectionDateTime="20260302093000")
    assert found["CorrectedImage"] is None
    assert keyword in found["Problems"][0]


def test_a_converted_object_keeps_its_own_words() -> None:
    unassigned = {"CorrectedImage": ["ATTN", "DECY"], "DecayCorrection": "ADMIN", "Units": "GML", "SUVType": "LBM"}
    found = of_one_frame({"UnassignedSharedConvertedAttributesSequence": [unassigned]}, rescale(1.0))
    assert {keyword: found[keyword] for keyword in unassigned} == unassigned


# Injections


def test_a_frame_has_the_injection_it_was_measured_with() -> None:
    injections = [{"RadiopharmaceuticalAgentNumber": n, "RadionuclideTotalDose": 100.0 * n} for n in (1, 2)]
    usage = [{"RadiopharmaceuticalUsageSequence": [{"RadiopharmaceuticalAgentNumber": n}]} for n in (2, 1, 2)]
    header = {**PET, "NumberOfFrames": 3, "RadiopharmaceuticalInformationSequence": injections}
    found = flattened(header, {}, usage)
    doses = [frame["RadiopharmaceuticalInformationSequence"][0]["RadionuclideTotalDose"] for frame in found["Frames"]]
    assert doses == [200.0, 100.0, 200.0]
    shared = flattened(header, usage[0], [{}] * 3)
    assert shared["RadiopharmaceuticalInformationSequence"] == injections[1:]
    assert flattened(header, {}, [{}] * 3)["RadiopharmaceuticalInformationSequence"] == injections


# Times and gates


def test_the_start_of_the_acquisition_is_not_that_of_its_frames() -> None:
    """Unless decay counts from a stated time, a frame that does not say when it began must not borrow it."""
    begun = {"AcquisitionDateTime": "20260302093000"}
    decayed = {**CORRECTED, "DecayCorrectionDateTime": "20260302093000"}
    assert "AcquisitionDateTime" not in of_one_frame(**begun)
    assert "AcquisitionDateTime" not in of_one_frame(**begun, **{**CORRECTED, "DecayCorrected": "NO"})
    assert of_one_frame(**begun, **decayed)["AcquisitionDateTime"] == "20260302093000"
    content = {"FrameContentSequence": [{"FrameAcquisitionDateTime": "20260302094000"}]}
    assert of_one_frame(content, **begun)["AcquisitionDateTime"] == "20260302094000"


def test_a_gate_is_named_by_its_trigger() -> None:
    heart = {"CardiacSynchronizationSequence": [{"NominalCardiacTriggerDelayTime": 400.0}]}
    breath = {"RespiratorySynchronizationSequence": [{"NominalRespiratoryTriggerDelayTime": 1500.0}]}
    assert of_one_frame(heart)["TriggerTime"] == 400.0
    assert of_one_frame(breath)["TriggerTime"] == 1500.0
    assert of_one_frame(breath, heart)["TriggerTime"] == 400.0
