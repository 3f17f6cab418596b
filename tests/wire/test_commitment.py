"""Storage commitment at the door: what is kept, what is refused, how much a peer may say; and what can be read."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, build_role
from pynetdicom.dimse_messages import N_ACTION_RQ
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_io import commitment
from dicom_io.commitment import Reference, Statement
from dicom_io.elements import Limits
from dicom_io.errors import UnreadableObject
from dicom_io.spool import Origin, file_header
from dicom_io.statuses import judge_request
from tests.processes import wait_until
from tests.wire.listening import PET, SCANNER, Listening, RawPeer, associate, associated

IMPLICIT = "1.2.840.10008.1.2"
ALLOWED = {**SCANNER, "report_to": {"host": "127.0.0.1", "port": 4008}}
CONTEXT = [build_context(StorageCommitmentPushModel, IMPLICIT)]


def request(count: int = 3) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = generate_uid()
    dataset.ReferencedSOPSequence = [item(f"1.2.{number}") for number in range(count)]
    return dataset


def item(uid: str, reason: int | None = None) -> Dataset:
    dataset = Dataset()
    dataset.ReferencedSOPClassUID, dataset.ReferencedSOPInstanceUID = PET, uid
    if reason is not None:
        dataset.FailureReason = reason
    return dataset


def ask(listening: Listening, dataset: Dataset, action: int = 1) -> Any:
    with associated(listening.port, contexts=CONTEXT) as association:
        status, _ = association.send_n_action(
            dataset, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    return status.get("Status")


def report(listening: Listening, dataset: Dataset, event_type: int = 1) -> Any:
    with associated(listening.port, contexts=CONTEXT) as association:
        status, _ = association.send_n_event_report(
            dataset, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    return status.get("Status")


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Listening(tmp_path_factory.mktemp("door"), peers=[ALLOWED]) as listening:
        yield listening


def test_requests_and_reports_are_kept_and_can_be_read(listening: Listening) -> None:
    before = set(listening.inbox)
    asked, told = request(), request(1)
    told.FailedSOPSequence = [item("1.2.9", 0x0112)]
    assert ask(listening, asked) == 0x0000
    assert report(listening, told, 2) == 0x0000
    action, event = sorted(set(listening.inbox) - before)
    assert (action.suffix, event.suffix) == (".action", ".event")
    heard = commitment.read(action, Limits())
    assert heard.transaction_uid == asked.TransactionUID
    assert heard.referenced == tuple(Reference(PET, f"1.2.{number}") for number in range(3))
    assert (heard.calling_ae, heard.called_ae) == ("PETCT1", "TRACERD")
    assert commitment.read(event, Limits()).failed == (Reference(PET, "1.2.9", 0x0112),)


@pytest.mark.parametrize("role", [{"scp_role": True}, {"scu_role": True}, {"scu_role": True, "scp_role": True}])
def test_the_role_a_peer_wants_is_granted(listening: Listening, role: dict[str, bool]) -> None:
    from pynetdicom import AE

    entity = AE("PETCT1")
    wanted = [build_role(StorageCommitmentPushModel, **role), build_role(PET, scp_role=True)]
    contexts = [*CONTEXT, build_context(PET, IMPLICIT)]
    association = entity.associate("127.0.0.1", listening.port, contexts, ae_title="TRACERD", ext_neg=wanted)
    assert association.is_established
    ours, storage = association.accepted_contexts
    association.release()
    assert (ours.as_scu, ours.as_scp) == (role.get("scu_role", False), role.get("scp_role", False))
    assert (storage.as_scu, storage.as_scp) == (True, False), "for storage we never become the user"


def test_other_actions_and_events_are_refused(listening: Listening) -> None:
    before = listening.inbox
    assert ask(listening, request(), action=2) == 0x0123
    assert report(listening, request(), event_type=3) == 0x0113
    assert listening.inbox == before


def test_a_closed_door_takes_no_requests(listening: Listening) -> None:
    before = listening.inbox
    closed = listening.data / "run" / "closed"
    closed.write_text("maintenance")
    try:
        assert ask(listening, request()) == 0x0213
    finally:
        closed.unlink()
    assert listening.inbox == before


def test_who_has_no_address_is_refused(tmp_path: Path) -> None:
    with Listening(tmp_path) as listening:
        assert ask(listening, request()) == 0x0124
        assert report(listening, request()) == 0x0000, "a report on a request of ours needs no address"
        assert [path.suffix for path in listening.inbox] == [".event"]


def test_a_request_without_end_costs_its_association(listening: Listening) -> None:
    """5 MiB where 4 MiB are the limit: cut off, and nothing of it stays."""
    before = listening.inbox
    association = associate(listening.port, contexts=CONTEXT)
    endless = request()
    endless.add_new(0x00090010, "LO", "TEST")
    endless.add_new(0x00091010, "OB", bytes(5 * 2**20))
    status, _ = association.send_n_action(endless, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    assert status.get("Status") is None
    wait_until(lambda: not association.is_established, 10)
    assert listening.inbox == before
    assert listening.tmp == []


def test_a_request_on_a_context_for_images_is_not_understood(listening: Listening) -> None:
    primitive = N_ACTION()
    primitive.MessageID = 5
    primitive.RequestedSOPClassUID, primitive.RequestedSOPInstanceUID = StorageCommitmentPushModel, "1.2.3"
    primitive.ActionTypeID = 1
    primitive.ActionInformation = BytesIO(encode(request(), True, True) or b"")
    message = N_ACTION_RQ()
    message.primitive_to_message(primitive)
    before = listening.inbox
    with RawPeer(listening.port) as peer:
        peer.associate()
        peer.send(*(bytes(P_DATA_TF(piece).encode()) for piece in message.encode_msg(3, 16384)))
        assert peer.status()[0] == 0x0211
    assert listening.inbox == before


def stored(dataset: Dataset, folder: Path) -> Path:
    path = folder / "statement.action"
    origin = Origin(StorageCommitmentPushModel, "1.2", IMPLICIT, "PETCT1", "TRACERD", "dicom:127.0.0.1:1")
    path.write_bytes(file_header(origin) + (encode(dataset, True, True) or b""))
    return path


def test_statements_that_say_nothing_are_refused(tmp_path: Path) -> None:
    nothing, nameless, odd = request(0), request(), request()
    del nameless.TransactionUID
    odd.ReferencedSOPSequence[1].ReferencedSOPInstanceUID = "../../etc/passwd"
    for dataset, code in ((nothing, "no-references"), (nameless, "no-transaction"), (odd, "illegal-uid")):
        with pytest.raises(UnreadableObject) as caught:
            commitment.read(stored(dataset, tmp_path), Limits())
        assert caught.value.code == code
        assert "passwd" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_a_mutated_statement_is_read_or_refused(tmp_path: Path, at: int, byte: int, cut: int) -> None:
    path = stored(request(5), tmp_path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content[: len(content) - cut])
    try:
        statement = commitment.read(path, Limits())
    except UnreadableObject:
        return
    assert Statement.from_json(statement.to_json()) == statement


@pytest.mark.parametrize(
    ("status", "judgement"),
    [
        (0x0000, (None, False)),
        (0x0110, ("unable-to-process", False)),
        (0x0112, ("no-such-sop-instance", True)),
        (0x0123, ("no-such-action", True)),
        (0x0124, ("not-authorised", True)),
        (0x0213, ("out-of-resources", False)),
        (0xA700, ("out-of-resources", False)),
        (0xA900, ("does-not-match-class", True)),
        (0xC001, ("unable-to-process", False)),
    ],
)
def test_status_table(status: int, judgement: tuple[str | None, bool]) -> None:
    assert judge_request(status) == judgement


def test_the_biggest_request_that_is_taken_has_room_for_a_whole_dynamic_study() -> None:
    from dicom_io.association import COMMITMENT_BYTES_MAX

    longest = Dataset()
    longest.ReferencedSOPClassUID, longest.ReferencedSOPInstanceUID = PET, "1." + "2" * 62
    encoded = len(encode(longest, True, True) or b"") + struct.calcsize("<HHL")
    assert COMMITMENT_BYTES_MAX // encoded > 25_000
