"""How much of a tracer each tissue holds, and how dense tissues are.

Uptake is SUVbw (mean of the tissue) about one hour after injection, mean and standard deviation between patients of a
log-normal distribution. From publications: FDG in cerebellum, tonsils and testes, Wang 2007 (Mol Imaging Biol 9:83);
Ga-68 PSMA-11 in kidneys, salivary glands and prostate, Muchnik Kurash 2020 (Sci Rep 10:3109), in liver and spleen, an
intra-patient comparison with PSMA-1007 (EJNMMI Res 2024, 10.1186/s13550-024-01097-3); F-18 PSMA-1007 in kidneys, liver,
parotid glands and spleen, Trägårdh 2025 (Clin Physiol Funct Imaging, 10.1111/cpf.70016; 1086 patients). All other
numbers have only the right order: what readers expect to see, not what was measured in a population. Muscle, fat and
skin of PSMA tracers are such that a body holds what has not left with the urine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from engines.simulation.anatomy import EVERYWHERE, Body, Frame, Grid, Tissue
from engines.simulation.shapes import Field, FloatArray

T = Tissue
Range = tuple[float, float]
"""Mean and standard deviation between patients."""

BACKGROUND: Mapping[Tissue, Range] = {
    T.AIR: (0.0, 0.0),
    T.AIRWAY: (0.05, 0.0),
    T.BOWEL_GAS: (0.2, 0.05),
    T.PROSTHESIS: (0.05, 0.0),
}

FDG: Mapping[Tissue, Range] = {
    **BACKGROUND,
    T.FAT: (0.28, 0.05), T.MUSCLE: (0.68, 0.12), T.SKIN: (0.55, 0.1), T.LUNG: (0.45, 0.09), T.LUNG_VESSEL: (1.1, 0.2),
    T.BLOOD: (1.7, 0.3), T.MYOCARDIUM: (2.0, 0.4), T.LEFT_VENTRICLE: (1.7, 0.3), T.RIGHT_VENTRICLE: (1.7, 0.3),
    T.RIGHT_HEART_WALL: (1.9, 0.4), T.LIVER: (2.2, 0.35), T.SPLEEN: (1.85, 0.35), T.KIDNEY: (2.4, 0.5),
    T.RENAL_PELVIS: (8.0, 5.0), T.STOMACH: (1.9, 0.6), T.BOWEL: (1.4, 0.5), T.COLON: (1.3, 0.6),
    T.DUODENUM: (1.6, 0.4), T.PANCREAS: (1.5, 0.3), T.BLADDER: (16.0, 10.0), T.PROSTATE: (1.7, 0.4),
    T.UTERUS: (1.7, 0.5),
    T.TESTIS: (2.57, 0.56), T.GALLBLADDER: (1.0, 0.3), T.CORTICAL_BONE: (0.7, 0.15), T.MARROW: (1.55, 0.35),
    T.FATTY_MARROW: (0.42, 0.1),
    T.CARTILAGE: (0.6, 0.1), T.SPINAL_CORD: (1.8, 0.3), T.CSF: (0.9, 0.15), T.GREY_MATTER: (10.0, 2.2),
    T.WHITE_MATTER: (3.8, 0.8), T.CEREBELLUM: (8.0, 2.2), T.EYE: (1.0, 0.2), T.PAROTID: (1.8, 0.5),
    T.SUBMANDIBULAR: (2.0, 0.5), T.LACRIMAL: (1.8, 0.5), T.THYROID: (1.4, 0.4), T.TONSIL: (3.45, 1.4),
    T.VOCAL_MUSCLE: (2.4, 1.0), T.ADRENAL: (1.5, 0.4), T.BREAST: (0.75, 0.2),
}  # fmt: skip
PSMA_11: Mapping[Tissue, Range] = {
    **BACKGROUND,
    T.FAT: (0.22, 0.04), T.MUSCLE: (0.48, 0.08), T.SKIN: (0.38, 0.06), T.LUNG: (0.38, 0.07), T.LUNG_VESSEL: (0.9, 0.15),
    T.BLOOD: (1.6, 0.3), T.MYOCARDIUM: (1.5, 0.3), T.LEFT_VENTRICLE: (1.6, 0.3), T.RIGHT_VENTRICLE: (1.6, 0.3),
    T.RIGHT_HEART_WALL: (1.4, 0.3), T.LIVER: (5.4, 1.7), T.SPLEEN: (8.1, 3.5), T.KIDNEY: (41.7, 11.0),
    T.RENAL_PELVIS: (35.0, 15.0), T.STOMACH: (3.0, 0.9), T.BOWEL: (3.2, 1.2), T.COLON: (1.8, 0.8),
    T.DUODENUM: (9.5, 3.5), T.PANCREAS: (2.2, 0.5), T.BLADDER: (28.0, 18.0), T.PROSTATE: (2.4, 0.7),
    T.UTERUS: (1.6, 0.4), T.TESTIS: (1.4, 0.3),
    T.GALLBLADDER: (3.0, 1.5), T.CORTICAL_BONE: (0.4, 0.08), T.MARROW: (0.85, 0.2), T.FATTY_MARROW: (0.3, 0.07),
    T.CARTILAGE: (0.4, 0.08), T.SPINAL_CORD: (0.8, 0.2), T.CSF: (0.25, 0.05), T.GREY_MATTER: (0.35, 0.06),
    T.WHITE_MATTER: (0.25, 0.05), T.CEREBELLUM: (0.38, 0.06), T.EYE: (0.8, 0.1), T.PAROTID: (14.5, 4.0),
    T.SUBMANDIBULAR: (13.0, 3.8), T.LACRIMAL: (8.0, 2.8), T.THYROID: (1.5, 0.4), T.TONSIL: (4.0, 1.2),
    T.VOCAL_MUSCLE: (3.0, 0.9), T.ADRENAL: (4.0, 1.2), T.BREAST: (0.7, 0.2),
}  # fmt: skip
PSMA_1007: Mapping[Tissue, Range] = {
    **PSMA_11,
    T.LIVER: (11.8, 3.3), T.GALLBLADDER: (35.0, 22.0), T.SPLEEN: (11.3, 4.3), T.KIDNEY: (13.1, 3.4),
    T.RENAL_PELVIS: (6.0, 2.5), T.BLADDER: (3.4, 1.8), T.BLOOD: (2.0, 0.4), T.LEFT_VENTRICLE: (2.0, 0.4),
    T.RIGHT_VENTRICLE: (2.0, 0.4), T.LUNG_VESSEL: (1.3, 0.2), T.PAROTID: (18.6, 5.0), T.SUBMANDIBULAR: (18.0, 4.5),
    T.LACRIMAL: (9.0, 3.0), T.PANCREAS: (3.2, 0.8), T.MARROW: (1.2, 0.3), T.MUSCLE: (0.62, 0.09),
    T.DUODENUM: (11.0, 4.0), T.BOWEL: (3.8, 1.5),
}  # fmt: skip
UPTAKE: Mapping[str, Mapping[Tissue, Range]] = {"FDG": FDG, "PSMA-11": PSMA_11, "PSMA-1007": PSMA_1007}
TOGETHER: Mapping[Tissue, Tissue] = {
    T.WHITE_MATTER: T.GREY_MATTER, T.CEREBELLUM: T.GREY_MATTER, T.LEFT_VENTRICLE: T.BLOOD, T.RIGHT_VENTRICLE: T.BLOOD,
    T.LUNG_VESSEL: T.BLOOD, T.SUBMANDIBULAR: T.PAROTID, T.FATTY_MARROW: T.MARROW, T.SKIN: T.MUSCLE,
}  # fmt: skip
"""What is high in the patients in whom something else is."""
SINKS: Mapping[Tissue, float] = {T.LIVER: 1.8 / 73.0, T.KIDNEY: 0.31 / 73.0, T.SPLEEN: 0.15 / 73.0}
"""PSMA: share of the body's mass (ICRP publication 89) of the organs that hold a third of the dose."""
REST = [T.FAT, T.MUSCLE, T.SKIN, T.LUNG, T.CORTICAL_BONE, T.MARROW, T.FATTY_MARROW, T.CARTILAGE]
REST_SHARE = 0.4
"""PSMA: the tissues that have less where those organs hold more, and the share of the dose in them, legs included."""
FASTED_SHARE, FED_MYOCARDIUM = 0.6, (4.0, 12.0)
"""FDG: in so many patients the heart burns fat and stays dark; in the others its SUV lies in this range."""
METFORMIN_SHARE, METFORMIN = 0.12, (2.5, 5.5)
"""FDG: in so many patients the bowel takes up this many times as much."""
AFTER_AN_HOUR: Mapping[str, Mapping[Tissue, float]] = {
    "FDG": {
        T.BLOOD: -0.45, T.LEFT_VENTRICLE: -0.45, T.RIGHT_VENTRICLE: -0.45, T.LUNG_VESSEL: -0.4, T.LUNG: -0.3,
        T.LIVER: -0.18, T.SPLEEN: -0.15, T.GREY_MATTER: 0.15, T.CEREBELLUM: 0.15, T.MYOCARDIUM: 0.2, T.MARROW: 0.05,
    },
    "PSMA-11": {
        T.BLOOD: -0.5, T.LEFT_VENTRICLE: -0.5, T.RIGHT_VENTRICLE: -0.5, T.KIDNEY: 0.2, T.PAROTID: 0.15, T.LIVER: -0.1,
    },
    "PSMA-1007": {
        T.BLOOD: -0.5, T.LEFT_VENTRICLE: -0.5, T.RIGHT_VENTRICLE: -0.5, T.KIDNEY: 0.2, T.PAROTID: 0.25, T.LIVER: 0.15,
    },
}  # fmt: skip
"""Uptake goes with (minutes / 60) to this power: its sign is known, its size is of an order only."""
COARSE = {
    T.BOWEL: 0.45, T.COLON: 0.5, T.DUODENUM: 0.3, T.STOMACH: 0.3, T.MYOCARDIUM: 0.2, T.GREY_MATTER: 0.1, T.MARROW: 0.16,
    T.MUSCLE: 0.13, T.LUNG: 0.12, T.FAT: 0.15, T.RENAL_PELVIS: 0.35, T.BREAST: 0.2, T.PROSTATE: 0.12,
}  # fmt: skip
"""Unevenness within a tissue, relative; the rest has USUAL_UNEVENNESS."""
USUAL_UNEVENNESS = 0.05
DEPENDENT = 0.0022
"""Lungs: more blood and less air towards the back of a patient on the back, per mm, relative."""
USUAL_WEIGHT_PER_LEAN = 1.38

