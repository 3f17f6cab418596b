"""Randomised adult bodies: which tissue lies where.

A person is drawn (sex, height, weight, arms), the organs of a reference adult of 1.70 m are placed with random sizes
and positions, and one smooth random deformation bends them all. Sizes of organs follow the reference adults of ICRP
publication 89; they are not measured on patients. Patient places are in mm: x to the left, y to the back, z up.

The same person, drawn with the same generator, is the same on every grid: a grid that covers only the chest sees the
chest of the whole body (large organs are computed more coarsely on large grids, to within a voxel).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engines.simulation import abdomen, head, skeleton, thorax
from engines.simulation.person import BOTTOM_MM, Frame, Person, outline
from engines.simulation.shapes import (
    Blend,
    Box,
    Ellipsoid,
    Field,
    FloatArray,
    Offset,
    Point,
    Shape,
    interpolated,
    pieces,
)
from engines.simulation.thorax import heart_axis
from engines.simulation.tissues import Painted, Tissue, filled

__all__ = ["Body", "Frame", "Grid", "Person", "Tissue", "build", "heart_axis"]

T = Tissue
EVERYWHERE: Box = ((-380.0, -380.0, -160.0), (380.0, 380.0, 1160.0))
BEND_MM, BEND_LENGTH_MM = 5.5, 90.0
STIFFNESS = ((200.0, 0.65), (270.0, 1.0), (330.0, 1.0), (420.0, 0.6), (640.0, 0.6), (740.0, 0.25))
"""Reference height [mm] and the share of the bending there: pelvis and ribs keep a body even, a skull hardly bends."""
COARSER = ((150_000, 2), (4_000_000, 3))
"""Voxels of a window from which on a surface is computed at every second or third place, linearly between."""
MARGIN_MM = 24.0
FAT_PLANE = 0.035
"""Of a field of standard deviation 1: sheets about 2 mm thick."""
BONES = (T.MARROW, T.FATTY_MARROW)


@dataclass(frozen=True)
class Grid:
    """An axial grid: z rising with the first index, y to the back, x to the left; x and y are 0 in the middle.

    shape : (z, y, x); step_mm : (z, y, x); bottom_mm : the lower face of the first slice
    """

    shape: tuple[int, int, int]
    step_mm: tuple[float, float, float]
    bottom_mm: float

    @property
    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Centres of the voxels along z, y, x [mm]."""
        (nz, ny, nx), (dz, dy, dx) = self.shape, self.step_mm
        z = self.bottom_mm + dz * (np.arange(nz) + 0.5)
        y, x = (d * (np.arange(n) - (n - 1) / 2) for n, d in ((ny, dy), (nx, dx)))
        return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)

    @property
    def box(self) -> Box:
        """Lowest and highest centre (x, y, z) [mm]."""
        low, high = (tuple(float(part[end]) for part in self.axes[::-1]) for end in (0, -1))
        return low, high  # type: ignore[return-value]


@dataclass(frozen=True)
class Body:
    """A person on a grid.

    tissue : uint8 (z, y, x) of Tissue; scale : reference mm → this person's mm along (x, y, z), below the neck
    """

    person: Person
    grid: Grid
    tissue: NDArray[np.uint8]
    scale: Point

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        dz, dy, dx = self.grid.step_mm
        return dz * dy * dx / 1000.0

    def volume_ml(self, *tissues: Tissue) -> float:
        """What the grid holds of some tissues."""
        return float(np.isin(self.tissue, tissues).sum() * self.voxel_ml)


def build(person: Person, grid: Grid, rng: np.random.Generator) -> Body:
    """Paint a person's tissues, later shapes over earlier ones."""
    canvas = _Canvas(person, grid, rng)
    for painted in _everything(person, rng):
        canvas.paint(painted)
    planes = Field.draw(EVERYWHERE, 42.0, rng).at(*grid.axes)  # fat between muscles
    canvas.tissue[(np.abs(planes) < FAT_PLANE) & (canvas.tissue == T.MUSCLE)] = T.FAT
    _harden(canvas.tissue, grid)
    return Body(person, grid, canvas.tissue, person.scale)


def _everything(person: Person, rng: np.random.Generator) -> Iterator[Painted]:
    """All shapes in the order they are painted."""
    size = float(rng.normal(0.0, 0.02)) + (0.985 if person.sex == "F" else 1.005)
    yield from _outline(person, rng)
    yield head.skin(size)
    yield from abdomen.belly(person, rng)
    yield from abdomen.pelvis(person, rng)
    yield from thorax.chest(person, rng)
    yield from skeleton.skeleton(person)
    yield from head.head(size, rng)


def _outline(person: Person, rng: np.random.Generator) -> Iterator[Painted]:
    """Skin, fat and muscle of trunk and limbs."""
    outer, inner = outline(person)
    breasts: list[Shape] = []
    if person.sex == "F":
        swell = float(rng.normal(1.0, 0.1))
        across, deep = swell * (48 + 0.3 * person.fat_mm), swell * (32 + 0.5 * person.fat_mm)
        breasts = [
            Ellipsoid((s * 70, -100 - 0.5 * person.fat_mm, 540), (across, deep, across + 4), yaw_deg=s * 12)
            for s in (-1, 1)
        ]
    skin_and_fat = ((2.6, T.SKIN), (0.0, T.FAT))
    yield Painted(skin_and_fat, Blend([*outer, *breasts], 16.0), 1.8, rough_length_mm=45.0, anywhere=True)
    for breast in breasts:
        yield filled(T.BREAST, Offset(breast, -14.0), 4.0)
    muscle = Blend(inner, 16.0)
    yield Painted(
        ((0.0, T.MUSCLE),), muscle, 2.0, rough_length_mm=45.0, anywhere=True, over=frozenset({T.FAT, T.BREAST})
    )


