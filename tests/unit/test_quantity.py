"""SUV factors by hand, in every unit and for every decay correction; the base case is that of tests/pet_header.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from dicom_io import administration, attributes, decay_reference, patient, quantity
from dicom_io.errors import QuantityRefused
from dicom_io.quantity import Factors
from tests.pet_header import AT_INJECTION, ONE_HALF_LIFE, Header, pet

NO_DECAY = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
Builder = Callable[[], list[Header]]


def found(headers: list[Header], kind: str = "BW") -> Factors:
    factors = quantity.suv(headers, UTC, kind)
    assert len(factors.factors) == len(headers)
    return factors


def factor(headers: list[Header]) -> tuple[Any, str]:
    """The one factor of a series that has one, and its branch."""
    factors = found(headers)
    assert max(factors.factors) == pytest.approx(min(factors.factors), rel=1e-12)
    return factors.factors[0], factors.branch


def refusal(headers: list[Header], measure: Callable[..., object] | None = None, zone: Any = UTC) -> QuantityRefused:
    with pytest.raises(QuantityRefused) as caught:
        measure(headers) if measure else quantity.suvbw(headers, zone)
    return caught.value


# Bq/mL


def test_start_decays_from_the_injection_to_series_time() -> None:
    factors = found(pet())
    assert factors.factors == pytest.approx((ONE_HALF_LIFE, ONE_HALF_LIFE), rel=1e-9)
    assert (factors.branch, factors.reference) == ("bqml-start-series-time", "BQML, START, series time")
    assert factors.warnings == ()


def test_suvbw_is_the_suv_of_the_kind_bw() -> None:
    assert quantity.suvbw(pet(), UTC) == quantity.suv(pet(), UTC, "BW")


def test_admin_is_not_decayed_again() -> None:
    """Decayed twice it would be 4e-4."""
    factors = found(pet(DecayCorrection="ADMIN"))
    assert factors == Factors(
        (AT_INJECTION, AT_INJECTION), "BQML, decay-corrected to the injection (ADMIN)", "bqml-admin"
    )
    assert factor(pet(DecayCorrection="ADMIN", RadionuclideHalfLife=..., SeriesTime=...))[0] == AT_INJECTION


@pytest.mark.parametrize("at", ["20260302100000", "20260302100700"])
def test_admin_beside_the_date_and_time_of_the_injection(at: str) -> None:
    """7 min change SUV by 2^(420/6586.2) = 1.0452: still taken for the injection."""
    assert factor(pet(DecayCorrection="ADMIN", DecayCorrectionDateTime=at)) == (AT_INJECTION, "bqml-admin")


def test_none_decays_from_the_injection_and_during_the_frame() -> None:
    """A frame as long as the half-life: λT/(1−e^−λT) = ln 2 / ½ = 1.38629436; 4e-4 · 1.38629436."""
    headers = pet(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=6586200)
    assert factor(headers) == (pytest.approx(5.54517744e-4, rel=1e-8), "bqml-none")


def test_none_differs_from_bed_to_bed() -> None:
    """A bed one half-life later has decayed to half, so its factor is twice the first one's."""
    headers = pet(DecayCorrection="NONE", CorrectedImage=["ATTN"])
    headers[1]["AcquisitionTime"] = "133932.4"  # 11:49:46.2 + 1:49:46.2
    first, second = quantity.suvbw(headers, UTC).factors
    assert second == pytest.approx(2.0 * first, rel=1e-12)
    # T = 120 s: λT = ln 2 · 120 / 6586.2 = 0.01262907; λT/(1−e^−λT) = 1.00632783; 4e-4 · 1.00632783.
    assert first == pytest.approx(4.02531132e-4, rel=1e-8)


