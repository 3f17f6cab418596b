"""Mutation testing: does a test fail for every small fault put into the modules that give PET numbers their meaning?

    python -m tests.mutation.run [module ...]      as `make mutants`

Every mutant is imported in place of its module in a process forked from one that has the libraries loaded, and the
tests of that module run there until the first fails: a second or two per mutant. Sources and tests are copied first, so
that edits meanwhile change nothing. What is known is kept in build/mutants/known.jsonl under the digests of module,
tests and mutant: a run that was broken off goes on, and one after a change looks at what changed.

Writes benchmarks/results/mutants.json: per module the number of mutants, how many the tests killed and the survivors.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.machine import REPOSITORY, provenance, sha256_of_files, write_result
from tests.mutation.operators import mutants

WORK = REPOSITORY / "build" / "mutants"
OUTPUT = WORK / "output.txt"
"""What pytest said of the tests of a module without any mutant."""
COPIED = ("config", "engines", "dicom_io", "db", "daemon", "tests", "benchmarks", "pyproject.toml")
SHORTEST_LIMIT_S = 15.0
LIMIT_FACTOR = 5.0
"""A mutant that takes so many times the CPU time that the tests take without it runs for ever: killed."""
ASLEEP_S = 900.0
"""Nor may it wait so long, however busy the machine is."""
MEMORY_MAX = 6 * 2**30
LIBRARIES = ("numpy", "pydicom", "highdicom", "hypothesis", "pytest", "scipy.ndimage", "pydantic", "yaml", "nibabel")

_GEOMETRY = ("unit/test_geometry.py", "laws/test_geometry_laws.py")
_TIMING = ("unit/test_timing.py",)
_SERIES = ("unit/test_series.py",)
_TRACER = ("unit/test_tracer.py", "unit/test_tracer_spellings.py", "unit/test_radionuclides.py")
_QUANTITY = (
    "unit/test_quantity.py",
    "unit/test_quantity_matrix.py",
    "unit/test_decay_reference.py",
    "unit/test_administration.py",
    "unit/test_patient.py",
)
SUBJECTS: dict[str, tuple[str, ...]] = {
    "geometry": _GEOMETRY,
    "timing": _TIMING,
    "corrections": ("unit/test_corrections.py",),
    "series": _SERIES,
    "kinds": (*_SERIES, *_TIMING),
    "description": _SERIES,
    "tracer": _TRACER,
    "radionuclides": (*reversed(_TRACER), *_QUANTITY),
    "radiopharmaceuticals": _TRACER,
    "coded": _TRACER,
    "quantity": _QUANTITY,
    "decay_reference": ("unit/test_decay_reference.py", *_QUANTITY[:2]),
    "administration": ("unit/test_administration.py", *_QUANTITY[:2]),
    "patient": ("unit/test_patient.py", *_QUANTITY[:2]),
    "attributes": _QUANTITY,
    "times": ("unit/test_times.py", *_QUANTITY[:2], *_TIMING),
}
"""Module of dicom_io → the tests that must know it by heart; those that are quickest to fail first."""


@dataclass(frozen=True)
class Subject:
    """A module, the tests that must tell its mutants apart, and how long those take without a mutant."""

    name: str
    tests: tuple[str, ...]
    source: str
    digest: str

    @property
    def module(self) -> str:
        return f"dicom_io.{self.name}"


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves one module from a text instead of its file."""

    def __init__(self, module: str, source: str, path: Path) -> None:
        self.module, self.source, self.path = module, source, path

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)  # type: ignore[arg-type]

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def main(wanted: Sequence[str]) -> int:
    unknown = set(wanted) - set(SUBJECTS)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
        return 2
    began = time.monotonic()
    copy_sources()
    load_libraries()
    journal = WORK / "known.jsonl"
    known = dict(_read(journal))
    results = {}
    for name in wanted or SUBJECTS:
        subject = subject_of(name)
        results[name] = examine(subject, known, journal)
        print(f"{name:<22}{_summary(results[name])}", flush=True)
    path = write_result("mutants", _merged(results, time.monotonic() - began))
    print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


def copy_sources() -> None:
    tree = WORK / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(source, tree / name)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ.setdefault("TRACERD_REAL_DATA", str(REPOSITORY.parent / "shared" / "data"))


