"""Which corrections the numbers of a PET series carry: attenuation, scatter, decay, randoms. Pure.

Two attributes speak of each correction: Corrected Image (0028,0051), a list, and one attribute of its own (PS3.3
C.8.9.1). What they say together is the answer; where they contradict each other there is none. Texts that people type
(series description, image type, protocol) never make an answer, but take one back that they contradict.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicom_io.headers import Header, text

LONGEST_TEXT = 256
"""Characters of a text that are looked at: LO is shorter."""
NOT_APPLIED = re.compile(r"(none|no|not|off|without|uncorrected|false)\b", re.IGNORECASE)
"""How the attribute of a correction begins where there was no correction."""
SAYS_NOTHING = frozenset({"unknown", "n/a", "other", "unspecified"})


class _Correction(NamedTuple):
    """Where one correction is written down.

    term : how its values in Corrected Image begin; GE has RANSNG and Siemens RANSM beside RAN
    method_alone : the attribute has defined terms and is Type 1 (PS3.3 C.8.9.1), so it counts where Corrected Image is
        absent; a free text such as Attenuation Correction Method alone says only that there was none
    silent_list : that Corrected Image does not name it means nothing; Siemens subtracts delayed coincidences (DLYD)
        while it acquires, and many of its series do not list RAN
    """

    term: str
    method: str
    tag: str
    method_alone: bool
    silent_list: bool = False


CORRECTIONS = {
    "attenuation": _Correction("ATTN", "AttenuationCorrectionMethod", "(0054,1101)", method_alone=False),
    "scatter": _Correction("SCAT", "ScatterCorrectionMethod", "(0054,1105)", method_alone=False),
    "decay": _Correction("DECY", "DecayCorrection", "(0054,1102)", method_alone=True),
    "randoms": _Correction("RAN", "RandomsCorrectionMethod", "(0054,1100)", method_alone=True, silent_list=True),
}

_ATTENUATION = r"(?:att?e?n?(?:uation)? ?)?"
_OTHERS = r"(?<!motion )(?<!scatter )(?<!randoms )(?<!decay )(?<!time )"
_NOT_CORRECTED = re.compile(
    r"(?<![a-z])(?:"
    r"nac|(?:no|non|not|without|w o|ohne|sans|senza|sin|sem|zonder|bez) ?(?:ct|mr)? ?(?:ac|ak|swk|ca)"
    rf"|(?:ac|attn) (?:off|none|no$)|{_OTHERS}un ?corr?(?:ected)?|{_OTHERS}un ?korr(?:igiert)?"
    rf"|(?:no|non|not|without) {_ATTENUATION}corr(?:ected|ection)?"
    r"|(?:ohne|keine) (?:schwa?e?chungs? ?)?korr(?:ektur)?|nicht (?:schwa?e?chungs? ?)?korrigiert"
    r"|(?:sans|senza|sin|sem) corr?[ei][cz]+(?:tion|ione|ion|ao)"
    r"|(?:non|no|nao) (?:corrigee?s?|corretta?o?|corregid[ao]|corrigid[ao])|(?:niet|zonder) (?:ge)?corr[a-z]*"
    r")(?![a-z])"
)
_CORRECTED = re.compile(
    r"(?<![a-z0-9])(?<!225 )(?:(?:ct|mr)? ?ac(?! ?225)|att?e?n?(?:uation)? corr(?:ected|ection)?"
    r"|schwa?e?chungs? ?korr(?:ektur|igiert))(?![a-z0-9])"
)


@dataclass(frozen=True, slots=True)
class Corrections:
    """What was corrected: True, False, or None where headers do not say or contradict themselves.

    evidence : what was found, a line for each attribute that speaks
    conflicts : what contradicts what, a line each, beginning with the name of the correction
    """

    attenuation: bool | None
    scatter: bool | None
    decay: bool | None
    randoms: bool | None
    evidence: tuple[str, ...]
    conflicts: tuple[str, ...]


def corrections_of(headers: Sequence[Header]) -> Corrections:
    """Attenuation, scatter, decay and randoms correction of the slices of one PET series.

    headers : single-frame headers, at least one
    """
    evidence: list[str] = []
    conflicts: list[str] = []
    found = {name: _decided(name, headers, evidence, conflicts) for name in CORRECTIONS}
    found["attenuation"] = _unless_text_objects(found["attenuation"], headers, evidence, conflicts)
    return Corrections(**found, evidence=tuple(evidence), conflicts=tuple(conflicts))


def is_attenuation_corrected(headers: Sequence[Header]) -> bool | None:
    """Whether the series is attenuation-corrected; None where headers do not say or contradict themselves."""
    return corrections_of(headers).attenuation


def text_says_corrected(words: str) -> bool | None:
    """Whether a text calls a PET attenuation-corrected ("WB CTAC") or not ("PET NAC"); None for neither or both."""
    plain = _plain(words)
    rest = _NOT_CORRECTED.sub("|", plain)
    denied, claimed = rest != plain, _CORRECTED.search(rest) is not None
    return None if denied == claimed else claimed


def _decided(name: str, headers: Sequence[Header], evidence: list[str], conflicts: list[str]) -> bool | None:
    """One correction by its two attributes."""
    correction = CORRECTIONS[name]
    listed = {_listed(header, correction.term) for header in headers}
    applied = {_applied(header, correction.method) for header in headers}
    if len(listed) > 1 or len(applied) > 1:
        conflicts.append(f"{name}: slices differ in Corrected Image (0028,0051) or {correction.tag}")
        return None
    by_list, by_method = listed.pop(), applied.pop()
    if by_list is not None:
        evidence.append(f"{name}: Corrected Image (0028,0051) {'has' if by_list else 'lacks'} {correction.term}")
    if by_method is not None:
        evidence.append(f"{name}: {correction.method} {correction.tag} names {'one' if by_method else 'none'}")
    if by_list is None or (correction.silent_list and not by_list):
        return by_method if correction.method_alone or by_method is False else None
    if by_method in (None, by_list):
        return by_list
    conflicts.append(
        f"{name}: Corrected Image (0028,0051) {'has' if by_list else 'lacks'} {correction.term}, "
        f"{correction.method} {correction.tag} names {'one' if by_method else 'none'}"
    )
    return None


def _listed(header: Header, term: str) -> bool | None:
    """Whether Corrected Image names the correction; None where it is absent."""
    named = header.get("CorrectedImage")
    if not isinstance(named, list):
        return None
    return any(isinstance(value, str) and value.upper().startswith(term) for value in named)


def _applied(header: Header, keyword: str) -> bool | None:
    said = (text(header, keyword) or "").strip()
    if not said or said.casefold() in SAYS_NOTHING:
        return None
    return NOT_APPLIED.match(said) is None


def _unless_text_objects(
    corrected: bool | None, headers: Sequence[Header], evidence: list[str], conflicts: list[str]
) -> bool | None:
    """The answer of the attributes, or None where a text says the opposite.

    The description of the series is closest to it, then Image Type. A protocol often makes both reconstructions, so it
    only counts where it says "not corrected" and the two before say nothing.
    """
    for source, words in _texts(headers):
        said = text_says_corrected(words)
        if said is None or (source == "protocol" and said):
            continue
        spoken = "attenuation-corrected" if said else "not attenuation-corrected"
        evidence.append(f"attenuation: {source} says {spoken}")
        if corrected is None or corrected is said:
            return corrected
        header = "corrected" if corrected else "not corrected"
        conflicts.append(f"attenuation: {source} says {spoken}, the header's attributes say {header}")
        return None
    return corrected


def _texts(headers: Sequence[Header]) -> list[tuple[str, str]]:
    first = headers[0]
    image_type = first.get("ImageType")
    values = image_type if isinstance(image_type, list) else []
    return [
        ("series description", text(first, "SeriesDescription") or ""),
        ("image type", " ".join(value for value in values if isinstance(value, str))),
        ("protocol", text(first, "ProtocolName") or ""),
    ]


def _plain(words: str) -> str:
    """Lower case, without accents, punctuation as single spaces."""
    letters = unicodedata.normalize("NFKD", words[:LONGEST_TEXT]).casefold()
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", " ", letters).strip()
