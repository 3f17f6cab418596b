"""The receiving door towards peers that behave: what they send is kept, who is not wanted hears so."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import _config, build_context

from tests.peers import echoscu, storescu
from tests.processes import program, wait_until
from tests.wire.listening import (
    ABORT,
    CALLED,
    CALLING,
    LOOPBACK,
    PET,
    RELEASE,
    Listening,
    RawPeer,
    associate,
    associate_request,
    associated,
    data_set_of,
    echo_request,
    encoded,
    fragment,
    pet_slice,
    store_request,
)

OTHER = "127.0.0.2"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with Listening(tmp_path_factory.mktemp("listener") / "node") as node:
        yield node


@pytest.fixture
def node(shared: Listening) -> Listening:
    """A listener with the default configuration that has received nothing yet."""
    wait_until(lambda: shared.ledger("associations") == [], 5)
    for path in (*shared.inbox, *(shared.data / "run" / "ended").iterdir()):
        path.unlink()
    return shared


# --- what is sent is kept ---------------------------------------------------------------------------------------------


def test_what_pynetdicom_sends_is_kept_byte_for_byte(node: Listening) -> None:
    slices = [pet_slice(index, size) for index, size in enumerate((2, 4096, 300_000, 3_000_000))]
    with associated(node.port) as association:
        assert association.send_c_echo().Status == 0
        for index, dataset in enumerate(slices):
            assert association.send_c_store(dataset).Status == 0
            assert len(node.inbox) == index + 1  # there before the answer, not some time later
    assert [data_set_of(path.read_bytes()) for path in node.inbox] == [encoded(dataset) for dataset in slices]
    assert node.tmp == []
    meta = pydicom.dcmread(node.inbox[1]).file_meta
    [ended] = node.ended()
    assert meta.MediaStorageSOPClassUID == PET
    assert meta.MediaStorageSOPInstanceUID == slices[1].SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.SourceApplicationEntityTitle == meta.SendingApplicationEntityTitle == CALLING
    assert meta.ReceivingApplicationEntityTitle == CALLED
    assert meta.SendingPresentationAddress == f"dicom:127.0.0.1:{ended['port']}"
    first, association_id, number = node.inbox[0].stem.split("-", 1)[0], ended["id"], node.inbox[0].stem[-1]
    assert node.inbox[0].name == f"{first}-{association_id}-{number}.dcm"
    assert ended["opened_ns"] < int(first) < ended["closed_ns"]
    assert (ended["stored"], ended["refused"], ended["outcome"]) == (4, 0, "released")
    assert (ended["calling_ae"], ended["called_ae"], ended["peer"]) == (CALLING, CALLED, LOOPBACK)


def test_every_encoding_is_kept_as_it_comes(node: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # pynetdicom then sends the file's own bytes
    for transfer_syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless):
        dataset = pet_slice()
        if transfer_syntax.is_compressed:
            dataset.PixelData = encapsulate([os.urandom(5000)])
        dataset.file_meta.TransferSyntaxUID = transfer_syntax
        file = tmp_path / "slice.dcm"
        dataset.save_as(file, enforce_file_format=True)
        with associated(node.port, contexts=[build_context(PET, transfer_syntax)]) as association:
            assert association.send_c_store(file).Status == 0
        kept = node.inbox[-1]
        assert data_set_of(kept.read_bytes()) == data_set_of(file.read_bytes())
        assert pydicom.dcmread(kept, stop_before_pixels=True).file_meta.TransferSyntaxUID == transfer_syntax


def test_dcmtk_sends_over_several_associations(tmp_path: Path) -> None:
    files = []
    for index in range(40):
        files.append(tmp_path / f"{index}.dcm")
        pet_slice(index).save_as(files[-1], enforce_file_format=True)
    with Listening(tmp_path / "node", listener={"processes": 2}) as node:
        assert echoscu(node.port)
        sending = storescu(files, node.port, associations=4, files_per_association=5)
        assert len(sending.acknowledged) == 40, sending.log
        kept = {pydicom.dcmread(path).SOPInstanceUID for path in node.inbox}
        assert kept == {pydicom.dcmread(path).SOPInstanceUID for path in files}
        ended = node.ended(9)
        assert sum(each["stored"] for each in ended) == 40
        checked = subprocess.run([program("dcmdump"), *node.inbox], capture_output=True, text=True, check=True)
        assert checked.stderr == ""


def test_fragments_of_any_size_and_several_in_one_pdu(node: Listening) -> None:
    content = os.urandom(3000)
    with RawPeer(node.port) as peer:
        peer.associate()
        command = store_request(b"x")[0]
        values = [fragment(content[start : start + 7], is_last=start + 7 >= 3000)[6:] for start in range(0, 3000, 7)]
        joined = b"".join(values)
        peer.send(command, b"\x04\0" + len(joined).to_bytes(4, "big") + joined)
        assert peer.status() == (0, "")
        assert data_set_of(node.inbox[0].read_bytes()) == content


def test_an_answer_fits_the_smallest_pdu_a_peer_takes(node: Listening) -> None:
    with RawPeer(node.port) as peer:
        peer.associate(maximum_length=32)
        peer.send(echo_request())
        kind, body = peer.pdu() or (0, b"")
        assert kind == 4 and len(body) <= 32


# --- what is refused, and how -----------------------------------------------------------------------------------------


def store_request_with_uid(uid: str) -> bytes:
    """The command of a C-STORE-RQ whose SOP Instance UID is anything, which no library would write."""
    place = b"1" * 30
    command = store_request(b"x", sop_instance_uid=place.decode())[0][12:]
    wrong = uid.encode("utf-8")
    wrong += b"\0" * (len(wrong) % 2)
    before = b"\0\0\x00\x10" + len(place).to_bytes(4, "little") + place  # (0000,1000)
    assert before in command
    return fragment(
        command.replace(before, b"\0\0\x00\x10" + len(wrong).to_bytes(4, "little") + wrong), is_command=True
    )


def test_an_illegal_uid_is_refused_and_goes_nowhere(node: Listening) -> None:
    def files() -> set[Path]:
        return {path for path in node.folder.parent.rglob("*") if path.suffix not in {".log", ".json"}}

    with RawPeer(node.port) as peer:
        before = files()
        peer.associate()
        uids = ("../../../../tmp/pwn", "1" * 65, "", "CON", "$(reboot);", "1.2.3\\1.2.4", "/etc/passwd", "ünïcode")
        for uid in uids:
            peer.send(store_request_with_uid(uid), *store_request(b"abcd")[1:])
            assert peer.status() == (0xC000, "SOP Class or Instance UID is not a UID"), uid
        assert files() == before
        peer.send(*store_request(b"abcd", sop_instance_uid="1.02.003"))  # benign: scanners of the nineties
        assert peer.status() == (0, "")
        peer.send(RELEASE)
        assert peer.pdu() == (6, bytes(4))
    [ended] = node.ended()
    assert (ended["stored"], ended["refused"]) == (1, len(uids))


def test_an_empty_data_set_is_refused(node: Listening) -> None:
    with RawPeer(node.port) as peer:
        peer.associate()
        for data_set in (None, b""):
            peer.send(*store_request(data_set))
            assert peer.status() == (0xC000, "empty data set")
    assert node.inbox == node.tmp == []


def test_a_closed_node_refuses_until_it_opens_again(node: Listening) -> None:
    with associated(node.port) as association:
        closed = node.data / "run" / "closed"
        closed.write_text("database is being repaired")
        assert association.send_c_echo().Status == 0
        refused = association.send_c_store(pet_slice(0, 500_000))
        assert (refused.Status, refused.ErrorComment) == (0xA700, "closed for storage by its operator")
        assert node.inbox == node.tmp == []
        closed.unlink()
        assert association.send_c_store(pet_slice(0)).Status == 0


def test_too_little_free_space_refuses_before_writing(tmp_path: Path) -> None:
    with Listening(tmp_path, limits={"free_bytes_min": "1000 TiB"}) as node, associated(node.port) as association:
        refused = association.send_c_store(pet_slice())
        assert (refused.Status, refused.ErrorComment) == (0xA700, "not enough free disk space")
        assert node.inbox == node.tmp == []
        assert association.send_c_echo().Status == 0


def test_only_storage_and_verification_are_offered(node: Listening) -> None:
    contexts = [
        build_context(PATIENT_ROOT_FIND),
        build_context(CTImageStorage, "1.2.840.10008.1.2.2"),
        build_context("1.3.12.2.1107.5.9.1"),
        build_context(PET, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
    ]
    with associated(node.port, contexts=contexts) as association:
        assert [(cx.abstract_syntax, cx.result) for cx in association.rejected_contexts] == [
            (PATIENT_ROOT_FIND, 3),
            (CTImageStorage, 4),
        ]
        assert {cx.abstract_syntax: cx.transfer_syntax for cx in association.accepted_contexts} == {
            "1.3.12.2.1107.5.9.1": [ExplicitVRLittleEndian],
            PET: [ExplicitVRLittleEndian],
        }


def test_other_operations_are_not_recognized_and_a_store_needs_a_storage_context(node: Listening) -> None:
    with RawPeer(node.port) as peer:
        peer.associate()
        find = bytearray(store_request(b"abcd")[0])
        at = find.index(b"\0\0\0\x01\x02\0\0\0\x01\0")  # (0000,0100) CommandField
        find[at + 8 : at + 10] = b"\x20\0"  # C-FIND-RQ
        peer.send(bytes(find), *store_request(b"abcd")[1:])
        assert peer.status()[0] == 0x0211
        peer.send(*store_request(b"abcd", context=1))
        assert peer.status()[0] == 0x0122
        peer.send(*store_request(b"abcd", sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1"))
        assert peer.status()[0] == 0x0122
        assert node.inbox == node.tmp == []


# --- who may come in --------------------------------------------------------------------------------------------------


def rejection(port: int, **options: Any) -> tuple[int, int, int] | None:
    """Result, source and reason of the A-ASSOCIATE-RJ; None when the association was not rejected."""
    with RawPeer(port, options.pop("source", LOOPBACK)) as peer:
        peer.send(associate_request(**options))
        answer = peer.pdu()
        return (answer[1][1], answer[1][2], answer[1][3]) if answer is not None and answer[0] == 3 else None


def refusals_of(node: Listening) -> set[tuple[str, str]]:
    """Why and whom the listener refused, by its log."""
    return {(event["code"], event["address"]) for event in node.events("connection-refused")}


def test_only_known_peers_are_let_in(tmp_path: Path) -> None:
    peers = [
        {"name": "petct1", "ae_title": "PETCT1", "addresses": ["127.0.0.1"]},
        {"name": "petct2", "ae_title": "PETCT2", "addresses": ["127.0.0.4/30"]},
    ]
    with Listening(tmp_path, peers=peers) as node:
        assert rejection(node.port) is None
        assert rejection(node.port, calling="PETCT2", source="127.0.0.6") is None
        assert rejection(node.port, calling="PETCT2") == (1, 1, 3)  # the title of another address
        assert rejection(node.port, calling="STRANGER") == (1, 1, 3)
        assert rejection(node.port, called="ORTHANC") == (1, 1, 7)
        with RawPeer(node.port, OTHER) as stranger:
            assert stranger.is_closed(1)
        wait_until(lambda: len(node.ledger("ended")) == 2, 5)
        expected = {
            ("calling-ae-not-recognized", LOOPBACK),
            ("called-ae-not-recognized", LOOPBACK),
            ("unknown-address", OTHER),
        }
        # a connection is closed before that is written down
        wait_until(lambda: refusals_of(node) == expected, 5)


def test_unknown_peers_and_any_called_title_can_be_allowed(tmp_path: Path) -> None:
    with Listening(tmp_path, peers=[], allow_unknown_peers=True, listener={"any_ae_title": True}) as node:
        assert rejection(node.port, calling="STRANGER", called="WHATEVER", source=OTHER) is None


def test_a_door_at_every_address_takes_both_families(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no IPv6")
    peers = [{"name": "petct1", "ae_title": CALLING, "addresses": ["127.0.0.1", "::1"]}]
    with Listening(tmp_path, peers=peers, doors=[{"host": "::"}]) as node:
        assert rejection(node.port) is None
        with RawPeer(node.port, OTHER) as stranger:
            assert stranger.is_closed(1)
        with socket.create_connection(("::1", node.port), 5) as connection:
            connection.sendall(associate_request())
            assert connection.recv(1) == b"\x02"
            connection.sendall(b"".join(store_request(b"abcd")))
            wait_until(lambda: node.inbox != [], 5)
            port = connection.getsockname()[1]
        meta = pydicom.dcmread(node.inbox[0], force=True).file_meta
        assert meta.SendingPresentationAddress == f"dicom:[::1]:{port}"


def test_several_doors_with_titles_of_their_own(tmp_path: Path) -> None:
    with Listening(tmp_path, doors=[{"ae_titles": ["CLINIC", "TRIAL"]}, {"ae_titles": ["LAB"]}]) as node:
        clinic, lab = node.ports
        assert rejection(clinic, called="TRIAL") is None
        assert rejection(clinic, called="LAB") == (1, 1, 7)
        assert rejection(lab, called="LAB") is None


@pytest.mark.parametrize("processes", [1, 2])
def test_limits_of_associations_hold_over_all_processes_and_pass(tmp_path: Path, processes: int) -> None:
    limits = {"associations": 5, "associations_per_peer": 3}
    with Listening(tmp_path, limits=limits, allow_unknown_peers=True, listener={"processes": processes}) as node:
        held = [RawPeer(node.port) for _ in range(3)]
        for peer in held:
            peer.associate()
        assert rejection(node.port) == (2, 3, 2)  # of this address
        others = [RawPeer(node.port, OTHER) for _ in range(2)]
        for peer in others:
            peer.associate()
        assert rejection(node.port, source="127.0.0.3") == (2, 3, 2)  # of everybody
        held[0].send(RELEASE)
        assert held[0].pdu() == (6, bytes(4))
        held[0].socket.close()
        wait_until(lambda: rejection(node.port, source="127.0.0.3") is None, 5)
        for peer in (*held, *others):
            peer.socket.close()
        wait_until(lambda: node.ledger("associations") == [], 5)


# --- how associations end ---------------------------------------------------------------------------------------------


def test_the_ledger_shows_open_associations_and_how_they_ended(tmp_path: Path) -> None:
    limits = {"read_s": 1, "idle_s": 1, "handshake_s": 1}
    with Listening(tmp_path, limits=limits) as node:
        for last_words, outcome in ((RELEASE, "released"), (ABORT, "aborted"), (b"", "lost"), (None, "timeout")):
            with RawPeer(node.port) as peer:
                peer.associate()
                [opened] = node.ledger("associations")
                assert opened["pid"] == node.children[0].pid
                if last_words is None:
                    assert peer.is_closed(5)
                else:
                    peer.send(last_words)
            wait_until(lambda: node.ledger("associations") == [], 5)
            assert node.ledger("ended")[-1]["outcome"] == outcome
            assert node.ledger("ended")[-1]["id"] == opened["id"]


def test_an_abort_within_an_object_leaves_nothing(node: Listening) -> None:
    def cut_off(peer: RawPeer, last_words: bytes) -> None:
        peer.associate()
        command, *_ = store_request(b"x")
        peer.send(command, fragment(bytes(100_000), is_last=False))
        wait_until(lambda: len(node.tmp) == 1, 5)
        peer.send(last_words)
        if not last_words:  # the connection is reset, as when a cable is pulled and a firewall forgets
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.socket.close()

    for last_words in (ABORT, RELEASE, b""):
        cut_off(RawPeer(node.port), last_words)
        wait_until(lambda: node.tmp == [], 5)
        assert node.inbox == []
    assert [each["stored"] for each in node.ended(3)] == [0, 0, 0]
    assert echoscu(node.port)


def test_a_term_signal_lets_the_object_in_progress_finish(tmp_path: Path) -> None:
    with Listening(tmp_path) as node, RawPeer(node.port) as busy, RawPeer(node.port) as idle:
        busy.associate()
        idle.associate()
        command, *_ = store_request(b"x")
        busy.send(command, fragment(b"abcd", is_last=False))
        wait_until(lambda: len(node.tmp) == 1, 5)
        parent, children = node.parent, node.children
        parent.send_signal(signal.SIGTERM)
        assert idle.pdu() == (7, bytes(4))  # A-ABORT at once: nothing is in progress there
        wait_until(lambda: refuses(node.port), 5)
        busy.send(fragment(b"efgh"))
        assert busy.status() == (0, "")
        assert busy.pdu() == (7, bytes(4))
        assert parent.wait(10) == 0
        assert not any(child.is_running() for child in children)
        [kept] = node.inbox
        assert data_set_of(kept.read_bytes()) == b"abcdefgh"
        assert {each["outcome"] for each in node.ledger("ended")} == {"aborted"}


def refuses(port: int) -> bool:
    try:
        RawPeer(port).socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_second_term_signal_ends_it_at_once(tmp_path: Path) -> None:
    with Listening(tmp_path) as node, RawPeer(node.port) as busy:
        busy.associate()
        busy.send(store_request(b"x")[0], fragment(b"abcd", is_last=False))
        wait_until(lambda: len(node.tmp) == 1, 5)
        parent = node.parent
        parent.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert parent.is_running()
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(5) == 0
        assert node.inbox == node.tmp == []
        assert node.ledger("ended")[0]["outcome"] == "lost"


def test_a_killed_parent_leaves_nobody_behind_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    with Listening(tmp_path, listener={"processes": 2}) as node:
        with associated(node.port) as association:
            assert association.send_c_store(pet_slice()).Status == 0
        with RawPeer(node.port) as busy:
            busy.associate()
            busy.send(store_request(b"x")[0], fragment(b"abcd", is_last=False))
            wait_until(lambda: len(node.tmp) == 1, 5)
            children = node.children
            assert len(children) == 2
            node.parent.kill()
            wait_until(lambda: not any(child.is_running() for child in children), 5)
        assert len(node.tmp) == len(node.ledger("associations")) == 1
        node.start()
        assert not node.tmp and not node.ledger("associations")
        assert [each["outcome"] for each in node.ledger("ended")] == ["released", "lost"]
        assert len(node.inbox) == 1
        assert echoscu(node.port)


def test_a_killed_process_is_replaced_and_what_it_held_is_given_up(tmp_path: Path) -> None:
    limits = {"associations": 1, "associations_per_peer": 1}
    with Listening(tmp_path, limits=limits) as node, RawPeer(node.port) as busy:
        busy.associate()
        busy.send(store_request(b"x")[0], fragment(b"abcd", is_last=False))
        wait_until(lambda: len(node.tmp) == 1, 5)
        [killed] = node.children
        killed.kill()
        wait_until(lambda: not node.tmp and not node.ledger("associations"), 5)
        assert node.ledger("ended")[0]["outcome"] == "lost"
        assert busy.is_closed(5)
        assert echoscu(node.port)  # the one seat is free again, and the door has been open all the time
        assert [child.pid for child in node.children] != [killed.pid]


def test_two_listeners_never_share_a_data_folder(tmp_path: Path) -> None:
    with Listening(tmp_path / "one") as node:
        other = Listening(tmp_path / "two")
        configuration = other.folder / "node.yaml"
        configuration.write_text(configuration.read_text().replace(str(other.data), str(node.data)))
        with pytest.raises(RuntimeError, match="another listener serves this data folder"):
            other.start()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with Listening(tmp_path / "one") as node:
        other = Listening(tmp_path / "two")
        configuration = other.folder / "node.yaml"
        configuration.write_text(configuration.read_text().replace(str(other.port), str(node.port)))
        with pytest.raises(RuntimeError, match=f"{node.port}: expected to listen there"):
            other.start()


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and certificate and key of the node and of a client, each signed by it."""
    from tests.wire.certificates import make

    return make(tmp_path_factory.mktemp("certificates"))


