"""What the engine can be told, and what is wrong with it. Imports nothing heavy: rules are checked in the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engines.contract import Json, Quantity, Slot
from engines.parameters import Known

METHODS = ("fixed", "percent", "percist")
CONNECTIVITIES = (18, 26)
MOST_LESIONS = 65535  # a label is a uint16

INPUTS: Mapping[str, Slot] = MappingProxyType(
    {
        "pet": Slot("PT", Quantity.SUVBW, frozenset({"static"})),
        "ct": Slot("CT", Quantity.HU, frozenset({"static"}), optional=True),
    }
)

DEFAULTS: Mapping[str, Json] = MappingProxyType(
    {
        "method": "fixed",
        "threshold_suv": 4.0,  # Barrington 2021, J Nucl Med 62:332: fixed SUV ≥ 4.0 for total tumour burden
        "percent": 41.0,  # Krak 2005, EJNMMI 32:294; Boellaard 2015, EJNMMI 42:328
        "seed_suv": 2.5,  # Paulino & Johnstone 2004, Int J Radiat Oncol Biol Phys 59:4
        "min_volume_ml": 0.5,
        "connectivity": 26,
        "max_lesions": 500,
    }
)

# name → (lowest, highest); both ends are allowed.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "threshold_suv": (0.1, 1000.0),
        "percent": (1.0, 99.0),
        "seed_suv": (0.1, 1000.0),
        "min_volume_ml": (0.0, 1000.0),
        "max_lesions": (1, MOST_LESIONS),
    }
)


KNOWN = Known(DEFAULTS, RANGES, {"method": METHODS, "connectivity": CONNECTIVITIES})
