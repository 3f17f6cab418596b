"""Every state a row can be in, and every legal move between states. Pure: no database, no clock.

The one function that moves a row is `db.moves.move`; the tables below are all it obeys. A state with an empty set
of targets is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class AssociationState(StrEnum):
    """An association a peer opened with the listener."""

    OPEN = "open"
    CLOSED = "closed"
    ABORTED = "aborted"
    VANISHED = "vanished"
    """Its listener process died without telling how the association ended."""


class StudyState(StrEnum):
    """Whether a study is still growing."""

    COLLECTING = "collecting"
    SETTLED = "settled"
    TIMED_OUT = "timed_out"
    """The maximum wait passed while something was still missing."""


class SeriesState(StrEnum):
    """Whether all slices of a series are here."""

    ARRIVING = "arriving"
    WHOLE = "whole"
    INCOMPLETE = "incomplete"


class InstanceState(StrEnum):
    """What a stored SOP instance counts for."""

    CURRENT = "current"
    CONFLICTING = "conflicting"
    """Same SOP Instance UID as the current one, different content; a person decides."""
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"
    REMOVED = "removed"
    """The sweep deleted the bytes; the row stays for replay."""


class JobState(StrEnum):
    """Where a job is between its rule and its products."""

    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    """A person has to decide."""
    REJECTED = "rejected"
    """The input cannot be processed and says why; no person can change that for these bytes."""
    DEAD = "dead"
    """Dead letter: the attempts are used up."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    SUPERSEDED = "superseded"


class DeliveryState(StrEnum):
    """How far one instance got on its way to one destination."""

    HELD = "held"
    QUEUED = "queued"
    SENDING = "sending"
    """After a crash this means "unknown": the same bytes are sent again."""
    ACCEPTED = "accepted"
    COMMITTED = "committed"
    SEEN = "seen"
    FAILED = "failed"
    """The destination refused for good, or does not have what it accepted."""
    DEAD = "dead"
    """Dead letter: transient errors for longer than the destination's limit."""
    WITHDRAWN = "withdrawn"


class CommitmentState(StrEnum):
    """One storage commitment transaction (PS3.4 Annex J): as asked by us, or as reported by us to a peer."""

    ASKED = "asked"
    CONFIRMED = "confirmed"
    PARTLY = "partly"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"


