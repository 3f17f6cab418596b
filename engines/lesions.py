"""From a mask to lesions: connected components, their volumes and their PET measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.contract import Affine, LabelMap, Lesion, Measurement, Volume
from engines.errors import Stopped

PEAK_VOLUME_ML = 1.0
PEAK_RADIUS_MM = (3.0 * PEAK_VOLUME_ML * 1000.0 / (4.0 * pi)) ** (1.0 / 3.0)  # 6.2035 mm
_POINTS_PER_SPHERE_RADIUS = 24

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Region:
    """A set of voxels: `mask` within the `box` of the volume."""

    box: Box
    mask: Mask

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        return int(np.count_nonzero(self.mask))

    @property
    def first(self) -> tuple[int, ...]:
        """Index (z, y, x) of its first voxel in array order; two disjoint regions never share it."""
        inside = np.unravel_index(int(np.argmax(self.mask)), self.mask.shape)
        return tuple(int(i) + window.start for i, window in zip(inside, self.box, strict=True))

    def placed_in(self, box: Box) -> Region:
        """The same voxels; this region's box was relative to `box` of the volume."""
        z, y, x = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(box, self.box, strict=True))
        return Region((z, y, x), self.mask)


@cache
def structure(connectivity: int) -> Mask:
    """Neighbourhood (3, 3, 3) of 6 (faces), 18 (faces, edges) or 26 (faces, edges, corners) neighbours."""
    shared = {6: 1, 18: 2, 26: 3}
    if connectivity not in shared:
        raise ValueError(f"connectivity: expected 6, 18 or 26, got {connectivity}")
    neighbours: Mask = ndimage.generate_binary_structure(3, shared[connectivity])
    return neighbours


def components(mask: Mask, connectivity: int) -> list[Region]:
    """The connected components of a mask (z, y, x), in array order of their first voxel."""
    box = bounding_box(mask)
    if box is None:
        return []
    labels, _ = ndimage.label(mask[box], structure(connectivity))
    found = enumerate(ndimage.find_objects(labels), start=1)
    return [Region(window, labels[window] == label).placed_in(box) for label, window in found]


def bounding_box(mask: Mask) -> Box | None:
    """The smallest box that holds every True voxel; None where there is none."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        touched = np.flatnonzero(mask.any(axis=others))
        if not touched.size:
            return None
        slices.append(slice(int(touched[0]), int(touched[-1]) + 1))
    return slices[0], slices[1], slices[2]


def largest_first(regions: list[Region]) -> list[Region]:
    """Sorted by number of voxels, equal ones by position: the order of the labels."""
    return sorted(regions, key=lambda region: (-region.voxels, region.first))


@dataclass(frozen=True, slots=True)
class Limits:
    """smallest_ml : regions below are no lesions [mL]; most : how many are reported, the largest."""

    smallest_ml: float
    most: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Regions that are lesions, their measures in the same order, and what must be said of them."""

    regions: list[Region]
    lesions: list[Lesion]
    warnings: tuple[str, ...]


def measured(
    pet: Volume,
    regions: list[Region],
    limits: Limits,
    should_stop: Callable[[], bool],
    counts: Callable[[Lesion], bool] = lambda _: True,
) -> Measured:
    """Regions as lesions 1 … n, the largest first.

    counts : whether what was measured is a lesion

    Raises
    ------
    Stopped
        `should_stop` answered yes.
    """
    kept: list[Region] = []
    lesions: list[Lesion] = []
    big_enough = [region for region in regions if region.voxels * pet.voxel_volume_ml >= limits.smallest_ml]
    for region in largest_first(big_enough):
        if should_stop():
            raise Stopped("asked to stop while measuring lesions")
        lesion = measure(pet, region, len(kept) + 1)
        if not counts(lesion):
            continue
        if len(kept) == limits.most:
            cap = limits.most
            warning = f"More than {cap} regions: only the {cap} largest are reported, the totals miss the rest."
            return Measured(kept, lesions, (warning,))
        kept.append(region)
        lesions.append(lesion)
    return Measured(kept, lesions, ())


