"""A series on disk → a volume in SUVbw, Bq/mL or HU. Runs in a worker: pixels are decoded here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from dicom_io import classic, frames, functional_groups, headers, kinds, quantity, timing
from dicom_io.errors import GeometryRefused, PixelsRefused, QuantityRefused
from dicom_io.functional_groups import MAPPED_RANGE
from dicom_io.headers import Header, number
from dicom_io.pixels import read_dataset, stored_frame
from dicom_io.quantity import Factors
from dicom_io.timing import Timeline
from engines.contract import DynamicVolume, FloatArray, Quantity, Volume

MODALITIES = {Quantity.SUVBW: "PT", Quantity.ACTIVITY_BQML: "PT", Quantity.HU: "CT"}
BYTES_MAX = 8 * 2**30
"""Of one volume: four times a total-body PET of 40 time frames at 4 mm; a worker holds several volumes at a time."""
_DESCRIPTION = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "PETFrameCorrectionFactorsSequence",
    "FrameAnatomySequence",
    *functional_groups.UNASSIGNED,
)
"""Macros whose attributes a single-frame image has at its top level."""


@dataclass(frozen=True, slots=True)
class LoadedSeries:
    """A series as an engine and the writers need it.

    volume : z runs along the slice normal; rows and columns as stored, whichever way the affine says they point;
        a DynamicVolume of a dynamic or gated series
    datasets : one per slice in the order of z, of a DynamicVolume frame after frame; headers complete, without Pixel
        Data. A frame of a multi-frame image looks like a single-frame image (`classic.pet_images`), with the UIDs of
        its instance and its number in Referenced Frame Number (0008,1160).
    suv_reference, suv_branch : which formula and reference time the numbers rest on, in words and as a stable name
    """

    volume: Volume | DynamicVolume
    datasets: tuple[Dataset, ...]
    suv_reference: str
    suv_branch: str = ""

    @property
    def static(self) -> Volume:
        """The volume of a series of one time frame.

        Raises
        ------
        GeometryRefused
            not-static.
        """
        if isinstance(self.volume, DynamicVolume):
            message = f"series: expected one time frame, got {len(self.volume.array)}"
            raise GeometryRefused(message, code="not-static")
        return self.volume


def load(paths: Sequence[Path], wanted: Quantity, timezone: tzinfo) -> LoadedSeries:
    """Read, check, sort and rescale the instances of one series, single-frame or multi-frame.

    timezone : of the site, as in `quantity.suvbw`

    Raises
    ------
    UnreadableObject
        As `headers.read`.
    GeometryRefused
        As `timing.split`, and mixed-series.
    QuantityRefused
        As `quantity.suvbw`, `activity`, `hounsfield`, and modality.
    PixelsRefused
        As `pixels.stored_frame`, and photometric, not-mapped, not-finite, too-large.
    """
    readings = [headers.read(path) for path in paths]
    if len({reading.series_instance_uid for reading in readings}) > 1:
        raise GeometryRefused("files: expected one series, got several", code="mixed-series")
    slices = frames.single_frames([reading.header for reading in readings])
    found = kinds.kind_of(slices, [])
    kind = found if found in {"dynamic", "gated"} else "static"
    timeline = timing.split(slices, kind)
    factors = factors_of(slices, wanted, timezone)
    array = _allocated((len(timeline.frames), *timeline.grid.shape))
    places = {index: (t, z) for t, frame in enumerate(timeline.frames) for z, index in enumerate(frame.indices)}
    images: list[Dataset] = []
    for path, reading in zip(paths, readings, strict=True):
        dataset = read_dataset(path, reading.transfer_syntax_uid)
        first = len(images)
        indices = range(first, first + len(reading.header.get("Frames", (None,))))
        for index in indices:
            array[places[index]] = rescaled(dataset, slices[index], factors.factors[index])
        del dataset.PixelData
        images += _single_frames(dataset)
    images = classic.pet_images(images, slices, timezone)
    ordered = tuple(images[index] for index in sorted(places, key=places.__getitem__))
    return LoadedSeries(_volume(array, timeline, wanted, kind), ordered, factors.reference, factors.branch)


def without_pixels(paths: Sequence[Path]) -> list[Dataset]:
    """The data sets of readable files without their pixels, for what says no more than which images it is about.

    Raises
    ------
    UnreadableObject
        As `headers.read`.
    """
    found: list[Dataset] = []
    for path in paths:
        headers.read(path)
        found.append(dcmread(path, stop_before_pixels=True, force=True))
    return found


def factors_of(found: Sequence[Header], wanted: Quantity, timezone: tzinfo) -> Factors:
    """Factors of every instance for the quantity an engine asks for."""
    if any(header.get("Modality") != MODALITIES[wanted] for header in found):
        message = f"Modality (0008,0060): expected {MODALITIES[wanted]} for {wanted.value}"
        raise QuantityRefused(message, code="modality")
    if wanted is Quantity.SUVBW:
        return quantity.suvbw(found, timezone)
    return quantity.activity(found) if wanted is Quantity.ACTIVITY_BQML else quantity.hounsfield(found)


def rescaled(dataset: Dataset, header: Header, factor: float) -> FloatArray:
    """float32 (rows, columns): factor · (stored · slope + intercept) of one slice, with its own slope.

    header : of the slice, FrameNumber says which frame of the data set it is
    """
    stored = _grey_values(dataset, header)
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept") or 0.0
    if slope is None:
        raise QuantityRefused("Rescale Slope (0028,1053): expected a number, got none", code="slope")
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused below
        values = (stored.astype(np.float64) * (slope * factor) + intercept * factor).astype(np.float32)
    if not np.isfinite(values).all():
        raise PixelsRefused("pixels: rescaled values are not finite", code="not-finite")
    return values


def _grey_values(dataset: Dataset, header: Header) -> NDArray[Any]:
    if header.get("PhotometricInterpretation") != "MONOCHROME2" or header.get("SamplesPerPixel") not in (None, 1):
        message = "Photometric Interpretation (0028,0004): expected MONOCHROME2 with one sample per pixel"
        raise PixelsRefused(message, code="photometric")
    stored = stored_frame(dataset, header.get("FrameNumber", 1) - 1)
    shape = header.get("Rows"), header.get("Columns")
    if stored.shape != shape or stored.dtype.kind not in "iu":
        message = f"pixels: expected whole numbers in {shape}, decoded are {stored.dtype} in {stored.shape}"
        raise PixelsRefused(message, code="undecodable")
    check_mapped(int(stored.min()), int(stored.max()), header)
    return stored


def check_mapped(low: int, high: int, header: Header) -> None:
    """A Real World Value Mapping holds for the stored values it names, and for no others (PS3.3 C.7.6.16.2.11.1.2).

    low, high : of the stored values of one frame

    Raises
    ------
    PixelsRefused
        not-mapped.
    """
    first, last = (number(header, keyword) for keyword in MAPPED_RANGE)
    if (first is not None and low < first) or (last is not None and high > last):
        message = f"pixels: Real World Values are given for {first:g} to {last:g}, stored are {low} to {high}"
        raise PixelsRefused(message, code="not-mapped")


def _allocated(shape: tuple[int, ...]) -> FloatArray:
    size = 4 * prod(shape)
    if size > BYTES_MAX:
        message = f"volume: expected at most {BYTES_MAX} bytes, {shape} in single precision takes {size}"
        raise PixelsRefused(message, code="too-large", hint="Ask for a reconstruction with fewer frames or voxels.")
    return np.empty(shape, dtype=np.float32)


def _volume(array: FloatArray, timeline: Timeline, wanted: Quantity, kind: str) -> Volume | DynamicVolume:
    """The frames (frames, z, y, x) with their times."""
    affine = timeline.grid.affine
    if kind == "static":
        return Volume(array[0], affine, wanted)
    starts_s, durations_s = (
        np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        for values in zip(*((frame.start_s, frame.duration_s) for frame in timeline.frames), strict=True)
    )
    return DynamicVolume(array, affine, wanted, starts_s, durations_s)


def _single_frames(dataset: Dataset) -> list[Dataset]:
    """The data set of each slice of an instance, without Pixel Data; they share their elements."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if dataset.SOPClassUID not in functional_groups.SOP_CLASSES or not per_frame:
        return [dataset]
    common = Dataset()
    common.update(dataset)
    shared = common.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"):
        common.pop(keyword, None)  # not set to 1: elements are shared with the data set that was read
    of_frames = []
    for count, groups in enumerate(per_frame, start=1):
        of_frame = Dataset()
        of_frame.file_meta = dataset.file_meta
        of_frame.update(common)
        for macro, group in product(_DESCRIPTION, (shared[0], groups)):
            items = group.get(macro)
            if isinstance(items, DatasetSequence) and items:
                of_frame.update(items[0])
        of_frame.ReferencedFrameNumber = count
        of_frames.append(of_frame)
    return of_frames
