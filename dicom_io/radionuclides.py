"""Radionuclides of PET: half-lives, the codes of PS3.16 CID 4020, and how texts spell them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydicom.sr.codedict import codes

from dicom_io.coded import Code, Coded, coded
from engines.contract import Json

HALF_LIFE_TOLERANCE = 0.02
"""Relative; headers round (C-11 as 20 min, O-15 as 2 min) and evaluations moved (Sc-44 from 3.97 h to 4.04 h)."""
LONGEST_TEXT = 256
"""Characters of a text that are looked at: LO and SH are shorter, and patterns take time over long ones."""


class Radionuclide(NamedTuple):
    """Half-life [s] (ENSDF, National Nuclear Data Center, evaluations as of 2023) and name of the element."""

    half_life_s: float
    element: str


RADIONUCLIDES: Mapping[str, Radionuclide] = {
    "C-11": Radionuclide(1221.8, "Carbon"),
    "N-13": Radionuclide(9.965 * 60, "Nitrogen"),
    "O-14": Radionuclide(70.606, "Oxygen"),
    "O-15": Radionuclide(122.24, "Oxygen"),
    "F-18": Radionuclide(109.77 * 60, "Fluorine"),
    "Na-22": Radionuclide(2.6018 * 31556926, "Sodium"),
    "K-38": Radionuclide(7.651 * 60, "Potassium"),
    "Sc-43": Radionuclide(3.891 * 3600, "Scandium"),
    "Sc-44": Radionuclide(4.042 * 3600, "Scandium"),
    "Ti-45": Radionuclide(184.8 * 60, "Titanium"),
    "Mn-51": Radionuclide(46.2 * 60, "Manganese"),
    "Mn-52": Radionuclide(5.591 * 86400, "Manganese"),
    "Mn-52m": Radionuclide(21.1 * 60, "Manganese"),
    "Fe-52": Radionuclide(8.275 * 3600, "Iron"),
    "Cu-60": Radionuclide(23.7 * 60, "Copper"),
    "Cu-61": Radionuclide(3.336 * 3600, "Copper"),
    "Cu-62": Radionuclide(9.67 * 60, "Copper"),
    "Cu-64": Radionuclide(12.7006 * 3600, "Copper"),
    "Zn-62": Radionuclide(9.193 * 3600, "Zinc"),
    "Ga-66": Radionuclide(9.49 * 3600, "Gallium"),
    "Ga-68": Radionuclide(67.71 * 60, "Gallium"),
    "Ge-68": Radionuclide(270.95 * 86400, "Germanium"),
    "As-70": Radionuclide(52.6 * 60, "Arsenic"),
    "As-72": Radionuclide(26.0 * 3600, "Arsenic"),
    "Se-73": Radionuclide(7.15 * 3600, "Selenium"),
    "Br-75": Radionuclide(96.7 * 60, "Bromine"),
    "Br-76": Radionuclide(16.2 * 3600, "Bromine"),
    "Br-77": Radionuclide(57.04 * 3600, "Bromine"),
    "Rb-82": Radionuclide(1.2575 * 60, "Rubidium"),
    "Y-86": Radionuclide(14.74 * 3600, "Yttrium"),
    "Y-90": Radionuclide(64.05 * 3600, "Yttrium"),
    "Zr-89": Radionuclide(78.41 * 3600, "Zirconium"),
    "Nb-90": Radionuclide(14.6 * 3600, "Niobium"),
    "Tc-94m": Radionuclide(52.0 * 60, "Technetium"),
    "I-124": Radionuclide(4.176 * 86400, "Iodine"),
    "Tb-152": Radionuclide(17.5 * 3600, "Terbium"),
    # Not of CID 4020, but of radiopharmaceuticals of CID 4021:
    "C-14": Radionuclide(5700 * 31556926, "Carbon"),
    "I-131": Radionuclide(8.0252 * 86400, "Iodine"),
}

# How elements begin in other languages than English, written as `plain` leaves them; accents are gone there.
_FOREIGN = {
    "C": "kohlenstoff|koolstof|wegiel|углерод|炭素|碳|탄소",
    "N": "stickstoff|stikstof|azot|азот|窒素|氮|질소",
    "O": "oxi?gen|ossigen|sauerstoff|zuurstof|tlen|кислород|酸素|氧|산소",
    "F": "fluor|floru?|фтор|フッ素|ふっ素|氟|불소|플루오린",
    "Cu": "kupfer|cuivre|cobre|rame(?![a-z])|koper|miedz|bakir|мед[ьи]|銅|铜|구리",
    "Ga": "gall?i|galy|галли|ガリウム|镓|鎵|갈륨",
    "Rb": "рубиди|ルビジウム|铷|銣|루비듐",
    "Zr": "zirkon|circoni|sirkon|циркони|ジルコニウム|锆|鋯|지르코늄",
    "I": "iod|jod|yod|иод|ヨウ素|碘|요오드",
}
_NAMED_WITHOUT_MASS = frozenset({"Ga", "Cu", "Zr", "Rb"})
"""Elements that name the radionuclide by themselves; fluor-, iod- and carbon are parts of chemical names."""


def plain(text: str) -> str:
    """At most LONGEST_TEXT characters: lower case, no accents, sub- or superscripts, punctuation as single spaces."""
    letters = unicodedata.normalize("NFKD", text[:LONGEST_TEXT]).casefold()
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", " ", letters)[:LONGEST_TEXT].strip()


def scripted(pattern: str) -> str:
    """A pattern with letters of any script, written as `plain` leaves them."""
    letters = unicodedata.normalize("NFKD", pattern)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _element(nuclide: str) -> str:
    """Pattern of the element's name, however it goes on."""
    symbol, element = nuclide.split("-", maxsplit=1)[0], RADIONUCLIDES[nuclide].element
    names = "|".join(filter(None, (element.lower().removesuffix("ine").removesuffix("um"), _FOREIGN.get(symbol))))
    return scripted(rf"(?:{names})[^\W\d_]{{0,12}}")


