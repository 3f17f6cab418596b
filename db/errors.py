"""Typed reasons of the database. Messages name tables, states and numbers, never the values of a row."""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of the database errors.

    code : short stable identifier, shown in tables and counted
    hint : what the operator can do about it
    """

    code = "database-error"
    hint = "See the log of the node."

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.hint = hint or self.hint


class IllegalMove(DatabaseError):
    """The table of legal moves has no such move."""

    code = "illegal-move"
    hint = "Nothing was changed. Look at the row's state again: somebody or something else was faster."


class DetachedRow(DatabaseError):
    """The row does not belong to the session that is asked to move it; the change would be lost."""

    code = "detached-row"
    hint = "A defect of the program: load the row in the transaction that moves it."


class NaiveTime(DatabaseError):
    """A moment without a time zone."""

    code = "naive-time"
    hint = "A defect of the program: moments are aware datetimes; DICOM times stay text."

    def __init__(self) -> None:
        super().__init__("a moment needs a time zone: expected an aware datetime, got a naive one")


class MissingDatabase(DatabaseError):
    """There is no database file."""

    code = "no-database"
    hint = "Start the node once (`tracerd serve`), or check `data:` of the configuration."


class CorruptDatabase(DatabaseError):
    """The file is not a usable SQLite database."""

    code = "corrupt-database"
    hint = "Keep the file for examination and restore the last backup (`tracerd restore`)."


class InaccessibleDatabase(DatabaseError):
    """The file cannot be opened or stays locked."""

    code = "inaccessible-database"
    hint = "Check owner and permissions of the data folder, and that no other program holds the file."


class ClosedDatabase(DatabaseError):
    """The store was closed already."""

    code = "closed-database"
    hint = "A defect of the program, or work that came after the node was told to stop."


class ForeignDatabase(DatabaseError):
    """A sound SQLite file, but not a node's."""

    code = "foreign-database"
    hint = "Check `data:` of the configuration: the folder belongs to another program."


class NewerSchema(DatabaseError):
    """The database was written by a newer version of this program."""

    code = "newer-schema"
    hint = "Install the newer version again, or restore the backup made before the upgrade."


class OlderSchema(DatabaseError):
    """The database needs an upgrade that this command may not do."""

    code = "older-schema"
    hint = "Start the node (`tracerd serve`): it upgrades the database."


class NestedWrite(DatabaseError):
    """A thread opened a write transaction inside its own write transaction."""

    code = "nested-write"
    hint = "A defect of the program: pass the session on instead of opening a second one."


class UnsafeStorage(DatabaseError):
    """The folder's file system cannot hold the database safely."""

    code = "unsafe-storage"
    hint = "Put `data:` on a local file system (no NFS or SMB)."
