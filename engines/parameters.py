"""What is wrong with the parameters of an engine, in words. Imports nothing heavy: rules are checked in the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from engines.contract import Json


@dataclass(frozen=True)
class Known:
    """The parameters an engine takes.

    defaults : every name, with its default; a whole number where that is one
    ranges : lowest and highest value, both allowed; choices : the only values
    """

    defaults: Mapping[str, Json]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Json]] = field(default_factory=dict)

    def faults(self, given: Mapping[str, Json]) -> list[str]:
        """Every fault, one sentence each; a name that is not given takes its default."""
        named = ", ".join(self.defaults)
        faults = [f"{name}: unknown, expected one of {named}" for name in given if name not in self.defaults]
        for name, value in given.items():
            if name in self.choices:
                faults += self._not_chosen(name, value)
            elif name in self.ranges:
                faults += self._out_of_range(name, value)
        return faults

    def _not_chosen(self, name: str, value: Json) -> list[str]:
        choices = self.choices[name]
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return []
        words = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
        expected = " or ".join(words) if len(words) == 2 else f"one of {', '.join(words)}"
        return [f"{name}: expected {expected}, got {value!r}"]

    def _out_of_range(self, name: str, value: Json) -> list[str]:
        lowest, highest = self.ranges[name]
        whole = isinstance(self.defaults[name], int)
        proper = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if proper and isfinite(value) and lowest <= value <= highest:
            return []
        kind = "a whole number" if whole else "a number"
        return [f"{name}: expected {kind} from {lowest:g} to {highest:g}, got {value!r}"]
