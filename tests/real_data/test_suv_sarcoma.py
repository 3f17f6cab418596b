"""Twenty real PET series in GML with Decay Correction ADMIN (GE Discovery ST): the SUV is the one that was sent."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from dicom_io import headers, quantity
from dicom_io.errors import QuantityRefused
from tests.peers import unpack_sarcoma

NAMES = [
    f"STS_{number:03d}" for number in (1, 3, 4, 5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 21, 23, 25, 26, 27, 30, 32)
]  # fmt: skip


def pet_headers(name: str) -> list[dict[str, Any]]:
    files: list[Path] = sorted((unpack_sarcoma(name) / "PET" / "image").glob("*.dcm"))
    assert len(files) > 20
    return [headers.read(path).header for path in files]


@pytest.mark.parametrize("name", NAMES)
def test_an_suv_that_was_sent_passes_unchanged(name: str) -> None:
    """Decay arithmetic, which ADMIN forbids, would multiply it: here injections lie 40 to 200 min before the scan."""
    found = pet_headers(name)
    assert {header["DecayCorrection"] for header in found} == {"ADMIN"}
    assert {header["SUVType"] for header in found} <= {"BW", None}
    factors = quantity.suvbw(found, UTC)
    assert set(factors.factors) == {1.0}
    assert factors.reference == "GML, SUVbw as sent, decay-corrected to the injection (ADMIN): no decay arithmetic"
    assert (factors.branch, factors.warnings) == ("gml-bw", ())


@pytest.mark.parametrize("name", NAMES)
def test_lean_body_mass_by_the_patient_of_the_header(name: str) -> None:
    """Janmahasatian 2005: 9270 W / (6680 + 216 BMI) for men, 9270 W / (8780 + 244 BMI) for women."""
    found = pet_headers(name)
    sex, weight_kg, height_m = (found[0][key] for key in ("PatientSex", "PatientWeight", "PatientSize"))
    if not height_m:
        with pytest.raises(QuantityRefused) as caught:
            quantity.suv(found, UTC, "LBMJANMA")
        assert caught.value.code == "no-height"
        return
    bmi = weight_kg / height_m**2
    share = 9270.0 / (6680.0 + 216.0 * bmi) if sex == "M" else 9270.0 / (8780.0 + 244.0 * bmi)
    assert quantity.suv(found, UTC, "LBMJANMA").factors == pytest.approx([share] * len(found), rel=1e-9)


def test_the_same_series_as_activity_is_not_decayed_a_second_time() -> None:
    """Had the scanner stored Bq/mL, ADMIN would make W/D: 71 kg and 388 777 472 Bq."""
    found = [{**header, "Units": "BQML", "SUVType": None} for header in pet_headers("STS_001")]
    factors = quantity.suvbw(found, UTC)
    assert factors.factors == pytest.approx([71_000.0 / 388_777_472.0] * len(found), rel=1e-12)
    assert factors.branch == "bqml-admin"
