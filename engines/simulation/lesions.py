"""Lesions of FDG and PSMA studies: where they lie, how large they are, how much they take up.

A lesion is a few melted ellipsoids with an uneven surface, filled from the middle outwards until it has its volume and
only where its kind may grow. Counts and volumes are log-normal; the parameters in PATTERNS make the label shift between
the tracers: PSMA lesions are more and smaller (autoPET-III holds 17.5 ± 46 lesions a case over both tracers; Trägårdh
2025 finds a median of 3.8 mL of PSMA lesions in a patient; of FDG in 68 patients with lymphoma it was 35 to 211 mL,
depending on the threshold, PMC9900370). With FDG the first lesion is the primary tumour or the bulk of the disease.

Lesions of one patient are alike, because they are one disease: most of the spread of uptake lies between patients. The
hottest has SUV 7.0 ± 3.1 (2.3 to 13) in indolent and 19.6 ± 9.3 (3.2 to 43) in aggressive lymphoma (Schöder 2005, J
Clin Oncol 23:4643), 12.9 (2.2 to 33) in high-grade sarcoma (Sambri 2019, Nucl Med Commun 40:626). The less a disease
takes up, the more of it a threshold misses. Large lesions are the more uneven ones: heterogeneity goes with volume
(Brooks & Grigsby 2011, Radiat Oncol 6:69).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import erf, exp, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected

from engines.simulation.anatomy import Body, Frame, Tissue
from engines.simulation.shapes import Field, FloatArray, Point
from engines.simulation.uptake import UPTAKE

T = Tissue
SOFT = frozenset({T.FAT, T.MUSCLE})
BONE = frozenset({T.MARROW, T.FATTY_MARROW, T.CORTICAL_BONE})
GROWS_IN: Mapping[str, frozenset[Tissue]] = {
    "node": SOFT | {T.LUNG, T.LUNG_VESSEL}, "lung": frozenset({T.LUNG, T.LUNG_VESSEL}), "liver": frozenset({T.LIVER}),
    "bone": BONE | SOFT, "soft tissue": SOFT, "prostate": frozenset({T.PROSTATE}),
}  # fmt: skip
"""Where voxels of a kind may lie; the centre lies in BEGINS_IN."""
BEGINS_IN: Mapping[str, frozenset[Tissue]] = {
    **GROWS_IN, "node": SOFT, "bone": frozenset({T.MARROW, T.CORTICAL_BONE}), "lung": frozenset({T.LUNG}),
    "soft tissue": frozenset({T.MUSCLE}),
}  # fmt: skip
NODES: Mapping[str, tuple[Point, Point]] = {
    "cervical": ((36, 4, 705), (6, 8, 22)), "supraclavicular": ((44, -6, 656), (12, 8, 6)),
    "paratracheal": ((-15, 10, 605), (5, 8, 16)), "aortopulmonary": ((18, 4, 578), (5, 8, 6)),
    "subcarinal": ((2, 34, 556), (7, 5, 7)), "hilar": ((36, 18, 552), (7, 8, 10)),
    "axillary": ((126, -8, 600), (9, 14, 16)),
    "retroperitoneal": ((20, 14, 295), (7, 8, 32)), "mesenteric": ((0, -28, 300), (28, 12, 24)),
    "iliac": ((50, -4, 178), (7, 12, 18)), "obturator": ((48, 2, 150), (5, 9, 7)),
    "presacral": ((8, 56, 160), (8, 4, 14)), "inguinal": ((68, -52, 122), (8, 8, 14)),
}  # fmt: skip
"""Middle and spread of the nodes of the left side in reference mm; most exist on both sides."""
MIDDLE_OR_LEFT = frozenset({"aortopulmonary", "subcarinal", "mesenteric", "presacral"})
PARTS_OF_SKELETON: Mapping[str, tuple[Point, Point]] = {
    "lumbar spine": ((-45, 20, 185), (45, 130, 345)), "thoracic spine": ((-45, 35, 345), (45, 130, 632)),
    "pelvis": ((-140, -70, 80), (140, 130, 285)), "ribs": ((-160, -120, 330), (160, 120, 640)),
    "shoulder": ((-185, -90, 560), (185, 130, 665)), "femur": ((-150, -30, -60), (150, 50, 165)),
}  # fmt: skip
NECROSIS_ML, NECROTIC_SHARE, NECROTIC_SUV = 12.0, 0.4, 0.3
"""From this volume on, so many lesions have a dead middle that takes up so much of what the rim does."""
LESION_HU: Mapping[str, float] = {"node": 42, "lung": 32, "liver": 40, "bone": 380, "soft tissue": 46, "prostate": 44}
LEAST_ML = 0.1
LEAST_CONTRAST, SEEN_FWHM_MM = 1.3, 7.0
"""Seen through this resolution, the middle of a lesion shows at least so many times what the blood takes up, or in the
liver the liver: with less no reader would have called it one. What is small is known only where it takes up much."""
UNEVEN_ML, UNEVENNESS, UNEVENNESS_PER_E_FOLD, MOST_UNEVENNESS = 2.0, 0.18, 0.06, 0.42
"""Standard deviation of the logarithm of uptake within a lesion: to this volume, more with its logarithm, at most."""


@dataclass(frozen=True)
class Pattern:
    """What lesions of a tracer are like.

    mean_count : lesions of a study that has any; count_spread : of the logarithm; most : a study has no more
    median_ml, volume_spread (of the logarithm, within a patient), largest_ml : volumes
    kinds : how often, relative; suv : median and spread of the logarithm, within a patient
    bulk_spread, avidity_spread : of the logarithm of volume and uptake, between patients
    first : so many times as large is the first lesion of a patient
    nodes, bones : how often each site, relative
    """

    mean_count: float
    count_spread: float
    most: int
    median_ml: float
    volume_spread: float
    largest_ml: float
    kinds: Mapping[str, float]
    suv: Mapping[str, tuple[float, float]]
    nodes: Mapping[str, float]
    bones: Mapping[str, float]
    bulk_spread: float
    avidity_spread: float
    first: float


FDG = Pattern(
    mean_count=5.0, count_spread=0.9, most=30, median_ml=5.0, volume_spread=1.2, largest_ml=600.0,
    bulk_spread=0.9, avidity_spread=0.5, first=10.0,
    kinds={"node": 5, "lung": 3, "liver": 1.5, "bone": 1.5, "soft tissue": 1},
    suv={"node": (6.0, 0.3), "lung": (7.0, 0.4), "liver": (6.5, 0.3), "bone": (6.0, 0.3), "soft tissue": (5.0, 0.35)},
    nodes={"cervical": 2, "supraclavicular": 1.5, "paratracheal": 3, "aortopulmonary": 2, "subcarinal": 2, "hilar": 3,
           "axillary": 2, "retroperitoneal": 2, "mesenteric": 1, "iliac": 1, "inguinal": 1.5},
    bones={"lumbar spine": 2, "thoracic spine": 3, "pelvis": 3, "ribs": 2, "shoulder": 1, "femur": 1},
)  # fmt: skip
PSMA = Pattern(
    mean_count=9.0, count_spread=1.1, most=60, median_ml=0.7, volume_spread=0.9, largest_ml=40.0,
    bulk_spread=0.45, avidity_spread=0.5, first=1.0,
    kinds={"node": 5, "bone": 5, "prostate": 1.6, "lung": 0.2, "liver": 0.15},
    suv={"node": (13.0, 0.5), "bone": (10.0, 0.45), "prostate": (11.0, 0.4), "lung": (5.0, 0.4), "liver": (16.0, 0.3)},
    nodes={"iliac": 5, "obturator": 3, "presacral": 2, "retroperitoneal": 4, "inguinal": 0.5, "supraclavicular": 0.7,
           "paratracheal": 0.6, "hilar": 0.4},
    bones={"lumbar spine": 3, "thoracic spine": 4, "pelvis": 5, "ribs": 4, "shoulder": 1, "femur": 1},
)  # fmt: skip
PATTERNS: Mapping[str, Pattern] = {"FDG": FDG, "PSMA-11": PSMA, "PSMA-1007": PSMA}


@dataclass(frozen=True)
class Spot:
    """One lesion.

    kind : node, lung, liver, bone, soft tissue, prostate; site : which
    centre_mm : (x, y, z) where it began to grow; volume_ml : what it fills on the body's grid
    radius_mm : of a ball as large as it would be if nothing were in its way
    suv : mean uptake of what lives of it; necrotic : share of the volume, the innermost, that does not
    stretch : (x, y, z) how long it is along the axes, relative; seed : of its surface and texture
    """

    kind: str
    site: str
    centre_mm: Point
    volume_ml: float
    radius_mm: float
    suv: float
    necrotic: float
    stretch: Point
    seed: int


@dataclass(frozen=True)
class Disease:
    """What the lesions of one patient have in common.

    shares : of kinds; bulk, avidity : what volumes and uptake of the tracer's pattern are multiplied by
    """

    tracer: str
    shares: Mapping[str, float]
    bulk: float
    avidity: float

    @classmethod
    def draw(cls, tracer: str, body: Body, rng: np.random.Generator, *, factor: float = 1.0) -> Disease:
        """A random one; factor multiplies volumes."""
        pattern = PATTERNS[tracer]
        kinds = [kind for kind in pattern.kinds if kind != "prostate" or body.person.sex == "M"]
        leaning = np.asarray([rng.gamma(0.8 * pattern.kinds[kind]) for kind in kinds])
        bulk, avidity = np.exp(rng.normal(0.0, (pattern.bulk_spread, pattern.avidity_spread)))
        shares = dict(zip(kinds, (leaning / leaning.sum()).tolist(), strict=True))
        return cls(tracer, shares, factor * float(bulk), float(avidity))


def place(
    body: Body,
    tracer: str,
    rng: np.random.Generator,
    *,
    mean_count: float | None = None,
    negative: float = 0.25,
    volume_factor: float = 1.0,
) -> tuple[Spot, ...]:
    """The lesions of a patient; none in the share `negative` of patients.

    mean_count : mean over patients with lesions, None = the tracer's; volume_factor : multiplies volumes
    """
    pattern = PATTERNS[tracer]
    if rng.random() < negative:
        return ()
    mean = pattern.mean_count if mean_count is None else mean_count
    count = rng.lognormal(np.log(mean) - pattern.count_spread**2 / 2, pattern.count_spread)
    disease = Disease.draw(tracer, body, rng, factor=volume_factor)
    taken = np.zeros(body.tissue.shape, bool)
    spots: list[Spot] = []
    for _ in range(int(np.clip(round(count), 1, pattern.most))):
        factor = pattern.first if not spots else 1.0
        spot = _grown(body, disease, taken, rng, factor=factor)
        if spot is not None:
            spots.append(spot)
    return tuple(spots)


def paint(spots: Sequence[Spot], body: Body, suv: FloatArray) -> tuple[FloatArray, NDArray[np.uint16]]:
    """Uptake with lesions, and which voxel belongs to which: number n is spots[n − 1].

    suv : float32 (z, y, x) as of `uptake.suv_map`, not changed
    """
    painted, labels = suv.copy(), np.zeros(body.tissue.shape, np.uint16)
    for number, (spot, window, filled, order) in enumerate(_regions(spots, body, labels), 1):
        values, alive = _texture(spot, body, window), filled
        if spot.necrotic:
            alive = filled & (order >= np.quantile(order[filled], spot.necrotic))
        values *= np.float32(spot.suv / values[alive].mean())
        values[filled & ~alive] *= NECROTIC_SUV
        painted[window] = np.where(filled, values, painted[window])
        labels[window][filled] = number
    return painted, labels


def paint_hu(spots: Sequence[Spot], labels: NDArray[np.uint16], hu: FloatArray) -> FloatArray:
    """Hounsfield units with lesions: solid in the lung, denser in bone, hardly different elsewhere."""
    densities = np.asarray([0.0, *(LESION_HU[spot.kind] for spot in spots)], np.float32)
    return np.where(labels > 0, densities[labels], hu).astype(np.float32)


Window = tuple[slice, slice, slice]


def _grown(
    body: Body, disease: Disease, taken: NDArray[np.bool_], rng: np.random.Generator, *, factor: float
) -> Spot | None:
    """A lesion, or None where there is no room for it; `taken` is filled."""
    pattern = PATTERNS[disease.tracer]
    kind = str(rng.choice(list(disease.shares), p=list(disease.shares.values())))
    sites = pattern.bones if kind == "bone" else pattern.nodes if kind == "node" else {kind: 1.0}
    weights = np.asarray(list(sites.values()))
    site = str(rng.choice(list(sites), p=weights / weights.sum()))
    wanted = factor * disease.bulk * pattern.median_ml * float(np.exp(rng.normal(0.0, pattern.volume_spread)))
    wanted = float(np.clip(wanted, LEAST_ML, pattern.largest_ml))
    median, spread = pattern.suv[kind]
    home = UPTAKE[disease.tracer][T.LIVER if kind == "liver" else T.BLOOD][0]
    least = LEAST_CONTRAST * home / recovery(wanted)
    suv = float(np.clip(disease.avidity * rng.lognormal(np.log(median), spread), least, max(least, 60.0)))
    dead = rng.uniform(0.15, 0.45) if wanted > NECROSIS_ML and rng.random() < NECROTIC_SHARE else 0.0
    stretch = np.exp(rng.normal(0.0, 0.2, 3))
    seed = int(rng.integers(2**31))
    centre = _centre(body, kind, site, taken, rng)
    if centre is None:
        return None
    x, y, z = (float(part) for part in stretch)
    radius = (wanted * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1 / 3)
    spot = Spot(kind, site, centre, wanted, radius, suv, float(dead), (x, y, z), seed)
    window, filled, _ = _region(spot, body, taken)
    held = float(filled.sum()) * body.voxel_ml
    if held < 0.5 * min(wanted, 1.0):
        return None
    taken[window] |= filled
    return replace(spot, volume_ml=held)


def recovery(volume_ml: float) -> float:
    """Share of its uptake that the middle of a ball shows after a Gaussian blur of SEEN_FWHM_MM."""
    r = float((volume_ml * 1000.0 * 3.0 / (4.0 * pi)) ** (1 / 3)) / (SEEN_FWHM_MM / sqrt(8.0 * log(2.0)))
    return erf(r / sqrt(2.0)) - sqrt(2.0 / pi) * r * exp(-r * r / 2.0)


def _regions(
    spots: Sequence[Spot], body: Body, labels: NDArray[np.uint16]
) -> Iterator[tuple[Spot, Window, NDArray[np.bool_], FloatArray]]:
    """Every lesion's window, its voxels there, and the order in which they were filled; labels grow meanwhile."""
    for spot in spots:
        yield spot, *_region(spot, body, labels > 0)


