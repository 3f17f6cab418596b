"""Inbox → store and rows. Idempotent: a crash anywhere leaves the inbox file, and the next pass files it again.

The order is what makes it safe: read in a child → link into the store, fsync the folders → commit → unlink from the
inbox. Nothing is ever overwritten.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from sqlalchemy.orm import Session

from daemon.node import Node, Turn
from db import jobs, studies
from db.moves import move, note
from db.schema import Instance, Series, Study
from db.states import InstanceState, JobState
from dicom_io.errors import UnreadableObject
from dicom_io.headers import Reading
from dicom_io.series import completeness
from dicom_io.spool import fsync_directory

BATCH = 128
CONFLICT = "conflict"
PATIENT_MISMATCH = "patient-mismatch"
HOLD_TEXT = {
    CONFLICT: "another copy with other content came under the same UIDs; see `tracerd conflicts list`.",
    PATIENT_MISMATCH: "two Patient IDs came under one study UID; release the job once that is explained.",
}


class Filing(StrEnum):
    """What becomes of an arrival."""

    NEW = "new"
    ALREADY_FILED = "already-filed"
    DUPLICATE = "duplicate"
    COERCED = "coerced"
    CONFLICTING = "conflicting"
    RETURNED = "returned"
    """A result of ours that comes back from a PACS that forwards what it gets: never processed, whatever it became."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One inbox file after reading and, where its UID is known already, after comparison."""

    path: Path
    received: datetime
    association_id: str | None
    filing: Filing
    reading: Reading | None = None
    fault: UnreadableObject | None = None
    differing: tuple[str, ...] = ()


def inbox(node: Node) -> list[Path]:
    """What waits longest, in order (names begin with the time of arrival): a batch, and one more if there is more."""
    names = (entry.name for entry in os.scandir(node.spool.inbox) if entry.name.endswith(".dcm"))
    return [node.spool.inbox / name for name in heapq.nsmallest(BATCH + 1, names)]


def index(node: Node, waiting: list[Path]) -> set[int]:
    """File one batch and return the ids of the studies it touched.

    An instance whose UID occurs earlier in the same batch waits for the next one, so that it meets a committed row.
    """
    batch = waiting[:BATCH]
    outcomes = list(zip(batch, node.sandbox.read_many(batch), strict=True))
    arrivals = judge(node, outcomes)
    with node.turn() as turn:
        touched = {study_id for arrival in arrivals for study_id in file(turn, arrival)}
        fsync_folders({target(node, arrival).parent for arrival in arrivals})
    for arrival in arrivals:
        arrival.path.unlink(missing_ok=True)
    return touched


def judge(node: Node, outcomes: Iterable[tuple[Path, Reading | UnreadableObject]]) -> list[Arrival]:
    """Decide for every file of a batch what becomes of it, before any row is written."""
    arrivals = []
    seen: set[str] = set()
    readings = list(outcomes)
    with node.store.read() as session:
        names = {path: node.folders.relative(stored_path(node, path)) for path, _ in readings}
        filed = studies.filed_paths(session, names.values())
        known = studies.known_uids(session, [r.sop_instance_uid for _, r in readings if isinstance(r, Reading)])
        for path, outcome in readings:
            if isinstance(outcome, UnreadableObject):
                arrivals.append(Arrival(path, *origin(path), Filing.UNREADABLE, fault=outcome))
                continue
            if outcome.sop_instance_uid in seen:
                continue
            seen.add(outcome.sop_instance_uid)
            filing = Filing.NEW
            differing: tuple[str, ...] = ()
            if names[path] in filed:
                filing = Filing.ALREADY_FILED
            elif outcome.sop_instance_uid in known:
                filing, differing = same_uid(session, node, path, outcome)
            arrivals.append(Arrival(path, *origin(path), filing, outcome, differing=differing))
    return arrivals