@pytest.mark.parametrize(
    "changes",
    [
        {"RadionuclideTotalDose": 350.0},
        {"PatientWeight": 70000.0},
        {"RadionuclideHalfLife": ...},
        {"RadionuclideHalfLife": None},
        {
            "RadionuclideHalfLife": ...,
            "RadionuclideCodeSequence": [{"CodeValue": "C-111A1", "CodingSchemeDesignator": "99SDM"}],
        },
        {"RescaleIntercept": ...},
        {"RescaleSlope": 7.0},
        {"DecayFactor": 1.006},
    ],
    ids=["dose in MBq", "weight in g", "no half-life", "empty half-life", "old code", "no intercept", "slope", "decay"],
)
def test_what_scanners_write_instead(changes: Header) -> None:
    assert factor(pet(**changes))[0] == pytest.approx(ONE_HALF_LIFE, rel=1e-4)
    assert found(pet(**changes)).warnings == ()


# Counts


def counts(**changes: Any) -> list[Header]:
    return pet(Units="CNTS", **changes)


def test_philips_suv_factor() -> None:
    """Nothing else is needed: weight, dose and times are in Philips' factor."""
    bare = {"PatientWeight": ..., "RadionuclideTotalDose": ..., "AcquisitionTime": ..., "SeriesTime": ...}
    for headers in (counts(PhilipsSUVScaleFactor=0.000551), counts(PhilipsSUVScaleFactor=0.000551, **bare)):
        assert found(headers) == Factors(
            (0.000551, 0.000551), "CNTS, Philips SUV Scale Factor (7053,xx00)", "cnts-philips-suv"
        )


def test_philips_suv_factor_of_each_slice() -> None:
    headers = counts(PhilipsSUVScaleFactor=0.000551)
    headers[1]["PhilipsSUVScaleFactor"] = 0.0007
    assert quantity.suvbw(headers, UTC).factors == (0.000551, 0.0007)


@pytest.mark.parametrize("suv_factor", [0.0, None, ...])
def test_philips_activity_factor_goes_on_as_becquerels(suv_factor: Any) -> None:
    """1.5 · 4e-4."""
    factors = found(counts(PhilipsSUVScaleFactor=suv_factor, PhilipsActivityConcentrationScaleFactor=1.5))
    assert factors.factors == pytest.approx((6e-4, 6e-4), rel=1e-9)
    assert factors.branch == "cnts-philips-activity-start-series-time"
    assert factors.reference == "CNTS, Philips Activity Concentration Scale Factor (7053,xx09), START, series time"


def test_philips_activity_factor_without_decay_correction() -> None:
    """1.5 · 4.02531132e-4, see above."""
    headers = counts(
        PhilipsActivityConcentrationScaleFactor=1.5, DecayCorrection="NONE", CorrectedImage=["ATTN", "NORM"]
    )
    assert factor(headers) == (pytest.approx(6.03796698e-4, rel=1e-8), "cnts-philips-activity-none")


@pytest.mark.parametrize(
    ("suv_factor", "told"),
    # 1.5 Bq/mL per count make 6e-4; 6.31e-4 is 5.2 % more, 5.69e-4 is 5.2 % less.
    [(6.29e-4, False), (6.31e-4, True), (5.71e-4, False), (5.69e-4, True)],
)
@pytest.mark.parametrize("units", ["CNTS", "BQML"])
def test_philips_factors_that_contradict_weight_dose_and_times_are_told(
    units: str, suv_factor: float, told: bool
) -> None:
    headers = pet(Units=units, PhilipsSUVScaleFactor=suv_factor, PhilipsActivityConcentrationScaleFactor=1.5)
    factors = found(headers)
    assert factors.factors[0] == pytest.approx(suv_factor if units == "CNTS" else ONE_HALF_LIFE, rel=1e-9)
    said = "SUV by Philips' own factors would be {}: weight, dose or a time was changed after them"
    assert factors.warnings == ((said.format("+5%" if suv_factor > 6e-4 else "-5%"),) if told else ())
    assert found(headers, "LBM").warnings == factors.warnings


