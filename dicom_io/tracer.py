"""Which tracer and which radionuclide: codes, free text and half-life must agree, else the answer is "conflict".

Every piece of evidence allows some of the radiopharmaceuticals there are (pairs of tracer and radionuclide); what all
of them allow is the answer. A wrong tracer sends pixels to the wrong engine, so where nothing is left there is no
tracer, and it is said what contradicts what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice
from typing import Literal, get_args

from dicom_io import radionuclides
from dicom_io.coded import STANDARD_SCHEMES, Coded, coded
from dicom_io.headers import number, text
from dicom_io.radiopharmaceuticals import CODED_PRODUCTS, FAMILIES, IN_SERIES_TEXT, PRODUCTS, Product, denials, mentions
from engines.contract import Json

Confidence = Literal["coded and agreeing", "coded", "text only", "half-life only", "conflict", "none"]
Source = Literal[
    "radiopharmaceutical code",
    "radiopharmaceutical code meaning",
    "text",
    "radionuclide code",
    "half-life",
    "series text",
]
SOURCES: tuple[Source, ...] = get_args(Source)
"""In the order in which they are told."""
AGREEING: frozenset[Source] = frozenset({"text", "radionuclide code", "half-life"})
"""What confirms a radiopharmaceutical code; its own meaning comes from the same entry, series text from a habit."""
RADIONUCLIDES_IN_SERIES_TEXT = frozenset({"F-18", "Ga-68", "Cu-64", "Zr-89", "Rb-82"})
"""Others look like something else there: C-11, O-15, I-124 are also vertebrae, slots and numbers of patients."""
FILLERS = frozenset(
    {"solution", "solucion", "soluzione", "losung", "injection", "other", "unknown", "unspecified", "none", "default"}
    | {"isotope", "fluorine", "fluor", "tracer", "radiopharmaceutical", "pet", "n", "a", "na"}
)
"""Words of Radiopharmaceutical (0018,0031) that say nothing; `Solution` is what Siemens sends by default."""
CONFLICTS_SHOWN_MAX = 8
SENT_SHOWN_MAX = 128
"""Characters of the sender's words that the evidence repeats."""


@dataclass(frozen=True, slots=True)
class Tracer:
    """What was injected, as far as the header says it without contradiction.

    tracer : a key of `radiopharmaceuticals.AGENTS`, such as FDG, or PSMA where only the family is named; None = unknown
    radionuclide : a key of `radionuclides.RADIONUCLIDES`, such as F-18; None = unknown
    confidence : coded and agreeing = a radiopharmaceutical code names it, and text, radionuclide code or half-life
        agree; coded = the code alone; text only = free text names it; half-life only = the radionuclide allows one
        tracer (Rb-82); conflict = something contradicts; none = nothing names it, or not unambiguously
    evidence : what was found, one line each
    conflicts : what contradicts what, such as "text says FDG, half-life says Ga-68"; with any, `tracer` is None
    """

    tracer: str | None
    radionuclide: str | None
    confidence: Confidence
    evidence: tuple[str, ...]
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """One piece of evidence.

    says : in our words, to be repeated anywhere
    sent : in the sender's words, for the evidence alone
    names : whether it is about the tracer, not only its radionuclide
    """

    source: Source
    says: str
    sent: str
    allows: frozenset[Product]
    names: bool = False

    @property
    def line(self) -> str:
        return f"{self.source} says {self.says}" + (f" ({self.sent[:SENT_SHOWN_MAX]})" if self.sent else "")


