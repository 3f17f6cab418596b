"""What is in the simulated cohorts, and whether they are as hard as reality.

    python -m benchmarks.accuracy.cohorts [--studies 30] [--cache build/cohorts]

makes the `tune` cohorts (going on where it was broken off), measures lesions, noise and flows, lays the lesions beside
those of the 20 real sarcoma studies, and scores the threshold methods on both. Test and shift cohorts are not touched.

The real studies are cut to the tumour and 5 cm around it, so a simulated study is cut in the same way about its largest
lesion; the numbers of whole bodies stand beside them. Writes benchmarks/accuracy/cohorts.json and docs/img/cohorts.png.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from benchmarks.accuracy import cohorts_figure
from benchmarks.accuracy.threshold_sarcoma import METHODS, RESAMPLES, SEED, archives, cases, summary
from benchmarks.machine import REPOSITORY, provenance, sha256_of_files
from engines.contract import Case, LabelMap, Volume
from engines.registry import engine
from engines.simulation import kinetics
from engines.simulation.cohort import COHORTS, VERSION, Cohort
from engines.simulation.packed import Example
from engines.simulation.source import simulator_sha256
from engines.simulation.study import KINDS, SHARES, STATES, course
from engines.simulation.tissues import Tissue
from engines.threshold_segmentation.evaluate import Score, evaluate

RESULT = REPOSITORY / "benchmarks" / "accuracy" / "cohorts.json"
FIGURE = REPOSITORY / "docs" / "img" / "cohorts.png"
MARGIN_MM = 50.0
"""Around the tumour: how the real studies were cut."""
SHELL_MM = (5.0, 20.0)
"""Background: what lies so far outside of a lesion and is in no other."""
LIVER_EROSION_MM = 12.0
"""From its rim and from lesions: out of the reach of the resolution and of breathing in real images."""
ALLOWED_DIFFERENCE = 0.10
"""Of the best threshold method's Dice, simulated and real."""
Tell = Callable[[str, float], None]
Row = dict[str, Any]


def lesions(example: Example) -> list[Row]:
    """Every lesion of a study: size, uptake in the image of all counts, contrast."""
    pet, labels = example.volumes["pet"], example.labels["lesions"]
    assert isinstance(pet, Volume)
    return [
        row | uptake(pet, labels.array == row["label"], labels.array > 0)
        for row in example.facts["lesions"]
        if row["voxels"]
    ]


def uptake(pet: Volume, mask: NDArray[np.bool_], all_lesions: NDArray[np.bool_]) -> Row:
    """SUVmax, SUVmean and what is around: mean of the shell and contrast to it; spread of SUV within the lesion."""
    reach = [int(np.ceil(SHELL_MM[1] / step)) + 1 for step in pet.spacing_mm]
    (box,) = find_objects(mask.astype(np.uint8))
    near = tuple(slice(max(part.start - r, 0), part.stop + r) for part, r in zip(box, reach, strict=True))
    away = distance_transform_edt(~mask[near], sampling=pet.spacing_mm)
    shell = (away > SHELL_MM[0]) & (away <= SHELL_MM[1]) & ~all_lesions[near]
    inside, around = pet.array[mask].astype(np.float64), float(pet.array[near][shell].mean()) if shell.any() else None
    mean = float(inside.mean())
    return {
        "suv_max": float(inside.max()),
        "suv_mean": mean,
        "background_suv": around,
        "contrast": mean / max(around, 0.05) if around is not None else None,
        "suv_spread": float(inside.std()) / mean,
        "below_2_5": float((inside < 2.5).mean()),
    }


def about_the_largest(case: Case, row: Mapping[str, Any]) -> Case:
    """A study cut to a lesion and 5 cm around it; all lesions in the cut are its truth."""
    assert case.truth is not None
    (box,) = find_objects((case.truth.array == row["label"]).astype(np.uint8))
    ends = np.asarray([[part.start, part.stop - 1] for part in box], np.float64)
    corners = case.truth.affine[:3, :3] @ ends + case.truth.affine[:3, 3:]
    low, high = corners.min(axis=1) - MARGIN_MM, corners.max(axis=1) + MARGIN_MM
    parts, affine = cut(case.truth.array.shape, case.truth.affine, low, high)
    truth = LabelMap(case.truth.array[parts], affine, case.truth.names)
    volumes = {}
    for name, volume in case.volumes.items():
        parts, affine = cut(volume.array.shape, volume.affine, low, high)
        volumes[name] = replace(volume, array=volume.array[parts], affine=affine)
    return Case(volumes, truth, case.group)


