"""Open a data folder: alone (the daemon, or a command that changes something) or beside whoever runs the node."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import select

from config.settings import Settings
from daemon.node import Bells, Folders, Node, utc_now
from db import schema
from db.session import Store
from dicom_io.sandbox import Sandbox
from dicom_io.spool import Spool

READER_MEMORY_BYTES = 2 * 2**30
"""Address space of the process that parses what strangers sent."""
READER_TIMEOUT_S = 30.0
SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path on Linux (unix(7))."""


class UnusableDataFolder(Exception):
    """The data folder cannot be used by this process now."""

    hint = "See `data:` in the configuration."


class AlreadyRunning(UnusableDataFolder):
    """Another daemon holds this data folder."""

    hint = "Stop it first, or use another data folder."


@contextmanager
def open_node(settings: Settings) -> Iterator[Node]:
    """Be the one process of the data folder; makes and upgrades what is missing.

    Raises
    ------
    AlreadyRunning, UnusableDataFolder
        Another process holds the folder; its path is too long for a socket.
    db.errors.DatabaseError, dicom_io.spool.SpoolUnusable
        The database or the spool cannot be used.
    """
    folders = Folders(settings.data.resolve())
    if len(os.fsencode(folders.control_socket)) > SOCKET_PATH_MAX:
        raise UnusableDataFolder(f"the path of {folders.control_socket} is longer than {SOCKET_PATH_MAX} bytes")
    folders.create()
    with ExitStack() as stack:
        stack.enter_context(data_folder_lock(folders))
        store = stack.enter_context(closing(Store.open(folders.database)))
        node = node_on(settings, folders, store)
        node.spool.prepare()
        stack.enter_context(node.sandbox)
        yield node


@contextmanager
def glance_at_node(settings: Settings) -> Iterator[Node]:
    """The node to look at only, beside whoever runs it: nothing is made, locked or changed.

    Raises
    ------
    db.errors.DatabaseError
        There is no database yet, or it cannot be used.
    """
    folders = Folders(settings.data.resolve())
    with closing(Store.open(folders.database, migrate=False)) as store:
        yield node_on(settings, folders, store)


def node_on(settings: Settings, folders: Folders, store: Store) -> Node:
    """Join the collaborators on an open database; starts no process."""
    with store.read() as session:
        installation_id = session.scalars(select(schema.Node)).one().installation_id
    return Node(
        settings=settings,
        folders=folders,
        spool=Spool(folders.data),
        store=store,
        sandbox=Sandbox(READER_MEMORY_BYTES, READER_TIMEOUT_S),
        timezone=ZoneInfo(settings.timezone),
        installation_id=installation_id,
        ruleset=settings.rules_sha256(),
        clock=utc_now,
        rng=random.Random(),  # noqa: S311 - jitter of back-off, no secret
        log=structlog.get_logger(),
        stopping=Event(),
        bells=Bells(),
    )


@contextmanager
def data_folder_lock(folders: Folders) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it however we end."""
    with folders.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as busy:
            raise AlreadyRunning("another tracerd runs on this data folder") from busy
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
