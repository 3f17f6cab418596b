"""Find the PERCIST reference: a 3 cm sphere in the right lobe of the liver (Wahl 2009, J Nucl Med 50:122S).

The search looks for what a reader looks for: a large region of even, moderate uptake on the patient's right, with lung
above it. It works on a coarse grid (6 mm, patient axes), so that slice thickness, flips and oblique scans do not
matter; mean and SD are taken on the PET itself. Where any sign is missing it refuses: a wrong reference is worse than
none. It does not know situs inversus, large resections or small children.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.contract import Affine, FloatArray, Volume
from engines.errors import CannotProcess
from engines.lesions import Mask, components

VOI_RADIUS_MM = 15.0
GRID_MM = 6.0
_BOX = 5  # coarse voxels: the 30 mm cube around the sphere

SUV_RANGE = (1.0, 4.0)
HU_RANGE = (-20.0, 160.0)  # fatty … contrast-enhanced
LUNG_HU_RANGE = (-930.0, -500.0)
EANM_RANGE = (1.3, 3.0)  # Boellaard 2015, EJNMMI 42:328: liver SUV of a sound examination

_EVEN_COV = 0.25
_NOISIEST_COV = 0.30
_CORE_ML = 150.0  # of centres whose whole 30 mm cube is even: a liver of 800 mL has about 200
_LUNG_CORE_ML = 150.0
_BESIDE_MIDLINE_MM = 30.0
_LUNG_ABOVE_MM = (20.0, 140.0)
_LUNG_TO_SOFT_TISSUE = 0.75


@dataclass(frozen=True, slots=True)
class LiverVoi:
    """The reference sphere: centre in LPS mm, mean and standard deviation of the SUV of its voxels."""

    centre_mm: tuple[float, float, float]
    mean_suv: float
    sd_suv: float
    voxels: int


@dataclass(frozen=True, slots=True)
class _Scene:
    """Local means and SDs (30 mm cubes) on a grid along the patient's axes; index order (z, y, x), x towards left."""

    suv: FloatArray
    suv_sd: FloatArray
    hu: FloatArray | None
    hu_sd: FloatArray | None
    origin_mm: NDArray[np.float64]

    def place_mm(self, index: tuple[int, ...]) -> NDArray[np.float64]:
        """LPS position of a grid point."""
        return self.origin_mm + GRID_MM * np.array(index[::-1], dtype=float)


def find_liver(pet: Volume, ct: Volume | None) -> LiverVoi:
    """The reference sphere of a PET in SUVbw, with the help of a CT in HU where there is one.

    Raises
    ------
    CannotProcess
        code "no-liver": the image shows no region that can be trusted to be liver; the message says what is missing.
    """
    scene = _look(pet, ct)
    body = _whole_in_view(scene.suv > 0.2)
    candidates = _right_of_midline(_even_tissue(scene), body)
    voxel_ml = GRID_MM**3 / 1000.0
    regions = [region for region in components(candidates, 6) if region.voxels * voxel_ml >= _CORE_ML]
    if not regions:
        raise _no_liver("no large region of even uptake between SUV 1 and 4 right of a midline")
    for region in sorted(regions, key=lambda region: -region.voxels):
        depth = ndimage.distance_transform_edt(np.pad(region.mask, 1))[1:-1, 1:-1, 1:-1]
        deepest = np.unravel_index(int(depth.argmax()), depth.shape)
        z, y, x = (int(i) + window.start for i, window in zip(deepest, region.box, strict=True))
        if _has_lung_above(scene, body, (z, y, x)):
            return _measured(pet, scene.place_mm((z, y, x)))
    raise _no_liver("no lung above the regions of even uptake on the patient's right")


def _no_liver(reason: str) -> CannotProcess:
    return CannotProcess(
        f"PERCIST needs a reference in the liver, and none was found: {reason}",
        code="no-liver",
        hint="Use method: fixed or percent for examinations that do not show the liver and the lung base.",
    )


def _look(pet: Volume, ct: Volume | None) -> _Scene:
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(pet.array.shape) - 1)
    world = corners @ pet.affine[:3, :3].T + pet.affine[:3, 3]
    lowest = world.min(axis=0)
    shape = np.ceil((world.max(axis=0) - lowest) / GRID_MM).astype(int)[::-1] + 1
    suv, suv_sd = _local(_sampled(pet, lowest, shape, outside=0.0))
    if ct is None:
        return _Scene(suv, suv_sd, None, None, lowest)
    hu, hu_sd = _local(_sampled(ct, lowest, shape, outside=-1000.0))
    return _Scene(suv, suv_sd, hu, hu_sd, lowest)


