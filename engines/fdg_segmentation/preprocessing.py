"""From a PET and its CT to what the network sees: one grid, cropped to the body, each modality with mean 0 and SD 1.

The grid runs along the patient's axes (z towards the head, y towards the back, x towards the left), whatever the slices
do. arXiv 2605.21835: the body is the largest component of CT > −500 HU and 3 voxels around it; z-scores are taken over
the whole cropped volume, without clipping SUV or HU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.contract import Affine, Case, FloatArray, LabelMap, Volume
from engines.errors import CannotProcess
from engines.lesions import Box, Mask, bounding_box

BODY_HU = -500.0
BODY_MARGIN = 3
"""Voxels around the body on each side."""
BODY_SUV = 0.2
"""Without a CT: what shows more activity is body, and what it encloses in a slice."""
AIR_HU = -1024.0
SMALLEST_BODY_ML = 200.0
LEAST_SEEN = 0.9
"""Share of the PET's activity that must lie in the field of view of the CT."""
LEAST_IN_BODY = 0.6
"""Share of that activity that must lie in the body the CT shows: noise and scatter outside are little of it."""
PAPER_SPACING_MM = (3.0, 2.0, 2.0)
PAPER_PATCH = (96, 128, 128)
PET, CT = 0, 1
"""Channels of an image."""
HIDDEN = 0.0
"""Of a z-score that is not known: the mean."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study on the grid of a network, all arrays (z, y, x).

    image : float32 (2, z, y, x), PET and CT as z-scores, the CT hidden where there is none; suv : the PET before [g/mL]
    body : what CT > −500 HU shows, or without a CT, SUV > 0.2 and what it encloses
    """

    image: FloatArray
    suv: FloatArray
    affine: Affine
    body: Mask


@dataclass(frozen=True, eq=False)
class Example:
    """A prepared case to learn from. image : float16 (2, z, y, x); truth : bool (z, y, x), None where unlabelled."""

    image: NDArray[np.float16]
    truth: Mask | None
    group: str


def prepared(pet: Volume, ct: Volume | None, spacing_mm: Spacing) -> Prepared:
    """A PET in SUVbw and its CT in HU, or None, on one grid.

    Raises
    ------
    CannotProcess
        Codes "no-body", "ct-not-paired" and "empty-image".
    """
    affine, shape = patient_grid(pet, spacing_mm)
    suv = sampled(pet, affine, shape, outside=0.0)
    if ct is None:
        body = _active_body(suv, spacing_mm)
        box = _with_margin(body, BODY_MARGIN)
        scored = z_score(suv[box], "pet")
        image = np.stack([scored, np.full_like(scored, HIDDEN)])
        return Prepared(image, suv[box], shifted(affine, box), body[box])
    hu = sampled(ct, affine, shape, outside=AIR_HU)
    body = _body(hu, spacing_mm)
    _check_pairing(suv, ct, affine, body)
    box = _with_margin(body, BODY_MARGIN)
    image = np.stack([z_score(suv[box], "pet"), z_score(hu[box], "ct")])
    return Prepared(image, suv[box], shifted(affine, box), body[box])


def example(case: Case, spacing_mm: Spacing) -> Example:
    """A case as the network learns from it; raises as `prepared`."""
    made = prepared(case.volumes["pet"], case.volumes.get("ct"), spacing_mm)
    truth = None
    if case.truth is not None:
        truth = on_grid(case.truth, made.affine, made.body.shape)
    return Example(made.image.astype(np.float16), truth, case.group)


def examples(cases: Iterable[Case], spacing_mm: Spacing) -> Iterator[Example]:
    """One after the other, so that whole studies need not be in memory together."""
    return (example(case, spacing_mm) for case in cases)


def z_score(image: FloatArray, name: str) -> FloatArray:
    """Mean 0 and standard deviation 1. Raises CannotProcess "empty-image" where all values are alike."""
    mean, deviation = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    if not deviation > 0.0:
        raise CannotProcess(f"input {name}: expected values that differ, got {mean:g} alone", code="empty-image")
    scored: FloatArray = ((image - mean) / deviation).astype(np.float32)
    return scored


