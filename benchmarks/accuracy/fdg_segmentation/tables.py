"""The tables of engines/fdg_segmentation/README.md, from the result files beside this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.readme import markdown
from engines.metrics import bootstrap_interval

OURS = "fdg_segmentation"
COHORTS = {"fdg-test": "test, the same hospital as in training", "fdg-shift": "shift, a second hospital"}


def accuracy(results: Sequence[Mapping[str, Any]]) -> str:
    """Every method on every cohort that nothing was chosen by."""
    heads = ("cohort", "method", "Dice, positives", "HD95", "FPV, all", "FPV, negatives", "FNV", "sensitivity", "F1")
    rows = []
    for name, what in COHORTS.items():
        cohort = results[0]["cohorts"].get(name)
        for method, entry in (cohort or {"methods": {}})["methods"].items():
            rows.append((f"{what} (n = {entry['summary']['studies']})", method, *_accuracy(entry["summary"])))
    return markdown(heads, rows)


def sarcoma(results: Sequence[Mapping[str, Any]]) -> str:
    """Every method on the real studies."""
    heads = ("method", "processed", "Dice", "HD95", "false positive", "MTV error, median")
    rows = []
    for method, entry in results[0]["methods"].items():
        row = entry["summary"]
        refused = sum(row["refused"].values())
        if refused == row["studies"]:
            codes = ", ".join(f"{count} × `{code}`" for code, count in row["refused"].items())
            rows.append((method, f"0 of {refused}", f"refused: {codes}", "", "", ""))
            continue
        processed = f"{row['studies'] - refused} of {row['studies']}"
        error = f"{row['mtv_error_relative']['median']:+.0%}"
        hd95 = f"{row['hausdorff_95_mm'].get('median', float('nan')):.0f} mm"
        false = f"{row['false_positive_ml']['median']:.1f} mL"
        rows.append((method, processed, _ranged(row["dice"], 2), hd95, false, error))
    return markdown(heads, rows)


def folds(results: Sequence[Mapping[str, Any]]) -> str:
    """Fine-tuning on few real studies, scored on others."""
    heads = ("begun with", "fine-tuned on", "Dice", "false positive, median", "MTV error, median")
    rows = []
    for row in sorted(results[0]["rows"], key=lambda row: (row["start"], row["cases"])):
        summary = row["summary"]
        false, error = summary["false_positive_ml"]["median"], summary["mtv_error_relative"]["median"]
        dice = _ranged(summary["dice"], 2)
        rows.append((row["start"], f"{row['cases']} studies", dice, f"{false:.1f} mL", f"{error:+.0%}"))
    return markdown(heads, rows)


CLAIMS = (
    ("pre-training and 10 % of the labels against all of them from scratch", "joint, 10%", "scratch, 100%"),
    ("the same, from scratch for as many steps", "joint, 10%", "scratch as long, 100%"),
    ("pre-training against none, 10 % of the labels, as many steps", "joint, 10%", "scratch as long, 10%"),
    ("linear probe: joint against modality by modality", "joint, 5 shots", "apart, 5 shots"),
    ("hidden voxels: the mean against a learned token", "joint, 10%", "token, 10%"),
    ("loss: visible voxels too against hidden ones alone", "joint, 10%", "masked only, 10%"),
    ("fusion: early against late", "joint, 10%", "late, 10%"),
)
"""In words, and how the names of the two rows begin."""


def ablations(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean Dice of each kind of run over its seeds; the interval is of studies, of which every seed gives one value.

    Below, pairs of rows study by study.
    """
    heads = (
        "pre-training",
        "labels",
        "seeds",
        "mean Dice",
        "by seed",
        "step at mask borders",
        "average precision by seed",
    )
    rows = []
    names = sorted({each["trial"]["name"] for each in results}, key=lambda name: _order(results, name))
    dice = {name: _by_study([each for each in results if each["trial"]["name"] == name]) for name in names}
    for name in names:
        runs = sorted((each for each in results if each["trial"]["name"] == name), key=lambda each: each["seed"])
        pretraining, labels = name.split(", ", 1)
        steps = [each["step_at_borders"] for each in runs if each["step_at_borders"] is not None]
        border = f"{np.mean(steps):.2f}" if steps else ""
        each_seed = ", ".join(f"{each['mean_dice']:.3f}" for each in runs)
        ranked = [each["average_precision"].values() for each in runs if "average_precision" in each]
        precision = ", ".join(f"{np.mean(list(each)):.3f}" for each in ranked)
        rows.append((pretraining, labels, str(len(runs)), _interval(dice[name], ".3f"), each_seed, border, precision))
    pairs = []
    for words, *beginnings in CLAIMS:
        one, other = (next(name for name in names if name.startswith(beginning)) for beginning in beginnings)
        pairs.append((words, _interval(dice[one] - dice[other], "+.3f")))
    return markdown(heads, rows) + "\n\n" + markdown(("compared, study by study", "difference of mean Dice"), pairs)