HU: Mapping[Tissue, Range] = {
    T.AIR: (-1000, 0), T.FAT: (-100, 8), T.MUSCLE: (52, 7), T.SKIN: (30, 6), T.LUNG: (-825, 28),
    T.LUNG_VESSEL: (-180, 80), T.AIRWAY: (-980, 5), T.BLOOD: (42, 4), T.MYOCARDIUM: (48, 4),
    T.LEFT_VENTRICLE: (42, 4), T.RIGHT_VENTRICLE: (42, 4),
    T.RIGHT_HEART_WALL: (46, 4), T.LIVER: (58, 6), T.SPLEEN: (50, 5), T.KIDNEY: (34, 4), T.RENAL_PELVIS: (8, 4),
    T.STOMACH: (30, 12), T.BOWEL: (28, 10), T.COLON: (10, 35), T.DUODENUM: (28, 8), T.BOWEL_GAS: (-900, 40),
    T.PANCREAS: (38, 8), T.BLADDER: (6, 3), T.PROSTATE: (40, 4), T.UTERUS: (46, 5), T.TESTIS: (35, 4),
    T.GALLBLADDER: (10, 4), T.CORTICAL_BONE: (560, 70), T.MARROW: (190, 40), T.FATTY_MARROW: (30, 40),
    T.CARTILAGE: (85, 12), T.SPINAL_CORD: (30, 4), T.CSF: (8, 2), T.GREY_MATTER: (38, 2), T.WHITE_MATTER: (29, 2),
    T.CEREBELLUM: (36, 2), T.EYE: (12, 3), T.PAROTID: (-5, 12), T.SUBMANDIBULAR: (28, 6), T.LACRIMAL: (35, 5),
    T.THYROID: (95, 12), T.TONSIL: (45, 5), T.VOCAL_MUSCLE: (48, 5), T.ADRENAL: (24, 6), T.PROSTHESIS: (2800, 100),
    T.BREAST: (10, 25),
}  # fmt: skip
CONTRAST_HU: Mapping[Tissue, float] = {
    T.BLOOD: 120, T.LEFT_VENTRICLE: 120, T.RIGHT_VENTRICLE: 120, T.KIDNEY: 130, T.LIVER: 50, T.SPLEEN: 75,
    T.MYOCARDIUM: 60, T.PANCREAS: 50, T.THYROID: 60, T.LUNG_VESSEL: 90, T.PROSTATE: 30, T.UTERUS: 60, T.MUSCLE: 8,
    T.RIGHT_HEART_WALL: 60,
}  # fmt: skip
"""What an intravenous contrast medium adds in the portal-venous phase."""


