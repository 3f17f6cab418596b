"""The self-test of SUV: silent on this installation, loud on every fault put into it, and the source of the page."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.verification import Verification, require, verify
from dicom_io import quantity, selftest, volume
from dicom_io.errors import SelfTestFailed
from dicom_io.reference_objects import REFERENCE_OBJECTS, RULES
from dicom_io.reference_scan import TRUE_SUV
from dicom_io.selftest import Outcome
from engines.contract import Quantity
from tests.misreading import MUTATIONS, SetAttribute

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "quantity.md"
USUAL = REFERENCE_OBJECTS[0]
CPU_S_MAX = 2.0
"""Twice what it takes, for a machine that is busy with something else."""


def test_every_reference_object_is_read_as_it_was_made():
    started = time.process_time()
    assert selftest.run() == []
    took_s = time.process_time() - started
    print(f"\n{len(REFERENCE_OBJECTS)} reference objects in {took_s:.2f} s of one core")
    assert took_s < CPU_S_MAX


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_fault_in_the_reading_is_found(mutation: Callable[[SetAttribute], None], monkeypatch: pytest.MonkeyPatch):
    shown_by = [one for one in REFERENCE_OBJECTS if one.name == MUTATIONS[mutation]]
    assert selftest.run(shown_by) == []
    mutation(monkeypatch.setattr)
    assert [found.name for found in selftest.run(shown_by)] == [MUTATIONS[mutation]]


@pytest.mark.parametrize(
    ("outcome", "expected", "got"),
    [
        (Outcome("bqml-admin", TRUE_SUV), "bqml-start-series-time", "bqml-admin"),
        (Outcome("no-weight", None), "bqml-start-series-time", "no-weight"),
        (Outcome("bqml-start-series-time", TRUE_SUV[:1]), "shape (2, 4, 4)", "(1, 4, 4)"),
        (Outcome("bqml-start-series-time", TRUE_SUV * (1.0 + 2e-6)), "SUV 4 at (0, 0, 3)", "4.000008"),
        (Outcome("bqml-start-series-time", np.where(TRUE_SUV == 0.0, 1e-9, TRUE_SUV)), "SUV 0 at (0, 0, 0)", "1e-09"),
        (Outcome("bqml-start-series-time", np.full_like(TRUE_SUV, np.nan)), "SUV 0 at (0, 0, 0)", "nan"),
    ],
)
def test_a_deviation_names_what_was_expected_and_what_came(outcome: Outcome, expected: str, got: str):
    found = selftest.deviation(USUAL, outcome)
    assert found is not None
    assert (found.name, found.expected, found.got) == (USUAL.name, expected, got)


def test_rounding_to_float32_is_no_deviation():
    outcome = Outcome("bqml-start-series-time", TRUE_SUV.astype(np.float32))
    assert selftest.deviation(USUAL, outcome) is None


def test_a_refusal_that_was_expected_is_no_deviation_and_an_suv_in_its_place_is_one():
    refused = replace(USUAL, expected="no-weight")
    assert selftest.deviation(refused, Outcome("no-weight", None)) is None
    assert selftest.deviation(refused, Outcome("bqml-start-series-time", TRUE_SUV)) is not None


def test_it_loads_neither_highdicom_nor_torch():
    code = "import sys; from dicom_io import selftest; print(selftest.run(), {'highdicom', 'torch'} & set(sys.modules))"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, timeout=60, text=True)
    assert said == "[] set()\n"


def test_a_fault_of_our_own_code_is_a_deviation(monkeypatch: pytest.MonkeyPatch):
    def stumble(*_: object) -> None:
        raise ZeroDivisionError("patient text that must not be shown")

    monkeypatch.setattr(quantity, "suvbw", stumble)
    verification = verify()
    assert verification.deviations == ("self-test: expected an outcome for every object, got ZeroDivisionError",)


def test_no_room_for_temporary_files_is_a_deviation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert verify().deviations == ("self-test: expected an outcome for every object, got FileNotFoundError",)


def test_engines_that_ask_for_suv_are_stopped_by_a_deviation_and_no_others():
    sound, unsound = Verification(84, 600, ()), Verification(84, 600, ("object: expected 1, got 2",))
    for verification in (sound, None):
        require(verification, [Quantity.SUVBW, Quantity.HU])
    require(unsound, [Quantity.ACTIVITY_BQML, Quantity.HU])
    with pytest.raises(SelfTestFailed, match=r"84 reference objects in 600 ms, 1 wrong, such as object: expected 1"):
        require(unsound, [Quantity.HU, Quantity.SUVBW])
    assert Verification.from_json(unsound.to_json()) == unsound


def test_the_page_says_what_the_self_test_reads():
    page = PAGE.read_text()
    assert selftest.rewritten(page) == page, "python -m dicom_io.selftest docs/quantity.md"


def test_the_page_has_every_branch_and_every_refusal():
    page = PAGE.read_text()
    assert all(f"| `{rule.branch}` |" in page for rule in RULES)
    listed = (quantity.__doc__ or "").partition("Codes of the refusals")[2]
    lines = re.findall(r"^    ([a-z-]+(?:, [a-z-]+)*)  +\S", listed, re.MULTILINE)
    codes = {code for line in lines for code in line.split(", ")}
    assert len(codes) > 25
    table = page.partition("## Refusals")[2].partition("\n## ")[0]
    guards = set(re.findall(r"`([a-z-]+)`", table))
    assert guards == codes | {"modality"}
    assert codes <= {one.expected for one in REFERENCE_OBJECTS if isinstance(one.expected, str)}


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(SystemExit, match="table of branches"):
        selftest.rewritten("# SUV")


def test_the_branch_reaches_the_loaded_series(tmp_path: Path):
    for number, dataset in enumerate(USUAL.data_sets()):
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    loaded = volume.load(sorted(tmp_path.iterdir()), Quantity.SUVBW, selftest.SITE)
    assert loaded.suv_branch == "bqml-start-series-time"
