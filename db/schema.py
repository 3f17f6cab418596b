"""The tables of the node, one class each. State lives in exactly one column per row, `state`; the rest is a query.

No relationships are declared: rows name each other by id, so reading a row never runs hidden SQL. Foreign keys are
checked at commit, so the rows of one transaction may be added in any order. A JSON value is replaced as a whole
(``row.facts = {**row.facts, …}``): changes inside it are not noticed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.errors import NaiveTime
from db.states import (
    AssociationState,
    CommitmentState,
    DeliveryState,
    InstanceState,
    JobState,
    ModelState,
    SeriesState,
    StudyState,
)

SCHEMA_VERSION = 3
"""Number of the newest migration; `db/migrations/versions/0001_….py` makes version 1."""

Json = Any
"""What JSON can carry: None, bool, int, finite float, str, and lists and dicts of these."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Verdict(StrEnum):
    """Answer of a rule about a study, in strong Kleene logic."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Origin(StrEnum):
    """Whether a series came from a peer or from one of our jobs."""

    RECEIVED = "received"
    PRODUCED = "produced"


class JobMode(StrEnum):
    """What a job's products may be used for."""

    CLINICAL = "clinical"
    SHADOW = "shadow"
    CANARY = "canary"
    TRAINING = "training"


class Outcome(StrEnum):
    """How one attempt at a job ended."""

    OK = "ok"
    ERROR = "error"
    KILLED = "killed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


class Proof(StrEnum):
    """The rung of the delivery ladder that counts as delivered."""

    ACCEPTED = "accepted"
    COMMITTED = "committed"
    SEEN = "seen"


class CommitmentRole(StrEnum):
    """Who asked: we a destination (scu), or a peer us (scp)."""

    SCU = "scu"
    SCP = "scp"


class UtcTime(TypeDecorator[datetime]):
    """A moment as integer microseconds since 1970-01-01 UTC; Python sees aware datetimes in UTC.

    Raises
    ------
    db.errors.NaiveTime
        A datetime without time zone was to be stored or compared (wrapped in SQLAlchemy's StatementError).
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 – interface
        """Aware datetime → microseconds."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise NaiveTime
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 – interface
        """Microseconds → aware datetime in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Table(DeclarativeBase):
    """Registry of all tables."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime, str: Text, int: BigInteger}  # noqa: RUF012 – SQLAlchemy's interface


def _words(words: type[StrEnum], name: str = "state") -> Enum:
    """Text column that holds the values of `words` and nothing else (CHECK), read back as members of `words`."""
    return Enum(
        words,
        name=name,
        native_enum=False,
        create_constraint=True,
        validate_strings=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def _reference(column: str) -> ForeignKey:
    return ForeignKey(column, deferrable=True, initially="DEFERRED")


# SQLite counts up only a column that is declared exactly INTEGER PRIMARY KEY.
_ID = BigInteger().with_variant(Integer, "sqlite")


NO_PLAIN_SUCCESS = text("status_hex <> '0000'")
COERCED = text("reason = 'coerced'")
"""Conditions of partial indexes; a query that is to use one has to say the same words."""


class Node(Table):
    """The one row that says which installation this database belongs to."""

    __tablename__ = "node"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True, default=1)
    installation_id: Mapped[str]
    schema_version: Mapped[int]
    created: Mapped[datetime]


class Ruleset(Table):
    """A text of rules as it was activated; the newest `activated_at` is in force."""

    __tablename__ = "ruleset"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    activated_at: Mapped[datetime]
    activated_by: Mapped[str]


