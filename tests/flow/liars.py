"""Archives that keep their word and archives that do not: pynetdicom servers, each with a will of its own."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    PositronEmissionTomographyImageStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

LOOPBACK = "127.0.0.1"
STORED = (PositronEmissionTomographyImageStorage, SegmentationStorage, Comprehensive3DSRStorage)
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
NO_SUCH_INSTANCE = 0x0112
Verdict = tuple[list[Dataset], list[Dataset]]


@dataclass
class Archive:
    """An archive. What it does not say otherwise is honest.

    store(n) : status of the n-th C-STORE, from 0; None aborts instead
    keeps(n) : whether it really keeps what came with the n-th C-STORE
    alters : changes an object before it is kept
    silence_s : how long it thinks about each C-STORE
    report : "same" association, "new" association (to `node_port`), or "never"
    says(kept, uid) : failure reason that is reported for an instance, None for "committed"
    request_status : its answer to N-ACTION
    """

    store: Callable[[int], int | None] = lambda _: 0x0000
    keeps: Callable[[int], bool] = lambda _: True
    alters: Callable[[Dataset], None] = lambda _: None
    silence_s: float = 0.0
    report: str = "same"
    says: Callable[[bool, str], int | None] = lambda kept, _: None if kept else NO_SUCH_INSTANCE
    request_status: int = 0x0000
    classes: Sequence[str] = STORED
    services: Sequence[str] = (
        StorageCommitmentPushModel,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
    )
    refuses_callers: bool = False
    may_report: threading.Event = field(default_factory=threading.Event)
    node_port: int = 0
    held: dict[str, Dataset] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[int | None] = field(default_factory=list)
    """Statuses with which its reports were answered."""

    def __enter__(self) -> Self:
        self.may_report.set()
        entity = AE("ARCHIVE")
        entity.require_calling_aet = ["SOMEBODYELSE"] if self.refuses_callers else []
        entity.maximum_associations = 50
        for sop_class in self.classes:
            entity.add_supported_context(sop_class, SYNTAXES, scu_role=True, scp_role=True)
        for service in self.services:
            entity.add_supported_context(service, SYNTAXES)
        handlers: Any = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._request),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
        ]
        self._server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.server_address[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()

    def accept(self, sop_class: str) -> None:
        """Take another class from now on."""
        context = build_context(sop_class, SYNTAXES)
        self._server.contexts = [*self._server.contexts, context]

    def _store(self, event: evt.Event) -> int:
        number = len(self.stored)
        dataset = event.dataset
        self.stored.append(str(dataset.SOPInstanceUID))
        time.sleep(self.silence_s)
        status = self.store(number)
        if status is None:
            event.assoc.abort()
            return 0xC000
        accepted = status == 0x0000 or status >> 12 == 0xB
        if accepted and self.keeps(number):
            self.alters(dataset)
            dataset.file_meta = event.file_meta
            self.held[str(dataset.SOPInstanceUID)] = dataset
        return status

    def _request(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        self.requests.append(str(asked.TransactionUID))
        if self.request_status == 0x0000 and self.report != "never":
            threading.Thread(target=self._report, args=(event.assoc, asked), daemon=True).start()
        return self.request_status, None

    def _report(self, association: Any, asked: Dataset) -> None:
        self.may_report.wait(60)
        kept, failed = [], []
        for item in asked.ReferencedSOPSequence:
            reason = self.says(item.ReferencedSOPInstanceUID in self.held, item.ReferencedSOPInstanceUID)
            if reason is not None:
                item.FailureReason = reason
            (kept if reason is None else failed).append(item)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        if self.report == "same":
            time.sleep(0.05)  # the answer to the request goes first
            self._send(association, report)
        else:
            self._send_anew(report)

    def _send(self, association: Any, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        status, _ = association.send_n_event_report(
            report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(status.get("Status"))

    def _send_anew(self, report: Dataset) -> None:
        entity = AE("ARCHIVE")
        association = entity.associate(
            LOOPBACK,
            self.node_port,
            contexts=[build_context(StorageCommitmentPushModel)],
            ae_title="TRACERD",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        if association.is_established:
            assert association.accepted_contexts[0].as_scp, "the role in which an archive reports was not granted"
            self._send(association, report)
            association.release()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for dataset in self._matching(event.identifier):
            answer = Dataset()
            answer.QueryRetrieveLevel = "IMAGE"
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(answer, keyword, dataset[keyword].value)
            yield 0xFF00, answer

    def _get(self, event: evt.Event) -> Iterator[Any]:
        matching = self._matching(event.identifier)
        yield len(matching)
        for dataset in matching:
            yield 0xFF00, dataset

    def _matching(self, query: Dataset) -> list[Dataset]:
        wanted = query.get("SOPInstanceUID") or None
        return [
            dataset
            for uid, dataset in list(self.held.items())
            if dataset.SeriesInstanceUID == query.SeriesInstanceUID and wanted in {None, uid}
        ]
