"""Head: outline, skull, brain, glands, in reference millimetres (the head keeps its size in everybody)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from engines.simulation.shapes import Blend, Cut, Ellipsoid, Offset, Point, Shape, Tube
from engines.simulation.skeleton import head_bones
from engines.simulation.thorax import jitter, point, sizes
from engines.simulation.tissues import Painted, Tissue, filled

T = Tissue
CENTRE: Point = (0.0, -2.0, 822.0)


def skin(size: float) -> Painted:
    """Head and neck from outside: skin, a little fat, muscle."""
    whole = Blend(
        [
            _vault(size, 8.0),
            Ellipsoid((0, -40, 760), (63, 56, 58)),
            Ellipsoid((0, -44, 728), (45, 44, 22)),
            Tube(((0, 20, 640), (0, 14, 770)), (54, 46)),
            Ellipsoid((0, -98, 766), (11, 15, 17)),
        ],
        18.0,
    )
    return Painted(
        ((5.0, T.SKIN), (2.0, T.FAT), (0.0, T.MUSCLE)),
        whole,
        0.8,
        anywhere=True,
        over=frozenset({T.AIR, T.SKIN, T.FAT}),
    )


def _vault(size: float, grown: float = 0.0) -> Ellipsoid:
    return Ellipsoid(CENTRE, (72 * size + grown, 89.5 * size + grown, 72.5 * size + grown))


def head(size: float, rng: np.random.Generator) -> Iterator[Painted]:
    """Everything within the head."""
    yield filled(T.FATTY_MARROW, _vault(size), 0.4)
    yield from head_bones(CENTRE)
    yield from _face()
    yield from _brain(size)
    yield filled(T.VOCAL_MUSCLE, Ellipsoid((0, 2, 692), (13, 12, 6)), 0.5)
    yield filled(T.AIRWAY, Ellipsoid((0, 6, 692), (3, 8, 9)))
    for s in (-1, 1):
        yield filled(T.EYE, Ellipsoid((s * 32, -76, 800), (12, 12, 12)))
        yield filled(T.LACRIMAL, Ellipsoid((s * 46, -71, 808), sizes(rng, (6, 6, 4.5), 0.08)), 0.3)
        yield filled(T.PAROTID, Ellipsoid(jitter(rng, (s * 55, -4, 750), 1.5), sizes(rng, (12, 21, 29), 0.05)), 1.2)
        yield filled(
            T.SUBMANDIBULAR, Ellipsoid(jitter(rng, (s * 33, -32, 716), 1.5), sizes(rng, (10.5, 17, 12), 0.05)), 0.8
        )
        yield filled(T.TONSIL, Ellipsoid((s * 16, -6, 744), (6, 8, 11)), 0.8)
        yield filled(T.THYROID, Ellipsoid((s * 17, 6, 668), sizes(rng, (8, 9, 21), 0.08)), 0.8)


def _face() -> Iterator[Painted]:
    z = CENTRE[2]
    yield filled(T.MUSCLE, Ellipsoid((0, -44, z - 88), (26, 32, 20)), 1.5)  # tongue
    yield filled(
        T.AIRWAY,
        Blend([Tube(((0, 8, z - 122), (0, 2, z - 66)), (8, 10)), Ellipsoid((0, -50, z - 54), (11, 36, 17))], 6.0),
        1.0,
    )
    yield filled(T.MUSCLE, Ellipsoid((0, -56, z - 56), (2, 32, 16)))  # septum
    for s in (-1, 1):
        yield filled(T.MUSCLE, Ellipsoid((s * 6, -52, z - 60), (2.5, 24, 5)), 0.5)
        yield filled(T.AIRWAY, Ellipsoid((s * 26, -56, z - 58), (12, 15, 14)), 1.0)
        yield filled(T.FAT, Ellipsoid((s * 32, -66, z - 22), (19, 26, 17)), 0.5)  # orbit
        yield filled(T.MUSCLE, Tube(((s * 32, -66, z - 22), (s * 18, -44, z - 24)), (3, 3)))


def _brain(size: float) -> Iterator[Painted]:
    """A folded grey rim, white inside, deep grey nuclei and ventricles, cerebellum and stem below."""
    c = np.asarray(CENTRE)

    def at(x: float, y: float, z: float) -> Point:
        return point(c + size * np.asarray((x, y, z)))

    floor = [Ellipsoid(at(0, -76, -62), (70, 62, 44)), Ellipsoid(at(0, 62, -64), (80, 62, 46))]
    cavity = Cut(_vault(size, -6.5), [Ellipsoid(at(0, -76, -66), (70, 62, 42))])
    yield filled(T.CSF, cavity, 0.3)
    cerebrum = Cut(_vault(size, -8.0), floor)
    yield Painted(((0.0, T.GREY_MATTER),), cerebrum, 1.6, 11.0, mirrored=True)
    yield Painted(((0.0, T.WHITE_MATTER),), Offset(cerebrum, -12.5), 6.0, 11.0, mirrored=True)
    yield from _midline(at)
    for s in (-1, 1):
        yield filled(T.GREY_MATTER, Ellipsoid(at(s * 41, -8, -2), (4, 22, 12), yaw_deg=s * -12))  # insula
        yield filled(T.GREY_MATTER, Ellipsoid(at(s * 25, -10, 0), (6.5, 17, 10), yaw_deg=s * -14))  # putamen
        yield filled(T.GREY_MATTER, Ellipsoid(at(s * 13, -22, 7), (6, 11, 9)))  # caudate
        yield filled(T.GREY_MATTER, Ellipsoid(at(s * 11, 10, 3), (8, 13, 9)))  # thalamus
        yield filled(T.CSF, Tube([at(s * 8, -26, 14), at(s * 11, 6, 21), at(s * 24, 34, 10)], (4, 4.5, 5)), 0.5)
    below = Ellipsoid(at(0, 44, -40), (size * 50, size * 31, size * 25))
    yield Painted(((0.0, T.CEREBELLUM),), below, 1.2, 9.0, mirrored=True)
    stem = Tube([at(0, 8, -6), at(0, 12, -34), at(0, 22, -62), at(0, 34, -90)], (13, 13, 9, 7))
    yield filled(T.WHITE_MATTER, stem, 0.5)
    yield filled(T.CSF, Ellipsoid(at(0, 27, -38), (5, 5, 8)))


def _midline(at: Callable[[float, float, float], Point]) -> Iterator[Painted]:
    """Both hemispheres' inner grey and the gap between them."""
    upper: Shape = Cut(Ellipsoid(at(0, -1, 8), (9, 78, 58)), [Ellipsoid(at(0, -2, -4), (30, 44, 28))])
    yield Painted(
        ((0.0, T.GREY_MATTER),), upper, 1.5, 9.0, mirrored=True, over=frozenset({T.WHITE_MATTER, T.GREY_MATTER})
    )
    gap = Cut(Ellipsoid(at(0, -1, 9), (1.9, 84, 62)), [Ellipsoid(at(0, -2, -6), (30, 46, 30))])
    yield Painted(((0.0, T.CSF),), gap, over=frozenset({T.WHITE_MATTER, T.GREY_MATTER}))
