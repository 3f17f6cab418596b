"""Schema 1: the tables of the first version.

Frozen: it names no class of the program, so that it keeps making what version 1 was.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

JSON = sa.JSON()
TEXT = sa.Text()
NUMBER = sa.BigInteger()
TIME = sa.BigInteger()  # microseconds since 1970-01-01 UTC
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

JOB_STATES = ("waiting", "running", "held", "rejected", "dead", "cancelling", "cancelled", "done", "superseded")
DELIVERY_STATES = ("held", "queued", "sending", "accepted", "committed", "seen", "failed", "dead", "withdrawn")
INSERT_ONLY = ("decision", "event")


def upgrade() -> None:
    """Make every table, and let the database itself refuse to rewrite history."""
    node()
    arrivals()
    routing()
    jobs()
    received()
    deliveries()
    models()
    events()
    for table in INSERT_ONLY:
        refuse_changes(table)


def row_id() -> sa.Column[int]:
    return sa.Column("id", ROW_ID, primary_key=True)


def required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def optional(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def words(name: str, *values: str, nullable: bool = False) -> sa.Column[str]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)
    return sa.Column(name, kind, nullable=nullable)


def reference(name: str, target: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Foreign key checked at commit."""
    key = sa.ForeignKey(target, deferrable=True, initially="DEFERRED")
    kind: sa.types.TypeEngine[Any] = TEXT if target.endswith(".sha256") else ROW_ID
    return sa.Column(name, kind, key, nullable=nullable)


def index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def unique_where(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)


def node() -> None:
    op.create_table(
        "node",
        row_id(),
        required("installation_id", TEXT),
        required("schema_version", NUMBER),
        required("created", TIME),
        sa.CheckConstraint("id = 1", name="one_row"),
    )


def arrivals() -> None:
    op.create_table(
        "association",
        sa.Column("id", TEXT, primary_key=True),
        required("calling_ae", TEXT),
        required("called_ae", TEXT),
        required("peer", TEXT),
        required("port", NUMBER),
        required("opened", TIME),
        optional("closed", TIME),
        required("stored", NUMBER),
        required("refused", NUMBER),
        words("state", "open", "closed", "aborted", "vanished"),
    )
    index("association", "state")
    op.create_table(
        "study",
        row_id(),
        required("study_uid", TEXT),
        optional("patient_id", TEXT),
        optional("issuer", TEXT),
        required("generation", NUMBER),
        required("first_arrival", TIME),
        required("last_arrival", TIME),
        optional("due", TIME),
        words("state", "collecting", "settled", "timed_out"),
        sa.UniqueConstraint("study_uid"),
    )
    index("study", "due")


def routing() -> None:
    op.create_table(
        "ruleset",
        sa.Column("sha256", TEXT, primary_key=True),
        required("text", TEXT),
        required("activated_at", TIME),
        required("activated_by", TEXT),
    )
    op.create_table(
        "decision",
        row_id(),
        reference("study_id", "study.id"),
        required("generation", NUMBER),
        reference("ruleset", "ruleset.sha256"),
        required("rule", TEXT),
        words("verdict", "yes", "no", "unknown"),
        required("pending", sa.Boolean()),
        required("clauses", JSON),
        required("inputs", JSON),
        required("at", TIME),
    )
    index("decision", "study_id", "generation")


def jobs() -> None:
    op.create_table(
        "job",
        row_id(),
        required("key", TEXT),
        reference("decision_id", "decision.id", nullable=True),
        reference("study_id", "study.id"),
        required("rule", TEXT),
        required("engine", TEXT),
        required("engine_version", TEXT),
        optional("model_sha256", TEXT),
        required("parameters", JSON),
        required("inputs", JSON),
        required("destinations", JSON),
        words("mode", "clinical", "shadow", "canary", "training"),
        required("priority", NUMBER),
        required("rerun", NUMBER),
        reference("supersedes", "job.id", nullable=True),
        required("attempts", NUMBER),
        required("interruptions", NUMBER),
        optional("not_before", TIME),
        optional("time_limit_s", sa.Double()),
        optional("reason_code", TEXT),
        optional("reason", TEXT),
        optional("manifest", JSON),
        required("created", TIME),
        optional("finished", TIME),
        words("state", *JOB_STATES),
        sa.UniqueConstraint("key"),
    )
    index("job", "study_id")
    op.create_index("ix_job_queue", "job", ["state", sa.text("priority DESC"), "id"])
    attempts()


