"""A node that reads SUV wrongly: it receives, indexes and computes what needs no SUV, and holds the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import make
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Sender, StoreScp
from tests.processes import ENVIRONMENT, wait_until

RULES = (FDG_RULE, {**FDG_RULE, "name": "activity", "engine": "highest_activity", "parameters": {}})


class MisreadingNode(RunningNode):
    """`tracerd serve` with a formula broken on purpose, until `mutations` is empty."""

    mutations: tuple[str, ...] = ("forget_decay",)

    def start(self, timeout: float = 60) -> None:
        command = [sys.executable, "-m", "tests.flow.serve_misreading", str(self.config), *self.mutations]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | ENVIRONMENT
            )
        wait_until(self._ready, timeout)

    def states(self) -> dict[str, tuple[Any, ...]]:
        """Rule → state, code and tries of its one job."""
        return {rule: tuple(rest) for rule, *rest in self.rows("select rule, state, reason_code, attempts from job")}

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """`tracerd doctor` of a sound installation on this node; it knows the engines of tracerd only."""
        config = self.folder / "doctor.yaml"
        document = yaml.safe_load(self.config.read_text())
        config.write_text(yaml.safe_dump({**document, "rules": [FDG_RULE]}))
        command = [sys.executable, "-m", "daemon", "doctor", "--json", "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | ENVIRONMENT)


def test_jobs_that_need_an_suv_are_held_until_a_sound_node_runs(tmp_path: Path):
    study = make.study(tmp_path / "study", seed=31, pet_shape=(12, 20, 20))
    with StoreScp(tmp_path / "pacs") as pacs, MisreadingNode(tmp_path / "node", pacs.port, rules=RULES) as node:
        assert Sender(node.port).send(study.pet).unacknowledged == [], "it receives"
        node.wait_for_jobs(2, {"held", "done"})
        assert node.states() == {"fdg": ("held", "suv-self-test", 1), "activity": ("done", "", 1)}
        held = next(job for job in node.jobs() if job["state"] == "held")
        assert "reference objects" in held["reason"] and "tracerd jobs release" in held["reason"]
        tells_why(node)

        node.command("jobs", "release", str(held["id"]), "--because", "impatience")
        wait_until(lambda: node.states()["fdg"] == ("held", "suv-self-test", 2), 30)

        assert node.stop() == 0
        node.mutations = ()
        node.start()
        assert node.json("status")["suv_self_test"]["deviations"] == []
        node.command("jobs", "release", str(held["id"]), "--because", "a sound version is installed")
        node.wait_for_jobs(2, {"done"})
        node.wait_delivered(3)
        assert node.rows("select json_extract(manifest, '$.suv_branch') from job where rule = 'fdg'") == [
            ("bqml-start-series-time",)
        ]
        assert node.stop() == 0


def tells_why(node: MisreadingNode) -> None:
    """The log, `tracerd status` and `tracerd doctor` of a node whose self-test failed."""
    deviations = node.json("status")["suv_self_test"]["deviations"]
    shown = "BQML START, FDG: expected SUV 4 at (0, 0, 3), got 2.7"
    assert any(one.startswith(shown) for one in deviations)
    assert f"{len(deviations)} wrong, such as" in " ".join(node.command("status").stdout.split())
    assert "suv-self-test" in node.log.read_text()
    done = node.doctor()
    assert done.returncode == 1
    findings = json.loads(done.stdout)
    failed = [one for one in findings if one["verdict"] == "fail"]
    assert {one["what"] for one in failed} == {"SUV self-test of the running node"}
    assert [one["words"] for one in failed] == deviations