def test_philips_factors_of_single_slices_agree_with_each_other() -> None:
    """Twice the Bq/mL per count, twice the SUV per count: nothing to tell."""
    headers = counts(PhilipsSUVScaleFactor=6e-4, PhilipsActivityConcentrationScaleFactor=1.5)
    headers[1].update(PhilipsSUVScaleFactor=12e-4, PhilipsActivityConcentrationScaleFactor=3.0)
    assert found(headers).factors == (6e-4, 12e-4)
    assert found(headers).warnings == ()


def test_philips_factors_are_compared_on_the_first_slice() -> None:
    """Not corrected for decay, a bed half a half-life later has an SUV factor 1.41 times that of the first bed."""
    headers = counts(PhilipsActivityConcentrationScaleFactor=1.5, PhilipsSUVScaleFactor=1.5 * 4.02531132e-4, **NO_DECAY)
    headers[1]["AcquisitionTime"] = "124439.3"
    for header in headers:
        header["Units"] = "BQML"
    assert found(headers).warnings == ()
    assert len(found(headers[::-1]).warnings) == 1


def test_lean_body_mass_of_an_unknown_sex_from_philips_factor() -> None:
    assert len(found(counts(PhilipsSUVScaleFactor=6e-4, PatientSex="O"), "LBM").warnings) == 1
    assert found(counts(PhilipsSUVScaleFactor=6e-4, PatientSex="O"), "BSA").warnings == ()


# SUV of any kind


@pytest.mark.parametrize("suv_type", [..., None, "BW"])
@pytest.mark.parametrize(
    ("correction", "words"),
    [("START", ""), ("ADMIN", ", decay-corrected to the injection (ADMIN): no decay arithmetic")],
)
def test_suv_by_body_weight_is_itself(suv_type: Any, correction: str, words: str) -> None:
    """Nothing but the corrections is needed: neither weight nor dose nor times."""
    missing = {"PatientWeight": ..., "RadionuclideTotalDose": ..., "AcquisitionTime": ..., "SeriesTime": ...}
    headers = pet(Units="GML", SUVType=suv_type, DecayCorrection=correction, **missing)
    assert found(headers) == Factors((1.0, 1.0), f"GML, SUVbw as sent{words}", "gml-bw")


@pytest.mark.parametrize(
    ("suv_type", "sex", "weight_kg", "height_m", "expected"),
    [
        # M 80 kg 180 cm: (80/180)² = 0.19753086, BMI 24.691358; F 60 kg 165 cm: 0.13223140, BMI 22.038567.
        ("LBM", "M", 80.0, 1.80, 1.2442396),  # 80 / (88 − 120 · 0.19753086 = 64.296296)
        ("LBM", "F", 60.0, 1.65, 1.3443946),  # 60 / (64.2 − 148 · 0.13223140 = 44.629752)
        ("LBMJAMES128", "M", 80.0, 1.80, 1.2755906),  # 80 / (88 − 128 · 0.19753086 = 62.716049)
        ("LBMJAMES128", "F", 60.0, 1.65, 1.3443946),  # 60 / 44.629752
        ("LBMJANMA", "M", 80.0, 1.80, 1.2959367),  # 80 / (741600 / 12013.3333 = 61.731410)
        ("LBMJANMA", "F", 60.0, 1.65, 1.5272287),  # 60 / (556200 / 14157.4105 = 39.286846)
        ("IBW", "M", 80.0, 1.80, 1.0298661),  # 80 / (48 + 1.06 · 28 = 77.68)
        ("IBW", "F", 60.0, 1.65, 1.0465725),  # 60 / (45.5 + 0.91 · 13 = 57.33)
        ("LBM", "O", 80.0, 1.80, 1.3260211),  # 80 / ((64.296296 + 85.6 − 29.234568) / 2 = 60.330864)
        ("LBM", "M", 80.0, 180.0, 1.2442396),  # height in cm
    ],
)
def test_suv_by_another_measure_is_turned_to_body_weight_and_back(
    suv_type: str, sex: str, weight_kg: float, height_m: float, expected: float
) -> None:
    body = {"PatientSex": sex, "PatientWeight": weight_kg, "PatientSize": height_m}
    stored = found(pet(Units="GML", SUVType=suv_type, **body))
    assert stored.factors == pytest.approx((expected, expected), rel=1e-6)
    assert stored.branch == f"gml-{suv_type.lower()}"
    assert stored.reference == f"GML, SUV{suv_type.lower()} as sent, turned to SUVbw"
    asked = found(pet(Units="GML", **body), suv_type)
    assert asked.factors == pytest.approx((1.0 / expected, 1.0 / expected), rel=1e-6)
    unknown_sex = ("Patient's Sex (0010,0040) is neither M nor F: the mean of both formulas was taken",)
    assert stored.warnings == asked.warnings == (unknown_sex if sex == "O" else ())


