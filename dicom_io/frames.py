"""Instances → single-frame headers: a multi-frame object is read as the single-frame images it stands for. Pure.

`headers.read` puts what the frames of an enhanced object share under the classic keywords of its header, and what
differs between them into one dictionary per frame under "Frames". Everything that reasons about slices reads the
headers made here, so it need not know how an object stores them.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_io import geometry, times
from dicom_io.headers import Header, number, text
from engines.contract import Json

PROJECTIONS = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"})
"""Volume Based Calculation Technique (0008,9207) of frames that are no slices."""


def single_frames(headers: Sequence[Header]) -> list[Header]:
    """One header per frame, in the order of the instances and of the frames within them.

    headers : of the instances of one series

    A single-frame header is returned as it is. A frame of a multi-frame object gets what its object says, then what it
    says itself, with NumberOfFrames 1 and FrameNumber, counted from 1 within its instance. Of a PET also

    FrameReferenceTime [ms]
        From Decay Correction DateTime (0018,9701), the reference time of an enhanced series, to Frame Reference
        DateTime (0018,9151): what PS3.3 C.8.9.4.1.5 defines for a classic one.
    SeriesType
        From all frames together, since the time frames of one scan may come as several instances: GATED where frames
        have a trigger, DYNAMIC where they have several temporal positions, STATIC or WHOLE BODY where every place has
        one frame. Several frames of a place that nothing tells apart stay without a type.
    """
    frames = [frame for header in headers for frame in _frames(header)]
    enhanced = [frame for frame in frames if "FrameNumber" in frame and frame.get("Modality") == "PT"]
    if not enhanced or any(frame.get("SeriesType") for frame in frames):
        return frames
    series_type = _series_type(frames)
    return [{**frame, "SeriesType": series_type} if series_type else frame for frame in frames]


def _frames(header: Header) -> list[Header]:
    if "Frames" not in header:
        return [header]
    shared = {keyword: value for keyword, value in header.items() if keyword != "Frames"} | {"NumberOfFrames": 1}
    return [
        _with_reference_time({**shared, **frame, "FrameNumber": count})
        for count, frame in enumerate(header["Frames"], start=1)
    ]


def _with_reference_time(frame: Header) -> Header:
    representative = times.date_time(text(frame, "FrameReferenceDateTime"))
    reference = times.date_time(text(frame, "DecayCorrectionDateTime"))
    if "FrameReferenceTime" in frame or representative is None or reference is None:
        return frame
    if (representative.tzinfo is None) != (reference.tzinfo is None):
        return frame
    return {**frame, "FrameReferenceTime": (representative - reference).total_seconds() * 1000.0}


def _series_type(frames: Sequence[Header]) -> list[Json] | None:
    """As Series Type (0054,1000); None where the frames do not say."""
    content = "REPROJECTION" if any(map(_is_projection, frames)) else "IMAGE"
    if any(number(frame, "TriggerTime") is not None for frame in frames):
        return ["GATED", content]
    if len({number(frame, "TemporalPositionIndex") for frame in frames}) > 1:
        return ["DYNAMIC", content]
    places = geometry.places(frames)
    if places is not None and any(len(place) > 1 for place in places):
        return None
    flavours = {str(value) for frame in frames for value in (frame.get("ImageType") or [])[2:3]}
    return ["WHOLE BODY" if flavours == {"WHOLE_BODY"} else "STATIC", content]


def _is_projection(frame: Header) -> bool:
    """PS3.3 C.8.16.2.1: neither projections nor distorted volumes are stacks of slices."""
    return (
        text(frame, "VolumeBasedCalculationTechnique") in PROJECTIONS
        or text(frame, "VolumetricProperties") == "DISTORTED"
    )
