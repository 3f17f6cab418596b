"""C-STORE SCU (PS3.4 B): stored files go out byte for byte, and every instance gets its own verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from config.destinations import DimseDestination, TransferSyntax
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.requestor import Context, associated
from dicom_io.statuses import judge_store

VERIFICATION: Final = "1.2.840.10008.1.1"
CONTEXTS_MAX: Final = 128
SYNTAXES: Final[Mapping[TransferSyntax, str]] = {
    "explicit": str(ExplicitVRLittleEndian),
    "implicit": str(ImplicitVRLittleEndian),
    "deflated": str(DeflatedExplicitVRLittleEndian),
}
COMMENT_CHARACTERS_MAX: Final = 64
SLOWEST_BYTES_PER_S: Final = 125_000
"""A link of 1 Mbit/s: the answer to a large object may take as long as sending it takes."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stored Part 10 file, what its File Meta says, and how long it is [bytes].

    ours : we wrote it, uncompressed or with compressed pixels; it may be re-encoded
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int = 0
    ours: bool = False

    def contexts(self, destination: DimseDestination) -> list[Context]:
        """The presentation contexts in which it may go, the best one first.

        What others sent us goes as it is: it is not decoded here.
        """
        syntaxes = [SYNTAXES[name] for name in destination.transfer_syntaxes] if self.ours else []
        if self.transfer_syntax_uid != ExplicitVRLittleEndian or not self.ours:  # compressed pixels save more
            syntaxes.insert(0, self.transfer_syntax_uid)
        return [(self.sop_class_uid, syntax) for syntax in syntaxes]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one instance; accepted where `error` is None.

    status : the peer's C-STORE status, None where there was no answer
    error : short code of why it is not accepted; permanent : repeating it will not help
    comment : the peer's Error Comment (0000,0902): its words, perhaps with identifiers, not for logs
    """

    sop_instance_uid: str
    status: int | None
    error: str | None
    permanent: bool = False
    comment: str = ""


def send(files: Sequence[Outgoing], destination: DimseDestination) -> Iterator[Sent]:
    """Send files in one association, in their order; yields a verdict per file as soon as it is known.

    A presentation context that the peer rejects fails only its own files. Once the association is lost, the rest are
    "association-lost", not permanent.

    Raises
    ------
    PeerUnreachable
        Before the first verdict: no connection, no answer, or rejected for now.
    PeerRefused
        Before the first verdict: rejected for good.
    """
    possible = [file.contexts(destination) for file in files]
    contexts = list(dict.fromkeys(context for several in possible for context in several))[:CONTEXTS_MAX]
    if not contexts:
        return
    with associated(destination, contexts) as association:
        usable = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        for number, (file, several) in enumerate(zip(files, possible, strict=True)):
            accepted = next((context for context in several if context in usable), None)
            if accepted is not None:
                yield _store(association, file, accepted, number % 0xFFFF + 1, float(destination.timeout_s))
            elif set(several) <= set(contexts):
                yield Sent(file.sop_instance_uid, None, "context-rejected", permanent=True)
            else:
                yield Sent(file.sop_instance_uid, None, "too-many-contexts")


def echo(destination: DimseDestination) -> float:
    """C-ECHO; the seconds from connecting to the answer.

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `send`; also where the answer is missing or not success.
    """
    started = time.monotonic()
    with associated(destination, [(VERIFICATION, ImplicitVRLittleEndian)]) as association:
        if not association.is_established:
            raise PeerRefused("the peer does not offer verification", code="context-rejected")
        status = association.send_c_echo().get("Status")
    if status is None:
        raise PeerUnreachable("no answer to C-ECHO", code="no-response")
    if status != 0x0000:
        raise PeerRefused(f"C-ECHO answered 0x{status:04X}", code="echo-refused")
    return time.monotonic() - started


def _store(association: Association, file: Outgoing, context: Context, message_id: int, timeout_s: float) -> Sent:
    """One C-STORE on an association that may be gone."""
    if not association.is_established:
        return Sent(file.sop_instance_uid, None, "association-lost")
    try:
        with file.path.open("rb") as stream:
            size = stream.seek(0, 2)
    except OSError:
        return Sent(file.sop_instance_uid, None, "file-unreadable")
    association.dimse_timeout = timeout_s + size / SLOWEST_BYTES_PER_S
    started = time.monotonic()
    try:
        as_stored = context[1] == file.transfer_syntax_uid
        response = association.send_c_store(file.path if as_stored else recoded(file.path, context[1]), message_id)
    except RuntimeError:  # pynetdicom's word for an association that ended since we looked
        return Sent(file.sop_instance_uid, None, "association-lost")
    except OSError:
        association.abort()  # half of a message is out: nothing else can follow it
        return Sent(file.sop_instance_uid, None, "file-unreadable")
    if "Status" not in response:
        silent = time.monotonic() - started >= association.dimse_timeout
        association.abort()
        return Sent(file.sop_instance_uid, None, "no-response" if silent else "association-lost")
    error, permanent = judge_store(response.Status)
    comment = str(response.get("ErrorComment", ""))[:COMMENT_CHARACTERS_MAX]
    return Sent(file.sop_instance_uid, response.Status, error, permanent, comment)


def recoded(path: Path, transfer_syntax_uid: str) -> Dataset:
    """An object of ours in another encoding, its pixels not compressed; pynetdicom encodes it as its File Meta says."""
    written = BytesIO()
    dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.decompress(generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dcmwrite(written, dataset, enforce_file_format=True)
    written.seek(0)  # and read anew: pynetdicom refuses a data set that was read in another encoding than it names
    return dcmread(written)
