"""What the engine can be told. Imports nothing heavy: rules are checked in the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engines.contract import Json, Quantity, Slot
from engines.parameters import Known

MOST_LESIONS = 65535  # a label is a uint16

INPUTS: Mapping[str, Slot] = MappingProxyType(
    {
        "pet": Slot("PT", Quantity.SUVBW, frozenset({"static"})),
        "ct": Slot("CT", Quantity.HU, frozenset({"static"}), optional=True),
    }
)

DEFAULTS: Mapping[str, Json] = MappingProxyType(
    {
        "threshold": 0.4,  # of the probability of tumour; this and what follows were chosen on fdg-tune
        "overlap": 0.5,  # of neighbouring windows, as in the paper
        "mirroring": False,  # also left and right exchanged, at twice the time
        "min_volume_ml": 0.5,
        "min_confidence": 0.75,  # of a lesion: the mean probability of its voxels
        "connectivity": 18,  # as AutoPET counts lesions
        "max_lesions": 500,
        "without_ct": "refuse",  # a PET without a CT that belongs to it: refuse, or pet-only
    }
)

KNOWN = Known(
    DEFAULTS,
    ranges={
        "threshold": (0.01, 0.99),
        "overlap": (0.0, 0.75),
        "min_volume_ml": (0.0, 1000.0),
        "min_confidence": (0.0, 1.0),
        "max_lesions": (1, MOST_LESIONS),
    },
    choices={"mirroring": (False, True), "connectivity": (18, 26), "without_ct": ("refuse", "pet-only")},
)
