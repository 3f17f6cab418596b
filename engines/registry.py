"""Every engine by name. Listing names costs nothing: an engine's code is imported when its factory is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from engines.contract import Engine
from engines.errors import UnknownEngine


def _threshold_segmentation() -> Engine:
    from engines.threshold_segmentation.infer import ThresholdSegmentation

    return ThresholdSegmentation()


ENGINES: Mapping[str, Callable[[], Engine]] = MappingProxyType({"threshold_segmentation": _threshold_segmentation})


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises
    ------
    UnknownEngine
        With the names there are and the nearest one.
    """
    if name not in ENGINES:
        near = get_close_matches(name, ENGINES, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UnknownEngine(f"engine {name!r}: expected one of {', '.join(sorted(ENGINES))}{meant}")
    return ENGINES[name]()
