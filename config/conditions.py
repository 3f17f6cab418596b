"""What a rule may ask of a series: the facts there are, the conditions on them, and their three answers."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar

from config.faults import Expected, Fault, refuse, spell, unknown_key


class Answer(StrEnum):
    """The three truth values of strong Kleene logic (Kleene 1952, §64).

    The words sort as the values rank, no < unknown < yes: `and` is `min`, `or` is `max`.
    """

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


OPPOSITE = MappingProxyType({Answer.NO: Answer.YES, Answer.UNKNOWN: Answer.UNKNOWN, Answer.YES: Answer.NO})


class FactType(Enum):
    """What kind of value a fact has, in the words of a fault."""

    TEXT = "text (put it in quotes)"
    NUMBER = "a number"
    YES_NO = "yes or no (without quotes)"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing the node knows of a series. `words` lists every value where the vocabulary is closed."""

    type: FactType
    meaning: str
    words: tuple[str, ...] = ()

    @property
    def value_expected(self) -> str:
        """What a value looks like, in words."""
        return f"one of {', '.join(self.words)}" if self.words else self.type.value

    @property
    def condition_expected(self) -> str:
        """What a condition looks like, in words."""
        special = {FactType.TEXT: ", {matches: REGEX}", FactType.NUMBER: ", {min: …, max: …}", FactType.YES_NO: ""}
        return f"{self.value_expected}, a list of them{'' if self.words else special[self.type]} or {{not: …}}"


FACTS: Mapping[str, Fact] = MappingProxyType(
    {
        "tracer": Fact(FactType.TEXT, "radiopharmaceutical, such as FDG"),
        "radionuclide": Fact(FactType.TEXT, "such as F-18"),
        "modality": Fact(FactType.TEXT, "(0008,0060), such as PT or CT"),
        "kind": Fact(FactType.TEXT, "how it runs over time", ("static", "dynamic", "gated", "other")),
        "tracer_confidence": Fact(
            FactType.TEXT,
            "how sure the tracer is",
            ("coded and agreeing", "coded", "text only", "half-life only", "conflict", "none"),
        ),
        "attenuation_corrected": Fact(FactType.YES_NO, "ATTN in (0028,0051) Corrected Image, and no text against it"),
        "scatter_corrected": Fact(FactType.YES_NO, "SCAT in (0028,0051) Corrected Image"),
        "decay_corrected": Fact(FactType.YES_NO, "(0054,1102) Decay Correction and DECY in (0028,0051)"),
        "randoms_corrected": Fact(FactType.YES_NO, "(0054,1100) Randoms Correction Method or RAN in (0028,0051)"),
        "whole_body": Fact(FactType.YES_NO, "WHOLE BODY in (0054,1000) Series Type"),
        "beds": Fact(FactType.NUMBER, "number of bed positions of a static PET"),
        "primary": Fact(FactType.YES_NO, "PRIMARY in (0008,0008): slices, no reformat, projection or screenshot"),
        "calling_ae": Fact(FactType.TEXT, "AE title of the sender"),
        "called_ae": Fact(FactType.TEXT, "AE title it was sent to"),
        "manufacturer": Fact(FactType.TEXT, "(0008,0070)"),
        "station": Fact(FactType.TEXT, "(0008,1010) Station Name"),
        "model": Fact(FactType.TEXT, "(0008,1090) Manufacturer's Model Name"),
        "protocol": Fact(FactType.TEXT, "(0018,1030) Protocol Name"),
        "series_description": Fact(FactType.TEXT, "(0008,103E)"),
        "study_description": Fact(FactType.TEXT, "(0008,1030)"),
        "body_part": Fact(FactType.TEXT, "(0018,0015) Body Part Examined"),
        "units": Fact(FactType.TEXT, "(0054,1001), such as BQML"),
        "image_type": Fact(FactType.TEXT, "any value of (0008,0008), such as PRIMARY"),
        "produced_by": Fact(FactType.TEXT, "the engine of ours that made it; nobody for a received series"),
        "weight_kg": Fact(FactType.NUMBER, "patient's weight [kg]"),
        "dose_bq": Fact(FactType.NUMBER, "injected activity [Bq]"),
        "uptake_min": Fact(FactType.NUMBER, "injection to start of the scan [min]"),
        "relative_counts": Fact(FactType.NUMBER, "decays per kg and bed, relative to EANM's FDG guideline at 60 min"),
        "frame_duration_s": Fact(FactType.NUMBER, "duration of a frame [s]"),
        "frames": Fact(FactType.NUMBER, "number of time frames or gates"),
        "slices": Fact(FactType.NUMBER, "number of slices of a volume"),
        "slice_thickness_mm": Fact(FactType.NUMBER, "(0018,0050) [mm]"),
        "patient_age_y": Fact(FactType.NUMBER, "patient's age [years]"),
        "sex": Fact(FactType.TEXT, "(0010,0040)", ("M", "F", "O")),
    }
)
"""Every fact a condition may name; the facts are made by `dicom_io.series.understand`."""

