"""The conformance statement against a listener, a sender and peers: what a table says is what happens on the wire."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from config.destinations import DimseDestination
from dicom_io import commitment, query
from dicom_io.commitment import Reference, Statement
from dicom_io.offer import TRANSFER_SYNTAXES
from dicom_io.query import Wanted
from dicom_io.sender import echo, send
from tests import make
from tests.statement import CLASSES, DIMSE, GIVEN, HEARD, PAGE, SYNTAXES, codes, rows, tables
from tests.wire.listening import (
    CALLED,
    CALLING,
    LOOPBACK,
    PET,
    SCANNER,
    VERIFICATION,
    Listening,
    RawPeer,
    associate,
    associate_request,
    associated,
    encoded,
    pet_slice,
    store_request,
)
from tests.wire.test_commitment import item, request
from tests.wire.test_sender import Archive, outgoing, to

TEXT = PAGE.read_text()
IMPLICIT = "1.2.840.10008.1.2"
LISTED = [row[1] for row in rows(TEXT, *CLASSES) if row[1]]
ACCEPTED = [row[2] for row in rows(TEXT, *SYNTAXES)]
COMMITMENT = str(StorageCommitmentPushModel)
WHOLE_ASSOCIATION = 128

FAULTY = """
import os, pathlib
flush, fault = os.fdatasync, pathlib.Path(__file__).with_name("fault")
def fdatasync(file):
    words = fault.read_text() if fault.exists() else ""
    if words == "defect":
        raise RuntimeError(words)
    if words:
        raise OSError(int(words), words)
    flush(file)
os.fdatasync = fdatasync
"""
"""The disk as the file `fault` beside the patch wants it: an errno, or a defect of ours."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    folder = tmp_path_factory.mktemp("listener") / "node"
    told = {**SCANNER, "report_to": {"host": LOOPBACK, "port": 4008}}
    untold = {"name": "petct2", "ae_title": "PETCT2", "addresses": [LOOPBACK]}
    with Listening(folder, peers=[told, untold], patch=FAULTY) as listening:
        yield listening


def negotiated(port: int, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, int, str]]:
    """(abstract syntax, result, transfer syntax accepted) of each context proposed, in their order."""
    found: list[tuple[str, int, str]] = []
    for start in range(0, len(wanted), WHOLE_ASSOCIATION):
        part = wanted[start : start + WHOLE_ASSOCIATION]
        contexts = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in part]
        association = associate(port, contexts=contexts)
        answered = {cx.context_id: cx for cx in (*association.accepted_contexts, *association.rejected_contexts)}
        assert len(answered) == len(part)
        for number, _ in enumerate(part):
            answer = answered[2 * number + 1]
            syntax = answer.transfer_syntax[0] if answer.result == 0 else ""
            found.append((str(answer.abstract_syntax), int(answer.result), str(syntax)))
        if association.is_established:
            association.release()
        else:
            association.abort()
    return found


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_every_class_is_accepted_in_every_transfer_syntax_listed(node: Listening) -> None:
    wanted = [(uid, [syntax]) for uid in LISTED for syntax in ACCEPTED]
    assert len(wanted) > 2000
    got = negotiated(node.port, wanted)
    assert [one for one, (uid, (syntax,)) in zip(got, wanted, strict=True) if one != (uid, 0, syntax)] == []


def test_no_class_of_the_dictionary_is_accepted_that_is_not_listed(node: Listening) -> None:
    served = {row[1] for row in rows(TEXT, *DIMSE) if row[3] == "Y"}
    others = [uid for uid, entry in UID_dictionary.items() if "SOP Class" in entry[1] and uid not in {*LISTED, *served}]
    assert len(others) > 100
    assert StudyRootQueryRetrieveInformationModelFind in others, "as SCU alone"
    got = negotiated(node.port, [(uid, [IMPLICIT]) for uid in others])
    assert {result for _, result, _ in got} == {3}


def test_what_is_served_is_accepted_uncompressed_only(node: Listening) -> None:
    uncompressed = {row[2] for row in rows(TEXT, *SYNTAXES) if row[3] == "Y"}
    for uid in (str(VERIFICATION), COMMITMENT):
        got = negotiated(node.port, [(uid, [syntax]) for syntax in ACCEPTED])
        assert {syntax for _, result, syntax in got if result == 0} == uncompressed
        assert {result for _, result, syntax in got if not syntax} == {4}


