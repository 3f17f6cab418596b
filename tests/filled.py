"""The database of a node that has worked for years: studies received, computed, forwarded, delivered and finished.

Rows only, in the proportions of a ward that forwards what it receives: a hundred instances to a study, one job with two
results, a delivery for each of these, and the events that led there. Written in bulk, past `db.moves`.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select

from db import schema
from db.session import Store
from db.states import AssociationState, DeliveryState, InstanceState, JobState, SeriesState, StudyState

SLICES = 50
"""Of each of the two received series."""
RECEIVED, RESULTS = 2 * SLICES, 2
STUDIES_AT_ONCE = 25
RULESET = "f" * 64
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
Rows = dict[type[schema.Table], list[dict[str, Any]]]


def fill(store: Store, studies: int, *, header: Mapping[str, Any], destination: str = "pacs") -> None:
    """Add that many finished studies to those that are there.

    header : what the node keeps of each received instance
    """
    with store.read() as session:
        first = (session.scalar(select(func.max(schema.Study.id))) or 0) + 1
    for start in range(first, first + studies, STUDIES_AT_ONCE):
        with store.write() as session:
            if session.get(schema.Ruleset, RULESET) is None:
                session.add(schema.Ruleset(sha256=RULESET, text="", activated_at=FIRST, activated_by="test"))
            rows: Rows = {}
            for number in range(start, min(start + STUDIES_AT_ONCE, first + studies)):
                for table, row in rows_of_study(number, header, destination):
                    rows.setdefault(table, []).append(row)
            for table, of_table in rows.items():
                session.execute(insert(table), of_table)


def rows_of_study(
    number: int, header: Mapping[str, Any], destination: str
) -> Iterator[tuple[type[schema.Table], dict[str, Any]]]:
    """All rows of study `number`, whose id it is."""
    at = FIRST + timedelta(minutes=number)
    yield schema.Study, _study(number, at)
    yield schema.Association, _association(number, at)
    yield schema.Decision, _decision(number, at)
    yield schema.Event, _event("study", number, "collecting", "settled", at)
    series = {3 * number: "PT", 3 * number + 1: "CT", 3 * number + 2: "SEG"}
    for series_id, modality in series.items():
        yield schema.Series, _series(series_id, number, modality, at)
        yield schema.Event, _event("series", series_id, "arriving", "whole", at)
    yield schema.Job, _job(number, destination, at)
    yield schema.Attempt, _attempt(number, at)
    for states in (("waiting", "running"), ("running", "done")):
        yield schema.Event, _event("job", number, *states, at)
    first = number * (RECEIVED + RESULTS)
    for instance_id in range(first, first + RECEIVED + RESULTS):
        place = instance_id - first
        yield schema.Instance, _instance(instance_id, number, place, header, at)
        yield schema.Delivery, _delivery(instance_id, number if place >= RECEIVED else None, destination, at)
        for states in (("queued", "sending"), ("sending", "accepted")):
            yield schema.Event, _event("delivery", instance_id, *states, at)


def _study(number: int, at: datetime) -> dict[str, Any]:
    return {
        "id": number,
        "study_uid": f"2.25.{number}",
        "patient_id": str(number),
        "issuer": "",
        "generation": 1,
        "first_arrival": at,
        "last_arrival": at,
        "due": None,
        "state": StudyState.SETTLED,
    }


def _association(number: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"{number:x}-1-0",
        "calling_ae": "PETCT1",
        "called_ae": "TRACERD",
        "peer": "10.0.0.1",
        "port": 104,
        "opened": at,
        "closed": at,
        "stored": RECEIVED,
        "refused": 0,
        "state": AssociationState.CLOSED,
    }


def _series(series_id: int, study: int, modality: str, at: datetime) -> dict[str, Any]:
    produced = modality == "SEG"
    facts = {"modality": modality, "kind": "static", "complete": True, "slices": SLICES, "tracer": "FDG"}
    return {
        "id": series_id,
        "study_id": study,
        "series_uid": f"2.25.{study}.{series_id}",
        "modality": modality,
        "origin": schema.Origin.PRODUCED if produced else schema.Origin.RECEIVED,
        "produced_by_job": study if produced else None,
        "facts": {**facts, "positions_mm": [3.0 * index for index in range(SLICES)]},
        "facts_version": 2,
        "expected": SLICES,
        "last_arrival": at,
        "whole_reason": "all there",
        "state": SeriesState.WHOLE,
    }


def _instance(instance_id: int, study: int, place: int, header: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    result = place >= RECEIVED
    return {
        "id": instance_id,
        "series_id": 3 * study + min(place // SLICES, 2),
        "sop_uid": f"2.25.{study}.9.{instance_id}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.128",
        "content_sha256": f"{instance_id * 0x9E3779B97F4A7C15 % 2**256:064x}",
        "pixel_sha256": None,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"results/{study}/1/{place}.dcm" if result else f"store/{at:%Y%m%d}/{instance_id}.dcm",
        "size": 80_000,
        "header": {} if result else dict(header),
        "association_id": None if result else f"{study:x}-1-0",
        "received": at,
        "job_id": study if result else None,
        "reason": None,
        "state": InstanceState.CURRENT,
    }


def _decision(study: int, at: datetime) -> dict[str, Any]:
    return {
        "id": study,
        "study_id": study,
        "generation": 1,
        "ruleset": RULESET,
        "rule": "fdg",
        "verdict": schema.Verdict.YES,
        "pending": False,
        "clauses": [],
        "inputs": [{"pet": 3 * study}],
        "at": at,
    }


def _job(study: int, destination: str, at: datetime) -> dict[str, Any]:
    first = study * (RECEIVED + RESULTS)
    instances = list(range(first, first + SLICES))
    return {
        "id": study,
        "key": f"{study:064x}",
        "decision_id": study,
        "study_id": study,
        "rule": "fdg",
        "engine": "threshold_segmentation",
        "engine_version": "1",
        "model_sha256": None,
        "parameters": {"method": "fixed", "threshold_suv": 4.0},
        "inputs": {
            "pet": {"series": 3 * study, "instances": instances, "contents": [f"{one:064x}" for one in instances]}
        },
        "destinations": [destination],
        "mode": schema.JobMode.CLINICAL,
        "priority": 0,
        "rerun": 0,
        "attempts": 1,
        "interruptions": 0,
        "manifest": {"outputs": [], "seconds": {}, "findings": {"measurements": [], "lesions": []}, "warnings": []},
        "created": at,
        "finished": at,
        "state": JobState.DONE,
    }


def _attempt(study: int, at: datetime) -> dict[str, Any]:
    return {
        "id": study,
        "job_id": study,
        "n": 1,
        "worker": "0",
        "started": at,
        "ended": at,
        "outcome": schema.Outcome.OK,
        "detail": "",
    }


def _delivery(instance_id: int, job: int | None, destination: str, at: datetime) -> dict[str, Any]:
    return {
        "id": instance_id,
        "instance_id": instance_id,
        "destination": destination,
        "job_id": job,
        "proof": schema.Proof.ACCEPTED,
        "tries": 1,
        "first_due": at,
        "status_hex": "0000",
        "proof_tries": 0,
        "sent_at": at,
        "accepted_at": at,
        "state": DeliveryState.ACCEPTED,
    }


def _event(subject: str, row_id: int, was: str, became: str, at: datetime) -> dict[str, Any]:
    return {
        "at": at,
        "actor": "deliver",
        "subject_type": subject,
        "subject_id": str(row_id),
        "from_state": was,
        "to_state": became,
        "reason": "",
    }
