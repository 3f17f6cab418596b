"""A listener at work for a test, and peers that do what no DICOM library lets them do.

The bytes that go to the listener are made by pynetdicom and the files are read by pydicom: what they agree on with us
is the standard, not our own code.
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import psutil
import pydicom
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.transport import AddressInformation

from tests.processes import Server, free_port, process_tree, wait_until

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
CALLED, CALLING = "TRACERD", "PETCT1"
PET = PositronEmissionTomographyImageStorage
VERIFICATION = UID("1.2.840.10008.1.1")
SCANNER = {"name": "petct1", "ae_title": CALLING, "addresses": ["127.0.0.1"]}


@dataclass
class Listening:
    """`python -m dicom_io.listener` with a data folder and free ports of its own.

    limits, listener : values of the configuration's `listener.limits` and `listener`
    doors : further keys of each door (TLS, AE titles); one door by default
    patch : Python source that every process of the listener runs before anything else (faults of the system)
    """

    folder: Path
    limits: Mapping[str, Any] = field(default_factory=dict)
    listener: Mapping[str, Any] = field(default_factory=dict)
    doors: Sequence[Mapping[str, Any]] = ({},)
    peers: Sequence[Mapping[str, Any]] = (SCANNER,)
    allow_unknown_peers: bool = False
    wrapper: Sequence[str] = ()
    patch: str = ""

    def __post_init__(self) -> None:
        self.data = self.folder / "data"
        self.ports = [free_port() for _ in self.doors]
        self.log = self.folder / "listener.log"
        (self.folder / "patch").mkdir(parents=True)
        (self.folder / "patch" / "sitecustomize.py").write_text(self.patch)
        paths = os.pathsep.join((str(self.folder / "patch"), str(REPOSITORY)))
        (self.folder / "node.yaml").write_text(yaml.safe_dump(self._configuration()))
        listener = [sys.executable, "-m", "dicom_io.listener", "--config", str(self.folder / "node.yaml")]
        command = ["env", f"PYTHONPATH={paths}", *listener]
        self._server = Server("listener", command, self.ports[-1], self.log, self.wrapper)

    def _configuration(self) -> dict[str, Any]:
        doors = [{"host": LOOPBACK, "port": port, **door} for port, door in zip(self.ports, self.doors, strict=True)]
        limits = {"free_bytes_min": "64 MiB", **self.limits}
        return {
            "data": str(self.data),
            "timezone": "Europe/Berlin",
            "listener": {"doors": doors, "limits": limits, **self.listener},
            "peers": [dict(peer) for peer in self.peers],
            "allow_unknown_peers": self.allow_unknown_peers,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def start(self) -> None:
        seen = len(self.events("listening")) if self.log.exists() else 0
        self._server.start()
        wait_until(lambda: len(self.events("listening")) > seen, 20)

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def parent(self) -> psutil.Process:
        """The listener's own first process, whatever was put before its command."""
        return next(each for each in process_tree(self._server.pid) if "dicom_io.listener" in each.cmdline())

    @property
    def children(self) -> list[psutil.Process]:
        return self.parent.children()

    @property
    def inbox(self) -> list[Path]:
        return sorted((self.data / "spool" / "inbox").glob("*"))

    @property
    def tmp(self) -> list[Path]:
        return sorted((self.data / "spool" / "tmp").glob("*"))

    def ledger(self, folder: str) -> list[dict[str, Any]]:
        """The files of run/associations or run/ended, in the order in which the associations began."""
        found = []
        for path in sorted((self.data / "run" / folder).glob("*.json")):
            with suppress(FileNotFoundError):  # it has just ended
                found.append(json.loads(path.read_text()))
        return found

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """The associations that ended, once there are `count` of them."""
        wait_until(lambda: len(self.ledger("ended")) >= count, 10)
        return self.ledger("ended")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines about one kind of event; every line is JSON, or this fails."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for line in lines if (event := json.loads(line))["event"] == name]


# --- peers that behave ----------------------------------------------------------------------------------------------


@contextmanager
def associated(port: int, **options: Any) -> Iterator[Association]:
    """An association of pynetdicom for C-ECHO and PET images; released in the end, if it is still there."""
    association = associate(port, **options)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def associate(
    port: int,
    *,
    calling: str = CALLING,
    called: str = CALLED,
    source: str = LOOPBACK,
    contexts: Any = None,
    tls: Any = None,
) -> Association:
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60  # a busy disk may take its time
    wanted = contexts or [build_context(VERIFICATION), build_context(PET, ExplicitVRLittleEndian)]
    return ae.associate(LOOPBACK, port, wanted, ae_title=called, bind_address=(source, 0), tls_args=tls)


