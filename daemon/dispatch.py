"""Rules → decisions → jobs. The rules themselves are judged by the pure function route.decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.conditions import Answer
from config.rules import Rule
from daemon import deliver, models
from daemon.identity import Work
from daemon.index import HOLD_TEXT, held_by_doubt
from daemon.node import TRACERD_VERSION, Turn
from daemon.route import Decision, decide
from db import jobs, schema, studies
from db.moves import move
from db.states import JobState, SeriesState, StudyState
from engines.registry import engine

ACTOR = "route"
UNKNOWN = "unknown"
ALIVE = (JobState.WAITING, JobState.HELD)
REPLACEABLE = (JobState.RUNNING, JobState.DONE, JobState.REJECTED)


@dataclass(frozen=True, slots=True)
class Order:
    """What a rule asks for: its inputs by slot, and the doubt that makes it wait for a person (None: no doubt)."""

    study_id: int
    rule: Rule
    decision_id: int | None
    inputs: Mapping[str, int]
    doubt: str | None = None
    rerun: int = 0


def activate(turn: Turn) -> None:
    """Put the rule set of the configuration into force; every decision names its sha256."""
    row = turn.session.get(schema.Ruleset, turn.node.ruleset)
    if row is None:
        text = turn.node.settings.rules_text()
        row = schema.Ruleset(sha256=turn.node.ruleset, text=text, activated_at=turn.now, activated_by="config")
        turn.session.add(row)
    row.activated_at = turn.now


def study_facts(turn: Turn, study: schema.Study) -> dict[str, Any]:
    """What the rules may know of a study: the facts of its whole and incomplete series."""
    described = [
        {**row.facts, "id": row.id, "received": row.last_arrival.isoformat()}
        for row in studies.series_of(turn.session, study.id)
        if row.facts and row.state != SeriesState.ARRIVING
    ]
    return {"settled": study.state != StudyState.COLLECTING, "series": described}


def dispatch(turn: Turn, study: schema.Study) -> None:
    """Ask every rule about the study, record what it said if that is news, and make the jobs that follow."""
    settings = turn.node.settings
    rules = {rule.name: rule for rule in settings.rules}
    for decision in decide(settings.rules, study_facts(turn, study)):
        rule = rules[decision.rule]
        row = record(turn, study, decision)
        if decision.verdict is Answer.NO or decision.pending:
            continue
        doubt = None if decision.verdict is Answer.YES else decision.reason
        for inputs in decision.inputs:
            ensure_job(turn, Order(study.id, rule, row.id, inputs, doubt))
        if decision.verdict is Answer.YES and rule.forward == "originals":
            forward(turn, study, rule)


def record(turn: Turn, study: schema.Study, decision: Decision) -> schema.Decision:
    """Insert the decision unless the rule has said the same of this generation of the study."""
    clauses, inputs = [dict(clause) for clause in decision.clauses], list(decision.inputs)
    said = (str(decision.verdict), decision.pending, clauses, inputs)
    for row in jobs.decisions(turn.session, study, decision.rule):
        if (str(row.verdict), row.pending, row.clauses, row.inputs) == said:
            return row
    row = schema.Decision(
        study_id=study.id,
        generation=study.generation,
        ruleset=turn.node.ruleset,
        rule=decision.rule,
        verdict=schema.Verdict(decision.verdict),
        pending=decision.pending,
        clauses=clauses,
        inputs=inputs,
        at=turn.now,
    )
    turn.session.add(row)
    turn.session.flush()
    return row


def ensure_job(turn: Turn, order: Order) -> schema.Job:
    """Make the job of an order unless its key exists already; older jobs on the same series give way to it."""
    job = build(turn, order)
    existing = jobs.by_key(turn.session, job.key)
    if existing is not None:
        deliver.add_destinations(turn, existing, order.rule.send_to)
        if existing.state == JobState.HELD and existing.reason_code == UNKNOWN and order.doubt is None:
            move(turn.session, existing, JobState.WAITING, reason="not in doubt any more", actor=ACTOR, at=turn.now)
        return existing
    replace_older(turn, job)
    turn.session.add(job)
    turn.session.flush()
    study = turn.session.get_one(schema.Study, order.study_id)
    hold = order.doubt or held_by_doubt(turn, study)
    if hold is not None:
        job.reason_code = UNKNOWN if order.doubt else hold
        job.reason = HOLD_TEXT.get(hold, hold)
        move(turn.session, job, JobState.HELD, reason=job.reason_code, actor=ACTOR, at=turn.now)
    return job


def build(turn: Turn, order: Order) -> schema.Job:
    """The job row of an order, not yet added."""
    rule, method = order.rule, engine(order.rule.engine)
    inputs = {slot: instance_set(turn, series_id) for slot, series_id in order.inputs.items()}
    parameters, weights_sha256 = {**method.defaults, **rule.parameters}, models.weights_of(turn, method)
    work = Work(
        installation_id=turn.node.installation_id,
        tracerd_version=TRACERD_VERSION,
        engine=rule.engine,
        engine_version=method.version,
        weights_sha256=weights_sha256,
        parameters=parameters,
        contents={slot: wanted["contents"] for slot, wanted in inputs.items()},
        rerun=order.rerun,
    )
    return schema.Job(
        key=work.key(),
        decision_id=order.decision_id,
        study_id=order.study_id,
        rule=rule.name,
        engine=rule.engine,
        engine_version=method.version,
        model_sha256=weights_sha256,
        parameters=parameters,
        inputs=inputs,
        destinations=list(rule.send_to),
        mode=schema.JobMode(rule.mode),
        priority=rule.priority,
        rerun=order.rerun,
        attempts=0,
        interruptions=0,
        created=turn.now,
        state=JobState.WAITING,
    )


def instance_set(turn: Turn, series_id: int) -> dict[str, Any]:
    """The instances that fill a slot: row ids and content digests."""
    rows = studies.current_instances(turn.session, series_id)
    return {
        "series": series_id,
        "instances": [row.id for row in rows],
        "contents": sorted(row.content_sha256 for row in rows),
    }


def replace_older(turn: Turn, job: schema.Job) -> None:
    """Cancel waiting jobs of the same rule on the same series; name the one whose results the new job replaces."""

    def same_series(older: schema.Job) -> bool:
        return all(job.inputs.get(slot, wanted)["series"] == wanted["series"] for slot, wanted in older.inputs.items())

    for older in jobs.of_rule(turn.session, job.study_id, job.rule, ALIVE):
        if same_series(older):
            move(turn.session, older, JobState.CANCELLED, reason="its inputs changed", actor=ACTOR, at=turn.now)
    replaced = [
        older for older in jobs.of_rule(turn.session, job.study_id, job.rule, REPLACEABLE) if same_series(older)
    ]
    if replaced:
        job.supersedes = replaced[-1].id


def forward(turn: Turn, study: schema.Study, rule: Rule) -> None:
    """Pass the received objects of the study on to the rule's destinations."""
    received = [
        instance.id
        for row in studies.series_of(turn.session, study.id)
        if row.origin == schema.Origin.RECEIVED
        for instance in studies.current_instances(turn.session, row.id)
    ]
    for name in rule.send_to:
        deliver.enqueue(turn, received, name, job=None)