BSA_RATIO = 3.787586
"""70 kg, 175 cm: 0.007184 · 175^0.725 · 70^0.425 = 0.007184 · 42.286582 · 6.0836843 = 1.848143 m²; 7e4 / 18 481.43."""


@pytest.mark.parametrize("suv_type", ["BSA", None, ...])
def test_suv_by_body_surface(suv_type: Any) -> None:
    factors = found(pet(Units="CM2ML", SUVType=suv_type, PatientSex="O"))
    assert factors.factors == pytest.approx((BSA_RATIO, BSA_RATIO), rel=1e-6)
    assert (factors.branch, factors.reference) == ("cm2ml", "CM2ML, SUVbsa as sent, turned to SUVbw")
    assert factors.warnings == ()


@pytest.mark.parametrize("kind", ["LBM", "LBMJAMES128", "LBMJANMA", "IBW", "BSA"])
def test_an_suv_in_its_own_kind_is_itself_without_a_patient(kind: str) -> None:
    headers = pet(Units="CM2ML" if kind == "BSA" else "GML", SUVType=kind, PatientWeight=..., PatientSize=...)
    assert found(headers, kind).factors == (1.0, 1.0)
    assert "turned" not in found(headers, kind).reference


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        # M 70 kg 175 cm: (70/175)² = 0.16, BMI 22.857143.
        ("BW", 1.0),
        ("LBM", 0.8257142857),  # (77 − 19.2 = 57.8) / 70
        ("LBMJAMES128", 0.8074285714),  # (77 − 20.48 = 56.52) / 70
        ("LBMJANMA", 0.7979587),  # (648900 / (6680 + 4937.142857) = 55.857108) / 70
        ("IBW", 1.034),  # (48 + 1.06 · 23 = 72.38) / 70
        ("BSA", 1.0 / BSA_RATIO),
    ],
)
def test_every_kind_from_activity_and_from_counts(kind: str, share: float) -> None:
    philips = counts(PhilipsSUVScaleFactor=0.0006, PhilipsActivityConcentrationScaleFactor=1.5)
    assert found(pet(), kind).factors[0] == pytest.approx(ONE_HALF_LIFE * share, rel=1e-6)
    assert found(philips, kind).factors[0] == pytest.approx(0.0006 * share, rel=1e-6)
    assert found(pet(Units="GML"), kind).factors[0] == pytest.approx(share, rel=1e-6)


# Refusals


def differing(keyword: str, value: object, **changes: Any) -> Builder:
    """A series whose second slice says something else."""

    def build() -> list[Header]:
        headers = pet(**changes)
        headers[1][keyword] = value
        return headers

    return build


def differing_in_dose() -> list[Header]:
    headers = pet()
    headers[1]["RadiopharmaceuticalInformationSequence"][0]["RadionuclideTotalDose"] = 351e6
    return headers