def _region(spot: Spot, body: Body, taken: NDArray[np.bool_]) -> tuple[Window, NDArray[np.bool_], FloatArray]:
    """The voxels of a lesion: those deepest in its shape, as many as its ball holds, in one piece."""
    radius = spot.radius_mm
    window = _window(body, spot.centre_mm, 2.2 * radius + 6.0)
    z, y, x = (axis[part] for axis, part in zip(body.grid.axes, window, strict=True))
    rng = np.random.default_rng(spot.seed)
    lobes = [np.zeros(3), *(rng.normal(0.0, 0.42 * radius, 3) for _ in range(2))]
    shape = np.full((len(z), len(y), len(x)), np.inf, np.float32)
    for lobe, size in zip(lobes, (1.0, 0.75, 0.6), strict=True):
        away = [
            ((places - np.float32(c + o)) / np.float32(radius * size * s)) ** 2
            for places, c, o, s in zip((x, y, z), spot.centre_mm, lobe, spot.stretch, strict=True)
        ]
        shape = np.minimum(shape, away[2][:, None, None] + away[1][None, :, None] + away[0][None, None, :])
    order = np.sqrt(shape) + 0.14 * _ripple(spot, rng, 0.9).at(z, y, x)
    free = np.isin(body.tissue[window], list(GROWS_IN[spot.kind])) & ~taken[window] & (order < 1.9)
    places_wanted = max(1, round(4.0 / 3.0 * np.pi * radius**3 / 1000.0 / body.voxel_ml))
    if np.count_nonzero(free) > places_wanted:
        free &= order <= np.partition(order[free], places_wanted - 1)[places_wanted - 1]
    pieces, count = connected(free)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])) if count else 0
    return window, (pieces == largest) & free, order


