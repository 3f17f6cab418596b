"""Digital reference objects: tiny PET series of a known SUV, or of a known reason for none; one table.

They stand for every way in which scanners say what a pixel means. `selftest.run` reads them as a worker reads a study,
and docs/quantity.md prints them with what was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom.dataset import Dataset

from dicom_io import reference_multiframe, reference_scan
from dicom_io.reference_scan import GE_SCAN_DATE_TIME, PHILIPS_ACTIVITY, PHILIPS_SUV, SITE, SOMEBODY_ELSE, Scan


@dataclass(frozen=True, slots=True)
class Rule:
    """One way from pixels to SUVbw.

    branch : its name in `quantity.Factors`
    formula : x is slope · stored value, W the weight [g], D the dose [Bq], λ = ln 2 / half-life, T the frame's duration
    tags : the attributes that decide
    source : where the formula is written
    """

    branch: str
    formula: str
    tags: str
    source: str


@dataclass(frozen=True, slots=True)
class ReferenceObject:
    """A scan, and what a reader must make of it.

    shows : what is special about it
    expected : the rule by which its SUV is found, or the code of the refusal
    """

    name: str
    shows: str
    scan: Scan
    expected: Rule | str

    def data_sets(self) -> list[Dataset]:
        """The instances, in an order that means nothing."""
        if self.scan.enhanced:
            return [reference_multiframe.enhanced(self.scan, self.name)]
        return reference_scan.pet_images(self.scan, self.name)


_START = "x · W / (D · exp(−λ(t − injection))), t ="
_DECAY_SOURCE = "PS3.3 C.8.9.1.1.5; QIBA vendor-neutral SUV"
_START_TAGS = "(0054,1001) BQML, (0054,1102) START"
_GML_SOURCE = "PS3.3 C.8.9.1 SUV Type (0054,1006)"

SERIES_TIME = Rule(
    "bqml-start-series-time",
    f"{_START} Series Date and Time",
    f"{_START_TAGS}, (0008,0021), (0008,0031)",
    _DECAY_SOURCE,
)
OWN_REFERENCE = Rule(
    "bqml-start-decay-correction-datetime",
    f"{_START} Decay Correction DateTime",
    "(0018,9758) YES, (0018,9701), UCUM Bq/ml",
    "PS3.3 C.8.22.6",
)
GE_SCAN = Rule(
    "bqml-start-ge-scan-datetime",
    f"{_START} GE's scan date and time",
    f"{_START_TAGS}, (0009,xx0D) of GEMS_PETD_01",
    _DECAY_SOURCE,
)
BACK_COMPUTED = Rule(
    "bqml-start-back-computed",
    f"{_START} acquisition + ln(λT / (1 − exp(−λT))) / λ − Frame Reference Time",
    f"{_START_TAGS}, (0008,0022), (0008,0032), (0018,1242), (0054,1300)",
    "PS3.3 C.8.9.4.1.5; QIBA vendor-neutral SUV",
)
EARLIEST = Rule(
    "bqml-start-earliest-acquisition",
    f"{_START} the earliest acquisition",
    f"{_START_TAGS}, (0054,1300) = 0, (0008,0022), (0008,0032)",
    _DECAY_SOURCE,
)
ADMIN = Rule("bqml-admin", "x · W / D", "(0054,1001) BQML, (0054,1102) ADMIN", "PS3.3 C.8.9.1.1.5")
NONE = Rule(
    "bqml-none",
    "x · W / D · λT / (1 − exp(−λT)) · exp(λ(acquisition − injection))",
    "(0054,1001) BQML, (0054,1102) NONE, (0008,0022), (0008,0032), (0018,1242)",
    "PS3.3 C.8.9.1.1.5, C.8.9.4.1.5",
)
PHILIPS_SUV_FACTOR = Rule(
    "cnts-philips-suv", "x · factor", "(0054,1001) CNTS, (7053,xx00) of Philips PET Private Group", "QIBA"
)


def _philips(rule: Rule) -> Rule:
    """Counts that a factor turns into Bq/mL, then as any Bq/mL."""
    return Rule(
        rule.branch.replace("bqml", "cnts-philips-activity"),
        f"x · factor = Bq/mL, then as {rule.branch}",
        "(0054,1001) CNTS, (7053,xx09) of Philips PET Private Group",
        "QIBA",
    )


BODY_WEIGHT = Rule("gml-bw", "x", "(0054,1001) GML, (0054,1006) BW or absent", _GML_SOURCE)
SURFACE = Rule(
    "cm2ml",
    "x · W / BSA, BSA [cm²] = 71.84 · kg^0.425 · cm^0.725",
    "(0054,1001) CM2ML, (0010,1020), (0010,1030)",
    "Du Bois 1916",
)
LEAN = {
    kind: Rule(
        f"gml-{kind.lower()}",
        f"x · kg / {formula}",
        f"(0054,1001) GML, (0054,1006) {kind}, (0010,0040), (0010,1020), (0010,1030)",
        source,
    )
    for kind, formula, source in (
        ("LBM", "(♂ 1.10 kg − 120 (kg/cm)², ♀ 1.07 kg − 148 (kg/cm)²)", "Morgan & Bray 1994"),
        ("LBMJAMES128", "(♂ 1.10 kg − 128 (kg/cm)², ♀ 1.07 kg − 148 (kg/cm)²)", "James 1976"),
        ("LBMJANMA", "(♂ 9270 kg / (6680 + 216 BMI), ♀ 9270 kg / (8780 + 244 BMI))", "Janmahasatian 2005"),
        ("IBW", "(♂ 48.0 + 1.06 (cm − 152), ♀ 45.5 + 0.91 (cm − 152))", "Zasadny & Wahl 1993"),
    )
}
# The patient: 75 kg, 180 cm, so (kg/cm)² = 1 / 5.76, BMI = 75 / 3.24 and 216 · BMI = 5000.
LEAN_KG = {
    ("LBM", "M"): 82.5 - 120.0 / 5.76,
    ("LBM", "F"): 80.25 - 148.0 / 5.76,
    ("LBMJAMES128", "M"): 82.5 - 128.0 / 5.76,
    ("LBMJAMES128", "F"): 80.25 - 148.0 / 5.76,
    ("LBMJANMA", "M"): 695250.0 / 11680.0,
    ("LBMJANMA", "F"): 695250.0 / (8780.0 + 244.0 * 5000.0 / 216.0),
    ("IBW", "M"): 77.68,
    ("IBW", "F"): 70.98,
}
SURFACE_CM2 = 19424.056238
"""0.007184 · 180^0.725 · 75^0.425 = 1.9424056238 m²."""

BEDS_S = (3780.0, 3600.0)
"""Acquisition times of two bed positions; the last slice is scanned first."""
REWRITTEN = Scan(series_s=7200.0, acquired_s=BEDS_S)
"""Series Time rewritten an hour after the scan, as a PACS or a de-identifier does."""
RUBIDIUM = Scan(
    agent=reference_scan.RUBIDIUM,
    dose_bq=1.11e9,
    reference_s=120.0,
    series_s=120.0,
    acquired_s=(120.0, 120.0),
    frame_s=300.0,
)
LATE_FRAME = Scan(reference_s=900.0, series_s=900.0)
FIVE_DAYS = Scan(
    agent=reference_scan.ANTIBODY,
    dose_bq=37e6,
    reference_s=432000.0,
    series_s=432000.0,
    acquired_s=(432000.0, 432000.0),
)
UNCORRECTED: dict[str, Any] = {"decay_correction": "NONE"}


def _without(*keywords: str, **differs: Any) -> dict[str, Any]:
    return {**dict.fromkeys(keywords), **differs}


def _from_series_time() -> Iterator[ReferenceObject]:
    """Bq/mL, corrected to the start of the series."""
    for name, shows, scan in (*_decays(), *_numbers(), *_clocks()):
        yield ReferenceObject(f"BQML START, {name}", shows, scan, SERIES_TIME)


def _decays() -> Iterator[tuple[str, str, Scan]]:
    """Beds, frames and radionuclides."""
    choline = Scan(agent=reference_scan.CHOLINE, reference_s=600.0, series_s=600.0)
    yield "FDG", "the usual series", Scan()
    yield "beds", "an acquisition time for each bed; the series' start counts for all", Scan(acquired_s=BEDS_S)
    yield "series before scan", "reference five minutes before the bed", Scan(reference_s=3300.0, series_s=3300.0)
    yield "late frame", "reference 45 minutes before it; Frame Reference Time agrees", LATE_FRAME
    wrong = Scan(differs={"FrameReferenceTime": "600000"})
    yield "Frame Reference Time wrong", "ten minutes off; Series Time is trusted more", wrong
    yield "Ga-68", "another half-life", Scan(agent=reference_scan.PSMA_11, dose_bq=150e6)
    yield "F-18 PSMA", "another tracer of F-18", Scan(agent=reference_scan.PSMA_1007, dose_bq=250e6)
    yield "C-11", "a half-life of 20 minutes", replace(choline, acquired_s=(600.0, 600.0))
    yield "Rb-82", "frames of four half-lives", RUBIDIUM
    yield "Cu-64", "a half-life of half a day", Scan(agent=reference_scan.DOTATATE, dose_bq=148e6)
    yield "Zr-89", "scanned five days after the injection", FIVE_DAYS
    yield "older half-life", "F-18 with 6588 s", Scan(agent=reference_scan.FDG_OF_OLDER_SCANNERS)
    yield "no half-life", "that of the coded radionuclide", Scan(differs=_without("RadionuclideHalfLife"))


def _numbers() -> Iterator[tuple[str, str, Scan]]:
    """What scanners write in units of their own, or leave out."""
    yield "dose in MBq", "370, not 370e6", Scan(differs={"RadionuclideTotalDose": "370"})
    yield "weight in grams", "75000", Scan(differs={"PatientWeight": "75000"})
    yield "sex O", "SUVbw needs no sex", Scan(differs={"PatientSex": "O"})


def _clocks() -> Iterator[tuple[str, str, Scan]]:
    """Days, zones, and the nights when clocks change."""
    no_date = _without("RadiopharmaceuticalStartDateTime")
    evening = Scan(injected=datetime(2026, 3, 2, 23, 40, tzinfo=SITE))
    tokyo = datetime(2026, 3, 2, 8, 30, tzinfo=timezone(timedelta(hours=9)))
    in_utc = {"RadiopharmaceuticalStartDateTime": "20260302073000+0000"}
    three_hours = Scan(reference_s=10800.0, series_s=10800.0, acquired_s=(10800.0, 10800.0))
    yield "time of injection only", "no Start DateTime", Scan(differs=no_date)
    yield "midnight", "injected before, scanned after it", evening
    yield "midnight, time of injection only", "the last such time before the scan", replace(evening, differs=no_date)
    zone = Scan(injected=tokyo, differs={"TimezoneOffsetFromUTC": "+0900"})
    yield "another zone", "Timezone Offset From UTC (0008,0201)", zone
    yield "injection with an offset", "Start DateTime in UTC, everything else in local time", Scan(differs=in_utc)
    spring = Scan(injected=datetime(2026, 3, 29, 1, 30, tzinfo=SITE))
    yield "clocks go forward", "01:30 to 03:30 on a spring night is one hour", spring
    autumn = replace(three_hours, injected=datetime(2026, 10, 25, 1, 30, tzinfo=SITE))
    yield "clocks go back", "01:30 to 03:30 on an autumn night is three hours", autumn


def _from_other_references() -> Iterator[ReferenceObject]:
    """Bq/mL, corrected to another moment or not at all."""
    ge = replace(REWRITTEN, private={GE_SCAN_DATE_TIME: "20260302093000.00"}, differs=_without("FrameReferenceTime"))
    zero = replace(REWRITTEN, differs={"FrameReferenceTime": "0"})
    rewritten = "Series Time an hour late"
    own = Scan(enhanced=True, reference_s=3300.0, series_s=3000.0, acquired_s=BEDS_S)
    yield ReferenceObject("Enhanced PET", "two frames; the reference by name, dose in MBq", own, OWN_REFERENCE)
    injected = replace(own, reference_s=0.0)
    yield ReferenceObject("Enhanced PET, injection", "corrected to the injection", injected, OWN_REFERENCE)
    yield ReferenceObject("BQML START, GE", rewritten, ge, GE_SCAN)
    yield ReferenceObject("BQML START, back-computed", f"{rewritten}, Frame Reference Time", REWRITTEN, BACK_COMPUTED)
    yield ReferenceObject("BQML START, earliest bed", f"{rewritten}, Frame Reference Time 0", zero, EARLIEST)
    yield ReferenceObject("BQML ADMIN, FDG", "no decay left to correct", Scan(decay_correction="ADMIN"), ADMIN)
    yield ReferenceObject(
        "BQML ADMIN, Rb-82", "the shortest half-life", replace(RUBIDIUM, decay_correction="ADMIN"), ADMIN
    )
    yield ReferenceObject("BQML NONE, FDG beds", "each bed decays", Scan(acquired_s=BEDS_S, **UNCORRECTED), NONE)
    yield ReferenceObject("BQML NONE, Rb-82", "decay within the frame", replace(RUBIDIUM, **UNCORRECTED), NONE)
    water = replace(RUBIDIUM, agent=reference_scan.WATER, **UNCORRECTED)
    yield ReferenceObject("BQML NONE, O-15", "decay within the frame", water, NONE)
    ammonia = replace(RUBIDIUM, agent=reference_scan.AMMONIA, frame_s=1200.0, **UNCORRECTED)
    yield ReferenceObject("BQML NONE, N-13", "a frame of two half-lives", ammonia, NONE)


def _from_counts_and_suv() -> Iterator[ReferenceObject]:
    """Philips' counts, and series that are an SUV already."""
    direct = Scan(units="CNTS", suv_per_unit=0.0004, private={SOMEBODY_ELSE: "7", PHILIPS_SUV: "0.0004"})
    yield ReferenceObject("CNTS, SUV factor", "beside a private block of another maker", direct, PHILIPS_SUV_FACTOR)
    counts = Scan(units="CNTS", bqml_per_count=1.75, private={PHILIPS_SUV: "0", PHILIPS_ACTIVITY: "1.75"})
    late = replace(counts, series_s=7200.0, acquired_s=BEDS_S)
    for name, scan, rule in (
        ("START", counts, SERIES_TIME),
        ("START, back-computed", late, BACK_COMPUTED),
        ("ADMIN", replace(counts, decay_correction="ADMIN"), ADMIN),
        ("NONE", replace(counts, acquired_s=BEDS_S, **UNCORRECTED), NONE),
    ):
        yield ReferenceObject(f"CNTS, activity factor, {name}", "counts to Bq/mL first", scan, _philips(rule))
    suv = Scan(units="GML", decay_correction="ADMIN", suv_per_unit=1.0)
    yield ReferenceObject("GML", "SUV Type absent: body weight", suv, BODY_WEIGHT)
    yield ReferenceObject("GML, BW", "an SUV as it stands", replace(suv, differs={"SUVType": "BW"}), BODY_WEIGHT)
    for (kind, sex), lean_kg in LEAN_KG.items():
        scan = replace(suv, suv_per_unit=75.0 / lean_kg, differs={"SUVType": kind, "PatientSex": sex})
        yield ReferenceObject(f"GML, {kind}, {sex}", "that body mass to body weight", scan, LEAN[kind])
    middle_kg = (LEAN_KG["LBMJANMA", "M"] + LEAN_KG["LBMJANMA", "F"]) / 2.0
    differs = {"SUVType": "LBMJANMA", "PatientSex": "O", "PatientSize": "180"}
    other = replace(suv, suv_per_unit=75.0 / middle_kg, differs=differs)
    yield ReferenceObject("GML, LBMJANMA, O", "the mean of both sexes; height in cm", other, LEAN["LBMJANMA"])
    surface = replace(suv, units="CM2ML", suv_per_unit=75000.0 / SURFACE_CM2)
    yield ReferenceObject("CM2ML", "body surface area to body weight", surface, SURFACE)


