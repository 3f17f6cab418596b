"""What `tracerd doctor` and `tracerd status` say of the self-test of SUV."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon import cli, commands, doctor, show
from daemon.doctor import Verdict
from daemon.opening import open_node
from daemon.verification import Verification
from tests import misreading
from tests.unit.test_cli import write

UNSOUND = Verification(84, 612, ("GML: expected SUV 4 at (0, 0, 3), got 8", "CM2ML: expected cm2ml, got units"))


def suv_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any]]:
    """Exit status of `tracerd doctor --json` and what it found about SUV."""
    monkeypatch.setattr(sys, "argv", ["tracerd", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    structlog.reset_defaults()
    findings = json.loads(capsys.readouterr().out)
    return int(ended.value.code or 0), [one for one in findings if one["what"] == "SUV self-test"]


def test_doctor_says_how_many_objects_were_read_and_how_long_it_took(monkeypatch, capsys):
    status, (finding,) = suv_findings(monkeypatch, capsys)
    assert status == 0
    assert finding["verdict"] == "ok"
    objects, milliseconds = (int(word) for word in finding["words"].split() if word.isdigit())
    assert objects > 80
    assert 50 < milliseconds < 10_000
    assert finding["words"].endswith(", all right")


def test_doctor_fails_and_names_every_deviation(monkeypatch, capsys):
    misreading.forget_decay(monkeypatch.setattr)
    status, findings = suv_findings(monkeypatch, capsys)
    assert status == 1
    assert {one["verdict"] for one in findings} == {"fail"}
    assert any(one["words"].startswith("BQML START, FDG: expected SUV 4 at (0, 0, 3), got 2.7") for one in findings)
    assert not any(one["words"].startswith("GML") for one in findings), "nothing decays there"


def test_a_failed_self_test_of_the_running_node_is_found_from_outside(monkeypatch, tmp_path):
    """The node that runs may be older or otherwise installed than the command that asks."""
    config = write(tmp_path / "node.yaml", tmp_path)
    monkeypatch.setattr(doctor, "running_status", lambda settings: {"suv_self_test": UNSOUND.to_json()})
    found = [one for one in doctor.examine(config) if one.what == "SUV self-test of the running node"]
    assert [(one.verdict, one.words) for one in found] == [(Verdict.FAIL, words) for words in UNSOUND.deviations]


def test_status_carries_what_the_node_found_and_nothing_where_none_runs(tmp_path: Path, capsys):
    from config.load import load

    with open_node(load(write(tmp_path / "node.yaml", tmp_path))) as idle:
        with idle.glance() as turn:
            assert commands.status(turn)["suv_self_test"] is None
        with replace(idle, verification=UNSOUND).glance() as turn:
            status = json.loads(json.dumps(commands.status(turn)))
    assert Verification.from_json(status["suv_self_test"]) == UNSOUND
    show.show_status({"running": True, **status})
    printed = " ".join(capsys.readouterr().out.split())
    assert "SUV self-test 84 reference objects in 612 ms, 2 wrong, such as GML: expected SUV 4" in printed
    show.show_status({"running": True, **status, "suv_self_test": None})
    assert "SUV self-test" not in capsys.readouterr().out
