"""kill -9 of the node in every state it can be in, on real studies: nothing lost, nothing sent twice in other bytes.

The test freezes the node (SIGSTOP), looks at its folders, its database and what the proxies saw, and kills it only if
it really is in the state that is wanted. Nothing inside the node knows about the test.
"""

import hashlib
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil
import pydicom
import pytest

from tests.flow import sarcoma
from tests.flow.running import FDG_RULE, RunningNode, gone
from tests.peers import Orthanc, Sender
from tests.processes import free_port, wait_until
from tests.proxy import RecordingProxy

RULE = {**FDG_RULE, "parameters": {"method": "fixed", "threshold_suv": 2.5}}
KILLS_PER_STATE = 2
GONE_WITHIN_S = 5.0


class Witness:
    """Looks at a node from outside and says in which state it is."""

    def __init__(self, node: RunningNode, outside: RecordingProxy) -> None:
        self.node = node
        self.outside = outside
        self.seen: set[str] = set()

    def receiving(self) -> bool:
        return any(path.stat().st_size > 0 for path in (self.node.data / "spool" / "tmp").glob("*.part"))

    def linked_not_committed(self) -> bool:
        new = {path.name for path in (self.node.data / "store").rglob("*.dcm")} - self.seen
        rows = {Path(path).name for (path,) in self.node.rows("select path from instance where job_id is null")}
        self.seen |= rows
        return bool(new - rows)

    def running(self) -> bool:
        return any(not self.manifest_of(job).exists() for job in self.running_jobs())

    def manifest_written(self) -> bool:
        return any(self.manifest_of(job).exists() for job in self.running_jobs())

    def sending(self) -> bool:
        return bool(self.in_flight() - self.answered_uids())

    def answered_not_recorded(self) -> bool:
        return bool(self.in_flight() & self.answered_uids())

    def running_jobs(self) -> list[tuple[int, int]]:
        query = (
            "select job_id, max(n) from attempt where job_id in (select id from job where state = 'running') group by 1"
        )
        return [(job, n) for job, n in self.node.rows(query)]

    def manifest_of(self, job: tuple[int, int]) -> Path:
        return self.node.data / "results" / str(job[0]) / str(job[1]) / "manifest.json"

    def in_flight(self) -> set[str]:
        query = (
            "select sop_uid from instance join delivery on instance.id = instance_id where delivery.state = 'sending'"
        )
        return {uid for (uid,) in self.node.rows(query)}

    def answered_uids(self) -> set[str]:
        return {store.sop_instance_uid for store in self.outside.stores() if store.status == 0}


STATES = ["receiving", "linked_not_committed", "running", "manifest_written", "sending", "answered_not_recorded"]