def _refused() -> Iterator[ReferenceObject]:
    """Series whose numbers nobody can vouch for."""
    for code, shows, scan in (*_refused_pixels(), *_refused_patients(), *_refused_times()):
        yield ReferenceObject(f"refused, {shows}", shows, scan, code)


def _refused_pixels() -> Iterator[tuple[str, str, Scan]]:
    yield "units", "proportional to counts", Scan(differs={"Units": "PROPCNTS"})
    yield "units", "counts per second", Scan(differs={"Units": "CPS"})
    yield "no-philips-factor", "counts without a private factor", Scan(units="CNTS")
    uncorrected = _without("AttenuationCorrectionMethod", CorrectedImage=["NORM", "SCAT", "RAN", "DECY"])
    yield "not-attenuation-corrected", "Corrected Image without ATTN", Scan(differs=uncorrected)
    yield "not-decay-corrected", "START without DECY", Scan(differs={"CorrectedImage": ["ATTN", "SCAT"]})
    yield "not-decay-corrected", "GML without DECY", Scan(units="GML", suv_per_unit=1.0, **UNCORRECTED)
    yield "intercept", "Rescale Intercept 1 on one slice", Scan(differs_in_last={"RescaleIntercept": "1"})
    yield "slope", "Rescale Slope 0 on one slice", Scan(differs_in_last={"RescaleSlope": "0"})
    yield "suv-type", "an SUV Type nobody defined", Scan(units="GML", differs={"SUVType": "LBMX"})


