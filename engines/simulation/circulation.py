"""Rb-82 on its way: infused into a vein, through right heart, lungs and left heart, into the organs and back.

The bolus is dispersed by chains of mixing chambers (gamma-variate transits). What the organs do not keep returns to the
right heart, and what they release returns too: the recirculation is not a curve of its own but follows from the
organs, so no activity is made or lost, and the first pass has the area dose / cardiac output (Stewart and Hamilton).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from engines.simulation.compartments import STEP_S, Array, sample_times, tissue, transit
from engines.simulation.person import Person
from engines.simulation.tissues import Tissue

T = Tissue
HALF_LIFE_S = 76.38
"""Rb-82, as the tracer tables of the reader have it."""


@dataclass(frozen=True)
class Organ:
    """A one-tissue compartment for potassium-like tracers.

    k1 : mL/min/mL at rest; volume : of distribution, K1/k2; blood : share of the volume that is blood
    reference_ml : in the reference adult of 73 kg (ICRP publication 89), for the balance of the whole body
    """

    k1: float
    volume: float
    blood: float
    reference_ml: float


REFERENCE_KG = 73.0
ORGANS: Mapping[Tissue, Organ] = {
    T.FAT: Organ(0.012, 1.2, 0.01, 17000), T.MUSCLE: Organ(0.030, 4.0, 0.03, 27500),
    T.SKIN: Organ(0.05, 2.5, 0.04, 3200), T.LUNG: Organ(0.035, 0.6, 0.14, 3500),
    T.LIVER: Organ(0.45, 2.2, 0.16, 1700), T.SPLEEN: Organ(0.9, 1.8, 0.25, 145), T.KIDNEY: Organ(1.9, 3.6, 0.15, 300),
    T.STOMACH: Organ(0.38, 3.0, 0.03, 320), T.BOWEL: Organ(0.28, 3.0, 0.03, 750),
    T.COLON: Organ(0.18, 3.0, 0.03, 650), T.DUODENUM: Organ(0.45, 3.0, 0.04, 100),
    T.PANCREAS: Organ(0.6, 3.0, 0.1, 135), T.MARROW: Organ(0.09, 2.5, 0.06, 1150),
    T.CORTICAL_BONE: Organ(0.015, 1.0, 0.02, 2900), T.FATTY_MARROW: Organ(0.02, 1.2, 0.02, 2400),
    T.CARTILAGE: Organ(0.01, 1.0, 0.0, 1000), T.GREY_MATTER: Organ(0.006, 0.3, 0.05, 700),
    T.WHITE_MATTER: Organ(0.004, 0.3, 0.03, 500), T.CEREBELLUM: Organ(0.006, 0.3, 0.05, 140),
    T.SPINAL_CORD: Organ(0.004, 0.3, 0.03, 35), T.RIGHT_HEART_WALL: Organ(0.35, 2.6, 0.15, 70),
    T.THYROID: Organ(0.9, 3.0, 0.2, 19), T.ADRENAL: Organ(1.2, 3.0, 0.2, 13), T.PAROTID: Organ(0.45, 3.0, 0.08, 50),
    T.SUBMANDIBULAR: Organ(0.45, 3.0, 0.08, 25), T.BREAST: Organ(0.04, 2.0, 0.03, 150),
    T.TONSIL: Organ(0.3, 2.0, 0.06, 8), T.VOCAL_MUSCLE: Organ(0.1, 3.0, 0.05, 5),
    T.LACRIMAL: Organ(0.3, 2.5, 0.08, 2), T.PROSTATE: Organ(0.12, 2.5, 0.05, 17),
    T.UTERUS: Organ(0.15, 2.5, 0.06, 80), T.TESTIS: Organ(0.1, 2.0, 0.05, 35),
    T.RENAL_PELVIS: Organ(0.3, 1.5, 0.05, 20), T.GALLBLADDER: Organ(0.02, 0.5, 0.01, 60),
    T.BLADDER: Organ(0.01, 0.5, 0.0, 200), T.EYE: Organ(0.02, 0.5, 0.02, 15),
}  # fmt: skip
"""Orders of magnitude only: K1 is blood flow (shares of cardiac output of ICRP publication 89, per mL of organ) times
an extraction of 0.5 to 0.9, none across the blood–brain barrier; volumes of distribution let an organ hold what it took
for minutes. They make the surroundings of the heart plausible and are no reference for those organs."""
MYOCARDIUM = Organ(0.5, 2.6, 0.15, 320)
"""For the balance of the whole body; what the left ventricle does is said by its own perfusion."""
SYSTEMIC_PASSES = 60


@dataclass(frozen=True)
class Bolus:
    """What the generator sends: activity [Bq at the start of the scan] at a constant rate, from `start_s` on."""

    activity_bq: float
    infusion_s: float
    start_s: float = 3.0

    @property
    def dose_bq(self) -> float:
        """The activity when the infusion begins, as it is written into the record."""
        return self.activity_bq * exp(-log(2.0) * self.start_s / HALF_LIFE_S)

    def rate(self, times: Array) -> Array:
        """Bq/s at times that are STEP_S apart; their integral is the activity."""
        running = ((times > self.start_s) & (times <= self.start_s + self.infusion_s)).astype(np.float64)
        return np.asarray(running * (self.activity_bq / (running.sum() * STEP_S)))


@dataclass(frozen=True, eq=False)
class Blood:
    """Activity of whole blood [Bq/mL], decay-corrected: right and left ventricle, and the lungs' in between."""

    right: Array
    lung: Array
    left: Array


