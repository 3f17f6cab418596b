"""Our inference beside MONAI's and nnU-Net's: the same weights, overlap and body crops, in turn.

    python -m benchmarks.speed.sliding_window [--cohorts build/cohorts] [--studies 5] [--threads 2] [--standard 1]

Writes benchmarks/accuracy/fdg_segmentation/speed.json. nnU-Net's predictor takes part where `nnunetv2` is installed.
All compute in bfloat16 where the processor can: nnU-Net would not by itself on a CPU and is given it here.
`--standard` examinations of the standard preset of the simulator go through the whole engine, which is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from benchmarks.accuracy.fdg_segmentation.data import COHORTS, cases
from benchmarks.machine import REPOSITORY, command, machine_cpu_s, our_cpu_s, provenance, rotated
from engines.contract import Case, FloatArray
from engines.fdg_segmentation.infer import SHIPPED, FdgSegmentation, loaded, spacing_of, window_of, worth_a_look
from engines.fdg_segmentation.preprocessing import Prepared, back_on_grid_of, prepared
from engines.fdg_segmentation.windows import cpu_has_bfloat16, predicted
from engines.metrics import dice
from engines.simulation.study import simulate
from engines.tiling import Shape, Tiling

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "fdg_segmentation" / "speed.json"
ROUNDS = 5
OVERLAP = 0.5
MONAI_BATCH = 4
Result = TypeVar("Result")
Method = Callable[[Prepared], FloatArray]


class InWindowsOfTraining(nn.Module):
    """A network of which it is not known that it may be given larger windows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """As the network."""
        logits: Tensor = self.network(image)
        return logits


def contestants(network: nn.Module, window: Shape) -> dict[str, Method]:
    """By name; each gives the probability of tumour (z, y, x) of a body crop."""
    tiling = Tiling(window, OVERLAP)
    in_windows = InWindowsOfTraining(network)

    def ours(seen: Prepared) -> FloatArray:
        return predicted(network, seen.image, tiling, lambda: False, worth_a_look(seen))

    def skipping(seen: Prepared) -> FloatArray:
        return predicted(in_windows, seen.image, tiling, lambda: False, worth_a_look(seen))

    def monai(seen: Prepared) -> FloatArray:
        image = torch.from_numpy(seen.image)[None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            found = sliding_window_inference(
                image,
                window,
                MONAI_BATCH,
                lambda part: network(part).float().softmax(dim=1)[:, 1:],
                OVERLAP,
                mode="gaussian",
            )
        probability: FloatArray = found[0, 0].numpy()
        return probability

    return {"ours": ours, "ours, windows of training": skipping, "MONAI": monai} | nnunet(network, window)


def nnunet(network: nn.Module, window: Shape) -> dict[str, Method]:
    """nnU-Net's predictor, where it is installed."""
    with suppress(ImportError):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(tile_step_size=1.0 - OVERLAP, use_mirroring=False, device=torch.device("cpu"))
        predictor.allow_tqdm = False
        predictor.network = network
        predictor.configuration_manager = SimpleNamespace(patch_size=window)
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)

        def run(seen: Prepared) -> FloatArray:
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(seen.image))
            probability: FloatArray = logits.float().softmax(dim=0)[1].numpy()
            return probability

        return {"nnU-Net": run}
    return {}


def at_its_peak(run: Callable[[], Result]) -> tuple[Result, float]:
    """A result, and how much more memory this process held at most meanwhile [MiB] (proc(5): clear_refs, VmHWM)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS")
    result = run()
    return result, round((_status_kib("VmHWM") - before) / 1024.0, 1)


def _status_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def compared(case: Case, methods: dict[str, Method], spacing: tuple[float, float, float], count: list[int]) -> Any:
    """One study by every method, round after round."""
    assert case.truth is not None
    pet, began = case.volumes["pet"], time.perf_counter()
    seen = prepared(pet, case.volumes["ct"], spacing)
    entries: dict[str, Any] = {name: {"seconds": []} for name in methods}
    row = {"crop": list(seen.suv.shape), "preparing_s": round(time.perf_counter() - began, 3), "methods": entries}
    for name, method in methods.items():
        count[0] = 0
        found = method(seen)
        entries[name]["windows"] = count[0]
        mask = back_on_grid_of(pet, np.ascontiguousarray(found), seen.affine, 0.0) > 0.5
        entries[name]["dice"] = dice(mask, case.truth.array > 0)
    for number in range(ROUNDS):
        for name in rotated(list(methods), number):
            began = time.perf_counter()
            methods[name](seen)
            entries[name]["seconds"].append(round(time.perf_counter() - began, 3))
    return row


def peak_of(name: str, cohorts: Path, threads: int) -> float:
    """Of one method on the first study, in a process that has computed nothing before [MiB]."""
    torch.set_num_threads(threads)
    network, card = loaded(SHIPPED, "cpu")
    case = next(cases("fdg-tune", cohorts, 1))
    seen = prepared(case.volumes["pet"], case.volumes["ct"], spacing_of(card))
    return at_its_peak(partial(contestants(network, window_of(card))[name], seen))[1]


def whole_body(number: int) -> Any:
    """The engine from volumes to products, on an examination of the standard preset."""
    study = simulate("fdg", 900_000 + number, "standard", with_reference=False)
    made = study.acquisition
    assert made.pet is not None
    assert made.ct is not None
    engine, volumes = FdgSegmentation(), {"pet": made.pet, "ct": made.ct}

    def seconds() -> float:
        began = time.perf_counter()
        engine(volumes, engine.defaults, lambda: False)
        return round(time.perf_counter() - began, 2)

    first, peak = at_its_peak(seconds)
    taken = [first, *(seconds() for _ in range(ROUNDS - 1))]
    shapes = {name: list(volume.array.shape) for name, volume in volumes.items()}
    return {"shapes": shapes, "seconds": taken, "median_s": median(taken), "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description="Our inference beside MONAI's and nnU-Net's.")
    parser.add_argument("--cohorts", type=Path, default=COHORTS)
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--standard", type=int, default=1, help="examinations of the standard preset")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network, card = loaded(SHIPPED, "cpu")
    where = provenance(REPOSITORY, packages=["torch", "monai", "numpy"])
    with suppress(metadata.PackageNotFoundError):
        where["versions"]["nnunetv2"] = metadata.version("nnunetv2")
    began, machine, own = time.perf_counter(), machine_cpu_s(), our_cpu_s()[0]
    count = [0]
    hook = network.register_forward_hook(lambda _, inputs, __: count.__setitem__(0, count[0] + len(inputs[0])))
    methods = contestants(network, window_of(card))
    rows = []
    for case in cases("fdg-tune", given.cohorts, given.studies):
        rows.append(compared(case, methods, spacing_of(card), count))
        print(json.dumps(rows[-1], indent=1), flush=True)
    hook.remove()
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        peaks = {name: pool.submit(peak_of, name, given.cohorts, given.threads).result() for name in methods}
    standard = [whole_body(number) for number in range(given.standard)]
    others = machine_cpu_s() - machine - (our_cpu_s()[0] - own)
    result = {
        "benchmark": "fdg_segmentation_speed",
        "command": command("benchmarks.speed.sliding_window", sys.argv[1:]),
        "window": list(window_of(card)),
        "overlap": OVERLAP,
        "threads": given.threads,
        "bfloat16": cpu_has_bfloat16(),
        "weights_sha256": card.sha256,
        "others_cores": round(max(0.0, others) / (time.perf_counter() - began), 2),
        **where,
        "peak_mib": peaks,
        "studies": rows,
        "standard": standard,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
