"""Lungs, heart and the large vessels, in reference millimetres."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engines.simulation.person import Person
from engines.simulation.shapes import Blend, Column, Common, Cut, Ellipsoid, Offset, Point, Shape, Spheroid, Tube
from engines.simulation.tissues import Painted, Tissue, filled

T = Tissue


def point(array: NDArray[np.float64]) -> Point:
    """An array of three numbers as a place."""
    x, y, z = (float(c) for c in array)
    return x, y, z


def jitter(rng: np.random.Generator, centre: Point, sd_mm: float = 4.0) -> Point:
    """A place a little elsewhere."""
    return point(np.asarray(centre) + rng.normal(0.0, sd_mm, 3))


def sizes(rng: np.random.Generator, axes: Point, spread: float = 0.04) -> Point:
    """Axes a little longer or shorter, together (relative sd `spread`, three times that in volume) and each alone."""
    return point(np.asarray(axes) * rng.normal(1.0, spread) * rng.normal(1.0, spread / 2, 3))


def interior(person: Person) -> Column:
    """The inside of the chest and belly wall, pelvis to lung apex; the ribs run around it."""
    waist, chest = (124.0, 0.94) if person.sex == "F" else (138.0, 1.0)
    wide = (130, 130, 124, 108, 84, 58, 30)
    deep = (93, 95, 93, 84, 66, 48, 28)
    upper = [(chest * a, chest * b) for a, b in zip(wide, deep, strict=True)]
    lower = [(70.0, 50.0), (100.0, 70.0), (waist - 16, 76.0), (waist - 14, 80.0), (chest * 120, chest * 88)]
    return Column(
        heights=(150, 200, 250, 310, 360, 420, 480, 540, 590, 625, 648, 668),
        semi_axes=(*lower, *upper),
        centres=(
            (0, -4),
            (0, -4),
            (0, -4),
            (0, -2),
            (0, -2),
            (0, 0),
            (0, 0),
            (0, 2),
            (0, 6),
            (0, 14),
            (0, 20),
            (0, 22),
        ),
        power=2.3,
    )


def diaphragm(person: Person, *, breath_mm: float = 0.0) -> Blend:
    """All below the diaphragm: two domes, the right one higher, over the belly; `breath_mm` lowers the domes."""
    wall, wide = interior(person), 0.92 if person.sex == "F" else 1.0
    keep = 5
    belly = Column(
        (*wall.heights[:keep], 402), (*wall.semi_axes[:keep], (130, 95)), (*wall.centres[:keep], (0, 0)), 2.3
    )
    right = Ellipsoid((-64 * wide, 2, 388 - breath_mm), (80 * wide, 100, 93))
    left = Ellipsoid((60 * wide, 2, 389 - breath_mm), (84 * wide, 100, 90))
    return Blend([belly, right, left], 10.0)


def heart_axis() -> Point:
    """From the base to the apex of the left ventricle: to the left, front and down."""
    axis = np.asarray((0.70, -0.52, -0.49))
    return point(axis / np.linalg.norm(axis))


def chambers(person: Person, rng: np.random.Generator) -> dict[str, Shape]:
    """The heart: the left ventricle is a thick half ellipsoid around its cavity, open at its base."""
    centre = np.asarray(jitter(rng, (34, -36, 497), 3.5))
    own = person.organ_size * (0.97 if person.sex == "F" else 1.02)
    size, wall = own * float(rng.normal(1.03, 0.03)), own * float(rng.normal(10.3, 0.5))
    long, short, base = 48.0 * size, 23.6 * size, 20.0 * size
    axis = heart_axis()
    return {
        "cavity": Spheroid(point(centre), axis, long, short, base),
        "left": Spheroid(point(centre), axis, long + wall, short + wall, base),
        "right": Spheroid(point(centre + size * np.asarray((-21, -17, -6))), axis, 56 * size, 38 * size, 26 * size),
        "left atrium": Ellipsoid(point(centre + size * np.asarray((-27, 33, 20))), (30 * size, 21 * size, 26 * size)),
        "right atrium": Ellipsoid(point(centre + size * np.asarray((-56, 4, 4))), (23 * size, 28 * size, 34 * size)),
    }


def chest(person: Person, rng: np.random.Generator) -> Iterator[Painted]:
    """Lungs, airways, heart, vessels."""
    heart = chambers(person, rng)
    breath = float(rng.normal(0.0, 6.0))
    yield from _lungs(person, heart, breath, rng)
    yield from _heart(heart)
    yield from _vessels(rng)
    yield filled(T.MUSCLE, Tube(((2, 40, 700), (4, 44, 560), (12, 34, 450)), (7, 6.5, 7.5)), 1.0)  # oesophagus
    yield filled(T.AIRWAY, Tube(((0, 16, 722), (0, 22, 650), (-1, 28, 580)), (8, 9, 9)), 0.5)
    for s in (-1, 1):
        yield filled(T.AIRWAY, Tube(((-1, 28, 582), (s * 26, 30, 560), (s * 50, 30, 548)), (7.5, 6, 4)))


def _lungs(person: Person, heart: dict[str, Shape], breath_mm: float, rng: np.random.Generator) -> Iterator[Painted]:
    wall = interior(person)
    middle = Column(
        heights=(400, 470, 530, 580, 630, 668),
        semi_axes=((26, 130), (22, 130), (19, 130), (19, 130), (24, 130), (30, 130)),
        centres=((6, 20),) * 6,
    )
    vessels = Ellipsoid((0, 4, 565), (35, 44, 66))
    hull = Offset(Blend(list(heart.values()), 14.0), 6.0)
    spine = Tube(((0, 64, 400), (0, 70, 510), (0, 54, 640)), (26, 24, 22))
    lungs = Cut(wall, [Offset(diaphragm(person, breath_mm=breath_mm), 3.0), middle, vessels, hull, spine])
    yield Painted(((0.0, T.LUNG),), _UpperPart(lungs, 380.0), 1.5)
    for s in (-1, 1):
        yield from _tree(s, rng)


class _UpperPart:
    """A shape whose box begins at a height below which nothing of it lies: less to compute."""

    def __init__(self, whole: Shape, bottom_mm: float) -> None:
        self.whole, self.depth = whole, whole.depth
        (x, y, _), high = whole.box
        self.box = ((x, y, bottom_mm), high)


def _tree(s: int, rng: np.random.Generator) -> Iterator[Painted]:
    """Vessels of one lung branching from the hilum: each parts in two or three, thinner and shorter."""
    ends = [(np.asarray((s * 34.0, 20.0, 550.0)), np.asarray((s * 0.8, 0.1, 0.1)), 42.0, 6.8)]
    for generation in range(5):
        grown = []
        for start, way, length, radius in ends:
            for _ in range(4 if generation == 0 else int(rng.integers(2, 4))):
                turned = way + rng.normal(0.0, 0.85 if generation < 2 else 0.6, 3)
                turned /= np.linalg.norm(turned)
                end = start + turned * length * rng.uniform(0.7, 1.2)
                thin = max(radius * rng.uniform(0.66, 0.84), 1.8)
                shape = Tube((point(start), point(end)), (0.8 * radius, thin))
                yield Painted(((0.0, T.LUNG_VESSEL),), shape, over=frozenset({T.LUNG}))
                grown.append((end, turned, length * 0.74, thin))
        ends = grown


def _heart(heart: dict[str, Shape]) -> Iterator[Painted]:
    yield filled(T.FAT, Offset(Blend(list(heart.values()), 14.0), 4.5), 1.5)
    for name in ("left atrium", "right atrium"):
        yield filled(T.BLOOD, heart[name], 1.0)
    right = Cut(heart["right"], [heart["left"]])
    yield Painted(((0.0, T.RIGHT_HEART_WALL), (-3.8, T.RIGHT_VENTRICLE)), right, 0.6)
    yield Painted(((0.0, T.MYOCARDIUM),), heart["left"], 0.5)
    yield Painted(((0.0, T.LEFT_VENTRICLE),), heart["cavity"], 0.7)


def _vessels(rng: np.random.Generator) -> Iterator[Painted]:
    wide = float(rng.normal(1.0, 0.07))
    aorta = [(4, -14, 524), (-8, -16, 552), (-6, -8, 582), (6, 8, 602), (20, 30, 600), (26, 42, 578), (25, 43, 500),
             (20, 38, 430), (10, 26, 350), (8, 18, 290), (4, 20, 238)]  # fmt: skip
    radii = [wide * r for r in (15, 16, 15, 14, 13, 12.5, 12, 11.5, 10, 9, 8.5)]
    tubes: list[tuple[list[Point], tuple[float, ...]]] = [
        ([jitter(rng, p, 1.5) for p in aorta], tuple(radii)),
        ([(-26, 0, 640), (-28, -4, 580), (-26, 0, 520)], (8, 9, 10)),  # superior vena cava
        ([(-22, 24, 238), (-22, 18, 300), (-24, 22, 380), (-26, 14, 470)], (10, 10.5, 11.5, 12)),  # inferior
        ([(14, -34, 530), (12, -20, 562)], (13, 13)),  # pulmonary trunk
        ([(-26, 10, 424), (-30, -4, 372)], (6.5, 7)),  # portal vein
    ]
    for s in (-1, 1):
        tubes += [
            ([(12, -18, 562), (s * 26, 8, 556), (s * 44, 18, 550)], (10.5, 9, 6)),
            (
                [
                    (s * 6, 24, 240),
                    (s * 34, 30, 205),
                    (s * 52, -8, 168),
                    (s * 64, -44, 132),
                    (s * 70, -28, 20),
                    (s * 68, -6, -70),
                ],
                (8, 7, 6, 5, 4.5, 4),
            ),
            ([(s * 12, 6, 606), (s * 22, 14, 660), (s * 30, 4, 740)], (4.5, 3.5, 3)),  # carotid
            ([(s * 22, 2, 622), (s * 34, 10, 665), (s * 41, 8, 745)], (5.5, 4.5, 3.5)),  # jugular
            (  # subclavian, over the first rib and down into the armpit
                [(s * 20, 4, 618), (s * 44, 2, 638), (s * 72, -8, 640), (s * 100, 0, 622), (s * 128, 12, 604)],
                (5.5, 5, 4.5, 4, 3.5),
            ),
            ([(s * 8, 20, 346), (s * 40, 38, 344)], (4, 3.5)),  # renal
        ]
    for points, thick in tubes:
        yield filled(T.BLOOD, Tube(tuple(points), thick), 0.6)
    yield filled(T.BLOOD, Common([Ellipsoid((0, 20, 232), (16, 9, 14))]), 0.5)