def resolve(radiopharmaceuticals: Sequence[Mapping[str, Json]], descriptions: Iterable[str] = ()) -> Tracer:
    """Tracer and radionuclide of a series (PS3.3 C.8.9.2).

    radiopharmaceuticals : items of Radiopharmaceutical Information Sequence (0054,0016)
    descriptions : series description and protocol name. They veto another tracer; they name one only where the items
        give the radionuclide and nothing else, since people scan with the protocol of another tracer.
    """
    injected = [piece for item in radiopharmaceuticals for piece in _injected(item)]
    described = [piece for description in descriptions for piece in _described(description)]
    pieces = [*injected, *described]
    evidence = tuple(dict.fromkeys(piece.line for piece in pieces))
    if conflicts := _conflicts(pieces):
        radionuclide = _only(frozenset.intersection(*(_radionuclides(piece.allows) for piece in pieces)))
        return Tracer(None, radionuclide, "conflict", evidence, conflicts)
    if _is_bare_radionuclide(injected) and not any(map(_is_unread, radiopharmaceuticals)):
        injected = pieces
    products = _common(injected)
    tracer = _name(frozenset(tracer for tracer, _ in products))
    confidence = _confidence(injected) if tracer is not None else "none"
    return Tracer(tracer, _only(_radionuclides(products)), confidence, evidence)


def _injected(item: Mapping[str, Json]) -> Iterator[_Piece]:
    """What one item of Radiopharmaceutical Information Sequence says."""
    for entry in coded(item, "RadiopharmaceuticalCodeSequence"):
        yield from _radiopharmaceutical_code(entry)
    for entry in coded(item, "RadionuclideCodeSequence"):
        yield from _radionuclide_code(entry)
    yield from _read("text", text(item, "Radiopharmaceutical") or "")
    half_life_s = number(item, "RadionuclideHalfLife") or 0.0
    if half_life_s > 0.0:
        yield _half_life(half_life_s)


def _radiopharmaceutical_code(entry: Coded) -> Iterator[_Piece]:
    source: Source = "radiopharmaceutical code"
    meaning = tuple(_read("radiopharmaceutical code meaning", entry.meaning))
    if entry.code in CODED_PRODUCTS:
        tracer, nuclide = CODED_PRODUCTS[entry.code]
        members = _of_tracers(FAMILIES.get(tracer, frozenset({tracer})))
        yield _Piece(source, tracer, entry.sent, members & _of_radionuclides(frozenset({nuclide})), names=True)
    elif entry.code in radionuclides.CODES:
        yield _radionuclide(source, frozenset({radionuclides.CODES[entry.code]}), entry.sent)
    elif entry.code.scheme in STANDARD_SCHEMES and not any(piece.names for piece in meaning):
        yield _Piece(source, "none of those known", entry.sent, _of_tracers(frozenset({None})), names=True)
    yield from meaning


def _radionuclide_code(entry: Coded) -> Iterator[_Piece]:
    source: Source = "radionuclide code"
    if nuclides := radionuclides.of_code(entry):
        yield _radionuclide(source, nuclides, entry.sent)
    elif entry.code in CODED_PRODUCTS:
        tracer, nuclide = CODED_PRODUCTS[entry.code]
        yield _Piece(source, tracer, entry.sent, frozenset({(tracer, nuclide)}))
    elif entry.code.scheme in STANDARD_SCHEMES:
        yield _Piece(source, "none of those known", entry.sent, _of_radionuclides(frozenset({None})))


def _read(source: Source, said: str) -> Iterator[_Piece]:
    """The tracers and radionuclides that a text about the injection names, a piece for each mention."""
    for mention in mentions(said):
        yield _Piece(source, mention.says, said, _of_tracers(mention.tracers), names=True)
    for mention in denials(said):
        yield _Piece(source, f"not {mention.says}", said, PRODUCTS - _of_tracers(mention.tracers))
    for nuclides in radionuclides.spelled(said):
        yield _radionuclide(source, nuclides, said)


def _half_life(half_life_s: float) -> _Piece:
    sent = f"{half_life_s:g} s"
    if nuclides := radionuclides.radionuclides_of_half_life(half_life_s):
        return _radionuclide("half-life", nuclides, sent)
    in_minutes = radionuclides.radionuclides_of_half_life(half_life_s * 60.0)
    hint = f" (in minutes {_either(in_minutes)})" if in_minutes else ""
    return _Piece("half-life", f"{sent}, no known radionuclide{hint}", "", _of_radionuclides(frozenset({None})))


