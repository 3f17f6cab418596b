"""Named cohorts of simulated studies: what engines train on, are chosen by, and are judged by.

    train   to learn from
    tune    to choose by: settings, thresholds, when to stop
    test    to judge by, once; the same hospital as train
    shift   to judge by, once; a second hospital

No seed is in two cohorts, of whatever tracer, so that no patient of training is met again. cohorts.json freezes them:

    python -m engines.simulation.cohort --check     does the simulator still make what was frozen?
    python -m engines.simulation.cohort --freeze    write cohorts.json, which needs a new VERSION if it does not
    python -m engines.simulation.cohort fdg-train --cache FOLDER    make its studies, going on where it was broken off
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from engines.contract import Json
from engines.errors import EngineError
from engines.simulation import packed
from engines.simulation.kinetics import truth
from engines.simulation.measurement import Scanner
from engines.simulation.projector import Geometry
from engines.simulation.reconstruction import Method
from engines.simulation.scanners import with_tof
from engines.simulation.source import simulator_sha256
from engines.simulation.study import SITES, STATES, Kind, Site, course, patient, simulate

VERSION = 1
"""Of all cohorts. Raise it when the simulator changes after anything was trained on them, then --freeze."""
Family = Literal["fdg", "psma", "lowcount", "nac", "rb82"]
Part = Literal["train", "tune", "test", "shift"]
Progress = Callable[[str, float], None]
"""Which study is made now, and the share of the cohort that is done."""
KINDS: Mapping[Family, tuple[Kind, ...]] = {
    "fdg": ("fdg",),
    "psma": ("psma",),
    "lowcount": ("lowcount",),
    "nac": ("nac",),
    "rb82": ("rb82-rest", "rb82-stress"),
}
SIZES: Mapping[Family, Mapping[Part, int]] = {
    "fdg": {"train": 200, "tune": 30, "test": 60, "shift": 40},
    "psma": {"train": 200, "tune": 30, "test": 60, "shift": 40},
    "lowcount": {"train": 80, "tune": 16, "test": 30, "shift": 20},
    "nac": {"train": 80, "tune": 16, "test": 30, "shift": 20},
    "rb82": {"train": 40, "tune": 10, "test": 20, "shift": 12},
}
"""Patients; a patient of Rb-82 is examined twice."""
EVALUATION: frozenset[Part] = frozenset({"test", "shift"})
SEEDS_OF_A_FAMILY, SEEDS_OF_A_PART = 100_000, 10_000
FIRST_HOSPITAL = SITES["small"]
SECOND_HOSPITAL = Site(
    scanner=with_tof(
        Scanner(
            Geometry(pixels=112, pixel_mm=4.8, bins=144, bin_mm=3.75, angles=96, subsets=12),
            slice_mm=4.25,
            fwhm_mm=3.8,
            bed_slices=52,
            overlap_slices=22,
        ),
        fwhm_ps=380.0,
    ),
    method=Method(iterations=3, filter_fwhm_mm=3.5, psf_fwhm_mm=3.8),
    activity_mbq_kg={"FDG": 2.5, "PSMA-11": 1.6, "PSMA-1007": 3.0},
    uptake_min=(78.0, 12.0),
    bed_s=80.0,
    obesity=4.0,
    prostheses=0.15,
    rb82_method=Method(iterations=1, filter_fwhm_mm=6.0),
)
"""Another generation of scanner: sharper, with time of flight and resolution modelling. Half of the counts, later,
heavier patients, more artificial hips."""
FROZEN = Path(__file__).with_suffix(".json").with_stem("cohorts")
TOLERANCE = 0.01
"""Relative, of the numbers of a first patient: libraries round differently, a changed simulator does more."""


class UnknownCohort(EngineError):
    """No cohort of that name."""

    code = "unknown-cohort"
    hint = "Names are FAMILY-PART, such as fdg-train."


class ForEvaluationOnly(EngineError):
    """A cohort that nothing may be chosen by was asked for without saying that it is for evaluation."""

    code = "for-evaluation-only"
    hint = "Train on `train` and choose on `tune`; a final evaluation says for_evaluation=True."


@dataclass(frozen=True)
class Cohort:
    """Patients of one hospital, examined alike.

    seeds : one a patient; kinds : examinations of each; share : of the counts, None = as the kind draws it
    for_evaluation : nothing may be chosen by it
    """

    name: str
    kinds: tuple[Kind, ...]
    seeds: range
    site: Site
    for_evaluation: bool = False
    share: float | None = None

    @property
    def definition_sha256(self) -> str:
        """Of what is examined, and where."""
        what = {"kinds": self.kinds, "seeds": [self.seeds.start, self.seeds.stop], "share": self.share}
        return sha256(json.dumps(what | {"site": asdict(self.site)}, sort_keys=True).encode()).hexdigest()

    @property
    def sha256(self) -> str:
        """Of the definition and of the simulator: what decides on every bit of its studies."""
        return sha256(f"{self.definition_sha256} {simulator_sha256()}".encode()).hexdigest()

    def studies(
        self,
        cache: Path | None = None,
        progress: Progress | None = None,
        *,
        for_evaluation: bool = False,
        patients: int | None = None,
    ) -> Iterator[packed.Example]:
        """Every study, in the order of seeds, the same with and without a cache.

        cache : folder that keeps studies; they lie in a folder of their own by the cohort's hash, and what is there
            already is not made again. Two processes may share it.
        patients : only so many, the first; None = all

        Raises
        ------
        ForEvaluationOnly
            A test or shift cohort, without `for_evaluation`.
        """
        self.check_use(for_evaluation=for_evaluation)
        return self._studies(cache, progress, self.seeds[:patients])

    def check_use(self, *, for_evaluation: bool) -> None:
        """Raise ForEvaluationOnly where a test or shift cohort is used for anything else."""
        if self.for_evaluation and not for_evaluation:
            raise ForEvaluationOnly(f"cohort {self.name}: expected for_evaluation=True, got an unmarked use")

    def examined(self) -> list[tuple[int, Kind]]:
        """Seed and kind of every study, in the order of `studies`."""
        return [(seed, kind) for seed in self.seeds for kind in self.kinds]

    def study(self, seed: int, kind: Kind, cache: Path | None = None) -> packed.Example:
        """One of them, from the cache if it is there."""
        if cache is None:
            return self._made(kind, seed, None)
        folder = cache / f"{self.name}-{self.sha256[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{kind}-{seed}"
        kept = packed.read(path)
        return self._made(kind, seed, path) if kept is None else kept

    def _studies(self, cache: Path | None, progress: Progress | None, seeds: range) -> Iterator[packed.Example]:
        wanted = [(seed, kind) for seed, kind in self.examined() if seed in seeds]
        for number, (seed, kind) in enumerate(wanted):
            if progress is not None:
                progress(f"{kind} {seed}", number / len(wanted))
            yield self.study(seed, kind, cache)
        if progress is not None:
            progress(self.name, 1.0)

    def _made(self, kind: Kind, seed: int, path: Path | None) -> packed.Example:
        study = simulate(kind, seed, self.site, share=self.share)
        arrays, rest = packed.packed(packed.example(study, seed))
        if path is not None:
            packed.write(path, arrays, rest)
        return packed.unpacked(arrays, json.loads(json.dumps(rest)))

    def first_patient(self) -> dict[str, Json]:
        """A few numbers of the first patient, without a scanner."""
        seed = self.seeds[0]
        if self.kinds[0] in STATES:
            courses = {kind: truth(course(kind, seed, self.site)) for kind in self.kinds}
            flows = {f"{kind} global_mbf": each["global_mbf"] for kind, each in courses.items()}
            return {"activity_bq": courses[self.kinds[0]]["activity_bq"], **flows}
        examined = patient(self.kinds[0], seed, self.site)
        volumes = [round(spot.volume_ml, 4) for spot in examined.grown.spots]
        return {"activity_in_view_bq": round(examined.activity_bq, 1), "lesion_ml": volumes}


def _defined() -> Iterator[Cohort]:
    for family_number, (family, kinds) in enumerate(KINDS.items(), 1):
        for part_number, (part, size) in enumerate(SIZES[family].items()):
            first = family_number * SEEDS_OF_A_FAMILY + part_number * SEEDS_OF_A_PART
            site = SECOND_HOSPITAL if part == "shift" else FIRST_HOSPITAL
            yield Cohort(f"{family}-{part}", kinds, range(first, first + size), site, part in EVALUATION)


COHORTS: Mapping[str, Cohort] = {each.name: each for each in _defined()}
"""By name: FAMILY-PART."""


def cohort(name: str) -> Cohort:
    """The cohort of a name. Raises UnknownCohort."""
    if name not in COHORTS:
        raise UnknownCohort(f"cohort: expected one of {', '.join(COHORTS)}, got {name}")
    return COHORTS[name]


def frozen(path: Path = FROZEN) -> Json:
    """What cohorts.json says."""
    return json.loads(path.read_text(encoding="utf-8"))


def changes(path: Path = FROZEN) -> list[str]:
    """How definitions and simulator differ from what was frozen, in words; empty when they do not. Takes a moment."""
    kept, found = frozen(path), []
    hint = "raise VERSION in engines/simulation/cohort.py and run `python -m engines.simulation.cohort --freeze`"
    if kept["version"] != VERSION:
        found.append(f"cohorts.json is of version {kept['version']}, cohort.py of {VERSION}: run --freeze")
    if kept["simulator_sha256"] != simulator_sha256():
        found.append(f"the simulator is not the frozen one: {hint}")
    for name in sorted({*COHORTS, *kept["cohorts"]}):
        now, before = COHORTS.get(name), kept["cohorts"].get(name)
        if now is None or before is None or now.definition_sha256 != before["definition_sha256"]:
            state = "gone" if now is None else "new" if before is None else "not defined as it was frozen"
            found.append(f"cohort {name} is {state}: {hint}")
    return found


def deviations(name: str, path: Path = FROZEN) -> list[str]:
    """How numbers of a cohort's first patient differ from the frozen ones. Builds the body: seconds."""
    kept, now = frozen(path)["cohorts"][name]["first_patient"], cohort(name).first_patient()
    return [
        f"{name}, first patient: {key}: expected {kept.get(key)}, got {now.get(key)}"
        for key in sorted({*kept, *now})
        if not _close(kept.get(key), now.get(key))
    ]