def patient_grid(volume: Volume, spacing_mm: Spacing) -> tuple[Affine, tuple[int, int, int]]:
    """Affine and shape of a grid along the patient's axes that covers a volume to half a voxel."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.array.shape) - 1)
    world = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    lowest, highest = world.min(axis=0), world.max(axis=0)
    step = np.array(spacing_mm[::-1])
    count = np.maximum(np.rint((highest - lowest) / step).astype(int) + 1, 1)
    affine: Affine = np.eye(4)
    affine[:3, :3] = 0.0
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[:3, 3] = (lowest + highest) / 2.0 - step * (count - 1) / 2.0
    x, y, z = (int(n) for n in count)
    return affine, (z, y, x)


def sampled(volume: Volume, affine: Affine, shape: tuple[int, int, int], outside: float) -> FloatArray:
    """A volume at the points of a grid, linearly interpolated; finer voxels are averaged over a step of it first."""
    to_index = np.linalg.inv(volume.affine) @ affine
    averaged = np.maximum(np.rint(np.abs(to_index[:3, :3]).max(axis=1)).astype(int), 1)
    array = volume.array if averaged.max() == 1 else ndimage.uniform_filter(volume.array, averaged, mode="nearest")
    values: FloatArray = ndimage.affine_transform(
        array, to_index[:3, :3], to_index[:3, 3], shape, order=1, mode="grid-constant", cval=outside
    )
    return values


def on_grid(labels: LabelMap, affine: Affine, shape: tuple[int, ...]) -> Mask:
    """Where any label is, at the points of another grid: at least half of it by linear interpolation."""
    to_index = np.linalg.inv(labels.affine) @ affine
    share = ndimage.affine_transform(
        (labels.array > 0).astype(np.float32), to_index[:3, :3], to_index[:3, 3], shape, order=1, mode="grid-constant"
    )
    mask: Mask = share >= 0.5
    return mask


def back_on_grid_of(volume: Volume, values: FloatArray, affine: Affine, outside: float) -> FloatArray:
    """Values of a grid, linearly interpolated at the voxels of a volume; `outside` where the grid does not reach."""
    to_index = np.linalg.inv(affine) @ volume.affine
    there: FloatArray = ndimage.affine_transform(
        values, to_index[:3, :3], to_index[:3, 3], volume.array.shape, order=1, mode="constant", cval=outside
    )
    return there


def shifted(affine: Affine, box: Box) -> Affine:
    """The affine of a box of a grid."""
    moved: Affine = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array([window.start for window in box], dtype=float)
    return moved


def _body(hu: FloatArray, spacing_mm: Spacing) -> Mask:
    """The largest 6-connected component of CT > −500 HU."""
    return _largest(
        hu > BODY_HU,
        spacing_mm,
        f"input ct: expected a body of at least {SMALLEST_BODY_ML:g} mL above {BODY_HU:g} HU where the PET is",
        "Is this the CT of this PET, and are its numbers Hounsfield units?",
    )


def _active_body(suv: FloatArray, spacing_mm: Spacing) -> Mask:
    """The largest 6-connected component of SUV > 0.2, over neighbouring voxels, with what it encloses in a slice."""
    active = _largest(
        ndimage.uniform_filter(suv, 3) > BODY_SUV,
        spacing_mm,
        f"input pet: expected a body of at least {SMALLEST_BODY_ML:g} mL above SUV {BODY_SUV:g}",
        "Is this a static PET in SUV?",
    )
    return np.stack([ndimage.binary_fill_holes(each) for each in active])


def _largest(mask: Mask, spacing_mm: Spacing, expected: str, hint: str) -> Mask:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    volume_ml = float(sizes.max()) * float(np.prod(spacing_mm)) / 1000.0
    if volume_ml < SMALLEST_BODY_ML:
        raise CannotProcess(f"{expected}, got {volume_ml:.0f} mL", code="no-body", hint=hint)
    largest: Mask = labels == sizes.argmax()
    return largest


def _check_pairing(suv: FloatArray, ct: Volume, affine: Affine, body: Mask) -> None:
    """The activity lies where the CT looked, and in the body that it shows."""
    activity = np.maximum(suv, 0.0)
    total = float(activity.sum(dtype=np.float64))
    if not total > 0.0:
        raise CannotProcess("input pet: expected positive values, got none", code="empty-image")
    seen = float(activity[_field_of_view(ct, affine, body.shape)].sum(dtype=np.float64)) / total
    # Lungs and bowel gas are holes of what is above −500 HU, open towards no side within a slice.
    filled = np.stack([ndimage.binary_fill_holes(each) for each in body])
    inside = float(activity[filled].sum(dtype=np.float64)) / total
    for share, least, where in (
        (seen, LEAST_SEEN, "the field of view of the CT"),
        (inside, LEAST_IN_BODY, "the body the CT shows"),
    ):
        if share < least:
            raise CannotProcess(
                f"inputs pet, ct: expected at least {least:.0%} of the activity in {where}, got {share:.0%}",
                code="ct-not-paired",
                hint="The CT must cover the PET, in the same position: choose it by `pairs_with: pet`.",
            )


def _field_of_view(ct: Volume, affine: Affine, shape: tuple[int, ...]) -> Mask:
    """Points of a grid that lie between the outer faces of a CT's voxels."""
    to_index = np.linalg.inv(ct.affine) @ affine
    seen: Mask = np.ones(shape, dtype=bool)
    steps = [
        np.arange(n, dtype=float).reshape([-1 if axis == own else 1 for axis in range(3)])
        for own, n in enumerate(shape)
    ]
    for row, count in zip(to_index[:3], ct.array.shape, strict=True):
        index = row[0] * steps[0] + row[1] * steps[1] + row[2] * steps[2] + row[3]
        seen &= (index >= -0.5) & (index <= count - 0.5)
    return seen


def _with_margin(body: Mask, margin: int) -> Box:
    box = bounding_box(body)
    assert box is not None  # noqa: S101 - a body has voxels
    z, y, x = (
        slice(max(0, window.start - margin), min(n, window.stop + margin))
        for window, n in zip(box, body.shape, strict=True)
    )
    return z, y, x
