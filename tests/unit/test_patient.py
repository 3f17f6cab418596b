"""Weight, height and what an SUV is normalised by; expectations are the published formulas worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_io.errors import QuantityRefused
from dicom_io.patient import height_m_of, normaliser_of, weight_kg_of


def patient(sex: str | None = "M", weight: Any = 70.0, height: Any = 1.75) -> list[dict[str, Any]]:
    return [{"PatientSex": sex, "PatientWeight": weight, "PatientSize": height}] * 2


@pytest.mark.parametrize(
    ("sent", "weight_kg"),
    [(70.0, 70.0), (70, 70.0), (1000.5, 1.0005), (70000.0, 70.0), (0.025, 0.025), (0.01, 0.01), (500.0, 500.0)],
)
def test_weight(sent: float, weight_kg: float) -> None:
    assert weight_kg_of(patient(weight=sent)) == pytest.approx(weight_kg, rel=1e-12)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        *((sent, "no-weight") for sent in (0.0, None, "70", -1.0, float("nan"))),
        *((sent, "weight") for sent in (0.0099, 500.1, 1000.0, 500_100.0)),
    ],
)
def test_no_weight(sent: Any, code: str) -> None:
    with pytest.raises(QuantityRefused) as caught:
        weight_kg_of(patient(weight=sent))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("sent", "height_m"), [(1.75, 1.75), (175, 1.75), (0.3, 0.3), (2.6, 2.6), (3.1e1, 0.31), (260.0, 2.6)]
)
def test_height(sent: float, height_m: float) -> None:
    assert height_m_of(patient(height=sent)) == pytest.approx(height_m, rel=1e-12)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        *((sent, "no-height") for sent in (0.0, None, "1.75", -1.0)),
        *((sent, "height") for sent in (0.29, 2.61, 3.0, 3.1, 260.1, 1750.0)),
    ],
)
def test_no_height(sent: Any, code: str) -> None:
    with pytest.raises(QuantityRefused) as caught:
        height_m_of(patient(height=sent))
    assert caught.value.code == code


@pytest.mark.parametrize(("sent", "read"), [(2.8, "2.8"), (3.0, "3"), (3.2, "0.032")])
def test_a_height_that_cannot_be_is_told_in_metres(sent: float, read: str) -> None:
    """Above 3 the number was read as centimetres."""
    with pytest.raises(QuantityRefused) as caught:
        height_m_of(patient(height=sent))
    assert str(caught.value) == f"Patient's Size (0010,1020) [m]: expected 0.3 to 2.6, got {read}"


def test_a_measure_that_does_not_exist_is_refused() -> None:
    with pytest.raises(QuantityRefused) as caught:
        normaliser_of(patient(), "FFM")
    assert caught.value.code == "suv-type"


@pytest.mark.parametrize(
    ("kind", "male", "female"),
    [
        # 70 kg, 175 cm: (70/175)² = 0.16; BMI 22.8571429.
        ("BW", 70_000.0, 70_000.0),
        ("LBM", 57_800.0, 51_220.0),  # 77 − 19.2; 74.9 − 23.68
        ("LBMJAMES128", 56_520.0, 51_220.0),  # 77 − 20.48; 74.9 − 23.68
        ("LBMJANMA", 55_857.108, 45_197.015),  # 648900/(6680 + 4937.142857); 648900/(8780 + 5577.142857)
        ("IBW", 72_380.0, 66_430.0),  # 48 + 24.38; 45.5 + 20.93
        ("BSA", 18_481.430, 18_481.430),  # 0.007184 · 42.286582 · 6.0836843 m²
    ],
)
def test_measures_of_the_body(kind: str, male: float, female: float) -> None:
    assert normaliser_of(patient("M"), kind) == pytest.approx(male, rel=1e-6)
    assert normaliser_of(patient("F"), kind) == pytest.approx(female, rel=1e-6)
    for neither in ("O", None, "", "m"):
        assert normaliser_of(patient(neither), kind) == pytest.approx(
            (normaliser_of(patient("M"), kind) + normaliser_of(patient("F"), kind)) / 2.0, rel=1e-12
        )


def test_weight_and_height_come_from_the_whole_series() -> None:
    headers = [*patient(), *patient(weight=71.0)]
    for kind in ("BW", "LBM", "BSA"):
        with pytest.raises(QuantityRefused) as caught:
            normaliser_of(headers, kind)
        assert caught.value.code == "mixed-header"


def test_an_ideal_weight_below_zero_is_refused() -> None:
    """48 + 1.06 · (106.73 − 152) = 0.0138 kg; at 106.72 cm it is 0.0032 kg, lighter than any mouse."""
    assert normaliser_of(patient(height=1.0673), "IBW") == pytest.approx(13.8, abs=0.01)
    with pytest.raises(QuantityRefused) as caught:
        normaliser_of(patient(height=1.0672), "IBW")
    assert caught.value.code == "height"
