"""Are two files with one SOP Instance UID the same object? Decided on decoded values, never on their encoding.

DCMTK and many PACS re-encode what they forward, so equal bytes are rare among honest copies. This is the slow and
final word; `headers.Reading.content_sha256` is the fast one that is enough when it agrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Self

from dicom_io import elements as structure
from dicom_io import headers, values
from dicom_io.elements import Elements, EncodedFile, Limits
from dicom_io.errors import PixelsRefused
from dicom_io.functional_groups import FRAME_KEYWORDS
from dicom_io.headers import Header
from engines.contract import Json

DUPLICATE, COERCED, CONFLICTING = "duplicate", "coerced", "conflicting"
IGNORED_TAGS = frozenset({headers.CHARACTER_SET, headers.PADDING, 0x00080001})
"""Of the encoding, not of the content: character set, padding, Length to End."""
_FUNCTIONAL_GROUPS = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
_OF_FRAMES = {*headers.MEANING_KEYWORDS, *FRAME_KEYWORDS, "Frames"}
"""What the reading side takes from functional groups; the rest of them (comments, display) decides nothing."""
DECISIVE = frozenset({*headers.PRIVATE_ELEMENTS, "PixelData"}) | _OF_FRAMES


@dataclass(frozen=True, slots=True)
class Sameness:
    """What differs between two copies of an instance.

    verdict : duplicate (nothing but the encoding), coerced (only what the reading side does not decide by: names,
        accession, institution …) or conflicting (pixels, or anything that geometry, quantity, tracer or kind read)
    keywords : attributes that differ, "(gggg,eeee)" where the dictionary has no name; sorted
    """

    verdict: str
    keywords: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """As a JSON object; `from_json` takes it back."""
        return {"verdict": self.verdict, "keywords": list(self.keywords)}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Self:
        """The sameness that `to_json` wrote."""
        return cls(document["verdict"], tuple(document["keywords"]))


class _Place(NamedTuple):
    """One data set of a file: the file, its elements, and the character set they are in."""

    file: EncodedFile
    elements: Elements
    encodings: values.Encodings

    def item(self, elements: Elements) -> _Place:
        """An item of one of the sequences here."""
        own = elements.get(headers.CHARACTER_SET)
        return _Place(self.file, elements, values.character_set(self.file.value(own)) if own else self.encodings)

    def is_empty(self, tag: int) -> bool:
        """Absent or without a value: neither says anything."""
        element = self.elements.get(tag)
        if element is None or element.items == ():
            return True
        return not values.stripped_bytes(self.file.value(element), structure.dictionary_vr(tag))


def compare(path_a: Path, path_b: Path, limits: Limits = headers.USUAL_LIMITS) -> Sameness:
    """Compare two files element by element; compressed pixels are decompressed if their encodings differ.

    A value that is absent on one side and empty on the other is no difference, nor is 1.0 against 1.00.

    Raises
    ------
    UnreadableObject
        One of the files cannot be read, as in `headers.read`.
    """
    file_a, file_b = structure.read_file(path_a, limits), structure.read_file(path_b, limits)
    place_a, place_b = (_Place(file, {}, values.ASCII).item(file.elements) for file in (file_a, file_b))
    keywords = {_name(tag) for tag in _differing_tags(place_a, place_b) if tag not in headers.PIXELS}
    header_a, header_b = headers.header_of(file_a, limits), headers.header_of(file_b, limits)
    derived = {*headers.PRIVATE_ELEMENTS} | (_OF_FRAMES if keywords & _FUNCTIONAL_GROUPS else set())
    keywords |= {name for name in derived if header_a.get(name) != header_b.get(name)}
    if not _same_pixels((file_a, header_a), (file_b, header_b), limits):
        keywords.add("PixelData")
    if not keywords:
        return Sameness(DUPLICATE, ())
    return Sameness(CONFLICTING if keywords & DECISIVE else COERCED, tuple(sorted(keywords)))


def _name(tag: int) -> str:
    return structure.dictionary_keyword(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _differing_tags(a: _Place, b: _Place) -> Iterator[int]:
    for tag in sorted(a.elements.keys() | b.elements.keys()):
        if tag in IGNORED_TAGS or tag & 0xFFFF == 0:
            continue
        if not _same_element(a, b, tag):
            yield tag


def _same_element(a: _Place, b: _Place, tag: int) -> bool:
    if a.is_empty(tag) or b.is_empty(tag):
        return a.is_empty(tag) and b.is_empty(tag)
    in_a, in_b = a.elements[tag], b.elements[tag]
    if in_a.items is not None and in_b.items is not None:
        pairs = list(zip(in_a.items, in_b.items, strict=False))
        same_count = len(in_a.items) == len(in_b.items)
        return same_count and not any(_differs(a.item(item_a), b.item(item_b)) for item_a, item_b in pairs)
    bytes_a, bytes_b = a.file.value(in_a), b.file.value(in_b)
    if bytes_a == bytes_b and (bytes_a.isascii() or a.encodings == b.encodings):
        return True
    vr = next((vr for vr in (in_a.vr, in_b.vr) if vr and vr != "UN"), structure.dictionary_vr(tag)) or "UN"
    value_a = values.decode(bytes_a, vr, a.encodings, several=True)
    value_b = values.decode(bytes_b, vr, b.encodings, several=True)
    return value_a is not None and value_a == value_b


def _differs(a: _Place, b: _Place) -> bool:
    return next(_differing_tags(a, b), None) is not None


def _same_pixels(a: tuple[EncodedFile, Header], b: tuple[EncodedFile, Header], limits: Limits) -> bool:
    file_a, file_b = a[0], b[0]
    digests = [headers.pixel_digest(file, header, limits) for file, header in (a, b)]
    if digests[0] == digests[1]:
        return True
    compressed = any(_is_compressed(file) for file in (file_a, file_b))
    return None not in digests and compressed and _same_decoded(file_a, file_b)


def _is_compressed(file: EncodedFile) -> bool:
    element = file.elements.get(structure.PIXEL_DATA)
    return element is not None and element.fragments is not None


def _same_decoded(file_a: EncodedFile, file_b: EncodedFile) -> bool:
    # numpy and the decoders are slow to load and needed for few objects.
    import numpy as np

    from dicom_io.pixels import read_dataset, stored_values

    try:
        pixels_a, pixels_b = (
            stored_values(read_dataset(BytesIO(file.data), file.transfer_syntax_uid)) for file in (file_a, file_b)
        )
    except PixelsRefused:
        return False  # what cannot be decoded cannot be shown to be the same
    return bool(np.array_equal(pixels_a, pixels_b))
