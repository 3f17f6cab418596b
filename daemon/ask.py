"""How a command reaches a node: the running daemon over its socket, else the data folder itself.

Only one process may write the database. While a daemon runs it is asked; while none runs an order takes the lock of
the data folder and does the same by itself. Questions need no lock: they read a snapshot of the database.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from config.settings import Settings
from daemon.commands import CannotDo
from daemon.node import Folders, Turn
from daemon.opening import AlreadyRunning, glance_at_node, open_node
from db.errors import MissingDatabase

ACTOR_MAX = 64
TIMEOUT_S = 30.0
CONFLICT_STATUS = 409


@dataclass(frozen=True, slots=True)
class Request:
    """A question or an order in both of its forms.

    method, route, body : to the running daemon; GET is a question
    answer : the same without a daemon
    """

    method: str
    route: str
    answer: Callable[[Turn], Any]
    body: dict[str, Any] | None = None


def ask(settings: Settings, request: Request) -> Any:
    """The node's answer, as plain JSON values.

    Raises
    ------
    commands.CannotDo
        The order makes no sense for that row, or the running daemon failed on it.
    AlreadyRunning
        A daemon holds the data folder but does not answer.
    db.errors.DatabaseError
        There is no database yet, or it cannot be used.
    """
    folders = Folders(settings.data.resolve())
    if not folders.database.exists():
        raise MissingDatabase(f"there is no database in {folders.data} yet")
    try:
        return call(folders.control_socket, request.method, request.route, request.body)
    except httpx.ConnectError:
        opened = reading if request.method == "GET" else writing
    except httpx.HTTPError as error:
        raise CannotDo("the running daemon could not answer; its log says why") from error
    with opened(settings) as turn:
        return request.answer(turn)


@contextmanager
def writing(settings: Settings) -> Iterator[Turn]:
    """One transaction of the one process of the data folder."""
    try:
        with open_node(settings) as node, node.turn() as turn:
            yield turn
    except AlreadyRunning as busy:
        text = "a tracerd holds the data folder but does not answer: it is starting or stopping; try again in a moment"
        raise AlreadyRunning(text) from busy


@contextmanager
def reading(settings: Settings) -> Iterator[Turn]:
    """A snapshot of the database beside whoever runs the node: nothing is made, locked or changed.

    Raises
    ------
    db.errors.DatabaseError
        There is no database yet, or it cannot be used.
    """
    with glance_at_node(settings) as node, node.glance() as turn:
        yield turn


def call(control_socket: Path, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the running daemon.

    Raises
    ------
    commands.CannotDo
        The daemon refused, with its words.
    httpx.HTTPError
        Nobody answers at the socket, or the daemon failed.
    """
    transport = httpx.HTTPTransport(uds=str(control_socket))
    with httpx.Client(transport=transport, base_url="http://tracerd", timeout=TIMEOUT_S) as client:
        answer = client.request(method, route, json=body)
    if answer.status_code == CONFLICT_STATUS:
        raise CannotDo(answer.json()["error"])
    answer.raise_for_status()
    return answer.json()


def running_status(settings: Settings) -> dict[str, Any] | None:
    """What the daemon of the data folder says of itself, None where none answers."""
    try:
        answer: dict[str, Any] = call(Folders(settings.data.resolve()).control_socket, "GET", "/status")
    except httpx.TransportError:
        return None
    return answer


def is_running(settings: Settings) -> bool:
    """Whether a daemon answers at the socket of the data folder."""
    try:
        call(Folders(settings.data.resolve()).control_socket, "GET", "/alive")
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError:  # of an older version, which does not know the question
        return True
    return True


def actor() -> str:
    """Who gives the order, for the history: the name of the Unix user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name[:ACTOR_MAX]
    except KeyError:
        return f"uid {os.getuid()}"