def _close(expected: Json, got: Json) -> bool:
    if expected is None or got is None or np.shape(expected) != np.shape(got):
        return expected is got
    return bool(np.allclose(got, expected, rtol=TOLERANCE, atol=0.0))


def freeze(say: Callable[[str], None], path: Path = FROZEN, *, amend: bool = False) -> None:
    """Write cohorts.json. Builds a body for every cohort: minutes.

    amend : although this version was frozen with another simulator, because nothing was trained on it yet

    Raises
    ------
    EngineError
        The version is that of another simulator.
    """
    if path.exists() and not amend:
        kept = frozen(path)
        if kept["version"] == VERSION and kept["simulator_sha256"] != simulator_sha256():
            raise EngineError(
                f"version {VERSION} is frozen with another simulator: expected a higher VERSION",
                code="version-frozen",
                hint="Raise VERSION in engines/simulation/cohort.py, or --amend if nothing was trained on it yet.",
            )
    cohorts: dict[str, Json] = {}
    result = {"version": VERSION, "simulator_sha256": simulator_sha256(), "cohorts": cohorts}
    for name, each in COHORTS.items():
        say(name)
        cohorts[name] = {
            "kinds": list(each.kinds),
            "seeds": [each.seeds.start, each.seeds.stop],
            "definition_sha256": each.definition_sha256,
            "first_patient": each.first_patient(),
        }
    written = path.with_suffix(".new")
    written.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    written.replace(path)


def main() -> int:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(prog="engines.simulation.cohort", description="Cohorts of simulated studies.")
    parser.add_argument("name", nargs="?", help="make the studies of this cohort")
    parser.add_argument("--cache", type=Path, help="where its studies are kept")
    parser.add_argument("--for-evaluation", action="store_true", help="a test or shift cohort, nothing is chosen by it")
    parser.add_argument("--check", action="store_true", help="compare with cohorts.json")
    parser.add_argument("--freeze", action="store_true", help="write cohorts.json")
    parser.add_argument("--amend", action="store_true", help="freeze the same version again: nothing was trained on it")
    given = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        if given.freeze:
            freeze(say, amend=given.amend)
        if given.check:
            found = changes() or [line for name in COHORTS for line in deviations(name)]
            say("\n".join(found) or "as frozen")
            return 1 if found else 0
        if given.name:
            if given.cache is None:
                parser.error("a cohort is made into a --cache")
            chosen = cohort(given.name)
            for _ in chosen.studies(
                given.cache, lambda what, done: say(f"{done:5.1%} {what}"), for_evaluation=given.for_evaluation
            ):
                pass
    except EngineError as error:
        say(f"{error}\n{error.hint}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
