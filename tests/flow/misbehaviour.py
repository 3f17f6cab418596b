"""An engine that goes wrong in every way a worker can, or makes images; registered only in the processes of a test."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from daemon import worker
from engines import registry
from engines.contract import Products, Quantity, Slot, Volume
from engines.registry import ENGINES
from engines.threshold_segmentation.infer import ThresholdSegmentation

PET = {"pet": Slot("PT", Quantity.SUVBW)}


class Misbehaving:
    """An engine whose `behave` parameter says what goes wrong."""

    name = "misbehaving"
    version = "1"
    weights_sha256 = None
    inputs: Mapping[str, Slot] = PET
    defaults: Mapping[str, Any] = {"behave": "well"}

    def check(self, parameters: Mapping[str, Any]) -> list[str]:
        return []

    def __call__(
        self, volumes: Mapping[str, Volume], parameters: Mapping[str, Any], should_stop: Callable[[], bool]
    ) -> Products:
        behaviour = parameters["behave"]
        if behaviour == "hang":
            # PyDLL keeps the interpreter lock while C sleeps: no Python thread of this process runs any more
            ctypes.PyDLL(None).sleep(1000)
        if behaviour == "eat memory":
            hoard = []
            while True:
                hoard.append(np.ones(16 * 2**20 // 8))
        if behaviour == "raise":
            raise ZeroDivisionError("patient text that must not reach the log")
        good = ThresholdSegmentation()
        products = good(volumes, good.defaults, should_stop)
        if behaviour == "make images":
            pet = volumes["pet"]
            halved = replace(pet, array=pet.array / 2)
            return replace(products, volumes={"halved": halved})
        return products


def register() -> None:
    registry.ENGINES = {**ENGINES, "misbehaving": Misbehaving}


def attempt(document: dict[str, Any]) -> dict[str, Any]:
    """What a worker runs in this test: the real attempt, with one more engine known."""
    register()
    return worker.attempt(document)
