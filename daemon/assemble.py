"""When is a series whole, and when is nothing more to be expected of a study? (DESIGN §3 Assemble)

PET counts itself: it is whole the moment its last slice is filed. A CT has no count: it is whole for a PET when its
slices cover the PET without a gap and nobody is sending any more, or after a quiet time. Whatever is still missing
after the maximum wait is incomplete, and the rules say what that means.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from daemon.node import Turn
from db import studies
from db.moves import move
from db.schema import Origin, Series, Study
from db.states import SeriesState, StudyState
from dicom_io import series as understanding

FACTS_VERSION = 2
ACTOR = "assemble"


def assemble(turn: Turn, study: Study) -> bool:
    """Look at a collecting study; True when something became whole, incomplete or settled, so rules must be asked."""
    if study.state != StudyState.COLLECTING:
        study.due = None
        return False
    rows = [row for row in studies.series_of(turn.session, study.id) if row.origin == Origin.RECEIVED]
    sending = studies.open_associations(turn.session, study.id) > 0
    changed = False
    for row in rows:
        if row.state == SeriesState.ARRIVING:
            changed |= judge(turn, study, row, sending=sending)
    settled = settle(turn, study, rows, sending=sending)
    study.due = None if settled else next_look(turn, study, rows, sending=sending)
    return changed or settled


def judge(turn: Turn, study: Study, row: Series, *, sending: bool) -> bool:
    """Move an arriving series to whole or incomplete if it is time; True when it moved."""
    quiet = turn.now - study.last_arrival
    too_late = quiet >= timedelta(seconds=turn.node.settings.assemble.maximum_wait_s)
    if row.expected is not None:
        if studies.count_current(turn.session, row.id) < row.expected and not too_late:
            return False
        return close(turn, row, too_late=too_late)
    if sending and not too_late:
        return False
    if row.modality == "CT" and covers_a_pet(turn, study, row):
        return become(turn, row, SeriesState.WHOLE, "covers the PET without a gap")
    if quiet >= quiet_time(turn, row) or too_late:
        describe(turn, row)
        seconds = int(quiet_time(turn, row).total_seconds())
        return become(turn, row, SeriesState.WHOLE, f"nothing more for {seconds} s")
    return False


def close(turn: Turn, row: Series, *, too_late: bool) -> bool:
    """A counted series has all its instances, or has waited long enough."""
    headers = [instance.header for instance in studies.current_instances(turn.session, row.id)]
    completeness = understanding.completeness(headers)
    if completeness.whole:
        describe(turn, row)
        return become(turn, row, SeriesState.WHOLE, completeness.reason)
    if too_late:
        describe(turn, row)
        return become(turn, row, SeriesState.INCOMPLETE, completeness.reason)
    return False


def become(turn: Turn, row: Series, state: SeriesState, reason: str) -> bool:
    """Move a series and say why."""
    row.whole_reason = reason
    row.facts = {
        **(row.facts or {}),
        "complete": state == SeriesState.WHOLE,
        "expected": row.expected,
        "complete_reason": reason,
    }
    move(turn.session, row, state, reason=reason, actor=ACTOR, at=turn.now)
    return True


def describe(turn: Turn, row: Series) -> None:
    """Work out the facts of a series from its headers and keep them with the row."""
    headers = [instance.header for instance in studies.current_instances(turn.session, row.id)]
    association = studies.association_of(turn.session, row.id)
    sender = {"calling_ae": association.calling_ae, "called_ae": association.called_ae} if association else {}
    row.facts = understanding.understand(headers, sender, turn.node.timezone)
    row.facts_version = FACTS_VERSION


def covers_a_pet(turn: Turn, study: Study, ct: Series) -> bool:
    """Whether the CT's slices cover a whole PET of the study without a gap."""
    pets = [
        row
        for row in studies.series_of(turn.session, study.id)
        if row.modality == "PT" and row.state == SeriesState.WHOLE and row.facts
    ]
    if not pets:
        return False
    if (ct.facts or {}).get("slices") != studies.count_current(turn.session, ct.id):
        describe(turn, ct)
    return any(understanding.covers(ct.facts or {}, pet.facts or {}).covered for pet in pets)


def quiet_time(turn: Turn, row: Series) -> timedelta:
    """How long nothing must have arrived before an uncounted series counts as whole."""
    waits = turn.node.settings.assemble
    return timedelta(seconds=waits.quiet_s if row.modality == "CT" else waits.quiet_other_s)


def settle(turn: Turn, study: Study, rows: list[Series], *, sending: bool) -> bool:
    """Move the study on when nothing more is expected of it."""
    if any(row.state == SeriesState.ARRIVING for row in rows):
        return False
    quiet = turn.now - study.last_arrival
    if sending or quiet < timedelta(seconds=turn.node.settings.assemble.quiet_s):
        return False
    missing = any(row.state == SeriesState.INCOMPLETE for row in rows)
    state = StudyState.TIMED_OUT if missing else StudyState.SETTLED
    move(turn.session, study, state, reason="nothing more is expected", actor=ACTOR, at=turn.now)
    return True


def next_look(turn: Turn, study: Study, rows: list[Series], *, sending: bool) -> datetime:
    """When the study must be looked at again if nothing arrives."""
    waits = turn.node.settings.assemble
    latest = study.last_arrival + timedelta(seconds=waits.maximum_wait_s)
    if sending:
        return (
            min(latest, turn.now + timedelta(seconds=waits.quiet_s))
            if latest > turn.now
            else turn.now + timedelta(seconds=1)
        )
    arriving = [row for row in rows if row.state == SeriesState.ARRIVING]
    moments = [study.last_arrival + quiet_time(turn, row) for row in arriving if row.expected is None]
    if not arriving:
        moments.append(study.last_arrival + timedelta(seconds=waits.quiet_s))
    future = [moment for moment in moments if moment > turn.now]
    return min([*future, latest]) if latest > turn.now else turn.now + timedelta(seconds=1)
