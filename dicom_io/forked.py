"""Children that are copies of this process: there at once, since they have loaded already what their parent has loaded.

Only for a process of one thread: of several, a copy may hold locks for ever.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from engines.contract import Json


def has_one_thread() -> bool:
    """Whether this process is one thread, as the kernel sees it: numerical libraries start some of their own."""
    return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - a pseudo file system, asked often


class Forked:
    """As much of `subprocess.Popen` as `sandbox` needs, around a copy of this process that runs `work` and ends.

    work : reads requests from descriptor 0 and writes answers to descriptor 1; every other descriptor is closed
    """

    def __init__(self, work: Callable[[], None]) -> None:
        requests, to_child = os.pipe()
        from_child, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, requests, answers)
        os.close(requests)
        os.close(answers)
        self.stdin, self.stdout = FileIO(to_child, "w"), FileIO(from_child, "r")
        self._status: int | None = None

    def kill(self) -> None:
        """End it at once."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def side_by_side(work: Sequence[Callable[[], Json]], processes: int) -> list[Json]:
    """What each piece of work returns, in their order; this process does a share of them and copies of it the others.

    Results of copies come as JSON. A piece that raises does so here.
    """
    shares = [range(first, len(work), processes) for first in range(processes)]
    copies = [Forked(partial(_tell, [work[index] for index in share])) for share in shares[1:]]
    results = {index: work[index]() for index in shares[0]}
    for copy, share in zip(copies, shares[1:], strict=True):
        with copy.stdin, copy.stdout:
            told = copy.stdout.read()
        done = json.loads(told) if copy.wait() == 0 else [work[index]() for index in share]
        results |= zip(share, done, strict=True)
    return [results[index] for index in range(len(work))]


def _tell(work: Sequence[Callable[[], Json]]) -> None:
    with open(1, "wb", closefd=False) as answer:
        answer.write(json.dumps([one() for one in work]).encode())


def _become(work: Callable[[], None], requests: int, answers: int) -> Never:
    status = 1
    try:
        for descriptor, number in ((requests, 0), (answers, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        work()
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's, such as its buffers, is to be ended here


def address_space_bytes() -> int:
    """Address space that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