def attenuation(hu: FloatArray) -> FloatArray:
    """Linear attenuation at 511 keV [1/mm] by the bilinear scaling of a 120 kVp CT (Carney 2006, Med Phys 33:976)."""
    below = 9.6e-6 * (hu + 1000.0)
    above = 5.10e-6 * (hu + 1000.0) + 4.71e-3
    return np.maximum(np.where(hu <= 47.0, below, above), 0.0).astype(np.float32)


def suv_map(body: Body, tracer: str, rng: np.random.Generator, *, minutes: float = 60.0) -> FloatArray:
    """Uptake of a patient so long after injection, float32 (z, y, x) SUVbw: a value per tissue, uneven within it."""
    values = tissue_values(body, tracer, rng, minutes=minutes)
    uneven = np.asarray([COARSE.get(tissue, USUAL_UNEVENNESS) for tissue in Tissue], np.float32)
    texture = 0.75 * _texture(body.grid, 26.0, rng) + 0.65 * _texture(body.grid, 11.0, rng)
    texture *= uneven[body.tissue]
    texture += 1.0
    np.maximum(texture, 0.1, out=texture)
    lung = body.tissue == T.LUNG
    texture[lung] *= _dependent(body)[lung]
    return texture * values[body.tissue]


def tissue_values(body: Body, tracer: str, rng: np.random.Generator, *, minutes: float = 60.0) -> FloatArray:
    """Mean uptake of every tissue in one patient, float32 (tissues,) SUVbw.

    What is not fat holds more of the activity per kg the more fat the patient has (SUVbw of the obese is too high;
    Zasadny 1993, Radiology 189:847). Of a PSMA tracer, what liver, kidneys and spleen hold above the mean is missing
    elsewhere, because there is no more than was injected.
    """
    table, z = UPTAKE[tracer], rng.standard_normal(len(Tissue))
    values = np.zeros(len(Tissue), np.float32)
    lean = (body.person.weight_kg / body.person.lean_kg / USUAL_WEIGHT_PER_LEAN) ** 0.8
    for tissue in Tissue:
        mean, sd = table[tissue]
        later = (minutes / 60.0) ** AFTER_AN_HOUR[tracer].get(tissue, 0.0)
        own = z[TOGETHER[tissue]] if tissue in TOGETHER else z[tissue]
        values[tissue] = _log_normal(mean, sd, own) * later * (1.0 if tissue == T.FAT else lean)
    fed, metformin = rng.random(2)
    myocardium, bowel = rng.uniform(*FED_MYOCARDIUM), rng.uniform(*METFORMIN)
    if tracer == "FDG":
        if fed > FASTED_SHARE:
            values[T.MYOCARDIUM] = myocardium
            values[T.RIGHT_HEART_WALL] *= 1.3
        if metformin < METFORMIN_SHARE:
            values[[T.BOWEL, T.COLON, T.DUODENUM]] *= np.asarray((0.5, 1.0, 0.4), np.float32) * np.float32(bowel)
    else:
        above = sum(share * (values[tissue] / lean - table[tissue][0]) for tissue, share in SINKS.items())
        values[REST] *= np.float32(np.clip(1.0 - above / REST_SHARE, 0.6, 1.3))
    return values


