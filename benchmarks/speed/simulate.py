"""What a simulated FDG study costs: time and memory of every stage, at both sizes of voxel.

    python -m benchmarks.speed.simulate [--rounds 3] [--seed 1]

Every round is a process of its own, so that the system matrices are built in each and no memory is left over. The
sum "study" is what `tracerd simulate` computes: body, maps, matrices, counts, one reconstruction; writing is not in it.
"""

import argparse
import json
import multiprocessing
import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any, Self

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from scipy.ndimage import distance_transform_edt

from benchmarks.machine import REPOSITORY, machine_cpu_s, provenance, write_result
from engines.simulation.anatomy import Grid, build
from engines.simulation.measurement import Timing, expected, measure, thin
from engines.simulation.person import Person
from engines.simulation.reconstruction import Method, reconstruct
from engines.simulation.scanners import METHODS, PRESETS, with_tof
from engines.simulation.tissues import Tissue
from engines.simulation.uptake import attenuation, hu_map, suv_map

HEIGHT_MM = 915.0
MBQ_PER_KG, HALF_LIFE_S, WAIT_S, BED_S = 3.5, 109.77 * 60.0, 3600.0, 120.0
IN_A_STUDY = ("body", "maps", "matrices", "counts", "reconstruction")
LIMIT_S = {"small": 20.0, "standard": 120.0}


@dataclass
class Stages:
    """Seconds on the clock, CPU seconds and the largest resident memory of every stage of one study."""

    seen: dict[str, dict[str, float]] = field(default_factory=dict)

    def run(self, name: str, stage: Callable[[], Any]) -> Any:
        """What the stage returns."""
        with _Watch() as watch:
            began, cpu = perf_counter(), process_time()
            made = stage()
            taken = {"seconds": perf_counter() - began, "cpu_s": process_time() - cpu}
        self.seen[name] = taken | {"peak_gib": watch.peak / 2**30}
        return made


class _Watch:
    """The largest resident memory of this process meanwhile, looked at every 10 ms."""

    def __enter__(self) -> Self:
        self.peak, self._over = psutil.Process().memory_info().rss, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._over.wait(0.01):
            self.peak = max(self.peak, process.memory_info().rss)


