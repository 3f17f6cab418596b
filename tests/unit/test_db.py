"""The database of the node: opening, writing, reading, constraints, moves, and what survives a kill."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from db.errors import (
    ClosedDatabase,
    CorruptDatabase,
    DatabaseError,
    ForeignDatabase,
    InaccessibleDatabase,
    MissingDatabase,
    NaiveTime,
    NestedWrite,
    NewerSchema,
    OlderSchema,
)
from db.moves import note
from db.schema import (
    SCHEMA_VERSION,
    Decision,
    Delivery,
    Event,
    Instance,
    Job,
    Model,
    Node,
    Ruleset,
    Series,
    Study,
    Table,
)
from db.session import Store
from db.states import DeliveryState, JobState, StudyState

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "node.db")
    yield opened
    opened.close()


def study(uid: str = "1.2.3", **values: object) -> Study:
    return Study(study_uid=uid, first_arrival=NOON, last_arrival=NOON, **values)


def instance(series_id: int, n: int, **values: object) -> Instance:
    columns: dict[str, object] = {
        "series_id": series_id,
        "sop_uid": f"3.{n}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.128",
        "content_sha256": f"{n:064x}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"store/20260504/{n}.dcm",
        "size": 1000,
        "header": {"Modality": "PT"},
        "received": NOON,
    }
    return Instance(**{**columns, **values})


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


def add(store: Store, *rows: Table) -> None:
    """Commit rows, in one transaction."""
    with store.write() as session:
        session.add_all(rows)


def program(folder: Path, code: str) -> subprocess.Popen[str]:
    """A child process that runs `code` with the packages on its path, from another working directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


# --- opening ---------------------------------------------------------------------------------------------------


def test_a_new_database_knows_its_installation_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    Store.open(path, installation_id="site-7", created=NOON).close()
    again = Store.open(path, installation_id="other", created=NOON + timedelta(days=1))
    with again.read() as session:
        node = session.scalars(select(Node)).one()
        assert (node.id, node.installation_id, node.created, node.schema_version) == (1, "site-7", NOON, SCHEMA_VERSION)
    again.close()


def test_two_installations_differ_unless_told(tmp_path: Path) -> None:
    names = set()
    for n in range(2):
        store = Store.open(tmp_path / f"{n}.db")
        with store.read() as session:
            names.add(session.get_one(Node, 1).installation_id)
        store.close()
    assert len(names) == 2


def test_only_our_own_user_can_read_the_files(store: Store, tmp_path: Path) -> None:
    add(store, study())
    files = [path for path in tmp_path.iterdir() if path.name.startswith("node.db")]
    assert {path.name for path in files} == {"node.db", "node.db-wal", "node.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "50% café?mode=rw#x & y"
    folder.mkdir()
    store = Store.open(folder / "node.db")
    add(store, study())
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 1
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}


def test_opening_an_up_to_date_database_is_quick_and_needs_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    Store.open(path).close()
    child = program(
        tmp_path,
        "import sys, time; from pathlib import Path; from db.session import Store\n"
        "start = time.perf_counter(); Store.open(Path('node.db')).close(); spent = time.perf_counter() - start\n"
        "print(spent, 'alembic' in sys.modules)",
    )
    output, _ = child.communicate(timeout=30)
    spent, alembic = output.split()
    assert child.returncode == 0
    assert float(spent) < 0.2
    assert alembic == "False"


def test_without_migrate_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(MissingDatabase) as caught:
        Store.open(tmp_path / "node.db", migrate=False)
    assert "tracerd serve" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def set_schema(path: Path, version: int) -> None:
    raw = sqlite3.connect(path)
    raw.execute("UPDATE node SET schema_version = ?", (version,))
    raw.commit()
    raw.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    Store.open(path).close()
    set_schema(path, SCHEMA_VERSION + 1)
    before = path.read_bytes()
    for migrate in (True, False):
        with pytest.raises(NewerSchema) as caught:
            Store.open(path, migrate=migrate)
        assert str(SCHEMA_VERSION + 1) in str(caught.value)
        assert "newer version" in caught.value.hint
    assert path.read_bytes() == before


