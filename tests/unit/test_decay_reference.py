"""To when a series with Decay Correction START was decay-corrected: the order of trust, and what contradicts it.

The base case (tests/pet_header.py) is injected at 10:00 and scanned from 11:49:46.2 on, one half-life of F-18 later.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from dicom_io import quantity
from dicom_io.errors import QuantityRefused
from dicom_io.quantity import Factors
from tests.pet_header import AT_INJECTION, ONE_HALF_LIFE, Header, pet

HALF_LIFE_S = 6586.2
LATE = {"SeriesTime": "120000"}
"""After the acquisition: a series made by post-processing."""


def suv(headers: list[Header]) -> Factors:
    return quantity.suvbw(headers, UTC)


def after(seconds: float) -> Any:
    """Factor of a reference so long after the injection: 2e-4 · 2^(t/T½)."""
    return pytest.approx(AT_INJECTION * 2.0 ** (seconds / HALF_LIFE_S), rel=1e-6)


def refusal(headers: list[Header]) -> QuantityRefused:
    with pytest.raises(QuantityRefused) as caught:
        suv(headers)
    return caught.value


# The order of trust


def test_an_explicit_date_and_time_goes_first() -> None:
    everything = {"GEScanDateTime": "20260302114946.2", "DecayCorrectionDateTime": "20260302110000.5"}
    found = suv(pet(**everything))
    assert found.factors == (after(3600.5), after(3600.5))
    assert found.branch == "bqml-start-decay-correction-datetime"
    assert found.reference == "BQML, START, Decay Correction DateTime (0018,9701)"


def test_an_explicit_date_and_time_of_the_injection_is_no_decay() -> None:
    assert suv(pet(DecayCorrectionDateTime="20260302100000")).factors == (AT_INJECTION, AT_INJECTION)
    assert suv(pet(DecayCorrectionDateTime="20260302100000")).factors == suv(pet(DecayCorrection="ADMIN")).factors


def test_an_explicit_date_and_time_needs_no_series_time_and_no_frame() -> None:
    bare = {"SeriesTime": ..., "FrameReferenceTime": ..., "ActualFrameDuration": ...}
    assert suv(pet(DecayCorrectionDateTime="20260302114946.2", **bare)).factors[0] == after(HALF_LIFE_S)


def test_an_explicit_date_and_time_may_carry_an_offset() -> None:
    zoned = {
        "RadiopharmaceuticalStartDateTime": "20260302100000+0100",
        "DecayCorrectionDateTime": "20260302094946.2+0000",
    }
    assert suv(pet(**zoned)).factors[0] == after(HALF_LIFE_S - 3600.0)


def test_series_time_holds_for_later_beds_too() -> None:
    headers = pet(3)
    for bed, header in enumerate(headers):
        header["AcquisitionTime"] = f"11{50 + bed}46.2"
    found = suv(headers)
    assert found.factors == (after(HALF_LIFE_S),) * 3
    assert found.branch == "bqml-start-series-time"


@pytest.mark.parametrize("series_time", ["120000", "114946.3", "095959", "095800", ..., "000000"])
def test_a_rewritten_series_time_is_replaced_by_frame_reference_time(series_time: Any) -> None:
    """After an acquisition, or before the injection. Mean activity of 120 s falls 59.93685 s after the start."""
    headers = pet(SeriesTime=series_time)
    headers[1].update(AcquisitionTime="115146.2", FrameReferenceTime=179936.85)
    found = suv(headers)
    assert found.factors == (after(HALF_LIFE_S), after(HALF_LIFE_S))
    assert found.branch == "bqml-start-back-computed"
    assert found.reference == "BQML, START, acquisition time less Frame Reference Time"
    assert found.warnings == ()


def test_series_times_that_differ_are_none() -> None:
    headers = pet()
    headers[1]["SeriesTime"] = "114945"
    assert suv(headers).branch == "bqml-start-back-computed"


def test_frame_reference_time_counts_from_the_reference() -> None:
    """40 min earlier; T = 600 s: λT = 0.06314542, T_ave = ln(λT/(1 − e^−λT))/λ = 298.4214 s."""
    headers = pet(**LATE, ActualFrameDuration=600000, FrameReferenceTime=2698421.4)
    assert suv(headers).factors[0] == after(HALF_LIFE_S - 2400.0)


def test_frame_reference_time_zero_counts_from_the_first_acquisition() -> None:
    headers = pet(**LATE, FrameReferenceTime=0.0)
    headers[0]["AcquisitionTime"] = "115146.2"
    found = suv(headers)
    assert found.factors == (after(HALF_LIFE_S), after(HALF_LIFE_S))
    assert found.branch == "bqml-start-earliest-acquisition"
    assert found.reference == "BQML, START, earliest acquisition time"


def test_frame_reference_time_zero_on_the_first_frame_only() -> None:
    """A dynamic series: the first frame counts from itself, so its T_ave of a minute is an error of 0.6 %."""
    headers = pet(**LATE, FrameReferenceTime=0.0)
    headers[1].update(AcquisitionTime="115146.2", FrameReferenceTime=179936.85)
    found = suv(headers)
    assert found.factors == (after(HALF_LIFE_S + 59.93685), after(HALF_LIFE_S))
    assert found.branch == "bqml-start-back-computed"


@pytest.mark.parametrize(("apart_s", "right"), [(462.0, True), (465.0, False)])
def test_frame_reference_times_must_lead_to_one_moment(apart_s: float, right: bool) -> None:
    """2^(463.6/6586.2) = 1.05. Counted from each bed's own start, they lead to as many moments as there are beds."""
    headers = pet(**LATE)
    headers[1]["FrameReferenceTime"] = 59936.85 + 1000.0 * apart_s
    if right:
        assert suv(headers).factors == (after(HALF_LIFE_S), after(HALF_LIFE_S - apart_s))
        return
    refused = refusal(headers)
    assert refused.code == "no-reference-time"
    assert str(refused).endswith("by acquisition time less Frame Reference Time, got 8 min apart")


