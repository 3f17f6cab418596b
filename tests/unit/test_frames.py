"""Multi-frame headers → single-frame headers: what a frame inherits, and what all frames together say of the series."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_io.frames import single_frames

PET = {"Modality": "PT", "SOPInstanceUID": "1.2", "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}


def at(z: float, **more: Any) -> dict[str, Any]:
    return {"ImagePositionPatient": [0.0, 0.0, z], **more}


def multi(*frames: dict[str, Any], **shared: Any) -> dict[str, Any]:
    return {**PET, "NumberOfFrames": len(frames), "Frames": list(frames), **shared}


def series_types(*headers: dict[str, Any]) -> list[Any]:
    return [frame.get("SeriesType") for frame in single_frames(list(headers))]


def test_a_classic_header_is_returned_as_it_is() -> None:
    header = {"Modality": "PT", "SOPInstanceUID": "1.2"}
    (frame,) = single_frames([header])
    assert frame is header


def test_a_frame_says_more_than_its_object() -> None:
    header = multi(at(0.0, RescaleSlope=2.0), at(1.0, RescaleSlope=3.0), Units="BQML", RescaleSlope=1.0)
    frames = single_frames([header, {"SOPInstanceUID": "1.3"}, multi(at(2.0))])
    assert [frame.get("FrameNumber") for frame in frames] == [1, 2, None, 1]
    assert [frame.get("RescaleSlope") for frame in frames] == [2.0, 3.0, None, None]
    assert [frame.get("Units") for frame in frames] == ["BQML", "BQML", None, None]
    assert [frame.get("NumberOfFrames") for frame in frames] == [1, 1, None, 1]
    assert not any("Frames" in frame for frame in frames)
    assert "FrameNumber" not in header, "the header given stays what it was"


@pytest.mark.parametrize(
    ("representative", "reference", "milliseconds"),
    [
        ("20260302093130", "20260302093000", 90_000.0),  # 1 min 30 s
        ("20260302093000.500", "20260302083000.000", 3_600_500.0),
        ("20260303000010", "20260302235950", 20_000.0),  # across midnight
        ("20260302103130+0200", "20260302083000+0000", 90_000.0),  # 08:31:30 UTC
        ("20260302103130+0200", "20260302083000", None),  # an offset on one side only
        ("2026", "20260302093000", None),  # no time of day
        (None, "20260302093000", None),
        ("20260302093130", None, None),
    ],
)
def test_frame_reference_time_counts_from_the_decay_correction(
    representative: str | None, reference: str | None, milliseconds: float | None
) -> None:
    header = multi(at(0.0, FrameReferenceDateTime=representative), DecayCorrectionDateTime=reference)
    assert single_frames([header])[0].get("FrameReferenceTime") == milliseconds


def test_a_frame_reference_time_that_was_sent_stays() -> None:
    """A converted object has the classic attribute."""
    sent = at(0.0, FrameReferenceDateTime="20260302093130", FrameReferenceTime=5.0)
    (frame,) = single_frames([multi(sent, DecayCorrectionDateTime="20260302093000")])
    assert frame["FrameReferenceTime"] == 5.0


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([at(0.0), at(1.0)], ["STATIC", "IMAGE"]),
        ([at(0.0, TemporalPositionIndex=1), at(1.0, TemporalPositionIndex=1)], ["STATIC", "IMAGE"]),
        ([at(0.0, TemporalPositionIndex=1), at(0.0, TemporalPositionIndex=2)], ["DYNAMIC", "IMAGE"]),
        ([at(0.0, TriggerTime=0.0), at(0.0, TriggerTime=400.0)], ["GATED", "IMAGE"]),
        ([at(0.0, TriggerTime=0.0, TemporalPositionIndex=t) for t in (1, 2)], ["GATED", "IMAGE"]),
        ([at(0.0, TriggerTime=300.0)], ["GATED", "IMAGE"]),  # one gate alone is no static scan
        ([at(0.0), at(0.0)], None),  # two images of one place, and nothing that tells them apart
        ([at(z, ImageType=["ORIGINAL", "PRIMARY", "WHOLE_BODY", "NONE"]) for z in (0.0, 1.0)], ["WHOLE BODY", "IMAGE"]),
        ([at(0.0, VolumeBasedCalculationTechnique="MAX_IP")], ["STATIC", "REPROJECTION"]),
        ([at(0.0, VolumeBasedCalculationTechnique="NONE")], ["STATIC", "IMAGE"]),
        ([at(0.0, VolumetricProperties="DISTORTED")], ["STATIC", "REPROJECTION"]),
    ],
)
def test_series_type(frames: list[dict[str, Any]], expected: list[str] | None) -> None:
    assert series_types(multi(*frames)) == [expected] * len(frames)


def test_series_type_is_that_of_all_instances_together() -> None:
    """Each time frame may be an instance of its own, or a part of a concatenation."""
    first, second = (multi(at(0.0), at(1.0), TemporalPositionIndex=t) for t in (1, 2))
    assert series_types(first) == [["STATIC", "IMAGE"]] * 2
    assert series_types(first, second) == [["DYNAMIC", "IMAGE"]] * 4
    halves = (multi(at(z, TemporalPositionIndex=1)) for z in (0.0, 1.0))
    assert series_types(*halves) == [["STATIC", "IMAGE"]] * 2


def test_a_series_type_that_was_sent_stays_and_a_ct_has_none() -> None:
    converted = multi(at(0.0), at(0.0), SeriesType=["DYNAMIC", "IMAGE"])
    assert series_types(converted) == [["DYNAMIC", "IMAGE"]] * 2
    assert series_types(multi(at(0.0), Modality="CT")) == [None]