NO_CODE = {"RadionuclideCodeSequence": ...}
COPPER = {"RadionuclideHalfLife": 45721.0, **NO_CODE}
TIME_ONLY = {"RadiopharmaceuticalStartDateTime": ...}
LATE_SERIES = {"SeriesTime": "120000"}
REFUSED: list[tuple[Header | Builder, str]] = [
    ({"Units": "CPS"}, "units"),
    ({"Units": "PROPCPS"}, "units"),
    ({"Units": "PROPCNTS"}, "units"),
    ({"Units": "1CM"}, "units"),
    ({"Units": None}, "units"),
    ({"Units": ...}, "units"),
    ({"Units": ["BQML"]}, "units"),
    ({"CorrectedImage": ["NORM", "DECY"]}, "not-attenuation-corrected"),
    ({"CorrectedImage": ...}, "not-attenuation-corrected"),
    ({"AttenuationCorrectionMethod": "NONE"}, "not-attenuation-corrected"),
    (differing("CorrectedImage", ["DECY"]), "not-attenuation-corrected"),
    ({"CorrectedImage": ["ATTN"]}, "not-decay-corrected"),
    ({"CorrectedImage": ["ATTN"], "Units": "GML"}, "not-decay-corrected"),
    ({"CorrectedImage": ["ATTN"], "Units": "CM2ML"}, "not-decay-corrected"),
    ({"CorrectedImage": ["ATTN"], "Units": "CNTS", "PhilipsSUVScaleFactor": 0.1}, "not-decay-corrected"),
    ({"CorrectedImage": ["ATTN"], "DecayCorrection": "ADMIN"}, "not-decay-corrected"),
    ({"DecayCorrection": "NONE"}, "not-decay-corrected"),
    ({"DecayCorrection": "NONE", "Units": "GML"}, "not-decay-corrected"),
    ({"DecayCorrection": ...}, "not-decay-corrected"),
    ({"DecayCorrection": "SOMETIMES"}, "not-decay-corrected"),
    (differing("CorrectedImage", ["ATTN"]), "not-decay-corrected"),
    ({"PatientWeight": 0.0}, "no-weight"),
    ({"PatientWeight": None}, "no-weight"),
    ({"PatientWeight": ...}, "no-weight"),
    ({"PatientWeight": "seventy"}, "no-weight"),
    ({"PatientWeight": -70.0}, "no-weight"),
    ({"PatientWeight": 700.0}, "weight"),
    ({"PatientWeight": 7e8}, "weight"),
    ({"RadionuclideTotalDose": 0.0}, "no-dose"),
    ({"RadionuclideTotalDose": ...}, "no-dose"),
    ({"RadiopharmaceuticalInformationSequence": None}, "no-dose"),
    ({"RadionuclideTotalDose": 370000.0}, "dose"),  # 370 MBq in kBq
    ({"RadionuclideTotalDose": 1.5e6}, "dose"),  # 1.5 GBq in kBq: 21 kBq/kg
    ({"RadionuclideTotalDose": 10.0}, "dose"),  # mCi: 0.14 MBq/kg
    ({"RadionuclideTotalDose": 0.35}, "dose"),  # in GBq
    ({"RadionuclideTotalDose": 350e9}, "dose"),
    ({"RadiopharmaceuticalInformationSequence": [{}, {}]}, "radiopharmaceuticals"),
    ({"RadionuclideHalfLife": 4057.7}, "half-life"),  # Ga-68's under F-18's code
    ({"RadionuclideHalfLife": 109.8}, "half-life"),  # in minutes
    ({"RadionuclideHalfLife": 9999.0, **NO_CODE}, "half-life"),
    ({"RadionuclideHalfLife": ..., **NO_CODE}, "half-life"),
    ({"RadionuclideHalfLife": 4057.7, "Radiopharmaceutical": "FDG", **NO_CODE}, "half-life"),
    ({**TIME_ONLY, "RadiopharmaceuticalStartTime": ...}, "no-injection-time"),
    ({"RadiopharmaceuticalStartDateTime": "20260302", "RadiopharmaceuticalStartTime": None}, "no-injection-time"),
    ({**TIME_ONLY, "RadiopharmaceuticalStartTime": "10"}, "no-injection-time"),
    ({"RadiopharmaceuticalStartTime": "103000"}, "injection-time"),
    (
        {"RadiopharmaceuticalStartDateTime": "20260302120000", "RadiopharmaceuticalStartTime": ...},
        "negative-decay-time",
    ),
    ({"RadiopharmaceuticalStartDateTime": "20260303100000"}, "injection-date"),
    ({"RadiopharmaceuticalStartDateTime": "20260301100000"}, "injection-date"),
    ({"RadiopharmaceuticalStartDateTime": "20250302100000"}, "injection-date"),
    ({**TIME_ONLY, **COPPER}, "injection-date"),
    ({"RadiopharmaceuticalStartDateTime": "20260301130000", "RadiopharmaceuticalStartTime": ...}, "uptake-time"),
    ({**TIME_ONLY, "RadiopharmaceuticalStartTime": "130000"}, "uptake-time"),
    ({"AcquisitionTime": ...}, "no-acquisition-time"),
    ({"AcquisitionTime": "250000"}, "no-acquisition-time"),
    (differing("AcquisitionTime", None), "no-acquisition-time"),
    ({**LATE_SERIES, "FrameReferenceTime": ...}, "no-reference-time"),
    ({**LATE_SERIES, "FrameReferenceTime": -1.0}, "no-reference-time"),
    ({**LATE_SERIES, "FrameReferenceTime": 1e300}, "no-reference-time"),
    (differing("FrameReferenceTime", 659936.85, **LATE_SERIES), "no-reference-time"),  # 10 min apart
    (differing("AcquisitionDate", "20360302", **LATE_SERIES), "no-reference-time"),
    (
        differing("GEScanDateTime", "20260302113000", GEScanDateTime="20260302114946", **LATE_SERIES),
        "no-reference-time",
    ),
    ({"DecayCorrectionDateTime": "yesterday"}, "no-reference-time"),
    ({"DecayCorrection": "ADMIN", "DecayCorrectionDateTime": "20260302100800"}, "no-reference-time"),
    (
        {
            "DecayCorrection": "ADMIN",
            "DecayCorrectionDateTime": "20260302114930",  # Rb-82: 2^(−10/76.38) = 0.913
            "RadiopharmaceuticalStartDateTime": "20260302114940",
            "RadiopharmaceuticalStartTime": ...,
            "RadionuclideHalfLife": 76.38,
            **NO_CODE,
        },
        "no-reference-time",
    ),
    ({"SeriesTime": "110000", "FrameReferenceTime": 0.0}, "series-time"),
    ({**LATE_SERIES, "ActualFrameDuration": ...}, "no-frame-duration"),
    ({**NO_DECAY, "ActualFrameDuration": 0}, "no-frame-duration"),
    ({**NO_DECAY, "ActualFrameDuration": 86400001}, "no-frame-duration"),
    ({**LATE_SERIES, "FrameReferenceTime": 9e6}, "negative-decay-time"),
    (differing("AcquisitionDate", "20260305", **NO_DECAY), "uptake-time"),
    ({"RescaleIntercept": 1.0}, "intercept"),
    ({"RescaleIntercept": "NaN"}, "intercept"),
    ({"RescaleSlope": 0.0}, "slope"),
    ({"RescaleSlope": -1.0}, "slope"),
    ({"RescaleSlope": "1e400"}, "slope"),
    ({"RescaleSlope": ...}, "slope"),
    (differing("RescaleSlope", 0.0), "slope"),
    ({"Units": "GML", "SUVType": "LBX"}, "suv-type"),
    ({"Units": "GML", "SUVType": "BSA"}, "suv-type"),
    ({"Units": "CM2ML", "SUVType": "BW"}, "suv-type"),
    ({"Units": "GML", "SUVType": "LBM", "PatientSize": ...}, "no-height"),
    ({"Units": "GML", "SUVType": "LBM", "PatientSize": 0.0}, "no-height"),
    ({"Units": "CM2ML", "PatientSize": 2.9}, "height"),
    ({"Units": "GML", "SUVType": "IBW", "PatientSize": 1.0}, "height"),  # 48 − 1.06 · 52 < 0
    ({"Units": "CNTS"}, "no-philips-factor"),
    (
        {"Units": "CNTS", "PhilipsSUVScaleFactor": 0.0, "PhilipsActivityConcentrationScaleFactor": 0.0},
        "no-philips-factor",
    ),
    (
        {"Units": "CNTS", "PhilipsSUVScaleFactor": [0.1, 0.2], "PhilipsActivityConcentrationScaleFactor": 1.5},
        "no-philips-factor",
    ),
    ({"Units": "CNTS", "PhilipsSUVScaleFactor": -1.0}, "no-philips-factor"),
    (
        differing(
            "PhilipsSUVScaleFactor",
            0.0,
            Units="CNTS",
            PhilipsSUVScaleFactor=0.0005,
            PhilipsActivityConcentrationScaleFactor=1.5,
        ),
        "no-philips-factor",
    ),
    (differing("PhilipsSUVScaleFactor", None, Units="CNTS", PhilipsSUVScaleFactor=0.0005), "no-philips-factor"),
    ({"RadiopharmaceuticalStartDateTime": "20260302090000+0200", "RadiopharmaceuticalStartTime": ...}, "time-zone"),
    (differing("PatientWeight", 71.0), "mixed-header"),
    (differing("Units", "GML"), "mixed-header"),
    (differing("DecayCorrection", "ADMIN"), "mixed-header"),
    (differing("SUVType", "BW", Units="GML"), "mixed-header"),
    (differing("TimezoneOffsetFromUTC", "+0100"), "mixed-header"),
    (differing_in_dose, "mixed-header"),
]
ELSEWHERE = {"ambiguous-time"}
"""Refused only in a zone with daylight saving time: test_administration.py."""