def test_an_older_database_is_not_touched_without_migrate(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    Store.open(path).close()
    set_schema(path, SCHEMA_VERSION - 1)
    before = path.read_bytes()
    with pytest.raises(OlderSchema) as caught:
        Store.open(path, migrate=False)
    assert str(caught.value) == f"the database has schema {SCHEMA_VERSION - 1}, this version needs {SCHEMA_VERSION}"
    assert path.read_bytes() == before


def garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def truncated(path: Path) -> None:
    Store.open(path).close()
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """Sound header, rubbish from the first page's tree on."""
    Store.open(path).close()
    sound = path.read_bytes()
    path.write_bytes(sound[:100] + b"\xa5" * (len(sound) - 100))


def node_row_gone(path: Path) -> None:
    Store.open(path).close()
    raw = sqlite3.connect(path)
    raw.execute("DELETE FROM node")
    raw.commit()
    raw.close()


def of_another_program(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.commit()
    raw.close()


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("migrate", [True, False])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (garbage, CorruptDatabase),
        (truncated, CorruptDatabase),
        (overwritten, CorruptDatabase),
        (node_row_gone, CorruptDatabase),
        (of_another_program, ForeignDatabase),
        (a_folder, InaccessibleDatabase),
    ],
)
def test_an_unusable_file_is_refused_with_a_hint(
    tmp_path: Path, spoil: object, error: type[DatabaseError], *, migrate: bool
) -> None:
    path = tmp_path / "node.db"
    assert callable(spoil)
    spoil(path)
    with pytest.raises(error) as caught:
        Store.open(path, migrate=migrate)
    assert caught.value.hint != DatabaseError.hint
    assert caught.value.code == error.code


def test_a_closed_store_refuses_work_and_closes_twice(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "node.db")
    store.close()
    store.close()
    with pytest.raises(ClosedDatabase), store.write():
        pass
    with pytest.raises(ClosedDatabase), store.read():
        pass
    # the last connection to close has moved everything out of the write-ahead log
    assert {path.name for path in tmp_path.iterdir()} == {"node.db"}


# --- writing and reading ---------------------------------------------------------------------------------------


def test_the_writing_connection_is_durable_and_checks_references(store: Store) -> None:
    with store.write() as session:
        values = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "wal_autocheckpoint")
        }
    # synchronous 2 is FULL
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "wal_autocheckpoint": 1000,
    }


def test_rows_can_be_read_after_the_commit(store: Store) -> None:
    with store.write() as session:
        row = study("1.2.3")
        session.add(row)
    assert (row.id, row.study_uid, row.state, row.generation) == (1, "1.2.3", StudyState.COLLECTING, 1)
    with store.read() as session:
        loaded = session.get_one(Study, row.id)
    assert loaded.last_arrival == NOON


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    def fail_late() -> None:
        with store.write() as session:
            session.add(study())
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    with store.write() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 0


def test_a_write_inside_a_write_is_refused_and_the_outer_one_goes_on(store: Store) -> None:
    with store.write() as session:
        session.add(study("1"))
        with pytest.raises(NestedWrite), store.write():
            pass
        session.add(study("2"))
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 2


