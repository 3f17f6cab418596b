"""A node as its operator runs it: a YAML file, `tracerd serve`, the command line; and eyes on what it keeps."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from tests.processes import ENVIRONMENT, free_port, listens, process_tree, wait_until

LOOPBACK = "127.0.0.1"

FDG_RULE: dict[str, Any] = {
    "name": "fdg",
    "engine": "threshold_segmentation",
    "inputs": {"pet": {"modality": "PT", "kind": "static", "attenuation_corrected": True}},
    "parameters": {"method": "fixed", "threshold_suv": 4.0},
    "send_to": ["pacs"],
}
"""The rule most tests use: every static attenuation-corrected PET."""


def gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether none of the processes lives any more (a zombie that nobody collects does not live)."""
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


@dataclass
class RunningNode:
    """`tracerd serve` on a folder of its own; use as a context manager, or `start` and `kill` by hand."""

    folder: Path
    pacs_port: int
    rules: Sequence[dict[str, Any]] = (FDG_RULE,)
    settings: dict[str, Any] = field(default_factory=dict)
    destination: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    wrapper: Sequence[str] = ()
    only: str | None = None
    """"listener" or "node": one half of a site that runs them as two services."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        # through JSON, so that two rules that share a part do not share a YAML anchor
        document = json.loads(json.dumps(self._document()))
        self.config.write_text(yaml.safe_dump(document, sort_keys=False))

    @property
    def config(self) -> Path:
        return self.folder / "node.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    def _document(self) -> dict[str, Any]:
        destination = {
            "host": LOOPBACK,
            "port": self.pacs_port,
            "ae_title": "ORTHANC",
            "timeout_s": 20,
            "retry": {"first_s": 0.2, "max_s": 2, "give_up_after_s": 600},
            **self.destination,
        }
        return {
            "data": str(self.data),
            "timezone": "Europe/Berlin",
            "listener": {
                "doors": [{"host": LOOPBACK, "port": self.port, "ae_titles": ["TRACERD"]}],
                "limits": {"free_bytes_min": "64 MiB"},
            },
            "allow_unknown_peers": True,
            "destinations": {"pacs": destination},
            "assemble": {"quiet_s": 2, "quiet_other_s": 3, "maximum_wait_s": 8},
            "rules": list(self.rules),
            **self.settings,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, timeout: float = 60) -> None:
        half = ["--only", self.only] if self.only else []
        command = [*self.wrapper, sys.executable, "-m", "daemon", "serve", *half, "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | ENVIRONMENT
            )
        wait_until(self._ready, timeout)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the node ended with {self._process.returncode}:\n{self.log.read_text()[-4000:]}")
        answers = self.only == "node" or listens(self.pid, self.port)
        return answers and (self.only == "listener" or (self.data / "run" / "control.sock").exists())

    def processes(self) -> list[psutil.Process]:
        return process_tree(self.pid)

    def kill(self) -> list[psutil.Process]:
        """SIGKILL the node's main process only; returns all processes it had."""
        processes = self.processes()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        return processes

    def stop(self, timeout: float = 40) -> int:
        """SIGTERM and the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line on this node's configuration."""
        command = [sys.executable, "-m", "daemon", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | ENVIRONMENT)
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json").stdout)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """A reader's view of the database, beside the running node."""
        with closing(sqlite3.connect(f"{(self.data / 'node.db').as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            yield database

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.database() as database:
            return database.execute(query, values).fetchall()

    def jobs(self) -> list[dict[str, Any]]:
        names = ("id", "study_id", "state", "reason_code", "reason", "attempts", "interruptions", "supersedes")
        return [
            dict(zip(names, row, strict=True)) for row in self.rows(f"select {', '.join(names)} from job order by id")
        ]

    def wait_for_jobs(self, count: int, states: set[str], timeout: float = 120) -> list[dict[str, Any]]:
        """Wait until `count` jobs are in one of the states and none is elsewhere."""

        def reached() -> bool:
            jobs = self.jobs()
            return len(jobs) >= count and all(job["state"] in states for job in jobs)

        try:
            wait_until(reached, timeout, every=0.1)
        except TimeoutError as error:
            raise AssertionError(f"jobs: {self.jobs()}\n{self.log.read_text()[-3000:]}") from error
        return self.jobs()

    def wait_delivered(self, count: int, timeout: float = 120) -> None:
        """Wait until `count` instances were accepted by the destination."""
        query = "select count(*) from delivery where state = 'accepted'"
        try:
            wait_until(lambda: self.rows(query)[0][0] >= count, timeout, every=0.1)
        except TimeoutError as error:
            states = self.rows("select state, reason, count(*) from delivery group by 1, 2")
            raise AssertionError(
                f"deliveries: {states}; jobs: {self.jobs()}\n{self.log.read_text()[-3000:]}"
            ) from error
