"""Storage commitment, Push Model (PS3.4 Annex J): who holds an instance says so, instance by instance.

As user we ask a destination (`ask`), and hear its report on the same association or, later, at a door of ours. As
provider we are asked by scanners and tell them on an association of our own (`tell`). What comes in through a door is
read by `read`, in the sandbox like everything that strangers sent.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from dicom_io.elements import Elements, EncodedFile, Limits, read_file
from dicom_io.errors import PeerRefused, PeerUnreachable, UnreadableObject
from dicom_io.offer import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from engines.contract import Json

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from config.destinations import DimseDestination

TRANSACTION_UID: Final = 0x00081195
FAILURE_REASON: Final = 0x00081197
FAILED_SOP_SEQUENCE: Final = 0x00081198
REFERENCED_SOP_SEQUENCE: Final = 0x00081199
REFERENCED_SOP_CLASS_UID: Final = 0x00081150
REFERENCED_SOP_INSTANCE_UID: Final = 0x00081155
CALLING_AE: Final = (0x00020017, 0x00020016)
CALLED_AE: Final = (0x00020018,)
UID: Final = re.compile(r"[0-9][0-9.]{0,63}")
ITEMS_MAX: Final = 50_000
PROCESSING_FAILURE: Final = 0x0110
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True)
class Reference:
    """One SOP instance of a statement.

    failure : Failure Reason (0008,1197), None where there is none
    """

    sop_class_uid: str
    sop_instance_uid: str
    failure: int | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A request ("do you keep these?") or a report ("these I keep, those I do not"); PS3.4 tables J.3-1 and J.3-2.

    referenced : those asked about, or those that are kept
    failed : those that are not kept
    calling_ae, called_ae : of the association on which it came, where that is known
    """

    transaction_uid: str
    referenced: tuple[Reference, ...]
    failed: tuple[Reference, ...] = ()
    calling_ae: str | None = None
    called_ae: str | None = None

    def to_json(self) -> dict[str, Json]:
        """As a JSON object; `from_json` takes it back."""
        return {
            "transaction_uid": self.transaction_uid,
            "referenced": [[one.sop_class_uid, one.sop_instance_uid, one.failure] for one in self.referenced],
            "failed": [[one.sop_class_uid, one.sop_instance_uid, one.failure] for one in self.failed],
            "calling_ae": self.calling_ae,
            "called_ae": self.called_ae,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Self:
        """The statement that `to_json` wrote."""
        return cls(
            document["transaction_uid"],
            tuple(Reference(*one) for one in document["referenced"]),
            tuple(Reference(*one) for one in document["failed"]),
            document["calling_ae"],
            document["called_ae"],
        )


Hear = Callable[[Statement], object]
"""What is done with a report that came in; the peer hears "success" only when it returns."""


def read(path: Path, limits: Limits) -> Statement:
    """Read a request or a report that lies in the inbox.

    Raises
    ------
    UnreadableObject
        Structure, as `elements.read_file`; no-transaction, no-references, illegal-uid, too-many-elements.
    """
    file = read_file(path, limits)
    transaction_uid = _uid_of(file, file.elements, TRANSACTION_UID, "no-transaction")
    referenced = _references(file, REFERENCED_SOP_SEQUENCE)
    failed = _references(file, FAILED_SOP_SEQUENCE)
    if not referenced and not failed:
        raise UnreadableObject("storage commitment: expected references, got none", code="no-references")
    return Statement(transaction_uid, referenced, failed, _title(file, CALLING_AE), _title(file, CALLED_AE))


def _references(file: EncodedFile, tag: int) -> tuple[Reference, ...]:
    element = file.elements.get(tag)
    items = element.items if element is not None and element.items is not None else ()
    if len(items) > ITEMS_MAX:
        text = f"storage commitment: expected at most {ITEMS_MAX} references, got {len(items)}"
        raise UnreadableObject(text, code="too-many-elements")
    return tuple(
        Reference(
            _uid_of(file, item, REFERENCED_SOP_CLASS_UID, "illegal-uid"),
            _uid_of(file, item, REFERENCED_SOP_INSTANCE_UID, "illegal-uid"),
            _failure_of(file, item),
        )
        for item in items
    )


def _uid_of(file: EncodedFile, elements: Elements, tag: int, code: str) -> str:
    value = file.value(elements[tag]) if tag in elements else b""
    text = value.strip(b"\x00 ").decode("ascii", "replace")
    if UID.fullmatch(text) is None:
        raise UnreadableObject(f"({tag >> 16:04x},{tag & 0xFFFF:04x}): expected a UID", code=code)
    return text


def _failure_of(file: EncodedFile, item: Elements) -> int | None:
    value = file.value(item[FAILURE_REASON]) if FAILURE_REASON in item else b""
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _title(file: EncodedFile, tags: Iterable[int]) -> str | None:
    for tag in tags:
        if tag in file.meta:
            return file.value(file.meta[tag]).decode("ascii", "replace").strip("\x00 ") or None
    return None


# --- as user: a destination is asked --------------------------------------------------------------------------------


def ask(destination: DimseDestination, statement: Statement, *, wait_s: float, hear: Hear) -> bool:
    """Ask a destination for storage commitment and wait a while for its report on the same association.

    wait_s : how long to wait after the request was accepted [s]
    hear : given each report that comes, in another thread; the peer is told "success" after it has returned

    Returns
    -------
    Whether the report on this transaction came.

    Raises
    ------
    PeerUnreachable
        No association, no answer, or a refusal that may pass.
    PeerRefused
        The peer does not offer storage commitment, or refuses this request for good.
    """
    from pynetdicom import evt
    from pynetdicom.pdu import P_DATA_TF

    from dicom_io.requestor import associated

    heard: queue.Queue[str] = queue.Queue()
    unanswered: list[str] = []

    def on_report(event: Event) -> tuple[int, None]:
        report = _report_of(event.event_information)
        if report is None:
            return PROCESSING_FAILURE, None
        hear(report)
        unanswered.append(report.transaction_uid)
        return 0x0000, None

    def on_sent(event: Event) -> None:
        # only when the answer to a report has left may the association be released
        if unanswered and isinstance(event.pdu, P_DATA_TF):
            heard.put(unanswered.pop(0))

    contexts = [(STORAGE_COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN)]
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_PDU_SENT, on_sent)]
    with associated(destination, contexts, handlers=handlers) as association:
        _refuse_without_context(association)
        _request(association, statement)
        return _came(heard, statement.transaction_uid, association, wait_s)