class _Canvas:
    """The tissues of a grid while they are painted."""

    def __init__(self, person: Person, grid: Grid, rng: np.random.Generator) -> None:
        self.grid, self.rng, self.frame = grid, rng, Frame(person)
        self.tissue = np.zeros(grid.shape, np.uint8)
        self.bend = [Field.draw(EVERYWHERE, BEND_LENGTH_MM, rng) for _ in range(3)]
        z, y, x = grid.axes
        self.z, self.y, self.x = z, y, x
        self.upright = self.frame.upright(z)
        self.across = self.frame.across(self.upright)
        heights, shares = zip(*STIFFNESS, strict=True)
        self.stiff = np.interp(self.upright, heights, shares).astype(np.float32)

    def paint(self, painted: Painted) -> None:
        """Fill a shape."""
        rough = None
        if painted.rough_mm:  # drawn whatever the grid shows of it, so that the next shape is the same on every grid
            low, high = np.asarray(painted.shape.box)
            low, high = low - MARGIN_MM, high + MARGIN_MM
            box = (0.0 if painted.mirrored else low[0], low[1], low[2]), (high[0], high[1], high[2])
            rough = Field.draw(box, painted.rough_length_mm, self.rng)
        for piece in pieces(painted.shape):
            window = self._window(piece, MARGIN_MM if painted.rough_mm or painted.tissues[0][0] else 12.0)
            if window is not None:
                self._fill(window, self._depth(piece, window, painted, rough), painted)

    def _fill(self, window: tuple[slice, slice, slice], depth: FloatArray, painted: Painted) -> None:
        here = self.tissue[window]
        if painted.over is not None:
            free = np.isin(here, list(painted.over))
        else:
            free = (here != T.AIR) & (here != T.SKIN) if not painted.anywhere else np.ones(here.shape, bool)
        for outside_mm, tissue in painted.tissues:
            here[free & (depth < outside_mm)] = tissue

    def _depth(
        self, shape: Shape, window: tuple[slice, slice, slice], painted: Painted, rough: Field | None
    ) -> FloatArray:
        """How deep the places of a window lie in a shape."""
        counts = [part.stop - part.start for part in window]
        stride = max([1, *(step for voxels, step in COARSER if np.prod(counts) > voxels)])
        rows = [np.unique(np.append(np.arange(part.start, part.stop, stride), part.stop - 1)) for part in window]
        z, y, x = (axis[row] for axis, row in zip((self.z, self.y, self.x), rows, strict=True))
        across, upright, stiff = (part[rows[0]][:, None, None] for part in (self.across, self.upright, self.stiff))
        moved = [stiff * np.float32(BEND_MM) * field.at(z, y, x) for field in self.bend]
        depth = shape.depth(
            (x + moved[0]) / across,
            (y[:, None] + moved[1]) / across,
            upright + moved[2] / np.float32(self.frame.person.scale[2]),
        )
        if rough is not None:
            wide = np.float32(across.mean())
            side = np.abs(x / wide) if painted.mirrored else x / wide
            depth = depth + np.float32(painted.rough_mm) * rough.at(upright.ravel(), y / wide, side)
        if stride > 1:
            for axis, (row, part) in enumerate(zip(rows, window, strict=True)):
                places = np.interp(np.arange(part.start, part.stop), row, np.arange(len(row))).astype(np.float32)
                depth = interpolated(depth, axis, places)
        return depth

    def _window(self, shape: Shape, margin_mm: float) -> tuple[slice, slice, slice] | None:
        """The part of the grid that may hold a shape."""
        low, high = shape.box
        first, last = (int(np.searchsorted(self.upright, edge)) for edge in (low[2] - margin_mm, high[2] + margin_mm))
        if first >= last:
            return None
        scales = float(self.across[first:last].min()), float(self.across[first:last].max())
        windows = [slice(first, last)]
        for axis, places in ((1, self.y), (0, self.x)):
            start = min(low[axis] * scale for scale in scales) - margin_mm
            stop = max(high[axis] * scale for scale in scales) + margin_mm
            windows.append(slice(int(np.searchsorted(places, start)), int(np.searchsorted(places, stop))))
        return None if any(part.start >= part.stop for part in windows) else (windows[0], windows[1], windows[2])


def _harden(tissue: NDArray[np.uint8], grid: Grid, *, cortex_mm: float = 2.2) -> None:
    """Marrow within so much of another tissue becomes cortical bone."""
    bone = np.isin(tissue, BONES)
    deep = bone
    for _ in range(max(1, round(cortex_mm / max(grid.step_mm)))):
        deep = _eroded(deep)
    tissue[bone & ~deep] = T.CORTICAL_BONE


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the voxels that have a face outside; faces at the grid's edge count as inside."""
    deep = mask.copy()
    for axis in range(3):
        for here, beside in pairwise((slice(1, None), slice(None, -1), slice(1, None))):
            places, neighbours = ([slice(None)] * 3 for _ in range(2))
            places[axis], neighbours[axis] = here, beside
            deep[tuple(places)] &= mask[tuple(neighbours)]
    return deep


def whole_body(person: Person, step_mm: tuple[float, float, float], pixels: int, *, multiple: int = 1) -> Grid:
    """A grid from the upper thighs to over the vertex, its slices a multiple of some number."""
    bottom = 0.5 * BOTTOM_MM * person.scale[2]
    slices = int(np.ceil((person.vertex_mm + 18.0 - bottom) / step_mm[0] / multiple)) * multiple
    return Grid((slices, pixels, pixels), step_mm, bottom)
