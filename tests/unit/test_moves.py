"""`move` and `note`: what they record, what they refuse, and that nothing else moves a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db.errors import DetachedRow, IllegalMove, NaiveTime
from db.moves import move, note
from db.schema import Event, Job, Model, Study
from db.session import Store
from db.states import DeliveryState, JobState, ModelState, StudyState

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "node.db")
    yield opened
    opened.close()


def study(uid: str = "1.2.3", **values: object) -> Study:
    return Study(study_uid=uid, first_arrival=NOON, last_arrival=NOON, **values)


def job(study_id: int, key: str = "k", **values: object) -> Job:
    return Job(
        key=key,
        study_id=study_id,
        rule="fdg",
        engine="threshold_segmentation",
        engine_version="1",
        parameters={},
        inputs={},
        destinations=["pacs"],
        created=NOON,
        **values,
    )


def test_a_move_is_recorded_in_full(store: Store) -> None:
    with store.write() as session:
        row = study()
        session.add(row)
        move(session, row, StudyState.SETTLED, reason="all whole", actor="assemble", at=NOON, data={"series": 2})
    with store.read() as session:
        event = session.scalars(select(Event)).one()
        assert session.get_one(Study, 1).state is StudyState.SETTLED
    assert (event.subject_type, event.subject_id) == ("study", "1")
    assert (event.from_state, event.to_state) == ("collecting", "settled")
    assert (event.reason, event.actor, event.at, event.data) == ("all whole", "assemble", NOON, {"series": 2})


def test_an_illegal_move_says_what_is_legal_and_changes_nothing(store: Store) -> None:
    with store.write() as session:
        session.add(study())
        session.flush()
        row = job(1, state=JobState.DONE)
        session.add(row)
        with pytest.raises(IllegalMove) as caught:
            move(session, row, JobState.RUNNING, reason="", actor="test", at=NOON)
        assert row.state == JobState.DONE
    assert str(caught.value) == "job 1 cannot move: done leads to superseded; got JobState running"
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 0


def test_the_state_of_another_machine_is_illegal(store: Store) -> None:
    with store.write() as session:
        session.add(study())
        session.flush()
        row = job(1)
        session.add(row)
        with pytest.raises(IllegalMove, match="DeliveryState held"):
            move(session, row, DeliveryState.HELD, reason="", actor="test", at=NOON)
        move(session, row, JobState.HELD, reason="", actor="test", at=NOON)


def test_a_row_of_another_session_is_refused(store: Store) -> None:
    with store.write() as session:
        row = study()
        session.add(row)
    with store.write() as session, pytest.raises(DetachedRow):
        move(session, row, StudyState.SETTLED, reason="", actor="test", at=NOON)
    with store.read() as session:
        assert session.get_one(Study, 1).state is StudyState.COLLECTING


def test_a_move_needs_an_aware_moment(store: Store) -> None:
    with store.write() as session:
        row = study()
        session.add(row)
        session.flush()
        with pytest.raises(NaiveTime):
            move(session, row, StudyState.SETTLED, reason="", actor="test", at=datetime(2026, 5, 4))
        assert row.state is StudyState.COLLECTING


def test_a_move_that_a_constraint_forbids_fails_where_it_is_made(store: Store) -> None:
    first, second = (
        Model(sha256=f"{n:064x}", engine="fdg_segmentation", version="1", card={}, state=state)
        for n, state in enumerate([ModelState.CHAMPION, ModelState.SHADOW])
    )
    with store.write() as session:
        session.add_all([first, second])
        session.flush()
        with pytest.raises(IntegrityError, match="UNIQUE"):
            move(session, second, ModelState.CHAMPION, reason="promote", actor="test", at=NOON)
        session.rollback()


def test_a_note_moves_nothing(store: Store) -> None:
    with store.write() as session:
        row = study()
        session.add(row)
        note(session, row, reason="coerced", actor="index", at=NOON, data=["PatientName"])
    with store.read() as session:
        event = session.scalars(select(Event)).one()
        assert (event.from_state, event.to_state, event.data) == (None, None, ["PatientName"])
        assert session.get_one(Study, 1).state is StudyState.COLLECTING


def assigns_state(node: ast.AST) -> bool:
    """Whether a statement or call gives some object a new `.state`."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
        inner = [leaf for target in targets for leaf in ast.walk(target)]
        return any(
            isinstance(leaf, ast.Attribute) and leaf.attr == "state" and not isinstance(leaf.ctx, ast.Load)
            for leaf in inner
        )
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id == "setattr":
        return any(isinstance(argument, ast.Constant) and argument.value == "state" for argument in node.args)
    is_values = isinstance(node.func, ast.Attribute) and node.func.attr == "values"
    return is_values and any(keyword.arg == "state" for keyword in node.keywords)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("row.state = 1", True),
        ("a, row.state = 1, 2", True),
        ("row.state += 1", True),
        ("setattr(row, 'state', 1)", True),
        ("update(Job).values(state=1)", True),
        ("app.state.node = 1", False),
        ("x = row.state", False),
        ("Job(state=1)", False),
    ],
)
def test_the_search_for_assignments_finds_them(code: str, *, found: bool) -> None:
    assert any(assigns_state(node) for node in ast.walk(ast.parse(code))) is found


def test_no_other_code_assigns_a_state() -> None:
    offenders = []
    for package in ("config", "engines", "dicom_io", "db", "daemon"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            lines = [node.lineno for node in ast.walk(tree) if assigns_state(node) and hasattr(node, "lineno")]
            offenders += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert [offender.rpartition(":")[0] for offender in offenders] == ["db/moves.py"], offenders
