"""Attributes that SUV rests on: one value for a whole series, within what it can be, or a typed refusal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_io.errors import QuantityRefused
from dicom_io.headers import Header
from engines.contract import Json


def shared(headers: Sequence[Header], keyword: str) -> Json:
    """The value of one attribute that all instances of the series share, None where none has one.

    Raises
    ------
    QuantityRefused
        mixed-header.
    """
    return single((header.get(keyword) for header in headers), keyword)


def single(found: Iterable[Json], keyword: str) -> Json:
    """The one value among those found, None where nothing was found.

    Raises
    ------
    QuantityRefused
        mixed-header.
    """
    distinct: list[Json] = []
    for value in found:
        if value not in distinct:
            distinct.append(value)
    if len(distinct) > 1:
        message = f"{keyword}: expected one value in the whole series, got {len(distinct)} different ones"
        raise QuantityRefused(message, code="mixed-header")
    return distinct[0] if distinct else None


def positive(value: Json, what: str, code: str) -> float:
    """A number above zero.

    Raises
    ------
    QuantityRefused
        `code`.
    """
    if not isinstance(value, int | float) or not value > 0:
        raise QuantityRefused(f"{what}: expected a positive number, got {shown(value)}", code=code)
    return float(value)


def within(value: float, limits: tuple[float, float], what: str, code: str) -> float:
    """The value itself, if it lies within the limits.

    Raises
    ------
    QuantityRefused
        `code`.
    """
    low, high = limits
    if not low <= value <= high:
        raise QuantityRefused(f"{what}: expected {low:g} to {high:g}, got {value:g}", code=code)
    return value


def shown(value: Json) -> str:
    """A header value in a message: numbers and short codes only, since free text may hold anything."""
    if isinstance(value, int | float):
        return f"{value:g}"
    if value is None:
        return "none"
    return value if isinstance(value, str) and len(value) <= 16 and value.isalnum() else "something else"