NOBODY = "nobody"
"""The value of `produced_by` for a series that we did not make."""

TEXT_MAX = 128
"""Longest text that is searched [characters]: twice DICOM's LO. Peers write it, and searching long text takes long."""
PATTERN_MAX = 200
"""Longest regular expression [characters]."""
REPEATS_MAX = 3
"""`*`, `+` and `{}` of one pattern; each multiplies the longest search by the length of the text."""
OPTIONALS_MAX = 6
"""`?` of one pattern; each doubles the longest search."""

Scalar = bool | float | str
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Equals:
    """The value is this one; text is compared without regard to case and outer spaces."""

    wanted: Scalar


@dataclass(frozen=True, slots=True)
class Between:
    """A number from minimum to maximum, both included; None is open."""

    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True)
class Matches:
    """A text in which the pattern is found."""

    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    choices: tuple[Equals | Between | Matches, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; unknown stays unknown."""

    inner: Equals | Between | Matches | AnyOf


CHOICES_MAX = 50
"""Most entries of a list of alternatives."""

Simple = Equals | Between | Matches
Condition = Simple | AnyOf | Not


def answer(condition: Condition, value: object) -> Answer:
    """Whether a fact's value fulfils a condition.

    A fact of several values (Image Type) fulfils it when one of them does. What is absent, empty, of another type than
    the condition, or too long to be searched safely is unknown.
    """
    if isinstance(condition, Not):
        return OPPOSITE[answer(condition.inner, value)]
    if isinstance(condition, AnyOf):
        return max(answer(choice, value) for choice in condition.choices)
    values = value if isinstance(value, list | tuple) else [value]
    return max((_answer_one(condition, each) for each in values), default=Answer.UNKNOWN)


def _answer_one(condition: Simple, value: object) -> Answer:
    holds: bool | None = None
    match condition, value:
        case Equals(bool() as wanted), bool():
            holds = value == wanted
        case Equals(bool()), _:
            holds = None
        case Equals(str() as wanted), str() if value.strip():
            holds = _folded(value) == _folded(wanted)
        case Equals(int() | float() as wanted), int() | float() if is_number(value):
            holds = value == wanted
        case Between(low, high), int() | float() if is_number(value):
            holds = (low is None or low <= value) and (high is None or value <= high)
        case Matches(pattern), str() if value.strip() and len(value) <= TEXT_MAX:
            holds = pattern.search(value) is not None
    return Answer.UNKNOWN if holds is None else Answer.YES if holds else Answer.NO


def _folded(text: str) -> str:
    return text.strip().casefold()


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number; yes and no are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def phrase(condition: Condition) -> str:
    """The condition in words, to stand behind the name of its fact: `= FDG`, `≥ 30 and ≤ 200`."""
    if isinstance(condition, Not):
        return f"not ({phrase(condition.inner)})"
    if isinstance(condition, AnyOf):
        return " or ".join(phrase(choice) for choice in condition.choices)
    if isinstance(condition, Between):
        bounds = (("≥", condition.minimum), ("≤", condition.maximum))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
    if isinstance(condition, Matches):
        return f"matches {condition.pattern.pattern}"
    return f"= {_shown(condition.wanted)}"


def _shown(wanted: Scalar) -> str:
    if isinstance(wanted, bool):
        return "yes" if wanted else "no"
    return wanted if isinstance(wanted, str) else f"{wanted:g}"


def as_document(condition: Condition) -> Any:
    """The condition as its author may write it; `read_condition` makes the same condition of it."""
    match condition:
        case Not(inner):
            return {"not": as_document(inner)}
        case AnyOf(choices):
            return [as_document(choice) for choice in choices]
        case Between(minimum, maximum):
            return {name: bound for name, bound in (("min", minimum), ("max", maximum)) if bound is not None}
        case Matches(pattern):
            return {"matches": pattern.pattern}
        case Equals(wanted):
            return wanted


def read_condition(fact: Fact, document: object) -> Condition:
    """Compile a condition on a fact.

    Raises
    ------
    config.faults.Expected
        In the words of a fault.
    """
    if isinstance(document, Mapping) and set(document) == {"not"}:
        return Not(_read_choice(fact, document["not"]))
    return _read_choice(fact, document)


def _read_choice(fact: Fact, document: object) -> AnyOf | Simple:
    if not isinstance(document, list | tuple):
        return _read_simple(fact, document)
    if not 0 < len(document) <= CHOICES_MAX:
        raise Expected(f"a list of 1 to {CHOICES_MAX} entries")
    return AnyOf(tuple(_read_simple(fact, each) for each in document))


def _read_simple(fact: Fact, document: object) -> Simple:
    keys = set(document) if isinstance(document, Mapping) else set()
    match document:
        case {"matches": pattern} if keys == {"matches"} and fact.type is FactType.TEXT and not fact.words:
            return Matches(read_pattern(pattern))
        case Mapping() if keys and keys <= {"min", "max"} and fact.type is FactType.NUMBER:
            return _read_range(document.get("min"), document.get("max"))
        case Mapping() | list():
            raise Expected(fact.condition_expected)
    return Equals(read_value(fact, document))


def _read_range(minimum: object, maximum: object) -> Between:
    low, high = (None if bound is None else _read_number(bound) for bound in (minimum, maximum))
    if low is None and high is None:
        raise Expected("a number at min: or max:")
    if low is not None and high is not None and low > high:
        raise Expected(f"min not above max (min is {low:g}, max is {high:g})")
    return Between(low, high)


def _read_number(value: object) -> float:
    if not is_number(value):
        raise Expected("numbers at min: and max:")
    return value


def read_value(fact: Fact, value: object) -> Scalar:
    """One value of a fact as a person writes it.

    Raises
    ------
    config.faults.Expected
        In the words of a fault.
    """
    match fact.type:
        case FactType.YES_NO if isinstance(value, bool):
            return value
        case FactType.NUMBER if is_number(value):
            return value
        case FactType.TEXT if isinstance(value, str) and value.strip() and len(value) <= TEXT_MAX:
            if not fact.words or _folded(value) in {_folded(word) for word in fact.words}:
                return value
    raise Expected(fact.value_expected)


def read_pattern(text: object) -> re.Pattern[str]:
    """Compile a regular expression whose search time is bounded: hostile peers choose the text it runs on.

    A repeated group is refused, so quantifiers never nest; the number of quantifiers is limited.

    Raises
    ------
    config.faults.Expected
        In the words of a fault.
    """
    if not isinstance(text, str) or not 0 < len(text) <= PATTERN_MAX:
        raise Expected(f"a regular expression of 1 to {PATTERN_MAX} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError, FutureWarning, DeprecationWarning) as error:
        raise Expected(f"a regular expression ({error})") from error
    # What remains of escapes and character sets is one letter; `(?` opens a group and is no quantifier.
    skeleton = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text, flags=re.DOTALL).replace("(?", "(")
    if pattern.flags & re.VERBOSE or re.search(r"\)[*+{]", skeleton):
        raise Expected("a regular expression without a repeated group (no quantifier inside another) and without (?x)")
    if len(re.findall(r"[*+{]", skeleton)) > REPEATS_MAX or skeleton.count("?") > OPTIONALS_MAX:
        raise Expected(
            f"at most {REPEATS_MAX} of * + {{}} and {OPTIONALS_MAX} of ? in a pattern; a list may hold several"
        )
    return pattern


def read_conditions(document: object) -> Mapping[str, Condition]:
    """Compile `{fact: condition}`.

    Raises
    ------
    pydantic.ValidationError
        Every fault, each with the name of its fact.
    """
    return read_table(document, CONDITION_READERS)


def read_table(document: object, readers: Mapping[str, Callable[[object], Value]]) -> dict[str, Value]:
    """Read every value of a mapping by the reader of its key.

    readers : raise Expected

    Raises
    ------
    config.faults.Expected
        The document is no mapping.
    pydantic.ValidationError
        Every unknown key and every wrong value.
    """
    if not isinstance(document, Mapping):
        raise Expected("a mapping (lines of `name: value`)")
    values, faults = {}, []
    for key, value in document.items():
        if key not in readers:
            faults.append(Fault((str(key),), unknown_key(key, readers)))
            continue
        try:
            values[key] = readers[key](value)
        except Expected as error:
            faults.append(Fault((key,), f"expected {error}, got {spell(value)}"))
    refuse(faults)
    return values


CONDITION_READERS: Mapping[str, Callable[[object], Condition]] = MappingProxyType(
    {name: functools.partial(read_condition, fact) for name, fact in FACTS.items()}
)
"""How the condition on each fact is read."""
