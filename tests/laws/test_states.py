"""Laws of the state machines: the tables, `move` on every pair of states, histories, and moments of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Select, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.errors import IllegalMove
from db.moves import STATES, Stateful, move
from db.schema import Association, Commitment, Delivery, Event, Instance, Job, Model, Series, Study
from db.session import Store
from db.states import BEGINNINGS, MOVES

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SERIAL = count(1)
Row = TypeVar("Row")

# The moves the data model allows, written down once more and differently from db/states.py.
LEGAL = {
    Association: "open>closed open>aborted open>vanished",
    Study: "collecting>settled collecting>timed_out settled>collecting timed_out>collecting",
    Series: "arriving>whole arriving>incomplete whole>arriving incomplete>arriving",
    Instance: """conflicting>current conflicting>superseded current>superseded current>removed
        superseded>removed quarantined>removed removed>current removed>conflicting""",
    Job: """waiting>running waiting>held waiting>rejected waiting>cancelled
        running>done running>waiting running>held running>rejected running>dead running>cancelling
        held>waiting held>cancelled dead>waiting dead>cancelled cancelling>cancelled
        done>superseded rejected>superseded""",
    Delivery: """held>queued queued>sending sending>accepted accepted>committed committed>seen sending>queued
        accepted>seen accepted>queued committed>queued seen>queued
        held>failed queued>failed sending>failed accepted>failed committed>failed
        held>dead queued>dead sending>dead accepted>dead committed>dead
        failed>queued dead>queued held>withdrawn queued>withdrawn failed>withdrawn dead>withdrawn withdrawn>queued""",
    Commitment: """asked>confirmed asked>partly asked>refused asked>timed_out
        timed_out>asked timed_out>confirmed timed_out>partly timed_out>refused
        confirmed>asked partly>asked refused>asked""",
    Model: """candidate>shadow shadow>champion champion>retired retired>champion
        candidate>retired shadow>retired""",
}

FINAL = {
    Association: {"closed", "aborted", "vanished"},
    Study: set(),
    Series: set(),
    Instance: set(),
    Job: {"cancelled", "superseded"},
    Delivery: set(),
    Commitment: set(),
    Model: set(),
}

TABLES = sorted(LEGAL, key=lambda table: table.__tablename__)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(tmp_path_factory.mktemp("laws") / "node.db")
    yield opened
    opened.close()


def added(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def new_study(session: Session, **values: object) -> Study:
    return added(session, Study(study_uid=f"1.{next(SERIAL)}", first_arrival=NOON, last_arrival=NOON, **values))


def new_series(session: Session, **values: object) -> Series:
    study = new_study(session)
    return added(session, Series(study_id=study.id, series_uid=f"2.{next(SERIAL)}", last_arrival=NOON, **values))


def new_instance(session: Session, **values: object) -> Instance:
    n = next(SERIAL)
    columns: dict[str, object] = {
        "series_id": values.get("series_id") or new_series(session).id,
        "sop_uid": f"3.{n}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.128",
        "content_sha256": f"{n:064x}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"store/20260504/{n}.dcm",
        "size": 1000,
        "header": {"Modality": "PT"},
        "received": NOON,
    }
    return added(session, Instance(**{**columns, **values}))


def new_job(session: Session, **values: object) -> Job:
    return added(
        session,
        Job(
            key=f"{next(SERIAL):064x}",
            study_id=new_study(session).id,
            rule="fdg",
            engine="threshold_segmentation",
            engine_version="1",
            parameters={},
            inputs={},
            destinations=[],
            created=NOON,
            **values,
        ),
    )


def new_delivery(session: Session, **values: object) -> Delivery:
    instance = new_instance(session)
    return added(session, Delivery(instance_id=instance.id, destination="pacs", first_due=NOON, **values))


def new_association(session: Session, **values: object) -> Association:
    row = Association(
        id=f"a-{next(SERIAL)}", calling_ae="CT", called_ae="NODE", peer="10.0.0.1", port=1, opened=NOON, **values
    )
    return added(session, row)


def new_commitment(session: Session, **values: object) -> Commitment:
    row = Commitment(transaction_uid=f"4.{next(SERIAL)}", role="scu", peer="pacs", requested=NOON, items=[], **values)
    return added(session, row)


def new_model(session: Session, **values: object) -> Model:
    n = next(SERIAL)
    columns: dict[str, object] = {"sha256": f"{n:064x}", "engine": f"engine-{n}", "version": "1", "card": {}}
    return added(session, Model(**{**columns, **values}))


NEW: dict[type[Stateful], Callable[..., Stateful]] = {
    Association: new_association,
    Study: new_study,
    Series: new_series,
    Instance: new_instance,
    Job: new_job,
    Delivery: new_delivery,
    Commitment: new_commitment,
    Model: new_model,
}


def legal_pairs(table: type[Stateful]) -> set[tuple[str, str]]:
    return {(came_from, to) for came_from, to in (pair.split(">") for pair in LEGAL[table].split())}


def primary_key(row: Stateful) -> int | str:
    return row.sha256 if isinstance(row, Model) else row.id


def kept_state(session: Session, row: Stateful) -> str:
    """The state as the database has it, past the mapping."""
    key = "sha256" if isinstance(row, Model) else "id"
    query = text(f"SELECT state FROM {row.__tablename__} WHERE {key} = :key")
    return str(session.execute(query, {"key": primary_key(row)}).scalar_one())


def history(row: Stateful) -> Select[Event]:
    key = str(primary_key(row))
    return select(Event).where(Event.subject_type == row.__tablename__, Event.subject_id == key).order_by(Event.id)


def test_every_table_with_a_state_is_covered() -> None:
    assert set(STATES) == set(LEGAL) == set(NEW)
    assert set(STATES.values()) == set(MOVES) == set(BEGINNINGS)


@pytest.mark.parametrize("table", TABLES)
def test_the_table_of_moves_is_complete_and_closed(table: type[Stateful]) -> None:
    states = STATES[table]
    moves = MOVES[states]
    assert set(moves) == set(states)
    assert {(str(a), str(b)) for a, targets in moves.items() for b in targets} == legal_pairs(table)
    assert {str(state) for state, targets in moves.items() if not targets} == FINAL[table]
    assert all(isinstance(target, states) for targets in moves.values() for target in targets)
    assert BEGINNINGS[states] <= set(states)


@pytest.mark.parametrize("table", TABLES)
def test_every_state_can_be_reached_from_a_beginning(table: type[Stateful]) -> None:
    states = STATES[table]
    reached: set[StrEnum] = set()
    frontier = set(BEGINNINGS[states])
    while frontier:
        reached |= frontier
        frontier = {target for state in frontier for target in MOVES[states][state]} - reached
    assert reached == set(states)


@pytest.mark.parametrize("table", TABLES)
def test_move_does_the_legal_and_refuses_the_rest(store: Store, table: type[Stateful]) -> None:
    """Every state × every target, the illegal ones and standing still included."""
    states = STATES[table]
    legal = legal_pairs(table)
    for came_from in states:
        for to in states:
            with store.write() as session:
                row = NEW[table](session, state=came_from)
                if (came_from.value, to.value) in legal:
                    move(session, row, to, reason="law", actor="test", at=NOON)
                else:
                    with pytest.raises(IllegalMove):
                        move(session, row, to, reason="law", actor="test", at=NOON)
            with store.read() as session:
                events = [(e.from_state, e.to_state) for e in session.scalars(history(row))]
                kept = kept_state(session, row)
            moved = (came_from.value, to.value) in legal
            assert kept == (to if moved else came_from)
            assert events == ([(came_from.value, to.value)] if moved else [])


@pytest.mark.parametrize("table", TABLES)
def test_a_state_of_another_machine_is_refused_even_if_it_has_the_same_name(
    store: Store, table: type[Stateful]
) -> None:
    states = STATES[table]
    strangers = [state for other in MOVES if other is not states for state in other]
    with store.write() as session:
        for came_from in states:
            row = NEW[table](session, state=came_from)
            for stranger in strangers:
                with pytest.raises(IllegalMove):
                    move(session, row, stranger, reason="law", actor="test", at=NOON)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("table", TABLES)
def test_events_tell_the_whole_history_of_a_random_walk(
    store: Store, table: type[Stateful], data: st.DataObject
) -> None:
    states = STATES[table]
    beginning = data.draw(st.sampled_from(sorted(BEGINNINGS[states])))
    walked = [beginning]
    with store.write() as session:
        row = NEW[table](session, state=beginning)
    for step in range(data.draw(st.integers(0, 12))):
        targets = sorted(MOVES[states][walked[-1]])
        if not targets:
            break
        with store.write() as session:
            row = session.merge(row)
            to = data.draw(st.sampled_from(targets))
            move(session, row, to, reason=f"step {step}", actor="test", at=NOON + timedelta(seconds=step))
        walked.append(to)
    with store.read() as session:
        events = list(session.scalars(history(row)))
        assert [beginning, *(event.to_state for event in events)] == walked
        assert [event.from_state for event in events] == walked[:-1]
        assert [event.at for event in events] == [NOON + timedelta(seconds=n) for n in range(len(events))]
        assert kept_state(session, row) == walked[-1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=12))
def test_three_copies_of_one_instance_never_have_two_current_ones(store: Store, steps: list[tuple[int, int]]) -> None:
    """Legal moves that the partial unique index forbids fail as a whole: neither the state nor an event is left."""
    with store.write() as session:
        series = new_series(session)
        uid = f"5.{next(SERIAL)}"
        ids = [
            new_instance(session, series_id=series.id, sop_uid=uid, state=state).id
            for state in ("current", "conflicting", "conflicting")
        ]
    for which, choice in steps:
        before = snapshot(store, ids)
        try:
            with store.write() as session:
                row = session.get_one(Instance, ids[which])
                targets = sorted(MOVES[STATES[Instance]][row.state])
                move(session, row, targets[choice % len(targets)], reason="law", actor="test", at=NOON)
        except IntegrityError:
            assert snapshot(store, ids) == before
            assert "current" in before[0]
        else:
            assert snapshot(store, ids) != before
        assert snapshot(store, ids)[0].count("current") <= 1


def snapshot(store: Store, ids: list[int]) -> tuple[list[str], int]:
    with store.read() as session:
        states = [str(session.get_one(Instance, key).state) for key in ids]
        subjects = [str(key) for key in ids]
        query = select(func.count()).where(Event.subject_type == "instance", Event.subject_id.in_(subjects))
        return states, session.scalar(query) or 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=12))
def test_an_engine_never_has_two_champions(store: Store, steps: list[tuple[int, int]]) -> None:
    with store.write() as session:
        engine = f"engine-{next(SERIAL)}"
        keys = [new_model(session, engine=engine, state="shadow").sha256 for _ in range(3)]
    for which, choice in steps:
        try:
            with store.write() as session:
                row = session.get_one(Model, keys[which])
                targets = sorted(MOVES[STATES[Model]][row.state])
                move(session, row, targets[choice % len(targets)], reason="law", actor="test", at=NOON)
        except IntegrityError:
            pass
        with store.read() as session:
            champions = select(func.count()).where(Model.engine == engine, Model.state == "champion")
            assert (session.scalar(champions) or 0) <= 1


def test_a_swap_is_one_transaction_in_the_order_of_its_moves(store: Store) -> None:
    """Accepting a corrected copy, and promoting a model: the old steps down first, whichever row is older."""
    states = STATES[Instance]
    with store.write() as session:
        newer_current = new_instance(session, state="conflicting")
        older_current = new_instance(
            session, series_id=newer_current.series_id, sop_uid=newer_current.sop_uid, state="current"
        )
        move(session, older_current, states("superseded"), reason="accept", actor="test", at=NOON)
        move(session, newer_current, states("current"), reason="accept", actor="test", at=NOON)
    with store.read() as session:
        assert session.get_one(Instance, newer_current.id).state == "current"
        assert session.get_one(Instance, older_current.id).state == "superseded"


MOMENTS = st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.timezones())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moment=MOMENTS, later=st.integers(1, 10**12))
def test_a_moment_survives_to_the_microsecond_and_keeps_its_order(store: Store, moment: datetime, later: int) -> None:
    after = moment.astimezone(UTC) + timedelta(microseconds=later)
    with store.write() as session:
        study = new_study(session, due=moment)
        key = study.id
    with store.read() as session:
        row = session.get_one(Study, key)
        assert row.due == moment.astimezone(UTC)
        assert row.due is not None
        assert row.due.tzinfo is UTC
        assert session.scalar(select(Study.id).where(Study.id == key, Study.due < after)) == key
        assert session.scalar(select(Study.id).where(Study.id == key, Study.due > after)) is None
        stored = session.scalar(text("SELECT typeof(due) FROM study WHERE id = :key"), {"key": key})
        assert stored == "integer"


def test_a_moment_is_stored_as_microseconds(tmp_path: Path) -> None:
    # 2001-09-09T01:46:40Z is second 1 000 000 000 of Unix time
    moment = datetime(2001, 9, 9, 3, 46, 40, 7, tzinfo=UTC) - timedelta(hours=2)
    store = Store.open(tmp_path / "node.db")
    with store.write() as session:
        new_study(session, due=moment)
    with store.read() as session:
        assert session.scalar(text("SELECT due FROM study")) == 1_000_000_000_000_007
    store.close()
