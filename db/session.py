"""The node's database file: one writing connection, any number of readers, upgraded when it is opened.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives power loss, and readers never wait.

SQLite before 3.51.3 can lose commits when two connections write or checkpoint at the same instant (the "WAL-reset"
bug). Here only one connection can do either: writers share it behind a lock, and a reader's file descriptor is
read-only (`mode=ro`), so SQLite can neither commit nor checkpoint through it, not even when it is closed last. That
there is one writing *process* is the caller's part: it holds the lock of the data folder.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Literal, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from db.errors import (
    ClosedDatabase,
    CorruptDatabase,
    DatabaseError,
    ForeignDatabase,
    InaccessibleDatabase,
    MissingDatabase,
    NestedWrite,
    NewerSchema,
    OlderSchema,
    UnsafeStorage,
)
from db.schema import SCHEMA_VERSION, Node

BUSY_TIMEOUT_S = 10.0
"""How long a statement waits for a lock of another process (a backup, a command) before it fails."""

READERS_KEPT_OPEN = 4


class Store:
    """The database of one node; made by `Store.open`, safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._writer = _engine(path, "rw", begin="BEGIN IMMEDIATE", pool=StaticPool)
        self._reader = _engine(path, "ro", begin="BEGIN", pool=QueuePool)
        self._turn = RLock()
        self._writing = False
        self._closed = False

    @classmethod
    def open(
        cls, path: Path, *, migrate: bool = True, installation_id: str | None = None, created: datetime | None = None
    ) -> Self:
        """Open the database file; create or upgrade it first when `migrate` is set.

        `installation_id` and `created` are written into a new database; by default a random id and the wall clock.
        With `migrate` the caller holds the lock of the data folder.

        Raises
        ------
        db.errors.MissingDatabase, db.errors.OlderSchema
            Without `migrate`: there is no database, or it needs an upgrade.
        db.errors.NewerSchema
            A newer version of the program wrote it.
        db.errors.CorruptDatabase, db.errors.ForeignDatabase, db.errors.InaccessibleDatabase, db.errors.UnsafeStorage
            The file or its file system is unusable.
        """
        path = path.resolve()
        found = schema_version(path, mode="rw" if migrate else "ro")
        if found is not None and found > SCHEMA_VERSION:
            raise NewerSchema(f"the database has schema {found}; this version knows schemas up to {SCHEMA_VERSION}")
        if found != SCHEMA_VERSION:
            if not migrate:
                raise _not_ready(found)
            upgrade(path, installation_id=installation_id, created=created)
        return cls(path)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that writes: committed durably when the block ends, rolled back when it raises.

        Threads take turns. Rows stay readable after the commit but belong to no session any more.

        Raises
        ------
        db.errors.NestedWrite
            This thread is inside another `write` already; joining it would promise a commit that has not happened.
        """
        with self._turn:
            if self._writing:
                raise NestedWrite("a write transaction was opened inside another one of the same thread")
            self._refuse_closed()
            self._writing = True
            try:
                with Session(self._writer, expire_on_commit=False) as session, session.begin():
                    session.connection()  # BEGIN IMMEDIATE now: what is read next is what the writes build upon
                    yield session
            finally:
                self._writing = False

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot to read from, in parallel to everything else; the database refuses to be changed through it."""
        self._refuse_closed()
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    def close(self) -> None:
        """Close every connection once the running write transaction has ended. Closing twice does nothing."""
        with self._turn:
            self._closed = True
            self._reader.dispose()
            self._writer.dispose()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedDatabase("the database was closed")


def schema_version(path: Path, *, mode: Literal["ro", "rw"] = "ro") -> int | None:
    """Schema of a database file, None where there is nothing yet.

    `rw` also cleans up after a crash during creation, which a read-only connection cannot do.

    Raises
    ------
    db.errors.CorruptDatabase, db.errors.ForeignDatabase, db.errors.InaccessibleDatabase
        The file is no database, not a node's, or cannot be opened.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(_connect(path, mode)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return None
            if not {"node", "alembic_version"} <= tables:
                raise ForeignDatabase(f"expected a node's tables, got {len(tables)} other ones")
            rows = connection.execute("SELECT schema_version FROM node WHERE id = 1").fetchall()
    except sqlite3.Error as error:
        raise _typed(error) from error
    if not rows:
        raise CorruptDatabase("the table node: expected its one row, got none")
    return int(rows[0][0])


def upgrade(path: Path, *, installation_id: str | None, created: datetime | None) -> None:
    """Bring a database file to this program's schema in one transaction; a crash leaves it as it was."""
    # slow to import, and not needed at all on most starts
    from alembic import command
    from alembic.config import Config

    path.touch(mode=0o600)  # patient identifiers: readable by the node's own user only
    engine = _engine(path, "rw", begin="BEGIN IMMEDIATE", pool=NullPool, foreign_keys=False)
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        _check_foreign_keys(connection)
        _write_node(connection, installation_id or uuid.uuid4().hex, created or datetime.now(tz=UTC))


def _write_node(connection: Connection, installation_id: str, created: datetime) -> None:
    with Session(connection) as session:
        node = session.get(Node, 1) or Node(installation_id=installation_id, created=created)
        node.schema_version = SCHEMA_VERSION
        session.add(node)
        session.flush()


def _check_foreign_keys(connection: Connection) -> None:
    """Migrations rebuild tables with the checks off (SQLite's own recipe), so they are made afterwards."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise CorruptDatabase(f"the upgrade found {len(broken)} rows that refer to missing ones; nothing was changed")


def _engine(
    path: Path,
    mode: Literal["ro", "rw"],
    *,
    begin: str,
    pool: type[NullPool | QueuePool | StaticPool],
    foreign_keys: bool = True,
) -> Engine:
    limits = {"pool_size": READERS_KEPT_OPEN, "max_overflow": -1} if pool is QueuePool else {}
    engine = create_engine(
        "sqlite://",
        creator=partial(_connect, path, mode, foreign_keys=foreign_keys),
        poolclass=pool,
        # values are patient data: they stay out of messages
        hide_parameters=True,
        # NaN is no JSON: PostgreSQL and browsers refuse what Python would write
        json_serializer=partial(json.dumps, allow_nan=False, separators=(",", ":")),
        **limits,
    )
    # The driver would begin transactions by itself, too late and never IMMEDIATE; isolation_level=None stops that.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin) and None)
    return engine


def _connect(path: Path, mode: Literal["ro", "rw"], *, foreign_keys: bool = True) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    if mode == "ro":
        return connection
    (journal_mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal_mode != "wal":
        connection.close()
        raise UnsafeStorage(f"the file system of the data folder: expected journal mode wal, got {journal_mode}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    connection.execute("PRAGMA wal_autocheckpoint = 1000")
    return connection


def _not_ready(found: int | None) -> DatabaseError:
    if found is None:
        return MissingDatabase("there is no database in the data folder yet")
    return OlderSchema(f"the database has schema {found}, this version needs {SCHEMA_VERSION}")


def _typed(error: sqlite3.Error) -> DatabaseError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of SQLite's extended ones
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return CorruptDatabase(f"the database file is damaged: {error}")
    return InaccessibleDatabase(f"the database file cannot be used: {error}")
