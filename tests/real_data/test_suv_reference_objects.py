"""PET digital reference objects of OncoRay/IBSI with known SUV: minimum, median, maximum are 0.20, 1.00, 4.00."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from pathlib import Path

import numpy as np
import pytest

from dicom_io import headers, quantity, series
from dicom_io.errors import QuantityRefused, UnreadableObject
from dicom_io.inspect import inspect
from dicom_io.volume import load
from engines.contract import Quantity
from tests.peers import unpack

EXPECTED = {
    "DRO_0_0": (0.20, 1.00, 4.00),
    "DRO_1_0": (0.20, 1.00, 4.00),
    "DRO_2_0": (0.20, 1.00, 4.00),
    "DRO_2_3": (0.189, 0.985, 3.977),  # stored as 5, 26 and 105 with a slope of 0.01 cm²/mL, hence coarse
    "DRO_4_0": (0.20, 1.00, 4.00),
    "DRO_5_0": (0.20, 1.00, 4.00),
}
FACTORS = {
    # 70 000 g / 368.08 MBq · 2^(3600/6586.2), 10:00 to 11:00: 1.9017605e-4 · 1.4606367.
    **dict.fromkeys(("DRO_0_0", "DRO_1_0", "DRO_4_0"), (2.7777812e-4, "bqml-start-series-time")),
    "DRO_2_0": (1.0, "gml-bw"),
    # 70 000 g / (0.007184 · 175^0.725 · 70^0.425 m² = 18 481.430 cm²)
    "DRO_2_3": (3.787586, "cm2ml"),
    # Ga-68: 1.9017605e-4 · 2^(3600/4057.7) = 1.9017605e-4 · 1.8495856.
    "DRO_5_0": (3.5174689e-4, "bqml-start-series-time"),
}
TRACERS = dict.fromkeys(EXPECTED, ("FDG", "F-18")) | {"DRO_5_0": ("PSMA", "Ga-68")}
BACKGROUND_SUV = 0.05


def files(name: str) -> list[Path]:
    folder = unpack(f"suv_reference_objects/{name}.tar.xz")
    return sorted(folder.rglob("PT/*.dcm"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_suv_is_the_one_that_was_built_in(name: str) -> None:
    loaded = load(files(name), Quantity.SUVBW, UTC)
    inside = loaded.volume.array[loaded.volume.array > BACKGROUND_SUV]
    assert (inside.min(), np.median(inside), inside.max()) == pytest.approx(EXPECTED[name], abs=0.0005)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_factors_are_those_worked_by_hand(name: str) -> None:
    """Nothing in these headers contradicts anything, in whatever order the slices come."""
    found = [headers.read(path).header for path in files(name)]
    for ordered in (found, found[::-1]):
        factors = quantity.suvbw(ordered, UTC)
        factor, branch = FACTORS[name]
        assert factors.factors == pytest.approx([factor] * len(found), rel=1e-6)
        assert (factors.branch, factors.warnings) == (branch, ())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_without_a_weight_only_an_suv_by_weight_is_left(name: str) -> None:
    """As the Basic Profile of de-identification (PS3.15 E) leaves a series."""
    found = [{**headers.read(path).header, "PatientWeight": None} for path in files(name)]
    if name == "DRO_2_0":
        assert set(quantity.suvbw(found, UTC).factors) == {1.0}
        return
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(found, UTC)
    assert caught.value.code == "no-weight"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_facts_and_inspection_agree_with_the_pixels(name: str) -> None:
    facts = series.understand([headers.read(path).header for path in files(name)], {}, UTC)
    assert (facts["tracer"], facts["radionuclide"]) == TRACERS[name]
    assert facts["kind"] == "static"
    assert facts["suv"]["status"] == "ok"
    assert facts["attenuation_corrected"] is True
    (inspected,) = inspect(files(name), UTC)["series"]
    assert inspected["suv"]["max"] == pytest.approx(EXPECTED[name][2], abs=0.0005)
    assert inspected["suv"]["min"] == 0.0


def test_a_header_without_units_dose_and_weight_gives_no_suv() -> None:
    """The NEMA phantom (gschramm/pynemaiqpet) whose header was stripped: two reconstructions, both a regular grid."""
    found = inspect([unpack("nema_iq_phantom.tar.xz")], UTC)["series"]
    assert len(found) == 2
    for facts in found:
        assert facts["shape"] == [89, 192, 192]
        assert (facts["tracer"], facts["kind"], facts["units"]) == (None, None, None)
        assert facts["suv"]["status"] == "refused"
        assert facts["suv"]["reason"].startswith("units: ")


@pytest.mark.parametrize("archive", ["pydicom_data.tar.xz", "dicom_objects_by_others.tar.xz"])
def test_objects_of_many_makers_are_read_or_refused_by_type(archive: str) -> None:
    outcomes: Counter[str] = Counter()
    for path in sorted(unpack(archive).rglob("*")):
        if path.is_file():
            try:
                headers.read(path)
                outcomes["read"] += 1
            except UnreadableObject as error:
                outcomes[error.code] += 1
    assert outcomes["read"] >= 36
    assert set(outcomes) <= {"read", "not-dicom", "transfer-syntax", "missing-uid", "illegal-uid", "truncated"}
