"""The injection: activity, half-life, and a time that is of the right day, the right zone and the right clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dicom_io import administration, quantity
from dicom_io.administration import Injection, injection_of
from dicom_io.errors import QuantityRefused
from tests.pet_header import ONE_HALF_LIFE, Header, pet

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
TIME_ONLY = {"RadiopharmaceuticalStartDateTime": ...}
DATE_TIME_ONLY = {"RadiopharmaceuticalStartTime": ...}
F18, GA68, CU64, ZR89, SC44 = 6586.2, 4057.7, 45721.0, 282240.0, 14292.0


def refusal(headers: list[Header], zone: Any = UTC) -> QuantityRefused:
    with pytest.raises(QuantityRefused) as caught:
        injection_of(headers, zone)
    return caught.value


def uptake_min(headers: list[Header], zone: Any = UTC) -> float:
    return administration.uptake_s(headers, zone) / 60.0


# Decay


def given(half_life_s: float = F18, zone: Any = UTC, injected: datetime = datetime(2026, 3, 2, 10)) -> Injection:
    return Injection(half_life_s, injected, injected + timedelta(hours=1), zone)


def test_decay() -> None:
    """ln 2 / 6586.2 = 1.052424e-4; T = 120 s: λT = 0.01262909, λT/(1 − e^−λT) = 1.00632783, T_ave = 59.93685 s."""
    assert given().decay_per_s == pytest.approx(1.0524235e-4, rel=1e-6)
    assert given().growth(6586.2) == pytest.approx(2.0, rel=1e-12)
    assert given().growth(-13172.4) == pytest.approx(0.25, rel=1e-12)
    assert given().frame_growth(120.0) == pytest.approx(1.00632783, rel=1e-8)
    assert given().average_s(120.0) == pytest.approx(59.93685, abs=1e-4)
    assert given().frame_growth(1e-6) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("after_s", "growth"), [(-60.0, 2 ** (-60 / 6586.2)), (0.0, 1.0), (6586.2, 2.0)])
def test_growth_until_a_moment(after_s: float, growth: float) -> None:
    assert given().growth_until(datetime(2026, 3, 2, 10) + timedelta(seconds=after_s)) == pytest.approx(
        growth, rel=1e-9
    )


@pytest.mark.parametrize(
    ("after_s", "code"),
    [(-60.1, "negative-decay-time"), (30 * F18 + 1.0, "uptake-time"), (1e9, "uptake-time")],
)
def test_decay_beyond_reason_is_refused(after_s: float, code: str) -> None:
    with pytest.raises(QuantityRefused) as caught:
        given().growth_until(datetime(2026, 3, 2, 10) + timedelta(seconds=after_s))
    assert caught.value.code == code


def test_thirty_half_lives_are_the_limit() -> None:
    assert given().growth_until(datetime(2026, 3, 2, 10) + timedelta(seconds=30 * F18)) == pytest.approx(2.0**30)


@pytest.mark.parametrize(
    ("frame_ms", "seconds"),
    [(1, 0.001), (86_400_000, 86400.0), (86_400_001, None), (0, None), (-1, None), (None, None), ("120000", None)],
)
def test_frame_duration(frame_ms: Any, seconds: float | None) -> None:
    header = {"ActualFrameDuration": frame_ms}
    if seconds is not None:
        assert administration.frame_s(header) == seconds
        return
    with pytest.raises(QuantityRefused) as caught:
        administration.frame_s(header)
    assert caught.value.code == "no-frame-duration"


# Activity and half-life


@pytest.mark.parametrize(
    ("sent", "dose_bq"),
    [
        *((350e6, 350e6), (350, 350e6), (99999.0, None), (1e5, None), (1e6, 1e6), (999_999.0, None), (20000.0, 2e10)),
        *((2e10, 2e10), (2.01e10, None), (1.0, 1e6), (0.99, None)),
    ],
)
def test_injected_activity(sent: float, dose_bq: float | None) -> None:
    headers = pet(RadionuclideTotalDose=sent)
    if dose_bq is not None:
        assert administration.dose_bq_of(headers) == dose_bq
        return
    with pytest.raises(QuantityRefused) as caught:
        administration.dose_bq_of(headers)
    assert caught.value.code == "dose"


@pytest.mark.parametrize(
    ("sent", "read"),
    [(99_000.0, "9.9e+10"), (100_000.0, "100000"), (950_000.0, "950000"), (25e9, "2.5e+10")],
)
def test_an_activity_that_cannot_be_is_told_in_becquerel(sent: float, read: str) -> None:
    """Below 1e5 the number was read as MBq."""
    with pytest.raises(QuantityRefused) as caught:
        administration.dose_bq_of(pet(RadionuclideTotalDose=sent))
    assert str(caught.value) == f"Radionuclide Total Dose (0018,1074) [Bq]: expected 1e+06 to 2e+10, got {read}"


@pytest.mark.parametrize(
    ("sent", "weight_kg", "usual"),
    [
        (37e6, 120.0, True),  # Zr-89
        (3.5e6, 70.0, True),  # 50 kBq/kg
        (3.49e6, 70.0, False),
        (35.0, 70.0, True),  # taken for MBq: 0.5 MBq/kg
        (34.9, 70.0, False),
        (10.0, 70.0, False),  # 10 mCi
        (10.0, 0.025, True),  # 10 MBq of a mouse
        (1.5e6, 80.0, False),  # Rb-82: 1.5 GBq in kBq
    ],
)
def test_activity_per_weight(sent: float, weight_kg: float, usual: bool) -> None:
    headers = pet(RadionuclideTotalDose=sent)
    if usual:
        administration.check_dose_per_weight(headers, weight_kg)
        return
    with pytest.raises(QuantityRefused) as caught:
        administration.check_dose_per_weight(headers, weight_kg)
    assert caught.value.code == "dose"
    assert "kBq or mCi" in str(caught.value)


def code(value: str, scheme: str = "SCT", meaning: str = "") -> list[Header]:
    return [{"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}]


@pytest.mark.parametrize(
    ("drug", "half_life_s"),
    [
        ({"RadionuclideHalfLife": 6588.0}, 6588.0),  # as sent
        ({"RadionuclideHalfLife": 6586.2, "RadionuclideCodeSequence": ...}, 6586.2),
        ({"RadionuclideHalfLife": ...}, 6586.2),
        ({"RadionuclideHalfLife": ..., "RadionuclideCodeSequence": code("35337001")}, 4062.6),  # Ga-68, ENSDF 67.71 min
        ({"RadionuclideHalfLife": GA68, "RadionuclideCodeSequence": code("35337001")}, GA68),
        # The text is stale, code and half-life agree.
        (
            {
                "RadionuclideHalfLife": GA68,
                "RadionuclideCodeSequence": code("35337001"),
                "Radiopharmaceutical": "FDG",
            },
            GA68,
        ),
    ],
)
def test_half_life(drug: Header, half_life_s: float) -> None:
    assert administration.half_life_s_of(pet(**drug)) == pytest.approx(half_life_s, abs=0.01)


def test_one_slice_is_a_series() -> None:
    assert administration.half_life_s_of(pet(1)) == F18
    assert uptake_min(pet(1)) == pytest.approx(109.77)


@pytest.mark.parametrize(
    ("drug", "said"),
    [
        ({"RadionuclideHalfLife": GA68}, "expected that of F-18 in seconds, got 4057.7"),
        ({"RadionuclideHalfLife": 109.77}, "expected that of F-18"),  # minutes
        ({"RadionuclideHalfLife": 1.83}, "expected that of F-18"),  # hours
        ({"RadionuclideHalfLife": 0.0}, "expected a positive number, got 0"),
        ({"RadionuclideHalfLife": 5000.0, "RadionuclideCodeSequence": ...}, "the radionuclide injected"),
        (
            {"RadionuclideHalfLife": GA68, "RadionuclideCodeSequence": ..., "Radiopharmaceutical": "FDG"},
            "text says FDG, half-life says Ga-68",
        ),
    ],
)
def test_a_half_life_of_something_else_is_refused(drug: Header, said: str) -> None:
    with pytest.raises(QuantityRefused) as caught:
        administration.half_life_s_of(pet(**drug))
    assert caught.value.code == "half-life"
    assert said in str(caught.value)


# The day of the injection


@pytest.mark.parametrize(
    ("start_time", "acquired", "minutes"),
    [
        ("100000", "20260302 114946.2", 109.77),
        ("230000", "20260303 004946.2", 109.77),
        ("235959", "20260303 000000", 1 / 60),
        ("114946.2", "20260302 114946.2", 0.0),
        ("1149", "20260302 114946.2", 46.2 / 60),
        ("115000", "20260302 114946.2", -13.8 / 60),  # a dynamic scan, started before the injection
        ("115046.2", "20260302 114946.2", -1.0),
        ("180000", "20260303 120000", 1080.0),  # 9.84 half-lives
    ],
)
def test_a_time_of_day_is_the_last_one_before_the_acquisition(start_time: str, acquired: str, minutes: float) -> None:
    date, time = acquired.split()
    headers = pet(**TIME_ONLY, RadiopharmaceuticalStartTime=start_time, AcquisitionDate=date, AcquisitionTime=time)
    assert uptake_min(headers) == pytest.approx(minutes, abs=1e-9)
    seconds = -60.0 * minutes
    warned = (f"the injection lies {seconds:.0f} s after the start of the scan",) if minutes < 0 else ()
    assert injection_of(headers, UTC).warnings == warned


@pytest.mark.parametrize("start_time", ["115046.3", "173000"])
def test_a_time_of_day_that_fits_no_day_is_refused(start_time: str) -> None:
    """Today it is after the acquisition, yesterday more than 65 862 s before it."""
    assert refusal(pet(**TIME_ONLY, RadiopharmaceuticalStartTime=start_time)).code == "uptake-time"


@pytest.mark.parametrize(
    ("half_life_s", "uptake_h", "certain"),
    [
        (F18, 1.0, True),  # limit 18.3 h: one day only
        (SC44, 1.0, False),  # limit 39.7 h: 25 h is possible too
        (SC44, 15.0, False),
        (SC44, 15.7, False),  # a day more is the limit to the second
        (SC44, 16.0, True),  # 40 h is not
        (CU64, 1.0, False),
        (ZR89, 20.0, False),
    ],
)
def test_a_time_of_day_alone_is_not_enough_for_what_decays_slowly(
    half_life_s: float, uptake_h: float, certain: bool
) -> None:
    acquired = datetime(2026, 3, 2, 23)
    start = acquired - timedelta(hours=uptake_h)
    headers = pet(
        **TIME_ONLY,
        RadiopharmaceuticalStartTime=f"{start:%H%M%S}",
        AcquisitionTime=f"{acquired:%H%M%S}",
        RadionuclideHalfLife=half_life_s,
        RadionuclideCodeSequence=...,
    )
    if certain:
        assert uptake_min(headers) == pytest.approx(60.0 * uptake_h)
    else:
        refused = refusal(headers)
        assert refused.code == "injection-date"
        assert "of this day or of one before" in str(refused)


@pytest.mark.parametrize(
    ("start", "half_life_s", "code_", "said"),
    [
        # The scan begins at 11:49:46.2 on 2 March 2026.
        (
            "20260301100000",
            F18,
            "injection-date",
            "1 day(s) too early for the last such time of day, by which uptake would be 110 min",
        ),
        ("20260228100000", F18, "injection-date", "2 day(s) too early"),
        (
            "20260303100000",
            F18,
            "injection-date",
            "1 day(s) too late for the last such time of day, by which uptake would be 110 min",
        ),
        (
            "20260228215000",
            F18,
            "injection-date",
            "1 day(s) too early for the last such time of day, by which uptake would be 840 ",
        ),
        ("20270302100000", F18, "injection-date", "365 day(s) too late"),
        (
            "20260303115000",
            F18,
            "injection-date",
            "1 day(s) too late for the last such time of day, by which uptake would be 0 min",
        ),
        ("20260301173121", F18, "uptake-time", "got 1098 min at a half-life of 109.8 min"),
        ("20260302115100", F18, "negative-decay-time", "got 74 s after it"),
        ("20260302173000", F18, "negative-decay-time", "got 20414 s after it"),
        # Ten half-lives and a day.
        ("20260228173204.2", F18, "injection-date", "1 day(s) too early for the last such time of day"),
        ("20260301140000", GA68, "uptake-time", "got 1310 min"),
        ("20260401100000", ZR89, "injection-date", "30 day(s) too late"),
        ("20260102100000", ZR89, "injection-date", "59 day(s) too early"),
    ],
)
def test_an_injection_on_another_day_is_refused(start: str, half_life_s: float, code_: str, said: str) -> None:
    headers = pet(
        **DATE_TIME_ONLY,
        RadiopharmaceuticalStartDateTime=start,
        RadionuclideHalfLife=half_life_s,
        RadionuclideCodeSequence=...,
    )
    refused = refusal(headers)
    assert refused.code == code_, refused
    assert said in str(refused)


@pytest.mark.parametrize(
    ("start", "half_life_s", "minutes"),
    [
        ("20260302100000", F18, 109.77),
        ("20260302115046", F18, -59.8 / 60),
        ("20260301173230", F18, 1097.27),  # 9.996 half-lives
        ("20260301173204.2", F18, 1097.7),  # ten
        ("20260226100000", ZR89, 4 * 1440 + 109.77),
        ("20260301100000", CU64, 1440 + 109.77),
    ],
)
def test_a_date_and_time_within_ten_half_lives_stands(start: str, half_life_s: float, minutes: float) -> None:
    headers = pet(
        **DATE_TIME_ONLY,
        RadiopharmaceuticalStartDateTime=start,
        RadionuclideHalfLife=half_life_s,
        RadionuclideCodeSequence=...,
    )
    assert uptake_min(headers) == pytest.approx(minutes, abs=1e-6)


@pytest.mark.parametrize(
    ("date_time", "time", "agree"),
    [
        ("20260302100000", "100100", True),
        ("20260302100000", "100101", False),
        ("20260302100000", "095900", True),
        ("20260302100000", "095859", False),
        ("20260302100000", "10", True),  # too coarse to compare
        ("20260302100000", None, True),
        ("20260302100000", "220000", False),
    ],
)
def test_two_times_of_day_must_agree_within_a_minute(date_time: str, time: str | None, agree: bool) -> None:
    headers = pet(RadiopharmaceuticalStartDateTime=date_time, RadiopharmaceuticalStartTime=time)
    if agree:
        assert uptake_min(headers) == pytest.approx(109.77)
    else:
        assert refusal(headers).code == "injection-time"


def test_a_minute_across_midnight_is_a_minute() -> None:
    headers = pet(
        RadiopharmaceuticalStartDateTime="20260301235950",
        RadiopharmaceuticalStartTime="000010",
        AcquisitionTime="010000",
    )
    assert uptake_min(headers) == pytest.approx(60.0 + 10 / 60)


def test_beds_on_both_sides_of_midnight() -> None:
    headers = pet(**TIME_ONLY, RadiopharmaceuticalStartTime="220910", AcquisitionTime="235856.2")
    headers[0].update(AcquisitionDate="20260303", AcquisitionTime="000056.2")
    assert uptake_min(headers) == pytest.approx(109.77)


# Zones


@pytest.mark.parametrize(
    ("start", "zone", "own"),
    [
        ("20260302090000+0000", BERLIN, ...),  # 09:00 UTC is 10:00 in Berlin in March
        ("20260302100000+0100", BERLIN, ...),
        ("20260302090000+0000", UTC, "+0100"),  # the object's own zone goes before the site's
        ("20260302050000-0400", NEW_YORK, "+0100"),
        ("20260302100000", NEW_YORK, "+0100"),
        ("20260302100000+0000", UTC, ...),
    ],
)
def test_an_injection_with_an_offset_is_compared_in_utc(start: str, zone: Any, own: Any) -> None:
    headers = pet(**DATE_TIME_ONLY, RadiopharmaceuticalStartDateTime=start, TimezoneOffsetFromUTC=own)
    assert uptake_min(headers, zone) == pytest.approx(109.77)
    guessed = own is ... and "+" in start
    words = f"times without an offset from UTC were read in the site's zone, {zone}"
    assert injection_of(headers, zone).warnings == ((words,) if guessed else ())


@pytest.mark.parametrize("own", ["CET", "0100", "+9900", ["+0100"]])
def test_an_offset_that_cannot_be_read_is_none(own: Any) -> None:
    headers = pet(**DATE_TIME_ONLY, RadiopharmaceuticalStartDateTime="20260302090000+0000", TimezoneOffsetFromUTC=own)
    assert uptake_min(headers, BERLIN) == pytest.approx(109.77)
    assert len(injection_of(headers, BERLIN).warnings) == 1


@pytest.mark.parametrize("zone", [UTC, BERLIN, NEW_YORK], ids=str)
@pytest.mark.parametrize("start", ["20260302100000+0100", "20260302100000+0000", "20260302100000-0500"])
def test_a_time_of_day_written_twice_tells_the_zone(start: str, zone: Any) -> None:
    """Start Time is 10:00 as in Start DateTime, whose offset is therefore that of the other local times."""
    headers = pet(RadiopharmaceuticalStartDateTime=start, RadiopharmaceuticalStartTime="100000")
    assert uptake_min(headers, zone) == pytest.approx(109.77)
    assert injection_of(headers, zone).warnings == ()


def test_a_time_of_day_written_twice_may_differ_by_a_minute() -> None:
    headers = pet(RadiopharmaceuticalStartDateTime="20260302100000+0100", RadiopharmaceuticalStartTime="100100")
    assert uptake_min(headers, UTC) == pytest.approx(109.77)


def test_a_time_of_day_confirms_the_sites_zone() -> None:
    headers = pet(RadiopharmaceuticalStartDateTime="20260302090000+0000", RadiopharmaceuticalStartTime="100000")
    assert uptake_min(headers, BERLIN) == pytest.approx(109.77)
    assert injection_of(headers, BERLIN).warnings == ()
    assert refusal(headers, UTC).code == "injection-time", "the site's clock would have shown 9:00"
    assert refusal(headers, NEW_YORK).code == "injection-time"


@pytest.mark.parametrize(("start", "zone"), [("20260302100000+0100", UTC), ("20260302050000-0500", BERLIN)])
def test_the_offset_of_another_zone_is_refused(start: str, zone: Any) -> None:
    headers = pet(**DATE_TIME_ONLY, RadiopharmaceuticalStartDateTime=start)
    refused = refusal(headers, zone)
    assert refused.code == "time-zone"
    assert f"{start[-5:-2].replace('0', '')} h" in str(refused)


def test_acquisitions_with_offsets_beside_an_injection_without() -> None:
    aware = {"AcquisitionTime": ..., "AcquisitionDateTime": "20260302104946.2+0000", **TIME_ONLY}
    assert uptake_min(pet(**aware), BERLIN) == pytest.approx(109.77)
    local = aware | {"AcquisitionDateTime": "20260302114946.2+0100"}
    assert uptake_min(pet(**local), BERLIN) == pytest.approx(109.77)
    assert refusal(pet(**local), UTC).code == "time-zone"
    mixed = pet(**local)
    mixed[0]["AcquisitionDateTime"] = "20260302114946.2"
    assert refusal(mixed, BERLIN).code == "no-acquisition-time"


def test_all_with_offsets_need_no_zone() -> None:
    headers = pet(
        **DATE_TIME_ONLY,
        RadiopharmaceuticalStartDateTime="20260302090000+0000",
        AcquisitionTime=...,
        AcquisitionDateTime="20260302194946.2+0900",
    )
    for zone in (UTC, BERLIN, NEW_YORK):
        assert uptake_min(headers, zone) == pytest.approx(109.77)
        assert injection_of(headers, zone).warnings == ()


# Daylight saving time: Berlin went from 02:00 to 03:00 on 29 March 2026 and from 03:00 to 02:00 on 25 October.


def night(start: str, series: str, **changes: Any) -> list[Header]:
    return pet(
        **DATE_TIME_ONLY,
        RadiopharmaceuticalStartDateTime=start,
        SeriesDate=series[:8],
        SeriesTime=series[8:],
        AcquisitionDate=series[:8],
        AcquisitionTime=series[8:],
        **changes,
    )


@pytest.mark.parametrize(
    ("start", "series", "zone", "seconds"),
    [
        ("20260329013000", "20260329033000", BERLIN, 3600),
        ("20260329013000", "20260329033000", UTC, 7200),
        ("20261025013000", "20261025033000", BERLIN, 10800),
        ("20261024233000", "20261025003000", BERLIN, 3600),
        ("20260329100000", "20260329110000", BERLIN, 3600),
        ("20261025023000+0100", "20261025033000", BERLIN, 3600),
        ("20261025023000+0200", "20261025033000", BERLIN, 7200),
    ],
)
def test_an_hour_is_an_hour_when_clocks_change(start: str, series: str, zone: Any, seconds: float) -> None:
    (factor, _) = quantity.suvbw(night(start, series), zone).factors
    assert factor == pytest.approx(2e-4 * 2.0 ** (seconds / 6586.2), rel=1e-9)


def test_an_object_that_states_its_offset_has_one_clock() -> None:
    headers = night("20260329013000", "20260329033000", TimezoneOffsetFromUTC="+0100")
    assert quantity.suvbw(headers, BERLIN).factors[0] == pytest.approx(2e-4 * 2.0 ** (7200 / 6586.2), rel=1e-9)


@pytest.mark.parametrize(
    ("start", "series", "said"),
    [
        ("20261025023000", "20261025033000", "60 or 120 min"),
        ("20261025013000", "20261025023000", "60 or 120 min"),
        ("20261025021000", "20261025025000", "40 or 100 min"),
        ("20260329013000", "20260329023000", "0 or 60 min"),
    ],
)
def test_a_local_time_that_means_two_moments_is_refused(start: str, series: str, said: str) -> None:
    with pytest.raises(QuantityRefused) as caught:
        quantity.suvbw(night(start, series), BERLIN)
    assert caught.value.code == "ambiguous-time"
    assert said in str(caught.value)
    assert quantity.suvbw(night(start, series), UTC).warnings == ()


def test_an_hour_more_or_less_does_not_matter_to_zirconium() -> None:
    """2^(3600/282240) = 1.0089; the shorter interval is taken."""
    slow = {"RadionuclideHalfLife": ZR89, "RadionuclideCodeSequence": ..., "RadionuclideTotalDose": 70e6}
    found = quantity.suvbw(night("20261025023000", "20261025033000", **slow), BERLIN)
    assert found.factors[0] == pytest.approx(1e-3 * 2.0 ** (3600 / 282240), rel=1e-9)


@pytest.mark.parametrize(("half_life_s", "told_apart"), [(250_000.0, True), (252_000.0, False)])
def test_an_ambiguous_hour_matters_from_one_per_cent_on(half_life_s: float, told_apart: bool) -> None:
    """2^(3600/250000) = 1.01003, 2^(3600/252000) = 1.00995."""
    injected, at = datetime(2026, 10, 25, 1, 30), datetime(2026, 10, 25, 2, 30)
    if told_apart:
        with pytest.raises(QuantityRefused) as caught:
            given(half_life_s, BERLIN, injected).growth_until(at)
        assert caught.value.code == "ambiguous-time"
    else:
        growth = given(half_life_s, BERLIN, injected).growth_until(at)
        assert growth == pytest.approx(2.0 ** (3600 / half_life_s), rel=1e-12)


def test_the_zone_matters_only_where_offsets_or_clocks_differ() -> None:
    for zone in (UTC, BERLIN, NEW_YORK, timezone(timedelta(hours=9))):
        assert quantity.suvbw(pet(), zone).factors == pytest.approx((ONE_HALF_LIFE,) * 2, rel=1e-9)