@pytest.mark.parametrize(
    ("frame_reference_ms", "code"),
    [
        (None, "no-reference-time"),
        (-1.0, "no-reference-time"),
        (65862001.0, "no-reference-time"),
        (65862000.0, "negative-decay-time"),
    ],
)
def test_a_frame_reference_time_that_counts_from_nothing(frame_reference_ms: Any, code: str) -> None:
    """Ten half-lives are 65 862 s."""
    assert refusal(pet(**LATE, FrameReferenceTime=frame_reference_ms)).code == code


def test_ge_says_when_the_scan_began() -> None:
    """Series written an hour later, acquisition at two half-lives, GE's own time at one."""
    headers = pet(SeriesTime="144946.2", AcquisitionTime="133932.4", GEScanDateTime="20260302114946.20")
    found = suv(headers)
    assert found.factors == (after(HALF_LIFE_S), after(HALF_LIFE_S))
    assert found.branch == "bqml-start-ge-scan-datetime"
    assert found.reference == "BQML, START, GE scan date and time (0009,xx0d)"
    headers[1]["GEScanDateTime"] = None
    assert suv(headers).branch == "bqml-start-back-computed", "not on all slices"


def test_a_dynamic_scan_is_started_before_the_injection() -> None:
    """By 20 s: e^{λ(reference − injection)} with a reference before the injection is as good."""
    dynamic = {"SeriesTime": "095940", "AcquisitionTime": "095940"}
    headers = pet(**dynamic)
    headers[1].update(AcquisitionTime="103940", FrameReferenceTime=2459936.85)
    found = suv(headers)
    assert found.factors == (after(-20.0), after(-20.0))
    assert found.branch == "bqml-start-series-time"
    assert found.warnings == ("the injection lies 20 s after the start of the scan",)