def _ripple(spot: Spot, rng: np.random.Generator, length: float) -> Field:
    radius = spot.radius_mm
    low, high = (np.asarray(spot.centre_mm) + way * (2.2 * radius + 6.0) for way in (-1, 1))
    box = (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))
    return Field.draw(box, max(length * radius, 4.0), rng)


def _texture(spot: Spot, body: Body, window: Window) -> FloatArray:
    """Unevenness of the uptake, log-normal."""
    z, y, x = (axis[part] for axis, part in zip(body.grid.axes, window, strict=True))
    field = _ripple(spot, np.random.default_rng(spot.seed + 1), 0.7).at(z, y, x)
    beyond = max(np.log(spot.volume_ml / UNEVEN_ML), 0.0)
    spread = np.float32(min(UNEVENNESS + UNEVENNESS_PER_E_FOLD * beyond, MOST_UNEVENNESS))
    return np.asarray(np.exp(spread * field), np.float32)


def _window(body: Body, centre: Point, reach: float) -> Window:
    parts = [
        slice(int(np.searchsorted(axis, c - reach)), int(np.searchsorted(axis, c + reach)))
        for axis, c in zip(body.grid.axes, centre[::-1], strict=True)
    ]
    return parts[0], parts[1], parts[2]


def _centre(body: Body, kind: str, site: str, taken: NDArray[np.bool_], rng: np.random.Generator) -> Point | None:
    """A free place in the tissue where a lesion of this kind begins, None if the grid holds none."""
    frame = Frame(body.person)
    if kind == "node":
        middle, spread = (np.asarray(part) for part in NODES[site])
        side = 1.0 if site in MIDDLE_OR_LEFT else float(rng.choice([-1.0, 1.0]))
        x, y, z = middle * (side, 1, 1) + rng.normal(0.0, 0.6, 3) * spread
        around = np.asarray(frame.place((float(x), float(y), float(z))))
        window = _window(body, (around[0], around[1], around[2]), 14.0)
    elif kind == "bone":
        low, high = (np.asarray(frame.place(corner)) for corner in PARTS_OF_SKELETON[site])
        window = _box_window(body, low, high)
    else:
        window = (slice(None), slice(None), slice(None))
    free = np.isin(body.tissue[window], list(BEGINS_IN[kind])) & ~taken[window]
    places = np.flatnonzero(free)
    if not len(places):
        return None
    axes = [axis[part] for axis, part in zip(body.grid.axes, window, strict=True)]
    iz, iy, ix = np.unravel_index(places, free.shape)
    if kind == "node":  # the nearest
        away = (axes[0][iz] - around[2]) ** 2 + (axes[1][iy] - around[1]) ** 2 + (axes[2][ix] - around[0]) ** 2
        pick = int(np.argmin(away))
    else:
        pick = int(rng.integers(len(places)))
    return float(axes[2][ix[pick]]), float(axes[1][iy[pick]]), float(axes[0][iz[pick]])


def _box_window(body: Body, low: NDArray[np.float64], high: NDArray[np.float64]) -> Window:
    parts = [
        slice(int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b)))
        for axis, a, b in zip(body.grid.axes, low[::-1], high[::-1], strict=True)
    ]
    return parts[0], parts[1], parts[2]