class ModelState(StrEnum):
    """The career of one set of weights."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CHAMPION = "champion"
    RETIRED = "retired"


Moves = Mapping[StrEnum, frozenset[StrEnum]]

ASSOCIATION_MOVES: Moves = {
    AssociationState.OPEN: frozenset({AssociationState.CLOSED, AssociationState.ABORTED, AssociationState.VANISHED}),
    AssociationState.CLOSED: frozenset(),
    AssociationState.ABORTED: frozenset(),
    AssociationState.VANISHED: frozenset(),
}

STUDY_MOVES: Moves = {
    StudyState.COLLECTING: frozenset({StudyState.SETTLED, StudyState.TIMED_OUT}),
    # a late arrival opens the study again (and counts a generation)
    StudyState.SETTLED: frozenset({StudyState.COLLECTING}),
    StudyState.TIMED_OUT: frozenset({StudyState.COLLECTING}),
}

SERIES_MOVES: Moves = {
    SeriesState.ARRIVING: frozenset({SeriesState.WHOLE, SeriesState.INCOMPLETE}),
    SeriesState.WHOLE: frozenset({SeriesState.ARRIVING}),
    SeriesState.INCOMPLETE: frozenset({SeriesState.ARRIVING}),
}

INSTANCE_MOVES: Moves = {
    InstanceState.CURRENT: frozenset({InstanceState.SUPERSEDED, InstanceState.REMOVED}),
    InstanceState.CONFLICTING: frozenset({InstanceState.CURRENT, InstanceState.SUPERSEDED}),
    InstanceState.SUPERSEDED: frozenset({InstanceState.REMOVED}),
    InstanceState.QUARANTINED: frozenset({InstanceState.REMOVED}),
    # (sop_uid, content_sha256) is unique, so bytes that are sent again after the sweep revive their row; they
    # conflict when other bytes took the UID in the meantime
    InstanceState.REMOVED: frozenset({InstanceState.CURRENT, InstanceState.CONFLICTING}),
}

JOB_MOVES: Moves = {
    JobState.WAITING: frozenset({JobState.RUNNING, JobState.HELD, JobState.REJECTED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.DONE, JobState.WAITING, JobState.HELD, JobState.REJECTED, JobState.DEAD, JobState.CANCELLING}
    ),
    JobState.HELD: frozenset({JobState.WAITING, JobState.CANCELLED}),
    # its "not processed" report was sent; the job made from corrected input replaces that report
    JobState.REJECTED: frozenset({JobState.SUPERSEDED}),
    JobState.DEAD: frozenset({JobState.WAITING, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.DONE: frozenset({JobState.SUPERSEDED}),
    JobState.SUPERSEDED: frozenset(),
}

_UNDELIVERABLE = frozenset({DeliveryState.FAILED, DeliveryState.DEAD})

DELIVERY_MOVES: Moves = {
    DeliveryState.HELD: _UNDELIVERABLE | {DeliveryState.QUEUED, DeliveryState.WITHDRAWN},
    DeliveryState.QUEUED: _UNDELIVERABLE | {DeliveryState.SENDING, DeliveryState.WITHDRAWN},
    DeliveryState.SENDING: _UNDELIVERABLE | {DeliveryState.ACCEPTED, DeliveryState.QUEUED},
    # sent again: the peer says that it has no such instance, or a person wants it
    DeliveryState.ACCEPTED: _UNDELIVERABLE | {DeliveryState.COMMITTED, DeliveryState.SEEN, DeliveryState.QUEUED},
    DeliveryState.COMMITTED: _UNDELIVERABLE | {DeliveryState.SEEN, DeliveryState.QUEUED},
    DeliveryState.SEEN: frozenset({DeliveryState.QUEUED}),
    # a person sends again, or gives up (or a newer job's results make it pointless)
    DeliveryState.FAILED: frozenset({DeliveryState.QUEUED, DeliveryState.WITHDRAWN}),
    DeliveryState.DEAD: frozenset({DeliveryState.QUEUED, DeliveryState.WITHDRAWN}),
    # a person wants sent after all what another form had replaced
    DeliveryState.WITHDRAWN: frozenset({DeliveryState.QUEUED}),
}

COMMITMENT_MOVES: Moves = {
    CommitmentState.ASKED: frozenset(
        {CommitmentState.CONFIRMED, CommitmentState.PARTLY, CommitmentState.REFUSED, CommitmentState.TIMED_OUT}
    ),
    # a peer asks us again under the same Transaction UID
    CommitmentState.CONFIRMED: frozenset({CommitmentState.ASKED}),
    CommitmentState.PARTLY: frozenset({CommitmentState.ASKED}),
    CommitmentState.REFUSED: frozenset({CommitmentState.ASKED}),
    # or a report comes that nobody waited for any more
    CommitmentState.TIMED_OUT: frozenset(
        {CommitmentState.ASKED, CommitmentState.CONFIRMED, CommitmentState.PARTLY, CommitmentState.REFUSED}
    ),
}

MODEL_MOVES: Moves = {
    # the gate turned it down: retired without ever having been champion
    ModelState.CANDIDATE: frozenset({ModelState.SHADOW, ModelState.RETIRED}),
    ModelState.SHADOW: frozenset({ModelState.CHAMPION, ModelState.RETIRED}),
    ModelState.CHAMPION: frozenset({ModelState.RETIRED}),
    ModelState.RETIRED: frozenset({ModelState.CHAMPION}),
}

MOVES: Mapping[type[StrEnum], Moves] = {
    AssociationState: ASSOCIATION_MOVES,
    StudyState: STUDY_MOVES,
    SeriesState: SERIES_MOVES,
    InstanceState: INSTANCE_MOVES,
    JobState: JOB_MOVES,
    DeliveryState: DELIVERY_MOVES,
    CommitmentState: COMMITMENT_MOVES,
    ModelState: MODEL_MOVES,
}
"""The table of legal moves of each kind of state."""

BEGINNINGS: Mapping[type[StrEnum], frozenset[StrEnum]] = {
    AssociationState: frozenset({AssociationState.OPEN}),
    StudyState: frozenset({StudyState.COLLECTING}),
    SeriesState: frozenset({SeriesState.ARRIVING}),
    InstanceState: frozenset({InstanceState.CURRENT, InstanceState.CONFLICTING, InstanceState.QUARANTINED}),
    JobState: frozenset({JobState.WAITING, JobState.HELD}),
    DeliveryState: frozenset({DeliveryState.HELD, DeliveryState.QUEUED}),
    CommitmentState: frozenset({CommitmentState.ASKED}),
    ModelState: frozenset({ModelState.CANDIDATE}),
}
"""The states a new row may be inserted in."""
