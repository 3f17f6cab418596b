"""The shipped weights on 20 real studies of soft-tissue sarcoma, none of which they have seen, beside the thresholds.

    python -m benchmarks.accuracy.fdg_segmentation.sarcoma

reads the archives of TRACERD_REAL_DATA and writes sarcoma.json beside this file. The images are cut to the tumour and
5 cm around it: z-scores over such a crop are not those of a whole body.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy.fdg_segmentation.accuracy import OWN, score_of
from benchmarks.accuracy.threshold_sarcoma import METHODS, archives, cases
from benchmarks.machine import REPOSITORY, provenance, sha256_of_files
from engines import models
from engines.contract import Engine
from engines.evaluation import Score
from engines.fdg_segmentation.evaluate import SEED, Report
from engines.fdg_segmentation.infer import FdgSegmentation
from engines.registry import engine

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "sarcoma.json"


def main() -> None:
    packed = archives()
    ours = FdgSegmentation()
    tools: dict[str, tuple[Engine, dict[str, Any]]] = {name: (ours, parameters) for name, parameters in OWN.items()}
    tools |= {name: (engine("threshold_segmentation"), parameters) for name, parameters in METHODS.items()}
    scores: dict[str, list[Score]] = {name: [] for name in tools}
    with tempfile.TemporaryDirectory() as name:
        for case in cases(packed, Path(name)):
            for method, (tool, parameters) in tools.items():
                scores[method].append(score_of(tool, case, parameters)[0])
            print(case.group, *(f"{method} {each[-1].dice}" for method, each in scores.items()), flush=True)
    result = {
        "benchmark": "fdg_segmentation_sarcoma",
        "data": {"name": "TCIA Soft-tissue-Sarcoma: tumour and 5 cm around it", "sha256": sha256_of_files(packed)},
        "weights": models.card_of(ours.weights).to_json(),
        "command": "python -m benchmarks.accuracy.fdg_segmentation.sarcoma",
        "bootstrap": {"seed": SEED, "unit": "patient"},
        **provenance(REPOSITORY, packages=["torch", "numpy", "scipy"]),
        "methods": {
            method: {
                "parameters": tools[method][1],
                "summary": Report(tuple(each)).summary(),
                "studies": [asdict(score) for score in each],
            }
            for method, each in scores.items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
