"""Reading what strangers sent, in child processes that may die of it.

The parent writes one JSON request per line, a child answers each with one JSON line, in order; several requests are
under way at once so that neither waits for the other. A child limits its own memory, opens no files for writing and
ends with its parent. What a child does stands in `dicom_io.reader`, a program of its own that takes a third of a second
to load what it needs; a command that has loaded that already, and is one thread, may make do with copies of itself.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dicom_io.errors import UnreadableObject
from dicom_io.forked import Forked, has_one_thread

if TYPE_CHECKING:
    from dicom_io.commitment import Statement
    from dicom_io.elements import Limits
    from dicom_io.headers import Reading
    from dicom_io.sameness import Sameness
    from dicom_io.survey import Survey
    from engines.contract import Json

Process = subprocess.Popen[bytes] | Forked

UNDER_WAY = 8
"""Requests sent ahead: enough to keep a child busy, and their lines fit into a pipe, so that writing never waits."""
NAP_S = 0.001
"""Children that have enough to do are left alone so long: then one waking of the parent serves several answers."""
START_S = 60.0
OUT_OF_MEMORY = 77
"""Exit status of a child that needed more memory than it may have."""
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def difference(before: dict[str, Json], now: dict[str, Json]) -> Json:
    """What must be told of a header to whoever knows the one before: new and changed values, and what is gone.

    Slices of one series say nearly the same; telling it once saves time and, in the parent, memory.
    """
    own = {keyword: value for keyword, value in now.items() if keyword not in before or before[keyword] != value}
    return {"own": own, "gone": [keyword for keyword in before if keyword not in now]}


def together(before: dict[str, Json], told: Json) -> dict[str, Json]:
    """The header that `difference` was made of; it shares its values with the one before."""
    header: dict[str, Json] = {**before, **told["own"]}
    for keyword in told["gone"]:
        del header[keyword]
    return header


class Sandbox:
    """A context manager around the children; for one thread, like the pipes it holds.

    memory_bytes : address space of a child (RLIMIT_AS); an object may need several times its own size
    timeout_s : time for one object
    children : how many read at the same time
    copies : children may be copies of this process, as long as it is one thread; of theirs, memory_bytes is what they
        ask for beyond it

    A child that dies, hangs or asks for too much memory is replaced, and the object it worked on is blamed; whoever
    dies is given a second child first, since the kernel may have killed it for somebody else's sake.
    """

    def __init__(
        self,
        memory_bytes: int,
        timeout_s: float,
        limits: Limits | None = None,
        *,
        children: int = 1,
        copies: bool = False,
    ) -> None:
        settings = {
            "memory_bytes": memory_bytes,
            "parent": os.getpid(),
            "limits": asdict(limits) if limits is not None else {},
        }
        self._children = [_Child(settings, timeout_s, copies=copies) for _ in range(children)]

    def __enter__(self) -> Self:
        for child in self._children:
            child.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children:
            child.stop()

    def read(self, path: Path) -> Reading:
        """`headers.read` in a child.

        Raises
        ------
        UnreadableObject
            What `headers.read` raises; reader-died, reader-timeout, reader-memory.
        """
        answer = next(iter(self.read_many([path])))
        if isinstance(answer, UnreadableObject):
            raise answer
        return answer

    def read_many(self, paths: Iterable[Path]) -> Iterator[Reading | UnreadableObject]:
        """`headers.read` of each path, in their order; the error in place of a reading that could not be made."""
        from dicom_io.headers import Reading

        for answer in self._answers({"read": [str(path)]} for path in paths):
            yield answer if isinstance(answer, UnreadableObject) else Reading.from_json(answer)

    def survey_many(self, paths: Iterable[Path]) -> Iterator[Survey | UnreadableObject]:
        """`survey.survey` of each path, in their order; errors as in `read_many`."""
        from dicom_io.survey import Survey

        for answer in self._answers({"survey": [str(path)]} for path in paths):
            yield answer if isinstance(answer, UnreadableObject) else Survey.from_json(answer)

    def compare(self, path_a: Path, path_b: Path) -> Sameness:
        """`sameness.compare` in a child; errors as in `read`."""
        from dicom_io.sameness import Sameness

        answer = next(iter(self._answers(iter([{"compare": [str(path_a), str(path_b)]}]))))
        if isinstance(answer, UnreadableObject):
            raise answer
        return Sameness.from_json(answer)

    def read_statement(self, path: Path) -> Statement:
        """`commitment.read` in a child; errors as in `read`."""
        from dicom_io.commitment import Statement

        answer = next(iter(self._answers(iter([{"statement": [str(path)]}]))))
        if isinstance(answer, UnreadableObject):
            raise answer
        return Statement.from_json(answer)

    def _answers(self, requests: Iterator[Json]) -> Iterator[Json | UnreadableObject]:
        """Answers in the order of the requests."""
        early: dict[int, Json | UnreadableObject] = {}
        expected = 0
        try:
            for number, answer in self._served(enumerate(requests)):
                early[number] = answer
                while expected in early:
                    yield early.pop(expected)
                    expected += 1
        finally:
            for child in self._children:
                if child.waiting:  # nobody will fetch the answers that are still to come
                    child.stop()

    def _served(self, requests: Iterator[tuple[int, Json]]) -> Iterator[tuple[int, Json | UnreadableObject]]:
        """(number of the request, its answer) as they come."""
        while True:
            self._hand_out(requests)
            busy = [child for child in self._children if child.waiting]
            if not busy:
                return
            if all(len(child.waiting) == UNDER_WAY for child in busy):
                sleep(NAP_S)
            ready, late = _awaited(busy)
            for child in ready:
                yield from child.answers()
            for child in late:
                yield from child.given_up()

    def _hand_out(self, requests: Iterator[tuple[int, Json]]) -> None:
        """One request to each child in turn, for as long as one has room."""
        shares: dict[_Child, list[tuple[int, Json]]] = {child: [] for child in self._children if child.room}
        while roomy := [child for child, share in shares.items() if child.room > len(share)]:
            dealt = list(zip(roomy, requests, strict=False))
            for child, request in dealt:
                shares[child].append(request)
            if len(dealt) < len(roomy):
                break
        for child, share in shares.items():
            child.ask(share)


class _Child:
    """One child process, replaced when it is lost, and the requests it has not answered yet, oldest first."""

    def __init__(self, settings: Json, timeout_s: float, *, copies: bool) -> None:
        self.waiting: deque[tuple[int, Json]] = deque()
        self.deadline = 0.0
        """Monotonic time by which the oldest request must be answered."""
        self._settings = settings
        self._copies = copies
        self._timeout_s = timeout_s
        self._process: Process | None = None
        self._received: list[bytes] = []
        self._header: dict[str, Json] = {}
        self._has_second_chance = False
        self._is_starting = False

    @property
    def process(self) -> Process:
        """The running child, started where there is none."""
        return self._process or self.start()

    @property
    def room(self) -> int:
        """How much more it may be asked; an object that killed its child stays alone with the next one."""
        return max(0, (1 if self._has_second_chance else UNDER_WAY) - len(self.waiting))

    def ask(self, requests: Sequence[tuple[int, Json]]) -> None:
        """Send numbered requests."""
        was_idle = not self.waiting
        self.waiting.extend(requests)
        self._send([request for _, request in requests])
        if was_idle:
            self._set_deadline()

    def answers(self) -> Iterator[tuple[int, Json | UnreadableObject]]:
        """What can be read at once; of a child that ended, why the oldest request has no answer."""
        part = os.read(_descriptor(self.process), 1 << 18)
        if not part:
            yield from self._lost(self._obituary())
            return
        self._received.append(part)
        if b"\n" not in part:
            return
        *lines, rest = b"".join(self._received).split(b"\n")
        self._received = [rest]
        for line in lines:
            self._is_starting = False
            self._set_deadline()
            if line:  # an empty one says that it has started
                self._has_second_chance = False
                yield self.waiting.popleft()[0], self._opened(json.loads(line))

    def given_up(self) -> Iterator[tuple[int, UnreadableObject]]:
        """The oldest request, which took too long."""
        message = f"reading the object took longer than {self._timeout_s:g} s"
        yield from self._lost(UnreadableObject(message, code="reader-timeout"))

    def _opened(self, answer: Json) -> Json | UnreadableObject:
        if "ok" not in answer:
            return UnreadableObject(answer["message"], code=answer["code"])
        found = answer["ok"]
        if "header" in found:
            found["header"] = self._header = together(self._header, found["header"])
        return found

    def start(self) -> Process:
        """Start the process; `stop` ends it."""
        self._header, self._is_starting = {}, True
        self._process = self._copied() if self._copies and has_one_thread() else self._executed()
        return self._process

    def _copied(self) -> Forked:
        from dicom_io.reader import serve_as_copy

        return Forked(partial(serve_as_copy, self._settings))

    def _executed(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")])),
            "OPENBLAS_NUM_THREADS": "1",  # every thread of a numerical library reserves address space
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dicom_io.reader", json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            stderr=subprocess.DEVNULL,  # pydicom's warnings quote header values
            env=environment,
        )

    def stop(self) -> None:
        """End the process and forget what it was asked."""
        self.waiting.clear()
        self._end()

    def _lost(self, reason: UnreadableObject) -> Iterator[tuple[int, UnreadableObject]]:
        """Replace the process and ask again, without the object that is to blame."""
        self._has_second_chance = reason.code == "reader-died" and not self._has_second_chance
        blamed = None if self._has_second_chance else self.waiting.popleft()
        self._end()
        self._send([request for _, request in self.waiting])
        self._set_deadline()
        if blamed is not None:
            yield blamed[0], reason

    def _set_deadline(self) -> None:
        """Time for one object begins now; what a busy machine takes to start a program is not the object's fault."""
        self.deadline = monotonic() + self._timeout_s + (START_S if self._is_starting else 0.0)

    def _send(self, requests: Sequence[Json]) -> None:
        """Write requests; a child that is gone is noticed when its answer is awaited."""
        lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        pipe = self.process.stdin
        try:
            if pipe and lines:
                pipe.write(lines)
        except BrokenPipeError:
            return

    def _obituary(self) -> UnreadableObject:
        status = self.process.wait()
        if status == OUT_OF_MEMORY:
            message = f"reading the object needed more than {self._settings['memory_bytes']} bytes of memory"
            return UnreadableObject(message, code="reader-memory")
        return UnreadableObject(f"reader process ended with status {status}", code="reader-died")

    def _end(self) -> None:
        process, self._process, self._received = self._process, None, []
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        process.wait()


def _awaited(busy: Sequence[_Child]) -> tuple[list[_Child], list[_Child]]:
    """Wait for an answer, an end or a deadline; the children that said something, and those that are late."""
    poll = select.poll()
    by_descriptor = {_descriptor(child.process): child for child in busy}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    patience_s = max(0.0, min(child.deadline for child in busy) - monotonic())
    ready = [by_descriptor[descriptor] for descriptor, _ in poll.poll(patience_s * 1000.0)]
    now = monotonic()
    return ready, [child for child in busy if child not in ready and child.deadline <= now]


def _descriptor(process: Process) -> int:
    if process.stdout is None:
        raise ValueError("a child is started with a pipe for its answers")
    return process.stdout.fileno()