def same_uid(session: Session, node: Node, path: Path, reading: Reading) -> tuple[Filing, tuple[str, ...]]:
    """Compare an arrival with the copies we hold of the same SOP Instance UID (DESIGN: Index)."""
    held = studies.copies(session, reading.sop_instance_uid)
    if studies.is_produced(session, reading.sop_instance_uid):
        return Filing.RETURNED, differences(node, held[0].path, path) if held else ()
    if not held:
        return Filing.NEW, ()
    if any(copy.content_sha256 == reading.content_sha256 for copy in held):
        return Filing.DUPLICATE, ()
    try:
        sameness = node.sandbox.compare(node.folders.data / held[0].path, path)
    except UnreadableObject as error:
        return Filing.CONFLICTING, (error.code,)
    return Filing(sameness.verdict), sameness.keywords


def differences(node: Node, held: str, path: Path) -> tuple[str, ...]:
    """In what an arrival differs from the copy we hold, by keyword; the code of the fault where it cannot be read."""
    try:
        return node.sandbox.compare(node.folders.data / held, path).keywords
    except UnreadableObject as error:
        return (error.code,)


def file(turn: Turn, arrival: Arrival) -> list[int]:
    """Link one arrival into its folder and add its rows; returns the studies that changed."""
    if arrival.filing is Filing.UNREADABLE:
        link(arrival.path, target(turn.node, arrival))
        quarantine(turn, arrival)
        return []
    assert arrival.reading is not None  # noqa: S101 - every other filing has been read
    if arrival.filing is Filing.ALREADY_FILED:
        return []
    if arrival.filing in {Filing.DUPLICATE, Filing.COERCED, Filing.RETURNED}:
        stored_path(turn.node, arrival.path).unlink(missing_ok=True)
        if arrival.filing is not Filing.DUPLICATE:
            first, filing = studies.first_copy(turn.session, arrival.reading.sop_instance_uid), str(arrival.filing)
            note(turn.session, first, reason=filing, actor="index", at=arrival.received, data=list(arrival.differing))
        return []
    link(arrival.path, target(turn.node, arrival))
    return [add_instance(turn, arrival, arrival.reading)]


def add_instance(turn: Turn, arrival: Arrival, reading: Reading) -> int:
    """Add the rows of a new or conflicting instance; returns its study.

    Waiting times count from now, not from when the bytes came: after a pause of the node the rest of a study lies in
    the inbox, and nothing of it may be given up before that is read.
    """
    header = reading.header
    study, other_patient = studies.study_for(
        turn.session,
        reading.study_instance_uid,
        patient_id=header.get("PatientID") or "",
        issuer=header.get("IssuerOfPatientID") or "",
        at=turn.now,
    )
    if other_patient:
        note(turn.session, study, reason=PATIENT_MISMATCH, actor="index", at=turn.now)
        hold_jobs(turn, study, PATIENT_MISMATCH)
    series = studies.series_for(
        turn.session, study, reading.series_instance_uid, modality=header.get("Modality") or "", at=turn.now
    )
    if series.expected is None:
        series.expected = completeness([header]).expected
    instance = revived(turn, arrival, reading) or instance_row(turn.node, arrival, reading, series)
    turn.session.add(instance)
    turn.session.flush()
    if arrival.filing is Filing.CONFLICTING:
        data = list(arrival.differing)
        note(turn.session, instance, reason=CONFLICT, actor="index", at=turn.now, data=data)
        hold_jobs(turn, study, CONFLICT)
    else:
        studies.arrived(turn.session, study, series, at=turn.now, actor="index")
    study.due = turn.now
    return study.id


def instance_row(node: Node, arrival: Arrival, reading: Reading, series: Series) -> Instance:
    """The row of a received instance."""
    conflicting = arrival.filing is Filing.CONFLICTING
    return Instance(
        series_id=series.id,
        sop_uid=reading.sop_instance_uid,
        sop_class_uid=reading.sop_class_uid,
        content_sha256=reading.content_sha256,
        pixel_sha256=reading.pixel_sha256,
        transfer_syntax_uid=reading.transfer_syntax_uid,
        path=node.folders.relative(stored_path(node, arrival.path)),
        size=arrival.path.stat().st_size,
        header=reading.header,
        association_id=arrival.association_id,
        received=arrival.received,
        state=InstanceState.CONFLICTING if conflicting else InstanceState.CURRENT,
    )