def test_threads_take_turns_and_lose_no_update(store: Store) -> None:
    add(store, study(generation=0))

    def count_up() -> None:
        for _ in range(20):
            with store.write() as session:
                session.get_one(Study, 1).generation += 1

    threads = [threading.Thread(target=count_up) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    with store.read() as session:
        assert session.get_one(Study, 1).generation == 120  # 6 threads × 20


def test_another_process_waits_for_the_writing_transaction(store: Store, tmp_path: Path) -> None:
    """BEGIN IMMEDIATE: the write lock is held from the first line of the block, before anything was written."""
    with store.write():
        other = sqlite3.connect(tmp_path / "node.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_readers_see_a_snapshot_and_never_wait(store: Store) -> None:
    add(store, study("1"))
    with store.read() as early:
        assert early.scalar(select(func.count()).select_from(Study)) == 1
        with store.write() as session:
            session.add(study("2"))
            session.flush()
            with store.read() as meanwhile:
                assert meanwhile.scalar(select(func.count()).select_from(Study)) == 1
        assert early.scalar(select(func.count()).select_from(Study)) == 1
        with store.read() as late:
            assert late.scalar(select(func.count()).select_from(Study)) == 2


def test_many_readers_at_once(store: Store) -> None:
    add(store, study())
    meeting = threading.Barrier(25, timeout=20)
    seen: list[str] = []

    def look() -> None:
        with store.read() as session:
            uid = session.get_one(Study, 1).study_uid
            meeting.wait()  # all 25 snapshots are open here
            seen.append(uid)

    threads = [threading.Thread(target=look) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen == ["1.2.3"] * 25


def test_a_reader_can_neither_write_nor_checkpoint(store: Store, tmp_path: Path) -> None:
    """What keeps SQLite's WAL-reset bug away: nothing but the one writer can move the write-ahead log."""
    add(store, study())
    with store.read() as session:
        session.add(study("9"))
        with pytest.raises(OperationalError, match="readonly"):
            session.flush()
    log = (tmp_path / "node.db-wal").stat().st_size
    assert log > 0
    raw = sqlite3.connect(f"{(tmp_path / 'node.db').as_uri()}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError):
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    raw.close()
    assert (tmp_path / "node.db-wal").stat().st_size == log


def test_a_full_disk_is_told_and_the_store_works_on_afterwards(store: Store) -> None:
    with store.write() as session:
        session.add(study("1"))
        session.execute(text("PRAGMA max_page_count = 1"))  # no page more than now: SQLite's own "disk is full"
    with pytest.raises(OperationalError, match="full"):
        add(store, *(study(f"9.{n}", patient_id="x" * 100) for n in range(3000)))
    with store.write() as session:
        session.execute(text("PRAGMA max_page_count = 1000000"))
        assert session.scalars(select(Study.study_uid)).all() == ["1"]
        session.add(study("2"))
    with store.read() as session:
        assert session.scalars(select(Study.study_uid).order_by(Study.id)).all() == ["1", "2"]


@pytest.mark.parametrize(
    "question",
    [
        select(Job).where(Job.state == JobState.WAITING).order_by(Job.priority.desc(), Job.id).limit(1),
        select(Study).where(Study.due <= NOON),
        select(Series).where(Series.study_id == 1),
        select(Instance).where(Instance.series_id == 1),
        select(Instance).where(Instance.path == "store/20260504/1.dcm"),
        select(Instance).where(Instance.sop_uid == "3.1"),
        select(Delivery.id).where(
            Delivery.destination == "pacs", Delivery.state == DeliveryState.QUEUED, Delivery.not_before <= NOON
        ),
        select(Event).where(Event.subject_type == "job", Event.subject_id == "1").order_by(Event.id),
    ],
)
def test_what_the_daemon_asks_at_every_tick_is_answered_by_an_index(store: Store, question: Select[Any]) -> None:
    with store.read() as session:
        asked = question.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in session.execute(text(f"EXPLAIN QUERY PLAN {asked}"))]
    assert len(plan) == 1, plan  # a second line would be a sort
    assert plan[0].startswith("SEARCH"), plan
    assert "INDEX" in plan[0], plan


# --- constraints -----------------------------------------------------------------------------------------------


def test_references_are_checked_at_commit_and_rows_come_in_any_order(store: Store) -> None:
    with store.write() as session:
        session.add(Series(study_id=1, series_uid="2.1", last_arrival=NOON))
        session.flush()
        session.add(study())
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), store.write() as session:
        session.add(Series(study_id=99, series_uid="2.2", last_arrival=NOON))
    with store.write() as session:
        assert session.scalars(select(Series.series_uid)).all() == ["2.1"]


def test_unknown_words_are_refused_by_the_mapping_and_by_the_database(store: Store) -> None:
    with pytest.raises(StatementError, match="LookupError"):
        add(store, study(state="lost"))
    add(store, study())
    with pytest.raises(IntegrityError, match="CHECK"), store.write() as session:
        session.execute(text("UPDATE study SET state = 'lost'"))


def test_there_is_one_current_copy_of_an_instance(store: Store) -> None:
    with store.write() as session:
        session.add_all([study(), Series(study_id=1, series_uid="2.1", last_arrival=NOON)])
        session.flush()
        session.add(instance(1, 1))
        session.add(instance(1, 2, sop_uid="3.1", state="conflicting"))
    with pytest.raises(IntegrityError, match="UNIQUE"):
        add(store, instance(1, 3, sop_uid="3.1"))
    with pytest.raises(IntegrityError, match="UNIQUE"):
        add(store, instance(1, 4, sop_uid="3.1", content_sha256=f"{1:064x}", state="superseded"))
    with pytest.raises(IntegrityError, match="UNIQUE"):
        add(store, instance(1, 5, path="store/20260504/1.dcm"))


def test_there_is_one_champion_per_engine_and_scope(store: Store) -> None:
    def model(n: int, **values: object) -> Model:
        return Model(sha256=f"{n:064x}", engine="fdg_segmentation", version="1", card={}, **values)

    with store.write() as session:
        session.add_all([model(1, state="champion"), model(2, state="retired"), model(3, state="retired")])
        session.add(model(4, state="champion", scope="petct1"))
    with pytest.raises(IntegrityError, match="UNIQUE"):
        add(store, model(5, state="champion"))


def test_a_job_key_is_unique(store: Store) -> None:
    with store.write() as session:
        session.add(study())
        session.flush()
        session.add(job(1, "k"))
    with pytest.raises(IntegrityError, match="UNIQUE"):
        add(store, job(1, "k"))


def test_there_is_one_node(store: Store) -> None:
    with pytest.raises(IntegrityError, match="CHECK"):
        add(store, Node(id=2, installation_id="x", schema_version=1, created=NOON))


@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = 'x'", "DELETE FROM {}"])
@pytest.mark.parametrize(("table", "column"), [("event", "reason"), ("decision", "rule")])
def test_history_cannot_be_rewritten(store: Store, statement: str, table: str, column: str) -> None:
    with store.write() as session:
        row = study()
        session.add_all([row, Ruleset(sha256="a", text="[]", activated_at=NOON, activated_by="test")])
        note(session, row, reason="seen", actor="test", at=NOON)
        decision = {"rule": "fdg", "verdict": "unknown", "pending": True, "clauses": [], "inputs": [], "at": NOON}
        session.add(Decision(study_id=1, generation=1, ruleset="a", **decision))
    with pytest.raises(IntegrityError, match="only inserted"), store.write() as session:
        session.execute(text(statement.format(table, column)))
    with store.read() as session:
        assert session.execute(text(f"SELECT {column} FROM {table}")).scalars().all() != ["x"]


def test_naive_moments_are_refused_in_rows_and_in_queries(store: Store) -> None:
    naive = datetime(2026, 5, 4, 12, 0)
    with pytest.raises(StatementError) as caught, store.write() as session:
        session.add(study(due=naive))
    assert isinstance(caught.value.orig, NaiveTime)
    with pytest.raises(StatementError), store.read() as session:
        session.scalars(select(Study).where(Study.due < naive)).all()


def test_moments_come_back_in_utc(store: Store) -> None:
    berlin = timezone(timedelta(hours=2))
    add(store, study(due=datetime(2026, 5, 4, 14, 0, tzinfo=berlin)))
    with store.read() as session:
        due = session.get_one(Study, 1).due
        assert due == NOON
        assert due is not None
        assert due.tzinfo is UTC


def test_json_comes_back_as_it_went_in_and_must_be_finite(store: Store) -> None:
    facts = {"tracer": "FDG", "spacing_mm": [2.0, 1.5, 1.5], "problems": [], "weight_kg": None, "name": "µ \ud800 \x00"}
    with store.write() as session:
        session.add_all([study(), Series(study_id=1, series_uid="2.1", last_arrival=NOON, facts=facts)])
        session.add(Series(study_id=1, series_uid="2.2", last_arrival=NOON))
    with store.read() as session:
        assert session.get_one(Series, 1).facts == facts
        assert session.get_one(Series, 2).facts is None
        assert session.scalars(select(Series.id).where(Series.facts.is_(None))).all() == [2]
    with pytest.raises(StatementError, match="JSON"), store.write() as session:
        session.get_one(Series, 1).facts = {"weight_kg": float("nan")}


def test_messages_hold_no_values(store: Store) -> None:
    secret = "1.2.826.0.1.777"
    add(store, study(secret, patient_id="Müller^Eva"))
    with pytest.raises(IntegrityError) as caught, store.write() as session:
        session.add(study(secret, patient_id="Müller^Eva"))
    shown = f"{caught.value!s} {caught.value!r}"
    assert secret not in shown
    assert "ller" not in shown
