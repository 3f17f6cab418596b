"""The sender against real peers: bytes, verdicts, refusals, silence, lost connections, TLS."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset

from config.destinations import DestinationTls, DimseDestination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.sender import VERIFICATION, Outgoing, Sent, echo, send
from dicom_io.statuses import judge_store
from tests import make, peers
from tests.proxy import RecordingProxy

LOOPBACK = "127.0.0.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass
class Archive:
    """A pynetdicom SCP. `answer(n)` is the status of the n-th C-STORE (from 0), or None to abort instead."""

    answer: Callable[[int], int | None] = lambda _: 0x0000
    classes: Sequence[str] = (PositronEmissionTomographyImageStorage, SEGMENTATION)
    comment: str = ""
    tls: Any = None
    require_called_aet: bool = False
    associations_max: int = 10
    digests: dict[str, str] = field(default_factory=dict)
    syntaxes: dict[str, str] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)
    count: int = 0

    def __enter__(self) -> Self:
        entity = AE("ARCHIVE")
        entity.require_called_aet = self.require_called_aet
        entity.maximum_associations = self.associations_max
        entity.add_supported_context(VERIFICATION)
        for sop_class in self.classes:
            entity.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        handlers: Any = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_RELEASED, lambda _: self.endings.append("released")),
            (evt.EVT_ABORTED, lambda _: self.endings.append("aborted")),
        ]
        self._server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers, ssl_context=self.tls)
        assert self._server is not None
        self.port: int = self._server.server_address[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._server is not None
        self._server.shutdown()

    def _store(self, event: evt.Event) -> pydicom.Dataset | int:
        assert isinstance(event.request, C_STORE)
        uid = str(event.request.AffectedSOPInstanceUID)
        self.digests[uid] = hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest()
        self.syntaxes[uid] = str(event.context.transfer_syntax)
        number, self.count = self.count, self.count + 1
        status = self.answer(number)
        if status is None:
            event.assoc.abort()
            return 0xC000
        response = pydicom.Dataset()
        response.Status = status
        if self.comment:
            response.ErrorComment = self.comment
        return response


def to(port: int, **more: Any) -> DimseDestination:
    fields: dict[str, Any] = {"host": LOOPBACK, "port": port, "ae_title": "ARCHIVE", "timeout_s": 5.0}
    return DimseDestination(**{**fields, **more})


def outgoing(path: Path) -> Outgoing:
    meta = pydicom.filereader.read_file_meta_info(path)
    return Outgoing(path, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, str(meta.TransferSyntaxUID))


def stored_digest(file: Outgoing) -> str:
    _, offset = split_dataset(file.path)
    return hashlib.sha256(file.path.read_bytes()[offset:]).hexdigest()


@pytest.fixture(scope="module")
def pet(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    """Ten slices as a scanner sends them, Explicit VR Little Endian."""
    study = make.study(tmp_path_factory.mktemp("pet"), pet_shape=(10, 32, 32))
    return [outgoing(path) for path in study.pet]


def changed(file: Outgoing, folder: Path, change: Callable[[pydicom.FileDataset], None]) -> Outgoing:
    dataset = pydicom.dcmread(file.path)
    change(dataset)
    path = folder / f"{len(list(folder.iterdir()))}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return outgoing(path)


@pytest.fixture
def segmentation(pet: list[Outgoing], tmp_path: Path) -> Outgoing:
    """A file of another SOP class (for negotiation, the class in its header is what counts)."""

    def relabel(dataset: pydicom.FileDataset) -> None:
        dataset.SOPClassUID = SEGMENTATION
        dataset.SOPInstanceUID = "2.25.1"

    return changed(pet[0], tmp_path, relabel)


@pytest.fixture
def implicit(pet: list[Outgoing], tmp_path: Path) -> Outgoing:
    def recode(dataset: pydicom.FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.SOPInstanceUID = "2.25.2"

    return changed(pet[1], tmp_path, recode)


@pytest.fixture
def disorderly(pet: list[Outgoing], tmp_path: Path) -> Outgoing:
    """An element out of order at the end, as no writer would leave it that reads and encodes what it sends."""
    file = changed(pet[2], tmp_path, lambda dataset: setattr(dataset, "SOPInstanceUID", "2.25.3"))
    with file.path.open("ab") as stream:
        stream.write(b"\x09\x00\x10\x00LO\x04\x00TEST")
    return file


def test_what_crosses_the_wire_is_what_is_stored(
    pet: list[Outgoing], segmentation: Outgoing, implicit: Outgoing, disorderly: Outgoing
) -> None:
    files = [*pet, segmentation, implicit, disorderly]
    with Archive() as archive:
        sent = list(send(files, to(archive.port)))
    assert [one.sop_instance_uid for one in sent] == [file.sop_instance_uid for file in files]
    assert all(one == Sent(one.sop_instance_uid, 0x0000, None) for one in sent)
    assert archive.digests == {file.sop_instance_uid: stored_digest(file) for file in files}
    assert archive.syntaxes["2.25.2"] == ImplicitVRLittleEndian
    assert archive.syntaxes["2.25.1"] == ExplicitVRLittleEndian
    assert archive.endings == ["released"]


def test_dcmtk_receives_the_stored_bytes(pet: list[Outgoing], tmp_path: Path) -> None:
    with peers.StoreScp(tmp_path) as storescp:
        sent = list(send(pet, to(storescp.port, ae_title="STORESCP")))
        received = storescp.received()
    assert [one.status for one in sent] == [0x0000] * 10
    for file in pet:
        assert stored_digest(outgoing(received[file.sop_instance_uid])) == stored_digest(file)


STATUSES = {
    0x0000: (None, False),
    0xB000: (None, False),
    0xB006: (None, False),
    0xB007: (None, False),
    0x0111: (None, False),
    0xA700: ("out-of-resources", False),
    0xA7FF: ("out-of-resources", False),
    0xA900: ("does-not-match-class", True),
    0xC000: ("cannot-understand", True),
    0xCFFF: ("cannot-understand", True),
    0x0122: ("sop-class-not-supported", True),
    0x0124: ("not-authorised", True),
    0x0117: ("invalid-sop-instance", True),
    0x0110: ("unknown-status", False),
    0x0210: ("unknown-status", False),
    0xFE00: ("unknown-status", False),
    0xB123: ("unknown-status", False),
}


def test_statuses_on_the_wire(pet: list[Outgoing]) -> None:
    answers = list(STATUSES)[:10]
    with Archive(answer=lambda number: answers[number], comment="out of " + "x" * 100) as archive:
        sent = list(send(pet, to(archive.port)))
    assert [one.status for one in sent] == answers
    assert [(one.error, one.permanent) for one in sent] == [STATUSES[status] for status in answers]
    # pynetdicom's SCP cuts Error Comment to the 64 characters of its VR
    assert {one.comment[:8] for one in sent} == {"out of x"}
    assert all(len(one.comment) <= 64 for one in sent)


@pytest.mark.parametrize(("status", "verdict"), STATUSES.items(), ids=[f"{status:04X}" for status in STATUSES])
def test_status_table(status: int, verdict: tuple[str | None, bool]) -> None:
    assert judge_store(status) == verdict


def test_abort_after_three_of_ten(pet: list[Outgoing]) -> None:
    with Archive(answer=lambda number: 0x0000 if number < 3 else None) as archive:
        sent = list(send(pet, to(archive.port)))
    assert [one.error for one in sent] == [None] * 3 + ["association-lost"] * 7
    assert not any(one.permanent for one in sent)
    assert archive.count == 4


@pytest.mark.parametrize("point", ["data set", "before response", "after response"])
def test_connection_cut_at_the_fourth(pet: list[Outgoing], point: Any) -> None:
    accepted = 4 if point == "after response" else 3
    with Archive() as archive, RecordingProxy((LOOPBACK, archive.port)) as proxy:
        proxy.cut_after(4, point)
        sent = list(send(pet, to(proxy.port)))
    assert [one.error for one in sent] == [None] * accepted + ["association-lost"] * (10 - accepted)


def test_no_response_within_the_time_out(pet: list[Outgoing]) -> None:
    asleep = threading.Event()

    def stall(number: int) -> int:
        if number == 1:
            asleep.wait(10)
        return 0x0000

    with Archive(answer=stall) as archive:
        started = time.monotonic()
        sent = list(send(pet[:3], to(archive.port, timeout_s=1.0)))
        asleep.set()
    assert [one.error for one in sent] == [None, "no-response", "association-lost"]
    assert time.monotonic() - started < 6


def test_peer_that_stops_reading(pet: list[Outgoing], tmp_path: Path) -> None:
    """Socket buffers full, window closed: the write itself must not block for ever."""

    def enlarge(dataset: pydicom.FileDataset) -> None:
        dataset.add_new(0x00091010, "OB", bytes(24 * 1024 * 1024))
        dataset.add_new(0x00090010, "LO", "TRACERD TEST")

    big = changed(pet[1], tmp_path, enlarge)
    # 24 MiB at the slowest assumed link would allow 200 s for the answer; the write gives up long before.
    with Archive() as archive, RecordingProxy((LOOPBACK, archive.port)) as proxy:
        sending = send([pet[0], big, pet[2]], to(proxy.port, timeout_s=1.0))
        first = next(sending)
        proxy.pause()
        started = time.monotonic()
        rest = list(sending)
        elapsed_s = time.monotonic() - started
        proxy.resume()
    assert first.error is None
    assert [one.error for one in rest] == ["association-lost"] * 2
    assert elapsed_s < 6


def test_consumer_that_stops_early_releases_the_association(pet: list[Outgoing]) -> None:
    with Archive() as archive:
        sending = send(pet, to(archive.port))
        next(sending)
        assert isinstance(sending, Iterator)
        sending.close()  # type: ignore[attr-defined]  # what a for loop left by break or an exception does
        peers.wait_until(lambda: archive.endings, 5)
    assert archive.endings == ["released"]
    assert archive.count == 1


def test_rejected_context_fails_only_its_own_files(pet: list[Outgoing], segmentation: Outgoing) -> None:
    with Archive(classes=[PositronEmissionTomographyImageStorage]) as archive:
        sent = list(send([pet[0], segmentation, pet[1]], to(archive.port)))
    assert [one.error for one in sent] == [None, "context-rejected", None]
    assert [one.permanent for one in sent] == [False, True, False]


def test_all_contexts_rejected(pet: list[Outgoing], tmp_path: Path) -> None:
    """DCMTK told to take Implicit VR only answers our Explicit VR contexts with a refusal, not by converting."""
    with peers.StoreScp(tmp_path, options=["+xi"]) as storescp:
        sent = list(send(pet[:2], to(storescp.port, ae_title="STORESCP")))
    assert [(one.status, one.error, one.permanent) for one in sent] == [(None, "context-rejected", True)] * 2


def test_more_contexts_than_an_association_holds(pet: list[Outgoing], tmp_path: Path) -> None:
    def renamed(number: int) -> Callable[[pydicom.FileDataset], None]:
        def rename(dataset: pydicom.FileDataset) -> None:
            dataset.SOPClassUID = f"2.25.77.{number}"

        return rename

    strange = [changed(pet[1], tmp_path, renamed(number)) for number in range(129)]
    with Archive() as archive:
        sent = list(send([pet[0], *strange], to(archive.port)))
    # 128 contexts: PET and 127 strange ones; two files find no room and wait for the next association
    assert [one.error for one in sent] == [None] + ["context-rejected"] * 127 + ["too-many-contexts"] * 2
    assert not sent[-1].permanent


def test_unreadable_file_does_not_stop_the_others(pet: list[Outgoing], tmp_path: Path) -> None:
    gone = replace(pet[1], path=tmp_path / "gone.dcm")
    with Archive() as archive:
        sent = list(send([pet[0], gone, pet[2]], to(archive.port)))
    assert [one.error for one in sent] == [None, "file-unreadable", None]


def test_nothing_to_send_connects_to_nobody() -> None:
    assert list(send([], to(peers.free_port()))) == []


def test_nobody_listens(pet: list[Outgoing]) -> None:
    with pytest.raises(PeerUnreachable) as caught:
        next(send(pet, to(peers.free_port())))
    assert caught.value.code == "no-connection"


def test_unknown_host(pet: list[Outgoing]) -> None:
    with pytest.raises(PeerUnreachable) as caught:
        next(send(pet, to(104, host="pacs.invalid")))
    assert caught.value.code == "host-unknown"


def test_peer_that_accepts_the_connection_and_says_nothing(pet: list[Outgoing]) -> None:
    with socket.create_server((LOOPBACK, 0)) as mute:
        started = time.monotonic()
        with pytest.raises(PeerUnreachable) as caught:
            next(send(pet, to(mute.getsockname()[1], timeout_s=1.0)))
    assert caught.value.code == "no-response"
    assert time.monotonic() - started < 6


def test_wrong_called_title_is_refused_for_good(pet: list[Outgoing]) -> None:
    with Archive(require_called_aet=True) as archive, pytest.raises(PeerRefused) as caught:
        next(send(pet, to(archive.port, ae_title="SOMEBODY")))
    assert caught.value.code == "association-rejected"
    assert "Called AE title not recognised" in str(caught.value)


def test_full_peer_is_refused_for_now(pet: list[Outgoing]) -> None:
    with Archive(associations_max=1) as archive:
        holding = send(pet, to(archive.port))
        next(holding)
        with pytest.raises(PeerUnreachable) as caught:
            next(send(pet, to(archive.port)))
        assert "Local limit exceeded" in str(caught.value)
        assert len(list(holding)) == 9


def test_nagle_is_off(pet: list[Outgoing], tmp_path: Path) -> None:
    """A command and a data set are two small writes: with Nagle's algorithm the second waits up to 40 ms for an ACK."""
    with peers.StoreScp(tmp_path) as storescp:
        durations = []
        sending = send(pet, to(storescp.port, ae_title="STORESCP"))
        for _ in pet:
            started = time.monotonic()
            next(sending)
            durations.append(time.monotonic() - started)
        assert list(sending) == []
    assert min(durations) < 0.03


