"""Organic shapes as implicit surfaces: a function of the place that is negative inside, roughly in mm from the surface.

Places are in millimetres, x to the left, y to the back, z up. Shapes are blended softly where they meet, cut by each
other, and roughened by smooth random fields, so that nothing is an ellipsoid in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

FloatArray = NDArray[np.float32]
Point = tuple[float, float, float]
Box = tuple[Point, Point]


class Shape(Protocol):
    """A region of space."""

    @property
    def box(self) -> Box:
        """Lowest and highest corner (x, y, z) of what holds it [mm]."""
        ...

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Roughly the distance from the surface [mm], negative inside; arrays broadcast."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """Semi-axes along x, y, z, turned by `yaw_deg` about z, then by `pitch_deg` about x, then by `roll_deg` about y.

    square : a rounded block (superellipsoid of power 4) instead of an ellipsoid
    """

    centre: Point
    semi_axes: Point
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    square: bool = False

    @property
    def box(self) -> Box:
        """As of Shape."""
        turned = self.yaw_deg or self.pitch_deg or self.roll_deg
        reach = [1.4 * max(self.semi_axes)] * 3 if turned else self.semi_axes
        return _box(np.asarray([self.centre]) - reach, np.asarray([self.centre]) + reach)

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        u, v, w = (p - np.float32(c) for p, c in zip((x, y, z), self.centre, strict=True))
        for angle, about in ((self.roll_deg, "y"), (self.pitch_deg, "x"), (self.yaw_deg, "z")):
            if angle:
                u, v, w = _turned(u, v, w, -angle, about)
        q = [(p / np.float32(r)) ** 2 for p, r in zip((u, v, w), self.semi_axes, strict=True)]
        if self.square:
            q = [part**2 for part in q]
        radius: FloatArray = np.sqrt(q[0] + q[1] + q[2])
        return ((np.sqrt(radius) if self.square else radius) - np.float32(1.0)) * np.float32(min(self.semi_axes))


@dataclass(frozen=True)
class Spheroid:
    """An ellipsoid of revolution about a unit `axis`, cut off flat at `base_mm` behind its centre."""

    centre: Point
    axis: Point
    long_mm: float
    short_mm: float
    base_mm: float = np.inf

    @property
    def box(self) -> Box:
        """As of Shape."""
        reach = max(self.long_mm, self.short_mm)
        return _box(np.asarray([self.centre]) - reach, np.asarray([self.centre]) + reach)

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        u, v, w = (p - np.float32(c) for p, c in zip((x, y, z), self.centre, strict=True))
        a, b, c = (np.float32(part) for part in self.axis)
        along = u * a + v * b + w * c
        across = np.maximum(u**2 + v**2 + w**2 - along**2, 0.0)
        radius = np.sqrt((along / np.float32(self.long_mm)) ** 2 + across / np.float32(self.short_mm) ** 2)
        deep: FloatArray = np.maximum((radius - 1.0) * np.float32(self.short_mm), -along - np.float32(self.base_mm))
        return deep


@dataclass(frozen=True)
class Tube:
    """A round tube along a polyline, its radius running linearly between the points."""

    points: Sequence[Point]
    radii: Sequence[float]

    @property
    def box(self) -> Box:
        """As of Shape."""
        places, reach = np.asarray(self.points), np.asarray(self.radii)[:, None]
        return _box(places - reach, places + reach)

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        nearest = self._segment(0, x, y, z)
        for number in range(1, len(self.points) - 1):
            nearest = np.minimum(nearest, self._segment(number, x, y, z))
        return nearest

    def _segment(self, number: int, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        first, last = np.asarray(self.points[number], np.float32), np.asarray(self.points[number + 1], np.float32)
        way = last - first
        u, v, w = x - first[0], y - first[1], z - first[2]
        share = np.clip((u * way[0] + v * way[1] + w * way[2]) / np.float32(max(float(way @ way), 1e-6)), 0.0, 1.0)
        aside: FloatArray = np.sqrt((u - share * way[0]) ** 2 + (v - share * way[1]) ** 2 + (w - share * way[2]) ** 2)
        near, far = (np.float32(self.radii[number + step]) for step in (0, 1))
        return np.asarray(aside - (near + (far - near) * share), np.float32)


@dataclass(frozen=True)
class Column:
    """An upright body whose cross-section, a superellipse, changes with height.

    heights : rising; per height semi-axes (across, front to back) and centre (x, y); `power` 2 is an ellipse
    grown : added to the semi-axes and ends [mm]
    """

    heights: Sequence[float]
    semi_axes: Sequence[tuple[float, float]]
    centres: Sequence[tuple[float, float]]
    power: float = 2.4
    grown: float = 0.0

    @property
    def box(self) -> Box:
        """As of Shape."""
        axes, centres = np.asarray(self.semi_axes) + self.grown, np.asarray(self.centres)
        ends = np.asarray([[self.heights[0] - self.grown], [self.heights[-1] + self.grown]])
        low = np.concatenate([(centres - axes).min(axis=0), ends[0]])
        return _box(low[None], np.concatenate([(centres + axes).max(axis=0), ends[1]])[None])

    @cached_property
    def _section(self) -> PchipInterpolator:
        return PchipInterpolator(self.heights, np.hstack([np.asarray(self.semi_axes), np.asarray(self.centres)]))

    def section(self, z: FloatArray) -> tuple[FloatArray, ...]:
        """Semi-axes across and front to back, centre x and y at the heights z."""
        found = self._section(np.clip(z, self.heights[0], self.heights[-1])).astype(np.float32)
        across, deep, middle_x, middle_y = np.moveaxis(found, -1, 0)
        return across + np.float32(self.grown), deep + np.float32(self.grown), middle_x, middle_y

    def edge(self, angle: float, height: float, *, out_mm: float = 0.0) -> Point:
        """The place on the surface at an angle from the back (0) by the left (π/2) to the front (π)."""
        a, b, u, v = (float(part) for part in self.section(np.asarray(height, np.float32)))
        across, back = np.sin(angle), np.cos(angle)
        reach = (np.abs(across / (a + out_mm)) ** self.power + np.abs(back / (b + out_mm)) ** self.power) ** (
            -1 / self.power
        )
        return float(u + reach * across), float(v + reach * back), float(height)

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        z = np.asarray(z, np.float32)
        steps = np.linspace(self.heights[0], self.heights[-1], 256, dtype=np.float32)  # a table: splines are slow
        a, b, u, v = (np.interp(z, steps, part).astype(np.float32) for part in self.section(steps))
        power = np.float32(self.power)
        across = np.abs((x - u) / a) ** power + np.abs((y - v) / b) ** power
        sideways = (across ** np.float32(1 / power) - 1.0) * np.minimum(a, b)
        ends = np.maximum(np.float32(self.heights[0] - self.grown) - z, z - np.float32(self.heights[-1] + self.grown))
        deep: FloatArray = np.maximum(sideways, ends)
        return deep


@dataclass(frozen=True)
class Blend:
    """Several shapes melted together over `soft_mm`."""

    parts: Sequence[Shape]
    soft_mm: float = 8.0

    @property
    def box(self) -> Box:
        """As of Shape."""
        boxes = np.asarray([part.box for part in self.parts])
        return _box(boxes[:, 0], boxes[:, 1])

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        melted = self.parts[0].depth(x, y, z)
        soft = np.float32(self.soft_mm)
        for part in self.parts[1:]:  # a smooth minimum (polynomial)
            other = part.depth(x, y, z)
            meeting = np.maximum(soft - np.abs(melted - other), 0.0)
            melted = np.minimum(melted, other) - meeting**2 / (4 * soft)
        return melted


@dataclass(frozen=True)
class Cut:
    """A shape without what lies in others."""

    whole: Shape
    without: Sequence[Shape]

    @property
    def box(self) -> Box:
        """As of Shape."""
        return self.whole.box

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        left = self.whole.depth(x, y, z)
        for part in self.without:
            left = np.maximum(left, -part.depth(x, y, z))
        return left


@dataclass(frozen=True)
class Common:
    """What several shapes share; the box is the first one's."""

    parts: Sequence[Shape]

    @property
    def box(self) -> Box:
        """As of Shape."""
        return self.parts[0].box

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        shared = self.parts[0].depth(x, y, z)
        for part in self.parts[1:]:
            shared = np.maximum(shared, part.depth(x, y, z))
        return shared


