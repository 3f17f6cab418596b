"""How well the left ventricle is supplied with blood: at rest, under a vasodilator, and where vessels are narrowed.

Ranges are those of the published normal flows of Rb-82 and O-15 water PET (Lortie 2007; Prior 2012, Eur J Nucl Med Mol
Imaging 39:1037): 0.6 to 1.2 mL/min/g at rest, 1.8 to 4 under stress in supplied myocardium.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.simulation.heart import TERRITORIES

Array = NDArray[np.float64]
State = Literal["rest", "stress"]
HEALTHY_MBF: Mapping[State, tuple[float, float, float, float]] = {
    "rest": (0.85, 0.16, 0.6, 1.2),
    "stress": (2.7, 0.55, 1.8, 4.0),
}
"""mL/min/g: mean, standard deviation between patients, lowest, highest."""
NUMBER_OF_DEFECTS = (0.4, 0.4, 0.2)
"""Share of patients with none, one, two."""
KINDS = ("reversible", "fixed", "mixed")
KIND_SHARES = (0.5, 0.3, 0.2)
BORDER_MM = 2.5


@dataclass(frozen=True)
class Defect:
    """A part of the wall that gets less blood.

    segment : AHA segment that it lies in the middle of; radius_mm : to where half of the loss is left
    rest, stress : share of the healthy flow that its middle gets
    """

    segment: int
    radius_mm: float
    rest: float
    stress: float

    @property
    def territory(self) -> str:
        """The coronary artery."""
        return next(name for name, segments in TERRITORIES.items() if self.segment in segments)

    @classmethod
    def draw(cls, territory: str, rng: np.random.Generator) -> Defect:
        """A random one: reversible (stress alone), fixed (a scar), or both."""
        segment = int(rng.choice(TERRITORIES[territory]))
        radius_mm = round(float(rng.uniform(14.0, 34.0)), 1)
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
        scar, narrowing = float(rng.uniform(0.3, 0.65)), float(rng.uniform(0.3, 0.7))
        rest = 1.0 if kind == "reversible" else scar
        stress = {"reversible": narrowing, "fixed": scar, "mixed": scar * narrowing**0.5}[kind]
        return cls(segment, radius_mm, round(rest, 3), round(stress, 3))


@dataclass(frozen=True)
class Perfusion:
    """One patient's flow.

    mbf : healthy myocardium by state [mL/min/g]; segments : factor of each AHA segment, 17 about 1
    """

    mbf: Mapping[State, float]
    segments: tuple[float, ...] = (1.0,) * 17
    defects: tuple[Defect, ...] = ()

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Perfusion:
        """A random patient of those who are sent to a perfusion PET."""
        mbf = {state: _within(rng, *limits) for state, limits in HEALTHY_MBF.items()}
        factors = rng.normal(1.0, 0.03, 17)
        for segments in TERRITORIES.values():
            factors[np.asarray(segments) - 1] *= rng.normal(1.0, 0.04)
        number = int(rng.choice(len(NUMBER_OF_DEFECTS), p=NUMBER_OF_DEFECTS))
        territories = rng.choice(list(TERRITORIES), number, replace=False)
        return cls(mbf, tuple(factors.tolist()), tuple(Defect.draw(str(name), rng) for name in territories))

    def flow(self, places: Array, segments: NDArray[np.uint8], state: State) -> Array:
        """MBF [mL/min/g] at places (n, 3) of the myocardium in these segments, 1 to 17."""
        flow = self.mbf[state] * np.asarray(self.segments)[segments - 1]
        for defect in self.defects:
            middle = places[segments == defect.segment].mean(axis=0)
            away = np.linalg.norm(places - middle, axis=1)
            loss = 1.0 - (defect.rest if state == "rest" else defect.stress)
            flow *= 1.0 - loss / (1.0 + np.exp((away - defect.radius_mm) / BORDER_MM))
        return np.asarray(flow)


def _within(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
    """A normal number that lies between the limits."""
    while not low <= (number := rng.normal(mean, sd)) <= high:
        pass
    return round(float(number), 3)
