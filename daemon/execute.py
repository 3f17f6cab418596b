"""Jobs → attempts → results. The database decides what runs next; the pool only runs it.

Every attempt writes its own folder. A whole manifest is adopted, whoever wrote it and whatever happened since; bytes of
any other attempt are never sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from daemon import deliver, models, profile
from daemon.failures import HINTS, Disposition, Failure, back_off, contain
from daemon.node import TO_RUN, TRACERD_VERSION, Node, Turn
from daemon.verification import require
from daemon.worker import Task, attempt, stop_event, whole_manifest
from db import jobs, schema
from db.moves import move
from db.states import InstanceState, JobState, SeriesState
from dicom_io.errors import DicomError
from engines.registry import runnable

if TYPE_CHECKING:
    from distributed import Future

    from daemon.pool import Pool

ACTOR = "execute"
BACKSTOP_S = 30.0
"""The task ends itself at its limit; this much later the daemon ends its process."""
POLITE_S = 1.0
"""How long an engine has to answer `should_stop` before its process is ended."""
UNDYING_S = 60.0
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0
OUTCOMES = {"time-limit": schema.Outcome.TIMED_OUT, "worker-died": schema.Outcome.KILLED}


@dataclass(frozen=True, slots=True)
class Flight:
    """A job in the hands of a worker."""

    job_id: int
    attempt: int
    worker: int
    pid: int | None
    future: Future[Any]
    started: float
    limit_s: float

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started


class Executor:
    """Keeps every worker of its pool at one job at a time."""

    def __init__(self, node: Node, pool: Pool, *, function: Callable[[dict[str, Any]], Any] = attempt) -> None:
        self._node = node
        self.pool = pool
        self._function = function
        self._flights: dict[int, Flight] = {}
        self._lost: set[int] = set()
        self._ending: dict[int, float] = {}

    @property
    def flights(self) -> list[Flight]:
        """What runs now."""
        return list(self._flights.values())

    def step(self) -> bool:
        """Collect what ended, end what hangs or was cancelled, start what waits; True when anything happened."""
        ended = [flight for flight in self.flights if flight.future.done()]
        for flight in ended:
            self._collect(flight)
        self._end_stuck()
        started = [worker for worker in self._idle_workers() if self._start(worker)]
        return bool(ended or started)

    def interrupt(self) -> None:
        """Orderly stop: what runs goes back into the queue and nothing is counted against it."""
        for flight in self.flights:
            with self._node.turn() as turn:
                job = turn.session.get_one(schema.Job, flight.job_id)
                jobs.end_attempt(
                    turn.session, job.id, outcome=schema.Outcome.INTERRUPTED, detail="node stopped", at=turn.now
                )
                job.attempts -= 1
                state = JobState.CANCELLED if job.state == JobState.CANCELLING else JobState.WAITING
                move(turn.session, job, state, reason="node stopped", actor=ACTOR, at=turn.now)
        self._flights.clear()

    def _idle_workers(self) -> list[int]:
        busy = {flight.worker for flight in self.flights} | self._lost
        return sorted(name for name in self.pool.present() if name not in busy)

    def _start(self, worker: int) -> bool:
        """Claim the next due job for a worker."""
        with self._node.glance() as look:
            if jobs.next_due(look.session, look.now) is None:
                return False
        with self._node.turn() as turn:
            job = jobs.next_due(turn.session, turn.now)
            if job is None:
                return False
            number = jobs.claim(turn.session, job, worker=str(worker), at=turn.now).n
            built: list[Task] = []
            fault = contain(lambda: built.append(task_of(turn, job, number)))
            if fault is not None:  # an engine that this version does not have, for one
                fail(turn, job, Failure.of(fault))
                return True
        (task,) = built
        pid = self.pool.pid(worker)
        future = self.pool.submit(self._function, task.to_json(), worker=worker, key=f"job-{job.id}-{number}")
        future.add_done_callback(lambda _: self._node.bells.of(TO_RUN).ring())
        self._flights[job.id] = Flight(job.id, number, worker, pid, future, time.monotonic(), task.limit_s)
        self._node.log.info("started", job=job.id, attempt=number, worker=worker)
        return True

    def _collect(self, flight: Flight) -> None:
        """Write down how a flight ended."""
        del self._flights[flight.job_id]
        self._ending.pop(flight.job_id, None)
        manifest, failure, where = outcome(self._node, flight)
        flight.future.release()
        seconds = round(flight.seconds, 3)
        with self._node.turn() as turn:
            job = turn.session.get_one(schema.Job, flight.job_id)
            if manifest is not None:
                adopt(turn, job, flight.attempt, manifest)
            else:
                fail(turn, job, failure)
            state, code = job.state, job.reason_code
        log = self._node.log.warning if manifest is None else self._node.log.info
        log("ended", job=flight.job_id, attempt=flight.attempt, state=state, code=code, seconds=seconds, frames=where)

    def _end_stuck(self) -> None:
        """End what was cancelled, politely first, and as a back-stop what outlived its own limit."""
        if not self._flights:
            return
        with self._node.store.read() as session:
            cancelled = {job.id for job in jobs.in_state(session, JobState.CANCELLING)}
        for flight in self.flights:
            if flight.job_id in cancelled or flight.seconds >= flight.limit_s + BACKSTOP_S:
                self._end(flight)

    def _end(self, flight: Flight) -> None:
        """Ask, then kill. A process that SIGKILL does not end is held by a driver: its name is not used again."""
        if flight.job_id not in self._ending:
            self._ending[flight.job_id] = time.monotonic()
            self.pool.ask_to_stop(stop_event(flight.job_id))
        waited_s = time.monotonic() - self._ending[flight.job_id]
        if waited_s >= POLITE_S:
            self.pool.kill(flight.worker, flight.pid)
        if waited_s >= UNDYING_S:
            self._lost.add(flight.worker)
            self._node.log.critical("worker-lost", worker=flight.worker, hint="It did not die; see the GPU driver.")
            flight.future.cancel()


def task_of(turn: Turn, job: schema.Job, number: int) -> Task:
    """The job as a worker needs it: absolute paths and plain values."""
    node, method = turn.node, runnable(job.engine)
    require(node.verification, (method.inputs[slot].quantity for slot in job.inputs))
    inputs = {}
    for slot, wanted in job.inputs.items():
        rows = [turn.session.get_one(schema.Instance, instance_id) for instance_id in wanted["instances"]]
        paths = [str((node.folders.data / row.path).resolve()) for row in rows]
        inputs[slot] = {"quantity": str(method.inputs[slot].quantity), "paths": paths}
    return Task(
        job_id=job.id,
        folder=str(attempt_folder(node, job.id, number).resolve()),
        engine=job.engine,
        parameters=job.parameters,
        inputs=inputs,
        identity=identity_of(turn, job),
        timezone=node.timezone.key,
        limit_s=job.time_limit_s or node.settings.execute.time_limit_s,
        objects=profile.written(node.settings.destinations.values()),
        report_refusal=any(one.report_not_processed for one in deliver.destinations_of(node, job).values()),
        weights=models.path_for_job(turn, job, method),
    )


def identity_of(turn: Turn, job: schema.Job) -> dict[str, Any]:
    """Keyword arguments of dicom_io.write.header.Identity."""
    chain, older = [], job.supersedes
    while older is not None:
        chain.append(older)
        older = turn.session.get_one(schema.Job, older).supersedes
    study = turn.session.get_one(schema.Study, job.study_id)
    predecessors = [
        {
            "study_instance_uid": study.study_uid,
            "series_instance_uid": series.series_uid,
            "sop_class_uid": instance.sop_class_uid,
            "sop_instance_uid": instance.sop_uid,
        }
        for instance, series in (jobs.results(turn.session, chain[0]) if chain else [])
    ]
    return {
        "job_key": job.key,
        "job_id": job.id,
        "engine": job.engine,
        "engine_version": job.engine_version,
        "tracerd_version": TRACERD_VERSION,
        "weights_sha256": job.model_sha256,
        "created": job.created.isoformat(),
        "supersedes": predecessors,
        "rerun": len(chain),
        "parameters": job.parameters,
        "timezone": turn.node.timezone.key,
        "installation_id": turn.node.installation_id,
    }


def attempt_folder(node: Node, job_id: int, number: int) -> Path:
    """results/<job>/<attempt>"""
    return node.folders.results / str(job_id) / str(number)


def outcome(node: Node, flight: Flight) -> tuple[dict[str, Any] | None, Failure, list[str]]:
    """Manifest of a flight that ended well, else why it did not and where it was."""
    future, folder = flight.future, attempt_folder(node, flight.job_id, flight.attempt)
    unknown = Failure(Disposition.BUG, "no-result", "the attempt ended without a manifest", HINTS["bug"])
    if future.cancelled():
        return None, Failure(Disposition.RETRY, "time-limit", "ended from outside", HINTS["time-limit"]), []
    error = future.exception()
    if error is not None:
        return None, death(flight, error), []
    answer = future.result()
    if answer["outcome"] != "ok":
        return None, Failure.from_json(answer["failure"]), answer["frames"]
    try:
        return whole_manifest(folder), unknown, []
    except DicomError as damaged:
        return None, Failure.of(damaged), []


def death(flight: Flight, error: BaseException) -> Failure:
    """Why a worker process died under a task: its own watchdog at the limit, or something else."""
    if flight.seconds >= flight.limit_s:
        text = f"stopped after {flight.limit_s:g} s"
        return Failure(Disposition.RETRY, "time-limit", text, HINTS["time-limit"])
    text = f"its worker process ended ({type(error).__name__}) after {flight.seconds:.1f} s"
    return Failure(Disposition.RETRY, "worker-died", text, HINTS["worker-died"])


def fail(turn: Turn, job: schema.Job, failure: Failure) -> None:
    """Record a failed attempt and move the job where the table of failures says."""
    session, policy = turn.session, turn.node.settings.execute
    result = OUTCOMES.get(failure.code, schema.Outcome.ERROR)
    jobs.end_attempt(session, job.id, outcome=result, detail=f"{failure.code}: {failure.message}", at=turn.now)
    job.reason_code, job.reason = failure.code, f"{failure.message}. {failure.hint}".strip()
    if job.state == JobState.CANCELLING:
        move(session, job, JobState.CANCELLED, reason="on request", actor=ACTOR, at=turn.now)
        return
    state = next_state(job, failure, cap=policy.attempts)
    if state == JobState.WAITING and failure.disposition is Disposition.STOP:
        job.attempts -= 1
    elif state == JobState.WAITING:
        job.not_before = turn.now + back_off(job.attempts, first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S, rng=turn.node.rng)
    if state in {JobState.REJECTED, JobState.DEAD}:
        job.finished = turn.now
    move(session, job, state, reason=failure.code, actor=ACTOR, at=turn.now)


def next_state(job: schema.Job, failure: Failure, *, cap: int) -> JobState:
    """Where a failure takes a running job."""
    if failure.disposition is Disposition.REJECT:
        return JobState.REJECTED
    if failure.disposition is Disposition.HOLD:
        return JobState.HELD
    if failure.disposition is Disposition.STOP or job.attempts < cap:
        return JobState.WAITING
    return JobState.DEAD


def adopt(turn: Turn, job: schema.Job, number: int, manifest: dict[str, Any]) -> None:
    """Make a whole manifest the job's result: rows, deliveries and the end of what it replaces, in one transaction.

    A manifest with a refusal is a report of why there is no result: it is sent, and the job has failed.
    """
    session, refusal = turn.session, manifest.get("refusal")
    job.manifest = {**manifest, "attempt": number}
    cancelled = job.state == JobState.CANCELLING
    if refusal is not None:
        fail(turn, job, Failure.from_json(refusal))
    else:
        succeed(turn, job)
    if cancelled:
        return
    for output in manifest["outputs"]:
        add_output(turn, job, number, output)
    for name in deliver.destinations_of(turn.node, job):
        deliver.send_results(turn, job, name)
    if refusal is None and job.supersedes is not None:
        retire(turn, session.get_one(schema.Job, job.supersedes), by=job.id)


def succeed(turn: Turn, job: schema.Job) -> None:
    """The attempt ended well, and so does the job, unless somebody asked to cancel it."""
    jobs.end_attempt(turn.session, job.id, outcome=schema.Outcome.OK, detail="", at=turn.now)
    job.finished = turn.now
    job.reason_code, job.reason = "", ""
    cancelled = job.state == JobState.CANCELLING
    state, reason = (JobState.CANCELLED, "on request") if cancelled else (JobState.DONE, "")
    move(turn.session, job, state, reason=reason, actor=ACTOR, at=turn.now)


def retire(turn: Turn, older: schema.Job, *, by: int) -> None:
    """What a newer job replaces is not sent any more."""
    deliver.withdraw(turn, older, reason=f"replaced by job {by}")
    if older.state in {JobState.DONE, JobState.REJECTED}:
        move(turn.session, older, JobState.SUPERSEDED, reason=f"replaced by job {by}", actor=ACTOR, at=turn.now)


def add_output(turn: Turn, job: schema.Job, number: int, output: dict[str, Any]) -> None:
    """Rows of one produced object, in the series it belongs to."""
    session, node = turn.session, turn.node
    series = produced_series(turn, job, output)
    instance = schema.Instance(
        series_id=series.id,
        sop_uid=output["sop_uid"],
        sop_class_uid=output["sop_class_uid"],
        content_sha256=output["sha256"],
        transfer_syntax_uid=output["transfer_syntax_uid"],
        path=node.folders.relative(attempt_folder(node, job.id, number) / output["path"]),
        size=output["size"],
        header={},
        received=turn.now,
        job_id=job.id,
        state=InstanceState.CURRENT,
    )
    session.add(instance)
    session.flush()


def produced_series(turn: Turn, job: schema.Job, output: dict[str, Any]) -> schema.Series:
    """The row of a produced series: made with its first object; every further slice of it counts one more."""
    session = turn.session
    known = session.scalars(
        select(schema.Series).where(
            schema.Series.study_id == job.study_id,
            schema.Series.series_uid == output["series_uid"],
            schema.Series.produced_by_job == job.id,
        )
    ).one_or_none()
    if known is not None:
        known.expected = (known.expected or 0) + 1
        return known
    series = schema.Series(
        study_id=job.study_id,
        series_uid=output["series_uid"],
        modality=output["modality"],
        origin=schema.Origin.PRODUCED,
        produced_by_job=job.id,
        last_arrival=turn.now,
        expected=1,
        state=SeriesState.ARRIVING,
        facts={"modality": output["modality"], "produced_by": job.engine, "kind": "other", "complete": True},
    )
    session.add(series)
    session.flush()
    move(session, series, SeriesState.WHOLE, reason="produced", actor=ACTOR, at=turn.now)
    return series


def undamaged_manifest(node: Node, job_id: int, number: int) -> dict[str, Any] | None:
    """The manifest an interrupted attempt left behind, if it is whole and what it names is undamaged."""
    try:
        return whole_manifest(attempt_folder(node, job_id, number))
    except DicomError as damaged:
        node.log.warning("damaged-result", job=job_id, attempt=number, code=damaged.code)
        return None


def recover(turn: Turn) -> None:
    """After a restart: adopt the whole manifests of jobs that were running, put the others back into the queue."""
    for job in jobs.in_state(turn.session, JobState.RUNNING, JobState.CANCELLING):
        last = jobs.attempts(turn.session, job.id)[-1]
        manifest = undamaged_manifest(turn.node, job.id, last.n)
        if manifest is not None:
            adopt(turn, job, last.n, manifest)
            continue
        jobs.end_attempt(turn.session, job.id, outcome=schema.Outcome.INTERRUPTED, detail="node died", at=turn.now)
        job.attempts -= 1
        job.interruptions += 1
        if job.state == JobState.CANCELLING:
            move(turn.session, job, JobState.CANCELLED, reason="on request", actor=ACTOR, at=turn.now)
        elif job.interruptions >= turn.node.settings.execute.interruptions:
            job.reason_code = "interruptions"
            job.reason = f"the node died {job.interruptions} times while this job ran. Release it to try once more."
            move(turn.session, job, JobState.HELD, reason="interruptions", actor=ACTOR, at=turn.now)
        else:
            move(turn.session, job, JobState.WAITING, reason="node restarted", actor=ACTOR, at=turn.now)