def in_words(case: Header | Builder) -> str:
    return "differing" if callable(case) else str(case).replace("Ellipsis", "absent")


@pytest.mark.parametrize(
    ("changes", "code"), REFUSED, ids=lambda case: case if isinstance(case, str) else in_words(case)
)
def test_an_undefined_suv_is_refused_with_its_reason(changes: Header | Builder, code: str) -> None:
    refused = refusal(changes() if callable(changes) else pet(**changes))
    assert refused.code == code, refused
    assert re.search(r"expected|cannot|needs|name different", str(refused)), "says what was wanted"
    assert len(refused.hint) > 20


def codes_in_source() -> set[str]:
    """Every code that quantity.py and the modules below it can raise."""
    found_: set[str] = set()
    for module in (quantity, patient, administration, decay_reference, attributes):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if node.func.id in {"positive", "within"}:
                given.append(node.args[-1])
            found_ |= {str(value.value) for value in given if isinstance(value, ast.Constant)}
    return found_


def test_every_code_is_explained_and_met() -> None:
    table = str(quantity.__doc__).split("Codes of the refusals:")[1]
    explained = {code for line in re.findall(r"^    ([a-z, -]+?)  ", table, re.MULTILINE) for code in line.split(", ")}
    met = {code for _, code in REFUSED} | ELSEWHERE
    assert len(met) > 25
    assert codes_in_source() == explained == met


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ("CPS", "got CPS: counts per second cannot become SUV without a calibration factor"),
        ("PROPCPS", "got PROPCPS: values proportional to counts per second cannot become SUV"),
        ("PROPCNTS", "got PROPCNTS: values proportional to counts cannot become SUV"),
        ("PCNT", "got PCNT: per cent of an unknown whole"),
        ("1CM", "got 1CM: an attenuation map"),
        ("NONE", "got NONE: values without a unit"),
        ("STDDEV", "got STDDEV: standard deviations"),
        ("MLMINML", "got MLMINML: no SUV is defined from these"),
        ("Mueller, Joerg", "got something else: no SUV is defined from these"),
    ],
)
def test_units_that_cannot_become_suv_are_refused_by_name(units: str, reason: str) -> None:
    assert reason in str(refusal(pet(Units=units)))


