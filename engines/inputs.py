"""Whether the volumes an engine was given are those it asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engines.contract import Slot, Volume
from engines.errors import CannotProcess


def check(volumes: Mapping[str, Volume], slots: Mapping[str, Slot]) -> None:
    """Every slot is filled with finite values of its quantity, or empty where that is allowed.

    Raises
    ------
    CannotProcess
        Codes "missing-input", "wrong-quantity" and "not-finite".
    """
    for name, slot in slots.items():
        volume = volumes.get(name)
        if volume is None:
            if not slot.optional:
                raise CannotProcess(f"input {name}: expected a volume, got none", code="missing-input")
            continue
        if volume.quantity is not slot.quantity:
            raise CannotProcess(
                f"input {name}: expected {slot.quantity.value}, got {volume.quantity.value}", code="wrong-quantity"
            )
        if not np.isfinite(volume.array).all():
            raise CannotProcess(f"input {name}: holds values that are not finite numbers", code="not-finite")
