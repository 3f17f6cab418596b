"""Fine-tuning on few real patients: 20 studies of soft-tissue sarcoma in five folds, with 4, 8 and 16 of them.

    python -m benchmarks.accuracy.fdg_segmentation.sarcoma_folds

from the shipped weights, from their pre-training alone, and from scratch. Steps and learning rate are fixed beforehand;
the last weights count. Writes sarcoma_folds.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.accuracy.fdg_segmentation.accuracy import score_of
from benchmarks.accuracy.fdg_segmentation.weights import RUNS
from benchmarks.accuracy.threshold_sarcoma import archives, cases
from benchmarks.machine import REPOSITORY, provenance, sha256_of_files
from engines import models
from engines.contract import Case
from engines.evaluation import Score
from engines.fdg_segmentation.evaluate import SEED, Report
from engines.fdg_segmentation.infer import SHIPPED, FdgSegmentation
from engines.fdg_segmentation.preprocessing import Example, example
from engines.fdg_segmentation.train import PRESETS, Preset, Tensors, finetune_on
from engines.training import Run, Schedule

RESULT = Path(__file__).with_name("sarcoma_folds.json")
FOLDS, BUDGETS = 5, (4, 8, 16)
SHIPPED_START = "shipped weights"
NEUTRAL = {"threshold": 0.5, "min_confidence": 0.0}
"""The operating point of the shipped weights is not that of a network which learned for 200 steps."""
PATCH = (32, 32, 32)
"""The images are cut to the tumour: few are larger."""


def preset() -> Preset:
    tiny = PRESETS["tiny"]
    drawing = replace(tiny.drawing, patch=PATCH, lesions=0.5, hot=0.0, partial_view=0.0)
    return replace(tiny, drawing=drawing, finetuning=Schedule(200, 1e-3, warm_up_steps=20))


def starts() -> dict[str, Tensors | None]:
    """Weights to begin with; those of pre-training lie where `make train-fdg` left them."""
    kept = load_file(RUNS / "tiny-seed1" / "pretrain" / "checkpoint.safetensors")
    prefix = "model.network."
    pretrained = {name.removeprefix(prefix): each for name, each in kept.items() if name.startswith(prefix)}
    return {SHIPPED_START: models.load(SHIPPED).tensors, "pre-training": pretrained, "scratch": None}


@cache
def studies() -> tuple[list[Case], list[Example]]:
    """The 20 studies, and as the network learns from them; once a process."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = list(cases(archives(), Path(folder)))
    return loaded, [example(case, preset().spacing_mm) for case in loaded]


def fold(number: int, start: str, budget: int) -> list[Score]:
    """Scores of the fold's own studies by what was learned from others."""
    loaded, made = studies()
    held_out = range(number, len(loaded), FOLDS)
    others = [index for index in range(len(loaded)) if index not in held_out]
    chosen = np.random.default_rng(number).permutation(others)[:budget]
    learn = [made[index] for index in chosen]
    trained = finetune_on(learn, [], preset(), Run(number), starts()[start], keep_head=start == SHIPPED_START)
    card = models.card_of(SHIPPED)
    arguments = dict(card.architecture.arguments) | {"patch": list(PATCH)}
    architecture = models.Architecture(card.architecture.name, arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuned.safetensors"
        new = replace(card, architecture=architecture, data=f"{budget} sarcoma studies", created=datetime.now(UTC))
        models.save(path, trained.tensors, new)
        tool = FdgSegmentation(path)
        return [score_of(tool, loaded[index], NEUTRAL)[0] for index in held_out]


def row(start: str, budget: int) -> dict[str, Any]:
    """All folds of one beginning and one number of studies."""
    scores = [score for number in range(FOLDS) for score in fold(number, start, budget)]
    report = Report(tuple(scores)).summary()
    return {"start": start, "cases": budget, "summary": report, "studies": [asdict(each) for each in scores]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning on few real patients.")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    given = parser.parse_args()
    where = provenance(REPOSITORY, packages=["torch", "monai", "numpy"])
    wanted = [(start, budget) for budget in BUDGETS[::-1] for start in starts()]
    one_thread = partial(torch.set_num_threads, 1)
    with ProcessPoolExecutor(given.processes, get_context("spawn"), one_thread) as pool:
        rows = []
        for each in pool.map(row, *zip(*wanted, strict=True)):
            rows.append(each)
            print(each["cases"], each["start"], each["summary"]["dice"], flush=True)
    result = {
        "benchmark": "fdg_segmentation_sarcoma_folds",
        "data": {"sha256": sha256_of_files(archives()), "folds": FOLDS},
        "weights_sha256": models.card_of(SHIPPED).sha256,
        "parameters": NEUTRAL,
        "schedule": asdict(preset().finetuning),
        "command": "python -m benchmarks.accuracy.fdg_segmentation.sarcoma_folds",
        "bootstrap": {"seed": SEED, "unit": "patient"},
        **where,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