def client_context(certificates: Path, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def tls_door(certificates: Path, **more: Any) -> dict[str, Any]:
    files = {"certificate": str(certificates / "node.pem"), "key": str(certificates / "node.key"), **more}
    return {"tls": files}


def test_objects_arrive_over_tls(tmp_path: Path, certificates: Path) -> None:
    with Listening(tmp_path, doors=[tls_door(certificates)]) as node:
        context = client_context(certificates, certificate=False)
        with associated(node.port, tls=(context, None)) as association:
            dataset = pet_slice(0, 1_000_000)
            assert association.send_c_store(dataset).Status == 0
        assert data_set_of(node.inbox[0].read_bytes()) == encoded(dataset)


def test_tls_asks_for_a_certificate_where_it_should(tmp_path: Path, certificates: Path) -> None:
    door = tls_door(certificates, client_ca=str(certificates / "ca.pem"))
    with Listening(tmp_path, doors=[door]) as node:
        with associated(node.port, tls=(client_context(certificates), None)) as association:
            assert association.send_c_echo().Status == 0
        without = client_context(certificates, certificate=False)
        assert not associate(node.port, tls=(without, None)).is_established
        [refused] = wait_until(lambda: node.events("connection-refused"), 5)
        assert refused["code"] == "tls-peer_did_not_return_a_certificate"


def test_a_tls_door_speaks_neither_plain_nor_old(tmp_path: Path, certificates: Path) -> None:
    with Listening(tmp_path, doors=[tls_door(certificates)]) as node:
        with RawPeer(node.port) as plain:
            plain.send(associate_request())
            assert plain.is_closed(3)
        old = client_context(certificates)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((LOOPBACK, node.port), 5) as connection, pytest.raises(ssl.SSLError):
            old.wrap_socket(connection)
        with associated(node.port, tls=(client_context(certificates), None)) as association:
            assert association.send_c_echo().Status == 0


def test_a_useless_certificate_is_told_before_anything_starts(tmp_path: Path, certificates: Path) -> None:
    shutil.copytree(certificates, tmp_path / "pem")
    (tmp_path / "pem" / "node.pem").write_text("not a certificate")
    node = Listening(tmp_path / "node", doors=[tls_door(tmp_path / "pem")])
    with pytest.raises(RuntimeError, match="expected usable PEM files"):
        node.start()


# --- what the log says ------------------------------------------------------------------------------------------------


def test_the_log_names_nobody(tmp_path: Path) -> None:
    with Listening(tmp_path) as node:
        with associated(node.port) as association:
            assert association.send_c_store(pet_slice()).Status == 0
        with RawPeer(node.port) as peer:
            wanted = associate_request(calling="ABCDEFGHIJKLMNOP")
            peer.send(wanted.replace(b"ABCDEFGHIJKLMNOP", b"EVIL\x1b[31m\nspoofe"))
            assert peer.pdu() == (3, bytes((0, 1, 1, 3)))
        with RawPeer(node.port) as peer:
            peer.associate()
            peer.send(*store_request(b"abcd", sop_instance_uid="Secret^Patient"))
            assert peer.status()[0] == 0xC000
            peer.send(b"\x04\0\0\0\0\x01Secret")
            assert peer.is_closed(5)
        node.ended(2)
        log = node.log.read_text()
    for secret in ("Secret", "TOPSECRET", "1.2.826", "1.2.840", "EVIL", "\x1b"):
        assert secret not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"listening", "association-opened", "association-ended", "connection-refused"} <= {
        line["event"] for line in lines
    }
    assert [line["peer"] for line in lines if line["event"] == "association-opened"] == ["petct1", "petct1"]
