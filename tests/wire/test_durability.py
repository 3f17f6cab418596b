"""0x0000 means that the bytes survive a power cut: seen from outside, in the system calls of the listener.

strace writes down what every process of a real listener asks of the kernel while DCMTK or pynetdicom sends to it. The
same checker is run on listeners whose flushes do nothing, and has to notice each of them.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from tests.processes import program, wait_until
from tests.wire.listening import Listening, associated, data_set_of, encoded, pet_slice

OBJECTS = 5
CALLS = "openat,write,fdatasync,fsync,rename,renameat,renameat2,sendto"


@dataclass(frozen=True)
class Call:
    """One system call of one thread: `file` is the path or socket that its first descriptor stands for."""

    thread: int
    name: str
    file: str
    text: str
    succeeded: bool


def calls(trace: str) -> list[Call]:
    """The calls of an `strace -f -y`, in the order in which they began."""
    begun: dict[int, str] = {}
    lines = []
    for line in trace.splitlines():
        thread, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            begun[int(thread)] = text.removesuffix("<unfinished ...>")
            lines.append((int(thread), ""))
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            place = max(index for index, (owner, rest) in enumerate(lines) if owner == int(thread) and not rest)
            lines[place] = (int(thread), begun.pop(int(thread)) + resumed[1])
        else:
            lines.append((int(thread), text))
    parsed = []
    for thread_id, text in lines:
        if match := re.match(r"(\w+)\((?:\d+<([^>]*)>)?", text):
            succeeded = not re.search(r"= -1 E", text)
            parsed.append(Call(thread_id, match[1], match[2] or "", text, succeeded))
    return parsed


def faults(trace: str) -> list[str]:
    """What is wrong with the way in which objects were stored; empty when every answer came after every flush."""
    found: list[str] = []
    renamed = 0
    by_thread: dict[int, list[Call]] = {}
    for call in calls(trace):
        by_thread.setdefault(call.thread, []).append(call)
    for thread_calls in by_thread.values():
        for index, call in enumerate(thread_calls):
            if call.name.startswith("rename") and re.search(r"/spool/inbox/[^\"]*\.dcm\"", call.text):
                renamed += 1
                found += _faults_around(thread_calls, index)
    return found if renamed == OBJECTS else [*found, f"{renamed} objects came into the inbox, not {OBJECTS}"]


def _faults_around(thread_calls: list[Call], rename: int) -> Iterator[str]:
    """An object's own calls: since the last answer before its rename, until the first one after it."""
    part = re.findall(r'"([^"]*\.part)"', thread_calls[rename].text)[0]
    before, after = thread_calls[:rename], thread_calls[rename + 1 :]
    on_part = [call.name for call in before if call.file == part and call.succeeded]
    if "write" not in on_part:
        yield "nothing was written"
    if not on_part or on_part[-1] != "fdatasync":
        yield "the file was not flushed after its last byte and before its rename"
    answers = [index for index, call in enumerate(after) if call.name == "sendto"]
    until_answer = after[: answers[0]] if answers else []
    if not answers:
        yield "no answer"
    if not any(call.name == "fsync" and call.file.endswith("/spool/inbox") and call.succeeded for call in until_answer):
        yield "the folder was not flushed between the rename and the answer"


@contextmanager
def traced(folder: Path, *options: str, patch: str = "") -> Iterator[tuple[Listening, Path]]:
    """A listener under strace, and the file that the trace goes to."""
    trace = folder / "trace.txt"
    folder.mkdir(exist_ok=True)
    wrapper = [program("strace"), "-f", "-y", "-e", f"trace={CALLS}", *options, "-o", str(trace)]
    with Listening(folder / "node", wrapper=wrapper, patch=patch) as node:
        yield node, trace


def trace_of_a_sending(folder: Path, patch: str = "") -> str:
    with traced(folder, patch=patch) as (node, trace):
        with associated(node.port) as association:
            for index in range(OBJECTS):
                assert association.send_c_store(pet_slice(index, 200_000)).Status == 0
        assert len(node.inbox) == OBJECTS
        node.ended()
    return trace.read_text()


