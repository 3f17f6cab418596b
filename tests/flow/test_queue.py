"""A stuck job, one that eats memory, one that raises, and a good one in the same queue: each ends right."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests import make
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp
from tests.processes import ENVIRONMENT, wait_until

LIMIT_S = 8


class MisbehavingNode(RunningNode):
    """The node with one more engine."""

    def start(self, timeout: float = 60) -> None:
        command = [sys.executable, "-m", "tests.flow.serve_misbehaving", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | ENVIRONMENT
            )
        wait_until(self._ready, timeout)


def rule(name: str, behave: str, station: str) -> dict:
    return {
        **FDG_RULE,
        "name": name,
        "engine": "misbehaving",
        "parameters": {"behave": behave},
        "when": {"station": station},
    }


def test_every_job_of_a_bad_queue_ends_right(tmp_path: Path):
    behaviours = {"hang": "hang", "oom": "eat memory", "error": "raise", "good": "well"}
    settings = {"execute": {"workers": 2, "memory_bytes": "1 GiB", "time_limit_s": LIMIT_S, "attempts": 2}}
    rules = [rule(name, behave, name.upper()) for name, behave in behaviours.items()]
    with (
        StoreScp(tmp_path / "pacs") as pacs,
        MisbehavingNode(tmp_path / "node", pacs.port, rules=rules, settings=settings) as node,
    ):
        for number, name in enumerate(behaviours):
            change = {"StationName": name.upper()}
            study = make.study(tmp_path / name, seed=20 + number, pet_shape=(12, 20, 20), change=change)
            assert Sender(node.port).send(study.pet).unacknowledged == []
        began = time.monotonic()
        node.wait_delivered(2, timeout=180)
        good_after = time.monotonic() - began
        node.wait_for_jobs(4, {"done", "dead"}, timeout=180)
        query = "select rule, state, reason_code, attempts from job"
        jobs = {name: tuple(rest) for name, *rest in node.rows(query)}
        print(f"\n{jobs}; the good one delivered {good_after:.1f} s after the last slice")
        assert jobs["good"][0] == "done"
        assert jobs["hang"] == ("dead", "time-limit", 2)
        assert jobs["oom"] == ("dead", "worker-died", 2)
        assert jobs["error"] == ("dead", "bug", 2)
        finished = dict(node.rows("select rule, finished from job"))
        assert finished["good"] < finished["hang"], "the good job waited for one that was tried twice"
        traces = [path.read_text() for path in (node.data / "results").rglob("trace.txt")]
        assert any("misbehaviour.py" in trace for trace in traces), "the stack of the stuck task was not left behind"
        assert "patient text" not in node.log.read_text()
        node.command("jobs", "retry", str(node.rows("select id from job where rule = 'hang'")[0][0]))
        wait_until(lambda: node.rows("select state from job where rule = 'hang'")[0][0] == "running", 20)
        node.command("jobs", "cancel", str(node.rows("select id from job where rule = 'hang'")[0][0]))
        wait_until(lambda: node.rows("select state from job where rule = 'hang'")[0][0] == "cancelled", 20)
        assert node.stop() == 0