def _spelling(nuclide: str) -> re.Pattern[str]:
    """18F, F-18, [18F], Fluor-18 … in a plain text; a symbol of two letters may run into the next word."""
    symbol, mass = nuclide.split("-")
    element, sign = _element(nuclide), symbol.lower()
    run_on = sign if len(symbol) == 2 else rf"{sign}(?![a-z])"
    after = r"(?!\d)" if mass.endswith("m") else r"(?!\d|m(?![a-z]))"
    return re.compile(
        rf"(?<![a-z0-9]){mass}(?:{run_on}| {sign}(?![a-z])| ?{element})|(?<![a-z])(?:{sign}|{element}) ?{mass}{after}"
    )


_SPELLINGS = {name: _spelling(name) for name in RADIONUCLIDES}
_ELEMENTS = {
    symbol: (
        re.compile(rf"(?<![^\W\d_]){_element(next(name for name in RADIONUCLIDES if name.startswith(f'{symbol}-')))}"),
        frozenset(name for name in RADIONUCLIDES if name.startswith(f"{symbol}-")),
    )
    for symbol in sorted(_NAMED_WITHOUT_MASS)
}


def _codes() -> Iterator[tuple[Code, str]]:
    """CID 4020 writes `^18^Fluorine`."""
    written = {f"^{name.split('-')[1]}^{nuclide.element}": name for name, nuclide in RADIONUCLIDES.items()}
    for concept in codes.cid4020.concepts.values():
        yield Code(concept.scheme_designator.upper(), concept.value), written[concept.meaning]


CODES: Mapping[Code, str] = dict(_codes())
"""Every code of CID 4020 → a key of RADIONUCLIDES."""


def radionuclides_of_half_life(half_life_s: float) -> frozenset[str]:
    """The radionuclides with this half-life [s] within HALF_LIFE_TOLERANCE: none, one, or two that are too close."""
    return frozenset(
        name
        for name, nuclide in RADIONUCLIDES.items()
        if abs(nuclide.half_life_s - half_life_s) <= HALF_LIFE_TOLERANCE * nuclide.half_life_s
    )


def spelled(text: str) -> tuple[frozenset[str], ...]:
    """The radionuclides that a text spells: a set for each, of all its isotopes where an element stands alone."""
    words = plain(text)
    named = sorted(name for name, pattern in _SPELLINGS.items() if pattern.search(words))
    with_mass = {name.split("-")[0] for name in named}
    elements = (
        isotopes
        for symbol, (pattern, isotopes) in _ELEMENTS.items()
        if symbol not in with_mass and pattern.search(words)
    )
    return (*(frozenset({name}) for name in named), *elements)


def without(text: str) -> str:
    """The plain words of a text less the radionuclides it spells."""
    words = plain(text)
    for pattern in _SPELLINGS.values():
        words = pattern.sub(" ", words)
    return words


def of_code(entry: Coded) -> frozenset[str]:
    """The radionuclides that an item of Radionuclide Code Sequence (0054,0300) may mean, none where it is not known.

    Real headers carry the code of Ga-66 with the meaning of Ga-68: value and meaning then both stand, and other
    evidence must decide.
    """
    meant = frozenset[str]().union(*spelled(entry.meaning))
    if entry.code not in CODES:
        return meant
    value = frozenset({CODES[entry.code]})
    return value if not meant or value <= meant else value | meant


def coded_radionuclide(item: Mapping[str, Json]) -> str | None:
    """The radionuclide that Radionuclide Code Sequence (0054,0300) of one item names.

    item : of Radiopharmaceutical Information Sequence (0054,0016)

    None where it names none that we know, or where its value and its meaning differ.
    """
    return _only(frozenset[str]().union(*(of_code(entry) for entry in coded(item, "RadionuclideCodeSequence"))))


def _only(names: frozenset[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None