@pytest.mark.parametrize(
    ("series_time", "acquired", "branch"),
    [
        ("095900", "100000", "series-time"),  # a minute before the injection, and before the scan
        ("095859", "095959", "back-computed"),
        ("095900", "100001", "back-computed"),
        ("100000", "100200", "series-time"),  # at the injection
    ],
)
def test_series_time_at_the_injection(series_time: str, acquired: str, branch: str) -> None:
    headers = pet(SeriesTime=series_time, AcquisitionTime=acquired)
    assert suv(headers).branch == f"bqml-start-{branch}"


# What contradicts


@pytest.mark.parametrize(
    ("earlier_s", "change"),
    # 2^(−487.3/6586.2) = 0.95
    [(0.0, None), (485.0, None), (490.0, "-5%"), (1800.0, "-17%")],
)
def test_a_frame_reference_time_that_contradicts_series_time_is_told(earlier_s: float, change: str | None) -> None:
    found = suv(pet(FrameReferenceTime=59936.85 + 1000.0 * earlier_s))
    assert found.factors[0] == after(HALF_LIFE_S), "series time stands"
    said = f"decay reference: by Frame Reference Time (0054,1300) instead of series time SUV would be {change}"
    assert found.warnings == ((said,) if change else ())


@pytest.mark.parametrize(
    ("series_time", "change"),
    # Frame Reference Time leads to 11:49:46.2; 2^(463.6/6586.2) = 1.05
    [("114205", None), ("114200", "+5%"), ("113946.2", "+7%"), ("111946.2", "+21%")],
)
def test_series_time_before_the_moment_that_frame_reference_time_leads_to(series_time: str, change: str | None) -> None:
    """Half an hour at most; reference object DRO_3_3 of OncoRay is like the last, and its Series Time is right."""
    found = suv(pet(SeriesTime=series_time))
    assert found.branch == "bqml-start-series-time"
    said = f"decay reference: by Frame Reference Time (0054,1300) instead of series time SUV would be {change}"
    assert found.warnings == ((said,) if change else ())


def test_frame_reference_time_is_compared_on_the_slice_acquired_first() -> None:
    """The second bed's counts from its own start, 20 min later: no contradiction that would concern the first."""
    headers = pet()
    headers[0]["AcquisitionTime"] = "120946.2"
    assert suv(headers).warnings == ()
    headers = pet()
    headers[0]["FrameReferenceTime"] = 1859936.85
    assert suv(headers).warnings == (), "of two acquired at once the one that counts less"


@pytest.mark.parametrize("frame_ms", [..., 0, -1.0, 86400001])
def test_frame_reference_time_without_a_frame_tells_nothing(frame_ms: Any) -> None:
    found = suv(pet(ActualFrameDuration=frame_ms, FrameReferenceTime=1859936.85, DecayFactor=2.0))
    assert (found.factors[0], found.warnings) == (after(HALF_LIFE_S), ())


def test_ges_scan_time_that_contradicts_series_time_is_told() -> None:
    found = suv(pet(GEScanDateTime="20260302114800"))
    assert (found.branch, found.warnings) == ("bqml-start-series-time", ())
    found = suv(pet(GEScanDateTime="20260302110000"))
    assert (found.branch, found.factors[0]) == ("bqml-start-series-time", after(HALF_LIFE_S))
    # 2^(−2986.2/6586.2) = 0.7303
    said = "decay reference: by GE scan date and time (0009,xx0d) instead of series time SUV would be -27%"
    assert found.warnings == (said,)


def test_a_contradiction_of_days_is_only_large() -> None:
    """The SUV that would be is not computed beyond ten half-lives: 2^10 − 1 = 1023."""
    found = suv(pet(GEScanDateTime="20280302110000"))
    assert found.warnings == (
        "decay reference: by GE scan date and time (0009,xx0d) instead of series time SUV would be +102300%",
    )