def _request(association: Association, statement: Statement) -> None:
    """N-ACTION (PS3.4 J.3.2)."""
    from dicom_io.requestor import check

    try:
        status, _ = association.send_n_action(
            _dataset(statement), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, msg_id=1
        )
    except RuntimeError as error:  # pynetdicom's word for an association that ended since we looked
        raise PeerUnreachable("the association ended before the request", code="association-lost") from error
    check("storage commitment request", status.get("Status"))


def _came(heard: queue.Queue[str], transaction_uid: str, association: Association, wait_s: float) -> bool:
    """Wait for the report on one transaction, for as long as the association lasts and not longer than `wait_s`."""
    slices = max(1, round(wait_s / 0.1))
    for _ in range(slices):
        try:
            if heard.get(timeout=wait_s / slices) == transaction_uid:
                return True
        except queue.Empty:
            if not association.is_established:
                return False
    return False


def _report_of(dataset: Dataset) -> Statement | None:
    """The report of an N-EVENT-REPORT, None where it is none."""
    referenced, failed = dataset.get("ReferencedSOPSequence") or [], dataset.get("FailedSOPSequence") or []
    transaction_uid = dataset.get("TransactionUID")
    if not transaction_uid or not (referenced or failed):
        return None
    return Statement(str(transaction_uid), tuple(map(_reference, referenced)), tuple(map(_reference, failed)))


def _reference(item: Dataset) -> Reference:
    reason = item.get("FailureReason")
    return Reference(
        str(item.get("ReferencedSOPClassUID", "")),
        str(item.get("ReferencedSOPInstanceUID", "")),
        reason if isinstance(reason, int) else None,
    )


# --- as provider: a scanner is told ---------------------------------------------------------------------------------


def tell(address: DimseDestination, statement: Statement) -> None:
    """Report to the peer that asked, on an association of our own in which we are the SCP (PS3.4 J.3.3).

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `ask`.
    """
    from dicom_io.requestor import associated, check

    contexts = [(STORAGE_COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN)]
    with associated(address, contexts, scp_of=[STORAGE_COMMITMENT]) as association:
        _refuse_without_context(association)
        try:
            status, _ = association.send_n_event_report(
                _dataset(statement),
                2 if statement.failed else 1,
                STORAGE_COMMITMENT,
                STORAGE_COMMITMENT_INSTANCE,
                msg_id=1,
            )
        except RuntimeError as error:
            raise PeerUnreachable("the association ended before the report", code="association-lost") from error
        check("storage commitment report", status.get("Status"))


def _refuse_without_context(association: Association) -> None:
    if not association.is_established:
        raise PeerRefused("the peer does not offer storage commitment", code="commitment-not-offered")


def _dataset(statement: Statement) -> Dataset:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.TransactionUID = statement.transaction_uid
    for keyword, references in (
        ("ReferencedSOPSequence", statement.referenced),
        ("FailedSOPSequence", statement.failed),
    ):
        items = [_item(reference) for reference in references]
        if items:
            setattr(dataset, keyword, items)
    return dataset


def _item(reference: Reference) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.failure is not None:
        item.FailureReason = reference.failure
    return item
