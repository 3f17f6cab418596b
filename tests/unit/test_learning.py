"""`tracerd train` and `tracerd evaluate` on small cases: what comes out is used, what is broken off goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from config.load import load
from daemon import nifti
from daemon.opening import open_node
from engines import models
from engines.fdg_segmentation import infer, train
from engines.fdg_segmentation.patches import Drawing
from engines.models import Architecture
from engines.training import Schedule
from tests import make
from tests.unit.test_cli import ROOT, Tracerd, config, tracerd, write  # noqa: F401 - fixtures

SMALL = {"widths": [4, 8], "encoder_convolutions": 1, "decoder_convolutions": 1}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A preset of seconds beside the others."""
    preset = replace(
        train.PRESETS["ablation"],
        network=Architecture("plain_conv_unet", SMALL),
        spacing_mm=(20.0, 20.0, 20.0),
        drawing=Drawing((8, 8, 8), lesions=0.5),
        pretraining_drawing=None,
        block=(2, 2, 2),
        pretraining=Schedule(3, 1e-3),
        finetuning=Schedule(4, 1e-3),
        validate_every=2,
    )
    monkeypatch.setattr(train, "PRESETS", MappingProxyType({**train.PRESETS, "quick": preset}))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients as NIfTI, and one that nobody drew on would not be a pair."""
    for seed in (1, 2):
        study = make.study(tmp_path / "dicom" / str(seed), seed=seed, pet_shape=(30, 32, 32), ct_shape=(30, 32, 32))
        assert study.acquisition.ct is not None
        place = tmp_path / "cases" / str(seed)
        place.mkdir(parents=True)
        (place / "pet.nii.gz").write_bytes(nifti.encoded(study.suv, study.affine, "PET"))
        ct = study.acquisition.ct
        (place / "ct.nii.gz").write_bytes(nifti.encoded(ct.array, ct.affine, "CT"))
        (place / "truth.nii.gz").write_bytes(nifti.encoded(study.truth, study.affine, "truth"))
    return tmp_path / "cases"


def test_what_is_trained_is_evaluated_and_taken_in(
    tracerd: Tracerd,  # noqa: F811
    config: Path,  # noqa: F811
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, out = f"nifti:{folder}", tmp_path / "out"
    order = ("train", "fdg_segmentation", "--cases", source, "--tune", f"{source}#1", "--preset", "quick", "--out", out)
    done = tracerd(*order, "--json")
    assert done.status == 0, done.err
    assert "pretrain: step 3 of 3" in done.err
    assert "finetune: step 4 of 4" in done.err
    told = done.json()
    weights = models.load(out / "weights.safetensors")
    assert told["sha256"] == weights.sha256
    assert (told["learned_from"], told["chosen_by"]) == (2, 1)
    assert weights.card.metrics["tune_dice"]["n"] == 1
    assert weights.card.seed == 1
    assert weights.card.architecture.arguments["patch"] == [8, 8, 8]
    assert str(tmp_path) not in models.card_text(weights.card)

    refused = tracerd(*order)
    assert refused.status == 1
    assert "--resume" in refused.err
    again = tracerd(*order, "--resume", "--json").json()
    assert again["sha256"] == weights.sha256
    other = tracerd(*order, "--resume", "--seed", 2)
    assert other.status == 1
    assert "another seed" in other.err

    scored = tracerd(
        "evaluate", "fdg_segmentation", "--cases", source, "--weights", out / "weights.safetensors", "--json"
    )
    assert scored.status == 0, scored.err
    document = scored.json()
    assert document["weights_sha256"] == weights.sha256
    assert document["summary"]["studies"] == len(document["studies"]) == 2
    assert [study["group"] for study in document["studies"]] == ["1", "2"]
    text = tracerd("evaluate", "fdg_segmentation", "--cases", source, "--weights", out / "weights.safetensors").out
    assert "false_positive_ml" in text

    assert tracerd("models", "list", "--config", config).status == 1  # there is no node yet
    monkeypatch.setattr(infer, "SHIPPED", out / "weights.safetensors")
    with open_node(load(config)):
        pass
    done = tracerd("models", "import", out / "weights.safetensors", "--config", config, "--json")
    assert done.status == 0, done.err
    taken = done.json()
    assert (taken["sha256"], taken["state"]) == (weights.sha256, "candidate")
    assert "candidate" in tracerd("models", "list", "--config", config).out
    assert "nifti source" in tracerd("models", "show", weights.sha256[:8], "--config", config).out
    promote = ("models", "promote", weights.sha256[:8], "--because", "it is better", "--config", config)
    assert "shadow" in tracerd(*promote).out
    assert "champion" in tracerd(*promote).out
    back = tracerd("models", "rollback", "fdg_segmentation", "--because", "it was not", "--config", config)
    assert weights.sha256[:12] in back.out
    assert tracerd("models", "show", weights.sha256[:8], "--config", config, "--json").json()["state"] == "retired"


def test_weights_to_start_from_and_none(tracerd: Tracerd, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    source = f"nifti:{folder}"
    order = ("train", "fdg_segmentation", "--cases", source, "--preset", "quick", "--json")
    scratch = tracerd(*order, "--out", tmp_path / "a", "--scratch")
    assert scratch.status == 0, scratch.err
    assert "pretrain" not in scratch.err
    assert scratch.json()["metrics"] == {}
    started = tracerd(*order, "--out", tmp_path / "b", "--start", tmp_path / "a" / "weights.safetensors")
    assert started.status == 0, started.err
    assert started.json()["start"] == scratch.json()["sha256"]
    assert started.json()["sha256"] != scratch.json()["sha256"]
    assert tracerd(*order, "--out", tmp_path / "c", "--scratch", "--start", tmp_path / "x.safetensors").status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "fdg_segmentation", "--cases", "cohort:fdg-test"), "for_evaluation"),
        (("train", "fdg_segmentation", "--cases", "cohort:fdg-train", "--tune", "cohort:fdg-shift"), "for_evaluation"),
        (("train", "fdg_segmentation", "--cases", "nifti:/nowhere"), "expected a folder"),
        (("train", "threshold_segmentation", "--cases", "cohort:fdg-train"), "one that learns"),
        (("train", "no_such_engine", "--cases", "cohort:fdg-train"), "expected one of"),
        (("train", "fdg_segmentation", "--cases", "cohort:fdg-train", "--preset", "huge"), "--preset"),
        (("evaluate", "psma_detection", "--cases", "cohort:psma-test"), "not in this version"),
        (("evaluate", "threshold_segmentation", "--cases", "cohort:nothing"), "fdg-train"),
    ],
)
def test_what_cannot_be_learned(
    tracerd: Tracerd,  # noqa: F811
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    out = ("--out", tmp_path / "out") if arguments[0] == "train" else ()
    done = tracerd(*arguments, *out)
    assert done.status == 1
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_classical_engine_is_evaluated_too(tracerd: Tracerd, folder: Path) -> None:  # noqa: F811
    done = tracerd("evaluate", "threshold_segmentation", "--cases", f"nifti:{folder}", "--json")
    assert done.status == 0, done.err
    assert done.json()["weights_sha256"] is None
    assert done.json()["summary"]["dice"]["n"] == 2


def test_a_start_is_not_evaluated(tracerd: Tracerd, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    order = (
        "train",
        "fdg_segmentation",
        "--cases",
        f"nifti:{folder}",
        "--preset",
        "quick",
        "--scratch",
        "--out",
        tmp_path / "a",
    )
    assert tracerd(*order).status == 0
    kept = models.load(tmp_path / "a" / "weights.safetensors")
    start = tmp_path / "start.safetensors"
    models.save(start, kept.tensors, replace(kept.card, start_only=True))
    done = tracerd("evaluate", "fdg_segmentation", "--cases", f"nifti:{folder}", "--weights", start)
    assert done.status == 1
    assert "start for training" in done.err


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_learned(folder: Path, tmp_path: Path) -> None:
    """The real command in a process of its own, broken off in pre-training; it stops with words and a checkpoint."""
    command = [sys.executable, "-m", "daemon", "train", "fdg_segmentation", "--preset", "ablation"]
    command += ["--cases", f"nifti:{folder}", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pretrain: step" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=120) == 1
    assert "Traceback" not in rest
    assert "asked to stop before step" in rest
    assert (tmp_path / "out" / "pretrain" / "checkpoint.safetensors").is_file()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["preset"] == "ablation"
