"""Bones as their marrow, in reference millimetres; what touches other tissue becomes cortical bone later."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi, sin

import numpy as np

from engines.simulation.person import Person, arm_of
from engines.simulation.shapes import Blend, Column, Common, Cut, Ellipsoid, Offset, Point, Shape, Shell, Tube
from engines.simulation.thorax import interior
from engines.simulation.tissues import Painted, Tissue, filled

T = Tissue
LEVELS = (
    *(("L", z) for z in (200.0, 234.0, 267.0, 299.0, 330.0)),
    *(("T", z) for z in (360.0, 388.0, 415.0, 441.0, 466.0, 491.0, 515.0, 538.0, 561.0, 583.0, 604.0, 624.0)),
    *(("C", z) for z in (643.0, 660.0, 677.0, 693.0, 709.0, 725.0, 741.0)),
)
"""Part of the spine and height of each vertebra, from below."""
SPINE = ((170, 70), (200, 60), (267, 46), (330, 50), (415, 62), (510, 67), (583, 62), (624, 52), (690, 38), (745, 30))
"""Height and depth y of the middle of the vertebrae: lordosis, kyphosis, lordosis."""
SIZES = {"L": (24.5, 17.0), "T": (17.5, 15.0), "C": (12.0, 9.0)}


def spine_y(z: float) -> float:
    """Depth of the spine's middle at a height [mm]."""
    heights, depths = zip(*SPINE, strict=True)
    return float(np.interp(z, heights, depths))


def skeleton(person: Person) -> Iterator[Painted]:
    """Spine, ribs, shoulder, pelvis, limbs."""
    yield from _spine()
    yield from _ribs(person)
    for s in (-1, 1):
        yield from _shoulder(s, person)
        yield from _pelvis(s)
        yield from _femur(s, artificial=person.hip_prosthesis and s > 0)
    sacrum = Column(
        (84, 120, 158, 190), ((8, 6), (24, 10), (42, 16), (50, 19)), ((0, 84), (0, 92), (0, 84), (0, 68)), 2.6
    )
    yield filled(T.MARROW, sacrum, 1.2)


def _spine() -> Iterator[Painted]:
    yield filled(T.CARTILAGE, Tube([(0, spine_y(z), z) for z in range(190, 640, 25)], np.linspace(17, 11, 18).tolist()))
    for number, (part, z) in enumerate(LEVELS):
        wide, deep = SIZES[part]
        above = LEVELS[number + 1][1] if number + 1 < len(LEVELS) else z + 16
        tall = (above - z) / 2 - (2.2 if part != "C" else 1.4)
        y = spine_y(z)
        yield filled(T.MARROW, Ellipsoid((0, y, z), (wide, deep, tall), square=True), 0.5)
        back = y + deep
        yield filled(T.MARROW, Tube(((0, back + 17, z - 4), (0, back + 17 + 0.4 * deep, z - 12)), (5, 4.5)))
        for s in (-1, 1):
            yield filled(
                T.MARROW, Tube(((s * 0.6 * wide, back - 2, z + 2), (s * 0.65 * wide, back + 12, z)), (4.5, 5.5))
            )
            yield filled(T.MARROW, Tube(((s * 0.6 * wide, back + 12, z), (0, back + 18, z - 4)), (4.5, 4)))
            across = 1.75 * wide if part == "L" else 2.0 * wide
            yield filled(T.MARROW, Tube(((s * 0.6 * wide, back + 8, z), (s * across, back + 12, z + 2)), (4.2, 3.6)))
    cord = [(0.0, spine_y(z) + (24 if z < 380 else 22 if z < 630 else 17), float(z)) for z in np.linspace(260, 750, 15)]
    yield filled(T.SPINAL_CORD, Tube(cord, [6.5] * len(cord)))


def _ribs(person: Person) -> Iterator[Painted]:
    """Twelve pairs around the chest wall, each sinking towards the front, joined to the breast bone by cartilage."""
    wall = interior(person)
    for number in range(12):
        start = LEVELS[16 - number][1] + 8
        drop = min(22.0 + 12.0 * number, 95.0)
        end = 0.80 if number < 7 else 0.74 - 0.10 * (number - 7)
        for s in (-1, 1):
            turns = np.linspace(0.11, end, 15) * pi
            path = [wall.edge(s * t, start - drop * (1 - cos(t)) / 2, out_mm=6.5) for t in turns]
            yield filled(T.MARROW, Tube(path, [5.4] * len(path)))
            if number < 7:
                breast: Point = (s * 14.0, wall.edge(pi, 622.0 - 16.5 * number)[1] - 4, 622.0 - 16.5 * number)
                yield filled(T.CARTILAGE, Tube((path[-1], breast), (5, 5)))
    front = [(z, wall.edge(pi, z)[1] - 4.0) for z in (496.0, 540.0, 580.0, 610.0, 636.0)]
    for s in (-1, 1):
        half = [(s * wide, y, z) for (z, y), wide in zip(front, (4, 5, 5, 8, 12), strict=True)]
        yield filled(T.MARROW, Tube(half, (6.0, 8.0, 8.0, 8.5, 8.5)))  # half of the breast bone