def main() -> None:
    arguments = _arguments()
    console = Console(width=120)
    result = provenance(REPOSITORY, packages=["numpy", "scipy"])
    result |= {"seed": arguments.seed, "rounds": arguments.rounds, "studies": {}}
    for preset in PRESETS:
        rounds = [_in_a_process(preset, arguments.seed) for _ in range(arguments.rounds)]
        result["studies"][preset] = _summary(preset, rounds)
    show(console, result)
    console.print(f"written: {write_result('simulate', result).relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _in_a_process(preset: str, seed: int) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return dict(pool.apply(study, (preset, seed)))


def study(preset: str, seed: int) -> dict[str, Any]:
    """One study: its stages and what came out."""
    scanner, method, rng, stages = PRESETS[preset], METHODS[preset], np.random.default_rng(seed), Stages()
    fine, slices = scanner.fine, round(HEIGHT_MM / scanner.slice_mm)
    grid = Grid((2 * slices, fine.pixels, fine.pixels), (scanner.slice_mm / 2, fine.pixel_mm, fine.pixel_mm), -10.0)
    person, timing = Person.draw(rng), Timing(BED_S, half_life_s=HALF_LIFE_S)
    busy, began = machine_cpu_s(), perf_counter()
    body = stages.run("body", lambda: build(person, grid, rng))
    suv, mu = stages.run("maps", lambda: (suv_map(body, "FDG", rng), attenuation(hu_map(body, rng))))
    activity = (suv * np.float32(bqml_per_suv())).astype(np.float32)
    stages.run("matrices", lambda: [subset.columns for subset in scanner.geometry.system] + [fine.system])
    counts = stages.run("counts", lambda: measure(activity, mu, scanner, timing, rng))
    image = stages.run("reconstruction", lambda: reconstruct(counts, scanner, method))
    stages.run("thinning to 10 %", lambda: thin(counts, 0.1, rng))
    psf = Method(method.iterations, method.filter_fwhm_mm, scanner.fwhm_mm)
    stages.run("reconstruction with PSF", lambda: reconstruct(counts, scanner, psf))
    timed = with_tof(scanner)
    in_flight = stages.run("counts with TOF, matrices included", lambda: expected(activity, mu, timed, timing))
    brief = Method(method.iterations // 2, method.filter_fwhm_mm)
    stages.run("reconstruction with TOF, matrices included", lambda: reconstruct(in_flight, timed, brief))
    others = machine_cpu_s() - busy - sum(stage["cpu_s"] for stage in stages.seen.values())
    step_mm = scanner.slice_mm, scanner.geometry.pixel_mm, scanner.geometry.pixel_mm
    return {
        "voxels": list(image.shape),
        "prompts_per_bed": round(counts.counts / scanner.beds(slices)),
        "liver_nstd": round(liver_noise(image, body.tissue, step_mm), 4),
        "others_cores": max(0.0, round(others / (perf_counter() - began), 2)),
        "stages": stages.seen,
    }


def bqml_per_suv() -> float:
    """Bq/mL of SUV 1 at the start of the scan."""
    return MBQ_PER_KG * 1e6 / 1000.0 * 0.5 ** (WAIT_S / HALF_LIFE_S)


def liver_noise(image: np.ndarray, tissue: np.ndarray, step_mm: tuple[float, ...], *, side_mm: float = 30.0) -> float:
    """Standard deviation over mean in a cube about the voxel of the liver that lies farthest from other tissue."""
    z, y, x = image.shape
    pure = (tissue == Tissue.LIVER).reshape(z, 2, y, 2, x, 2).all(axis=(1, 3, 5))
    deepest = np.unravel_index(np.argmax(distance_transform_edt(pure, sampling=step_mm)), pure.shape)
    reach = [round(side_mm / 2 / step) for step in step_mm]
    cube = image[tuple(slice(at - r, at + r + 1) for at, r in zip(deepest, reach, strict=True))]
    return float(cube.std() / cube.mean())


def _summary(preset: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    first = rounds[0]
    stages = {
        name: {
            key: round(statistics.median(each["stages"][name][key] for each in rounds), 3)
            for key in ("seconds", "cpu_s", "peak_gib")
        }
        for name in first["stages"]
    }
    totals = {
        key: [sum(each["stages"][name][key] for name in IN_A_STUDY) for each in rounds] for key in ("seconds", "cpu_s")
    }
    return {
        "voxels": first["voxels"],
        "prompts_per_bed": first["prompts_per_bed"],
        "liver_nstd": first["liver_nstd"],
        "others_cores": round(statistics.mean(each["others_cores"] for each in rounds), 2),
        "limit_s": LIMIT_S[preset],
        "study_seconds": [round(total, 2) for total in totals["seconds"]],
        "study_cpu_s": [round(total, 2) for total in totals["cpu_s"]],
        "peak_gib": max(stages[name]["peak_gib"] for name in IN_A_STUDY),
        "stages": stages,
    }


def show(console: Console, result: dict[str, Any]) -> None:
    for preset, found in json.loads(json.dumps(result["studies"])).items():
        table = Table(title=f"{preset}: {found['voxels']} voxels, median of {result['rounds']} rounds")
        for heading in ("stage", "seconds", "CPU s", "peak GiB"):
            table.add_column(heading, justify="left" if heading == "stage" else "right")
        for name, stage in found["stages"].items():
            table.add_row(name, f"{stage['seconds']:.2f}", f"{stage['cpu_s']:.2f}", f"{stage['peak_gib']:.2f}")
        median = (statistics.median(found[key]) for key in ("study_seconds", "study_cpu_s"))
        table.add_row("study", *(f"{value:.2f}" for value in median), f"{found['peak_gib']:.2f}", style="bold")
        console.print(table)
        console.print(f"limit {found['limit_s']:.0f} s; others took {found['others_cores']} cores meanwhile")


if __name__ == "__main__":
    main()
