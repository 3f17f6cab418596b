"""Coded entries (PS3.3 section 8) as they are compared: one (scheme, value) per concept, whatever edition wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydicom.sr._snomed_dict import mapping  # what `pydicom.sr.coding.Code` compares with; it offers no look-up

from dicom_io.headers import items
from engines.contract import Json

STANDARD_SCHEMES = frozenset({"SCT", "DCM", "NCIT", "UMLS"})
"""Schemes whose values mean the same everywhere; elsewhere only the meaning can be read."""
SNOMED_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "99SDM", "SDM", "SNM"})
"""Designators under which scanners send SNOMED: numbers are SNOMED CT, values with a dash are SNOMED-RT."""


class Code(NamedTuple):
    """What identifies a concept; a SNOMED-RT value stands under its SNOMED CT value (PS3.16 annex O)."""

    scheme: str
    value: str


class Coded(NamedTuple):
    """One item of a code sequence.

    sent : value, scheme and meaning as sent
    """

    code: Code
    meaning: str
    sent: str


def canonical(scheme: str, value: str) -> Code:
    """The one code of a concept: designators in capitals, SNOMED-RT mapped to SNOMED CT where it can be."""
    scheme, value = scheme.strip().upper(), value.strip()
    if scheme not in SNOMED_SCHEMES:
        return Code(scheme, value)
    return Code("SCT", mapping["SRT"].get(value.upper(), value))


def coded(item: Mapping[str, Json], keyword: str) -> Iterator[Coded]:
    """The items of a code sequence that have a value."""
    for entry in items(item, keyword):
        scheme, value, meaning = (
            str(entry.get(part) or "") for part in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
        )
        if value:
            yield Coded(canonical(scheme, value), meaning, " ".join(filter(None, (value, scheme, meaning))))
