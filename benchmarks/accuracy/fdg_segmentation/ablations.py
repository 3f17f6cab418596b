"""The paper's claims side by side: small runs on the same studies, one JSON each; goes on where it was broken off.

    python -m benchmarks.accuracy.fdg_segmentation.ablations [--seeds 3] [--cohorts build/cohorts]

Every run learns on fdg-train with the preset `ablation` and is scored on fdg-tune with its last weights: nothing is
chosen by that score. Test and shift cohorts are not touched.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.fdg_segmentation.data import COHORTS, prepared
from benchmarks.accuracy.fdg_segmentation.weights import RUNS, run_in
from benchmarks.machine import REPOSITORY, command, provenance
from engines import models
from engines.contract import FloatArray
from engines.fdg_segmentation import masks, train
from engines.fdg_segmentation.patches import Patches
from engines.fdg_segmentation.preprocessing import Example
from engines.fdg_segmentation.train import PRESETS, Preset
from engines.fdg_segmentation.windows import predicted
from engines.lesions import Mask
from engines.metrics import dice
from engines.simulation.cohort import cohort

RESULTS = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "ablations"
BASE = PRESETS["ablation"]
BRANCHES = dict(BASE.network.arguments) | {"widths": [6, 12, 24, 48]}
"""Two of them have about as many weights as the one network of early fusion."""
PRESETS_OF: dict[str, Preset] = {
    "joint": BASE,
    "token": replace(BASE, token=True),
    "masked only": replace(BASE, visible_weight=0.0),
    "late": replace(BASE, network=models.Architecture("dual_branch_unet", BRANCHES)),
    "apart": replace(BASE, network=models.Architecture("dual_branch_unet", BRANCHES | {"apart": True})),
}
SHOTS = 5
SPARE = 1000
"""Added to the seed that draws labelled studies, so that it is not the one that draws patches."""


@dataclass(frozen=True)
class Trial:
    """One row: how it was pre-trained ("" = not at all), with which share of the labels, and what learned from them.

    as_long : fine-tuning has the steps of pre-training on top, for what was not pre-trained
    """

    pretraining: str
    labels: float
    probe: bool = False
    as_long: bool = False

    @property
    def name(self) -> str:
        budget = f"{SHOTS} shots, linear probe" if self.probe else f"{self.labels:.0%} of labels"
        return f"{self.pretraining or 'scratch'}{' as long' if self.as_long else ''}, {budget}"

    @property
    def preset(self) -> Preset:
        preset = PRESETS_OF[self.pretraining or "joint"]
        steps = preset.finetuning.steps + (preset.pretraining.steps if self.as_long else 0)
        return replace(preset, finetuning=replace(preset.finetuning, steps=steps))


TRIALS = (
    Trial("joint", 0.1),
    Trial("", 1.0),
    Trial("", 0.1),
    Trial("joint", 0.0, probe=True),
    Trial("apart", 0.0, probe=True),
    Trial("", 0.0, probe=True),
    Trial("token", 0.1),
    Trial("late", 0.1),
    Trial("joint", 1.0),
    Trial("masked only", 0.1),
    Trial("", 1.0, as_long=True),
    Trial("", 0.1, as_long=True),
    Trial("joint", 0.3),
    Trial("", 0.3),
)


@dataclass(frozen=True)
class Studies:
    learn: Sequence[Example]
    tune: Sequence[Example]


def labelled(studies: Studies, trial: Trial, seed: int) -> list[Example]:
    """The studies whose labels a run may see, of those with a lesion where there are only five."""
    order = np.random.default_rng(SPARE + seed).permutation(len(studies.learn))
    pool = [studies.learn[index] for index in order]
    if trial.probe:
        return [each for each in pool if each.truth is not None and each.truth.any()][:SHOTS]
    return pool[: max(1, round(trial.labels * len(pool)))]


def performed(trial: Trial, seed: int, studies: Studies) -> dict[str, Any]:
    folder = RUNS / "ablations" / f"seed{seed}"
    start, borders, histories = None, None, {}
    if trial.pretraining:
        preset = PRESETS_OF[trial.pretraining]
        first = train.pretrain_on(studies.learn, preset, run_in(folder / f"pretrain-{trial.pretraining}", seed))
        start, histories["pretraining"] = first.tensors, asdict(first.history)
        borders = edge_artefact(first.tensors, preset, studies.tune)
    labels = labelled(studies, trial, seed)
    learn: Callable[..., train.Trained] = train.probe_on if trial.probe else _finetuned
    second = learn(labels, trial.preset, run_in(folder / trial.name, seed), start)
    histories["fine-tuning"] = asdict(second.history)
    network = train.started_with(second.tensors, trial.preset)
    scores = {
        each.group: _scores(network, each, each.truth, trial.preset)
        for each in studies.tune
        if each.truth is not None and each.truth.any()
    }
    return {
        "labelled": [each.group for each in labels],
        "dice": {group: score for group, (score, _) in scores.items()},
        "mean_dice": float(np.mean([score for score, _ in scores.values()])),
        "average_precision": {group: precision for group, (_, precision) in scores.items()},
        "step_at_borders": borders,
        "histories": histories,
    }


def _finetuned(labels: Sequence[Example], preset: Preset, run: Any, start: Any) -> train.Trained:
    return train.finetune_on(labels, [], preset, run, start)


def _scores(network: torch.nn.Module, each: Example, truth: Mask, preset: Preset) -> tuple[float, float]:
    """Dice at a probability of one half, and average precision over voxels, which needs no threshold."""
    image = each.image.astype(np.float32)
    found = predicted(network.eval(), image, preset.tiling(0.25), lambda: False, worth=image[0] > 0.0)
    return dice(found > 0.5, truth), average_precision(found, truth)


def average_precision(probability: FloatArray, truth: Mask) -> float:
    """Mean precision at the ranks of the true voxels (Manning 2008, Introduction to Information Retrieval, 8.4)."""
    hits = truth.ravel()[np.argsort(-probability.ravel(), kind="stable")]
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def edge_artefact(tensors: dict[str, torch.Tensor], preset: Preset, tune: Sequence[Example]) -> float:
    """Mean of `masks.step_at_borders` over patches of the tune cohort, the same for every pre-training."""
    autoencoder = train.MaskedAutoencoder(train.network_of(preset, 0), token=preset.token).eval()
    named = {name if name == "token" else f"network.{name}": tensor for name, tensor in tensors.items()}
    autoencoder.load_state_dict(named)
    rng, found = np.random.default_rng(7), []
    patches = Patches(tune, replace(BASE.pretraining_drawing, partial_view=0.0, zoom=0.0))
    for number in range(24):
        image = patches.batch(1, rng)["image"]
        mask = masks.block_mask(image.shape, preset.block, 0.5, torch.Generator().manual_seed(number))
        with torch.inference_mode():
            found.append(masks.step_at_borders(autoencoder(image, mask), image, mask))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description="The paper's claims side by side.")
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patients", type=int, default=None, help="only the first of fdg-train; default all")
    parser.add_argument("--tune", type=int, default=None, help="only the first of fdg-tune; default all")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    RESULTS.mkdir(exist_ok=True)
    studies = Studies(
        prepared("fdg-train", BASE.spacing_mm, given.cohorts, given.patients),
        prepared("fdg-tune", BASE.spacing_mm, given.cohorts, given.tune),
    )
    data = {
        name: {"sha256": cohort(name).sha256, "studies": len(each)}
        for name, each in (("fdg-train", studies.learn), ("fdg-tune", studies.tune))
    }
    where = provenance(REPOSITORY, packages=["torch", "monai", "numpy"])
    for seed in range(1, given.seeds + 1):
        for trial in TRIALS:
            path = RESULTS / f"{trial.name.replace(' ', '_').replace(',', '').replace('%', 'pc')}-seed{seed}.json"
            if path.exists():
                continue
            result = {
                "trial": asdict(trial) | {"name": trial.name},
                "seed": seed,
                "command": command("benchmarks.accuracy.fdg_segmentation.ablations", sys.argv[1:]),
                "data": data,
                **where,
                **performed(trial, seed, studies),
            }
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            print(f"{trial.name}, seed {seed}: Dice {result['mean_dice']:.3f}", flush=True)


if __name__ == "__main__":
    main()