def cut(shape: Sequence[int], affine: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any]) -> Any:
    """Slices of a grid between two corners [LPS mm], and the affine of what they hold."""
    ends = np.linalg.inv(affine) @ np.stack([[*low, 1.0], [*high, 1.0]], axis=1)
    first = np.clip(np.floor(ends[:3].min(axis=1)), 0, np.asarray(shape) - 1).astype(int)
    last = np.clip(np.ceil(ends[:3].max(axis=1)), first, np.asarray(shape) - 1).astype(int)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)), moved


def liver_nstd(example: Example, name: str) -> float:
    """SD / mean of the liver, away from its rim and from lesions."""
    volume, organs = example.volumes[name], example.labels["organs"].array
    assert isinstance(volume, Volume)
    balls = [int(np.ceil(LIVER_EROSION_MM / step)) for step in volume.spacing_mm]
    free = (organs == Tissue.LIVER) & (example.labels["lesions"].array == 0)
    inside = binary_erosion(free, np.ones([2 * n + 1 for n in balls], bool))
    values = volume.array[inside].astype(np.float64)
    return float(values.std() / values.mean())


def noise(cache: Path, patients: int, tell: Tell) -> Row:
    """Liver NSTD at every share of the counts, a value a patient."""
    found: dict[str, list[float]] = {}
    for share in SHARES:
        cohort = replace(COHORTS["lowcount-tune"], share=share, name=f"lowcount-tune-{share:g}")
        for example in cohort.studies(cache, tell, patients=patients):
            found.setdefault(f"{share:g}", []).append(liver_nstd(example, "pet"))
            if share == SHARES[-1]:
                found.setdefault("1", []).append(liver_nstd(example, "reference"))
    return found


def flows(cache: Path, patients: int, tell: Tell) -> list[Row]:
    """Flow at rest and under stress [mL/min/g] and their ratio, of every patient and territory, without a scanner."""
    rows, seeds = [], [*COHORTS["rb82-tune"].seeds, *COHORTS["rb82-train"].seeds][:patients]
    for number, seed in enumerate(seeds):
        tell(f"Rb-82 {seed}", number / len(seeds))
        kept = cache / f"flows-{simulator_sha256()[:16]}" / f"{seed}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            truths = {STATES[kind]: kinetics.truth(course(kind, seed)) for kind in KINDS if kind in STATES}
            row = {
                state: {"global": truth["global_mbf"]}
                | {name: part["mbf_tissue"] for name, part in truth["territories"].items()}
                for state, truth in truths.items()
            }
            written = kept.with_suffix(".part")
            written.write_text(json.dumps({"seed": seed, "defects": len(truths["rest"]["defects"]), **row}))
            written.replace(kept)
        rows.append(json.loads(kept.read_text()))
    return rows


def scores(examined: Iterable[Case]) -> dict[str, Any]:
    """Every threshold method on the same studies."""
    tool, kept = engine("threshold_segmentation"), list(examined)
    found: dict[str, Any] = {}
    for label, parameters in METHODS.items():
        each: list[Score] = list(evaluate(tool, kept, parameters, lambda: False))
        found[label] = {"summary": summary(each), "studies": [asdict(score) for score in each]}
    return found


def best(methods: Mapping[str, Any], key: str) -> Row:
    """The method of the highest mean Dice among those that processed every study."""
    done = [(label, row) for label, row in summaries(methods) if row["processed"] == row["n"]]
    label, row = max(done, key=lambda each: float(each[1][key]["mean"]))
    return {"method": label, "n": row["n"], **row[key]}


def summaries(methods: Mapping[str, Any]) -> list[tuple[str, Row]]:
    return [(label, each["summary"]) for label, each in methods.items()]


def comparison(simulated_methods: Mapping[str, Any], real_methods: Mapping[str, Any]) -> Row:
    """The best threshold method on both: all it finds, and one click on the tumour."""
    found: Row = {"allowed": ALLOWED_DIFFERENCE}
    for key in ("dice", "dice_chosen"):
        here, there = best(simulated_methods, key), best(real_methods, key)
        difference = here["mean"] - there["mean"]
        holds = abs(difference) <= ALLOWED_DIFFERENCE
        found[key] = {"simulated": here, "real": there, "difference": difference, "holds": holds}
    return found


def real() -> Row | None:
    """The sarcoma studies, None where they are not at hand."""
    try:
        packed = archives()
    except SystemExit as reason:
        Console(stderr=True).print(f"without real studies: {reason}")
        return None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        examined = list(cases(packed, Path(folder)))
    for case in examined:
        assert case.truth is not None
        mask = case.truth.array > 0
        pet = case.volumes["pet"]
        rows.append({"volume_ml": float(mask.sum()) * pet.voxel_volume_ml, **uptake(pet, mask, mask)})
    return {"sha256": sha256_of_files(packed), "lesions": rows, "methods": scores(examined)}


