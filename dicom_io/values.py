"""Encoded values → values that JSON can carry, by value representation (PS3.5 section 6.2)."""

from __future__ import annotations

import math
import re
import struct
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

from engines.contract import Json

SPLIT_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "PN", "SH", "TM", "UC", "UI"})
WHOLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
NUMBER_TEXT = frozenset({"DS", "IS"})
TEXT = SPLIT_TEXT | WHOLE_TEXT | NUMBER_TEXT
CHARACTER_SET_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # Python's float() takes more than DS does
NUMBER_FORMAT = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "UV": "<Q", "SV": "<q", "FL": "<f", "FD": "<d"}

REMEMBERED_BYTES = 256
"""Values up to here are decoded once for many slices, which mostly say the same; longer ones would fill the memory."""

Encodings = tuple[str, ...]
ASCII: Encodings = ("iso8859",)


@lru_cache(maxsize=64)
def character_set(value: bytes) -> Encodings:
    """Python encodings of a Specific Character Set (0008,0005); unknown terms read as ISO-IR 6.

    Only DICOM's own terms are looked up: pydicom would take any Python codec by its name.
    """
    terms = [term.strip() for term in value.decode("ascii", "replace").rstrip("\0 ").split("\\")]
    known = [term if term in python_encoding else "" for term in terms]
    return tuple(convert_encodings(known))


def decode(value: bytes, vr: str, encodings: Encodings, *, several: bool) -> Json:
    """The value of one element, None where it is empty or its VR is none that a header needs.

    several : the data dictionary allows more than one value, so a list is returned whatever their number; callers
        leave it as it is, since equal short values are decoded once

    Numbers that are not finite or not numbers at all stay the text that was sent: a reader sees that there is a
    value and that it is unusable.
    """
    return (_decoded_once if len(value) <= REMEMBERED_BYTES else _decoded)(value, vr, encodings, several)


def _decoded(value: bytes, vr: str, encodings: Encodings, several: bool) -> Json:
    if vr in TEXT:
        text = _text(value, vr, encodings)
        parts: list[Json] = text.split("\\") if several and vr not in WHOLE_TEXT else [text]
        parts = [_stripped(part, vr) for part in parts]
        if vr in NUMBER_TEXT:
            parts = [_number(part, vr) for part in parts]
        parts = [None if part == "" else part for part in parts]
    else:
        parts = _binary(value, vr)
    if parts in ([], [None]):
        return None
    return parts if several else parts[0]


_decoded_once = lru_cache(maxsize=2048)(_decoded)


def stripped_bytes(value: bytes, vr: str | None) -> bytes:
    """The value without the padding its VR allows (PS3.5 6.2); binary values as they are."""
    return value.rstrip(b"\0 ") if vr in TEXT else value


def _text(value: bytes, vr: str, encodings: Encodings) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    return decode_bytes(value, encodings if vr in CHARACTER_SET_TEXT else ASCII, {ord("\\"), ord("^"), ord("=")})


def _stripped(text: str, vr: str) -> str:
    """Leading spaces belong to the value in long texts only."""
    return text.rstrip("\0 ") if vr in WHOLE_TEXT else text.strip("\0 ")


def _number(text: str, vr: str) -> Json:
    number = float(text) if DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(number):
        return text
    return int(number) if vr == "IS" and number == int(number) else number


def _binary(value: bytes, vr: str) -> list[Json]:
    """Numbers and tags; "US or SS" is read as unsigned, which only pixel values would mind."""
    try:
        if vr == "AT":
            return [f"{group:04X}{element:04X}" for group, element in struct.iter_unpack("<HH", value)]
        code = NUMBER_FORMAT.get(vr[:2])
        numbers: list[Json] = [number for (number,) in struct.iter_unpack(code, value)] if code else []
    except struct.error:
        return [value.hex()]  # not a whole number of values: present, and plainly unusable
    return [n if math.isfinite(n) else repr(n) for n in numbers]
