"""How much more memory a process takes at its highest than before: the kernel's own mark, so no moment is missed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

RESET_PEAK = "5"
"""proc_pid_clear_refs(5): the peak begins anew at what is resident now."""


class Growth:
    """Of one process, while the block runs; `bytes` afterwards."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self.bytes = 0

    def __enter__(self) -> Self:
        (self._folder / "clear_refs").write_text(RESET_PEAK)
        self._before = self._read("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        match = re.search(rf"^{name}:\s+(\d+) kB$", (self._folder / "status").read_text(), re.MULTILINE)
        assert match is not None
        return 1024 * int(match[1])
