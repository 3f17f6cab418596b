"""The self-test of SUV: every reference object through the reader a study goes through, compared voxel by voxel.

`python -m dicom_io.selftest docs/quantity.md` rewrites the tables of that page from what was read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dicom_io import volume
from dicom_io.errors import DicomError
from dicom_io.reference_objects import REFERENCE_OBJECTS, RULES, ReferenceObject, Rule
from dicom_io.reference_scan import LEVELS_SUV, SITE, TRUE_SUV
from engines.contract import FloatArray, Quantity

RELATIVE_TOLERANCE = 1e-6
"""The objects are exact: every level is a whole number of steps, and slopes are written with ten digits or more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the reader made of one object.

    said : the branch taken, or the code of the refusal
    suv : float32 (z, y, x) [g/mL], None where refused
    """

    said: str
    suv: FloatArray | None


@dataclass(frozen=True, slots=True)
class Deviation:
    """One object that was not read as it was made."""

    name: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, got {self.got}"


def run(objects: Sequence[ReferenceObject] = REFERENCE_OBJECTS) -> list[Deviation]:
    """Write each object to a temporary folder, read it, and name what is not as it was made; empty when all is well.

    Raises
    ------
    OSError
        There is no room for temporary files.
    """
    found = zip(objects, outcomes(objects), strict=True)
    return [off for one, outcome in found if (off := deviation(one, outcome)) is not None]


def outcomes(objects: Iterable[ReferenceObject]) -> Iterator[Outcome]:
    """What `volume.load` makes of each object."""
    with TemporaryDirectory(prefix="tracerd-self-test-") as folder:
        for one in objects:
            yield _outcome(one, Path(folder))


def _outcome(one: ReferenceObject, folder: Path) -> Outcome:
    paths = []
    for number, dataset in enumerate(one.data_sets()):
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    try:
        loaded = volume.load(paths, Quantity.SUVBW, SITE)
    except DicomError as refusal:
        return Outcome(refusal.code, None)
    return Outcome(loaded.suv_branch, loaded.volume.array)


def deviation(one: ReferenceObject, outcome: Outcome) -> Deviation | None:
    """The difference between an object as it was made and as it was read."""
    expected = one.expected.branch if isinstance(one.expected, Rule) else one.expected
    if outcome.said != expected:
        return Deviation(one.name, expected, outcome.said)
    if outcome.suv is None:
        return None
    if outcome.suv.shape != TRUE_SUV.shape:
        return Deviation(one.name, f"shape {TRUE_SUV.shape}", f"{outcome.suv.shape}")
    off = np.abs(outcome.suv - TRUE_SUV)
    if np.all(off <= RELATIVE_TOLERANCE * TRUE_SUV):
        return None
    worst = np.unravel_index(int(np.argmax(off)), off.shape)
    place = tuple(int(index) for index in worst)
    return Deviation(one.name, f"SUV {TRUE_SUV[worst]:g} at {place}", f"{outcome.suv[worst]:.7g}")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def table_of_rules() -> str:
    """Every branch with its formula, tags and source, in Markdown."""
    rows = ((f"`{rule.branch}`", rule.formula, rule.tags, rule.source) for rule in RULES)
    return markdown(("branch", "SUVbw [g/mL] =", "decided by", "source"), rows)


def table_of_objects() -> str:
    """Every object of a known SUV with what was read from it, in Markdown."""
    levels = LEVELS_SUV[1:]
    true = " / ".join(f"{level:.2f}" for level in levels)
    rows = []
    for one, outcome in _read(with_suv=True):
        found, off = "refused", "all"
        if outcome.suv is not None:
            means = [outcome.suv[level == TRUE_SUV].mean(dtype=np.float64) for level in levels]
            worst = max(np.abs(outcome.suv[level == TRUE_SUV] / level - 1.0).max() for level in levels)
            found, off = " / ".join(f"{mean:.4f}" for mean in means), f"{100.0 * worst:.4f} %"
        rows.append((one.name, one.shows, f"`{outcome.said}`", true, found, off))
    return markdown(("object", "what it shows", "branch", "true SUV", "SUV read", "largest deviation"), rows)


def table_of_refusals() -> str:
    """Every object without an SUV with the code it was refused with, in Markdown."""
    rows = ((one.shows, f"`{one.expected}`", f"`{outcome.said}`") for one, outcome in _read(with_suv=False))
    return markdown(("series", "to be refused", "refused"), rows)


def _read(*, with_suv: bool) -> Iterator[tuple[ReferenceObject, Outcome]]:
    chosen = [one for one in REFERENCE_OBJECTS if isinstance(one.expected, Rule) is with_suv]
    return zip(chosen, outcomes(chosen), strict=True)


TABLES = {"branches": table_of_rules, "reference objects": table_of_objects, "refused series": table_of_refusals}


def rewritten(page: str) -> str:
    """A page with its tables made anew, each between `<!-- table of … -->` and `<!-- end of table -->`."""
    for name, table in TABLES.items():
        begins, ends = f"<!-- table of {name} -->", "<!-- end of table -->"
        before, begin, rest = page.partition(begins)
        _, end, after = rest.partition(ends)
        if not begin or not end:
            raise SystemExit(f"expected the lines {begins} and {ends}")
        page = f"{before}{begins}\n{table()}\n{ends}{after}"
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(rewritten(target.read_text()))