def freeze_and_kill(node: RunningNode, in_state: Callable[[], bool], timeout: float) -> list[psutil.Process] | None:
    """Freeze the node whenever it seems to be in the state; kill it when, frozen, it is."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not in_state():
            time.sleep(0.0005)
            continue
        processes = node.processes()
        signal_all(processes, signal.SIGSTOP)
        if in_state():
            node.kill()
            signal_all(processes, signal.SIGCONT)
            return processes
        signal_all(processes, signal.SIGCONT)
    return None


def signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass


@pytest.mark.slow
def test_twelve_kills_lose_nothing_and_send_nothing_twice_in_other_bytes(tmp_path: Path):
    studies = [sarcoma.files(study) for study in sarcoma.studies()]
    left = list(studies)
    hits: Counter[str] = Counter()
    unacknowledged: list[Path] = []
    # a study of which half arrived before a kill must still be waited for after it
    waits = {"quiet_s": 2, "quiet_other_s": 3, "maximum_wait_s": 600}
    settings = {"execute": {"interruptions": 50, "attempts": 3}, "assemble": waits}
    with Orthanc(tmp_path / "orthanc") as pacs, RecordingProxy(("127.0.0.1", pacs.dicom_port)) as outside:
        node = RunningNode(tmp_path / "node", outside.port, rules=[RULE], settings=settings)
        with RecordingProxy(("127.0.0.1", node.port)) as inside, node:
            witness = Witness(node, outside)
            for state in STATES * KILLS_PER_STATE:
                outside.hold_response(0.5 if state == "answered_not_recorded" else None)
                transmission = Sender(inside.port, associations=2).start([*unacknowledged, *left.pop()])
                processes = freeze_and_kill(node, getattr(witness, state), timeout=60)
                assert processes is not None, f"the node was never seen {state}; kills so far: {dict(hits)}"
                hits[state] += 1
                wait_until(lambda processes=processes: gone(processes), GONE_WITHIN_S)
                unacknowledged = transmission.wait(60).unacknowledged
                node.start()
            print(f"\nkills: {dict(hits)}")
            outside.hold_response(None)
            rest = [*unacknowledged, *(path for study in left for path in study)]
            assert Sender(inside.port, associations=4, shuffle_seed=1).send(rest).unacknowledged == []
            node.wait_delivered(40, timeout=240)
            node.wait_for_jobs(20, {"done"})
            check_orthanc(pacs, tmp_path / "received")
            check_one_content_per_uid(outside)
            check_store_is_what_the_wire_carried(node, inside)
            assert node.stop() == 0
    assert all(hits[state] == KILLS_PER_STATE for state in STATES)
    assert sum(hits.values()) >= 10


def check_orthanc(pacs: Orthanc, folder: Path) -> None:
    modalities: dict[str, list[str]] = defaultdict(list)
    for path in pacs.save_all(folder):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        modalities[str(dataset.StudyInstanceUID)].append(str(dataset.Modality))
    assert len(modalities) == 20
    assert all(sorted(found) == ["SEG", "SR"] for found in modalities.values())


def check_one_content_per_uid(outside: RecordingProxy) -> None:
    contents: dict[str, set[str]] = defaultdict(set)
    sent = 0
    for store in outside.stores():
        if store.data_set_sha256 is not None:
            contents[store.sop_instance_uid].add(store.data_set_sha256)
            sent += 1
    print(f"{sent} complete sendings of {len(contents)} objects")
    assert all(len(digests) == 1 for digests in contents.values())
    assert sent > len(contents), "no object was ever sent again, so the kills while sending proved nothing"


def check_store_is_what_the_wire_carried(node: RunningNode, inside: RecordingProxy) -> None:
    wire: dict[str, set[str]] = defaultdict(set)
    for store in inside.stores():
        if store.succeeded:
            wire[store.sop_instance_uid].add(store.data_set_sha256)
    rows = node.rows("select sop_uid, path from instance where job_id is null and state = 'current'")
    kept = {uid: data_set_sha256(node.data / path) for uid, path in rows}
    missing = set(wire) - set(kept)
    assert not missing, f"{len(missing)} acknowledged instances are gone"
    assert all(kept[uid] in wire[uid] for uid in wire)
    print(f"{len(wire)} acknowledged data sets are on disk as they were on the wire")


def data_set_sha256(path: Path) -> str:
    """sha256 of the bytes behind the File Meta Information."""
    content = path.read_bytes()
    (length,) = [int.from_bytes(content[140:144], "little")]
    return hashlib.sha256(content[144 + length :]).hexdigest()


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0])
def test_a_node_that_is_killed_while_its_workers_start_leaves_no_process(tmp_path: Path, after_s: float):
    node = RunningNode(tmp_path, free_port())
    node.start()
    time.sleep(after_s)
    processes = node.kill()
    wait_until(lambda: gone(processes), GONE_WITHIN_S)


@pytest.mark.parametrize("after_s", [0.0, 1.0])
def test_a_node_may_be_stopped_while_its_workers_start(tmp_path: Path, after_s: float):
    node = RunningNode(tmp_path, free_port())
    node.start()
    assert "workers-ready" not in node.log.read_text()
    processes = node.processes()
    time.sleep(after_s)
    assert node.stop() == 0
    wait_until(lambda: gone(processes), GONE_WITHIN_S)