def test_no_transfer_syntax_of_the_dictionary_is_accepted_that_is_not_listed(node: Listening) -> None:
    others = [uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax" and uid not in ACCEPTED]
    assert len(others) > 20
    got = negotiated(node.port, [(str(PET), [uid]) for uid in others])
    assert {result for _, result, _ in got} == {4}
    named = {line[2:] for line in TEXT.splitlines() if line.startswith("- ")}
    assert {UID_dictionary[uid][0] for uid in others if not UID_dictionary[uid][3]} <= named


def test_the_preference_is_the_order_of_the_table(node: Listening) -> None:
    left = list(ACCEPTED)
    assert tuple(left) == TRANSFER_SYNTAXES
    while left:
        assert negotiated(node.port, [(str(PET), left[::-1])]) == [(str(PET), 0, left[0])]
        left.pop(0)


def test_private_classes_are_accepted_as_the_table_says(node: Listening) -> None:
    assert rows(TEXT, *CLASSES)[-1][0] == "every private SOP class"
    private = ["1.3.12.2.1107.5.9.1", "1.2.840.113619.4.26", "2.25.1"]
    assert {result for _, result, _ in negotiated(node.port, [(uid, [IMPLICIT]) for uid in private])} == {0}


# --- what is answered -------------------------------------------------------------------------------------------------


def test_every_rejection_of_the_table_and_no_other(node: Listening, tmp_path: Path) -> None:
    usual, context = associate_request(), b"1.2.840.10008.3.1.1.1"
    asked = [
        usual[:6] + b"\x00\x02" + usual[8:],
        usual.replace(context, b"1.2.840.10008.3.1.1.2"),
        associate_request(calling="STRANGER"),
        associate_request(called="NOBODY"),
    ]
    got = [rejection(node.port, pdu) for pdu in asked]
    narrow = {"associations": 1, "associations_per_peer": 1}
    with Listening(tmp_path / "narrow", limits=narrow) as narrow_node, RawPeer(narrow_node.port) as held:
        held.associate()
        got.append(rejection(narrow_node.port, usual))
    assert got == [(int(result[0]), int(source), int(reason)) for result, source, reason, _ in REJECTIONS]


REJECTIONS = rows(TEXT, "result", "source", "reason", "when")


def rejection(port: int, pdu: bytes) -> tuple[int, int, int]:
    with RawPeer(port) as peer:
        peer.send(pdu)
        answer = peer.pdu()
        assert answer is not None and answer[0] == 3
        return answer[1][1], answer[1][2], answer[1][3]


class Trouble:
    """What is wrong with the node for the time of one request."""

    def __init__(self, node: Listening, words: str) -> None:
        self.file = node.folder / "patch" / "fault" if words != "closed" else node.data / "run" / "closed"
        self.words = words

    def __enter__(self) -> None:
        if self.words:
            self.file.write_text(self.words)

    def __exit__(self, *_: object) -> None:
        self.file.unlink(missing_ok=True)


def test_every_status_of_c_store_and_no_other(node: Listening) -> None:
    data = encoded(pet_slice())
    cases: list[tuple[str, list[bytes]]] = [
        ("", store_request(data)),
        ("", store_request(data, context=1)),
        ("closed", store_request(data)),
        ("28", store_request(data)),
        ("5", store_request(data)),
        ("", store_request(data, sop_instance_uid="../../etc")),
        ("", store_request(b"")),
        ("defect", store_request(data)),
    ]
    got = set()
    with RawPeer(node.port) as peer:
        peer.associate()
        for words, pdus in cases:
            with Trouble(node, words):
                peer.send(*pdus)
                code, comment = peer.status()
                got.add((f"{code:04X}", comment or "none"))
    assert got == {row[:2] for row in rows(TEXT, *GIVEN)}


def test_every_status_of_other_requests_and_no_other(node: Listening) -> None:
    event = request(1)
    event.FailedSOPSequence = [item("1.2.9", 0x0112)]
    got = {
        answer(node, "N-ACTION", request()),
        answer(node, "N-EVENT-REPORT", event),
        answer(node, "N-ACTION", request(), number=2),
        answer(node, "N-ACTION", request(), calling="PETCT2"),
        answer(node, "N-EVENT-REPORT", event, number=3),
        ("any other", not_served(node)),
    }
    for words in ("closed", "28", "5", "defect"):
        with Trouble(node, words):
            got |= {answer(node, "N-ACTION", request()), answer(node, "N-EVENT-REPORT", event)}
    got.add(answer(node, "N-ACTION", None))
    listed = {
        (one, status)
        for service, status, _, _ in rows(TEXT, "request", "status", "Error Comment (0000,0902)", "when")
        for one in service.split(", ")
    }
    assert got == listed


def answer(
    node: Listening, service: str, dataset: Dataset | None, *, number: int = 1, calling: str = CALLING
) -> tuple[str, str]:
    contexts = [build_context(COMMITMENT, IMPLICIT)]
    with associated(node.port, contexts=contexts, calling=calling) as association:
        ask = association.send_n_action if service == "N-ACTION" else association.send_n_event_report
        status, _ = ask(dataset, number, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    return service, f"{status.Status:04X}"


def not_served(node: Listening) -> str:
    """A C-FIND on a context for images, which no library would send."""
    find = bytearray(store_request(b"abcd")[0])
    at = find.index(b"\0\0\0\x01\x02\0\0\0\x01\0")  # (0000,0100) Command Field
    find[at + 8 : at + 10] = b"\x20\0"  # C-FIND-RQ
    with RawPeer(node.port) as peer:
        peer.associate()
        peer.send(bytes(find), *store_request(b"abcd")[1:])
        return f"{peer.status()[0]:04X}"


# --- what is made of answers ------------------------------------------------------------------------------------------

UNLISTED = (0x0105, 0x0210, 0x0213, 0xA800, 0xB001, 0xD000, 0xFE00, 0xFFFF)
OF_THE_STANDARD = {0x0000, 0x0117, 0x0122, 0x0124, 0x0211, 0x0212, 0xA700, 0xA900, 0xB000, 0xB006, 0xB007, 0xC000}
"""PS3.4 table B.2-1 and PS3.7 9.1.1.1.9."""


def test_the_sender_does_what_the_table_says_of_each_status(tmp_path: Path) -> None:
    listed = tables(TEXT, *HEARD)[0]
    deeds = {codes(row[0]): row[2] for row in listed if row[0] != "anything else, no answer"}
    inside = [code for span in deeds for code in span]
    assert set(inside) >= OF_THE_STANDARD
    assert not any(span[0] <= code <= span[-1] for code in UNLISTED for span in deeds)
    asked = [*inside, *UNLISTED]
    (file, *_) = make.study(tmp_path, pet_shape=(1, 12, 10)).pet
    with Archive(answer=asked.__getitem__) as archive:
        verdicts = list(send([outgoing(file)] * len(asked), to(archive.port)))
    for code, sent in zip(asked, verdicts, strict=True):
        assert sent.status == code
        deed = next((deed for span, deed in deeds.items() if span[0] <= code <= span[-1]), listed[-1][2])
        happened = "accepted" if sent.error is None else "failed for good" if sent.permanent else "tried again"
        assert deed.startswith(happened), f"{code:04X}"
        assert ("warning" in deed) == (sent.error is None and code != 0)


class Proposals:
    """An archive that writes down what is proposed to it."""

    def __init__(self) -> None:
        self.seen: list[set[tuple[str, tuple[str, ...], str]]] = []

    def __enter__(self) -> Self:
        entity = AE("ARCHIVE")
        for uid in (VERIFICATION, COMMITMENT, StudyRootQueryRetrieveInformationModelFind, PET):
            entity.add_supported_context(uid, [*ACCEPTED], scu_role=True, scp_role=True)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet, [*ACCEPTED])
        handlers: Any = [
            (evt.EVT_REQUESTED, self._write_down),
            (evt.EVT_C_STORE, lambda _: 0x0000),
            (evt.EVT_N_ACTION, lambda _: (0x0000, None)),
            (evt.EVT_N_EVENT_REPORT, lambda _: (0x0000, None)),
            (evt.EVT_C_FIND, lambda _: iter(())),
            (evt.EVT_C_GET, lambda _: iter((0,))),
        ]
        self._server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _write_down(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        roles = requestor.role_selection
        proposed: dict[str, list[str]] = {}
        for context in requestor.requested_contexts:
            assert len(context.transfer_syntax) == 1
            proposed.setdefault(str(context.abstract_syntax), []).append(str(context.transfer_syntax[0].name))
        self.seen.append(
            {
                (uid, tuple(syntaxes), "SCU, and SCP by role selection" if uid in roles else "SCU")
                for uid, syntaxes in proposed.items()
            }
        )


def test_what_we_propose(tmp_path: Path) -> None:
    (file, *_) = make.study(tmp_path, pet_shape=(1, 12, 10)).pet
    out = outgoing(file)
    statement = Statement("1.2.3", (Reference(str(PET), "1.2.4"),))
    wanted = [Wanted("1.2", "1.3", "1.4", str(PET))]
    with Proposals() as archive:
        peer = DimseDestination(host=LOOPBACK, port=archive.port, ae_title="ARCHIVE", timeout_s=5.0)
        echo(peer)
        assert next(iter(send([out], peer))).error is None
        assert next(iter(send([replace(out, ours=True)], peer))).error is None
        commitment.ask(peer, statement, wait_s=0.1, hear=lambda _: None)
        commitment.tell(peer, statement)
        query.find(peer, wanted)
        query.fetch(peer, wanted, tmp_path)
        seen = archive.seen
    listed = rows(TEXT, "activity", "SOP class", "transfer syntax", "our role")
    instance = (str(PET), ("Explicit VR Little Endian",))
    assert out.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    expected: list[set[tuple[str, tuple[str, ...], str]]] = []
    for activity, name, syntaxes, role in listed:
        stored = syntaxes.startswith("the one")
        uid = str(PET) if name.startswith("those") else next(u for u, e in UID_dictionary.items() if e[0] == name)
        ours = ("Explicit VR Little Endian", "Implicit VR Little Endian") if activity == "sending results" else None
        one = (uid, ours or (instance[1] if stored else tuple(syntaxes.split("; "))), role)
        if activity:
            expected.append({one})
        else:
            expected[-1].add(one)
    assert seen == expected


def test_what_we_call_ourselves(node: Listening) -> None:
    says = dict(rows(TEXT, "name", "value"))
    with associated(node.port) as association:
        answer = association.acceptor
        assert answer.implementation_class_uid == says["Implementation Class UID"]
        assert answer.implementation_version_name == says["Implementation Version Name"]
        assert answer.maximum_length == 128 * 1024
        assert CALLED == "TRACERD"
    assert PatientRootQueryRetrieveInformationModelFind not in LISTED