def test_every_answer_comes_after_both_flushes(tmp_path: Path) -> None:
    trace = trace_of_a_sending(tmp_path)
    assert faults(trace) == []
    # One answer per object, one A-ASSOCIATE-AC, one A-RELEASE-RP: nothing was said too early either.
    assert sum(call.name == "sendto" for call in calls(trace)) == OBJECTS + 2


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        ("import os\nos.fdatasync = lambda descriptor: None", "the file was not flushed"),
        ("import os\nos.fsync = lambda descriptor: None", "the folder was not flushed"),
    ],
)
def test_the_checker_notices_a_flush_that_does_nothing(tmp_path: Path, patch: str, fault: str) -> None:
    found = faults(trace_of_a_sending(tmp_path, patch))
    assert len(found) == OBJECTS
    assert all(each.startswith(fault) for each in found)


@pytest.mark.parametrize(("call", "when"), [("fdatasync", 4), ("fsync", 4), ("rename", 5)])
def test_a_flush_that_fails_once_is_a_lost_object_and_is_not_tried_again(tmp_path: Path, call: str, when: int) -> None:
    # strace counts each thread's own calls. The association's thread makes each of them once per object, after one
    # rename for its file in run/; no other thread makes as many.
    with traced(tmp_path, "-e", f"inject={call}:error=EIO:when={when}") as (node, trace):
        with associated(node.port) as association:
            answers = [association.send_c_store(pet_slice(index)) for index in range(5)]
        assert [answer.Status for answer in answers] == [0, 0, 0, 0xA700, 0]
        assert answers[3].ErrorComment == "could not be written durably"
        kept = [pydicom.dcmread(path).SOPInstanceUID for path in node.inbox]
        assert kept == [pet_slice(index).SOPInstanceUID for index in (0, 1, 2, 4)]
        assert node.tmp == []
        [event] = node.events("not-stored")
        assert event["fault"].startswith("EIO ")
    failed = [each for each in calls(trace.read_text()) if each.name == call and not each.succeeded]
    assert len(failed) == 1


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose spool is a file system of 3 MB."""
    spool = tmp_path / "node" / "data" / "spool"
    spool.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(spool)]
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system of 3 MB")
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system of 3 MB: {mounted.stderr.strip()}")
    yield tmp_path / "node"
    subprocess.run(["umount", "--lazy", str(spool)], check=True)


def test_a_disk_that_fills_while_we_write_loses_nothing_and_recovers(small_disk: Path) -> None:
    """No mark warns before: the write itself fails."""
    slices = [pet_slice(index, 640_000) for index in range(8)]
    with Listening(small_disk, limits={"free_bytes_min": 1}) as node:
        with associated(node.port) as association:
            answers = [association.send_c_store(dataset) for dataset in slices]
            # 3 MB = 3 145 728 bytes hold four objects of 640 kB and their headers, not five.
            assert [answer.Status for answer in answers] == [0] * 4 + [0xA700] * 4
            assert answers[-1].ErrorComment == "not enough free disk space"
            assert node.tmp == []
            assert [data_set_of(path.read_bytes()) for path in node.inbox] == [encoded(each) for each in slices[:4]]
            assert association.send_c_echo().Status == 0
            node.inbox[0].unlink()
            assert association.send_c_store(slices[4]).Status == 0
        assert len(node.inbox) == 4
        ended = node.ended()[0]
        assert (ended["stored"], ended["refused"], ended["outcome"]) == (5, 4, "released")


def test_a_disk_below_the_mark_refuses_before_writing(small_disk: Path) -> None:
    with Listening(small_disk) as node, associated(node.port) as association:
        assert association.send_c_store(pet_slice(0, 4096)).Status == 0xA700
        assert node.inbox == node.tmp == []


def test_a_defect_of_ours_costs_one_object(tmp_path: Path) -> None:
    patch = """
import os
def broken(descriptor):
    os.fdatasync = real
    raise RuntimeError("Secret^Patient")
real, os.fdatasync = os.fdatasync, broken
"""
    with Listening(tmp_path, patch=patch) as node:
        with associated(node.port) as association:
            assert association.send_c_store(pet_slice(0)).Status == 0xC211
            assert node.inbox == node.tmp == []
            assert association.send_c_store(pet_slice(0)).Status == 0
        wait_until(lambda: len(node.inbox) == 1, 5)
        [event] = node.events("not-stored")
        assert event["fault"].startswith("RuntimeError sitecustomize.py:")
        assert "Secret" not in node.log.read_text()