@dataclass(frozen=True)
class Offset:
    """A shape grown by so many mm, shrunk if negative."""

    whole: Shape
    by_mm: float

    @property
    def box(self) -> Box:
        """As of Shape."""
        low, high = np.asarray(self.whole.box)
        return _box((low - self.by_mm)[None], (high + self.by_mm)[None])

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        return self.whole.depth(x, y, z) - np.float32(self.by_mm)


@dataclass(frozen=True)
class Shell:
    """The outer `thickness_mm` of a shape."""

    whole: Shape
    thickness_mm: float

    @property
    def box(self) -> Box:
        """As of Shape."""
        return self.whole.box

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """As of Shape."""
        outside = self.whole.depth(x, y, z)
        deep: FloatArray = np.maximum(outside, -outside - np.float32(self.thickness_mm))
        return deep


def pieces(shape: Shape) -> Iterable[Shape]:
    """Shapes whose union is the shape, each with a smaller box: the segments of a tube."""
    if not isinstance(shape, Tube):
        return [shape]
    along = range(len(shape.points) - 1)
    return [Tube(shape.points[n : n + 2], shape.radii[n : n + 2]) for n in along]


@dataclass(frozen=True)
class Field:
    """A smooth random field of standard deviation about 1, the same on whatever grid it is looked at.

    knots : float32 (z, y, x), `spacing_mm` apart, the first at `low` (z, y, x) [mm]; linear between, constant beyond
    """

    knots: FloatArray
    low: Point
    spacing_mm: float

    @classmethod
    def draw(cls, box: Box, length_mm: float, rng: np.random.Generator) -> Field:
        """A field over a box (x, y, z) that changes over about `length_mm`."""
        spacing, smooth = length_mm / 3.0, 1.5
        (x, y, z), high = box
        counts = [int(np.ceil((h - w) / spacing)) + 2 for w, h in zip((z, y, x), high[::-1], strict=True)]
        noise = rng.standard_normal(counts, dtype=np.float32)
        gain = (2 * np.sqrt(np.pi) * smooth) ** 1.5  # 1 / root of the kernel's summed squares, three axes
        return cls(gaussian_filter(noise, smooth, mode="wrap") * np.float32(1.07 * gain), (z, y, x), spacing)

    def at(self, z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        """float32 (z, y, x) at the places of three axes [mm]."""
        values = self.knots
        for axis, (places, low) in enumerate(zip((z, y, x), self.low, strict=True)):
            values = interpolated(values, axis, (places - np.float32(low)) / np.float32(self.spacing_mm))
        return values


def interpolated(values: FloatArray, axis: int, places: FloatArray) -> FloatArray:
    """Values along an axis, given at 0, 1, 2 …, linearly interpolated at places; held beyond.

    Without a matrix product: its library's threads get into each other's way on thousands of small arrays.
    """
    count = values.shape[axis]
    place = np.clip(places, 0.0, count - 1.0)
    lower = np.minimum(place.astype(int), max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    share = (place - lower).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(values.ndim)])
    below = values.take(lower, axis)
    above: FloatArray = values.take(upper, axis)
    above -= below
    above *= share
    above += below
    return above


def _box(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    """The box of many boxes: arrays (n, 3)."""
    lowest, highest = low.min(axis=0), high.max(axis=0)
    return (
        (float(lowest[0]), float(lowest[1]), float(lowest[2])),
        (float(highest[0]), float(highest[1]), float(highest[2])),
    )


def _turned(
    u: FloatArray, v: FloatArray, w: FloatArray, degrees: float, about: str
) -> tuple[FloatArray, FloatArray, FloatArray]:
    cos, sin = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    if about == "z":
        return cos * u - sin * v, sin * u + cos * v, w
    if about == "x":
        return u, cos * v - sin * w, sin * v + cos * w
    return cos * u + sin * w, v, -sin * u + cos * w
