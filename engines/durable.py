"""A file that is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """A file under a passing name, durable, then under its own: there is never half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        passing = Path(file.name)
        try:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            passing.replace(path)
        finally:
            passing.unlink(missing_ok=True)
