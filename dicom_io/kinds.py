"""What sort of images a series holds: static, dynamic, gated or something else; primary or derived. Pure.

Series Type (0054,1000) says it of a PET (PS3.3 C.8.9.1.1.1). Where it is missing, only a series that shows several
images of each place, told apart by time, is called dynamic; a single image of each place might be a whole scan, one
frame or one gate of it, and stays unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_io import geometry, timing
from dicom_io.errors import GeometryRefused
from dicom_io.headers import Header, common

KINDS = {"STATIC": "static", "WHOLE BODY": "static", "DYNAMIC": "dynamic", "GATED": "gated"}
SOP_CLASSES = {
    "PT": frozenset(
        f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("128", "130", "128.1")
    ),  # classic, Enhanced, Legacy Converted Enhanced
    "CT": frozenset(f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("2", "2.1", "2.2")),
}
"""Storage classes of slices; a screenshot or a report may call itself PT as well."""
NO_SLICES = frozenset({"LOCALIZER", "MIP", "PROJECTION IMAGE", "REPROJECTION", "VOLREN", "SCREEN SAVE", "SCREENSHOT"})
"""Values of Image Type (0008,0008) of images that are no slices of a volume."""


def kind_of(headers: Sequence[Header], problems: list[str]) -> str | None:
    """static, dynamic, gated or other (no slices, or of another modality); None for a PET that does not say.

    headers : single-frame headers of one series
    problems : where the evidence contradicts the answer, a line is added
    """
    modality = common(headers, "Modality")
    if str(modality) not in SOP_CLASSES or not _are_slices(headers, modality):
        return "other"
    if modality == "CT":
        return "static"
    series_type = [header.get("SeriesType") for header in headers]
    if any(each != series_type[0] for each in series_type):
        problems.append("timing: Series Type (0054,1000) differs between instances")
        return None
    values = series_type[0] if isinstance(series_type[0], list) else []
    if not values:
        return _kind_by_evidence(headers, problems)
    kind = "other" if "REPROJECTION" in values[1:] else KINDS.get(str(values[0]), "other")
    _check_kind(headers, kind, problems)
    return kind


def is_whole_body(headers: Sequence[Header]) -> bool | None:
    """Whether Series Type (0054,1000) says WHOLE BODY; None where it says nothing, or several things."""
    values = common(headers, "SeriesType")
    return values[0] == "WHOLE BODY" if isinstance(values, list) and values else None


def is_primary(headers: Sequence[Header]) -> bool | None:
    """Whether the images are slices as reconstructed, or slices computed from them voxel for voxel.

    True for ORIGINAL or DERIVED with PRIMARY as second value of Image Type (0008,0008), False for SECONDARY ones,
    projections, localizers and screenshots; None where Image Type has no second value (PS3.3 C.7.6.1.1.2).
    """
    if not _are_slices(headers, common(headers, "Modality")):
        return False
    seconds = {_image_type(header)[1:2] for header in headers}
    if () in seconds:
        return None
    return seconds == {("PRIMARY",)}


def _are_slices(headers: Sequence[Header], modality: object) -> bool:
    classes = SOP_CLASSES.get(str(modality))
    sent = {str(header["SOPClassUID"]) for header in headers if header.get("SOPClassUID")}
    if classes is not None and sent - classes:
        return False
    return not any(NO_SLICES & set(_image_type(header)) for header in headers)


def _image_type(header: Header) -> tuple[str, ...]:
    values = header.get("ImageType")
    return tuple(str(value).upper() for value in values) if isinstance(values, list) else ()


def _images_per_place(headers: Sequence[Header]) -> int:
    """The most images that any place has; 1 where places are not known."""
    return max((len(place) for place in geometry.places(headers) or ()), default=1)


def _kind_by_evidence(headers: Sequence[Header], problems: list[str]) -> str | None:
    count = _images_per_place(headers)
    problems.append("timing: Series Type (0054,1000) is absent")
    if count == 1 or any(header.get("TriggerTime") for header in headers):
        return None
    try:
        frames = timing.split(headers, "dynamic").frames
    except GeometryRefused:
        return None
    if any(frame.start_s is None for frame in frames):
        return None
    problems[-1] += f"; {count} images of each place, one after the other: taken as dynamic"
    return "dynamic"


def _check_kind(headers: Sequence[Header], kind: str, problems: list[str]) -> None:
    count = _images_per_place(headers)
    if kind == "static" and count > 1:
        problems.append(f"timing: Series Type (0054,1000) says static, there are {count} images of one place")
    if kind in {"dynamic", "gated"} and count == 1:
        problems.append(f"timing: Series Type (0054,1000) says {kind}, there is one image of each place")