def hu_map(body: Body, rng: np.random.Generator, *, couch: bool = True, contrast: bool = False) -> FloatArray:
    """Hounsfield units without noise, float32 (z, y, x): a value per tissue, uneven within it, and the couch."""
    mean = np.asarray([HU[t][0] + contrast * CONTRAST_HU.get(t, 0.0) for t in Tissue], np.float32)
    sd = np.asarray([HU[tissue][1] for tissue in Tissue], np.float32)
    hu = _texture(body.grid, 12.0, rng)
    hu *= sd[body.tissue]
    hu += mean[body.tissue]
    lung = body.tissue == T.LUNG
    hu[lung] = -1000.0 + (hu[lung] + 1000.0) * _dependent(body)[lung]
    if couch:
        _lay_couch(body, hu)
    return hu


def ct_noise(hu: FloatArray, grid: Grid, rng: np.random.Generator, *, sd_hu: float = 9.0) -> FloatArray:
    """A CT image of given densities: grainy noise that grows where rays cross much of the body, float32 (z, y, x).

    sd_hu : noise in 20 cm of water; it doubles with every 14 cm more (half of all photons are lost in 3.5 cm, and
    tube current modulation makes up for half of that)
    """
    density = np.maximum(hu / 1000.0 + 1.0, 0.0)
    paths = [(density.sum(axis=axis) * grid.step_mm[axis]) for axis in (1, 2)]
    thick = 0.5 * (np.minimum(paths[0], 420.0)[:, None, :] + np.minimum(paths[1], 420.0)[:, :, None])
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    grain -= gaussian_filter1d(gaussian_filter1d(grain, 2.0, axis=1), 2.0, axis=2)  # a ramp filter leaves no slow noise
    louder = np.exp2((np.minimum(thick, 420.0) - 200.0) / 140.0).astype(np.float32)
    return np.asarray(hu + np.float32(sd_hu) * louder * grain, np.float32)


