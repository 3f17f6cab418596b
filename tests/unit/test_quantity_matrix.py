"""Scanners of five makers, each with its habits, against every way in which a series can tell its SUV.

Two beds of two slices, 3 min each. The injection was at 09:15, the decay reference is 10:20:30 whatever the header
shows of it, the beds began at 10:20:30 and 10:23:45. Expectations are worked out here, from these times alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from math import exp, log
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dicom_io import quantity
from dicom_io.errors import QuantityRefused

Header = dict[str, Any]
BERLIN = ZoneInfo("Europe/Berlin")
WEIGHT_KG, HEIGHT_M, DOSE_BQ, HALF_LIFE_S = 82.5, 1.79, 297.3e6, 6586.2
REFERENCE_S = 65 * 60 + 30.0
"""09:15:00 to 10:20:30."""
BEDS_S = (REFERENCE_S, REFERENCE_S + 195.0)
"""The second bed at 10:23:45."""
FRAME_S = 180.0
BEDS = (0, 0, 1, 1)
"""Which bed each slice belongs to."""


def suvbw(after_s: float) -> float:
    """g/Bq · 2^(t/T½): SUV of 1 Bq/mL measured or corrected so long after the injection."""
    return float(WEIGHT_KG * 1000.0 / DOSE_BQ * 2.0 ** (after_s / HALF_LIFE_S))


def during_the_frame() -> float:
    """Activity at the start of a frame over the mean during it, as the sum of a million short decays."""
    steps = 1_000_000
    share = 2.0 ** (-FRAME_S / HALF_LIFE_S / steps)
    return float(steps / (share**0.5 * (1.0 - share**steps) / (1.0 - share)))


def mean_reached_s() -> float:
    """When the mean activity of a frame is reached after its start."""
    return float(log(during_the_frame()) / log(2.0) * HALF_LIFE_S)


def drug(**changes: Any) -> list[Header]:
    item = {
        "RadionuclideTotalDose": DOSE_BQ,
        "RadionuclideHalfLife": HALF_LIFE_S,
        "RadiopharmaceuticalStartTime": "091500.00",
        "RadiopharmaceuticalStartDateTime": "20251103091500.00",
        "RadionuclideCodeSequence": [{"CodeValue": "C-111A1", "CodingSchemeDesignator": "SRT"}],
    }
    return [{key: value for key, value in {**item, **changes}.items() if value is not ...}]


def common(bed: int) -> Header:
    return {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY"],
        "RescaleIntercept": 0.0,
        "PatientWeight": WEIGHT_KG,
        "PatientSize": HEIGHT_M,
        "PatientSex": "F",
        "SeriesDate": "20251103",
        "SeriesTime": "102030",
        "AcquisitionDate": "20251103",
        "AcquisitionTime": ("102030", "102345")[bed],
        "ActualFrameDuration": int(FRAME_S * 1000),
        "DecayFactor": round(2.0 ** ((BEDS_S[bed] - REFERENCE_S) / HALF_LIFE_S) * during_the_frame(), 6),
    }


def counted_from_the_reference(bed: int) -> float:
    return (BEDS_S[bed] - REFERENCE_S + mean_reached_s()) * 1000.0


def siemens() -> list[Header]:
    """A slope for every slice; Series Time is the start of the first bed, Frame Reference Time counts from it."""
    return [
        common(bed)
        | {
            "Manufacturer": "SIEMENS",
            "RescaleSlope": 0.13 + 0.021 * index,
            "SeriesTime": "102030.000000",
            "AttenuationCorrectionMethod": "measured,AC_CT_Brain",
            "FrameReferenceTime": counted_from_the_reference(bed),
            "RadiopharmaceuticalInformationSequence": drug(RadiopharmaceuticalStartTime="091500.000000"),
        }
        for index, bed in enumerate(BEDS)
    ]


def ge() -> list[Header]:
    """One slope, no Frame Reference Time, the scan's date and time in a private element."""
    return [
        common(bed)
        | {
            "Manufacturer": "GE MEDICAL SYSTEMS",
            "RescaleSlope": 2.75,
            "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RANSNG", "DCAL", "SLSENS", "NORM"],
            "AttenuationCorrectionMethod": "CTAC, 0.096000 cm-1",
            "GEScanDateTime": "20251103102030.00",
            "FrameReferenceTime": 0.0,
            "RadiopharmaceuticalInformationSequence": drug(),
        }
        for bed in BEDS
    ]


