"""Organs of belly and pelvis, in reference millimetres."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

import numpy as np
from numpy.typing import NDArray

from engines.simulation.person import Person
from engines.simulation.shapes import Blend, Common, Cut, Ellipsoid, Offset, Point, Shape, Tube
from engines.simulation.thorax import diaphragm, interior, jitter, point, sizes
from engines.simulation.tissues import Painted, Tissue, filled

T = Tissue
AROUND_TESTIS = (T.AIR, T.SKIN, T.FAT, T.MUSCLE)


def belly(person: Person, rng: np.random.Generator) -> Iterator[Painted]:
    """The cavity and what lies in it, the fat first."""
    cavity = Common([interior(person), diaphragm(person)])
    yield filled(T.FAT, cavity, 1.5)
    for s in (-1, 1):
        yield filled(
            T.MUSCLE, Tube(((s * 24, 52, 345), (s * 40, 44, 260), (s * 66, 0, 170)), (11, 21, 16)), 1.5
        )  # psoas
    room = Offset(cavity, -3.0)
    size = person.organ_size * (0.97 if person.sex == "F" else 0.985)
    yield from _kidneys(size, rng)
    yield from _stomach(room, rng)
    yield from _bowel(rng)
    spleen = Ellipsoid(jitter(rng, (102, 46, 418), 3.0), sizes(rng, _times(size, (34, 44.5, 58)), 0.035), yaw_deg=25)
    yield filled(T.SPLEEN, Common([Cut(spleen, [Ellipsoid((66, 4, 420), (28, 36, 42))]), room]), 1.5)
    yield filled(
        T.PANCREAS, Tube(((-26, -6, 342), (-8, -8, 352), (22, 6, 366), (72, 30, 392)), (17, 13, 11.5, 10)), 1.5
    )
    yield from _liver(room, size, rng)


def _times(size: float, axes: Point) -> Point:
    x, y, z = axes
    return size * x, size * y, size * z


def _liver(room: Shape, size: float, rng: np.random.Generator) -> Iterator[Painted]:
    x, y, z = jitter(rng, (-70, 0, 410), 3.0)
    whole = Blend(
        [
            Ellipsoid((x, y, z), sizes(rng, _times(size, (70, 80, 80)))),
            Ellipsoid((x + 66, y - 44, z + 14), sizes(rng, _times(size, (78, 38, 35)), 0.06), roll_deg=-8),
            Ellipsoid((x - 26, y + 10, z - 66), sizes(rng, _times(size, (30, 46, 56)), 0.06)),
        ],
        20.0,
    )
    hollow = [Ellipsoid((x + 36, y - 14, z - 62), (46, 60, 50)), Ellipsoid((-58, 62, 350), (36, 36, 50))]
    yield filled(T.LIVER, Common([Cut(whole, hollow), room]), 2.5)
    bladder = Ellipsoid((x + 12, y - 40, z - 54), sizes(rng, (12, 15, 24), 0.1), pitch_deg=-20)
    yield filled(T.GALLBLADDER, bladder, 0.8)


def _kidneys(size: float, rng: np.random.Generator) -> Iterator[Painted]:
    """The left one lies higher; upper poles lean inwards and back."""
    for s, height in ((-1, 334.0), (1, 350.0)):
        x, y, z = jitter(rng, (s * 64, 46, height), 3.0)
        cortex = Ellipsoid((x, y, z), sizes(rng, _times(size, (29.5, 26.5, 55))), roll_deg=s * -12.0, pitch_deg=-10.0)
        sinus = Ellipsoid((x - s * 24, y - 6, z), (16, 11, 18))
        yield filled(T.KIDNEY, Cut(cortex, [sinus]), 1.2)
        yield filled(T.RENAL_PELVIS, Ellipsoid((x - s * 9, y - 3, z), sizes(rng, (6, 6, 17), 0.1)), 1.2)
        ureter = [(x - s * 16, y - 5, z - 8), (s * 36, 30, 270), (s * 42, 26, 205), (s * 34, 30, 165), (s * 14, 4, 152)]
        full = rng.uniform(-1.2, 2.8, len(ureter))  # urine comes in portions: nothing where this is negative
        yield filled(T.RENAL_PELVIS, Tube([jitter(rng, p, 2.0) for p in ureter], tuple(full)))
        yield filled(T.ADRENAL, Ellipsoid((x - s * 22, y - 14, z + 56), (9, 4, 13), roll_deg=s * 25), 0.8)


def _stomach(room: Shape, rng: np.random.Generator) -> Iterator[Painted]:
    full = float(rng.uniform(0.85, 1.15))
    parts = Blend(
        [
            Ellipsoid(jitter(rng, (58, 8, 432), 3.0), _times(full, (33, 35, 32))),
            Ellipsoid(jitter(rng, (56, -28, 398), 3.0), _times(full, (28, 27, 36))),
            Ellipsoid(jitter(rng, (18, -46, 368), 3.0), _times(full, (38, 19, 18)), roll_deg=-15),
        ],
        16.0,
    )
    yield filled(T.STOMACH, Common([parts, room]), 2.5)
    if rng.random() < 0.7:
        yield filled(T.BOWEL_GAS, Ellipsoid((57, -30, 428), _times(full, (18, 12, 13))), 2.0)
    loop = [(-22, -40, 364), (-44, -24, 358), (-50, -6, 332), (-38, 4, 308), (8, 0, 308), (30, -10, 332)]
    yield filled(T.DUODENUM, Tube([jitter(rng, p, 2.0) for p in loop], (12, 12, 12, 11, 11, 11)), 1.5)


def _bowel(rng: np.random.Generator) -> Iterator[Painted]:
    """Small bowel: loops that wander; the colon as a frame around them, gas in what lies in front."""
    loops, radii = _loops(rng)
    jejunum = int(0.3 * len(loops))  # it begins as the duodenum ends
    yield filled(T.BOWEL, Tube(loops[jejunum - 1 :], radii[jejunum - 1 :]))
    yield filled(T.DUODENUM, Tube(loops[:jejunum], radii[:jejunum]))
    frame = [(-86, 14, 215), (-97, 20, 250), (-100, 24, 300), (-88, 4, 330), (-52, -58, 318), (0, -66, 306),
             (52, -56, 330), (94, 16, 376), (102, 34, 330), (100, 34, 270), (92, 20, 220), (64, 4, 192), (30, 12, 208),
             (4, 40, 196), (0, 58, 172), (0, 50, 140), (0, 46, 112)]  # fmt: skip
    colon = [jitter(rng, p, 5.0 if number < 13 else 1.5) for number, p in enumerate(frame)]
    wide = (*rng.uniform(14, 23, 10).tolist(), 12.0, 11.0, 12.0, 13.0, 17.0, 15.0, 9.0)
    yield Painted(((0.0, T.COLON),), Tube(colon, wide), 2.6, rough_length_mm=16.0)
    for number in rng.choice(len(colon) - 4, 6, replace=False):
        middle = (np.asarray(colon[number]) + np.asarray(colon[number + 1])) / 2
        size = min(wide[number], wide[number + 1])
        gas = Ellipsoid(point(middle - (0, 3, 0)), sizes(rng, (0.75 * size, 0.55 * size, 0.8 * size), 0.12))
        yield Painted(((0.0, T.BOWEL_GAS),), gas, 1.5, over=frozenset({T.COLON}))


def _loops(rng: np.random.Generator) -> tuple[list[Point], list[float]]:
    """Middles and radii of the small bowel, from under the stomach to the caecum, wandering from knot to knot.

    The knots lie anywhere but not close together. The next one is the nearest that is left, where a way down or to
    the right counts as longer, so that the upper left fills first; what would only be reached across the belly is left
    out. A Catmull-Rom spline rounds the corners.
    """
    centre, half, apart = np.asarray((2.0, -32.0, 256.0)), np.asarray((88.0, 36.0, 78.0)), 22.0
    left: list[NDArray[np.float64]] = []
    for tried in rng.uniform(-1.0, 1.0, (1200, 3)):
        place = centre + half * tried
        if tried @ tried < 1.0 and all(np.linalg.norm(place - other) > apart for other in left):
            left.append(place)
    way = [np.asarray((32.0, -12.0, 330.0))]
    while left:
        steps = np.asarray(left) - way[-1]
        distances = np.linalg.norm(steps, axis=1)
        nearest = int(np.argmin(distances - steps @ (0.2, 0.0, 0.4)))
        if distances[nearest] > 3.0 * apart:
            break
        way.append(left.pop(nearest))
    knots = np.asarray([way[0], *way, way[-1]])
    between = (9 * (knots[1:-2] + knots[2:-1]) - knots[:-3] - knots[3:]) / 16
    places = np.insert(knots[1:-1], np.arange(1, len(way)), between, axis=0)
    radii = np.interp(np.arange(len(places)) / 2, np.arange(len(way)), rng.uniform(9.5, 13.5, len(way)))
    return [point(place) for place in places], radii.tolist()


def pelvis(person: Person, rng: np.random.Generator) -> Iterator[Painted]:
    """Bladder, rectum, and what the sexes differ in."""
    yield filled(T.FAT, Ellipsoid((0, 6, 150), (56, 52, 54)), 2.0)
    yield filled(T.COLON, Tube(((0, 58, 172), (0, 50, 140), (0, 46, 112)), (17, 15, 9)), 1.5)
    volume_ml = float(np.clip(rng.lognormal(np.log(190.0), 0.33), 90.0, 400.0))
    radius = person.organ_size**2 * (volume_ml * 1000 * 3 / (4 * pi)) ** (1 / 3)  # it fills, it does not scale
    yield filled(T.BLADDER, Ellipsoid((0, -22, 138 + 0.7 * radius), (1.15 * radius, 0.95 * radius, 0.92 * radius)), 1.5)
    if person.sex == "M":
        grown = float(np.clip(rng.lognormal(np.log(34.0), 0.3), 20.0, 80.0) / 30.0) ** (1 / 3)
        prostate = Ellipsoid(jitter(rng, (0, -12, 122), 1.5), (22 * grown, 17 * grown, 18 * grown))
        yield filled(T.PROSTATE, prostate, 1.0)
        for s in (-1, 1):
            testis = Ellipsoid((s * 15, -52, 58), sizes(rng, (12, 14, 19), 0.06))
            yield Painted(((5.0, T.SKIN), (0.0, T.TESTIS)), testis, anywhere=True, over=frozenset(AROUND_TESTIS))
    else:
        womb = Ellipsoid(jitter(rng, (0, 14, 192), 3.0), sizes(rng, (25, 19, 34), 0.07), pitch_deg=30)
        yield filled(T.UTERUS, womb, 1.5)
