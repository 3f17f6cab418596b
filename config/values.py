"""Single values as people write them, and the types of the models' fields."""

from __future__ import annotations

import functools
import math
import re
import zoneinfo
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, Strict

from config.faults import Expected, Fault, did_you_mean, refuse, spell

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
"""How every model of the configuration reads: frozen, unknown keys are faults, docstrings describe the fields."""

NAME_MAX = 64
_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")
_AE_CHARACTERS = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?!.{{254}})(?:{_HOST_LABEL}\.)*(?=[A-Za-z0-9-]*[A-Za-z]){_HOST_LABEL}")


def _read_amount(value: object, units: dict[str, float] | dict[str, int], expected: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    written = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if written is None or written[2] not in units:
        raise Expected(expected)
    return float(written[1]) * units[written[2]]


def read_duration(value: object) -> float:
    """Seconds from a number or from text such as "10 s", "30 min", "2 h".

    Raises
    ------
    config.faults.Expected
        In the words of a fault.
    """
    return _read_amount(value, _DURATION_UNITS, "a duration such as 30 (seconds), '10 s', '30 min', '2 h' or '3 d'")


def read_size(value: object) -> int:
    """Bytes from a whole number or from text such as "512 MiB" (2^20) or "2 GB" (10^9).

    Raises
    ------
    config.faults.Expected
        In the words of a fault.
    """
    expected = "a size such as 1048576 (bytes), '512 MiB', '8 GiB' or '2 TB'"
    if isinstance(value, float):
        raise Expected(expected)
    return round(_read_amount(value, _SIZE_UNITS, expected))


def write_duration(seconds: float) -> str:
    """A duration as people write it, to the microsecond, in the largest unit that needs no fraction.

    `read_duration` takes it back.
    """
    return _write_amount(seconds, _DURATION_UNITS) or f"{seconds:.6f}".rstrip("0").rstrip(".") + " s"


def write_size(count: int) -> str:
    """A number of bytes as people write it, in the largest unit that needs no fraction; `read_size` takes it back."""
    return _write_amount(count, _SIZE_UNITS) or f"{count} B"


def _write_amount(value: float, units: dict[str, float] | dict[str, int]) -> str | None:
    for unit, factor in sorted(units.items(), key=lambda each: -each[1]):
        if value >= factor and (value / factor).is_integer():
            return f"{value / factor:.0f} {unit}"
    return None


def read_ae_title(value: object) -> str:
    """An application entity title: 1–16 characters of ISO 646 without backslash and control characters.

    Leading and trailing spaces mean nothing in DICOM and are refused, since people compare titles by eye.

    Source: DICOM PS3.5 §6.2, VR AE.
    """
    if isinstance(value, str) and _AE_CHARACTERS.fullmatch(value) and value == value.strip():
        return value
    raise Expected("an AE title: text of 1 to 16 ASCII characters, no backslash, no space at either end")


def read_host(value: object) -> str:
    """An IPv4 or IPv6 address or a host name (RFC 1123)."""
    if isinstance(value, str):
        try:
            ip_address(value)
        except ValueError:
            if _HOST_NAME.fullmatch(value):
                return value
        else:
            return value
    raise Expected("an IP address or a host name")


def read_web_url(value: object) -> str:
    """The address of a web service: http or https, a host, perhaps a port and a path; no query, no password.

    Returns it without a slash at its end.
    """
    expected = "a web address such as https://archive.example/dicom-web, without user, password and query"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise Expected(expected)
    try:
        parts = urlsplit(value)
        well_formed = parts.scheme in {"http", "https"} and parts.port != 0 and read_host(parts.hostname)
    except ValueError:
        well_formed = False
    if not well_formed or parts.username is not None or parts.query or parts.fragment or "\\" in value:
        raise Expected(expected)
    return value.rstrip("/")


def read_user_name(value: object) -> str:
    """A name for HTTP basic authentication, which a colon would end (RFC 7617 2)."""
    if isinstance(value, str) and 0 < len(value) <= NAME_MAX and value.isprintable() and ":" not in value:
        return value
    raise Expected(f"a name of 1 to {NAME_MAX} characters without a colon")


def read_network(value: object) -> IPv4Network | IPv6Network:
    """An address range in CIDR notation, or one address."""
    expected = "an address range such as 10.1.2.0/24, or one address such as 10.1.2.3"
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise Expected(expected)
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        meant = ip_network(value, strict=False)
    except ValueError:
        raise Expected(expected) from None
    raise Expected(f"the first address of the range, {meant}, or one address without a slash")


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def read_time_zone(value: object) -> str:
    """The IANA name of a time zone.

    Raises
    ------
    pydantic.ValidationError
        With a suggestion where a name is near.
    """
    if not isinstance(value, str) or value not in _time_zones():
        hint = did_you_mean(value, _time_zones())
        refuse([Fault((), f"expected an IANA time zone such as Europe/Berlin, got {spell(value)}{hint}")])
    return str(value)


def read_path(value: object) -> Path:
    """A file or folder name."""
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value.strip() and value.isprintable():
        return Path(value)
    raise Expected("a path")


def read_name(value: object) -> str:
    """A name people give: shown in tables, typed in commands."""
    if isinstance(value, str) and 0 < len(value) <= NAME_MAX and value.isprintable() and value == value.strip():
        return value
    raise Expected(f"a name: text of 1 to {NAME_MAX} characters (in quotes if YAML takes it for something else)")


def read_slot(value: object) -> str:
    """The name of an engine's input."""
    if isinstance(value, str) and value.isascii() and value.isidentifier() and len(value) <= NAME_MAX:
        return value
    raise Expected("the name of an input: letters, digits and _")


def read_flag(value: object) -> bool:
    """Yes or no: what YAML makes of yes, no, true, false, on and off without quotes."""
    if isinstance(value, bool):
        return value
    raise Expected("yes or no (without quotes)")


Name = Annotated[str, BeforeValidator(read_name)]
SlotName = Annotated[str, BeforeValidator(read_slot)]
Flag = Annotated[bool, Strict()]
WholeNumber = Annotated[int, Strict()]
Seconds = Annotated[float, BeforeValidator(read_duration), Field(gt=0, le=30 * 86400)]
ByteCount = Annotated[int, BeforeValidator(read_size), Field(ge=1, le=2**50)]
AETitle = Annotated[str, BeforeValidator(read_ae_title)]
Host = Annotated[str, BeforeValidator(read_host)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(read_network)]
WebUrl = Annotated[str, BeforeValidator(read_web_url)]
UserName = Annotated[str, BeforeValidator(read_user_name)]
FilePath = Annotated[Path, PlainValidator(read_path)]
TimeZone = Annotated[str, BeforeValidator(read_time_zone)]
