"""What a quantity is called in coded words: concept, UCUM unit, and the Units of a PET image (PS3.3 C.8.9.1.1.3).

Concepts are those of PS3.16 CID 7180, units those of CID 7181. K1 and k2 (Innis et al., J Cereb Blood Flow Metab 2007)
have no code there: Ktrans and kep of contrast agents (126312, 126313) are defined for the extravascular extracellular
space, which a tracer that enters the cells does not keep to. They get codes of our own, with the meaning in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from engines.contract import FloatArray, Quantity

PRIVATE_SCHEME: Final = "99TRACERD"
ML_PER_MIN_PER_G: Final = Code("ml/min/g", "UCUM", "Milliliter/minute/gram")
PER_MIN: Final = Code("/min", "UCUM", "/min")
K1: Final = Code("K1", PRIVATE_SCHEME, "Rate constant K1, plasma to tissue")
K2: Final = Code("k2", PRIVATE_SCHEME, "Rate constant k2, tissue to plasma")
MFR: Final = Code("MFR", PRIVATE_SCHEME, "Myocardial flow reserve")
"""Of tissue, by PET: 122217 Coronary Flow Reserve is measured in an artery."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A quantity in coded words.

    name : short, as people say it
    pet_units : Units (0054,1001)
    window : what such images are usually looked at in, in the quantity's unit; None: up to the highest value
    """

    name: str
    concept: Code
    unit: Code
    pet_units: str
    window: tuple[float, float] | None


MEANINGS: Final[Mapping[Quantity, Meaning]] = MappingProxyType(
    {
        Quantity.SUVBW: Meaning(
            "SUVbw", codes.DCM.Suvbw, codes.cid85.StandardizedUptakeValueBodyWeight, "GML", (0.0, 10.0)
        ),
        Quantity.ACTIVITY_BQML: Meaning(
            "Activity", codes.DCM.NuclearMedicineTomographicActivity, codes.UCUM.BecquerelsPerMilliliter, "BQML", None
        ),
        Quantity.K1: Meaning("K1", K1, ML_PER_MIN_PER_G, "MLMING", (0.0, 3.0)),
        Quantity.K2: Meaning("k2", K2, PER_MIN, "MLMINML", (0.0, 1.0)),
        Quantity.MBF: Meaning("MBF", codes.DCM.AbsoluteRegionalBloodFlow, ML_PER_MIN_PER_G, "MLMING", (0.0, 4.0)),
    }
)
"""Every quantity of a PET image. k2 in mL/min per mL of tissue is 1/min."""
KINETIC: Final = frozenset({Quantity.K1, Quantity.K2, Quantity.MBF})
"""Computed from a series over time, and images of one time themselves."""


def derivation_code(quantity: Quantity) -> Code:
    """CID 7203 has perfusion analysis for kinetic maps, and nothing for what an engine does to an image otherwise."""
    kinetic: Code = codes.cid7203.PerfusionImageAnalysis
    other: Code = codes.DCM.UnspecifiedMethodOfCalculation
    return kinetic if quantity in KINETIC else other


def window_of(array: FloatArray, quantity: Quantity) -> tuple[float, float]:
    """Lowest and highest value shown, at least 1 apart (PS3.3 C.11.2.1.2.1), whatever the slope of a slice."""
    return MEANINGS[quantity].window or (0.0, max(1.0, float(np.max(array))))
