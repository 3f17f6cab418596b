"""Choose threshold of the probability, smallest lesion and least confidence on fdg-tune, once for all studies.

    python -m benchmarks.accuracy.fdg_segmentation.operating_point [--weights FILE] [--cohorts build/cohorts]

prints a table, writes operating_point.json beside this file and the best score into the weights' card. What is best
becomes the default of engines/fdg_segmentation/parameters.py by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.fdg_segmentation.data import COHORTS, cases
from benchmarks.machine import REPOSITORY, command, provenance
from engines import models
from engines.fdg_segmentation.infer import SHIPPED, confidence, loaded, probability, spacing_of, window_of
from engines.fdg_segmentation.parameters import DEFAULTS
from engines.fdg_segmentation.preprocessing import back_on_grid_of, prepared
from engines.lesions import components
from engines.metrics import dice, false_positive_ml
from engines.simulation.cohort import cohort

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "operating_point.json"
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST_ML = (0.0, 0.5, 1.0, 2.0)
CHOSEN = ("threshold", "min_volume_ml", "min_confidence")
CONFIDENCES = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose threshold and smallest lesion on fdg-tune.")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--studies", type=int, default=None)
    parser.add_argument("--mirroring", action="store_true")
    given = parser.parse_args()
    network, card = loaded(given.weights)
    rows: dict[tuple[float, float, float], list[tuple[float, float]]] = {}
    for case in cases("fdg-tune", given.cohorts, given.studies):
        assert case.truth is not None
        pet, truth = case.volumes["pet"], case.truth.array > 0
        seen = prepared(pet, case.volumes["ct"], spacing_of(card))
        chosen = {**DEFAULTS, "mirroring": given.mirroring}
        found = probability(network, seen, window_of(card), chosen, lambda: False)
        there = back_on_grid_of(pet, found, seen.affine, 0.0)
        for threshold in THRESHOLDS:
            regions = components(there > threshold, 18)
            sure = [confidence(region, there) for region in regions]
            for smallest, least in product(SMALLEST_ML, CONFIDENCES):
                mask = np.zeros(truth.shape, bool)
                for region, mean in zip(regions, sure, strict=True):
                    if region.voxels * pet.voxel_volume_ml >= smallest and mean >= least:
                        mask[region.box] |= region.mask
                score = dice(mask, truth), false_positive_ml(mask, truth, pet.voxel_volume_ml)
                rows.setdefault((threshold, smallest, least), []).append(score)
    table: list[dict[str, Any]] = []
    for key, scores in rows.items():
        mean, false = float(np.nanmean([each[0] for each in scores])), float(np.mean([each[1] for each in scores]))
        table.append(dict(zip(CHOSEN, key, strict=True)) | {"mean_dice": mean, "mean_fpv_ml": false})
        said = ", ".join(f"{name} {value:g}" for name, value in zip(CHOSEN, key, strict=True))
        print(f"{said}: Dice {mean:.3f}, FPV {false:.1f} mL")
    best = max(table, key=lambda row: row["mean_dice"])
    print("best:", best)
    result = {
        "benchmark": "fdg_segmentation_operating_point",
        "command": command("benchmarks.accuracy.fdg_segmentation.operating_point", sys.argv[1:]),
        "cohort": {"name": "fdg-tune", "sha256": cohort("fdg-tune").sha256},
        "weights_sha256": card.sha256,
        **provenance(REPOSITORY, packages=["torch", "numpy"]),
        "best": best,
        "all": table,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    weights = models.load(given.weights)
    studies = len(next(iter(rows.values())))
    metrics = {"fdg-tune": {"studies": studies, **best}}
    models.save(given.weights, weights.tensors, replace(card, metrics=metrics))


if __name__ == "__main__":
    main()
