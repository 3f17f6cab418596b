"""Looking for what was sent: C-FIND at IMAGE level, and C-GET of what was found (PS3.4 Annex C, Study Root)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # pynetdicom fills its module when it is loaded
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from config.destinations import DimseDestination
from dicom_io.errors import PeerRefused, PeerUnreachable
from dicom_io.requestor import associated, check

FIND: Final = str(StudyRootQueryRetrieveInformationModelFind)
GET: Final = str(StudyRootQueryRetrieveInformationModelGet)
PENDING: Final = (0xFF00, 0xFF01)
MATCHES_MAX: Final = 100_000
"""Answers to one query that are read; a series has fewer instances."""
NOT_WANTED: Final = 0xA900
WITH_FAILURES: Final = 0xB000
"""Of C-GET: some sub-operations failed; what came is looked at, what did not come is missed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An instance that a peer should have, where in the hierarchy, and how long its file is [bytes]."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    size: int = 0

    @property
    def series(self) -> tuple[str, str]:
        """Study and series."""
        return self.study_instance_uid, self.series_instance_uid


def find(destination: DimseDestination, wanted: Sequence[Wanted]) -> set[str]:
    """Which of these instances a peer finds, by SOP Instance UID: one C-FIND per series.

    Raises
    ------
    PeerUnreachable
        No association, no answer, or a refusal that may pass.
    PeerRefused
        The peer does not offer Study Root C-FIND, or refuses for good.
    """
    with associated(destination, [(FIND, ImplicitVRLittleEndian)]) as association:
        if not association.is_established:
            raise PeerRefused("the peer does not offer C-FIND (Study Root)", code="query-not-offered")
        found: set[str] = set()
        for series, members in groupby(sorted(wanted, key=_order), key=lambda one: one.series):
            found |= {one.sop_instance_uid for one in members} & _matches(association, series, wanted)
    return found


def _order(one: Wanted) -> tuple[str, str, str]:
    return (*one.series, one.sop_instance_uid)


def _matches(association: Association, series: tuple[str, str], wanted: Sequence[Wanted]) -> set[str]:
    """The SOP Instance UIDs a peer lists for a series; a single one is asked for by its UID."""
    members = [one.sop_instance_uid for one in wanted if one.series == series]
    query = _identifier(series, members[0] if len(members) == 1 else "")
    return {str(answer.get("SOPInstanceUID", "")) for answer in _answers(association, query)}


def _answers(association: Association, query: Dataset) -> Iterator[Dataset]:
    try:
        for number, (status, identifier) in enumerate(association.send_c_find(query, FIND)):
            if status.get("Status") not in PENDING:
                check("C-FIND", status.get("Status"))
                return
            if number >= MATCHES_MAX:
                association.abort()
                raise PeerUnreachable(
                    f"C-FIND: more than {MATCHES_MAX} answers for one series", code="too-many-answers"
                )
            if identifier is not None:
                yield identifier
    except RuntimeError as error:  # pynetdicom's word for an association that ended since we looked
        raise PeerUnreachable("C-FIND: the association ended", code="association-lost") from error


def fetch(destination: DimseDestination, wanted: Sequence[Wanted], folder: Path) -> dict[str, Path]:
    """Get instances back by C-GET, uncompressed, as files in a folder: SOP Instance UID → file of those that came.

    Raises
    ------
    PeerUnreachable, PeerRefused
        As `find`, with "retrieve-not-offered".
    """
    came: dict[str, Path] = {}
    expected = {one.sop_instance_uid for one in wanted}

    def keep(event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID) if isinstance(event.request, C_STORE) else ""
        if uid not in expected:
            return NOT_WANTED
        path = folder / f"{len(came)}.dcm"
        path.write_bytes(event.encoded_dataset())
        came[uid] = path
        return 0x0000

    classes = sorted({one.sop_class_uid for one in wanted})
    contexts = [(GET, str(ImplicitVRLittleEndian)), *_storage_contexts(classes)]
    with associated(destination, contexts, scp_of=classes, handlers=[(evt.EVT_C_STORE, keep)]) as association:
        offered = {str(context.abstract_syntax) for context in association.accepted_contexts}
        if GET not in offered:
            raise PeerRefused("the peer does not offer C-GET (Study Root)", code="retrieve-not-offered")
        for one in wanted:
            _get(association, _identifier(one.series, one.sop_instance_uid))
    return came


def _storage_contexts(classes: Iterable[str]) -> Iterator[tuple[str, str]]:
    for sop_class in classes:
        for transfer_syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            yield sop_class, str(transfer_syntax)


def _get(association: Association, query: Dataset) -> None:
    try:
        for status, _ in association.send_c_get(query, GET):
            if status.get("Status") not in (*PENDING, WITH_FAILURES):
                check("C-GET", status.get("Status"))
    except RuntimeError as error:
        raise PeerUnreachable("C-GET: the association ended", code="association-lost") from error


def _identifier(series: tuple[str, str], sop_instance_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID = series
    query.SOPInstanceUID = sop_instance_uid
    return query