def test_no_identifier_is_logged_or_printed(
    pet: list[Outgoing], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), Archive(answer=lambda number: 0x0000 if number < 2 else None) as archive:
        list(send(pet[:4], to(archive.port)))
    assert [record for record in caplog.records if record.name.startswith("pynetdicom")] == []
    assert capfd.readouterr() == ("", "")


def test_echo(tmp_path: Path) -> None:
    with Archive() as archive:
        assert 0 < echo(to(archive.port)) < 5
    with peers.StoreScp(tmp_path) as storescp:
        assert echo(to(storescp.port, ae_title="STORESCP")) < 5
    with pytest.raises(PeerUnreachable):
        echo(to(peers.free_port()))
    with Archive(require_called_aet=True) as archive, pytest.raises(PeerRefused):
        echo(to(archive.port, ae_title="SOMEBODY"))


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own, and what it signs, as PEM files."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name
    certificate: Path

    @classmethod
    def found(cls, folder: Path) -> Authority:
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        authority = cls(folder, key, name, folder / "ca.pem")
        authority._write("ca", key.public_key(), name, x509.BasicConstraints(ca=True, path_length=None))
        return authority

    def sign(self, name: str, address: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(
            name, key.public_key(), subject, x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        )
        path = self.folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        path.chmod(0o600)
        return certificate, path

    def _write(self, stem: str, key: Any, subject: x509.Name, extension: x509.ExtensionType) -> Path:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{stem}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def server_tls(authority: Authority, address: str, *, client_ca: Path | None = None) -> Any:
    import ssl

    certificate, key = authority.sign(f"server {address}", address)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls(pet: list[Outgoing], tmp_path: Path) -> None:
    ours, theirs = Authority.found(tmp_path / "ours"), Authority.found(tmp_path / "theirs")
    certificate, key = ours.sign("node", LOOPBACK)
    known = DestinationTls(ca=ours.certificate, certificate=certificate, key=key)
    with Archive(tls=server_tls(ours, LOOPBACK, client_ca=ours.certificate)) as archive:
        sent = list(send(pet[:3], to(archive.port, tls=known)))
        assert [one.status for one in sent] == [0x0000] * 3
        assert archive.digests == {file.sop_instance_uid: stored_digest(file) for file in pet[:3]}
        for stranger in (None, DestinationTls(ca=ours.certificate), replace_ca(known, theirs.certificate)):
            with pytest.raises(PeerUnreachable):
                next(send(pet, to(archive.port, tls=stranger, timeout_s=1.0)))
        assert archive.count == 3


def replace_ca(tls: DestinationTls, ca: Path) -> DestinationTls:
    return DestinationTls(ca=ca, certificate=tls.certificate, key=tls.key)


def test_tls_checks_the_host_and_never_falls_back_to_plain(pet: list[Outgoing], tmp_path: Path) -> None:
    ours = Authority.found(tmp_path / "ours")
    tls = DestinationTls(ca=ours.certificate)
    with Archive(tls=server_tls(ours, "192.0.2.1")) as impostor, pytest.raises(PeerUnreachable):
        next(send(pet, to(impostor.port, tls=tls, timeout_s=1.0)))
    assert impostor.count == 0
    with Archive() as plain, pytest.raises(PeerUnreachable):
        next(send(pet, to(plain.port, tls=tls, timeout_s=1.0)))
    assert plain.count == 0


def test_broken_tls_files(pet: list[Outgoing], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(PeerUnreachable) as caught:
        next(send(pet, to(104, tls=DestinationTls(ca=tmp_path / "ca.pem"))))
    assert caught.value.code == "tls-files"