def simulated(cohort: Cohort, cache: Path, patients: int, tell: Tell) -> Row:
    """Lesions of a cohort; the threshold methods on its positive studies, cut about the largest lesion and whole."""
    rows, cuts, wholes, number = [], [], [], 0
    for example in cohort.studies(cache, tell, patients=patients):
        number += 1
        own = lesions(example)
        rows.append({"seed": example.seed, "tracer": example.facts["tracer"], "lesions": own})
        if own:
            wholes.append(example.case)
            cuts.append(about_the_largest(example.case, max(own, key=lambda row: float(row["volume_ml"]))))
    return {
        "studies": number,
        "negative": sum(not row["lesions"] for row in rows),
        "patients": rows,
        "lesions": statistics([lesion for row in rows for lesion in row["lesions"]]),
        "largest": statistics([largest(row["lesions"]) for row in rows if row["lesions"]]),
        "lesions_per_positive_study": quantiles([len(row["lesions"]) for row in rows if row["lesions"]]),
        "methods_cut": scores(cuts),
        "methods_whole_body": scores(wholes),
    }


def largest(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: float(row["volume_ml"]))


def statistics(rows: Sequence[Row]) -> Row:
    names = ("volume_ml", "suv_max", "suv_mean", "background_suv", "contrast", "suv_spread", "below_2_5")
    return {"n": len(rows)} | {name: quantiles([row[name] for row in rows if row[name] is not None]) for name in names}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    q = np.quantile(np.asarray(values, np.float64), (0.1, 0.25, 0.5, 0.75, 0.9))
    named = dict(zip(("p10", "p25", "median", "p75", "p90"), (round(float(v), 4) for v in q), strict=True))
    return named | {"mean": round(float(np.mean(values)), 4)}


def measured(given: argparse.Namespace, tell: Tell) -> Row:
    """All that cohorts.json says but where it comes from."""
    result: Row = {
        "fdg": simulated(COHORTS["fdg-tune"], given.cache, given.studies, tell),
        "psma": simulated(COHORTS["psma-tune"], given.cache, given.studies, tell),
        "liver_nstd": noise(given.cache, given.noise_patients, tell),
        "rb82": flows(given.cache, given.studies, tell),
        "real": real(),
    }
    if result["real"] is not None:
        result["real"]["statistics"] = statistics(result["real"]["lesions"])
        result["as_hard_as_reality"] = comparison(result["fdg"]["methods_cut"], result["real"]["methods"])
    return result


def show(result: Row, console: Console) -> None:
    table = Table("", "n", *METHODS)
    groups = {"FDG, cut": result["fdg"]["methods_cut"], "FDG, whole body": result["fdg"]["methods_whole_body"]}
    if result["real"] is not None:
        groups["real sarcoma"] = result["real"]["methods"]
    for name, methods in groups.items():
        cells = [cell(each["summary"]) for each in methods.values()]
        table.add_row(name, str(next(iter(methods.values()))["summary"]["n"]), *cells)
    console.print(table)
    for key, each in result.get("as_hard_as_reality", {}).items():
        if key != "allowed":
            console.print(key, json.dumps(each), highlight=False)


def cell(row: Mapping[str, Any]) -> str:
    if "dice" not in row:
        return "refused"
    dice = row["dice"]
    return f"{dice['mean']:.2f} ({dice['low']:.2f} to {dice['high']:.2f}), {row['processed']} of {row['n']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=30, help="patients of every cohort")
    parser.add_argument("--noise-patients", type=int, default=3, help="patients at every count level")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build" / "cohorts")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: float) -> None:
            cohort = what.partition(" ")[0]
            task = tasks.setdefault(cohort, bar.add_task(cohort, total=1.0) if cohort not in tasks else None)
            bar.update(task, completed=done, description=what)

        result = measured(given, tell)
    frozen_as = {"version": VERSION, "simulator_sha256": simulator_sha256()}
    bootstrap = {"seed": SEED, "resamples": RESAMPLES, "unit": "patient"}
    where = provenance(given.cache, packages=["numpy", "scipy"])
    everything = {"benchmark": "cohorts", "cohorts": frozen_as, "bootstrap": bootstrap, **where, **result}
    written = RESULT.with_suffix(f".{os.getpid()}.part")
    written.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    written.replace(RESULT)
    cohorts_figure.draw(everything, FIGURE)
    show(everything, Console())


if __name__ == "__main__":
    main()