@pytest.mark.parametrize(
    ("factor", "told"),
    # Expected: 1.00632783 for a frame of 120 s at the reference; the change told is 1.00632783/factor − 1.
    [(1.0063, False), (1.0, False), (0.9590, False), (0.9580, True), (1.0590, False), (1.0595, True), (2.0, True)],
)
def test_a_decay_factor_that_contradicts_is_told(factor: float, told: bool) -> None:
    found = suv(pet(DecayFactor=factor))
    assert found.factors[0] == after(HALF_LIFE_S)
    said = f"Decay Factor (0054,1321) is {factor:g}, by series time it would be 1.006"
    assert found.warnings == ((said,) if told else ())


def test_a_single_slice_may_contradict_itself() -> None:
    found = suv(pet(1, FrameReferenceTime=1859936.85, DecayFactor=2.0))
    assert found.factors == (after(HALF_LIFE_S),)
    assert len(found.warnings) == 2


def test_the_decay_factor_of_every_bed_counts() -> None:
    """20 min after the reference it is 2^(1200/6586.2) · 1.00632783 = 1.1418; with a reference for each bed 1.0063."""
    headers = pet(DecayFactor=1.00633)
    headers[1].update(AcquisitionTime="120946.2", FrameReferenceTime=1259936.85, DecayFactor=1.14177)
    assert suv(headers).warnings == ()
    headers[1]["DecayFactor"] = 1.00633
    assert suv(headers).warnings == ("Decay Factor (0054,1321) is 1.00633, by series time it would be 1.142",)


@pytest.mark.parametrize("factor", [0.0, -1.0, None, "1.5"])
def test_no_decay_factor_tells_nothing(factor: Any) -> None:
    assert suv(pet(DecayFactor=factor)).warnings == ()


@pytest.mark.parametrize("half_life_s", [76.38, 282240.0, 2.6018 * 31556926, 5700 * 31556926.0])
@pytest.mark.parametrize(("factor", "frame_ms"), [(1e300, 1), (1e-300, 86400000), (5.0, 86400000)])
def test_no_number_breaks_the_arithmetic(half_life_s: float, factor: float, frame_ms: int) -> None:
    """From Rb-82 to C-14, whose ten half-lives are 57 000 years."""
    start = {"RadiopharmaceuticalStartDateTime": "20260302114900", "RadiopharmaceuticalStartTime": "114900"}
    headers = pet(
        **start,
        RadionuclideHalfLife=half_life_s,
        RadionuclideCodeSequence=...,
        DecayFactor=factor,
        ActualFrameDuration=frame_ms,
        FrameReferenceTime=1e300,
        GEScanDateTime="10000101000000",
    )
    found = suv(headers)
    assert found.factors[0] == pytest.approx(AT_INJECTION * 2.0 ** (46.2 / half_life_s), rel=1e-9)
    told = [warning for warning in found.warnings if warning.startswith(f"Decay Factor (0054,1321) is {factor:g}")]
    assert len(told) == 1


# A Series Time long before the scan


def early(seconds: float, **changes: Any) -> list[Header]:
    """Series Time so long before the acquisition (11:49:46), and Frame Reference Time unfilled."""
    clock = 11 * 3600 + 49 * 60 + 46 - int(seconds)
    time = f"{clock // 3600:02d}{clock // 60 % 60:02d}{clock % 60:02d}"
    return pet(**({"AcquisitionTime": "114946", "FrameReferenceTime": 0.0, "SeriesTime": time} | changes))


@pytest.mark.parametrize("gap_s", [0, 60, 600, 1800])
def test_up_to_half_an_hour_before_the_scan_series_time_is_believed(gap_s: int) -> None:
    found = suv(early(gap_s))
    assert (found.factors[0], found.branch) == (after(6586.0 - gap_s), "bqml-start-series-time")
    assert found.warnings == ()


