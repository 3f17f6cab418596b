"""The reading child: right answers in order, and one bad file costs one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pydicom
import pytest

from dicom_io import headers, sameness
from dicom_io.errors import UnreadableObject
from dicom_io.headers import Reading
from dicom_io.sandbox import UNDER_WAY, Sandbox, difference, together
from tests import make

MEMORY_BYTES = 2**30
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(20, 8, 8)).pet


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def child_pid(sandbox: Sandbox) -> int:
    return sandbox._children[0].process.pid


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A file whose reading never ends: somebody has it open who could still write."""
    path = tmp_path / "fifo.dcm"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    yield path
    os.close(writer)


def has_open(pid: int, path: Path) -> bool:
    """Looked at from outside: opening a FIFO to find out would change what its reader sees."""
    try:
        return str(path) in {os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # the process is ending, or closed one of them meanwhile
        return False


def code(answer: Reading | UnreadableObject) -> str:
    return answer.code if isinstance(answer, UnreadableObject) else "read"


def test_answers_are_those_of_the_functions(slices: list[Path]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        assert sandbox.read(slices[0]) == headers.read(slices[0])
        assert sandbox.compare(slices[0], slices[1]) == sameness.compare(slices[0], slices[1])
        assert [answer.header for answer in sandbox.read_many(slices) if isinstance(answer, Reading)] == [
            headers.read(path).header for path in slices
        ]
        assert list(sandbox.read_many([])) == []


def test_a_refusal_keeps_its_code_and_its_place(slices: list[Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(slices[0].read_bytes()[:-9])
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        answers = list(sandbox.read_many([slices[0], cut, tmp_path / "absent.dcm", slices[1]]))
        pid = child_pid(sandbox)
        with pytest.raises(UnreadableObject) as caught:
            sandbox.read(cut)
        assert child_pid(sandbox) == pid, "a refusal costs no child"
    assert [code(answer) for answer in answers] == ["read", "truncated", "unreadable-file", "read"]
    assert caught.value.code == "truncated"


def test_a_hanging_file_alone_is_blamed(slices: list[Path], fifo: Path) -> None:
    started = time.monotonic()
    with Sandbox(MEMORY_BYTES, 1.0) as sandbox:
        paths = [*slices[:2], fifo, *slices[2:15]]
        answers = list(sandbox.read_many(paths))
    assert [code(answer) for answer in answers] == ["read"] * 2 + ["reader-timeout"] + ["read"] * 13
    assert time.monotonic() - started < 5.0


def test_a_file_that_needs_too_much_memory_alone_is_blamed(slices: list[Path], tmp_path: Path) -> None:
    huge = tmp_path / "huge.dcm"
    huge.write_bytes(slices[0].read_bytes())
    os.truncate(huge, 400 * 2**20)
    with Sandbox(400 * 2**20, 10.0) as sandbox:
        answers = list(sandbox.read_many([slices[0], huge, *slices[1:12]]))
    assert [code(answer) for answer in answers] == ["read", "reader-memory"] + ["read"] * 11


def test_a_file_that_kills_its_reader_twice_alone_is_blamed(slices: list[Path], fifo: Path) -> None:
    """The reader is killed whenever it is at the FIFO, as a crash of its parser would."""
    killed: list[int] = []

    def kill_readers() -> None:
        while len(killed) < 2:
            until(lambda: any(has_open(child.pid, fifo) for child in psutil.Process().children()))
            killed.extend(child.pid for child in psutil.Process().children() if has_open(child.pid, fifo))
            os.kill(killed[-1], signal.SIGKILL)
            until(lambda: not has_open(killed[-1], fifo))

    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        killer = threading.Thread(target=kill_readers)
        killer.start()
        answers = list(sandbox.read_many([*slices[:3], fifo, *slices[3:]]))
        killer.join()
    assert [code(answer) for answer in answers] == ["read"] * 3 + ["reader-died"] + ["read"] * (len(slices) - 3)
    assert len(set(killed)) == 2


def test_a_reader_killed_by_somebody_else_costs_nothing(slices: list[Path]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        for path in slices[:3]:
            assert sandbox.read(path).sop_class_uid
            os.kill(child_pid(sandbox), signal.SIGKILL)


def test_answers_nobody_fetched_do_not_reach_the_next_question(slices: list[Path]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        answers = sandbox.read_many(slices)
        assert next(iter(answers)) == headers.read(slices[0])
        answers.close()  # type: ignore[attr-defined] # a generator
        assert sandbox.read(slices[-1]) == headers.read(slices[-1])


def test_more_files_than_are_under_way_at_once(slices: list[Path]) -> None:
    many = slices * 3
    assert len(many) > 3 * UNDER_WAY
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        uids = [answer.sop_instance_uid for answer in sandbox.read_many(many) if isinstance(answer, Reading)]
    assert uids == [headers.read(path).sop_instance_uid for path in many]


def test_leaving_ends_the_child(slices: list[Path]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        sandbox.read(slices[0])
        pid = child_pid(sandbox)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("busy", [False, True])
def test_the_child_dies_with_its_parent(slices: list[Path], fifo: Path, *, busy: bool) -> None:
    """Also while it hangs in a file and never looks at its pipe again."""
    path = fifo if busy else slices[0]
    script = (
        "import sys; from pathlib import Path; from dicom_io.sandbox import Sandbox\n"
        "with Sandbox(2**30, 60.0) as sandbox:\n"
        "    print(sandbox._children[0].process.pid, flush=True)\n"
        "    sandbox.read(Path(sys.argv[1])); input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if busy:
        until(lambda: has_open(child.pid, path))
    parent.kill()
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_the_child_cannot_write_files_and_says_nothing(slices: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0) as sandbox:
        sandbox.read(slices[0])
        limits = psutil.Process(child_pid(sandbox)).rlimit
        assert limits(psutil.RLIMIT_FSIZE) == (0, 0)
        assert limits(psutil.RLIMIT_CORE) == (0, 0)
        assert limits(psutil.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
    assert capfd.readouterr() == ("", "")


# Several children, and children that are copies of their parent


def test_several_children_answer_in_the_order_of_the_questions(slices: list[Path], tmp_path: Path, fifo: Path) -> None:
    """Also while one of them hangs: what the others answered waits for its turn."""
    paths = [*slices, fifo, *slices, tmp_path / "absent.dcm", *slices]
    with Sandbox(MEMORY_BYTES, 1.5, children=3) as sandbox:
        answers = list(sandbox.read_many(paths))
        pids = {child.process.pid for child in sandbox._children}
    expected = {path: headers.read(path) for path in slices}
    told = [answer.code if isinstance(answer, UnreadableObject) else answer for answer in answers]
    wanted = [expected.get(path, "reader-timeout" if path.name == "fifo.dcm" else "unreadable-file") for path in paths]
    assert told == wanted
    assert len(pids) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_survey_has_the_header_of_a_reading(slices: list[Path]) -> None:
    with Sandbox(MEMORY_BYTES, 10.0, children=2) as sandbox:
        surveys = list(sandbox.survey_many(slices))
    for found, path in zip(surveys, slices, strict=True):
        assert not isinstance(found, UnreadableObject)
        pixels = pydicom.dcmread(path).pixel_array
        assert found.header == headers.read(path).header
        assert [list(frame) for frame in found.extremes or ()] == [[pixels.min(), pixels.max()]]


def test_a_header_is_told_by_its_difference() -> None:
    before = {"Rows": 2, "Units": "BQML", "ImageType": ["ORIGINAL"]}
    now = {"Rows": 2, "ImageType": ["DERIVED"], "Columns": None}
    assert difference(before, now) == {"own": {"ImageType": ["DERIVED"], "Columns": None}, "gone": ["Units"]}
    assert together(before, difference(before, now)) == now
    assert together({}, difference({}, now)) == now


COPIES = """
import json, os, sys
from pathlib import Path
from dicom_io.errors import UnreadableObject
from dicom_io.forked import Forked
from dicom_io.sandbox import Sandbox
import psutil
good, bad = map(Path, sys.argv[1:3])
def code(answer):
    return answer.code if isinstance(answer, UnreadableObject) else "read"
with Sandbox(400 * 2**20, 1.0, children=2, copies=True) as sandbox:
    children = [child.process for child in sandbox._children]
    assert all(isinstance(child, Forked) for child in children)
    print(json.dumps([child.pid for child in children]), flush=True)
    print(json.dumps([code(answer) for answer in sandbox.read_many([good] * 20 + sorted(bad.iterdir()) + [good] * 20)]))
    os.kill(sandbox._children[0].process.pid, 9)
    print(json.dumps([code(answer) for answer in sandbox.read_many([good] * 20)]), flush=True)
    running = [psutil.Process(child.process.pid) for child in sandbox._children]
    limits = [child.rlimit(psutil.RLIMIT_FSIZE) for child in running]
    print(json.dumps([limits, [child.num_fds() for child in running]]), flush=True)
    if sys.argv[3:]:
        input()
"""


def copying(*arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", COPIES, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_copies_of_the_parent_read_and_die_as_programs_do(slices: list[Path], tmp_path: Path, fifo: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    fifo.rename(bad / "1 hangs")
    (bad / "2 huge").write_bytes(slices[0].read_bytes())
    os.truncate(bad / "2 huge", 450 * 2**20)
    (bad / "3 cut").write_bytes(slices[0].read_bytes()[:-9])
    out, err = copying(slices[0], bad).communicate(timeout=60)
    pids, read, after_a_kill, (limits, descriptors) = map(json.loads, out.splitlines())
    assert err == ""
    assert read == ["read"] * 20 + ["reader-timeout", "reader-memory", "truncated"] + ["read"] * 20
    assert after_a_kill == ["read"] * 20
    assert limits == [[0, 0]] * 2
    assert descriptors == [3, 3]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_copies_end_with_their_parent(slices: list[Path], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    parent = copying(slices[0], tmp_path / "none", "wait")
    assert parent.stdout is not None
    pids = json.loads(parent.stdout.readline())
    for _ in range(3):
        parent.stdout.readline()
    children = [child for child in psutil.Process(parent.pid).children() if child.pid in pids]
    assert children
    parent.kill()
    parent.wait()
    for child in children:
        until(lambda child=child: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)  # type: ignore[misc]


def test_a_process_of_several_threads_is_not_copied(slices: list[Path]) -> None:
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        with Sandbox(MEMORY_BYTES, 10.0, copies=True) as sandbox:
            assert isinstance(sandbox._children[0].process, subprocess.Popen)
            assert sandbox.read(slices[0]) == headers.read(slices[0])
    finally:
        waiting.set()
        thread.join()
