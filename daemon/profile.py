"""What each destination gets of a result; pure. Kinds are those of dicom_io.write.objects."""

from __future__ import annotations

from collections.abc import Iterable

from config.destinations import USUAL_OBJECTS, Destination
from dicom_io.write.kinds import KINDS, NOT_PROCESSED


def sent(destination: Destination) -> frozenset[str]:
    """The kinds a destination gets at once.

    A report refers to the lesions in the form that goes with it: to the Label Map where only that is wanted; where
    neither is, the Segmentation comes too, since a reference to nothing helps nobody.
    """
    wanted: set[str] = set(destination.objects)
    if "sr" in wanted and "seg" not in wanted:
        if "labelmap" in wanted:
            wanted = wanted - {"sr"} | {"sr_labelmap"}
        else:
            wanted.add("seg")
    return frozenset(wanted | ({NOT_PROCESSED} if destination.report_not_processed else set()))


def written(destinations: Iterable[Destination]) -> tuple[str, ...]:
    """The kinds to write so that every destination finds its own, and what may have to be sent instead."""
    wanted: set[str] = set()
    for destination in destinations:
        wanted |= sent(destination) | set(destination.fall_back.values())
    return tuple(kind for kind in KINDS if kind in (wanted or USUAL_OBJECTS))


def instead(destination: Destination, kind: str) -> str | None:
    """The kind that is sent where a destination does not take one, if the site names any."""
    word = "sr" if kind == "sr_labelmap" else kind
    return next((other for refused, other in destination.fall_back.items() if refused == word), None)
