"""Train the weights that are shipped: pre-training and fine-tuning on fdg-train.

    python -m benchmarks.accuracy.fdg_segmentation.weights [--preset tiny] [--cohorts build/cohorts] [--seed 1]

goes on where it was broken off. Writes engines/fdg_segmentation/weights/PRESET.safetensors and its card, and losses and
provenance into training.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.fdg_segmentation.data import COHORTS, prepared
from benchmarks.machine import command, provenance
from engines import models
from engines.fdg_segmentation import infer
from engines.fdg_segmentation.train import PRESETS, Preset, finetune_on, pretrain_on
from engines.simulation.cohort import VERSION, cohort
from engines.training import Run

MODULE = "benchmarks.accuracy.fdg_segmentation.weights"
RUNS = Path("build/fdg_segmentation")
RECORD = Path(__file__).with_name("training.json")
"""Of the preset that is shipped; others are recorded beside their checkpoints."""
INTENDED_USE = "Research only: trained on simulated patients, not a medical device, not for clinical decisions."


def run_in(folder: Path, seed: int) -> Run:
    folder.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {folder.name}: {line}", flush=True)

    return Run(seed, folder, device="cuda" if torch.cuda.is_available() else "cpu", say=say, checkpoint_every=100)


def card(preset: Preset, studies: int, seed: int, where: dict[str, Any]) -> models.Card:
    """What must be known of the weights."""
    arguments = dict(preset.network.arguments) | {
        "spacing_mm": list(preset.spacing_mm),
        "patch": list(preset.drawing.patch),
    }
    return models.Card(
        engine=infer.FdgSegmentation.name,
        architecture=models.Architecture(preset.network.name, arguments),
        data=f"{studies} simulated FDG PET/CT studies (cohort fdg-train {VERSION}, {cohort('fdg-train').sha256[:16]})",
        commit=where["commit"] or "unknown",
        seed=seed,
        metrics={},
        intended_use=INTENDED_USE,
        created=datetime.now(UTC).replace(microsecond=0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the weights that are shipped.")
    parser.add_argument("--preset", default="tiny", choices=PRESETS)
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patients", type=int, default=None, help="only the first of fdg-train; default all")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    preset, folder = PRESETS[given.preset], RUNS / f"{given.preset}-seed{given.seed}"
    learn = prepared("fdg-train", preset.spacing_mm, given.cohorts, given.patients)
    folder.mkdir(parents=True, exist_ok=True)
    where = provenance(folder, packages=["torch", "monai", "numpy"])  # of the program that trains, now
    first = pretrain_on(learn, preset, run_in(folder / "pretrain", given.seed))
    second = finetune_on(learn, [], preset, run_in(folder / "finetune", given.seed), first.tensors)
    trained = {"pretrain": first, "finetune": second}
    path = infer.SHIPPED.with_name(f"{given.preset}.safetensors")
    path.parent.mkdir(exist_ok=True)
    digest = models.save(path, second.tensors, card(preset, len(learn), given.seed, where))
    history = {name: asdict(each.history) for name, each in trained.items()}
    record = {"command": command(MODULE, sys.argv[1:]), **where, "histories": history}
    kept = RECORD if path == infer.SHIPPED else folder / RECORD.name
    kept.write_text(json.dumps(record, indent=1) + "\n")
    print(path, digest)


if __name__ == "__main__":
    main()