class Association(Table):
    """An association with a peer; `id` is the listener's."""

    __tablename__ = "association"
    __table_args__ = (Index(None, "state"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    peer: Mapped[str]
    port: Mapped[int]
    opened: Mapped[datetime]
    closed: Mapped[datetime | None]
    stored: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    state: Mapped[AssociationState] = mapped_column(_words(AssociationState), default=AssociationState.OPEN)


class Study(Table):
    """A DICOM study; `due` is when the assembler looks at it next."""

    __tablename__ = "study"
    __table_args__ = (Index(None, "due"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    study_uid: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[str | None]
    issuer: Mapped[str | None]
    generation: Mapped[int] = mapped_column(default=1)
    first_arrival: Mapped[datetime]
    last_arrival: Mapped[datetime]
    due: Mapped[datetime | None]
    state: Mapped[StudyState] = mapped_column(_words(StudyState), default=StudyState.COLLECTING)


class Series(Table):
    """A DICOM series and what was understood about it (`facts`, by version `facts_version` of the reader)."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_uid"), Index(None, "state"))

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    study_id: Mapped[int] = mapped_column(_reference("study.id"))
    series_uid: Mapped[str]
    modality: Mapped[str | None]
    origin: Mapped[Origin] = mapped_column(_words(Origin, "origin"), default=Origin.RECEIVED)
    produced_by_job: Mapped[int | None] = mapped_column(_reference("job.id"))
    facts: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), nullable=True)
    facts_version: Mapped[int] = mapped_column(default=0)
    expected: Mapped[int | None]
    last_arrival: Mapped[datetime]
    whole_reason: Mapped[str | None]
    state: Mapped[SeriesState] = mapped_column(_words(SeriesState), default=SeriesState.ARRIVING)


class Instance(Table):
    """One stored SOP instance; `path` is relative to the data folder, `job_id` null means received.

    `association_id` is no foreign key: the bytes may be indexed before the association's row is.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("sop_uid", "content_sha256"),
        Index(None, "state", "series_id"),
        Index(
            "uq_instance_current",
            "sop_uid",
            unique=True,
            sqlite_where=text("state = 'current'"),
            postgresql_where=text("state = 'current'"),
        ),
    )

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    series_id: Mapped[int] = mapped_column(_reference("series.id"), index=True)
    sop_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    content_sha256: Mapped[str]
    pixel_sha256: Mapped[str | None]
    transfer_syntax_uid: Mapped[str]
    path: Mapped[str] = mapped_column(unique=True)
    size: Mapped[int]
    header: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    association_id: Mapped[str | None] = mapped_column(index=True)
    received: Mapped[datetime]
    job_id: Mapped[int | None] = mapped_column(_reference("job.id"), index=True)
    reason: Mapped[str | None]
    state: Mapped[InstanceState] = mapped_column(_words(InstanceState), default=InstanceState.CURRENT)


class Quarantine(Table):
    """A received file that is no usable SOP instance: unreadable, or its identifiers are."""

    __tablename__ = "quarantine"

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    path: Mapped[str] = mapped_column(unique=True)
    code: Mapped[str]
    detail: Mapped[str | None]
    calling_ae: Mapped[str | None]
    peer: Mapped[str | None]
    received: Mapped[datetime]


class Decision(Table):
    """What one rule said about one generation of a study; only ever inserted.

    pending : the answer may still change by itself, because something has not arrived yet
    """

    __tablename__ = "decision"
    __table_args__ = (Index(None, "study_id", "generation"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    study_id: Mapped[int] = mapped_column(_reference("study.id"))
    generation: Mapped[int]
    ruleset: Mapped[str] = mapped_column(_reference("ruleset.sha256"))
    rule: Mapped[str]
    verdict: Mapped[Verdict] = mapped_column(_words(Verdict, "verdict"))
    pending: Mapped[bool] = mapped_column(default=False)
    clauses: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    inputs: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    at: Mapped[datetime]


class Job(Table):
    """One run of one engine on one set of inputs; `key` is the digest of everything that decides the result."""

    __tablename__ = "job"
    __table_args__ = (Index(None, "state", "id"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    decision_id: Mapped[int | None] = mapped_column(_reference("decision.id"))
    study_id: Mapped[int] = mapped_column(_reference("study.id"), index=True)
    rule: Mapped[str]
    engine: Mapped[str]
    engine_version: Mapped[str]
    model_sha256: Mapped[str | None]
    parameters: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    inputs: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    destinations: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    mode: Mapped[JobMode] = mapped_column(_words(JobMode, "mode"), default=JobMode.CLINICAL)
    priority: Mapped[int] = mapped_column(default=0)
    rerun: Mapped[int] = mapped_column(default=0)
    supersedes: Mapped[int | None] = mapped_column(_reference("job.id"))
    attempts: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    time_limit_s: Mapped[float | None]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    manifest: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), nullable=True)
    created: Mapped[datetime]
    finished: Mapped[datetime | None]
    state: Mapped[JobState] = mapped_column(_words(JobState), default=JobState.WAITING)


Index("ix_job_queue", Job.state, Job.priority.desc(), Job.id)


class Attempt(Table):
    """One try at a job by one worker; `outcome` is null while it runs."""

    __tablename__ = "attempt"
    __table_args__ = (UniqueConstraint("job_id", "n"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    job_id: Mapped[int] = mapped_column(_reference("job.id"))
    n: Mapped[int]
    worker: Mapped[str]
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    outcome: Mapped[Outcome | None] = mapped_column(_words(Outcome, "outcome"))
    detail: Mapped[str | None]


class Delivery(Table):
    """One instance on its way to one destination; `job_id` is null for a forwarded original.

    status_hex : the last C-STORE status, which also tells of a warning; reason_code, reason : why it is where it is
    transaction_uid : the storage commitment request that is open for it
    proof_tries : requests and searches made in vain on the present rung
    """

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("instance_id", "destination"),
        # What is to be sent, in order, and what is still to be proven among all that was ever accepted.
        Index("ix_delivery_to_send", "state", "destination", "id", "not_before"),
        Index("ix_delivery_to_prove", "state", "destination", "proof", "transaction_uid", "id", "not_before"),
        Index(
            "ix_delivery_no_plain_success",
            "status_hex",
            "destination",
            sqlite_where=NO_PLAIN_SUCCESS,
            postgresql_where=NO_PLAIN_SUCCESS,
        ),
    )

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    instance_id: Mapped[int] = mapped_column(_reference("instance.id"))
    destination: Mapped[str]
    job_id: Mapped[int | None] = mapped_column(_reference("job.id"), index=True)
    proof: Mapped[Proof] = mapped_column(_words(Proof, "proof"), default=Proof.ACCEPTED)
    tries: Mapped[int] = mapped_column(default=0)
    first_due: Mapped[datetime]
    not_before: Mapped[datetime | None]
    status_hex: Mapped[str | None]
    transaction_uid: Mapped[str | None] = mapped_column(index=True)
    proof_tries: Mapped[int] = mapped_column(default=0)
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    accepted_at: Mapped[datetime | None]
    state: Mapped[DeliveryState] = mapped_column(_words(DeliveryState), default=DeliveryState.QUEUED)


class Commitment(Table):
    """One storage commitment transaction; `items` lists the SOP instances asked about.

    peer : the destination's name (role scu), the peer's AE title (role scp)
    tries, not_before : of our report to the peer (role scp)
    """

    __tablename__ = "commitment"
    __table_args__ = (Index(None, "state", "deadline"),)

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(unique=True)
    role: Mapped[CommitmentRole] = mapped_column(_words(CommitmentRole, "role"))
    peer: Mapped[str]
    requested: Mapped[datetime]
    deadline: Mapped[datetime | None]
    items: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    tries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    reason: Mapped[str | None]
    state: Mapped[CommitmentState] = mapped_column(_words(CommitmentState), default=CommitmentState.ASKED)


class Pause(Table):
    """A destination to which nothing is sent and of which nothing is asked until a person lets it go on."""

    __tablename__ = "pause"

    destination: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    paused_by: Mapped[str]
    because: Mapped[str]


class Model(Table):
    """One set of weights; at most one champion per engine and scope ("" is the whole site)."""

    __tablename__ = "model"
    __table_args__ = (
        Index(
            "uq_model_champion",
            "engine",
            "scope",
            unique=True,
            sqlite_where=text("state = 'champion'"),
            postgresql_where=text("state = 'champion'"),
        ),
    )

    sha256: Mapped[str] = mapped_column(primary_key=True)
    engine: Mapped[str]
    version: Mapped[str]
    scope: Mapped[str] = mapped_column(default="")
    card: Mapped[Json] = mapped_column(JSON(none_as_null=True), nullable=False)
    state: Mapped[ModelState] = mapped_column(_words(ModelState), default=ModelState.CANDIDATE)


class Event(Table):
    """Something that happened to a row: history, audit and overrides in one. The database refuses to change it.

    subject_type is the table's name and subject_id its primary key as text; from_state and to_state are null when
    the event is no move.
    """

    __tablename__ = "event"
    __table_args__ = (
        Index(None, "subject_type", "subject_id"),
        Index("ix_event_coerced", "reason", sqlite_where=COERCED, postgresql_where=COERCED),
    )

    id: Mapped[int] = mapped_column(_ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    subject_type: Mapped[str]
    subject_id: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str | None]
    reason: Mapped[str]
    data: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), nullable=True)
