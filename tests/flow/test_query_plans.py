"""Nothing takes longer because much is stored: no statement of a step, a start or a question reads a whole big table.

The steps run on a database that is filled already; SQLite says for every statement they made how it would find its
rows. What it does not say, because it keeps no statistics here, does not depend on how many rows there are.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select

from daemon import app, commands, deliver, pipeline, prove, retention
from daemon.node import Node, Turn, to_send
from daemon.worker import attempt
from db import jobs, schema, studies
from db.deliveries import uncommitted, unseen
from db.moves import move
from db.states import DeliveryState, InstanceState, JobState
from tests import make
from tests.filled import RECEIVED, RESULTS, fill
from tests.flow.test_steps import FULL_DISK, drain, drop, opened, rows, run_job
from tests.processes import wait_until

BIG = {"series", "instance", "event", "delivery", "decision", "job", "attempt", "association"}
HEADER = {"Modality": "PT"}
STUDIES = 20
PROVING = {
    "pacs": {"host": "127.0.0.1", "port": 1, "ae_title": "PACS", "proof": "seen", "retry": {"first_s": 0.2}},
}

Statement = tuple[str, Any]


@contextmanager
def statements() -> Iterator[list[Statement]]:
    """What every thread asks of every database meanwhile, with its values."""
    made: list[Statement] = []

    def note(_connection, _cursor, statement: str, parameters: Any, _context, executemany: bool) -> None:
        made.append((statement, parameters[0] if executemany else parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plan(node: Node, statement: Statement) -> list[str]:
    """How SQLite finds the rows of a statement, in its words."""
    words, values = statement
    with node.store.read() as session:
        driver = session.connection().connection.driver_connection
        assert driver is not None
        return [detail for *_, detail in driver.execute(f"EXPLAIN QUERY PLAN {words}", values)]


def scans(node: Node, made: list[Statement], *, counting: bool = False) -> list[str]:
    """The statements that read a whole big table, or all of a sorted queue, each with its plan.

    counting : a whole index may be read, the table behind it not
    """
    found = []
    for words, values in dict(made).items():
        if not words.startswith(("SELECT", "UPDATE", "DELETE")):
            continue
        details = plan(node, (words, values))
        whole = [line for line in details if (match := re.match(r"SCAN (\w+)", line)) and match[1] in BIG]
        if counting:
            whole = [line for line in whole if "USING COVERING INDEX" not in line]
        newest_first = "LIMIT" in words and "WHERE" not in words
        of_big = re.search(r"FROM (\w+)", words)
        sorts_a_queue = "LIMIT" in words and any("TEMP B-TREE FOR ORDER BY" in line for line in details)
        sorts_a_queue &= of_big is not None and of_big[1] in BIG
        if (whole and not newest_first) or sorts_a_queue:
            found.append(f"{details} {words}")
    return found


@pytest.fixture
def study(tmp_path: Path) -> make.Study:
    with opened(tmp_path) as node:
        fill(node.store, STUDIES, header=HEADER)
    return make.study(tmp_path / "study", seed=91, pet_shape=(16, 24, 24), ct_shape=(16, 32, 32))


def test_the_filled_database_is_one_that_a_node_could_have_made(tmp_path: Path, study: make.Study) -> None:
    with opened(tmp_path) as node, node.glance() as turn:
        assert not turn.session.connection().exec_driver_sql("PRAGMA foreign_key_check").all()
        for job in jobs.in_state(turn.session, JobState.DONE):
            received = studies.current_instances(turn.session, job.inputs["pet"]["series"])
            assert [row.id for row in received] == job.inputs["pet"]["instances"]
            assert len(jobs.results(turn.session, job.id)) == RESULTS
        assert len(list(turn.session.scalars(select(schema.Delivery)))) == STUDIES * (RECEIVED + RESULTS)


def test_the_checker_notices_a_table_that_is_read_whole(tmp_path: Path, study: make.Study) -> None:
    with opened(tmp_path) as node, statements() as made:
        with node.glance() as turn:
            turn.session.scalars(select(schema.Event).where(schema.Event.reason == "duplicate")).all()
            turn.session.scalars(select(schema.Delivery.id).where(schema.Delivery.status_hex == "A700")).all()
            turn.session.scalars(select(schema.Event).order_by(schema.Event.reason).limit(1)).all()
            turn.session.scalars(select(schema.Event).where(schema.Event.id == 1)).all()
        assert len(scans(node, made)) == 3


def test_a_start_and_all_steps_find_what_they_need(tmp_path: Path, study: make.Study) -> None:
    """Recovery, a study from inbox to job, results sent in vain, what is due, what is to be proven, a duplicate."""
    with statements() as made:
        with opened(tmp_path, destinations=PROVING) as node:  # opening recovers
            drop(node, [*study.pet, *study.ct])
            drain(node)
            run_job(node, STUDIES + 1)
            assert deliver.deliver(node, "pacs") == RESULTS
            accept(node)
            with node.turn() as turn:
                jobs.next_due(turn.session, turn.now)
        with opened(tmp_path, destinations=PROVING, later=timedelta(minutes=5)) as node:
            pipeline.look_at_due(node)
            prove.prove(node, "pacs")
            pipeline.vouch_for_received(node)
            drop(node, study.pet[:1])
            drain(node)
        with opened(tmp_path) as node:
            assert scans(node, made) == []
    assert len(made) > 300
    assert any("FROM delivery" in words for words, _ in made)


def accept(node: Node) -> None:
    """The destination has taken everything after all."""
    with node.turn() as turn:
        for delivery in turn.session.scalars(select(schema.Delivery).where(schema.Delivery.job_id == STUDIES + 1)):
            delivery.not_before = None
            move(turn.session, delivery, DeliveryState.SENDING, reason="", actor="test", at=turn.now)
            move(turn.session, delivery, DeliveryState.ACCEPTED, reason="", actor="test", at=turn.now)


def test_lists_and_counts_read_indexes_at_most(tmp_path: Path, study: make.Study) -> None:
    with opened(tmp_path) as node:
        with statements() as made, node.glance() as turn:
            newest = commands.list_jobs(turn, state=None, limit=5)
            done = commands.list_jobs(turn, state="done", limit=5)
            everything = commands.list_jobs(turn, state="done", limit=None)
            assert newest == done == everything[:5]
            assert [job["id"] for job in everything] == list(range(STUDIES, 0, -1))
            commands.describe_job(turn, commands.job_row(turn, 3))
            assert commands.list_destinations(turn)[0]["deliveries"] == {"accepted": STUDIES * (RECEIVED + RESULTS)}
        assert scans(node, made) == []
        with statements() as made, node.glance() as turn:
            status = commands.status(turn)
            commands.list_conflicts(turn)
        assert status["instances"] == {"current": STUDIES * (RECEIVED + RESULTS)}
        assert scans(node, made, counting=True) == []


def test_lists_leave_inputs_and_manifests_where_they_are(tmp_path: Path, study: make.Study) -> None:
    """A job names every instance it reads: five hundred jobs would be megabytes of JSON for a list of lines."""
    with opened(tmp_path) as node, statements() as made, node.glance() as turn:
        commands.list_jobs(turn, state=None)
    assert not any(word in words for words, _ in made for word in ("job.inputs", "job.manifest"))


def test_counts_of_what_needs_attention_are_right(tmp_path: Path, study: make.Study) -> None:
    """Partial indexes hold the rows that matter, and the queries that use them find these."""
    with opened(tmp_path) as node:
        with node.turn() as turn:
            first, second, third = turn.session.scalars(select(schema.Delivery).limit(3))
            first.status_hex, second.status_hex, third.status_hex = "B000", "B007", "A700"
            event_of = {"at": turn.now, "actor": "index", "subject_type": "instance", "subject_id": "1"}
            turn.session.execute(insert(schema.Event), [{**event_of, "reason": "coerced"}] * 3)
        with node.glance() as turn:
            status = commands.status(turn)
    warned = {(one["status"], one["instances"]) for one in status["delivery_warnings"]}
    assert (warned, status["coerced"]) == ({("B000", 1), ("B007", 1)}, 3)


def test_the_sweep_does_not_ask_again_about_what_it_has_swept(tmp_path: Path, study: make.Study) -> None:
    with opened(tmp_path, **FULL_DISK) as node:
        if retention.used_percent(node) < 2:
            pytest.skip("this disk is emptier than 2 %")
        assert retention.sweep(node) == STUDIES
        assert {row.state for row in rows(node, schema.Instance)} == {InstanceState.REMOVED}
        with statements() as made:
            assert retention.sweep(node) == 0
        assert len(made) <= 2  # BEGIN, and one look for studies that have bytes
        assert scans(node, made) == []


def test_a_change_wakes_those_it_concerns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty destinations wait; what happens at one of them is no news for the senders of the others."""
    monkeypatch.setattr(app, "IDLE_S", 60.0)  # nobody looks by itself
    names = [f"pacs{number}" for number in range(20)]
    unreachable = {"host": "127.0.0.1", "port": 1, "ae_title": "PACS", "retry": {"first_s": 3600, "max_s": 3600}}
    with opened(tmp_path, destinations=dict.fromkeys(names, unreachable), rules=[]) as node:
        fill(node.store, 1, header=HEADER, destination="pacs7")
        sending = app.Running(node, tmp_path / "node.yaml", with_listener=False, function=attempt)
        with statements() as made:
            sending._start_sending()
            try:
                wait_until(lambda: all(looks(made, name) == 2 for name in names), 20)  # to be sent? to be proven?
                for tries in range(100):
                    with node.turn() as turn:
                        turn.session.get_one(schema.Delivery, RECEIVED + RESULTS).tries = tries
                with node.turn() as turn:
                    delivery = turn.session.get_one(schema.Delivery, RECEIVED + RESULTS)
                    move(turn.session, delivery, DeliveryState.QUEUED, reason="", actor="test", at=turn.now)
                wait_until(lambda: rows(node, schema.Delivery)[0].reason_code == "no-connection", 10)
                assert {name for name in names if looks(made, name) > 2} == {"pacs7"}
                assert looks(made, "pacs7") < 10
            finally:
                node.stopping.set()
                for name in names:
                    node.bells.of(to_send(name)).ring()
                sending._join()


