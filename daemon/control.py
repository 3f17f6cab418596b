"""Commands to the running daemon over a Unix socket that only its own user may open.

One writing process owns the database, so `tracerd jobs retry 7` asks it here instead of writing by itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Thread
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from daemon import commands, promotion
from daemon.node import Node, Turn
from engines.errors import WeightsRefused


class Because(BaseModel):
    """Body of a command that is kept in the history with its reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    actor: str = Field(min_length=1, max_length=64)
    because: str = Field(default="", max_length=500)
    to: str | None = Field(default=None, max_length=64)


class Registration(BaseModel):
    """Body of a command that registers weights which lie in the node's folder already."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    actor: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


Open = Callable[[], AbstractContextManager[Turn]]


def application(change: Open, look: Open) -> FastAPI:
    """The routes. `change` opens a write transaction, `look` a snapshot."""
    app = FastAPI(title="tracerd", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(WeightsRefused)
    @app.exception_handler(commands.CannotDo)
    def cannot(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=409)

    @app.get("/alive")
    def alive() -> None:
        """Something answers; nothing is counted for it."""

    @app.get("/status")
    def status() -> dict[str, Any]:
        with look() as turn:
            return commands.status(turn)

    @app.get("/jobs")
    def list_jobs(state: str | None = None, limit: int = commands.JOB_LIMIT) -> list[dict[str, Any]]:
        """`limit=0` is no limit."""
        with look() as turn:
            return commands.list_jobs(turn, state=state, limit=limit or None)

    @app.get("/jobs/{job_id}")
    def show(job_id: int) -> dict[str, Any]:
        with look() as turn:
            return commands.describe_job(turn, commands.job_row(turn, job_id))

    @app.post("/jobs/{job_id}/{action}")
    def act(job_id: int, action: str, body: Because) -> dict[str, Any]:
        with change() as turn:
            return act_on_job(turn, job_id, action, body)

    @app.get("/conflicts")
    def list_conflicts() -> list[dict[str, Any]]:
        with look() as turn:
            return commands.list_conflicts(turn)

    @app.post("/conflicts/{series_id}/{action}")
    def decide(series_id: int, action: str, body: Because) -> dict[str, Any]:
        choices = {"accept": commands.accept_conflict, "discard": commands.discard_conflict}
        if action not in choices:
            raise commands.CannotDo(f"a conflict can be accepted or discarded, got {action}")
        with change() as turn:
            return choices[action](turn, series_id, because=body.because, actor=body.actor)

    add_destinations(app, change, look)
    add_models(app, change, look)
    return app


def add_destinations(app: FastAPI, change: Open, look: Open) -> None:
    """The routes of `tracerd destinations`."""

    @app.get("/destinations")
    def list_destinations() -> list[dict[str, Any]]:
        with look() as turn:
            return commands.list_destinations(turn)

    @app.post("/destinations/{name}/{action}")
    def direct(name: str, action: str, body: Because) -> dict[str, Any]:
        with change() as turn:
            return act_on_destination(turn, name, action, body)


def add_models(app: FastAPI, change: Open, look: Open) -> None:
    """The routes of `tracerd models`."""

    @app.get("/models")
    def list_models(engine: str | None = None) -> list[dict[str, Any]]:
        with look() as turn:
            return promotion.list_models(turn, name=engine)

    @app.get("/models/{digest}")
    def show(digest: str) -> dict[str, Any]:
        with look() as turn:
            return promotion.describe(turn, digest)

    @app.post("/models")
    def register(body: Registration) -> dict[str, Any]:
        with change() as turn:
            return promotion.register(turn, body.sha256, actor=body.actor)

    @app.post("/models/{name}/{action}")
    def act(name: str, action: str, body: Because) -> dict[str, Any]:
        with change() as turn:
            return act_on_model(turn, name, action, body)


def act_on_model(turn: Turn, name: str, action: str, body: Because) -> dict[str, Any]:
    """Apply one of the verbs of `tracerd models`: a model is promoted, an engine rolled back."""
    verbs = {"promote": promotion.promote, "rollback": promotion.rollback}
    if action not in verbs:
        raise commands.CannotDo(f"a model can be promoted, an engine rolled back, got {action}")
    return verbs[action](turn, name, because=body.because, actor=body.actor)


def act_on_destination(turn: Turn, name: str, action: str, body: Because) -> dict[str, Any]:
    """Apply one of the verbs of `tracerd destinations`."""
    verbs = {"pause": commands.pause, "resume": commands.resume}
    if action not in verbs:
        raise commands.CannotDo(f"a destination can be paused or resumed, got {action}")
    return verbs[action](turn, name, because=body.because, actor=body.actor)


def act_on_job(turn: Turn, job_id: int, action: str, body: Because) -> dict[str, Any]:
    """Apply one of the verbs of `tracerd jobs`."""
    if action == "release":
        return commands.release(turn, job_id, because=body.because, actor=body.actor)
    if action == "resend":
        return commands.resend(turn, job_id, to=body.to, actor=body.actor)
    verbs = {"retry": commands.retry, "rerun": commands.rerun, "cancel": commands.cancel}
    if action not in verbs:
        raise commands.CannotDo(f"a job can be released, retried, resent, rerun or cancelled, got {action}")
    return verbs[action](turn, job_id, actor=body.actor)


class Control:
    """The server of the socket, in a thread of its own."""

    def __init__(self, node: Node) -> None:
        self._path = node.folders.control_socket
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        config = uvicorn.Config(application(node.turn, node.glance), log_config=None, lifespan="off", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._path.unlink(missing_ok=True)
