"""Warm, supervised worker processes. The database is the queue; Dask is only the pool.

The settings are those that lost no job when tried: one job in flight per named worker, no silent retries, no stealing,
no pausing, no time-to-live (a long C call holds the interpreter lock and would be taken for dead), TLS even on
loopback (a Dask scheduler executes what it is sent).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Event, Future, LocalCluster
from distributed.core import Status

SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.no-workers-timeout": "60s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.tick.limit": "1h",
    # else a worker that dies twice, this long apart, is taken for lost while it starts again, and closed for good
    "distributed.deploy.lost-worker-timeout": "3650 days",
    # Dask opens HTTP ports whether or not one wants a dashboard: let nothing answer on them
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


class Pool:
    """A local cluster of `workers` single-threaded processes named 0, 1, … (Dask's own names)."""

    def __init__(self, *, workers: int, memory_bytes: int, scratch: Path) -> None:
        dask.config.set(SETTINGS)
        self.names = list(range(workers))
        self._cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            security=True,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,
            memory_limit=memory_bytes,
            local_directory=str(scratch),
            preload=["daemon.worker"],
        )
        self._client = Client(self._cluster)
        self._client.wait_for_workers(workers, timeout=120)

    def present(self) -> dict[int, str]:
        """Name → address of the workers that can take a task now; one that is being restarted is missing."""
        scheduler: Any = self._cluster.scheduler
        states = list(scheduler.workers.values())
        return {state.name: state.address for state in states if state.status == Status.running}

    def submit(self, function: Callable[..., Any], *arguments: object, worker: int, key: str) -> Future[Any]:
        """Start a task on one named worker and on no other. The worker must be present: a missing one is waited for."""
        return self._client.submit(
            function, *arguments, key=key, workers=[worker], allow_other_workers=False, pure=False
        )

    def ask_to_stop(self, event: str) -> None:
        """Set the event that a task's `should_stop` looks at."""
        Event(event, client=self._client).set()

    def pid(self, worker: int) -> int | None:
        """Process id of a worker, None while it is being started again."""
        nanny: Any = self._cluster.workers.get(worker)
        return nanny.pid if nanny is not None else None

    def kill(self, worker: int, pid: int | None) -> None:
        """End a worker, if it still is this process, and what it runs; its supervisor starts another.

        It dies as it would of too little memory: what it ran ends with an error, and the name is back in a second.
        Dask's own restart is not used: it waits for an orderly end first, and never returns where the process ends
        itself meanwhile, as one does whose time is up. A process that is only starting is never killed, since its
        supervisor would give up.
        """
        if pid is not None and self.pid(worker) == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End every worker, whatever it does."""
        self._client.close(timeout=2)
        self._cluster.close(timeout=5)
