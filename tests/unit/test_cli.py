"""The command line in this process: exit statuses, what goes to which stream, and words instead of tracebacks."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
import typer

from config.load import load
from daemon import associations, cli, pipeline
from daemon.opening import open_node
from daemon.terminal import plain
from engines import registry
from tests import make
from tests.peers import StoreScp, free_port

ROOT = Path(__file__).resolve().parents[2]
RULE: dict[str, Any] = {
    "name": "fdg",
    "engine": "threshold_segmentation",
    "when": {"tracer": "FDG"},
    "inputs": {"pet": {"modality": "PT", "kind": "static", "attenuation_corrected": True}},
    "parameters": {"threshold_suv": 4.0},
}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


Tracerd = Callable[..., Done]


@pytest.fixture
def tracerd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tracerd]:
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["tracerd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Done(int(ended.value.code or 0), out, err)

    yield run
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "node.yaml", tmp_path)


def write(path: Path, folder: Path, **changes: Any) -> Path:
    """A configuration whose only door is on a free port."""
    document = {
        "data": str(folder / "data"),
        "timezone": "Europe/Berlin",
        "allow_unknown_peers": True,
        "listener": {"doors": [{"host": "127.0.0.1", "port": free_port()}], "limits": {"free_bytes_min": "64 MiB"}},
        "rules": [RULE],
        **changes,
    }
    path.write_text(json.dumps(document))  # JSON is YAML without anchors
    return path


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_of_every_command_has_an_example_of_itself(tracerd: Tracerd, command: tuple[str, ...]) -> None:
    done = tracerd(*command, "--help")
    assert done.status == 0
    assert f"Example:  tracerd {' '.join(command)}" in done.out


def test_the_commands_scripts_depend_on_are_there() -> None:
    expected = (
        "demo, serve, check, conformance, inspect, run, simulate, send, status, doctor, rules explain, rules replay, "
        "jobs list, jobs show, jobs retry, jobs rerun, jobs release, jobs cancel, conflicts list, conflicts accept, "
        "conflicts discard, jobs resend, destinations list, destinations pause, destinations resume, "
        "train, evaluate, models list, models show, models import, models promote, models rollback"
    )
    assert {" ".join(command) for command in commands()} == set(expected.split(", "))


def test_the_conformance_statement_is_printed(tracerd: Tracerd, config: Path) -> None:
    assert tracerd("conformance").out == (ROOT / "docs" / "conformance.md").read_text()
    done = tracerd("conformance", "--config", config)
    assert done.status == 0
    assert "| parameter | this node | default |" in done.out
    assert "| `allow_unknown_peers` | yes | no |" in done.out
    config.write_text("doors: 7")
    assert tracerd("conformance", "--config", config).status == 2


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, daemon.cli; print(*sorted({module.partition('.')[0] for module in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"numpy", "pydicom", "pynetdicom", "sqlalchemy", "distributed", "fastapi", "matplotlib", "pydantic"}
    assert not heavy & set(loaded.split())


def test_a_wrong_command_or_option_is_wrong_usage(tracerd: Tracerd, config: Path) -> None:
    assert tracerd("jbos").status == 2
    assert tracerd("jobs", "list", "--state", "asleep", "--config", config).status == 2
    assert tracerd("jobs", "release", "1", "--config", config).status == 2, "release without --because"
    done = tracerd("send", config, "--to", "nowhere", "--aet", "PACS")
    assert done.status == 2
    assert "expected HOST:PORT" in done.err
    assert tracerd("send", config, "--to", "127.0.0.1:104", "--aet", "MORE THAN SIXTEEN CHARACTERS").status == 2
    assert tracerd("inspect", config, "--timezone", "Mars/Olympus").status == 2


# What the file says → where the fault must be found. All of them stand in one file.
SHAPE_FAULTS = {
    "timezone": "timezone",
    "listener.doors.0.port": "listener.doors.0.port",
    "an unknown key": "listner",
    "a destination nobody knows": "rules.0.send_to.0",
    "a fact that is none": "rules.0.when.traser",
}


def test_every_fault_of_a_broken_file_is_told_at_once_and_nothing_starts(tracerd: Tracerd, tmp_path: Path) -> None:
    rule = {**RULE, "when": {"traser": "FDG"}, "send_to": ["pax"]}
    broken = write(
        tmp_path / "broken.yaml",
        tmp_path,
        timezone="Europe/Berlino",
        listener={"doors": [{"port": 70000}]},
        listner={},
        rules=[rule],
    )
    for command in ("check", "serve"):
        done = tracerd(command, "--config", broken)
        assert done.status == 2
        assert done.out == ""
        lines = done.err.splitlines()
        assert lines[0] == f"{len(lines) - 1} faults in the configuration:"
        for what, place in SHAPE_FAULTS.items():
            assert any(place in line for line in lines[1:]), f"{command} does not tell {what}"
    assert not (tmp_path / "data").exists()


def test_faults_that_only_engines_and_tests_of_rules_know_are_told_at_once(tracerd: Tracerd, tmp_path: Path) -> None:
    rules = [
        {**RULE, "name": "a", "engine": "treshold_segmentation"},
        {**RULE, "name": "b", "parameters": {"threshold_suv": -1.0, "colour": "red"}},
        {**RULE, "name": "c", "inputs": {"petz": {"modality": "PT"}}},
        {**RULE, "name": "d", "inputs": {"ct": {"modality": "CT"}, "pet": {"modality": "PT", "kind": "dynamic"}}},
        {**RULE, "name": "e", "tests": [{"name": "PSMA", "series": [{"modality": "PT"}], "expect": "yes"}]},
    ]
    pacs = {"host": "127.0.0.1", "port": 104, "ae_title": "PACS"}
    file = write(tmp_path / "node.yaml", tmp_path, rules=rules, destinations={"pacs": pacs})
    done = tracerd("check", "--config", file)
    assert done.status == 2
    expected = (
        f"rules.0.engine: expected one of {', '.join(registry.names())}, got 'treshold_segmentation'; did you mean",
        "rules.1.parameters.threshold_suv: expected a number from 0.1 to 1000, got -1",
        "rules.1.parameters.colour: unknown",
        "rules.2.inputs.petz: expected one of pet, ct",
        "rules.2.inputs: expected pet, which threshold_segmentation needs, got petz",
        "rules.3.inputs: expected pet first",
        "rules.3.inputs.pet.kind: expected a condition that static fulfils",
        "rule 'e', test 'PSMA': expected yes, got",
    )
    for words in expected:
        assert words in done.err, words
    assert done.err.startswith(f"{len(expected)} faults in the configuration:")


def test_a_sound_file_is_said_to_be_sound(tracerd: Tracerd, config: Path) -> None:
    assert "is sound" in tracerd("check", "--config", config).out
    facts = tracerd("check", "--config", config, "--json").json()
    assert facts["rules"] == ["fdg"]
    assert facts["rules_sha256"] == load(config).rules_sha256()


def test_a_missing_file_is_a_configuration_fault(tracerd: Tracerd, tmp_path: Path) -> None:
    done = tracerd("status", "--config", tmp_path / "nowhere.yaml")
    assert done.status == 2
    assert "nowhere.yaml" in done.err


def test_without_a_database_commands_say_so_and_make_nothing(tracerd: Tracerd, config: Path, tmp_path: Path) -> None:
    for command in (("status",), ("jobs", "list"), ("jobs", "cancel", "1"), ("rules", "replay", "--rules", config)):
        done = tracerd(*command, "--config", config)
        assert done.status == 1
        assert "no database" in done.err
        assert "tracerd serve" in done.err
    assert not (tmp_path / "data").exists()


@pytest.fixture
def stored(config: Path, tmp_path: Path) -> make.Study:
    """A node that has received one study and holds its job in the queue; nobody runs it."""
    study = make.study(tmp_path / "study", seed=9, pet_shape=(20, 24, 24))
    with open_node(load(config)) as node:
        pipeline.recover(node)
        for number, path in enumerate(study.pet):
            (node.spool.inbox / f"{1_700_000_000_000_000_000 + number}-a1-{number}.dcm").write_bytes(path.read_bytes())
        pipeline.receive_and_route(node, set(associations.marks(node.spool.ended)))
    return study


def test_orders_are_carried_out_without_a_daemon(tracerd: Tracerd, config: Path, stored: make.Study) -> None:
    (job,) = tracerd("jobs", "list", "--config", config, "--json").json()
    assert (job["state"], job["rule"]) == ("waiting", "fdg")
    refused = tracerd("jobs", "retry", job["id"], "--config", config)
    assert refused.status == 1
    assert "none of its deliveries failed" in refused.err
    assert tracerd("jobs", "cancel", job["id"], "--config", config, "--json").json()["state"] == "cancelled"
    shown = tracerd("jobs", "show", job["id"], "--config", config, "--json").json()
    assert shown["history"][-1]["to"] == "cancelled"
    assert shown["history"][-1]["reason"] == "on request"
    (again,) = tracerd("jobs", "list", "--state", "cancelled", "--config", config, "--json").json()
    assert again["id"] == job["id"]
    new = tracerd("jobs", "rerun", job["id"], "--config", config, "--json").json()
    assert (new["state"], new["rerun"]) == ("waiting", 1)
    newest = tracerd("jobs", "list", "--limit", 1, "--config", config, "--json").json()
    everything = tracerd("jobs", "list", "--all", "--limit", 1, "--config", config, "--json").json()
    assert ([one["id"] for one in newest], [one["id"] for one in everything]) == ([2], [2, 1])
    assert tracerd("jobs", "show", 99, "--config", config).status == 1
    assert tracerd("conflicts", "accept", 1, "--because", "x", "--config", config).status == 1
    assert tracerd("conflicts", "list", "--config", config, "--json").json() == []


def test_status_without_a_daemon(tracerd: Tracerd, config: Path, stored: make.Study) -> None:
    status = tracerd("status", "--config", config, "--json").json()
    assert status["running"] is False
    assert status["instances"] == {"current": 20}
    assert "not running" in tracerd("status", "--config", config).out


def test_a_silent_owner_of_the_data_folder_stops_orders_but_not_questions(
    tracerd: Tracerd, config: Path, stored: make.Study
) -> None:
    with open_node(load(config)):
        done = tracerd("jobs", "cancel", 1, "--config", config)
        assert done.status == 1
        assert "starting or stopping" in done.err
        assert len(tracerd("jobs", "list", "--config", config, "--json").json()) == 1
        served = tracerd("serve", "--config", config)
        assert served.status == 1
        assert "another tracerd" in served.err


def test_explain_shows_each_clause_for_stored_studies_and_for_files(
    tracerd: Tracerd, config: Path, stored: make.Study
) -> None:
    for study in (stored.study_uid, stored.pet[0].parent):
        explained = tracerd("rules", "explain", study, "--config", config, "--json").json()
        (decision,) = explained["decisions"]
        assert decision["verdict"] == "yes"
        answers = {clause["clause"]: clause["answer"] for clause in decision["clauses"]}
        assert answers["pet.tracer = FDG"] == "yes"
    assert "pet.tracer = FDG" in tracerd("rules", "explain", stored.study_uid, "--config", config).out
    assert tracerd("rules", "explain", "1.2.3", "--config", config).status == 1


def test_replay_names_the_studies_other_rules_would_treat_differently(
    tracerd: Tracerd, config: Path, tmp_path: Path, stored: make.Study
) -> None:
    assert tracerd("rules", "replay", "--rules", config, "--config", config, "--json").json() == []
    other = tmp_path / "psma.yaml"
    other.write_text(json.dumps([{**RULE, "when": {"tracer": "PSMA-11"}}]))
    (change,) = tracerd("rules", "replay", "--rules", other, "--config", config, "--json").json()
    assert (change["study"], change["rule"], change["after"]) == (1, "fdg", "no")
    assert change["before"].startswith("yes")
    other.write_text(json.dumps([{**RULE, "engine": "none"}]))
    assert tracerd("rules", "replay", "--rules", other, "--config", config).status == 2


def test_inspect_says_what_each_series_is(tracerd: Tracerd, tmp_path: Path) -> None:
    study = make.study(tmp_path / "study", seed=3, pet_shape=(20, 24, 24), ct_shape=(20, 32, 32))
    found = tracerd("inspect", tmp_path / "study", "--json").json()["series"]
    pet = next(series for series in found if series["modality"] == "PT")
    assert (pet["tracer"], pet["kind"], pet["complete"], pet["shape"]) == ("FDG", "static", True, [20, 24, 24])
    assert pet["suv"]["status"] == "ok"
    assert pet["suv"]["max"] == pytest.approx(float(study.suv.max()), rel=1e-3)
    text = tracerd("inspect", tmp_path / "study").out
    assert "FDG F-18" in text
    assert "20 × 32 × 32" in text
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tracerd("inspect", empty).status == 1


def test_run_writes_dicom_and_says_what_it_found(tracerd: Tracerd, tmp_path: Path) -> None:
    make.study(tmp_path / "study", seed=3, pet_shape=(40, 48, 48), ct_shape=(40, 64, 64))
    command = ("run", "threshold_segmentation", tmp_path / "study", "--out", tmp_path / "out")
    document = tracerd(*command, "--json").json()
    assert document["engine"] == "threshold_segmentation"
    assert document["weights_sha256"] is None
    assert [output["kind"] for output in document["outputs"]] == ["seg", "sr"]
    assert all(Path(output["path"]).is_file() for output in document["outputs"])
    assert document["findings"]["lesions"]
    assert "physiological" in document["warnings"][0].lower()
    again = tracerd(*command)
    assert again.status == 1
    assert "without results" in again.err


def test_run_refuses_with_the_reason_and_leaves_standard_output_empty(tracerd: Tracerd, tmp_path: Path) -> None:
    make.study(tmp_path / "light", seed=3, pet_shape=(20, 24, 24), omit=["PatientWeight"])
    done = tracerd("run", "threshold_segmentation", tmp_path / "light", "--out", tmp_path / "out", "--json")
    assert (done.status, done.out) == (1, "")
    assert "Patient's Weight (0010,1030)" in done.err
    make.study(tmp_path / "two" / "a", seed=4, pet_shape=(20, 24, 24))
    make.study(tmp_path / "two" / "b", seed=5, pet_shape=(20, 24, 24))
    done = tracerd("run", "threshold_segmentation", tmp_path / "two", "--out", tmp_path / "out")
    assert done.status == 1
    assert "expected one PT series, got 2" in done.err
    done = tracerd("run", "treshold_segmentation", tmp_path / "two", "--out", tmp_path / "out")
    assert done.status == 1
    assert "did you mean threshold_segmentation" in done.err


def test_run_takes_parameters_weights_and_a_device(tracerd: Tracerd, tmp_path: Path) -> None:
    make.study(tmp_path / "study", seed=3, pet_shape=(40, 48, 48), ct_shape=(40, 64, 64))

    def lesion_volume(threshold: float) -> float:
        out = tmp_path / f"out-{threshold}"
        chosen = ("--parameter", "method=fixed", "--parameter", f"threshold_suv={threshold}")
        done = tracerd("run", "threshold_segmentation", tmp_path / "study", "--out", out, *chosen, "--json")
        return float(sum(lesion["volume_ml"] for lesion in done.json()["findings"]["lesions"]))

    assert lesion_volume(2.0) > lesion_volume(4.0) > 0.0
    for bad, words in (("threshold_suv", "expected NAME=VALUE"), ("threshold_suv=[", "parameter threshold_suv")):
        done = tracerd("run", "threshold_segmentation", tmp_path / "study", "--out", tmp_path / "b", "--parameter", bad)
        assert (done.status, words in done.err) == (1, True), done.err
    done = tracerd(
        "run", "threshold_segmentation", tmp_path / "study", "--out", tmp_path / "b", "--parameter", "size=3"
    )
    assert "size: unknown" in done.err
    if not torch.cuda.is_available():
        done = tracerd("run", "fdg_segmentation", tmp_path / "study", "--out", tmp_path / "c", "--device", "cuda")
        assert done.status == 1
        assert "torch finds no GPU" in done.err and "--device cpu" in done.err
    missing = tmp_path / "none.safetensors"
    done = tracerd("run", "fdg_segmentation", tmp_path / "study", "--out", tmp_path / "c", "--weights", missing)
    assert "expected the card of none.safetensors" in done.err


def test_send_accounts_for_every_file(tracerd: Tracerd, tmp_path: Path) -> None:
    study = make.study(tmp_path / "study", seed=3, pet_shape=(6, 24, 24))
    (tmp_path / "study" / "notes.txt").write_text("no DICOM")
    with StoreScp(tmp_path / "pacs") as pacs:
        target = ("--to", f"127.0.0.1:{pacs.port}", "--aet", "STORESCP")
        sent = tracerd("send", tmp_path / "study", *target, "--json").json()
        assert (sent["sent"], sent["failed"], sent["skipped"]) == (6, 0, 1)
        assert len(pacs.files()) == len(study.pet)
    done = tracerd("send", tmp_path / "study", *target)
    assert done.status == 1
    assert "no connection" in done.err
    assert tracerd("send", tmp_path / "nowhere", *target).status == 1


def test_doctor_finds_what_is_in_the_way(tracerd: Tracerd, tmp_path: Path, config: Path) -> None:
    verdicts = {one["what"]: one["verdict"] for one in tracerd("doctor", "--config", config, "--json").json()}
    assert verdicts["Python"] == verdicts["one file system"] == verdicts["configuration"] == "ok"
    with StoreScp(tmp_path / "pacs") as pacs:
        taken = write(
            tmp_path / "taken.yaml",
            tmp_path,
            listener={"doors": [{"host": "127.0.0.1", "port": pacs.port}]},
            destinations={"pacs": {"host": "127.0.0.1", "port": pacs.port, "ae_title": "STORESCP"}},
        )
        done = tracerd("doctor", "--config", taken, "--json")
    found = {one["what"]: one for one in done.json()}
    assert done.status == 1
    assert found[f"door 127.0.0.1:{pacs.port}"]["verdict"] == "fail"
    assert "answers C-ECHO" in found["destination pacs"]["words"]
    bad = write(tmp_path / "bad.yaml", tmp_path, timezone="nowhere")
    assert tracerd("doctor", "--config", bad).status == 1


def test_the_demo_names_the_missing_program(tracerd: Tracerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = tracerd("demo", "--out", tmp_path / "out")
    assert done.status == 1
    assert "apt-get install --no-install-recommends dcmtk" in done.err


def test_words_of_peers_cannot_steer_a_terminal() -> None:
    assert plain("ok\x1b[31m\r\n\x9b2J") == "ok·[31m···2J"


def test_an_unknown_engine_is_told_beside_faults_elsewhere(tracerd: Tracerd, config: Path) -> None:
    document = json.loads(config.read_text())
    document["asemble"] = {}
    document["rules"][0]["engine"] = "treshold_segmentation"
    config.write_text(json.dumps(document))
    done = tracerd("check", "--config", config)
    assert done.status == 2
    assert "did you mean 'threshold_segmentation'" in done.err
    assert "did you mean 'assemble'" in done.err
