"""The sweep: when the disk fills, the oldest finished studies lose their pixels; headers and facts stay for replay."""

from __future__ import annotations

import shutil

from sqlalchemy import select

from daemon.node import Node, Turn
from db import jobs, schema, studies
from db.moves import move
from db.states import DeliveryState, InstanceState, JobState, StudyState

ACTOR = "sweep"
UNFINISHED_JOBS = (JobState.WAITING, JobState.RUNNING, JobState.HELD, JobState.DEAD, JobState.CANCELLING)
WITH_BYTES = (InstanceState.CURRENT, InstanceState.SUPERSEDED)
DELIVERED = {
    schema.Proof.ACCEPTED: {DeliveryState.ACCEPTED, DeliveryState.COMMITTED, DeliveryState.SEEN},
    schema.Proof.COMMITTED: {DeliveryState.COMMITTED, DeliveryState.SEEN},
    schema.Proof.SEEN: {DeliveryState.SEEN},
}


def sweep(node: Node) -> int:
    """Remove finished studies, oldest first, until the disk is below the low-water mark; returns how many."""
    policy = node.settings.retention
    if used_percent(node) < policy.high_water_percent:
        return 0
    with node.store.read() as session:
        kept = select(schema.Series.id).join(schema.Instance, schema.Instance.series_id == schema.Series.id)
        kept = kept.where(schema.Series.study_id == schema.Study.id, schema.Instance.state.in_(WITH_BYTES))
        order = select(schema.Study.id).order_by(schema.Study.last_arrival)
        candidates = list(session.scalars(order.where(schema.Study.state != StudyState.COLLECTING, kept.exists())))
    removed = 0
    for study_id in candidates:
        if used_percent(node) < policy.low_water_percent:
            break
        removed += sweep_study(node, study_id)
    node.log.info("swept", studies=removed, used_percent=round(used_percent(node), 1))
    return removed


def sweep_study(node: Node, study_id: int) -> bool:
    """Remove one study's bytes if it is finished: the rows say `removed` before the files go."""
    with node.turn() as turn:
        if not finished(turn, study_id):
            return False
        paths = []
        for series in studies.series_of(turn.session, study_id):
            for instance in removable(turn, series.id):
                move(turn.session, instance, InstanceState.REMOVED, reason="disk", actor=ACTOR, at=turn.now)
                paths.append(instance.path)
        attempts = [node.folders.results / str(job.id) for job in jobs.of_study(turn.session, study_id, list(JobState))]
    for path in paths:
        (node.folders.data / path).unlink(missing_ok=True)
    for folder in attempts:
        if folder.is_dir():
            shutil.rmtree(folder)
    return bool(paths)


def removable(turn: Turn, series_id: int) -> list[schema.Instance]:
    """Instances of a finished study that still have bytes."""
    query = select(schema.Instance).where(schema.Instance.series_id == series_id, schema.Instance.state.in_(WITH_BYTES))
    return list(turn.session.scalars(query))


def finished(turn: Turn, study_id: int) -> bool:
    """Nothing of the study waits, is held, in conflict or undelivered."""
    if jobs.of_study(turn.session, study_id, UNFINISHED_JOBS) or studies.conflicts(turn.session, study_id):
        return False
    rows = turn.session.scalars(
        select(schema.Delivery)
        .join(schema.Instance, schema.Instance.id == schema.Delivery.instance_id)
        .join(schema.Series, schema.Series.id == schema.Instance.series_id)
        .where(schema.Series.study_id == study_id)
    )
    return all(row.state == DeliveryState.WITHDRAWN or row.state in DELIVERED[schema.Proof(row.proof)] for row in rows)


def used_percent(node: Node) -> float:
    """How full the data folder's file system is."""
    usage = shutil.disk_usage(node.folders.data)
    return 100.0 * usage.used / usage.total
