"""What a series and its patient are called and measured as: names, body, times of the injection. Pure.

Nothing here is guessed: what the headers do not say, or contradict, is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import tzinfo
from math import exp2
from statistics import median
from typing import TypeVar

from dicom_io import administration, patient, times
from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header, common, items, number, text
from engines.contract import Json

MANUFACTURER = "tracerd"
"""What our own series say of themselves in Contributing Equipment Sequence (0018,A001)."""
PROCESSING_EQUIPMENT = "109102"
AGE_YEARS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}
REFERENCE_BQ_S_PER_KG = 7e6 * 60.0 * exp2(-3600.0 / 6586.2)
"""The FDG that EANM's guideline 2.0 asks for, at 60 min: 7 MBq·min·bed⁻¹·kg⁻¹ for beds that overlap by more than 30 %
(Boellaard 2015, Eur J Nucl Med Mol Imaging 42:328), decayed from the injection with F-18's 6586.2 s."""

Found = TypeVar("Found")


def series_description(headers: Sequence[Header]) -> dict[str, Json]:
    """What the sender calls things; the first instance speaks for the series."""
    first = headers[0]
    return {
        "series_uid": first.get("SeriesInstanceUID"),
        "modality": common(headers, "Modality"),
        "sop_class_uid": common(headers, "SOPClassUID"),
        "manufacturer": text(first, "Manufacturer"),
        "station": text(first, "StationName"),
        "model": text(first, "ManufacturerModelName"),
        "protocol": text(first, "ProtocolName"),
        "series_description": text(first, "SeriesDescription"),
        "study_description": text(first, "StudyDescription"),
        "body_part": text(first, "BodyPartExamined"),
        "image_type": first.get("ImageType") or [],
        "slice_thickness_mm": number(first, "SliceThickness"),
    }


def examination(headers: Sequence[Header], timezone: tzinfo, kind: str | None, *, is_pet: bool) -> dict[str, Json]:
    """Patient, injection and how much of it was counted.

    timezone : of the site, as in `quantity.suvbw`
    kind : as `kinds.kind_of`; counts are compared for static series only, whose frames last as long as their beds
    """
    weight_kg = _known(patient.weight_kg_of, headers)
    dose_bq = _known(administration.dose_bq_of, headers)
    half_life_s = _known(administration.half_life_s_of, headers)
    uptake_s = _known(lambda all_: administration.uptake_s(all_, timezone), headers) if is_pet else None
    duration_s = _frame_duration_s(headers)
    counts = None
    if kind == "static" and dose_bq and half_life_s and uptake_s is not None and duration_s and weight_kg:
        counts = round(relative_counts(dose_bq, half_life_s, uptake_s, duration_s, weight_kg), 4)
    return {
        "weight_kg": weight_kg,
        "height_m": _known(patient.height_m_of, headers),
        "sex": common(headers, "PatientSex"),
        "patient_age_y": _age_y(headers[0]),
        "dose_bq": dose_bq,
        "uptake_min": None if uptake_s is None else round(uptake_s / 60.0, 3),
        "frame_duration_s": duration_s,
        "relative_counts": counts,
    }


def relative_counts(dose_bq: float, half_life_s: float, uptake_s: float, duration_s: float, weight_kg: float) -> float:
    """How many decays per kg the scanner could see at one bed position, relative to what EANM's guideline asks for.

    (D · 2^(−uptake/T½) · duration / weight) / REFERENCE_BQ_S_PER_KG, with activity and weight as at the start of the
    scan. It says nothing of the share of positrons among the decays, of the scanner's sensitivity, or of decay during
    the frame: compare series of one radionuclide and one scanner by it.
    """
    decays_bq_s = dose_bq * exp2(-uptake_s / half_life_s) * duration_s
    return decays_bq_s / weight_kg / REFERENCE_BQ_S_PER_KG


def produced_by(headers: Sequence[Header]) -> str | None:
    """The engine, if this node (or another tracerd) made the series."""
    for equipment in items(headers[0], "ContributingEquipmentSequence"):
        purposes = items(equipment, "PurposeOfReferenceCodeSequence")
        processed = any(purpose.get("CodeValue") == PROCESSING_EQUIPMENT for purpose in purposes)
        if processed and equipment.get("Manufacturer") == MANUFACTURER:
            return text(equipment, "ManufacturerModelName")
    return None


def _known(measure: Callable[[Sequence[Header]], Found], headers: Sequence[Header]) -> Found | None:
    """What is measured, None where it is refused; the reason is told where it matters, with the SUV."""
    try:
        return measure(headers)
    except QuantityRefused:
        return None


def _age_y(header: Header) -> float | None:
    """Patient's Age (0010,1010), else from the birth date and the date of the series."""
    age = re.fullmatch(r"(\d{3})([DWMY])", text(header, "PatientAge") or "")
    if age is not None:
        return round(int(age[1]) * AGE_YEARS[age[2]], 2)
    born = times.moment(text(header, "PatientBirthDate"), "0000")
    scanned = times.moment(text(header, "SeriesDate") or text(header, "StudyDate"), "0000")
    return round((scanned - born).days / 365.25, 2) if born and scanned and scanned >= born else None


def _frame_duration_s(headers: Sequence[Header]) -> float | None:
    """The middle one: beds of one scan differ by some per cent, frames of a dynamic one by much."""
    durations = [number(header, "ActualFrameDuration") for header in headers]
    positive = [duration for duration in durations if duration is not None and duration > 0]
    return median(positive) / 1000.0 if positive else None
