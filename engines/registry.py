"""Every engine by name. Listing names costs nothing: an engine's code is imported when its factory is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from engines.contract import Engine
from engines.errors import UnknownEngine
from engines.planned import PLANNED, Planned


def _threshold_segmentation(device: str | None = None) -> Engine:  # noqa: ARG001 - numpy knows no other device
    from engines.threshold_segmentation.infer import ThresholdSegmentation

    return ThresholdSegmentation()


def _fdg_segmentation(weights: Path | None = None, device: str | None = None) -> Engine:
    from engines.fdg_segmentation.infer import SHIPPED, FdgSegmentation

    return FdgSegmentation(weights or SHIPPED, device)


ENGINES: Mapping[str, Callable[..., Engine]] = MappingProxyType(
    {"fdg_segmentation": _fdg_segmentation, "threshold_segmentation": _threshold_segmentation}
)


def names() -> list[str]:
    """Every name a rule may use, announced engines included."""
    return sorted([*ENGINES, *PLANNED])


def is_planned(name: str) -> bool:
    """Whether the engine is announced but not in this version."""
    return name in PLANNED and name not in ENGINES


def engine(name: str, weights: Path | None = None, device: str | None = None) -> Engine:
    """The engine of that name; of an announced one, what is known of it.

    weights : to use instead of those it is shipped with; only factories of engines that learn take them
    device : "cpu" or "cuda", where a learned engine computes; None = the first GPU where there is one

    Raises
    ------
    UnknownEngine
        With the names there are and the nearest one.
    """
    if name in ENGINES:
        given = {"weights": weights, "device": device}
        return ENGINES[name](**{key: value for key, value in given.items() if value is not None})
    if name in PLANNED:
        return PLANNED[name]
    near = get_close_matches(name, names(), n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise UnknownEngine(f"engine {name!r}: expected one of {', '.join(names())}{meant}")


def runnable(name: str, weights: Path | None = None, device: str | None = None) -> Engine:
    """The engine of that name, to run it; as `engine`.

    Raises
    ------
    UnknownEngine
        As `engine`.
    NoEngine
        It is not in this version.
    """
    method = engine(name, weights, device)
    if isinstance(method, Planned):
        raise method.absence()
    return method
