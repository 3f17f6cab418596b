"""The ticker: wakes code that asks the database what is due. It remembers nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC

from apscheduler.schedulers.background import BackgroundScheduler

from daemon.logs import frames
from daemon.node import Node


class Ticker:
    """APScheduler with its memory job store, and the settings under which it drops no tick silently."""

    def __init__(self, node: Node, on_failure: Callable[[], None]) -> None:
        self._node = node
        self._on_failure = on_failure
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
        self._scheduler.start()

    def every(self, seconds: float, name: str, step: Callable[[], object]) -> None:
        """Run a step at a fixed pace; one that raises ends the node, which starts again and recovers."""

        def tick() -> None:
            try:
                step()
            except BaseException as error:
                self._node.log.critical("tick-failed", step=name, error=type(error).__name__, frames=frames(error))
                self._on_failure()
                raise

        self._scheduler.add_job(tick, "interval", seconds=seconds, id=name)

    def close(self) -> None:
        """Let the running ticks end."""
        self._scheduler.shutdown(wait=True)
