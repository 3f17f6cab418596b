"""What every command shares: its usual options, JSON on standard output, complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from config.settings import Settings

FAILED, WRONG = 1, 2
"""Exit status of a command that could not do its work, and of one that was used or configured wrongly."""

Config = Annotated[Path, typer.Option("--config", "-c", help="The node's configuration.", metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of text.")]

Item = TypeVar("Item")

NODE_YAML = Path("node.yaml")

EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "config.load": "ConfigError",
        "daemon.opening": "UnusableDataFolder",
        "daemon.commands": "CannotDo",
        "daemon.demo_pages": "DemoFailed",
        "db.errors": "DatabaseError",
        "dicom_io.errors": "DicomError",
        "engines.errors": "EngineError",
    }
)
"""Module → base of the errors that are told in words; every other exception is a defect and keeps its traceback."""


def expected_errors() -> tuple[type[BaseException], ...]:
    """The classes of `EXPECTED` that can have been raised: those of modules that were loaded. And what files do."""
    loaded = [getattr(sys.modules[module], name) for module, name in EXPECTED.items() if module in sys.modules]
    return (*loaded, OSError)


def complain(error: BaseException) -> int:
    """Say on standard error what is wrong and what would help; returns the exit status."""
    faults = getattr(error, "faults", None)
    if faults is not None:
        sys.stderr.write(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the configuration:\n")
        sys.stderr.writelines(f"  {plain(fault)}\n" for fault in faults)
        return WRONG
    words = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    sys.stderr.write(f"tracerd: {plain(words) or type(error).__name__}\n")
    if hint := getattr(error, "hint", ""):
        sys.stderr.write(f"  {plain(hint)}\n")
    return FAILED


def plain(value: object) -> str:
    """A value as printable text: nothing for None, yes or no; what could steer a terminal is replaced."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "".join(c if c.isprintable() else "·" for c in str(value))


def print_json(document: Any) -> None:
    """One JSON document, the only thing on standard output."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def watched(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    """The items as they pass, with a progress bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)


def read_settings(config: Path) -> Settings:
    """The node's settings.

    Raises
    ------
    config.load.ConfigError
        With every fault.
    """
    from config.load import load

    return load(config)
