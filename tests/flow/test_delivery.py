"""Destinations that are down, refuse, or break off: nothing is lost, everything is visible, and it is tried again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, SegmentationStorage

from tests import make
from tests.flow.running import FDG_RULE, RunningNode, gone
from tests.peers import Sender, StoreScp
from tests.processes import free_port, wait_until
from tests.proxy import RecordingProxy


def deliveries(node: RunningNode) -> list[tuple[str, str | None, int]]:
    return node.rows("select state, status_hex, tries from delivery order by id")


@contextmanager
def answering(port: int, statuses: list[int]) -> Iterator[list[int]]:
    """An SCP that answers with the last of `statuses`, which the test may change; yields what it answered."""
    answered: list[int] = []

    def answer(_: evt.Event) -> int:
        answered.append(statuses[-1])
        return statuses[-1]

    ae = AE("ORTHANC")
    for sop_class in (SegmentationStorage, Comprehensive3DSRStorage):
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    try:
        yield answered
    finally:
        server.shutdown()


def test_a_destination_that_is_down_gets_everything_when_it_comes_back(tmp_path: Path):
    pacs = StoreScp(tmp_path / "pacs")
    study = make.study(tmp_path / "study", seed=31, pet_shape=(16, 24, 24))
    with RunningNode(tmp_path / "node", pacs.port) as node:
        Sender(node.port).send(study.pet)
        wait_until(lambda: [row for row in deliveries(node) if row[2] >= 2], 30)
        shown = node.json("jobs", "show", "1")["deliveries"]
        assert all(row["state"] in {"queued", "sending"} for row in shown)
        assert any(row["reason"] for row in shown), "why it is not delivered is visible"
        with pacs:
            node.wait_delivered(2, timeout=30)
            assert len(pacs.files()) == 2


def test_a_destination_that_breaks_off_gets_the_same_bytes_again(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=32, pet_shape=(16, 24, 24))
    with StoreScp(tmp_path / "pacs") as pacs, RecordingProxy(("127.0.0.1", pacs.port)) as proxy:
        proxy.cut_after(2, "before response")
        with RunningNode(tmp_path / "node", proxy.port) as node:
            Sender(node.port).send(study.pet)
            node.wait_delivered(2, timeout=30)
        stores = proxy.stores()
        contents = {(store.sop_instance_uid, store.data_set_sha256) for store in stores if store.data_set_sha256}
        assert len(stores) >= 3
        assert len(contents) == 2
        assert len(pacs.files()) == 2


def test_a_refusal_is_final_until_a_person_retries(tmp_path: Path):
    port, statuses = free_port(), [0xA900]
    study = make.study(tmp_path / "study", seed=33, pet_shape=(16, 24, 24))
    with answering(port, statuses) as answered, RunningNode(tmp_path / "node", port) as node:
        Sender(node.port).send(study.pet)
        wait_until(lambda: [row[:2] for row in deliveries(node)] == [("failed", "A900")] * 2, 30)
        time.sleep(1.0)
        assert answered == [0xA900, 0xA900], "a permanent refusal was tried again"
        statuses.append(0x0000)
        node.command("jobs", "retry", "1")
        node.wait_delivered(2, timeout=30)


def test_out_of_resources_is_tried_again_with_growing_pauses(tmp_path: Path):
    port, statuses = free_port(), [0xA700]
    study = make.study(tmp_path / "study", seed=34, pet_shape=(16, 24, 24))
    with answering(port, statuses), RunningNode(tmp_path / "node", port) as node:
        Sender(node.port).send(study.pet)
        wait_until(lambda: [row for row in deliveries(node) if row[1] == "A700" and row[2] >= 3], 30)
        statuses.append(0x0000)
        node.wait_delivered(2, timeout=30)


def test_originals_are_passed_on_byte_for_byte(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=37, pet_shape=(16, 24, 24))
    rule = {**FDG_RULE, "forward": "originals"}
    with StoreScp(tmp_path / "pacs") as pacs, RecordingProxy(("127.0.0.1", pacs.port)) as proxy:
        with (
            RunningNode(tmp_path / "node", proxy.port, rules=[rule]) as node,
            RecordingProxy(("127.0.0.1", node.port)) as inside,
        ):
            Sender(inside.port).send(study.pet)
            node.wait_delivered(18, timeout=40)
            came = {store.sop_instance_uid: store.data_set_sha256 for store in inside.stores()}
        went = {store.sop_instance_uid: store.data_set_sha256 for store in proxy.stores()}
    assert len(came) == 16
    assert {uid: went[uid] for uid in came} == came


def test_results_wait_for_a_person_where_the_destination_says_so(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=35, pet_shape=(16, 24, 24))
    release = {"release": "by-person"}
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port, destination=release) as node:
        Sender(node.port).send(study.pet)
        node.wait_for_jobs(1, {"done"})
        assert [row[0] for row in deliveries(node)] == ["held", "held"]
        node.command("jobs", "release", "1", "--because", "looked at")
        node.wait_delivered(2, timeout=30)


def test_sigterm_while_running_loses_nothing_and_counts_nothing(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=36, pet_shape=(120, 128, 128))
    with StoreScp(tmp_path / "pacs") as pacs, RunningNode(tmp_path / "node", pacs.port) as node:
        Sender(node.port).send(study.pet)
        wait_until(lambda: [job for job in node.jobs() if job["state"] == "running"], 30, every=0.005)
        processes = node.processes()
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 30
        wait_until(lambda: gone(processes), 5)
        (job,) = node.jobs()
        assert (job["state"], job["attempts"], job["interruptions"]) in {("waiting", 0, 0), ("done", 1, 0)}
        node.start()
        node.wait_delivered(2, timeout=60)
        assert len(pacs.files()) == 2