def load_libraries() -> None:
    """What every mutant needs and none changes; our own packages are imported anew in each process."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in {"dicom_io", "engines", "config", "tests"}]:
        if not name.startswith("tests.mutation"):
            del sys.modules[name]


def subject_of(name: str) -> Subject:
    tree = WORK / "tree"
    path = tree / "dicom_io" / f"{name}.py"
    tests = tuple(f"tests/{test}" for test in SUBJECTS[name])
    helpers = sorted((tree / "tests").glob("*.py"))
    digest = sha256_of_files([path, *(tree / test for test in tests), *helpers])
    return Subject(name, tests, path.read_text(), digest)


def examine(subject: Subject, known: dict[str, str], journal: Path) -> dict[str, Any]:
    """Run the tests on every mutant of one module."""
    before_s = _children_cpu_s()
    if dict(verdicts(subject, {"none": subject.source}, 600.0))["none"] != "survived":
        raise SystemExit(f"{subject.name}: its tests fail without any mutant, see {OUTPUT.relative_to(REPOSITORY)}")
    baseline_s = _children_cpu_s() - before_s
    found = {hashlib.sha256(f"{subject.digest}{m.source}".encode()).hexdigest(): m for m in mutants(subject.source)}
    asked = {key: mutant.source for key, mutant in found.items() if key not in known}
    with journal.open("a") as file:
        for key, said in verdicts(subject, asked, max(SHORTEST_LIMIT_S, LIMIT_FACTOR * baseline_s)):
            known[key] = said
            print(json.dumps([key, said]), file=file, flush=True)
    survivors = [mutant for key, mutant in found.items() if known[key] == "survived"]
    return {
        "tests": list(subject.tests),
        "mutants": len(found),
        "killed": len(found) - len(survivors),
        "of_these_by_time_limit": sum(known[key] == "time limit" for key in found),
        "survived": len(survivors),
        "tests_take_cpu_s": round(baseline_s, 1),
        "survivors": [{"line": mutant.line, "difference": list(mutant.difference)} for mutant in survivors],
    }


def verdicts(subject: Subject, sources: dict[str, str], limit_s: float) -> Iterator[tuple[str, str]]:
    """(key, killed, time limit or survived) of each source as it ends; as many at a time as there are cores.

    limit_s : CPU time of each

    One thread: a lock that another held would stay locked in the forked process.
    """
    waiting = list(sources.items())
    running: dict[int, tuple[str, float]] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            key, source = waiting.pop(0)
            process = os.fork()
            if process == 0:
                _run_tests_and_exit(subject, source, limit_s)
            running[process] = key, time.monotonic() + ASLEEP_S
        for process, (key, deadline) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                yield key, _verdict(os.waitstatus_to_exitcode(status))
            elif time.monotonic() > deadline:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                yield key, "time limit"
            else:
                continue
            del running[process]
            shutil.rmtree(WORK / f"tmp{process}", ignore_errors=True)
        time.sleep(0.02)


def _verdict(status: int) -> str:
    return {0: "survived", -signal.SIGXCPU: "time limit"}.get(status, "killed")


def _children_cpu_s() -> float:
    """CPU time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_tests_and_exit(subject: Subject, source: str, limit_s: float) -> NoReturn:
    """In the forked process: import the mutant in place of its module, run the tests quietly until one fails."""
    status = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 5))
        status = _run_tests(subject, source)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run_tests(subject: Subject, source: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    tree = WORK / "tree"
    os.chdir(tree)
    output = os.open(os.devnull if source != subject.source else OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path[:0] = [str(tree)]
    sys.meta_path.insert(0, Mutated(subject.module, source, tree / "dicom_io" / f"{subject.name}.py"))
    import hypothesis
    import pytest

    # The same examples for every mutant; the first failure is enough, nobody reads the smallest one.
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutants")
    options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(WORK / f"tmp{os.getpid()}")]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plug-ins are loaded before pytest starts
    return int(pytest.main([*options, *subject.tests]))


def _read(journal: Path) -> Iterator[tuple[str, str]]:
    """What earlier runs found; a line that a killed run left half-written is passed over."""
    for line in journal.read_text().splitlines() if journal.exists() else ():
        if line.endswith("]"):
            key, said = json.loads(line)
            yield key, said


def _summary(result: dict[str, Any]) -> str:
    return f"{result['killed']} of {result['mutants']} killed, {result['survived']} survived"


def _merged(results: dict[str, Any], seconds: float) -> dict[str, Any]:
    """This run's modules beside those that an earlier one wrote."""
    path = REPOSITORY / "benchmarks" / "results" / "mutants.json"
    before = json.loads(path.read_text())["modules"] if path.exists() else {}
    merged = before | results
    return {
        **provenance(REPOSITORY, packages=("pytest", "hypothesis")),
        "seed": "none: Hypothesis derives its examples from the tests",
        "sources_sha256": sha256_of_files(WORK / "tree" / "dicom_io" / f"{name}.py" for name in SUBJECTS),
        "seconds": round(seconds, 1),
        "modules": {name: merged[name] for name in SUBJECTS if name in merged},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