def _sampled(volume: Volume, origin_mm: NDArray[np.float64], shape: NDArray[np.int64], outside: float) -> FloatArray:
    """The volume at the points of the coarse grid, linearly interpolated."""
    grid: Affine = np.zeros((4, 4))
    grid[2, 0] = grid[1, 1] = grid[0, 2] = GRID_MM
    grid[:3, 3], grid[3, 3] = origin_mm, 1.0
    to_index = np.linalg.inv(volume.affine) @ grid
    sampled: FloatArray = ndimage.affine_transform(
        volume.array, to_index[:3, :3], to_index[:3, 3], tuple(shape), order=1, mode="constant", cval=outside
    )
    return sampled


def _local(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation in the 30 mm cube around every point."""
    mean = ndimage.uniform_filter(image.astype(np.float64), _BOX, mode="nearest")
    square = ndimage.uniform_filter(image.astype(np.float64) ** 2, _BOX, mode="nearest")
    return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0.0)).astype(np.float32)


def _even_tissue(scene: _Scene) -> Mask:
    even: Mask = (scene.suv >= SUV_RANGE[0]) & (scene.suv <= SUV_RANGE[1]) & (scene.suv_sd <= _EVEN_COV * scene.suv)
    if scene.hu is not None:
        even &= (scene.hu >= HU_RANGE[0]) & (scene.hu <= HU_RANGE[1])
    return even


def _whole_in_view(body: Mask) -> Mask:
    """Only the slices that show the body from side to side: where it is cut off, nobody knows its midline."""
    cut: Mask = np.logical_or.reduce(body[:, :, [0, -1]], axis=(1, 2))
    whole: Mask = body & ~cut[:, None, None]
    return whole


def _right_of_midline(mask: Mask, body: Mask) -> Mask:
    """Only what lies at least 3 cm to the right (smaller x) of the middle of the body in its slice."""
    columns = np.arange(mask.shape[2])
    outline: Mask = np.logical_or.reduce(body, axis=1)
    first = outline.argmax(axis=1)
    last = mask.shape[2] - 1 - outline[:, ::-1].argmax(axis=1)
    middle = (first + last) / 2.0
    seen: Mask = np.logical_or.reduce(outline, axis=1)
    right = seen[:, None] & (columns < middle[:, None] - _BESIDE_MIDLINE_MM / GRID_MM)
    chosen: Mask = mask & right[:, None, :]
    return chosen


def _has_lung_above(scene: _Scene, body: Mask, index: tuple[int, int, int]) -> bool:
    """Whether the slices above show lung on the same side.

    With a CT by its density. Without, as a large region inside the body with clearly less uptake than the median of
    muscle and fat in the same slices; deep fat may look so, too, hence the warning of a reference found on PET alone.
    """
    z, _, x = index
    low, high = (z + round(mm / GRID_MM) for mm in _LUNG_ABOVE_MM)
    above = (slice(low, high), slice(None), slice(max(0, x - 16), x + 16))  # ±96 mm
    if scene.hu is not None and scene.hu_sd is not None:
        hu = scene.hu[above]
        lung = (hu > LUNG_HU_RANGE[0]) & (hu < LUNG_HU_RANGE[1]) & (scene.hu_sd[above] < 200.0)
    else:
        filled = ndimage.binary_fill_holes(body[low:high])
        inside = ndimage.binary_erosion(filled, iterations=3)
        tissue = scene.suv[low:high][inside & (scene.suv[low:high] < SUV_RANGE[0])]
        soft = float(np.median(tissue)) if tissue.size else 0.0
        lung = (inside & (scene.suv[low:high] < _LUNG_TO_SOFT_TISSUE * soft))[:, :, above[2]]
    return bool(np.count_nonzero(lung) * GRID_MM**3 / 1000.0 >= _LUNG_CORE_ML)


def _measured(pet: Volume, centre_mm: NDArray[np.float64]) -> LiverVoi:
    """Mean and SD of the PET voxels whose centres lie in the sphere."""
    index = np.linalg.inv(pet.affine) @ np.append(centre_mm, 1.0)
    reach = np.ceil(VOI_RADIUS_MM * np.linalg.norm(np.linalg.inv(pet.affine[:3, :3]), axis=1))
    low = np.maximum(np.floor(index[:3] - reach), 0).astype(int)
    high = np.minimum(np.ceil(index[:3] + reach) + 1, pet.array.shape).astype(int)
    z, y, x = (np.arange(a, b) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1) @ pet.affine[:3, :3].T + pet.affine[:3, 3]
    inside = ((points - centre_mm) ** 2).sum(axis=-1) <= VOI_RADIUS_MM**2
    values = pet.array[low[0] : high[0], low[1] : high[1], low[2] : high[2]][inside].astype(np.float64)
    if values.size < 8:
        raise _no_liver(f"only {values.size} voxels fit into the 3 cm sphere, expected at least 8")
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if not SUV_RANGE[0] <= mean <= SUV_RANGE[1] or sd > _NOISIEST_COV * mean:
        raise _no_liver(f"the uptake there is too uneven (mean {mean:.2f}, SD {sd:.2f} g/mL)")
    x_mm, y_mm, z_mm = (float(c) for c in centre_mm)
    return LiverVoi((x_mm, y_mm, z_mm), mean, sd, values.size)
