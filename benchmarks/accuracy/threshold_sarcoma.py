"""Accuracy of the threshold methods on 20 real FDG PET/CT studies of soft-tissue sarcoma with an expert's contour.

    python -m benchmarks.accuracy.threshold_sarcoma

reads the archives of TRACERD_REAL_DATA (else ../shared/data), writes benchmarks/results/threshold_sarcoma.json and the
table in engines/threshold_segmentation/README.md.
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import nibabel
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import REPOSITORY, provenance, sha256_of_files, write_result
from benchmarks.readme import markdown, rewrite
from dicom_io import volume
from engines.contract import Case, LabelMap, Quantity, Volume
from engines.metrics import bootstrap_interval
from engines.registry import engine
from engines.threshold_segmentation.evaluate import Score, evaluate

SEED = 20260302
RESAMPLES = 10_000
METHODS: dict[str, dict[str, Any]] = {
    "SUV ≥ 2.5": {"method": "fixed", "threshold_suv": 2.5},
    "SUV ≥ 4.0": {"method": "fixed", "threshold_suv": 4.0},
    "41 % of SUVmax": {"method": "percent", "percent": 41.0, "seed_suv": 2.5},
    "PERCIST-like": {"method": "percist"},
}
README = REPOSITORY / "engines" / "threshold_segmentation" / "README.md"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def archives() -> list[Path]:
    """The packed studies, in the order of their names."""
    folder = Path(os.environ.get("TRACERD_REAL_DATA") or REPOSITORY.parent / "shared" / "data") / "soft_tissue_sarcoma"
    found = sorted(folder.glob("STS_*.tar.xz"))
    if not found:
        raise SystemExit(f"no STS_*.tar.xz in {folder}: set TRACERD_REAL_DATA")
    return found


def cases(packed: Sequence[Path], folder: Path) -> Iterator[Case]:
    """Unpack and load one study after the other; the truth is the GTV on the grid of the PET."""
    for archive in packed:
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        study = folder / archive.name.partition(".")[0]
        pet = loaded(study / "PET" / "image", Quantity.SUVBW)
        ct = loaded(study / "CT" / "image", Quantity.HU)
        truth = on_grid_of(pet, study / "gtv_on_pet.nii.gz")
        yield Case({"pet": pet, "ct": ct}, LabelMap(truth, pet.affine, {1: "GTV"}), study.name)


def loaded(folder: Path, quantity: Quantity) -> Volume:
    # The files carry no time zone; SUV does not depend on it, as these are in g/mL.
    return volume.load(sorted(folder.glob("*.dcm")), quantity, ZoneInfo("UTC")).volume


def on_grid_of(pet: Volume, path: Path) -> NDArray[np.uint16]:
    """A NIfTI mask (x, y, z; RAS mm) as (z, y, x) in the PET's direction of axes; refused unless the grids coincide."""
    image = nibabel.load(path)
    mask = (np.asarray(image.dataobj) > 0).astype(np.uint16).transpose(2, 1, 0)
    affine = (RAS_TO_LPS @ image.affine)[:, [2, 1, 0, 3]]
    to_pet = np.linalg.inv(pet.affine) @ affine
    for axis in range(3):
        if to_pet[axis, axis] < 0:
            mask = np.flip(mask, axis)
            to_pet[:3, 3] += to_pet[:3, axis] * (mask.shape[axis] - 1)
            to_pet[:3, axis] *= -1.0
    if mask.shape != pet.array.shape or np.abs(to_pet - np.eye(4)).max() > 0.01:
        raise SystemExit(f"{path.name}: the mask is not on the grid of the PET")
    return np.ascontiguousarray(mask)


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """Means over the studies that were processed, with bootstrap intervals; one value per patient."""
    done = [score for score in scores if score.refusal is None]
    refusals = [score.refusal for score in scores if score.refusal is not None]
    result: dict[str, Any] = {"n": len(scores), "processed": len(done), "refused": {}}
    for code in sorted(set(refusals)):
        result["refused"][code] = refusals.count(code)
    if done:
        result["dice"] = mean_with_interval([score.dice for score in done])
        result["dice_chosen"] = mean_with_interval([score.dice_chosen for score in done])
        result["false_positive_ml_median"] = median(score.false_positive_ml for score in done)
        result["false_negative_studies"] = sum(score.false_negative_ml > 0.0 for score in done)
        result["mtv_error_relative_median"] = median(score.mtv.relative for score in done)
    return result


def mean_with_interval(values: Sequence[float]) -> dict[str, float]:
    interval = bootstrap_interval(values, seed=SEED, resamples=RESAMPLES)
    return {"mean": float(np.mean(values)), "low": interval.low, "high": interval.high, "level": interval.level}


def table(result: dict[str, Any]) -> str:
    """The Markdown table of a result."""
    heads = ("method", "processed", "Dice, all found", "Dice, the lesion on the tumour", "false positive", "MTV error")
    rows = []
    for name, entry in result["methods"].items():
        row = entry["summary"]
        processed = f"{row['processed']} of {row['n']}"
        if "dice" not in row:
            codes = ", ".join(f"{count} × `{code}`" for code, count in row["refused"].items())
            rows.append((name, processed, f"refused: {codes}", "", "", ""))
            continue
        dice, chosen = (
            f"{row[key]['mean']:.2f} ({row[key]['low']:.2f} to {row[key]['high']:.2f})"
            for key in ("dice", "dice_chosen")
        )
        false_ml, error = row["false_positive_ml_median"], row["mtv_error_relative_median"]
        rows.append((name, processed, dice, chosen, f"{false_ml:.1f} mL", f"{error:+.0%}"))
    return markdown(heads, rows)


def main() -> None:
    packed = archives()
    tool = engine("threshold_segmentation")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaded_cases = list(cases(packed, folder))
        methods = {
            label: (parameters, list(evaluate(tool, loaded_cases, parameters, lambda: False)))
            for label, parameters in METHODS.items()
        }
        result = {
            "benchmark": "threshold_sarcoma",
            "data": {
                "name": "TCIA Soft-tissue-Sarcoma by way of theibsi/data_sets, CC BY 3.0: tumour and 5 cm around it",
                "studies": [case.group for case in loaded_cases],
                "sha256": sha256_of_files(packed),
            },
            "engine": {"name": tool.name, "version": tool.version, "defaults": dict(tool.defaults)},
            "bootstrap": {"seed": SEED, "resamples": RESAMPLES, "unit": "patient"},
            **provenance(folder, packages=["numpy", "scipy", "pydicom", "nibabel"]),
            "methods": {
                label: {
                    "parameters": parameters,
                    "summary": summary(scores),
                    "studies": [asdict(score) for score in scores],
                }
                for label, (parameters, scores) in methods.items()
            },
        }
    path = write_result("threshold_sarcoma", result)
    rewrite(README, "benchmarks/results/threshold_sarcoma.json", table(json.loads(path.read_text())))
    print(table(result))


if __name__ == "__main__":
    main()
