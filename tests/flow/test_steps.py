"""The steps of the pipeline on a real data folder and database, without sockets and processes around them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import select

from config.load import parse
from daemon import deliver, execute, index, pipeline, retention, worker
from daemon.failures import Failure
from daemon.node import Node, utc_now
from daemon.opening import open_node
from db import jobs, schema
from db.moves import move
from db.states import DeliveryState, InstanceState, JobState, StudyState
from dicom_io.errors import QuantityRefused
from engines.errors import CannotProcess
from tests import make
from tests.flow.running import FDG_RULE


def settings(folder: Path, **changes):
    return parse(
        {
            "data": str(folder / "data"),
            "timezone": "Europe/Berlin",
            "allow_unknown_peers": True,
            "destinations": {"pacs": {"host": "127.0.0.1", "port": 4242, "ae_title": "PACS"}},
            "rules": [FDG_RULE],
            **changes,
        }
    )


@contextmanager
def opened(folder: Path, *, later: timedelta = timedelta(0), **changes) -> Iterator[Node]:
    """A node whose clock is ahead by `later`, so that waiting times are over."""
    with open_node(settings(folder, **changes)) as node:
        node = replace(node, clock=lambda: utc_now() + later)
        pipeline.recover(node)
        yield node


_arrivals = iter(range(1_700_000_000_000_000_000, 1_800_000_000_000_000_000, 1000))


def drop(node: Node, files: list[Path]) -> None:
    """Files that came in by an association without a mark, as after a restart."""
    for number, path in enumerate(files):
        shutil.copy(path, node.spool.inbox / f"{next(_arrivals)}-a1-{number}.dcm")


def drain(node: Node) -> None:
    known: set[str] = set()
    while pipeline.receive_and_route(node, known):
        pass


def rows(node: Node, table):
    with node.glance() as turn:
        return list(turn.session.scalars(select(table).order_by(table.id)))


def run_job(node: Node, job_id: int) -> None:
    """One attempt at a job in this process, adopted as the executor would."""
    with node.turn() as turn:
        job = turn.session.get_one(schema.Job, job_id)
        number = jobs.claim(turn.session, job, worker="test", at=turn.now).n
        task = execute.task_of(turn, job, number)
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    worker.perform(task, folder, lambda: False)
    with node.turn() as turn:
        manifest = worker.whole_manifest(folder)
        assert manifest is not None
        execute.adopt(turn, turn.session.get_one(schema.Job, job_id), number, manifest)


def test_our_own_results_coming_back_make_nothing(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=41, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
        run_job(node, 1)
        results = [node.folders.data / row.path for row in rows(node, schema.Instance) if row.job_id is not None]
        assert len(results) == 2
        drop(node, results)
        drain(node)
        assert len(rows(node, schema.Instance)) == 18
        assert [job.state for job in rows(node, schema.Job)] == [JobState.DONE]
        assert not list(node.spool.inbox.iterdir())


def test_two_patients_under_one_study_uid_hold_the_job(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=42, pet_shape=(16, 24, 24))
    other = pydicom.dcmread(study.pet[5])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(study.pet[5])
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
        (job,) = rows(node, schema.Job)
        assert (job.state, job.reason_code) == (JobState.HELD, index.PATIENT_MISMATCH)


def test_a_late_arrival_opens_the_study_again_and_runs_nothing_twice(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=43, pet_shape=(16, 24, 24), ct_shape=(16, 32, 32))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
    with opened(tmp_path, later=timedelta(minutes=1)) as node:
        pipeline.look_at_due(node)
        (row,) = rows(node, schema.Study)
        assert (row.state, row.generation) == (StudyState.SETTLED, 1)
        drop(node, study.ct)
        drain(node)
        (row,) = rows(node, schema.Study)
        assert (row.state, row.generation) == (StudyState.COLLECTING, 2)
        assert len(rows(node, schema.Job)) == 1


def test_a_study_that_waited_in_the_inbox_for_hours_is_not_given_up_half_read(tmp_path: Path, monkeypatch):
    study = make.study(tmp_path / "study", seed=50, pet_shape=(40, 16, 16))
    monkeypatch.setattr(index, "BATCH", 16)
    rule = {**FDG_RULE, "incomplete": "run"}
    with opened(tmp_path, rules=[rule]) as node:
        drop(node, study.pet)
        drain(node)
        assert [row.state for row in rows(node, schema.Series)] == ["whole"]
        (job,) = rows(node, schema.Job)
        assert len(job.inputs["pet"]["instances"]) == 40


def test_a_crash_between_commit_and_unlink_files_nothing_twice(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=44, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        kept = {path.name: path.read_bytes() for path in node.spool.inbox.iterdir()}
        drain(node)
        for name, content in kept.items():
            stored = next(node.folders.store.rglob(name))
            (node.spool.inbox / name).hardlink_to(stored)
            assert stored.read_bytes() == content
        drain(node)
        assert len(rows(node, schema.Instance)) == 16
        assert not list(node.spool.inbox.iterdir())


def test_a_crash_after_linking_is_finished_by_the_next_pass(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=45, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        for path in index.inbox(node)[:7]:
            index.link(path, index.stored_path(node, path))
        drain(node)
        assert len(rows(node, schema.Instance)) == 16
        assert {row.state for row in rows(node, schema.Instance)} == {InstanceState.CURRENT}


def finished_but_not_adopted(node: Node, study: make.Study) -> Path:
    """The folder of an attempt whose manifest is whole and of which the database knows nothing yet."""
    drop(node, study.pet)
    drain(node)
    with node.turn() as turn:
        job = turn.session.get_one(schema.Job, 1)
        task = execute.task_of(turn, job, jobs.claim(turn.session, job, worker="0", at=turn.now).n)
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    worker.perform(task, folder, lambda: False)
    return folder


def test_a_manifest_that_a_dead_node_left_is_adopted_at_the_next_start(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=46, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        finished_but_not_adopted(node, study)
    with opened(tmp_path) as node:
        (job,) = rows(node, schema.Job)
        assert (job.state, job.attempts, job.interruptions) == (JobState.DONE, 1, 0)
        assert len(rows(node, schema.Delivery)) == 2


TELLS = {"pacs": {"host": "127.0.0.1", "port": 4242, "ae_title": "PACS", "report_not_processed": True}}


def refused_but_not_adopted(node: Node, study: make.Study) -> Path:
    """A job whose attempt has written why there is no result, and nobody has noticed."""
    drop(node, study.pet)
    drain(node)
    with node.turn() as turn:
        job = turn.session.get_one(schema.Job, 1)
        number = jobs.claim(turn.session, job, worker="test", at=turn.now).n
        task = execute.task_of(turn, job, number)
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    with pytest.raises(QuantityRefused) as caught:
        worker.perform(task, folder, lambda: False)
    assert worker.refused(task, folder, Failure.of(caught.value), caught.value) == {"outcome": "ok"}
    return folder


def test_a_refusal_that_a_dead_node_left_is_adopted_as_one(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=49, pet_shape=(16, 24, 24), omit=["PatientWeight"])
    with opened(tmp_path, destinations=TELLS) as node:
        refused_but_not_adopted(node, study)
    with opened(tmp_path, destinations=TELLS) as node:
        (job,) = rows(node, schema.Job)
        assert (job.state, job.reason_code) == (JobState.REJECTED, "no-weight")
        assert [(row.state, row.job_id) for row in rows(node, schema.Delivery)] == [(DeliveryState.QUEUED, 1)]
        (attempt,) = rows(node, schema.Attempt)
        assert attempt.outcome == schema.Outcome.ERROR


def test_a_refusal_goes_nowhere_where_nobody_asked_for_it_any_more(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=50, pet_shape=(16, 24, 24), omit=["PatientWeight"])
    with opened(tmp_path, destinations=TELLS) as node:
        refused_but_not_adopted(node, study)
    with opened(tmp_path) as node:
        assert rows(node, schema.Job)[0].state == JobState.REJECTED
        assert not rows(node, schema.Delivery)


def test_headers_that_cannot_be_read_leave_the_reason_without_a_report(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=51, pet_shape=(16, 24, 24), omit=["PatientWeight"])
    with opened(tmp_path, destinations=TELLS) as node:
        drop(node, study.pet)
        drain(node)
        with node.turn() as turn:
            job = turn.session.get_one(schema.Job, 1)
            task = execute.task_of(turn, job, jobs.claim(turn.session, job, worker="test", at=turn.now).n)
        Path(task.inputs["pet"]["paths"][0]).write_bytes(b"no DICOM")
        folder = tmp_path / "attempt"
        folder.mkdir()
        reason = CannotProcess("no", code="no")
        answer = worker.refused(task, folder, Failure.of(reason), reason)
        assert (answer["outcome"], answer["failure"]["code"]) == ("failed", "no")
        assert answer["frames"]
        assert worker.whole_manifest(folder) is None


def test_a_damaged_result_of_a_dead_node_is_computed_again(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=47, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        report = finished_but_not_adopted(node, study) / "sr.dcm"
        report.write_bytes(report.read_bytes()[:-100])
    with opened(tmp_path) as node:
        (job,) = rows(node, schema.Job)
        assert (job.state, job.attempts, job.interruptions) == (JobState.WAITING, 0, 1)


def test_a_job_that_the_node_died_under_five_times_is_held(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=48, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
    for _ in range(5):
        with opened(tmp_path) as node, node.turn() as turn:
            jobs.claim(turn.session, turn.session.get_one(schema.Job, 1), worker="0", at=turn.now)
    with opened(tmp_path) as node:
        (job,) = rows(node, schema.Job)
        assert (job.state, job.reason_code) == (JobState.HELD, "interruptions")


class NoWorkers:
    """A pool with one worker that must not be asked to do anything."""

    def present(self) -> dict[int, str]:
        return {0: "tls://127.0.0.1:1"}


def test_a_job_of_an_engine_that_this_version_does_not_have_is_held(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=51, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
        with node.turn() as turn:
            turn.session.get_one(schema.Job, 1).engine = "removed_engine"
        assert execute.Executor(node, NoWorkers()).step()
        (job,) = rows(node, schema.Job)
        assert (job.state, job.reason_code) == (JobState.HELD, "unknown-engine")


def test_a_destination_that_confuses_the_sender_costs_its_own_deliveries_only(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=52, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
        run_job(node, 1)
        with node.turn() as turn:
            for instance in turn.session.scalars(select(schema.Instance).where(schema.Instance.job_id == 1)):
                instance.transfer_syntax_uid = "not a UID"
        assert deliver.deliver(node, "pacs") == 2
        assert {row.state for row in rows(node, schema.Delivery)} <= {DeliveryState.QUEUED, DeliveryState.FAILED}
        assert all(row.reason for row in rows(node, schema.Delivery))


@pytest.fixture
def finished(tmp_path: Path) -> make.Study:
    """A study whose results were delivered, a minute ago."""
    study = make.study(tmp_path / "study", seed=49, pet_shape=(16, 24, 24))
    with opened(tmp_path) as node:
        drop(node, study.pet)
        drain(node)
        run_job(node, 1)
    with opened(tmp_path, later=timedelta(minutes=1)) as node:
        pipeline.look_at_due(node)
    return study


FULL_DISK = {"retention": {"high_water_percent": 2, "low_water_percent": 1}}
"""Any disk of a test machine is fuller than this."""


def test_the_sweep_keeps_what_is_not_delivered(tmp_path: Path, finished: make.Study):
    with opened(tmp_path, **FULL_DISK) as node:
        if retention.used_percent(node) < 2:
            pytest.skip("this disk is emptier than 2 %")
        assert retention.sweep(node) == 0
        assert len(list(node.folders.store.rglob("*.dcm"))) == 16


def test_the_sweep_removes_the_bytes_of_a_delivered_study_and_keeps_its_rows(tmp_path: Path, finished: make.Study):
    with opened(tmp_path, **FULL_DISK) as node:
        if retention.used_percent(node) < 2:
            pytest.skip("this disk is emptier than 2 %")
        with node.turn() as turn:
            for delivery in turn.session.scalars(select(schema.Delivery)):
                for state in (DeliveryState.SENDING, DeliveryState.ACCEPTED):
                    move(turn.session, delivery, state, reason="", actor="test", at=turn.now)
        assert retention.sweep(node) == 1
        assert list(node.folders.store.rglob("*.dcm")) == []
        assert list(node.folders.results.iterdir()) == [], "traces and abandoned attempts go with their study"
        assert {row.state for row in rows(node, schema.Instance)} == {InstanceState.REMOVED}
        assert all(row.facts for row in rows(node, schema.Series))
        drop(node, finished.pet)
        drain(node)
        states = [row.state for row in rows(node, schema.Instance) if row.job_id is None]
        assert states == [InstanceState.CURRENT] * 16, "what was removed may be sent again"
        assert len(rows(node, schema.Job)) == 1