def _texture(grid: Grid, length_mm: float, rng: np.random.Generator) -> FloatArray:
    """A random field over the whole patient, seen on the grid."""
    return Field.draw(EVERYWHERE, length_mm, rng).at(*grid.axes)


def _dependent(body: Body) -> NDArray[np.float32]:
    """What lungs hold relative to their mean at a depth, float32 of the grid's shape."""
    y = body.grid.axes[1]
    wide = float(Frame(body.person).across(np.asarray(500.0, np.float32)))
    return np.broadcast_to((1.0 + DEPENDENT * np.clip(y / wide, -90, 90))[None, :, None], body.tissue.shape)


def _lay_couch(body: Body, hu: FloatArray, *, half_width_mm: float = 215.0, thick_mm: float = 24.0) -> None:
    """A curved plate under the back: a thin dense shell around foam. Only where there is air."""
    _, y, x = body.grid.axes
    backs = np.flatnonzero((body.tissue != T.AIR).any(axis=(0, 2)))
    if not len(backs):
        return
    top = y[backs[-1]] + 3.0 - 34.0 * (x / half_width_mm) ** 2  # the patient lies in its hollow
    into = y[:, None] - top[None, :]
    inside = (into > 0) & (into < thick_mm) & (np.abs(x)[None, :] < half_width_mm)
    shell = inside & ((into < 2.5) | (into > thick_mm - 2.5))
    free = body.tissue == T.AIR
    hu[free & inside[None]] = -940.0
    hu[free & shell[None]] = -350.0


def _log_normal(mean: float, sd: float, z: float) -> float:
    """The value z standard deviations from the median of a log-normal distribution of this mean and sd."""
    if mean <= 0.0 or sd <= 0.0:
        return mean
    variance = np.log1p((sd / mean) ** 2)
    return float(np.exp(np.log(mean) - variance / 2 + z * variance**0.5))