def test_a_contradiction_about_corrections_is_named() -> None:
    said = str(refusal(pet(AttenuationCorrectionMethod="none, 0.096000 cm-1")))
    assert "AttenuationCorrectionMethod (0054,1101) names none" in said
    assert "decay" not in said


@pytest.mark.parametrize(
    ("changes", "wanted", "against"),
    [
        ({"CorrectedImage": ["ATTN"]}, "DECY on every slice", "lacks DECY, DecayCorrection (0054,1102) names one"),
        ({"DecayCorrection": "NONE"}, "no DECY, Decay Correction is NONE", "has DECY, DecayCorrection (0054,1102) "),
    ],
)
def test_two_stories_of_the_decay_correction_are_both_told(changes: Header, wanted: str, against: str) -> None:
    said = str(refusal(pet(**changes)))
    assert said.startswith(f"Corrected Image (0028,0051): expected {wanted}; decay: Corrected Image (0028,0051) ")
    assert against in said


def test_one_slice_is_a_series() -> None:
    assert found(pet(1)).factors == pytest.approx((ONE_HALF_LIFE,), rel=1e-9)
    admin = pet(1, DecayCorrection="ADMIN", DecayCorrectionDateTime="20260302100000")
    assert found(admin).factors == (AT_INJECTION,)
    philips = counts(PhilipsSUVScaleFactor=7e-4, PhilipsActivityConcentrationScaleFactor=1.5)[:1]
    assert len(found(philips).warnings) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "none"),
        (2.5, "2.5"),
        ("A234567890123456", "A234567890123456"),
        ("A2345678901234567", "something else"),
        ("Mueller, J", "something else"),
        (["BQML"], "something else"),
    ],
)
def test_a_message_repeats_numbers_and_short_codes_only(value: Any, said: str) -> None:
    assert attributes.shown(value) == said


