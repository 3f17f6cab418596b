"""Where everything is built and joined: settings → a running node → an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from config.settings import Settings
from daemon import pipeline
from daemon.execute import Executor
from daemon.logs import frames
from daemon.node import TO_RUN, Bell, Node, to_send
from daemon.opening import open_node
from daemon.retention import sweep
from daemon.schedule import Ticker
from daemon.verification import verify
from daemon.worker import attempt, warm_up

if TYPE_CHECKING:
    from daemon.pool import Pool

INBOX_S = 0.05
"""Pause between two looks at an empty inbox."""
IDLE_S = 0.5
"""Longest pause of a step that waits for the bell: due times come without one."""
LISTENER_STOP_S = 30.0


def serve(
    settings: Settings,
    config_path: Path,
    *,
    with_listener: bool = True,
    function: Callable[[dict[str, Any]], Any] = attempt,
) -> int:
    """Run the node until SIGTERM or SIGINT; 0 after an orderly end, 1 when a step failed for good."""
    with open_node(settings) as node:

        def stop(_number: int, _frame: object) -> None:
            if node.stopping.is_set():
                os._exit(1)  # asked twice: our children die with us, and the next start recovers as after a crash
            node.stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        return Running(node, config_path, with_listener=with_listener, function=function).run()


def verified(node: Node) -> Node:
    """The node with what the self-test of SUV said about this installation."""
    verification = verify()
    log = node.log.critical if verification.deviations else node.log.info
    log("suv-self-test", **verification.to_json())
    return replace(node, verification=verification)


class Running:
    """The threads and children of a node, from start to orderly end."""

    def __init__(
        self, node: Node, config_path: Path, *, with_listener: bool, function: Callable[[dict[str, Any]], Any]
    ) -> None:
        self._node = node
        self._config_path = config_path
        self._with_listener = with_listener
        self._function = function
        self._failed = Event()
        self._threads: list[Thread] = []
        self._executor: Executor | None = None

    def run(self) -> int:
        """Start, wait for the end, stop in reverse order: what comes in until the door closes is indexed next time."""
        pipeline.recover(self._node)
        with ExitStack() as stack:
            listener = stack.enter_context(listener_process(self._config_path)) if self._with_listener else None
            from daemon.control import Control  # while the listener starts

            node = self._node = verified(self._node)
            stack.callback(self._end_executor)
            control = Control(node)
            stack.callback(control.close)
            ticker = Ticker(node, self._fail)
            ticker.every(1.0, "look-at-due", lambda: pipeline.look_at_due(node))
            ticker.every(60.0, "sweep", lambda: sweep(node))
            stack.callback(ticker.close)
            self._start_loops()
            stack.callback(self._join)
            node.log.info("serving", pid=os.getpid())
            self._wait(listener)
        node.log.info("stopped", failed=self._failed.is_set())
        return 1 if self._failed.is_set() else 0

    def _execute(self) -> bool:
        """Start the workers, which takes seconds and keeps nothing else waiting; from then on, what jobs need."""
        if self._executor is None:
            self._executor = Executor(self._node, warm_pool(self._node), function=self._function)
            return True
        return pipeline.run_jobs(self._executor)

    def _end_executor(self) -> None:
        if self._executor is not None:
            self._executor.interrupt()
            self._executor.pool.close()

    def _start_loops(self) -> None:
        node = self._node
        known: set[str] = set()
        self._loop("receive", lambda: pipeline.receive_and_route(node, known), pause_s=INBOX_S)
        self._loop("execute", self._execute, pause_s=IDLE_S, bell=node.bells.of(TO_RUN))
        self._loop("vouch", lambda: pipeline.vouch_for_received(node), pause_s=IDLE_S)
        self._start_sending()

    def _start_sending(self) -> None:
        """Senders are woken by what is to be sent; what is to be proven is in no hurry: peers need their time too."""
        node = self._node
        for name, destination in node.settings.destinations.items():
            bell = node.bells.of(to_send(name))
            for number in range(destination.parallel):
                step = partial(pipeline.send_results, node, name)
                self._loop(f"deliver-{name}-{number}", step, pause_s=IDLE_S, bell=bell)
            self._loop(f"prove-{name}", partial(pipeline.prove_results, node, name), pause_s=IDLE_S)

    def _loop(self, name: str, step: Callable[[], bool], *, pause_s: float, bell: Bell | None = None) -> None:
        """Repeat a step in a thread of its own; where there was nothing to do, pause, at most until its bell rings.

        A step that raises stops the node: it can start again and recover.
        """

        def body() -> None:
            try:
                while not self._node.stopping.is_set():
                    heard = bell.strokes if bell is not None else 0
                    if step():
                        continue
                    if bell is not None:
                        bell.wait(heard, pause_s)
                    else:
                        self._node.stopping.wait(pause_s)
            except BaseException as error:
                self._node.log.critical("step-failed", step=name, error=type(error).__name__, frames=frames(error))
                self._fail()
                raise

        thread = Thread(target=body, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _fail(self) -> None:
        """End the node with a status that makes its supervisor start it again."""
        self._failed.set()
        self._node.stopping.set()

    def _wait(self, listener: subprocess.Popen[bytes] | None) -> None:
        """Until somebody asks for the end, or the listener is gone for good."""
        while not self._node.stopping.wait(0.2):
            if listener is not None and listener.poll() is not None:
                self._node.log.critical("listener-ended", code=listener.returncode)
                self._fail()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=LISTENER_STOP_S)


def warm_pool(node: Node) -> Pool:
    """The workers, each with one tiny study behind it."""
    from daemon.pool import Pool

    policy = node.settings.execute
    pool = Pool(workers=policy.workers, memory_bytes=policy.memory_bytes, scratch=node.folders.run / "workers")
    warm = [pool.submit(warm_up, worker=name, key=f"warm-{name}-{time.monotonic_ns()}") for name in pool.names]
    for each in warm:
        each.result(timeout=120)
    node.log.info("workers-ready", workers=len(pool.names))
    return pool


@contextmanager
def listener_process(config_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The listener as a child that dies with us and ends its association in progress when we stop."""
    command = [
        sys.executable,
        "-m",
        "daemon",
        "serve",
        "--only",
        "listener",
        "--attached",
        "--config",
        str(config_path),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=LISTENER_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
