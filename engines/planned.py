"""Engines that are announced but not in this version.

A rule may name one already: it is checked like any other, its studies are recognised, and each job is
rejected as no-engine. Under a version that has the engine `tracerd jobs rerun` computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from engines.contract import Json, Products, Quantity, Slot, Volume
from engines.errors import NoEngine

_PET = Slot("PT", Quantity.SUVBW)
_FRAMES = frozenset({"dynamic"})


@dataclass(eq=False)
class Planned:
    """An engine of which only name and inputs are known; it computes nothing."""

    name: str
    inputs: Mapping[str, Slot]
    version: str = "0"
    weights_sha256: str | None = None
    defaults: Mapping[str, Json] = field(default_factory=dict)

    def check(self, parameters: Mapping[str, Json]) -> list[str]:
        """Nobody knows yet which parameters it will take: none may be given."""
        return [f"{name}: {self.name} is not in this version, its parameters are not known" for name in parameters]

    def __call__(
        self,
        volumes: Mapping[str, Volume],  # noqa: ARG002 - the contract's signature
        parameters: Mapping[str, Json],  # noqa: ARG002
        should_stop: Callable[[], bool],  # noqa: ARG002
    ) -> Products:
        """Always NoEngine."""
        raise self.absence()

    def absence(self) -> NoEngine:
        """Why there is no result."""
        return NoEngine(f"no engine: {self.name} is not in this version of tracerd")


PLANNED: Mapping[str, Planned] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            Planned("psma_detection", {"pet": _PET, "ct": Slot("CT", Quantity.HU, optional=True)}),
            Planned(
                "rb82_denoising",
                {
                    "rest": Slot("PT", Quantity.ACTIVITY_BQML, _FRAMES),
                    "stress": Slot("PT", Quantity.ACTIVITY_BQML, _FRAMES, optional=True),
                },
            ),
            Planned("lowcount_denoising", {"pet": _PET}),
            Planned("ctless_attenuation", {"pet": Slot("PT", Quantity.ACTIVITY_BQML)}),
        )
    }
)