def test_a_kind_of_suv_that_does_not_exist_is_refused() -> None:
    with pytest.raises(QuantityRefused) as caught:
        quantity.suv(pet(), UTC, "FFM")
    assert caught.value.code == "suv-type"
    assert "BW, LBM, LBMJAMES128, LBMJANMA, IBW, BSA, got FFM" in str(caught.value)


# Other quantities


def test_activity_needs_neither_patient_nor_corrections() -> None:
    bare = {"Units": "BQML", "RescaleSlope": 2.0}
    assert quantity.activity([bare, bare]) == Factors((1.0, 1.0), "BQML", "bqml")
    philips = {"Units": "CNTS", "RescaleSlope": 2.0, "PhilipsActivityConcentrationScaleFactor": 1.6}
    assert quantity.activity([philips]).factors == (1.6,)
    assert quantity.activity([philips]).branch == "cnts-philips-activity"
    assert refusal([{"Units": "GML", "RescaleSlope": 1.0}], quantity.activity).code == "units"
    assert refusal([{"Units": "CNTS", "RescaleSlope": 1.0}], quantity.activity).code == "no-philips-factor"
    assert refusal([{"Units": "BQML"}], quantity.activity).code == "slope"
    assert refusal([{**bare, "RescaleIntercept": 1.0}], quantity.activity).code == "intercept"


def test_hounsfield_units() -> None:
    ct = {"RescaleSlope": 1.0, "RescaleIntercept": -1024.0}
    assert quantity.hounsfield([ct, ct]) == Factors((1.0, 1.0), "Hounsfield units by Rescale Slope and Intercept", "hu")
    assert quantity.hounsfield([{**ct, "RescaleType": "HU"}]).factors == (1.0,)
    assert quantity.hounsfield([{**ct, "RescaleType": "US"}]).factors == (1.0,)
    assert refusal([{**ct, "RescaleType": "MGML"}], quantity.hounsfield).code == "units"
    assert refusal([{"RescaleSlope": 1.0}], quantity.hounsfield).code == "intercept"
    assert refusal([{**ct, "RescaleSlope": 0.0}], quantity.hounsfield).code == "slope"
