"""Our inference and MONAI's, in turn, with the same weights, window and overlap on the same body crops.

    python -m benchmarks.speed.sliding_window [--cohorts build/cohorts] [--studies 3] [--threads 2]

Writes benchmarks/accuracy/fdg_segmentation/speed.json. Both compute in bfloat16 where the processor can.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from monai.inferers.utils import sliding_window_inference

from benchmarks.accuracy.fdg_segmentation.data import COHORTS, cases
from benchmarks.machine import REPOSITORY, provenance, rotated
from engines.contract import FloatArray
from engines.fdg_segmentation.infer import SHIPPED, loaded, spacing_of, window_of, worth_a_look
from engines.fdg_segmentation.preprocessing import Prepared, back_on_grid_of, prepared
from engines.fdg_segmentation.windows import cpu_has_bfloat16, predicted
from engines.metrics import dice
from engines.tiling import Tiling

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "speed.json"
ROUNDS = 3
OVERLAP = 0.5


def contestants(network: Any, window: tuple[int, int, int]) -> dict[str, Callable[[Prepared], FloatArray]]:
    tiling = Tiling(window, OVERLAP)

    def ours(seen: Prepared) -> FloatArray:
        return predicted(network, seen.image, tiling, lambda: False, worth_a_look(seen))

    def everywhere(seen: Prepared) -> FloatArray:
        return predicted(network, seen.image, tiling, lambda: False)

    def monai(seen: Prepared) -> FloatArray:
        image = torch.from_numpy(seen.image)[None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            found = sliding_window_inference(
                image, window, 4, lambda part: network(part).float().softmax(dim=1)[:, 1:], OVERLAP, mode="gaussian"
            )
        probability: FloatArray = found[0, 0].numpy()
        return probability

    return {"ours": ours, "ours, no window left out": everywhere, "MONAI": monai}


def main() -> None:
    parser = argparse.ArgumentParser(description="Our inference beside MONAI's.")
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network, card = loaded(SHIPPED, "cpu")
    windows = [0]
    network.register_forward_hook(lambda _, inputs, __: windows.__setitem__(0, windows[0] + len(inputs[0])))
    rows = []
    for case in cases("fdg-tune", given.cohorts, given.studies):
        assert case.truth is not None
        pet, began = case.volumes["pet"], time.perf_counter()
        seen = prepared(pet, case.volumes["ct"], spacing_of(card))
        row: dict[str, Any] = {"crop": list(seen.suv.shape), "preparing_s": time.perf_counter() - began, "methods": {}}
        for name, method in contestants(network, window_of(card)).items():
            row["methods"][name] = {"seconds": [], "cpu_s": [], "run": method}
        for round_number in range(ROUNDS):
            for name in rotated(list(row["methods"]), round_number):
                entry = row["methods"][name]
                windows[0], began, cpu = 0, time.perf_counter(), time.process_time()
                found = entry["run"](seen)
                entry["seconds"].append(round(time.perf_counter() - began, 3))
                entry["cpu_s"].append(round(time.process_time() - cpu, 3))
                entry["windows"] = windows[0]
                mask = back_on_grid_of(pet, np.ascontiguousarray(found), seen.affine, 0.0) > 0.5
                entry["dice"] = dice(mask, case.truth.array > 0)
        for entry in row["methods"].values():
            del entry["run"]
            entry["median_cpu_s"] = median(entry["cpu_s"])
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    result = {
        "benchmark": "fdg_segmentation_speed",
        "command": " ".join(["python", "-m", "benchmarks.speed.sliding_window", *sys.argv[1:]]),
        "window": list(window_of(card)),
        "overlap": OVERLAP,
        "threads": given.threads,
        "bfloat16": cpu_has_bfloat16(),
        "weights_sha256": card.sha256,
        "peak_memory_mib": round(psutil.Process().memory_info().rss / 2**20),
        **provenance(REPOSITORY, packages=["torch", "monai", "numpy"]),
        "studies": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