def pet_slice(index: int = 0, size: int = 4096) -> Dataset:
    """A data set with `size` bytes of pixels; enough for a listener, which looks at nothing in it."""
    dataset = Dataset()
    dataset.SOPClassUID = PET
    dataset.SOPInstanceUID = UID(f"1.2.826.0.1.3680043.10.1.{index}")
    dataset.PatientName = "Secret^Patient"
    dataset.PatientID = "TOPSECRET"
    dataset.Modality = "PT"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.SamplesPerPixel = 64, size // 128, 16, 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(index % 251 for index in range(size))
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """A data set as it travels, Explicit VR Little Endian."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return data_set_of(buffer.getvalue())


def data_set_of(file: bytes) -> bytes:
    """What follows the File Meta Information of a Part 10 file."""
    meta = pydicom.dcmread(BytesIO(file), stop_before_pixels=True).file_meta
    # (0002,0000) has 12 bytes with its header; its value counts the bytes behind it (PS3.10 7.1).
    return file[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


# --- peers that do not ----------------------------------------------------------------------------------------------


def associate_request(calling: str = CALLING, called: str = CALLED, maximum_length: int = 16384) -> bytes:
    """A-ASSOCIATE-RQ for Verification (context 1) and PET images (context 3)."""
    contexts = [build_context(VERIFICATION), build_context(PET, ExplicitVRLittleEndian)]
    for context_id, context in zip((1, 3), contexts, strict=True):
        context.context_id = context_id
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = maximum_length
    implementation.implementation_class_uid = UID("1.2.826.0.1.3680043.10.2")
    request = A_ASSOCIATE()
    request.application_context_name = UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title, request.called_ae_title = calling, called
    request.calling_presentation_address = AddressInformation(LOOPBACK, 1)
    request.called_presentation_address = AddressInformation(LOOPBACK, 2)
    request.presentation_context_definition_list = contexts
    request.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(request).encode())


def store_request(
    data_set: bytes | None, *, sop_instance_uid: str = "1.2.3", sop_class_uid: str = PET, context: int = 3
) -> list[bytes]:
    """The P-DATA-TF PDUs of a C-STORE-RQ, its command first; `None` says that there is no data set."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = UID("1.2"), UID("1.2")
    primitive.DataSet = BytesIO(data_set if data_set is not None else b"")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.AffectedSOPClassUID = sop_class_uid
    message.command_set.AffectedSOPInstanceUID = sop_instance_uid
    message.command_set.CommandDataSetType = 0x0101 if data_set is None else 0x0001
    pdus = [bytes(P_DATA_TF(piece).encode()) for piece in message.encode_msg(context, 65536)]
    return [*pdus, fragment(b"", context=context)] if data_set == b"" else pdus


def echo_request(context: int = 1) -> bytes:
    primitive = C_ECHO()
    primitive.MessageID, primitive.AffectedSOPClassUID = 1, VERIFICATION
    message = C_ECHO_RQ()
    message.primitive_to_message(primitive)
    return b"".join(bytes(P_DATA_TF(piece).encode()) for piece in message.encode_msg(context, 0))


def fragment(piece: bytes, *, context: int = 3, is_last: bool = True, is_command: bool = False) -> bytes:
    """One P-DATA-TF PDU with one presentation data value (PS3.8 9.3.5)."""
    value = struct.pack(">LBB", len(piece) + 2, context, is_command | is_last << 1) + piece
    return struct.pack(">BxL", 4, len(value)) + value


RELEASE = bytes.fromhex("05 00 00000004 00000000")
ABORT = bytes.fromhex("07 00 00000004 00000000")


class RawPeer:
    """A TCP connection that sends any bytes and reads PDUs."""

    def __init__(self, port: int, source: str = LOOPBACK, timeout: float = 15) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout, (source, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def pdu(self) -> tuple[int, bytes] | None:
        """Type and body of the next PDU; None when the listener closed."""
        try:
            header = self._read(6)
            return (header and (header[0], self._read(int.from_bytes(header[2:], "big")))) or None
        except ConnectionResetError:
            return None

    def _read(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            piece = self.socket.recv(count - len(received))
            if not piece:
                return b""
            received += piece
        return received

    def associate(self, **titles: Any) -> None:
        self.send(associate_request(**titles))
        answer = self.pdu()
        assert answer is not None and answer[0] == 2, answer

    def status(self) -> tuple[int, str]:
        """Status and Error Comment of the next response."""
        answer = self.pdu()
        assert answer is not None and answer[0] == 4, answer
        command = pydicom.filereader.read_dataset(BytesIO(answer[1][6:]), is_implicit_VR=True, is_little_endian=True)
        return command.Status, command.get("ErrorComment", "")

    def is_closed(self, within: float) -> bool:
        """Whether the listener closes the connection, whatever it says before."""
        self.socket.settimeout(within)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        return True