def label_map(pet: Volume, regions: list[Region]) -> LabelMap | None:
    """Labels 1 … n of regions on the grid of a PET, None where there are none; a label is a uint16."""
    if not regions:
        return None
    labels = np.zeros(pet.array.shape, dtype=np.uint16)
    for label, region in enumerate(regions, start=1):
        labels[region.box][region.mask] = label
    return LabelMap(labels, pet.affine, {label: f"Lesion {label}" for label in range(1, len(regions) + 1)})


def totals(lesions: list[Lesion]) -> tuple[Measurement, Measurement]:
    """Metabolic tumour volume [mL] and total lesion glycolysis [g]."""
    volume_ml = float(sum(lesion.volume_ml for lesion in lesions))
    glycolysis_g = float(sum(lesion.tlg_g for lesion in lesions))
    return Measurement("MTV", volume_ml, "ml"), Measurement("TLG", glycolysis_g, "g")


def measure(pet: Volume, region: Region, label: int) -> Lesion:
    """Volume, SUV and place of one region of a PET in SUVbw; every sum is taken in float64."""
    values = pet.array[region.box][region.mask].astype(np.float64)
    volume_ml = values.size * pet.voxel_volume_ml
    corner = np.array([window.start for window in region.box])
    centre = np.argwhere(region.mask).mean(axis=0) + corner
    x, y, z = (float(c) for c in pet.affine[:3, :3] @ centre + pet.affine[:3, 3])
    mean = float(values.mean())
    return Lesion(
        label=label,
        voxels=values.size,
        volume_ml=volume_ml,
        suv_max=float(values.max()),
        suv_mean=mean,
        suv_peak=suv_peak(pet, region),
        tlg_g=mean * volume_ml,
        centroid_mm=(x, y, z),
    )


def suv_peak(pet: Volume, region: Region) -> float | None:
    """SUVpeak: the highest mean SUV of a 1 mL sphere centred on a voxel of the region (Wahl 2009, J Nucl Med 50:122S).

    A voxel weighs as much as the share of it that lies in the sphere, so that the sphere holds 1 mL on every grid; it
    may reach beyond the region. Centres whose sphere leaves the image do not count; None where no centre is left.
    """
    offsets, weights = sphere_weights(pet.affine, PEAK_RADIUS_MM)
    reach = np.abs(offsets).max(axis=0)
    corner = np.array([window.start for window in region.box])
    centres = np.argwhere(region.mask) + corner
    fits = ((centres >= reach) & (centres < np.array(pet.array.shape) - reach)).all(axis=1)
    if not fits.any():
        return None
    strides = np.array([pet.array.shape[1] * pet.array.shape[2], pet.array.shape[2], 1])
    image, flat = pet.array.reshape(-1), centres[fits] @ strides
    means = np.zeros(len(flat))
    for offset, weight in zip(offsets @ strides, weights, strict=True):
        means += weight * image[flat + offset]
    return float(means.max())


def sphere_weights(affine: Affine, radius_mm: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxel offsets (n, 3) that a sphere around a voxel's centre touches, and their weights, which sum to 1.

    A weight is proportional to the share of the voxel's volume in the sphere, counted on a grid of points of at most
    1/24 of the radius; any affine, also an oblique one, will do.
    """
    matrix = affine[:3, :3]
    # |index_i| ≤ r·‖row i of the inverse‖ for every point of the sphere; half a voxel more is touched.
    reach = np.ceil(radius_mm * np.linalg.norm(np.linalg.inv(matrix), axis=1) - 0.5).astype(int)
    spacing = np.linalg.norm(matrix, axis=0)
    parts = np.maximum(1, np.ceil(spacing * _POINTS_PER_SPHERE_RADIUS / radius_mm)).astype(int)
    inside = np.zeros(tuple(2 * reach + 1))
    points = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
    sub_voxel = np.stack(np.meshgrid(*points, indexing="ij"), axis=-1).reshape(-1, 3) @ matrix.T
    for index in np.ndindex(*inside.shape):
        place = sub_voxel + matrix @ (np.array(index) - reach)
        inside[index] = np.count_nonzero(np.einsum("ij,ij->i", place, place) <= radius_mm**2) / len(place)
    touched = np.argwhere(inside > 0.0)
    return touched - reach, inside[inside > 0.0] / inside.sum()
