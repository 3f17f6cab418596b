"""C-STORE SCU (PS3.4 B): stored files go out byte for byte, and every instance gets its own verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association

from config.settings import Destination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.requestor import Context, associated
from dicom_io.statuses import judge_store

VERIFICATION: Final = "1.2.840.10008.1.1"
CONTEXTS_MAX: Final = 128
COMMENT_CHARACTERS_MAX: Final = 64
SLOWEST_BYTES_PER_S: Final = 125_000
"""A link of 1 Mbit/s: the answer to a large object may take as long as sending it takes."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stored Part 10 file and what its File Meta says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> Context:
        """The presentation context it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


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


def send(files: Sequence[Outgoing], destination: Destination) -> Iterator[Sent]:
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
    contexts = list(dict.fromkeys(file.context for file in files))[:CONTEXTS_MAX]
    if not contexts:
        return
    with associated(destination, contexts) as association:
        usable = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        for number, file in enumerate(files):
            if file.context not in contexts:
                yield Sent(file.sop_instance_uid, None, "too-many-contexts")
            elif file.context not in usable:
                yield Sent(file.sop_instance_uid, None, "context-rejected", permanent=True)
            else:
                yield _store(association, file, number % 0xFFFF + 1, float(destination.timeout_s))


def echo(destination: Destination) -> float:
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


def _store(association: Association, file: Outgoing, message_id: int, timeout_s: float) -> Sent:
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
        response = association.send_c_store(file.path, msg_id=message_id)
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
