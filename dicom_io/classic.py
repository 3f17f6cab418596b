"""A frame of a multi-frame PET → what a PET Image (PS3.3 A.21) of it would say. Pure.

`functional_groups` and `frames` put the same meaning under classic keywords for those who reason; here it becomes
attributes of the data sets that the writers copy from. What the two kinds of objects say differently:

- A classic series counts everything from Series Date and Time (C.8.9.1.1.1), above all its decay correction START. An
  enhanced one counts from Decay Correction DateTime, and its Series Time may be that of the reconstruction: the decay
  reference takes its place. Without a decay correction the start of the first frame does.
- Radionuclide Total Dose of the Enhanced PET Isotope module is in MBq (C.8.22.4), of the classic one in Bq.
- Start and duration of a frame stand in Frame Content.
- View, progression and motion have other terms, and are left out.

What an object does not say is left out: `write.pet` refuses where an image cannot do without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Final

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_io import times
from dicom_io.administration import MEGABECQUEREL_BELOW
from dicom_io.functional_groups import ENHANCED_PET
from dicom_io.headers import Header, items, number, text
from engines.contract import Json

FACTS: Final = ("SeriesType", "CorrectedImage", "DecayCorrection")
OTHER_TERMS: Final = ("ViewCodeSequence", "SliceProgressionDirection", "TypeOfDetectorMotion", "AcquisitionDuration")
EMISSION_UNITS: Final = frozenset({"BQML", "GML"})
"""An activity of what was injected is not measured by transmission."""
_INJECTIONS, _AGENT, _DOSE = (
    "RadiopharmaceuticalInformationSequence",
    "RadiopharmaceuticalAgentNumber",
    "RadionuclideTotalDose",
)


def pet_images(images: Sequence[Dataset], frames: Sequence[Header], site: tzinfo) -> list[Dataset]:
    """The data sets with the attributes of PET Images; those of single-frame images as they are.

    images : one per slice and time of a series, of a multi-frame object with its macros at the top level; elements may
        be shared between them, and are replaced, never changed
    frames : what `frames.single_frames` says of the same images
    site : zone of times whose object states no offset from UTC, on whose clock they are written
    """
    starts = [at for at in map(times.acquired, frames) if at is not None]
    comparable = len(starts) == len(frames) and len({at.tzinfo is None for at in starts}) == 1
    first = min(starts) if comparable else None
    return [
        _pet_image(image, frame, first, site) if "FrameNumber" in frame and frame.get("Modality") == "PT" else image
        for image, frame in zip(images, frames, strict=True)
    ]


def _pet_image(image: Dataset, frame: Header, first: datetime | None, site: tzinfo) -> Dataset:
    own = Dataset()
    reference = _reference(frame, first)
    for keyword, value in (*_facts(frame), *_milliseconds(frame, reference), *_moments(frame, reference, site)):
        setattr(own, keyword, value)
    if frame.get("SOPClassUID") == ENHANCED_PET and _INJECTIONS in image:
        setattr(own, _INJECTIONS, _injections(image, frame))
    found = Dataset()
    found.file_meta = image.file_meta
    found.update(image)
    found.update(own)
    for keyword in OTHER_TERMS if frame.get("SOPClassUID") == ENHANCED_PET else ():
        found.pop(keyword, None)
    return found


def _reference(frame: Header, first: datetime | None) -> datetime | None:
    """What Series Date and Time have to be; None where those of the object are right."""
    if text(frame, "DecayCorrectionDateTime") and frame.get("DecayCorrection") == "START":
        return times.date_time(text(frame, "DecayCorrectionDateTime"))
    return first if frame.get("DecayCorrection") == "NONE" else None


def _facts(frame: Header) -> Iterator[tuple[str, Json]]:
    yield from ((keyword, frame[keyword]) for keyword in FACTS if frame.get(keyword))
    if not frame.get("CountsSource") and frame.get("Units") in EMISSION_UNITS:
        yield "CountsSource", "EMISSION"


def _milliseconds(frame: Header, reference: datetime | None) -> Iterator[tuple[str, Json]]:
    """Duration of a frame, when its value held after the reference, and the trigger of a gate [ms]."""
    duration_ms, trigger_ms = number(frame, "ActualFrameDuration"), number(frame, "TriggerTime")
    if duration_ms is not None:
        yield "ActualFrameDuration", round(duration_ms)
    if trigger_ms is not None:
        yield "TriggerTime", format_number_as_ds(trigger_ms)
    at_ms = number(frame, "FrameReferenceTime")
    held = times.date_time(text(frame, "FrameReferenceDateTime"))
    if at_ms is None and held and reference and (held.tzinfo is None) == (reference.tzinfo is None):
        at_ms = (held - reference).total_seconds() * 1000.0
    if at_ms is not None:
        yield "FrameReferenceTime", format_number_as_ds(at_ms)


def _moments(frame: Header, reference: datetime | None, site: tzinfo) -> Iterator[tuple[str, str]]:
    """Date and time of acquisition and series, on the clock of the object."""
    zone = times.utc_offset(text(frame, "TimezoneOffsetFromUTC")) or site
    for begins, at in (("Acquisition", times.acquired(frame)), ("Series", reference)):
        if at is not None:
            local = times.on_local_clock(at, zone)
            yield f"{begins}Date", f"{local:%Y%m%d}"
            yield f"{begins}Time", f"{local:%H%M%S.%f}"
            if begins == "Acquisition" and text(frame, "AcquisitionDateTime"):  # of the object: of all its frames
                yield "AcquisitionDateTime", f"{local:%Y%m%d%H%M%S.%f}"


def _injections(image: Dataset, frame: Header) -> list[Dataset]:
    """What was injected for this frame, in Bq."""
    doses = {item.get(_AGENT): number(item, _DOSE) for item in items(frame, _INJECTIONS)}
    found = []
    for item in image[_INJECTIONS].value:
        agent = item.get(_AGENT)
        if agent in doses:
            own, injection, dose = Dataset(), Dataset(), doses[agent]
            if dose is not None and 0.0 < dose < MEGABECQUEREL_BELOW:
                own.RadionuclideTotalDose = format_number_as_ds(dose * 1e6)
            injection.update(item)
            injection.update(own)
            injection.pop(_AGENT, None)
            found.append(injection)
    return found