def looks(made: list[Statement], destination: str) -> int:
    """How many questions about the deliveries of a destination were asked."""
    return sum(1 for words, values in list(made) if "FROM delivery" in words and destination in values)


def test_the_work_for_a_step_is_the_same_whatever_is_stored(tmp_path: Path) -> None:
    """Counted in instructions of SQLite's machine, which no other program's work changes."""
    few, many = (work(tmp_path / str(number), number) for number in (2, 60))
    assert few.keys() == many.keys()
    assert {name: many[name] for name in many if many[name] > 1.3 * few[name] + 100} == {}, (few, many)


def work(folder: Path, stored: int) -> dict[str, int]:
    """What SQLite does for each step of a node that holds so many finished studies."""
    folder.mkdir()
    instructions = [0]

    def count() -> None:
        instructions[0] += 10

    def connected(driver: Any, _: object) -> None:
        driver.set_progress_handler(count, 10)

    event.listen(Engine, "connect", connected)
    spent = {}
    study = make.study(folder / "study", seed=92, pet_shape=(16, 24, 24))
    try:
        with opened(folder, destinations=PROVING) as node:
            fill(node.store, stored, header=HEADER)
            for name, step in steps(node, study).items():
                before = instructions[0]
                step()
                spent[name] = instructions[0] - before
    finally:
        event.remove(Engine, "connect", connected)
    return spent


def steps(node: Node, study: make.Study) -> dict[str, Callable[[], object]]:
    def glance(look: Callable[[Turn], object]) -> object:
        with node.glance() as turn:
            return look(turn)

    def file_a_study() -> None:
        drop(node, study.pet)
        drain(node)

    return {
        "recover": lambda: pipeline.recover(node),
        "look at what is due": lambda: pipeline.look_at_due(node),
        "deliver": lambda: deliver.deliver(node, "pacs"),
        "prove": lambda: prove.prove(node, "pacs"),
        "to be committed": lambda: glance(lambda turn: uncommitted(turn.session, "pacs", now=turn.now, limit=5)),
        "to be seen": lambda: glance(
            lambda turn: unseen(turn.session, "pacs", DeliveryState.ACCEPTED, now=turn.now, limit=5)
        ),
        "vouch": lambda: pipeline.vouch_for_received(node),
        "next job": lambda: glance(lambda turn: jobs.next_due(turn.session, turn.now)),
        "list jobs": lambda: glance(lambda turn: commands.list_jobs(turn, state=None, limit=2)),
        "list jobs of one state": lambda: glance(lambda turn: commands.list_jobs(turn, state="done", limit=2)),
        "file a study": file_a_study,
    }