def _by_study(runs: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """Dice of each study, the mean over seeds."""
    studies = sorted({study for each in runs for study in each["dice"]})
    return np.array([np.mean([each["dice"][study] for each in runs]) for study in studies])


def _interval(values: np.ndarray[Any, Any], form: str) -> str:
    interval = bootstrap_interval(list(values), seed=1)
    return f"{np.mean(values):{form}} ({interval.low:{form}} to {interval.high:{form}})"


def speed(results: Sequence[Mapping[str, Any]]) -> str:
    """Every inference in turn: medians over rounds, then over studies; Dice beside that of MONAI, study by study."""
    heads = ("method", "windows", "time", "as fast as MONAI", "difference of Dice, mean", "largest", "memory at most")
    studies = results[0]["studies"]
    rows = []
    for name in studies[0]["methods"]:
        entries = [study["methods"][name] for study in studies]
        monai = [study["methods"]["MONAI"] for study in studies]
        taken = [median(entry["seconds"]) for entry in entries]
        ratios = [median(other["seconds"]) / own for other, own in zip(monai, taken, strict=True)]
        apart = [entry["dice"] - other["dice"] for entry, other in zip(entries, monai, strict=True)]
        rows.append(
            (
                name,
                f"{median(entry['windows'] for entry in entries):.0f}",
                f"{median(taken):.2f} s",
                f"{median(ratios):.1f} × ({min(ratios):.1f} to {max(ratios):.1f})",
                f"{np.mean(apart):+.4f}",
                f"{max(map(abs, apart)):.4f}",
                f"{results[0]['peak_mib'][name]:.0f} MiB",
            )
        )
    for each in results[0]["standard"]:
        what = f"the whole engine on {' × '.join(map(str, each['shapes']['pet']))} voxels of the standard preset"
        rows.append((what, "", f"{each['median_s']:.1f} s", "", "", "", ""))
    return markdown(heads, rows)


def _accuracy(row: Mapping[str, Any]) -> tuple[str, ...]:
    lesions = row["lesions"]
    if not row["dice"]["n"]:
        return ("refused", "", "", "", "", "", "")
    refused = sum(row["refused"].values())
    dice = _ranged(row["dice"], 2) + (f"; {refused} refused" if refused else "")
    sensitivity = f"{lesions['found']} of {lesions['true']}"
    hd95 = f"{row['hausdorff_95_mm'].get('median', float('nan')):.0f} mm"
    false = [_ranged(row[name], 1) + " mL" for name in ("false_positive_ml", "false_positive_ml_of_negatives")]
    return dice, hd95, *false, _ranged(row["false_negative_ml"], 1) + " mL", sensitivity, _ranged(row["lesion_f1"], 2)


def _ranged(value: Mapping[str, Any], digits: int) -> str:
    if not value["n"]:
        return "none"
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def _order(results: Sequence[Mapping[str, Any]], name: str) -> tuple[bool, float, str]:
    trial = next(each["trial"] for each in results if each["trial"]["name"] == name)
    return trial["probe"], -trial["labels"], name