def philips() -> list[Header]:
    """Counts, with both private factors; the scaled counts of this series are 1.37 Bq/mL each."""
    return [
        common(bed)
        | {
            "Manufacturer": "Philips Medical Systems",
            "Units": "CNTS",
            "RescaleSlope": 1.0 + 0.1 * index,
            "CorrectedImage": ["DECY", "RADL", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
            "PhilipsActivityConcentrationScaleFactor": 1.37,
            "PhilipsSUVScaleFactor": 1.37 * suvbw(REFERENCE_S),
            "FrameReferenceTime": counted_from_the_reference(bed),
            "RadiopharmaceuticalInformationSequence": drug(RadiopharmaceuticalStartDateTime=...),
        }
        for index, bed in enumerate(BEDS)
    ]


def cps() -> list[Header]:
    """The first Biographs: no Frame Reference Time, no Decay Factor, only a time of day of the injection, no size."""
    return [
        {
            **common(bed),
            "Manufacturer": "CPS",
            "RescaleSlope": 3.1,
            "FrameReferenceTime": 0.0,
            "DecayFactor": None,
            "PatientSize": None,
            "RadiopharmaceuticalInformationSequence": drug(
                RadiopharmaceuticalStartDateTime=..., RadionuclideCodeSequence=...
            ),
        }
        for bed in BEDS
    ]


def united_imaging() -> list[Header]:
    return [
        common(bed)
        | {
            "Manufacturer": "UIH",
            "RescaleSlope": 0.4,
            "FrameReferenceTime": counted_from_the_reference(bed),
            "AcquisitionDateTime": f"20251103{('102030', '102345')[bed]}",
            "RadiopharmaceuticalInformationSequence": drug(),
        }
        for bed in BEDS
    ]


MAKERS: dict[str, Callable[[], list[Header]]] = {
    "Siemens": siemens,
    "GE": ge,
    "Philips": philips,
    "CPS": cps,
    "United Imaging": united_imaging,
}
each_maker = pytest.mark.parametrize("maker", MAKERS)
AS_SENT = dict.fromkeys(MAKERS, "bqml-start-series-time") | {"Philips": "cnts-philips-suv"}


def series(maker: str, *, activity: bool = False, injection: Header | None = None, **changes: Any) -> list[Header]:
    """As the maker sends it, with changes on every slice; `activity`: Philips without its own SUV factor."""
    headers = MAKERS[maker]()
    for header in headers:
        header |= changes
        if activity and maker == "Philips":
            header["PhilipsSUVScaleFactor"] = 0.0
        if injection:
            item = header["RadiopharmaceuticalInformationSequence"][0] | injection
            header["RadiopharmaceuticalInformationSequence"] = [
                {key: value for key, value in item.items() if value is not ...}
            ]
    return headers


def scale(maker: str) -> float:
    """Bq/mL per rescaled unit."""
    return 1.37 if maker == "Philips" else 1.0


def branch(maker: str, name: str) -> str:
    return f"cnts-philips-activity-{name}" if maker == "Philips" else f"bqml-{name}"


def check(headers: list[Header], expected: list[float], branch_: str, *, warnings: int = 0, zone: Any = UTC) -> None:
    found = quantity.suvbw(headers, zone)
    assert found.factors == pytest.approx(expected, rel=1e-6)
    assert found.branch == branch_
    assert len(found.warnings) == warnings, found.warnings


def refused(headers: list[Header], code: str, zone: Any = UTC) -> None:
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(headers, zone)
    assert caught.value.code == code, caught.value


# As sent


@each_maker
def test_as_sent(maker: str) -> None:
    check(series(maker), [scale(maker) * suvbw(REFERENCE_S)] * 4, AS_SENT[maker])


@each_maker
def test_activity_as_sent(maker: str) -> None:
    check(series(maker, activity=True), [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
def test_in_any_order_of_the_slices(maker: str) -> None:
    headers = series(maker, activity=True)
    check(headers[::-1], [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
def test_corrected_to_the_injection(maker: str) -> None:
    headers = series(maker, activity=True, DecayCorrection="ADMIN")
    check(headers, [scale(maker) * suvbw(0.0)] * 4, branch(maker, "admin"))


@each_maker
def test_not_corrected_for_decay(maker: str) -> None:
    """Each bed by its own start, and by the decay during its frame."""
    headers = series(maker, activity=True, DecayCorrection="NONE", CorrectedImage=["ATTN", "NORM"], DecayFactor=None)
    expected = [scale(maker) * suvbw(BEDS_S[bed]) * during_the_frame() for bed in BEDS]
    check(headers, expected, branch(maker, "none"))


@each_maker
@pytest.mark.parametrize(("at", "after_s"), [("20251103102030", REFERENCE_S), ("20251103091500", 0.0)])
def test_an_explicit_decay_reference(maker: str, at: str, after_s: float) -> None:
    quiet = {"GEScanDateTime": None, "FrameReferenceTime": None, "DecayFactor": None}
    headers = series(maker, activity=True, DecayCorrectionDateTime=at, **quiet)
    check(headers, [scale(maker) * suvbw(after_s)] * 4, branch(maker, "start-decay-correction-datetime"))


@each_maker
@pytest.mark.parametrize("series_time", ["113000", "000000.00", "084500", None])
def test_a_series_time_of_post_processing_or_de_identification(maker: str, series_time: str | None) -> None:
    headers = series(maker, activity=True, SeriesTime=series_time)
    how = {"GE": "start-ge-scan-datetime", "CPS": "start-earliest-acquisition"}.get(maker, "start-back-computed")
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, how))


@each_maker
def test_a_series_time_long_before_the_scan(maker: str) -> None:
    """35.5 min: nothing confirms it, in CPS nothing contradicts it either."""
    refused(series(maker, activity=True, SeriesTime="094500"), "series-time")


@each_maker
def test_a_list_mode_acquisition_whose_late_frames_were_reconstructed(maker: str) -> None:
    """Decay reference and Series Time 40 min before the frames; all but CPS say so twice."""
    late_s = 40 * 60.0
    headers = series(maker, activity=True, SeriesTime="094030", GEScanDateTime="20251103094030")
    for bed, header in zip(BEDS, headers, strict=True):
        header["DecayFactor"] = 2.0 ** ((BEDS_S[bed] - REFERENCE_S + late_s) / HALF_LIFE_S) * during_the_frame()
        if header["FrameReferenceTime"]:
            header["FrameReferenceTime"] += late_s * 1000.0
        if maker == "CPS":
            del header["GEScanDateTime"], header["DecayFactor"]
    if maker == "CPS":
        refused(headers, "series-time")
    else:
        check(headers, [scale(maker) * suvbw(REFERENCE_S - late_s)] * 4, branch(maker, "start-series-time"))


# Doses, weights, half-lives


@each_maker
@pytest.mark.parametrize(
    ("injection", "changes"),
    [
        ({"RadionuclideTotalDose": DOSE_BQ / 1e6}, {}),
        ({}, {"PatientWeight": WEIGHT_KG * 1000.0}),
        ({}, {"PatientSex": "O"}),
        ({}, {"PatientSize": HEIGHT_M * 100.0}),
        ({"RadionuclideTotalDose": DOSE_BQ / 1e6}, {"PatientWeight": WEIGHT_KG * 1000.0}),
    ],
    ids=["dose in MBq", "weight in g", "sex O", "size in cm", "MBq and g"],
)
def test_other_units_of_dose_and_patient(maker: str, injection: Header, changes: Header) -> None:
    headers = series(maker, activity=True, injection=injection, **changes)
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
@pytest.mark.parametrize(
    ("injection", "changes", "code"),
    [
        ({"RadionuclideTotalDose": DOSE_BQ / 1e3}, {}, "dose"),
        ({"RadionuclideTotalDose": DOSE_BQ / 1e9}, {}, "dose"),
        ({"RadionuclideTotalDose": DOSE_BQ / 37e6}, {}, "dose"),  # mCi
        ({"RadionuclideTotalDose": ...}, {}, "no-dose"),
        ({}, {"PatientWeight": None}, "no-weight"),
        ({}, {"PatientWeight": 0.0}, "no-weight"),
        ({"RadionuclideHalfLife": 109.77}, {}, "half-life"),
        ({"RadionuclideHalfLife": None, "RadionuclideCodeSequence": ...}, {}, "half-life"),
        ({"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": None}, {}, "no-injection-time"),
        ({}, {"AcquisitionTime": None, "AcquisitionDateTime": None}, "no-acquisition-time"),
        ({}, {"CorrectedImage": ["NORM", "DECY"]}, "not-attenuation-corrected"),
        ({}, {"CorrectedImage": ["NORM", "ATTN"]}, "not-decay-corrected"),
        ({}, {"DecayCorrection": "NONE"}, "not-decay-corrected"),
        ({}, {"RescaleIntercept": 12.0}, "intercept"),
        ({}, {"Units": "PROPCPS"}, "units"),
    ],
)
def test_what_every_maker_is_refused_for(maker: str, injection: Header, changes: Header, code: str) -> None:
    refused(series(maker, activity=True, injection=injection, **changes), code)


@each_maker
@pytest.mark.parametrize("sent", [6588.0, 6584.04])
def test_the_half_life_sent_counts(maker: str, sent: float) -> None:
    """109.8 min of older scanners, 109.734 min: both are F-18's."""
    headers = series(maker, activity=True, injection={"RadionuclideHalfLife": sent})
    expected = scale(maker) * WEIGHT_KG * 1000.0 / DOSE_BQ * exp(log(2.0) / sent * REFERENCE_S)
    check(headers, [expected] * 4, branch(maker, "start-series-time"))


@pytest.mark.parametrize("maker", ["Siemens", "GE", "Philips", "United Imaging"])
def test_the_half_life_of_the_code_where_none_was_sent(maker: str) -> None:
    headers = series(maker, activity=True, injection={"RadionuclideHalfLife": ...})
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
@pytest.mark.parametrize(
    ("half_life_s", "name"),
    [(4057.7, "Ga-68"), (1221.8, "C-11"), (597.9, "N-13"), (45721.0, "Cu-64"), (282240.0, "Zr-89")],
)
def test_other_radionuclides(maker: str, half_life_s: float, name: str) -> None:
    """With the date: all. Without, as Philips and CPS send it: only what is gone after a day."""
    injection = {"RadionuclideHalfLife": half_life_s, "RadionuclideCodeSequence": ...}
    headers = series(maker, activity=True, injection=injection, DecayFactor=None, FrameReferenceTime=0.0)
    expected = scale(maker) * WEIGHT_KG * 1000.0 / DOSE_BQ * 2.0 ** (REFERENCE_S / half_life_s)
    if maker in {"Philips", "CPS"} and name in {"Cu-64", "Zr-89"}:
        refused(headers, "injection-date")
    else:
        check(headers, [expected] * 4, branch(maker, "start-series-time"))


# Days and zones


@each_maker
@pytest.mark.parametrize("only", ["a time of day", "a date and time"])
def test_across_midnight(maker: str, only: str) -> None:
    """Injected at 23:15 of the day before, reference 00:20:30."""
    injection = {"RadiopharmaceuticalStartTime": "231500", "RadiopharmaceuticalStartDateTime": ...}
    if only == "a date and time":
        injection = {"RadiopharmaceuticalStartTime": ..., "RadiopharmaceuticalStartDateTime": "20251102231500"}
    headers = series(maker, activity=True, injection=injection, SeriesTime="002030", GEScanDateTime=None)
    for bed, header in zip(BEDS, headers, strict=True):
        header["AcquisitionTime"] = ("002030", "002345")[bed]
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
def test_beds_on_both_sides_of_midnight(maker: str) -> None:
    """Reference 23:58:30, second bed at 00:01:45; injected at 22:53."""
    injection = {"RadiopharmaceuticalStartTime": "225300", "RadiopharmaceuticalStartDateTime": ...}
    headers = series(maker, activity=True, injection=injection, SeriesTime="235830", GEScanDateTime=None)
    for bed, header in zip(BEDS, headers, strict=True):
        header["AcquisitionDate"] = ("20251103", "20251104")[bed]
        header["AcquisitionTime"] = ("235830", "000145")[bed]
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"))


@each_maker
@pytest.mark.parametrize("date", ["20251102", "20251104", "20241103"])
def test_an_injection_dated_on_another_day(maker: str, date: str) -> None:
    injection = {"RadiopharmaceuticalStartDateTime": f"{date}091500"}
    refused(series(maker, activity=True, injection=injection), "injection-date")


@each_maker
def test_two_times_of_the_injection(maker: str) -> None:
    injection = {"RadiopharmaceuticalStartDateTime": "20251103091500", "RadiopharmaceuticalStartTime": "091700"}
    refused(series(maker, activity=True, injection=injection), "injection-time")


@each_maker
@pytest.mark.parametrize(
    ("start", "own"),
    [("20251103091500+0100", None), ("20251103081500+0000", None), ("20251103081500+0000", "+0100")],
)
def test_an_offset_on_the_injection_alone(maker: str, start: str, own: str | None) -> None:
    injection = {"RadiopharmaceuticalStartDateTime": start, "RadiopharmaceuticalStartTime": "091500"}
    headers = series(maker, activity=True, injection=injection, TimezoneOffsetFromUTC=own)
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, branch(maker, "start-series-time"), zone=BERLIN)


@each_maker
def test_the_night_clocks_are_put_forward(maker: str) -> None:
    """Injected at 01:40, scanned from 03:45:30 on, which is 65.5 min later; 20 min of it are on the old time."""
    injection = {"RadiopharmaceuticalStartDateTime": "20260329014000", "RadiopharmaceuticalStartTime": "014000"}
    headers = series(
        maker,
        activity=True,
        injection=injection,
        SeriesDate="20260329",
        SeriesTime="034530",
        AcquisitionDate="20260329",
        AcquisitionDateTime=None,
        GEScanDateTime=None,
    )
    for bed, header in zip(BEDS, headers, strict=True):
        header["AcquisitionTime"] = ("034530", "034845")[bed]
    name = branch(maker, "start-series-time")
    check(headers, [scale(maker) * suvbw(REFERENCE_S)] * 4, name, zone=BERLIN)
    check(headers, [scale(maker) * suvbw(REFERENCE_S + 3600.0)] * 4, name)


# SUV as sent


@each_maker
@pytest.mark.parametrize("correction", ["START", "ADMIN"])
def test_suv_as_sent(maker: str, correction: str) -> None:
    missing = {"PatientWeight": None, "AcquisitionTime": None, "SeriesTime": None}
    headers = series(maker, Units="GML", SUVType="BW", DecayCorrection=correction, **missing)
    check(headers, [1.0] * 4, "gml-bw")


@each_maker
def test_lean_body_mass_as_sent(maker: str) -> None:
    """Janmahasatian for women: 9270 W / (8780 + 244 W/H²)."""
    headers = series(maker, Units="GML", SUVType="LBMJANMA", PatientSize=HEIGHT_M)
    lean_kg = 9270.0 * WEIGHT_KG / (8780.0 + 244.0 * WEIGHT_KG / HEIGHT_M**2)
    check(headers, [WEIGHT_KG / lean_kg] * 4, "gml-lbmjanma")


@each_maker
def test_body_surface_as_sent(maker: str) -> None:
    headers = series(maker, Units="CM2ML", SUVType="BSA", PatientSize=HEIGHT_M)
    area_cm2 = 71.84 * WEIGHT_KG**0.425 * (HEIGHT_M * 100.0) ** 0.725
    check(headers, [WEIGHT_KG * 1000.0 / area_cm2] * 4, "cm2ml")


# Philips alone


def test_philips_counts_without_factors() -> None:
    neither = {"PhilipsSUVScaleFactor": None, "PhilipsActivityConcentrationScaleFactor": 0.0}
    refused(series("Philips", **neither), "no-philips-factor")


def test_philips_counts_under_another_creator_are_nobodys() -> None:
    """`headers.read` finds the factors by their private creator; counts of other makers have none."""
    headers = [{key: value for key, value in header.items() if "Scale" not in key} for header in series("Philips")]
    refused(headers, "no-philips-factor")


def test_a_weight_corrected_after_philips_computed_its_factor() -> None:
    headers = series("Philips", PatientWeight=WEIGHT_KG * 1.1)
    check(headers, [1.37 * suvbw(REFERENCE_S)] * 4, "cnts-philips-suv", warnings=1)


def test_slopes_of_single_slices_are_left_to_the_pixels() -> None:
    """The factor multiplies rescaled values, so it is the same whatever the slope of a slice."""
    slopes = {header["RescaleSlope"] for header in series("Siemens")}
    assert len(slopes) == 4
    assert len(set(quantity.suvbw(series("Siemens"), UTC).factors)) == 1