@dataclass(frozen=True)
class Circulation:
    """Flow and mean times of transit.

    output_ml_min : cardiac output; body : volume of the organs against the reference adult
    uptake : K1 of the organs against the table, one number for all
    """

    output_ml_min: float
    body: float = 1.0
    uptake: float = 1.0
    right_s: float = 6.0
    lung_s: float = 6.0
    left_s: float = 2.0
    systemic_s: float = 36.0

    @classmethod
    def draw(cls, person: Person, rng: np.random.Generator) -> Circulation:
        """A patient at rest: cardiac index 2.4 to 3.8 L/min/m² of the surface of Du Bois (1916)."""
        surface_m2 = 0.007184 * person.weight_kg**0.425 * (100.0 * person.height_m) ** 0.725
        output = float(np.clip(rng.normal(3.0, 0.35), 2.4, 3.8)) * surface_m2 * 1000.0
        pace = float(rng.normal(1.0, 0.12))
        size, uptake = person.weight_kg / REFERENCE_KG, float(rng.normal(1.0, 0.08))
        # a fast heart also empties faster; the blood volume is output times the time of a round
        return cls(output, size, uptake, right_s=6.0 / pace, lung_s=6.0 / pace, left_s=2.0 / pace)

    def under_stress(self, factor: float = 1.4) -> Circulation:
        """A vasodilator: more output through the same blood volume, the other organs' flow as it was."""
        times = (self.right_s, self.lung_s, self.left_s, self.systemic_s)
        right, lung, left, systemic = (time / factor for time in times)
        return replace(
            self,
            output_ml_min=self.output_ml_min * factor,
            right_s=right,
            lung_s=lung,
            left_s=left,
            systemic_s=systemic,
        )

    def blood(self, bolus: Bolus, last_s: float) -> Blood:
        """Blood curves from 0 to last_s, every STEP_S.

        Activity goes round and round: each pass adds what the pass before sent back, until nothing comes any more.
        """
        infused = bolus.rate(sample_times(last_s))
        per_s = self.output_ml_min / 60.0
        arriving, total = infused, np.zeros((3, len(infused)))
        for _ in range(SYSTEMIC_PASSES):
            right = transit(arriving, self.right_s, 3)
            lung = transit(right, self.lung_s / 2, 2)
            left = transit(transit(lung, self.lung_s / 2, 2), self.left_s, 1)
            total += np.stack([right, lung, left])
            arriving = self._returned(left)
            if arriving.sum() < 1e-9 * total[2].sum():
                break
        return Blood(*(part / per_s for part in total))

    def _returned(self, left: Array) -> Array:
        """Bq/s that come back of Bq/s that leave the left heart: neither kept nor still under way."""
        per_s = self.output_ml_min / 60.0
        concentration = left / per_s
        returned = left.copy()
        for organ in (MYOCARDIUM, *ORGANS.values()):
            volume_ml = organ.reference_ml * self.body
            k1, k2 = self.uptake * organ.k1, self.uptake * organ.k1 / organ.volume
            held = tissue(k1, k2, concentration)
            returned += volume_ml / 60.0 * (k2 * held - k1 * concentration)
        return transit(returned, self.systemic_s, 2)