def attempts() -> None:
    op.create_table(
        "attempt",
        row_id(),
        reference("job_id", "job.id"),
        required("n", NUMBER),
        required("worker", TEXT),
        required("started", TIME),
        optional("ended", TIME),
        words("outcome", "ok", "error", "killed", "timed_out", "interrupted", nullable=True),
        optional("detail", TEXT),
        sa.UniqueConstraint("job_id", "n"),
    )


def received() -> None:
    op.create_table(
        "series",
        row_id(),
        reference("study_id", "study.id"),
        required("series_uid", TEXT),
        optional("modality", TEXT),
        words("origin", "received", "produced"),
        reference("produced_by_job", "job.id", nullable=True),
        optional("facts", JSON),
        required("facts_version", NUMBER),
        optional("expected", NUMBER),
        required("last_arrival", TIME),
        optional("whole_reason", TEXT),
        words("state", "arriving", "whole", "incomplete"),
        sa.UniqueConstraint("study_id", "series_uid"),
    )
    instances()
    op.create_table(
        "quarantine",
        row_id(),
        required("path", TEXT),
        required("code", TEXT),
        optional("detail", TEXT),
        optional("calling_ae", TEXT),
        optional("peer", TEXT),
        required("received", TIME),
        sa.UniqueConstraint("path"),
    )


def instances() -> None:
    op.create_table(
        "instance",
        row_id(),
        reference("series_id", "series.id"),
        required("sop_uid", TEXT),
        required("sop_class_uid", TEXT),
        required("content_sha256", TEXT),
        optional("pixel_sha256", TEXT),
        required("transfer_syntax_uid", TEXT),
        required("path", TEXT),
        required("size", NUMBER),
        required("header", JSON),
        optional("association_id", TEXT),
        required("received", TIME),
        reference("job_id", "job.id", nullable=True),
        optional("reason", TEXT),
        words("state", "current", "conflicting", "superseded", "quarantined", "removed"),
        sa.UniqueConstraint("sop_uid", "content_sha256"),
        sa.UniqueConstraint("path"),
    )
    for column in ("series_id", "association_id", "job_id"):
        index("instance", column)
    unique_where("uq_instance_current", "instance", ["sop_uid"], "state = 'current'")


def deliveries() -> None:
    op.create_table(
        "delivery",
        row_id(),
        reference("instance_id", "instance.id"),
        required("destination", TEXT),
        reference("job_id", "job.id", nullable=True),
        words("proof", "accepted", "committed", "seen"),
        required("tries", NUMBER),
        required("first_due", TIME),
        optional("not_before", TIME),
        optional("status_hex", TEXT),
        optional("transaction_uid", TEXT),
        optional("reason", TEXT),
        optional("sent_at", TIME),
        optional("accepted_at", TIME),
        words("state", *DELIVERY_STATES),
        sa.UniqueConstraint("instance_id", "destination"),
    )
    index("delivery", "destination", "state", "not_before")
    index("delivery", "job_id")
    index("delivery", "transaction_uid")
    op.create_table(
        "commitment",
        row_id(),
        required("transaction_uid", TEXT),
        words("role", "scu", "scp"),
        required("peer", TEXT),
        required("requested", TIME),
        optional("deadline", TIME),
        required("items", JSON),
        words("state", "asked", "confirmed", "partly", "refused", "timed_out"),
        sa.UniqueConstraint("transaction_uid"),
    )
    index("commitment", "state", "deadline")


def models() -> None:
    op.create_table(
        "model",
        sa.Column("sha256", TEXT, primary_key=True),
        required("engine", TEXT),
        required("version", TEXT),
        required("scope", TEXT),
        required("card", JSON),
        words("state", "candidate", "shadow", "champion", "retired"),
    )
    unique_where("uq_model_champion", "model", ["engine", "scope"], "state = 'champion'")


def events() -> None:
    op.create_table(
        "event",
        row_id(),
        required("at", TIME),
        required("actor", TEXT),
        required("subject_type", TEXT),
        required("subject_id", TEXT),
        optional("from_state", TEXT),
        optional("to_state", TEXT),
        required("reason", TEXT),
        optional("data", JSON),
    )
    index("event", "at")
    index("event", "subject_type", "subject_id")


def refuse_changes(table: str) -> None:
    """Triggers that let rows be inserted only."""
    if op.get_context().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table}: rows are only inserted'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_is_insert_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table}: rows are only inserted'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_is_insert_only()"
    )
