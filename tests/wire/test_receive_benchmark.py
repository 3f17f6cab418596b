"""The benchmark's own instruments: what it calls a flush, a run and a part of the time must be what happened."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks.machine import REPOSITORY, file_system, provenance, sha256_of_files
from benchmarks.speed import growth, receive_load, syscalls
from benchmarks.speed.breakdown import parts, refuse_undurable, spool_alone, trace, watch
from benchmarks.speed.receive import README, run
from benchmarks.speed.receivers import RECEIVERS, Site
from benchmarks.speed.series import write_series
from benchmarks.speed.tables import for_readme
from tests.processes import Server, free_port

BY_NAME = {receiver.name: receiver for receiver in RECEIVERS}
# Does exactly 3 × (create, write, fdatasync, rename, fsync of the folder), once in a thread, and listens.
PROGRAM = """
import os, socket, sys, threading
folder, port = sys.argv[1], int(sys.argv[2])
def store(number):
    file = os.open(f"{folder}/{number}.part", os.O_WRONLY | os.O_CREAT)
    os.write(file, bytes(1000))
    os.fdatasync(file)
    os.rename(f"{folder}/{number}.part", f"{folder}/{number}.dcm")
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.close(file)
store(1)
store(2)
thread = threading.Thread(target=store, args=(3,))
thread.start()
thread.join()
with socket.create_server(("127.0.0.1", port)):
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("series") / "PT", "PT", 5, seed=1)


def test_calls_are_counted_by_what_they_touch(tmp_path: Path) -> None:
    folder, log, port = tmp_path / "kept", tmp_path / "strace.log", free_port()
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder), str(port)]
    server = Server("program", command, port, tmp_path / "program.log", syscalls.wrapper(log))
    server.start()
    server.stop()
    tallies = syscalls.read(log, 0, log.stat().st_size)
    assert tallies["fdatasync of file"].count == 3
    assert tallies["fsync of directory"].count == 3
    assert tallies["rename, link, unlink"].count == 3
    assert tallies["write"].count == 3
    assert "fdatasync of database" not in tallies
    assert 0 < tallies["fdatasync of file"].seconds < 3


@pytest.mark.parametrize(("name", "files", "folders"), [("tracerd", 5, 5), ("Orthanc", 5, 0), ("storescp", 0, 0)])
def test_flushes_of_the_receivers(tmp_path: Path, slices: list[Path], name: str, files: int, folders: int) -> None:
    calls = trace(Site(tmp_path), BY_NAME[name], slices)["calls"]
    assert calls.get("fdatasync of file", {"count": 0})["count"] == files
    assert calls.get("fsync of directory", {"count": 0})["count"] == folders


def test_a_receiver_that_does_not_flush_is_refused() -> None:
    once, never = {"fdatasync of file": {"count": 5}, "fsync of directory": {"count": 5}}, {"write": {"count": 5}}
    refuse_undurable({"receiver": "good", "instances": 5, "calls": once})
    with pytest.raises(RuntimeError, match="0 × fdatasync of file for 5 instances"):
        refuse_undurable({"receiver": "bad", "instances": 5, "calls": never})


def test_a_run_is_measured_and_leaves_only_names(tmp_path: Path, slices: list[Path]) -> None:
    measured = run(Site(tmp_path), BY_NAME["tracerd ×2"], slices, associations=2)
    assert 0 < measured.seconds < 10
    assert measured.sender_cpu_s > 0
    left = list(tmp_path.rglob("*.dcm"))
    assert len(left) == 5
    assert sum(path.stat().st_size for path in left) == 0


def test_the_parts_of_the_time_are_within_the_whole(tmp_path: Path, slices: list[Path]) -> None:
    stores = watch(Site(tmp_path), BY_NAME["tracerd"], slices)
    whole_ms = (stores[-1].response_began.monotonic - stores[0].request_began.monotonic) * 1e3  # type: ignore[union-attr]  # all answered
    medians = parts([stores])
    assert all(0 <= value < whole_ms for value in medians.values())
    alone = spool_alone(Site(tmp_path), slices)
    assert alone["commit_ms"] > 0


def test_same_seed_same_bytes(tmp_path: Path, slices: list[Path]) -> None:
    again = write_series(tmp_path / "again", "PT", 5, seed=1)
    other = write_series(tmp_path / "other", "PT", 5, seed=2)
    assert sha256_of_files(again) == sha256_of_files(slices)
    assert sha256_of_files(other) != sha256_of_files(slices)
    # 200 × 200 voxels of 2 bytes and less than 2 KiB of header
    assert 80_000 < slices[0].stat().st_size < 82_000


def test_provenance_names_the_kind_of_machine_and_not_the_machine(tmp_path: Path) -> None:
    said = provenance(tmp_path, packages=["pydicom"], programs={"python": [sys.executable, "--version"]})
    assert said["machine"]["cores"] == os.cpu_count()
    assert said["machine"]["file_system"] == file_system(Path("/")) or tmp_path.stat().st_dev != Path("/").stat().st_dev
    assert said["versions"]["pydicom"].startswith("3.")
    assert os.uname().nodename not in str(said)
    assert str(tmp_path) not in str(said)


@pytest.mark.parametrize(
    ("name", "table"),
    [("receive", for_readme), ("receive_load", receive_load.for_readme), ("growth", growth.for_readme)],
)
def test_the_table_of_the_readme_is_that_of_the_result_file(name: str, table: Callable[[dict[str, Any]], str]):
    result = json.loads((REPOSITORY / "benchmarks" / "results" / f"{name}.json").read_text())
    assert table(result) in README.read_text()


def test_fairness_is_told_from_the_names_in_the_inbox() -> None:
    """Three associations: one arrives every 10 ns, one every 10 ns but late, one every 30 ns."""
    names = [f"{1000 + 10 * n}-a-1-0-{n}.dcm" for n in range(9)]
    names += [f"{1005 + 10 * n}-b-1-1-{n}.dcm" for n in range(9)]
    names += [f"{1001 + 30 * n}-c-1-2-{n}.dcm" for n in range(3)]
    slowest, share = receive_load.fairness(sorted(names))
    assert slowest == pytest.approx(3.0)
    assert share == pytest.approx(2 / 4)  # 4, 4 and 2 of the first half


def test_a_changed_data_set_is_noticed(tmp_path: Path, slices: list[Path]) -> None:
    receive_load.refuse_altered(slices, reversed(slices))
    content = bytearray(slices[0].read_bytes())
    content[-1] ^= 1
    (tmp_path / "altered.dcm").write_bytes(content)
    for kept in ([tmp_path / "altered.dcm", *slices[1:]], slices[1:], [*slices, slices[0]]):
        with pytest.raises(RuntimeError, match="not those that were sent"):
            receive_load.refuse_altered(slices, kept)


def test_a_large_object_is_a_dicom_file(tmp_path: Path, slices: list[Path]) -> None:
    large = pydicom.dcmread(receive_load.write_large(tmp_path / "large.dcm", slices[0], 3, seed=1))
    assert large.pixel_array.shape == (3, 1024, 512)
