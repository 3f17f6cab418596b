"""The migrations make exactly the tables the program maps, in one transaction, for both kinds of database."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError

from db.schema import SCHEMA_VERSION, Commitment, Delivery, Table
from db.session import Store


def configuration(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", "db:migrations")
    return config


def definitions(path: Path) -> dict[str, frozenset[str]]:
    """Name → lines of the statement that made it, without quotes around names; the order of columns does not matter."""
    raw = sqlite3.connect(path)
    rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    raw.close()
    return {
        name: frozenset(line.strip().rstrip(",").replace('"', "") for line in sql.splitlines()) for name, sql in rows
    }


def test_versions_are_numbered_and_the_newest_is_the_programs() -> None:
    scripts = list(ScriptDirectory.from_config(configuration()).walk_revisions())
    newest_first = [f"{n:04}" for n in range(SCHEMA_VERSION, 0, -1)]
    assert [script.revision for script in scripts] == newest_first
    assert [Path(script.path).name[:6] for script in scripts] == [f"v{revision}_" for revision in newest_first]


def test_the_migrations_make_the_mapped_tables(tmp_path: Path) -> None:
    """Columns, types, checks, keys and partial indexes alike: the statements are compared, not a reflection of them."""
    Store.open(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'mapped.db'}")
    Table.metadata.create_all(engine)
    engine.dispose()
    migrated = definitions(tmp_path / "migrated.db")
    mapped = definitions(tmp_path / "mapped.db")
    extra = {"alembic_version", "event_no_update", "event_no_delete", "decision_no_update", "decision_no_delete"}
    assert set(migrated) - set(mapped) == extra
    assert {name: lines for name, lines in migrated.items() if name in mapped} == mapped


def test_alembic_finds_nothing_left_to_migrate(tmp_path: Path) -> None:
    Store.open(tmp_path / "node.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'node.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert context.get_current_revision() == f"{SCHEMA_VERSION:04}"
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_a_failing_upgrade_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    """A half-made schema would need a person; the whole upgrade is one transaction instead."""
    path = tmp_path / "node.db"
    raw = sqlite3.connect(path)
    # in the way of the last table the first migration makes
    raw.execute("CREATE VIEW event AS SELECT 1 AS id")
    raw.commit()
    raw.close()
    before = definitions(path)
    with pytest.raises(OperationalError, match="event"):
        Store.open(path)
    assert definitions(path) == before


def test_rows_of_schema_1_are_kept(tmp_path: Path) -> None:
    """A node that was delivering goes on where it was: states, keys and references survive the rebuilt tables."""
    path = tmp_path / "node.db"
    engine = create_engine(f"sqlite:///{path}")
    config = configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in ROWS_OF_SCHEMA_1.split(";"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    with Store.open(path).read() as session:
        (delivery,) = session.scalars(select(Delivery))
        (commitment,) = session.scalars(select(Commitment))
    assert (delivery.id, delivery.state, delivery.tries, delivery.status_hex) == (7, "queued", 3, "A700")
    assert (delivery.proof_tries, delivery.reason_code) == (0, None)
    assert (commitment.transaction_uid, commitment.state, commitment.tries) == ("2.25.1", "asked", 0)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute("UPDATE delivery SET state = 'nonsense'")
    raw.execute("UPDATE delivery SET instance_id = 99")
    with pytest.raises(sqlite3.IntegrityError):
        raw.commit()
    raw.close()


ROWS_OF_SCHEMA_1 = """
INSERT INTO node (id, installation_id, schema_version, created) VALUES (1, 'here', 1, 0);
INSERT INTO study (id, study_uid, generation, first_arrival, last_arrival, state) VALUES (1, '1.2', 1, 0, 0, 'settled');
INSERT INTO series (id, study_id, series_uid, origin, facts_version, last_arrival, state)
    VALUES (1, 1, '1.3', 'received', 0, 0, 'whole');
INSERT INTO instance (id, series_id, sop_uid, sop_class_uid, content_sha256, transfer_syntax_uid, path, size, header,
    received, state) VALUES (1, 1, '1.4', '1.5', 'ab', '1.2.840.10008.1.2', 'store/1', 1, '{}', 0, 'current');
INSERT INTO delivery (id, instance_id, destination, proof, tries, first_due, status_hex, state)
    VALUES (7, 1, 'pacs', 'accepted', 3, 0, 'A700', 'queued');
INSERT INTO commitment (id, transaction_uid, role, peer, requested, items, state)
    VALUES (1, '2.25.1', 'scu', 'pacs', 0, '[]', 'asked')
"""


def test_the_same_migrations_speak_postgresql() -> None:
    output = io.StringIO()
    config = configuration(output)
    config.set_main_option("dialect", "postgresql")
    command.upgrade(config, "head", sql=True)
    statements = output.getvalue()
    assert "CREATE UNIQUE INDEX uq_instance_current ON instance (sop_uid) WHERE state = 'current'" in statements
    assert "CREATE UNIQUE INDEX uq_model_champion ON model (engine, scope) WHERE state = 'champion'" in statements
    assert "id BIGSERIAL NOT NULL" in statements
    assert "BEFORE UPDATE OR DELETE ON event" in statements
    assert statements.count("CREATE TABLE") == len(Table.metadata.tables) + 1  # and alembic's own