def _refused_patients() -> Iterator[tuple[str, str, Scan]]:
    lean = Scan(units="GML", decay_correction="ADMIN")
    yield "no-weight", "no weight", Scan(differs=_without("PatientWeight"))
    yield "no-weight", "a weight of 0", Scan(differs={"PatientWeight": "0"})
    yield "weight", "650 kg", Scan(differs={"PatientWeight": "650"})
    yield "mixed-header", "one slice with another weight", Scan(differs_in_last={"PatientWeight": "76"})
    yield "no-height", "lean mass without a height", replace(lean, differs=_without("PatientSize", SUVType="LBM"))
    yield "height", "five centimetres", replace(lean, differs={"PatientSize": "5", "SUVType": "LBM"})
    yield "no-dose", "no dose", Scan(differs=_without("RadionuclideTotalDose"))
    yield "dose", "370 GBq", Scan(differs={"RadionuclideTotalDose": "370000000000"})
    yield "dose", "10 (mCi)", Scan(differs={"RadionuclideTotalDose": "10"})
    yield "radiopharmaceuticals", "two injections", Scan(injections=2)
    yield "half-life", "that of Ga-68 with the code of F-18", Scan(differs={"RadionuclideHalfLife": "4057.7"})


def _refused_times() -> Iterator[tuple[str, str, Scan]]:
    time, date_time = "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"
    yield "no-acquisition-time", "no time of acquisition", Scan(differs=_without("AcquisitionTime"))
    yield "no-injection-time", "no time of injection", Scan(differs=_without(date_time, time))
    yield "injection-time", "two times of injection", Scan(differs={time: "093000"})
    yield "injection-date", "injected a day too early", Scan(differs={date_time: "20260301083000"})
    yield "injection-date", "injected a day too late", Scan(differs={date_time: "20260303083000"})
    yield "injection-date", "Zr-89 injected at a time of no date", replace(FIVE_DAYS, differs=_without(date_time))
    yield "negative-decay-time", "injected after the scan", Scan(differs={date_time: "20260302103000", time: "103000"})
    yield "uptake-time", "20 hours of uptake", Scan(differs={date_time: "20260301133000", time: "133000"})
    elsewhere = Scan(differs=_without(time, **{date_time: "20260302023000-0500"}))
    yield "time-zone", "injected by a clock of another zone than the site's", elsewhere
    twice = datetime(2026, 10, 25, 2, 10, tzinfo=SITE)
    yield "ambiguous-time", "02:10 to 02:10 when clocks go back", Scan(injected=twice)
    late = replace(REWRITTEN, differs=_without("FrameReferenceTime"))
    yield "no-reference-time", "Series Time late and nothing else", late
    yield "series-time", "Series Time 45 minutes early, contradicted", replace(LATE_FRAME, reference_s=3600.0)
    endless = Scan(differs=_without("ActualFrameDuration"), **UNCORRECTED)
    yield "no-frame-duration", "NONE without the frame's duration", endless


REFERENCE_OBJECTS: tuple[ReferenceObject, ...] = (
    *_from_series_time(),
    *_from_other_references(),
    *_from_counts_and_suv(),
    *_refused(),
)
RULES: tuple[Rule, ...] = tuple(
    dict.fromkeys(one.expected for one in REFERENCE_OBJECTS if isinstance(one.expected, Rule))
)
