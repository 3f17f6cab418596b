"""Storage commitment for what scanners sent us: the bytes are read again before anybody may delete a copy.

The scanner is pynetdicom with a server of its own, on which it hears our reports.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    PositronEmissionTomographyImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from daemon.ask import call
from daemon.commands import CannotDo
from tests import make
from tests.flow.liars import Archive
from tests.flow.running import FDG_RULE, RunningNode, gone
from tests.peers import Sender, sop_instance_uid
from tests.processes import free_port, wait_until

PET = PositronEmissionTomographyImageStorage
SLICES = 6


@dataclass
class Scanner:
    """Asks for storage commitment and hears the reports."""

    node_port: int
    aet: str = "PETCT1"
    port: int = field(default_factory=free_port)
    reports: dict[str, Dataset] = field(default_factory=dict)

    def __enter__(self) -> Self:
        entity = AE(self.aet)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._hear)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()

    def _hear(self, event: evt.Event) -> tuple[int, None]:
        report = event.event_information
        report.kind = event.event_type
        self.reports[str(report.TransactionUID)] = report
        return 0x0000, None

    def ask(self, instances: list[tuple[str, str]], transaction_uid: str | None = None, action: int = 1) -> Any:
        """The status of the request, and its Transaction UID."""
        request = Dataset()
        request.TransactionUID = transaction_uid or generate_uid()
        request.ReferencedSOPSequence = [reference(*instance) for instance in instances]
        with self._association() as association:
            status, _ = association.send_n_action(
                request, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        return status.get("Status"), str(request.TransactionUID)

    @contextmanager
    def _association(self) -> Iterator[Any]:
        entity = AE(self.aet)
        entity.add_requested_context(StorageCommitmentPushModel)
        association = entity.associate("127.0.0.1", self.node_port, ae_title="TRACERD")
        assert association.is_established
        yield association
        association.release()

    def verdicts(self, instances: list[tuple[str, str]], transaction_uid: str | None = None) -> dict[str, int | None]:
        """Ask, wait for the report: SOP Instance UID → failure reason, None for "committed"."""
        self.reports.pop(transaction_uid or "", None)
        status, transaction_uid = self.ask(instances, transaction_uid)
        assert status == 0x0000
        report = wait_until(lambda: self.reports.get(transaction_uid), 30)
        kept = {str(item.ReferencedSOPInstanceUID): None for item in report.get("ReferencedSOPSequence", [])}
        failed = {
            str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.get("FailedSOPSequence", [])
        }
        assert report.kind == (2 if failed else 1)
        return kept | failed


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


@dataclass
class World:
    node: RunningNode
    scanner: Scanner
    instances: list[tuple[str, str]]

    def stored(self, uid: str) -> Path:
        ((path,),) = self.node.rows("select path from instance where sop_uid = ? and state = 'current'", uid)
        return self.node.data / path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("vouch")
    study = make.study(folder / "study", seed=81, pet_shape=(SLICES, 24, 24))
    node_port = free_port()
    with Scanner(node_port) as scanner:
        peer = {
            "name": "room 1",
            "ae_title": scanner.aet,
            "addresses": ["127.0.0.1"],
            "report_to": {"host": "127.0.0.1", "port": scanner.port, "retry": {"first_s": 0.3, "max_s": 1}},
        }
        with RunningNode(folder / "node", 1, rules=(), settings={"peers": [peer]}, port=node_port) as node:
            assert len(Sender(node.port).send(study.pet).acknowledged) == SLICES
            yield World(node, scanner, [(PET, sop_instance_uid(path)) for path in study.pet])


def test_what_was_just_sent_is_committed(world: World):
    """The request comes at once after the last C-STORE, when most of the study lies in the inbox unread."""
    expected = dict.fromkeys([uid for _, uid in world.instances])
    assert world.scanner.verdicts(world.instances) == expected


def test_each_instance_gets_its_own_answer(world: World):
    unknown, (_, other_class), sound = generate_uid(), world.instances[0], world.instances[1]
    asked = [(PET, unknown), (CTImageStorage, other_class), sound]
    assert world.scanner.verdicts(asked) == {unknown: 0x0112, other_class: 0x0119, sound[1]: None}


def test_one_flipped_bit_on_the_disk_is_noticed(world: World):
    damaged, missing, sound = world.instances[2:5]
    path = world.stored(damaged[1])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    world.stored(missing[1]).unlink()
    assert world.scanner.verdicts([damaged, missing, sound]) == {damaged[1]: 0x0110, missing[1]: 0x0110, sound[1]: None}
    assert "stored-objects-damaged" in world.node.log.read_text()
    noted = world.node.rows("select data from event where reason = 'damaged' order by subject_id")
    assert len(noted) == 2


def test_a_copy_that_contradicts_the_stored_one_is_not_vouched_for(world: World, tmp_path: Path):
    asked = world.instances[5]
    dataset = pydicom.dcmread(world.stored(asked[1]))
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(tmp_path / "other.dcm", enforce_file_format=True)
    Sender(world.node.port).send([tmp_path / "other.dcm"])
    assert world.scanner.verdicts([asked]) == {asked[1]: 0x0110}


def test_a_request_that_is_repeated_is_answered_again_and_a_reused_transaction_is_refused(world: World):
    first, second = world.instances[:2]
    transaction_uid = generate_uid()
    assert world.scanner.verdicts([first], transaction_uid) == {first[1]: None}
    assert world.scanner.verdicts([first], transaction_uid) == {first[1]: None}
    assert world.scanner.verdicts([second], transaction_uid) == {second[1]: 0x0131}


def test_a_scanner_that_is_down_hears_it_later(world: World):
    first = world.instances[0]
    with Scanner(world.node.port, port=free_port()):
        world.scanner._server.shutdown()
        status, transaction_uid = world.scanner.ask([first])
        assert status == 0x0000
        wait_until(lambda: "report-not-delivered" in world.node.log.read_text(), 30)
        world.scanner.__enter__()
        wait_until(lambda: transaction_uid in world.scanner.reports, 30)


def test_who_has_no_address_for_reports_is_refused_at_once(world: World):
    stranger = Scanner(world.node.port, aet="STRANGER")
    assert stranger.ask(world.instances)[0] == 0x0124
    assert world.scanner.ask(world.instances, action=2)[0] == 0x0123


def test_a_request_that_cannot_be_read_is_quarantined(world: World):
    before = world.node.rows("select count(*) from quarantine")[0][0]
    assert world.scanner.ask([])[0] == 0x0000  # no references at all
    wait_until(lambda: world.node.rows("select count(*) from quarantine")[0][0] == before + 1, 20)
    assert world.node.rows("select code from quarantine order by id desc limit 1") == [("no-references",)]
    assert not [path for path in (world.node.data / "spool" / "inbox").iterdir() if path.suffix == ".action"]


def order(node: RunningNode, route: str, **body: str) -> Any:
    """What the command line says to the running node, without the time it takes to start it."""
    return call(node.data / "run" / "control.sock", "POST", route, {"actor": "test", **body})


def test_a_pause_and_a_request_outlive_the_node(tmp_path: Path):
    """kill -9 while a report is awaited and another destination is paused; then resume, resend, and a late report."""
    study = make.study(tmp_path / "study", seed=82, pet_shape=(SLICES, 24, 24))
    late, paused, spare = Archive(report="new"), Archive(), Archive()
    node_port = free_port()
    late.node_port = node_port
    with late, paused, spare:
        late.may_report.clear()
        common = {"host": "127.0.0.1", "ae_title": "ARCHIVE", "retry": {"first_s": 0.2, "max_s": 1}}
        proving = {"same_association_s": 0.3, "report_s": 600}
        destinations = {
            "late": {**common, "port": late.port, "proof": "committed", "proving": proving},
            "paused": {**common, "port": paused.port},
            "spare": {**common, "port": spare.port},
        }
        rule = {**FDG_RULE, "send_to": ["late", "paused"]}
        with RunningNode(
            tmp_path / "node", 1, rules=[rule], settings={"destinations": destinations}, port=node_port
        ) as node:
            node.command("destinations", "pause", "paused", "--because", "update")
            with pytest.raises(CannotDo, match="paused already"):
                order(node, "/destinations/paused/pause")
            Sender(node.port).send(study.pet)
            wait_until(lambda: late.requests, 60)
            processes = node.kill()
            wait_until(lambda: gone(processes), 5)
            node.start()
            late.may_report.set()
            states = "select destination, state from delivery order by 1, 2"
            expected = [("late", "committed")] * 2 + [("paused", "queued")] * 2
            wait_until(lambda: node.rows(states) == expected, 30)
            assert len(late.requests) == 1, "asked twice though the report was on its way"
            assert paused.stored == []
            listed = {row["name"]: row["paused"] for row in node.json("destinations", "list")}
            assert listed == {"late": False, "paused": True, "spare": False}
            order(node, "/destinations/paused/resume")
            wait_until(lambda: len(paused.held) == 2, 30)
            node.command("jobs", "resend", "1", "--to", "spare")
            wait_until(lambda: len(spare.held) == 2, 30)
            order(node, "/jobs/1/resend", to="late")
            wait_until(lambda: len(late.stored) == 4, 30)
            assert len(late.held) == 2 and len(paused.stored) == 2
            with pytest.raises(CannotDo, match="no destination 'nowhere'"):
                order(node, "/jobs/1/resend", to="nowhere")