@pytest.mark.parametrize("gap_s", [1801, 3600, 6500])
def test_longer_before_the_scan_it_is_refused_where_nothing_confirms_it(gap_s: int) -> None:
    refused = refusal(early(gap_s))
    assert refused.code == "series-time"
    assert f"expected at most 30 min before the first acquisition, or confirmed, got {gap_s / 60:.0f} min" in str(
        refused
    )
    assert "nothing else in the header tells" in str(refused)


@pytest.mark.parametrize(
    "source",
    [
        {"FrameReferenceTime": 3659936.85},
        {"FrameReferenceTime": 3800000.0},  # 140 s off, 1.5 %
        {"GEScanDateTime": "20260302104946"},
        {"DecayFactor": 1.46991},  # 2^(3600/6586.2) · 1.00632783
    ],
    ids=str,
)
def test_one_source_that_confirms_it_is_enough(source: Header) -> None:
    found = suv(early(3600, **source))
    assert (found.factors[0], found.branch) == (after(2986.0), "bqml-start-series-time")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"FrameReferenceTime": 59936.85}, "Frame Reference Time (0054,1300)"),
        ({"GEScanDateTime": "20260302114946"}, "GE scan date and time (0009,xx0d)"),
        ({"GEScanDateTime": "20260302100000"}, "GE scan date and time (0009,xx0d)"),  # earlier still
        ({"DecayFactor": 1.00633}, "Decay Factor (0054,1321)"),
    ],
)
def test_sources_against_it_are_named(source: Header, name: str) -> None:
    refused = refusal(early(3600, **source))
    assert refused.code == "series-time"
    assert str(refused).endswith(f"got 60 min before it; against it: {name}")


def test_a_decay_factor_holds_the_decay_during_a_long_frame_too() -> None:
    """30 min: λT = 0.189436, λT/(1 − e^−λT) = 1.09771; times 2^(3600/6586.2) = 1.46066."""
    assert suv(early(3600, ActualFrameDuration=1_800_000, DecayFactor=1.60338)).warnings == ()


def test_confirmed_and_contradicted_it_stands_with_a_warning() -> None:
    found = suv(early(3600, FrameReferenceTime=3659936.85, DecayFactor=1.0))
    assert found.factors[0] == after(2986.0)
    assert found.warnings == ("Decay Factor (0054,1321) is 1, by series time it would be 1.47",)


@pytest.mark.parametrize(
    ("half_life_s", "gap_s", "believed"),
    [
        (1221.8, 1221, True),  # C-11: a half-life is shorter than half an hour
        (1221.8, 1223, False),
        (76.38, 76, True),  # Rb-82
        (76.38, 78, False),
        (282240.0, 3600, True),  # Zr-89: 0.9 %
        (282240.0, 19800, True),  # 5.5 h: 4.98 %
        (282240.0, 19980, False),  # 5.55 h: 5.03 %
    ],
)
def test_what_is_long_depends_on_the_half_life(half_life_s: float, gap_s: int, believed: bool) -> None:
    start = {"RadiopharmaceuticalStartDateTime": "20260302113946", "RadiopharmaceuticalStartTime": "113946"}
    if half_life_s > 1e5:
        start = {"RadiopharmaceuticalStartDateTime": "20260301113946", "RadiopharmaceuticalStartTime": "113946"}
    elif half_life_s > 1000:
        start = {"RadiopharmaceuticalStartDateTime": "20260302110000", "RadiopharmaceuticalStartTime": "110000"}
    headers = early(gap_s, RadionuclideHalfLife=half_life_s, RadionuclideCodeSequence=..., **start)
    if believed:
        assert suv(headers).branch == "bqml-start-series-time"
    else:
        assert refusal(headers).code == "series-time"


def test_the_base_case_is_one_half_life() -> None:
    assert suv(pet()).factors == pytest.approx((ONE_HALF_LIFE, ONE_HALF_LIFE), rel=1e-9)