def revived(turn: Turn, arrival: Arrival, reading: Reading) -> Instance | None:
    """The row of bytes that the sweep removed and that were sent again: it gets its file back."""
    row = studies.removed_copy(turn.session, reading.sop_instance_uid, reading.content_sha256)
    if row is None:
        return None
    row.path = turn.node.folders.relative(stored_path(turn.node, arrival.path))
    row.received, row.association_id = arrival.received, arrival.association_id
    state = InstanceState.CONFLICTING if arrival.filing is Filing.CONFLICTING else InstanceState.CURRENT
    move(turn.session, row, state, reason="sent again after removal", actor="index", at=arrival.received)
    return row


def set_aside(node: Node, path: Path, fault: Exception) -> None:
    """Quarantine what cannot be read, or what our own code cannot file, so that it does not stand in the way."""
    unforeseen = UnreadableObject(f"filing it failed with {type(fault).__name__}", code="bug")
    described = fault if isinstance(fault, UnreadableObject) else unforeseen
    arrival = Arrival(path, *origin(path), Filing.UNREADABLE, fault=described)
    stored_path(node, path).unlink(missing_ok=True)
    with node.turn() as turn:
        file(turn, arrival)
        fsync_folders([target(node, arrival).parent])
    path.unlink(missing_ok=True)


def quarantine(turn: Turn, arrival: Arrival) -> None:
    """Record an unreadable object; its bytes are in the quarantine folder."""
    fault = arrival.fault
    assert fault is not None  # noqa: S101 - an unreadable arrival has its fault
    relative = turn.node.folders.relative(target(turn.node, arrival))
    sender = studies.sender(turn.session, arrival.association_id)
    studies.quarantine(
        turn.session, path=relative, code=fault.code, detail=str(fault), sender=sender, at=arrival.received
    )
    turn.node.log.warning("quarantined", code=fault.code, file=arrival.path.name)


def origin(path: Path) -> tuple[datetime, str | None]:
    """Time of arrival and association from a spool name `<utc ns>-<association>-<n>.dcm`."""
    first, _, rest = path.stem.partition("-")
    association, _, _ = rest.rpartition("-")
    if not first.isdigit():
        return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC), None
    return datetime.fromtimestamp(int(first) / 1e9, tz=UTC), association or None


def stored_path(node: Node, path: Path) -> Path:
    """Where an inbox file is kept; a name of its own for every arrival, so nothing can be overwritten."""
    received, _ = origin(path)
    return node.folders.store / f"{received:%Y%m%d}" / path.name


def target(node: Node, arrival: Arrival) -> Path:
    """The store for what could be read, the quarantine for what could not."""
    if arrival.filing is Filing.UNREADABLE:
        return node.folders.quarantine / arrival.path.name
    return stored_path(node, arrival.path)


def fsync_folders(folders: Iterable[Path]) -> None:
    """Make the new names in these folders, and the folders' own names, survive power loss."""
    present = {folder for folder in folders if folder.exists()}
    for folder in present | {folder.parent for folder in present}:
        fsync_directory(folder)


def link(source: Path, destination: Path) -> None:
    """Give the inbox file its second name; that it exists already means a crash came after linking."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, destination)
    except FileExistsError:
        if not destination.samefile(source):
            raise


def held_by_doubt(turn: Turn, study: Study) -> str | None:
    """Why no job of this study may run: conflicting copies, or two patients under one study UID."""
    if studies.conflicts(turn.session, study.id):
        return CONFLICT
    if studies.has_note(turn.session, study, PATIENT_MISMATCH):
        return PATIENT_MISMATCH
    return None


def hold_jobs(turn: Turn, study: Study, reason: str) -> None:
    """Jobs that have not started wait for a person when their study falls into doubt."""
    for job in jobs.of_study(turn.session, study.id, [JobState.WAITING]):
        job.reason_code, job.reason = reason, HOLD_TEXT[reason]
        move(turn.session, job, JobState.HELD, reason=reason, actor="index", at=turn.now)
