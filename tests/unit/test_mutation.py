"""The mutation testing itself: which faults it makes, and that what it is told to examine is there."""

from __future__ import annotations

import pytest

from benchmarks.machine import REPOSITORY
from tests.mutation.operators import mutants
from tests.mutation.run import SUBJECTS


def changed(source: str) -> list[str]:
    """The changed line of each mutant of one line; every mutant is a module."""
    found = mutants(source)
    for mutant in found:
        compile(mutant.source, "mutant", "exec")
    return sorted(line[1:].strip() for mutant in found for line in mutant.difference if line.startswith("+"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("limit = 3", ["limit = (4)"]),
        ("limit = 2.0", ["limit = (1.8)", "limit = (2.2)"]),
        ("origin = 0.0", ["origin = (1.0)"]),
        ("whole = True", ["whole = (False)"]),
        ("unit = 'BQML'", ["unit = ('XBQML')"]),
        ("a = b < c", ["a = (b <= c)"]),
        ("a = b <= c < d", ["a = (b < c < d)", "a = (b <= c <= d)"]),
        ("a = b is None", ["a = (b is not None)"]),
        ("a = b in c", ["a = (b not in c)"]),
        ("a = b - c", ["a = (b + c)"]),
        ("a = b * c", ["a = (b / c)"]),
        ("a = b and not c", ["a = (b or not c)", "a = b and (c)"]),
        ("a = -b", ["a = (b)"]),
        ("a = min(b)", ["a = (max(b))"]),
        ("a = abs(b)", ["a = (b)"]),
        ("check(a)", ["pass"]),
        ("a = b if c else d", ["a = b if (not (c)) else d"]),
        ("a = b if c == d else e", ["a = b if (c != d) else e"]),
        ("a = [b for b in c if b]", ["a = [b for b in c if (not (b))]"]),
    ],
)
def test_one_fault_at_a_time(source: str, expected: list[str]) -> None:
    assert changed(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Documentation."""',
        "a: Literal['BQML', 'GML']",
        "def f(a: Literal['x'] = b) -> Literal['y']: ...",
        "@dataclass(frozen=True)\nclass A: ...",
        "message = 'BQML'",
        "a = f'{b + 1} BQML'",
        "a = 'expected a number, got none'",
        "a = zip(b, c, strict=True)",
        "if TYPE_CHECKING:\n    a = 1",
    ],
)
def test_what_no_test_should_tell_is_left_alone(source: str) -> None:
    assert changed(source) == []


def test_the_rest_of_the_file_stays_as_it_was() -> None:
    source = "# größer\na = 'ä' + b  # why\nc = 1 < d  # as well\n"
    comparison = next(mutant for mutant in mutants(source) if "<=" in mutant.source)
    assert comparison.source == "# größer\na = 'ä' + b  # why\nc = (1 <= d)  # as well\n"
    assert (comparison.line, comparison.difference) == (3, ("-c = 1 < d  # as well", "+c = (1 <= d)  # as well"))


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_and_its_tests_are_there(name: str) -> None:
    source = (REPOSITORY / "dicom_io" / f"{name}.py").read_text()
    assert len(mutants(source)) > 5
    assert all(mutant.source != source for mutant in mutants(source))
    for test in SUBJECTS[name]:
        assert (REPOSITORY / "tests" / test).is_file(), test
