"""The left ventricle's own axes, and the 17 segments of the American Heart Association (Cerqueira 2002, Circulation
105:539).

Everything is measured on the body's voxels, because organs are bent after they were placed: the long axis is that of
the cavity, the septum is where the right ventricle lies. A level is 0 at the base and 1 where the cavity ends at the
apex; an angle is 0 in the middle of the septum, 90° in front, 180° at the lateral wall, 270° below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.simulation.anatomy import Body
from engines.simulation.person import Frame
from engines.simulation.tissues import Tissue

Array = NDArray[np.float64]
T = Tissue
SEGMENTS: Mapping[int, str] = {
    1: "basal anterior", 2: "basal anteroseptal", 3: "basal inferoseptal", 4: "basal inferior",
    5: "basal inferolateral", 6: "basal anterolateral", 7: "mid anterior", 8: "mid anteroseptal",
    9: "mid inferoseptal", 10: "mid inferior", 11: "mid inferolateral", 12: "mid anterolateral",
    13: "apical anterior", 14: "apical septal", 15: "apical inferior", 16: "apical lateral", 17: "apex",
}  # fmt: skip
TERRITORIES: Mapping[str, tuple[int, ...]] = {
    "LAD": (1, 2, 7, 8, 13, 14, 17), "RCA": (3, 4, 9, 10, 15), "LCX": (5, 6, 11, 12, 16),
}  # fmt: skip
"""Cerqueira 2002, figure 5."""
RINGS_OF_SIX = np.asarray((2, 1, 6, 5, 4, 3))
"""Basal segments from the middle of the septum on, 60° each, over the front; the mid ring adds 6."""
RING_OF_FOUR = np.asarray((14, 13, 16, 15))
"""Apical segments, 90° each, the first about the middle of the septum."""


@dataclass(frozen=True, eq=False)
class LeftVentricle:
    """Where the left ventricle lies.

    base : where the long axis meets the base (x, y, z) [mm]; axis, septum, anterior : unit vectors at right angles,
    towards the apex, the right ventricle and the front; length_mm : base to the end of the cavity
    """

    base: Array
    axis: Array
    septum: Array
    anterior: Array
    length_mm: float

    @classmethod
    def of(cls, body: Body) -> LeftVentricle:
        """Measured on a body.

        Raises
        ------
        ValueError
            The grid does not hold a left ventricle with myocardium, cavity and the right ventricle beside it.
        """
        wall, cavity, right = (places(body, t) for t in (T.MYOCARDIUM, T.LEFT_VENTRICLE, T.RIGHT_VENTRICLE))
        if min(len(wall), len(cavity), len(right)) < 10:
            raise ValueError(f"no heart on this grid: {len(wall)} voxels of myocardium, {len(cavity)}, {len(right)}")
        centre = cavity.mean(axis=0)
        axis = np.linalg.svd(cavity - centre, full_matrices=False)[2][0]
        axis = axis * np.sign(axis @ (wall.mean(axis=0) - centre))  # the apex is closed, the base is open
        septum = _unit(_across(right.mean(axis=0) - centre, axis))
        anterior = np.cross(septum, axis)
        anterior = anterior * np.sign(anterior @ (0.0, -1.0, 1.0))  # up and to the front
        along = (wall - centre) @ axis
        first, last = np.percentile(along, 1.0), np.percentile((cavity - centre) @ axis, 99.7)
        return cls(centre + first * axis, axis, septum, anterior, float(last - first))

    def coordinates(self, points: Array) -> tuple[Array, Array]:
        """Level and angle [rad, 0 to 2π] of places (n, 3)."""
        away = points - self.base
        level = away @ self.axis / self.length_mm
        return level, np.arctan2(away @ self.anterior, away @ self.septum) % (2.0 * np.pi)

    def segments(self, points: Array) -> NDArray[np.uint8]:
        """AHA segment, 1 to 17, of places in the myocardium (n, 3).

        The long axis is cut in thirds from the base to the end of the cavity; the cap beyond it is the apex.
        """
        level, angle = self.coordinates(points)
        six = RINGS_OF_SIX[(angle // np.radians(60.0)).astype(int) % 6]
        four = RING_OF_FOUR[((angle + np.radians(45.0)) // np.radians(90.0)).astype(int) % 4]
        rings = np.select([level < 1 / 3, level < 2 / 3, level < 1.0], [six, six + 6, four], 17)
        return np.asarray(rings, np.uint8)


Path = tuple[tuple[float, float, float, float], ...]
"""Reference x, y, z and radius [mm] from point to point."""
VEINS: tuple[Path, ...] = (
    ((-34, 10, 700, 6), (-26, 0, 640, 8), (-28, -4, 580, 9), (-26, 0, 520, 10)),  # superior vena cava
    ((-22, 24, 238, 10), (-22, 18, 300, 10), (-24, 22, 380, 11), (-26, 14, 470, 12)),  # inferior
    ((-25, -32, 482, 24), (-25, -32, 518, 24)),  # right atrium
    ((14, -34, 530, 13), (12, -20, 562, 13), (-26, 8, 556, 9), (-44, 18, 550, 6)),  # pulmonary trunk and arteries
    ((12, -20, 562, 13), (26, 8, 556, 9), (44, 18, 550, 6)),
)
ARTERIES: tuple[Path, ...] = (
    ((4, -14, 524, 15), (-8, -16, 552, 16), (-6, -8, 582, 15), (6, 8, 602, 14), (20, 34, 600, 13), (26, 50, 578, 13),
     (25, 54, 500, 12), (20, 46, 430, 11), (10, 26, 350, 10), (8, 18, 290, 9), (4, 20, 238, 8)),  # aorta
    ((-8, -3, 517, 22), (16, -3, 517, 22)),  # left atrium
    ((12, 6, 606, 5), (22, 14, 660, 4)),  # carotids
    ((-12, 6, 606, 5), (-22, 14, 660, 4)),
)  # fmt: skip


def places(body: Body, tissue: Tissue) -> Array:
    """Centres of all voxels of a tissue, float64 (n, 3) x, y, z [mm]."""
    z, y, x = np.nonzero(body.tissue == tissue)
    heights, backs, sides = body.grid.axes
    return np.stack([sides[x], backs[y], heights[z]], axis=1).astype(np.float64)


def venous(body: Body) -> NDArray[np.bool_]:
    """Which voxels of BLOOD carry blood that has not passed the lungs: those nearer to the surface of a vein, the right
    atrium or the pulmonary artery than to that of the aorta or the left atrium, as they lie in the reference adult.

    Returns bool (z, y, x).
    """
    found = np.zeros(body.tissue.shape, bool)
    blood = places(body, T.BLOOD)
    to_veins, to_arteries = (_distance_mm(blood, paths, body) for paths in (VEINS, ARTERIES))
    found[body.tissue == T.BLOOD] = to_veins < to_arteries
    return found


def _distance_mm(points: Array, paths: tuple[Path, ...], body: Body, *, step: float = 0.2) -> Array:
    """How far places (n, 3) are outside the nearest path, roughly: 0 on its surface."""
    frame, nearest = Frame(body.person), np.full(len(points), np.inf)
    for path in paths:
        knots = np.asarray(path)
        for place in np.arange(0.0, len(knots) - 1 + step / 2, step):
            x, y, z, radius = (float(np.interp(place, np.arange(len(knots)), column)) for column in knots.T)
            away = np.linalg.norm(points - np.asarray(frame.place((x, y, z))), axis=1) - radius
            nearest = np.minimum(nearest, away)
    return nearest


def _across(vectors: Array, axis: Array) -> Array:
    """What remains of vectors (…, 3) at right angles to an axis."""
    return vectors - (vectors @ axis)[..., None] * axis


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))
