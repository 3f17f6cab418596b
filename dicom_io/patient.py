"""Weight and height of a patient, and the body measures an SUV is normalised by.

Every SUV is C · N / D: concentration [Bq/mL], a measure N of the body, injected activity [Bq]. N is the body weight
in grams (SUVbw), a lean or ideal body mass in grams, or the body surface area in cm² (PS3.3 C.8.9.1.1.3, SUV Type).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_io.attributes import positive, shared, shown, within
from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header

WEIGHT_RANGE_KG = (0.01, 500.0)
GRAMS_ABOVE = 1000.0
"""Real headers hold weights in kilograms and in grams, and nobody weighs a tonne."""
HEIGHT_RANGE_M = (0.3, 2.6)
CENTIMETRES_ABOVE = 3.0
BODY_MASSES = ("LBM", "LBMJAMES128", "LBMJANMA", "IBW")
"""Values of SUV Type (0054,1006) whose measure depends on the sex."""
KINDS = ("BW", *BODY_MASSES, "BSA")


def weight_kg_of(headers: Sequence[Header]) -> float:
    """Patient's Weight (0010,1030) [kg]; numbers above 1000 are grams.

    Raises
    ------
    QuantityRefused
        no-weight (absent, empty, zero or no number), weight (no human or animal), mixed-header.
    """
    weight = positive(shared(headers, "PatientWeight"), "Patient's Weight (0010,1030)", "no-weight")
    weight_kg = weight / 1000.0 if weight > GRAMS_ABOVE else weight
    return within(weight_kg, WEIGHT_RANGE_KG, "Patient's Weight (0010,1030) [kg]", "weight")


def height_m_of(headers: Sequence[Header]) -> float:
    """Patient's Size (0010,1020) [m]; numbers above 3 are centimetres.

    Raises
    ------
    QuantityRefused
        no-height, height (no human), mixed-header.
    """
    height = positive(shared(headers, "PatientSize"), "Patient's Size (0010,1020)", "no-height")
    height_m = height / 100.0 if height > CENTIMETRES_ABOVE else height
    return within(height_m, HEIGHT_RANGE_M, "Patient's Size (0010,1020) [m]", "height")


def normaliser_of(headers: Sequence[Header], kind: str) -> float:
    """N of the SUV of one kind: body weight, lean or ideal mass [g], or body surface area [cm²].

    kind : one of KINDS. BSA by Du Bois & Du Bois 1916; LBM by Morgan & Bray 1994 (with 120 for men),
        LBMJAMES128 by James 1976, LBMJANMA by Janmahasatian 2005, IBW after Zasadny & Wahl 1993

    Raises
    ------
    QuantityRefused
        no-weight, weight, no-height, height (also where a formula leaves its range), suv-type, mixed-header.
    """
    if kind == "BW":
        return weight_kg_of(headers) * 1000.0
    if kind == "BSA":
        area_m2: float = 0.007184 * weight_kg_of(headers) ** 0.425 * (height_m_of(headers) * 100.0) ** 0.725
        return area_m2 * 1e4
    return _body_mass_kg(headers, kind) * 1000.0


def doubts_of(headers: Sequence[Header], kinds: Iterable[str]) -> tuple[str, ...]:
    """What to tell of SUVs of these kinds: that the sex is unknown where a formula asks for it."""
    if _sex(headers) is None and set(kinds) & set(BODY_MASSES):
        return ("Patient's Sex (0010,0040) is neither M nor F: the mean of both formulas was taken",)
    return ()


def _body_mass_kg(headers: Sequence[Header], kind: str) -> float:
    """Lean or ideal body mass; the mean of both sexes where the sex is neither M nor F."""
    if kind not in BODY_MASSES:
        message = f"SUV Type (0054,1006): expected {', '.join(KINDS)}, got {shown(kind)}"
        raise QuantityRefused(message, code="suv-type")
    weight_kg, height_cm = weight_kg_of(headers), height_m_of(headers) * 100.0
    squared_ratio = (weight_kg / height_cm) ** 2
    bmi = weight_kg / (height_cm / 100.0) ** 2
    male, female = {
        "LBM": (1.10 * weight_kg - 120.0 * squared_ratio, 1.07 * weight_kg - 148.0 * squared_ratio),
        "LBMJAMES128": (1.10 * weight_kg - 128.0 * squared_ratio, 1.07 * weight_kg - 148.0 * squared_ratio),
        "LBMJANMA": (9270.0 * weight_kg / (6680.0 + 216.0 * bmi), 9270.0 * weight_kg / (8780.0 + 244.0 * bmi)),
        "IBW": (48.0 + 1.06 * (height_cm - 152.0), 45.5 + 0.91 * (height_cm - 152.0)),
    }[kind]
    mass_kg = {"M": male, "F": female}.get(_sex(headers) or "", (male + female) / 2.0)
    return within(mass_kg, WEIGHT_RANGE_KG, f"{kind} of this weight and height [kg]", "height")


def _sex(headers: Sequence[Header]) -> str | None:
    sex = shared(headers, "PatientSex")
    return sex if sex in ("M", "F") else None
