"""What the numbers of a series mean: factors from rescaled pixel values to SUV or Bq/mL, or the reason for none.

A factor is right or it is refused. Formulas: PS3.3 C.8.9 (PET), QIBA's vendor-neutral SUV pseudo-code; body measures in
patient.py, injection and decay in administration.py, the decay reference in decay_reference.py.

With C = slope · stored [Bq/mL], body measure N [g or cm²], injected activity D [Bq], λ = ln 2 / T½ and frame T:

    BQML, START        SUV = C · N/D · e^{λ(reference − injection)}
    BQML, ADMIN        SUV = C · N/D; pixels hold the activity at the injection already
    BQML, NONE         SUV = C · N/D · λT/(1 − e^{−λT}) · e^{λ(acquisition − injection)}
    CNTS               SUVbw = slope · stored · (7053,xx00) "Philips PET Private Group"; where that is 0,
                       C = slope · stored · (7053,xx09) and on as BQML; other makers' counts are refused
    GML, CM2ML         an SUV as stored, turned from its SUV Type to the one asked for by N/N'; no decay arithmetic

Codes of the refusals:

    units                        not BQML, CNTS, GML or CM2ML; nothing else can become an SUV
    slope, intercept             no positive Rescale Slope on every slice; an intercept other than 0
    not-attenuation-corrected    Corrected Image lacks ATTN, or the header contradicts itself
    not-decay-corrected          Corrected Image and Decay Correction tell different stories, or nothing
    suv-type                     an SUV Type that does not exist, or not in these units
    no-philips-factor            counts without one of Philips' factors on every slice
    no-weight, weight            absent or 0; not of a human or animal
    no-height, height            absent or 0 where a body measure needs it; not of a human, or beyond the formula
    no-dose, dose                absent or 0; not an activity that is injected, by itself or per body weight
    radiopharmaceuticals         two radiopharmaceuticals in one series
    half-life                    absent with no known code; of no PET radionuclide, or of another than the code's
    no-acquisition-time          a slice without Acquisition Date and Time
    time-zone                    local times and times with an offset from UTC, and no way to compare them
    no-injection-time            neither Start DateTime nor Start Time
    injection-time               Start DateTime and Start Time at different times of day
    injection-date               the injection is dated on another day, or may be
    negative-decay-time          injection after the acquisition or the decay reference
    uptake-time                  more than ten half-lives from the injection to the acquisition
    no-reference-time            nothing tells to when the series was decay-corrected, or slices differ
    series-time                  Series Time long before the first acquisition, and nothing confirms it
    no-frame-duration            absent where a frame's decay is needed
    ambiguous-time               a local time in the hour when clocks change, which SUV depends on
    mixed-header                 slices differ in what a series has once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from dicom_io.administration import (
    Injection,
    acquisitions,
    check_dose_per_weight,
    dose_bq_of,
    frame_s,
    injection_of,
)
from dicom_io.attributes import shared, shown
from dicom_io.corrections import Corrections, corrections_of
from dicom_io.decay_reference import CONTRADICTION_MAX, reference_of
from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header, number
from dicom_io.patient import BODY_MASSES, KINDS, doubts_of, normaliser_of, weight_kg_of

CANNOT_BECOME_SUV = {
    "CPS": "counts per second cannot become SUV without a calibration factor",
    "PROPCPS": "values proportional to counts per second cannot become SUV without a calibration factor",
    "PROPCNTS": "values proportional to counts cannot become SUV without a calibration factor",
    "PCNT": "per cent of an unknown whole cannot become SUV",
    "1CM": "an attenuation map is not an image of activity",
    "NONE": "values without a unit cannot become SUV",
    "STDDEV": "standard deviations are not an image of activity",
}
"""Values of Units (0054,1001) that scanners write beside those that can (PS3.3 C.8.9.1.1.2), and why not."""
_PHILIPS_SUV = "Philips SUV Scale Factor (7053,xx00)"
_PHILIPS_ACTIVITY = "Philips Activity Concentration Scale Factor (7053,xx09)"


@dataclass(frozen=True, slots=True)
class Factors:
    """How to turn rescaled pixel values into a quantity.

    factors : one per instance, in the order of the headers given: quantity = factor · (slope · stored)
    reference : which formula and which reference time were used, in words for people
    branch : the same as a short stable name, for tables and counts
    warnings : what in the header speaks against the factors without refuting them
    """

    factors: tuple[float, ...]
    reference: str
    branch: str = ""
    warnings: tuple[str, ...] = ()


def suvbw(headers: Sequence[Header], zone: tzinfo) -> Factors:
    """SUV by body weight [g/mL] per rescaled unit: `suv` of the kind BW."""
    return suv(headers, zone, "BW")


def suv(headers: Sequence[Header], zone: tzinfo, kind: str) -> Factors:
    """SUV per rescaled unit, for every instance of one PET series.

    headers : single-frame headers, at least one
    zone : of the site, for times that carry no offset from UTC in an object that states none
    kind : BW, LBM, LBMJAMES128, LBMJANMA, IBW [g/mL] or BSA [cm²/mL], as SUV Type (0054,1006)

    Raises
    ------
    QuantityRefused
        Any code of the list above.
    """
    if kind not in KINDS:
        raise QuantityRefused(f"SUV: expected one of {', '.join(KINDS)}, got {shown(kind)}", code="suv-type")
    units = shared(headers, "Units")
    if units not in ("BQML", "CNTS", "GML", "CM2ML"):
        reason = CANNOT_BECOME_SUV.get(units if isinstance(units, str) else "", "no SUV is defined from these")
        message = f"Units (0054,1001): expected BQML, CNTS, GML or CM2ML, got {shown(units)}: {reason}"
        raise QuantityRefused(message, code="units")
    check_rescale(headers)
    found = corrections_of(headers)
    _check_attenuation(found)
    if units in ("GML", "CM2ML"):
        _check_decay(found, corrected=True)
        return _from_suv(headers, kind, stored=_stored_kind(headers, str(units)))
    if units == "CNTS":
        return _from_counts(headers, zone, kind, found)
    return _from_activity(headers, zone, kind, found, Factors((1.0,) * len(headers), "BQML", "bqml"))


def activity(headers: Sequence[Header]) -> Factors:
    """Activity concentration [Bq/mL] per rescaled unit, decay-corrected as the series says.

    Raises
    ------
    QuantityRefused
        units, no-philips-factor, intercept, slope, mixed-header.
    """
    units = shared(headers, "Units")
    check_rescale(headers)
    if units == "BQML":
        return Factors((1.0,) * len(headers), "BQML", "bqml")
    if units == "CNTS":
        return _philips_activity(headers)
    raise QuantityRefused(f"Units (0054,1001): expected BQML or CNTS, got {shown(units)}", code="units")


def hounsfield(headers: Sequence[Header]) -> Factors:
    """Factors of a CT: its rescaled values are Hounsfield units.

    Raises
    ------
    QuantityRefused
        units (Rescale Type is something else), slope, intercept (absent).
    """
    kind = shared(headers, "RescaleType")
    if kind not in (None, "HU", "US"):  # US = unspecified, which CT Image Storage makes HU (PS3.3 C.8.2.1.1)
        raise QuantityRefused(f"Rescale Type (0028,1054): expected HU, got {shown(kind)}", code="units")
    for header in headers:
        if number(header, "RescaleIntercept") is None:
            raise QuantityRefused("Rescale Intercept (0028,1052): expected a number, got none", code="intercept")
    _check_slopes(headers)
    return Factors((1.0,) * len(headers), "Hounsfield units by Rescale Slope and Intercept", "hu")


def check_rescale(headers: Sequence[Header]) -> None:
    """PET: a positive slope and no intercept on every slice (PS3.3 C.8.9.4: Rescale Intercept shall be 0).

    Raises
    ------
    QuantityRefused
        slope, intercept.
    """
    _check_slopes(headers)
    for header in headers:
        intercept = 0.0 if header.get("RescaleIntercept") is None else number(header, "RescaleIntercept")
        if intercept != 0.0:
            message = f"Rescale Intercept (0028,1052): expected 0 in a PET image, got {shown(intercept)}"
            raise QuantityRefused(message, code="intercept")


def _from_suv(headers: Sequence[Header], kind: str, stored: str) -> Factors:
    """An SUV as stored: 1 for its own kind, whatever else the header lacks, else the ratio of the body measures."""
    sent = f"{'CM2ML' if stored == 'BSA' else 'GML'}, SUV{stored.lower()} as sent"
    branch = "cm2ml" if stored == "BSA" else f"gml-{stored.lower()}"
    if shared(headers, "DecayCorrection") == "ADMIN":
        sent += ", decay-corrected to the injection (ADMIN): no decay arithmetic"
    if kind == stored:
        return Factors((1.0,) * len(headers), sent, branch)
    factor = normaliser_of(headers, kind) / normaliser_of(headers, stored)
    warnings = doubts_of(headers, (kind, stored))
    return Factors((factor,) * len(headers), f"{sent}, turned to SUV{kind.lower()}", branch, warnings)


def _stored_kind(headers: Sequence[Header], units: str) -> str:
    """SUV Type (0054,1006); BW where a GML series has none, and BSA where a CM2ML series has none."""
    kind = shared(headers, "SUVType")
    allowed = ("BSA",) if units == "CM2ML" else ("BW", *BODY_MASSES)
    if kind is None:
        return allowed[0]
    if kind not in allowed:
        message = f"SUV Type (0054,1006): expected {', '.join(allowed)} in {units}, got {shown(kind)}"
        raise QuantityRefused(message, code="suv-type")
    return str(kind)


def _from_counts(headers: Sequence[Header], zone: tzinfo, kind: str, corrected: Corrections) -> Factors:
    if all(header.get("PhilipsSUVScaleFactor") in (None, 0.0) for header in headers):
        return _from_activity(headers, zone, kind, corrected, _philips_activity(headers))
    _check_decay(corrected, corrected=True)
    ratio = 1.0 if kind == "BW" else normaliser_of(headers, kind) / normaliser_of(headers, "BW")
    factors = tuple(factor * ratio for factor in _philips(headers, "PhilipsSUVScaleFactor"))
    try:
        scale = _philips_activity(headers)
        computed = _from_activity(headers, zone, "BW", corrected, scale).factors[0] / scale.factors[0]
        warnings = _philips_contradicts(headers, computed)
    except QuantityRefused:
        warnings = ()  # weight, dose and times need not be there: Philips has used them already
    warnings += doubts_of(headers, (kind,))
    return Factors(factors, f"CNTS, {_PHILIPS_SUV}", "cnts-philips-suv", warnings)


def _philips_activity(headers: Sequence[Header]) -> Factors:
    factors = _philips(headers, "PhilipsActivityConcentrationScaleFactor")
    return Factors(factors, f"CNTS, {_PHILIPS_ACTIVITY}", "cnts-philips-activity")


def _philips(headers: Sequence[Header], keyword: str) -> tuple[float, ...]:
    found = [number(header, keyword) for header in headers]
    factors = tuple(factor for factor in found if factor is not None and factor > 0.0)
    if len(factors) != len(headers):
        message = (
            "counts: expected a factor of Philips PET Private Group, (7053,xx00) or (7053,xx09), on every slice, "
            f"{len(headers) - len(factors)} of {len(headers)} have none"
        )
        raise QuantityRefused(message, code="no-philips-factor")
    return factors


def _from_activity(
    headers: Sequence[Header], zone: tzinfo, kind: str, corrected: Corrections, concentration: Factors
) -> Factors:
    """SUV from Bq/mL by Decay Correction (0054,1102): START, ADMIN or NONE (PS3.3 C.8.9.1.1.5)."""
    correction = shared(headers, "DecayCorrection")
    if correction not in ("START", "ADMIN", "NONE"):
        message = f"Decay Correction (0054,1102): expected START, ADMIN or NONE, got {shown(correction)}"
        raise QuantityRefused(message, code="not-decay-corrected")
    _check_decay(corrected, corrected=correction != "NONE")
    per_bq = normaliser_of(headers, kind) / dose_bq_of(headers)
    weight_kg = weight_kg_of(headers)
    check_dose_per_weight(headers, weight_kg)
    if correction == "NONE":
        decay = _decay_from_none(headers, injection_of(headers, zone))
    elif correction == "START":
        decay = _decay_from_reference(headers, injection_of(headers, zone))
    else:
        decay = _decay_to_injection(headers, zone)
    factors = tuple(scale * per_bq * growth for scale, growth in zip(concentration.factors, decay.factors, strict=True))
    bw_per_bqml = weight_kg * 1000.0 / dose_bq_of(headers) * decay.factors[0]
    warnings = (*decay.warnings, *doubts_of(headers, (kind,)), *_philips_contradicts(headers, bw_per_bqml))
    reference, branch = f"{concentration.reference}, {decay.reference}", f"{concentration.branch}-{decay.branch}"
    return Factors(factors, reference, branch, warnings)


def _decay_from_reference(headers: Sequence[Header], given: Injection) -> Factors:
    """e^{λ(reference − injection)} of each instance."""
    reference = reference_of(headers, given)
    growth = {at: given.growth_until(at) for at in set(reference.at)}
    factors = tuple(growth[at] for at in reference.at)
    return Factors(
        factors, f"START, {reference.said}", f"start-{reference.branch}", given.warnings + reference.warnings
    )


def _decay_to_injection(headers: Sequence[Header], zone: tzinfo) -> Factors:
    """1 for each instance; a Decay Correction DateTime (0018,9701) beside ADMIN must be that of the injection."""
    if shared(headers, "DecayCorrectionDateTime") is not None:
        growth = _decay_from_reference(headers, injection_of(headers, zone)).factors[0]
        if abs(growth - 1.0) > CONTRADICTION_MAX:
            message = (
                "Decay Correction DateTime (0018,9701): expected that of the injection, as Decay Correction is ADMIN, "
                f"got one that changes SUV by {growth - 1.0:+.0%}"
            )
            raise QuantityRefused(message, code="no-reference-time")
    return Factors((1.0,) * len(headers), "decay-corrected to the injection (ADMIN)", "admin")


def _decay_from_none(headers: Sequence[Header], given: Injection) -> Factors:
    """Decay during the frame, and from the injection to its start."""
    factors = tuple(
        given.frame_growth(frame_s(header)) * given.growth_until(at)
        for header, at in zip(headers, acquisitions(headers), strict=True)
    )
    return Factors(factors, "NONE, decay from the injection and during the frame", "none", given.warnings)


def _philips_contradicts(headers: Sequence[Header], computed: float) -> tuple[str, ...]:
    """Whether Philips' two factors together give another SUVbw per Bq/mL than weight, dose and times do."""
    sent, scale = (number(headers[0], f"Philips{name}ScaleFactor") for name in ("SUV", "ActivityConcentration"))
    if not sent or not scale or abs(sent / scale / computed - 1.0) <= CONTRADICTION_MAX:
        return ()
    change = sent / scale / computed - 1.0
    return (f"SUV by Philips' own factors would be {change:+.0%}: weight, dose or a time was changed after them",)


def _check_slopes(headers: Sequence[Header]) -> None:
    for header in headers:
        slope = number(header, "RescaleSlope")
        if slope is None or slope <= 0.0:
            message = f"Rescale Slope (0028,1053): expected a positive number on every slice, got {shown(slope)}"
            raise QuantityRefused(message, code="slope")


def _check_attenuation(found: Corrections) -> None:
    if not found.attenuation:
        message = "Corrected Image (0028,0051): expected ATTN on every slice; SUV needs attenuation correction"
        raise QuantityRefused(message + _conflict(found, "attenuation"), code="not-attenuation-corrected")


def _check_decay(found: Corrections, *, corrected: bool) -> None:
    """Corrected Image and Decay Correction must tell the same story."""
    if found.decay is not corrected:
        wanted = "DECY on every slice" if corrected else "no DECY, Decay Correction is NONE"
        message = f"Corrected Image (0028,0051): expected {wanted}"
        raise QuantityRefused(message + _conflict(found, "decay"), code="not-decay-corrected")


def _conflict(found: Corrections, name: str) -> str:
    return "".join(f"; {conflict}" for conflict in found.conflicts if conflict.startswith(name))