def _described(description: str) -> Iterator[_Piece]:
    """What a series description or protocol name says; of several tracers or radionuclides it may mean any."""
    said = [each for each in mentions(description) if each.says in IN_SERIES_TEXT or each.tracers <= IN_SERIES_TEXT]
    if said:
        says = _either(mention.says for mention in said)
        allows = _of_tracers(frozenset[str]().union(*(mention.tracers for mention in said)))
        yield _Piece("series text", says, "", allows, names=True)
    for mention in denials(description):
        yield _Piece("series text", f"not {mention.says}", "", PRODUCTS - _of_tracers(mention.tracers))
    nuclides = frozenset[str]().union(*radionuclides.spelled(description)) & RADIONUCLIDES_IN_SERIES_TEXT
    if nuclides:
        yield _radionuclide("series text", nuclides, "")


def _radionuclide(source: Source, nuclides: frozenset[str], sent: str) -> _Piece:
    return _Piece(source, _either(nuclides), sent, _of_radionuclides(nuclides))


def _conflicts(pieces: Iterable[_Piece]) -> tuple[str, ...]:
    """What contradicts what: the first CONFLICTS_SHOWN_MAX pairs of which no radiopharmaceutical is both."""
    ranked = sorted(pieces, key=lambda piece: (SOURCES.index(piece.source), piece.says))
    distinct = list({(piece.source, piece.allows): piece for piece in reversed(ranked)}.values())[::-1]
    if not distinct or _common(distinct):
        return ()
    pairs = (
        f"{one.source} says {one.says}, {other.source} says {other.says}"
        for one, other in combinations(distinct, 2)
        if one.allows.isdisjoint(other.allows)
    )
    together = ", ".join(f"{piece.source} says {piece.says}" for piece in distinct[:CONFLICTS_SHOWN_MAX])
    return tuple(islice(pairs, CONFLICTS_SHOWN_MAX)) or (f"nothing is all of this: {together}",)


def _is_bare_radionuclide(pieces: Sequence[_Piece]) -> bool:
    return not any(piece.names for piece in pieces) and _only(_radionuclides(_common(pieces))) is not None


def _is_unread(item: Mapping[str, Json]) -> bool:
    """Whether the item names the radiopharmaceutical in a way that we cannot read: it may be any then."""
    said = radionuclides.without(text(item, "Radiopharmaceutical") or "")
    return any(coded(item, "RadiopharmaceuticalCodeSequence")) or not FILLERS.issuperset(said.split())


def _confidence(pieces: Iterable[_Piece]) -> Confidence:
    """By the best source that names the tracer, given that nothing contradicts."""
    naming = {piece.source for piece in pieces if piece.names}
    if "radiopharmaceutical code" in naming:
        return "coded" if AGREEING.isdisjoint(piece.source for piece in pieces) else "coded and agreeing"
    return "text only" if naming else "half-life only"


@cache
def _of_tracers(tracers: frozenset[str] | frozenset[None]) -> frozenset[Product]:
    return frozenset(product for product in PRODUCTS if product[0] in tracers)


@cache
def _of_radionuclides(nuclides: frozenset[str] | frozenset[None]) -> frozenset[Product]:
    return frozenset(product for product in PRODUCTS if product[1] in nuclides)


def _common(pieces: Iterable[_Piece]) -> frozenset[Product]:
    return PRODUCTS.intersection(*(piece.allows for piece in pieces))


def _radionuclides(products: frozenset[Product]) -> frozenset[str | None]:
    return frozenset(nuclide for _, nuclide in products)


def _name(tracers: frozenset[str | None]) -> str | None:
    families = (family for family, members in FAMILIES.items() if tracers <= members)
    return _only(tracers) if len(tracers) == 1 else next(families, None)


def _only(names: frozenset[str | None]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _either(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))