def _shoulder(s: int, person: Person) -> Iterator[Painted]:
    wall = interior(person)
    plate = Shell(Column(wall.heights, wall.semi_axes, wall.centres, wall.power, grown=19.5), 7.0)
    yield filled(T.MARROW, Common([Ellipsoid((s * 102, 76, 572), (54, 60, 68), roll_deg=s * 8), plate]), 0.5)
    yield filled(T.MARROW, Tube(((s * 66, 93, 606), (s * 120, 78, 632), (s * 164, 22, 644)), (6, 7, 8)))
    yield filled(
        T.MARROW,
        Tube(((s * 22, -54, 634), (s * 80, -36, 644), (s * 120, -20, 648), (s * 156, 12, 646)), (9, 6.5, 6, 7)),
    )
    yield filled(T.MARROW, Ellipsoid((s * 146, 24, 618), (11, 14, 18)))
    arm, _ = arm_of(person, s)
    yield filled(T.FATTY_MARROW, Ellipsoid((s * 170, 20, 620), (22, 23, 23)), 0.6)
    yield filled(T.FATTY_MARROW, Tube(arm[:2], (14, 11.5)))
    for beside in (-7, 7):  # ulna and radius
        yield filled(T.FATTY_MARROW, Tube([(x + beside * 0.9, y + beside, z) for x, y, z in arm[1:3]], (9, 7)))
    yield filled(T.FATTY_MARROW, Tube(arm[1:2] * 2, (15, 15)))


def _pelvis(s: int) -> Iterator[Painted]:
    """The wing is a curved plate from the sacrum forwards, wider towards the crest; below it socket and seat bone."""
    bowl = Column(
        heights=(140, 170, 200, 240, 290),
        semi_axes=((58, 112), (72, 126), (86, 138), (97, 146), (102, 148)),
        centres=((s * 30, -76),) * 5,
        power=2.0,
    )
    extent = Ellipsoid((s * 90, 14, 212), (66, 84, 70), roll_deg=s * -10)
    yield filled(T.MARROW, Common([extent, Shell(bowl, 10.5)]), 0.7)
    socket = Cut(Ellipsoid((s * 84, 8, 148), (31, 33, 32)), [Ellipsoid((s * 96, 4, 146), (27, 26, 26))])
    yield filled(T.MARROW, socket, 0.8)
    yield filled(T.MARROW, Tube(((s * 76, 34, 142), (s * 66, 46, 104), (s * 60, 44, 84)), (13, 12, 14)), 0.8)
    yield filled(T.MARROW, Tube(((s * 60, 36, 86), (s * 36, 0, 98), (s * 14, -38, 116)), (9, 6.5, 7)), 0.5)
    yield filled(T.MARROW, Tube(((s * 76, -14, 150), (s * 42, -40, 144), (s * 14, -46, 132)), (10, 8, 10)), 0.5)
    yield filled(T.CARTILAGE, Ellipsoid((0, -46, 126), (5, 9, 15)))


def _femur(s: int, *, artificial: bool) -> Iterator[Painted]:
    head: Shape = Ellipsoid((s * 94, 5, 147), (22.5, 22.5, 22.5))
    neck = Tube(((s * 94, 5, 147), (s * 124, 14, 126)), (15, 16))
    stem = Tube(((s * 124, 14, 128), (s * 122, 14, 100), (s * 106, 6, -30), (s * 104, 4, -90)), (19, 17, 14, 14))
    yield filled(T.CARTILAGE, Offset(head, 3.0))
    yield filled(T.FATTY_MARROW, Blend([head, neck, Ellipsoid((s * 128, 18, 130), (17, 20, 22))], 8.0), 0.6)
    yield Painted(((0.0, T.MARROW),), Offset(neck, -5.0), 0.6)  # in adults red marrow is left in the neck alone
    yield filled(T.FATTY_MARROW, stem, 0.5)
    if artificial:
        metal = Tube(((s * 94, 5, 147), (s * 118, 12, 128), (s * 112, 9, 20)), (13, 9, 6))
        yield Painted(((0.0, T.PROSTHESIS),), Blend([Ellipsoid((s * 94, 5, 147), (18, 18, 18)), metal], 3.0))


def head_bones(centre: Point) -> Iterator[Painted]:
    """Facial bones and the base of the skull; the vault is painted with the brain."""
    z = centre[2]
    yield filled(T.FATTY_MARROW, Ellipsoid((0, -58, z - 64), (33, 30, 24)), 1.5)  # upper jaw
    yield filled(T.FATTY_MARROW, Ellipsoid((0, 2, z - 48), (50, 42, 9)), 1.5)
    for s in (-1, 1):
        yield filled(T.FATTY_MARROW, Ellipsoid((s * 40, 16, z - 48), (21, 15, 13)), 1.0)  # petrous
        yield filled(
            T.FATTY_MARROW, Tube(((s * 34, -66, z - 50), (s * 53, -46, z - 48), (s * 58, -8, z - 44)), (8, 5.5, 4.5))
        )
        yield filled(
            T.FATTY_MARROW, Tube(((s * 56, -56, z - 48), (s * 52, -66, z - 20), (s * 34, -82, z - 8)), (5, 5, 6))
        )
        yield filled(T.FATTY_MARROW, Tube(((s * 56, -2, z - 56), (s * 51, -14, z - 96)), (5.5, 6.5)))  # ramus
        jaw = [(s * 51 * cos(t), -16 - 66 * sin(t), z - 98 - 8 * sin(t)) for t in np.linspace(0, pi / 2, 6)]
        yield filled(T.FATTY_MARROW, Tube(jaw, [7.5] * 6))
