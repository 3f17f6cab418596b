"""The structure of a DICOM file: which element lies where, found without decoding a value.

pydicom reads a truncated element as if it were whole, recurses as deep as the file says and does not mind two values
of one tag. What a peer sends is therefore walked here first, within limits; pydicom decodes pixels afterwards.
PS3.5 section 7 (data set, value representations, nesting, byte order), PS3.10 section 7 (file meta information).
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPIPHTJ2KReferencedDeflate,
)

from dicom_io.errors import UnreadableObject

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
TRANSFER_SYNTAX = 0x00020010
IMPLICIT_LE, EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
EXPLICIT_BE, DEFLATED = str(ExplicitVRBigEndian), str(DeflatedExplicitVRLittleEndian)
GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"
"""Private to GE: Implicit VR Little Endian but for 16-bit Pixel Data, whose words are big endian."""
RLE = "1.2.840.10008.1.2.5"
VIDEO_SYNTAXES = ("1.2.840.10008.1.2.4.10",)
"""Begin of the UIDs of MPEG-2, MPEG-4 and HEVC: all frames are one stream."""
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
READABLE_SYNTAXES = frozenset(map(str, AllTransferSyntaxes)) - {str(JPIPHTJ2KReferencedDeflate)} | {
    GE_BIG_ENDIAN_PIXELS,
    DEFLATED_FRAMES,
}
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = SHORT_VRS | LONG_VRS
_NUL_TAGS = frozenset(bytes(count) for count in range(1, 5))
_SHORT_NAMES = {vr: vr.decode("ascii") for vr in SHORT_VRS}
_LONG_NAMES = {vr: vr.decode("ascii") for vr in LONG_VRS - {b"SQ", b"UN"}}
_HEAD = Struct("<HH2sH")
FIRST_ITEM = b"\xfe\xff\x00\xe0"
BITS_ALLOCATED = 0x00280100
WORD_BYTES = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
"""VRs whose values are swapped between the byte orders, and the bytes of one word (PS3.5 6.2, 7.3)."""
_WORD_CODES = {2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one object may ask for; more is refused before memory or time is spent on it.

    file_bytes : size of the file
    depth : nesting of sequences (real objects stay below 10)
    elements : number of elements, all levels together
    value_bytes : longer values are hashed and compared but not kept in the header
    decoded_bytes : size of the pixels after decompression
    inflated_bytes, inflation : a deflated data set may inflate to so many bytes, and beyond them to so many times its
        own size (an empty image inflates a hundredfold, a bomb a thousandfold)
    """

    file_bytes: int = 512 * 2**20
    depth: int = 32
    elements: int = 1_000_000
    value_bytes: int = 2**16
    decoded_bytes: int = 2**31
    inflated_bytes: int = 2**24
    inflation: int = 64


class Element(NamedTuple):
    """One data element: its encoded value is `data[start:end]` of the file.

    vr : value representation as encoded, None in Implicit VR
    items : of a sequence, one dictionary per item
    fragments : of encapsulated pixel data, (start, end) of each item, the offset table first
    word_bytes : bytes of the words that are encoded in big endian, 1 where nothing is to be swapped
    """

    vr: str | None
    start: int
    end: int
    items: tuple[Elements, ...] | None = None
    fragments: tuple[tuple[int, int], ...] | None = None
    word_bytes: int = 1


Elements = dict[int, Element]


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A file and where its elements lie.

    data : the bytes that the elements point into: those of the file; of a deflated one, the same file not deflated
    meta : File Meta Information (group 0002); empty where the file has none
    transfer_syntax_uid : as the File Meta Information says, found by looking where it is absent
    """

    data: bytes
    meta: Elements
    elements: Elements
    transfer_syntax_uid: str

    def value(self, element: Element) -> bytes:
        """The encoded value in little endian, whatever the byte order of the file.

        A value that is no whole number of words stays as it is: nothing could be read from it.
        """
        encoded = self.data[element.start : element.end]
        if element.word_bytes == 1 or len(encoded) % element.word_bytes:
            return encoded
        words = array(_WORD_CODES[element.word_bytes], encoded)
        words.byteswap()
        return words.tobytes()


class _Encoding(NamedTuple):
    """How the elements of a data set are written: with or without VR, in which byte order."""

    explicit: bool
    big_endian: bool
    head: Struct
    short: Struct
    long: Struct
    first_item: bytes


_IMPLICIT = _Encoding(False, False, Struct("<HHI"), Struct("<H"), Struct("<I"), FIRST_ITEM)
_EXPLICIT = _IMPLICIT._replace(explicit=True)
_EXPLICIT_BIG = _Encoding(True, True, Struct(">HHI"), Struct(">H"), Struct(">I"), b"\xff\xfe\xe0\x00")


def read_file(path: Path, limits: Limits) -> EncodedFile:
    """Read and walk one file.

    Raises
    ------
    UnreadableObject
        too-large (also: deflated, and inflating beyond all measure), not-dicom, truncated, structure, too-deep,
        too-many-elements, duplicate-element, transfer-syntax.
    """
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise UnreadableObject(f"file: expected at most {limits.file_bytes} bytes, got {size}", code="too-large")
    return parse(path.read_bytes(), limits)


def parse(data: bytes, limits: Limits) -> EncodedFile:
    """Walk the bytes of one file; errors as in `read_file`."""
    at = 132 if data[128:132] == b"DICM" else 0
    if at == 0 and data[:2] not in {b"\x02\x00", b"\x08\x00", b"\x00\x08"}:
        raise UnreadableObject("file: expected DICM at byte 128 or a data set at byte 0", code="not-dicom")
    meta, at = _Walk(data, limits).file_meta(at)
    declared = _uid(data, meta[TRANSFER_SYNTAX]) if TRANSFER_SYNTAX in meta else ""
    if declared == DEFLATED:
        syntax_at = meta[TRANSFER_SYNTAX].start
        renamed = EXPLICIT_LE.encode().ljust(len(DEFLATED), b"\0")
        data = data[:syntax_at] + renamed + data[syntax_at + len(renamed) : at] + _inflated(data[at:], limits)
    found = _encoding_of(data, at)
    syntax = declared or {_IMPLICIT: IMPLICIT_LE, _EXPLICIT: EXPLICIT_LE, _EXPLICIT_BIG: EXPLICIT_BE}[found]
    _check_syntax(syntax, found)
    elements, _ = _Walk(data, limits).data_set(at, len(data), 0, found)
    if syntax == GE_BIG_ENDIAN_PIXELS:
        elements = _with_swapped_pixels(data, elements)
    return EncodedFile(data, meta, elements, syntax)


@lru_cache(maxsize=4096)
def dictionary_vr(tag: int) -> str | None:
    """VR of a public tag in PS3.6, "US or SS" and the like as they stand; None for private and unknown tags."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return None


@lru_cache(maxsize=4096)
def dictionary_keyword(tag: int) -> str:
    """Keyword of a public tag in PS3.6, empty for private and unknown tags."""
    return keyword_for_tag(tag)


@lru_cache(maxsize=4096)
def has_several_values(tag: int) -> bool:
    """Whether PS3.6 allows a public tag more than one value."""
    return dictionary_VM(tag) != "1"


def _uid(data: bytes, element: Element) -> str:
    return data[element.start : element.end].rstrip(b"\0 ").decode("ascii", "replace")


def _encoding_of(data: bytes, at: int) -> _Encoding:
    """How the first element is written. Low groups come first, so its group tells the byte order."""
    if data[at + 4 : at + 6] not in _VRS:
        return _IMPLICIT
    little, big = (int.from_bytes(data[at : at + 2], order) for order in ("little", "big"))
    return _EXPLICIT if little <= big else _EXPLICIT_BIG


def _check_syntax(syntax: str, found: _Encoding) -> None:
    if syntax not in READABLE_SYNTAXES:
        message = "Transfer Syntax UID (0002,0010): expected a standard one, got another or one by reference"
        raise UnreadableObject(message, code="transfer-syntax")
    declared = {IMPLICIT_LE: _IMPLICIT, GE_BIG_ENDIAN_PIXELS: _IMPLICIT, EXPLICIT_BE: _EXPLICIT_BIG}
    if found != declared.get(syntax, _EXPLICIT):
        words = f"{'explicit' if found.explicit else 'implicit'} VR, {'big' if found.big_endian else 'little'} endian"
        message = f"Transfer Syntax UID (0002,0010) and data set: the data set is in {words}, the UID says otherwise"
        raise UnreadableObject(message, code="transfer-syntax")


def _inflated(deflated: bytes, limits: Limits) -> bytes:
    """The data set of a Deflated Explicit VR Little Endian file: RFC 1951 without a header (PS3.5 A.5)."""
    most = min(limits.file_bytes, max(limits.inflated_bytes, limits.inflation * len(deflated)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(deflated, most + 1)
    except zlib.error as error:
        raise UnreadableObject("deflated data set: cannot be inflated", code="structure") from error
    if len(data) > most:
        message = f"deflated data set of {len(deflated)} bytes: expected at most {most} when inflated, got more"
        raise UnreadableObject(message, code="too-large")
    if not inflater.eof:
        raise UnreadableObject("deflated data set: ends before its last block", code="truncated")
    return data


def _with_swapped_pixels(data: bytes, elements: Elements) -> Elements:
    """The elements of GE's private syntax, in which pixels of 16 bits are swapped and nothing else is."""
    pixels, bits = elements.get(PIXEL_DATA), elements.get(BITS_ALLOCATED)
    if pixels is None:
        return elements
    if bits is None or data[bits.start : bits.end] != b"\x10\x00" or pixels.fragments is not None:
        message = "Bits Allocated (0028,0100): expected 16 in GE's private transfer syntax with big endian pixels"
        raise UnreadableObject(message, code="transfer-syntax")
    return elements | {PIXEL_DATA: pixels._replace(word_bytes=2)}


def _broken(what: str, at: int, code: str = "structure") -> UnreadableObject:
    return UnreadableObject(f"{what} at byte {at}", code=code)


class _Walk:
    """One pass over the bytes; counts elements over all levels."""

    __slots__ = ("count", "data", "limits")

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data = data
        self.limits = limits
        self.count = 0

    def file_meta(self, at: int) -> tuple[Elements, int]:
        """Group 0002, always Explicit VR Little Endian; its group length is not trusted. PS3.10 7.1."""
        meta: Elements = {}
        while self.data[at : at + 2] == b"\x02\x00":
            tag, vr, length, start = self._head(at, len(self.data), _EXPLICIT)
            self._end(start, length, len(self.data))
            meta[tag] = Element(vr, start, start + length)
            at = start + length
        return meta, at

    def data_set(
        self, at: int, end: int, depth: int, encoding: _Encoding, *, delimited: bool = False
    ) -> tuple[Elements, int]:
        """Elements from `at` to `end`, or to the Item Delimitation where `delimited`; and where they end."""
        elements: Elements = {}
        while at < end:
            at = self._ordinary(at, end, elements, encoding)
            if at == end:
                break
            if depth == 0 and self.data[at : at + 4] in _NUL_TAGS and self.data.count(0, at, end) == end - at:
                at = end  # NUL bytes after the last element, which some senders add
                break
            tag, vr, length, start = self._head(at, end, encoding)
            if tag == ITEM_END and delimited:
                return elements, start
            if tag >> 16 == 0xFFFE:
                raise _broken(f"unexpected delimiter ({tag >> 16:04x},{tag & 0xFFFF:04x})", at)
            if tag in elements:
                raise _broken(f"second value of ({tag >> 16:04x},{tag & 0xFFFF:04x})", at, "duplicate-element")
            self.count += 1
            if self.count > self.limits.elements:
                raise _broken(f"more than {self.limits.elements} elements", at, "too-many-elements")
            if length == UNDEFINED:
                element, at = self._undefined_length(tag, vr, start, end, depth, encoding=encoding)
            else:
                at = self._end(start, length, end)
                items = self._nested(tag, vr, start, at, depth, encoding=encoding)
                element = Element(vr, start, at, items, None, WORD_BYTES.get(vr or "", 1) if encoding.big_endian else 1)
            elements[tag] = element
        if delimited:
            raise _broken("item without its delimiter", at, "truncated")
        return elements, at

    def _ordinary(self, at: int, end: int, elements: Elements, encoding: _Encoding) -> int:
        """A short way through most of a data set: takes elements for as long as nothing about them needs a judgement.

        Stops before whatever may be or hold a sequence, is of undefined length or is in any way wrong.
        """
        data, limit = self.data, self.limits.elements - self.count + len(elements)
        if encoding.big_endian:
            return at
        while end - at >= 12 and len(elements) < limit:
            if not encoding.explicit:
                group, number, length = encoding.head.unpack_from(data, at)
                tag, name, start = group << 16 | number, None, at + 8
                if dictionary_vr(tag) == "SQ" or data[start : start + 4] == FIRST_ITEM:
                    break
            else:
                group, number, vr, length = _HEAD.unpack_from(data, at)
                tag, name, start = group << 16 | number, _SHORT_NAMES.get(vr), at + 8
                if name is None:
                    name = _LONG_NAMES.get(vr)
                    if name is None:
                        break
                    length, start = encoding.long.unpack_from(data, start)[0], at + 12
            stop = start + length
            if stop > end or tag in elements or group == 0xFFFE or length == UNDEFINED or not tag:
                break
            elements[tag] = Element(name, start, stop)
            at = stop
        self.count = self.limits.elements - limit + len(elements)
        return at

    def _head(self, at: int, end: int, encoding: _Encoding) -> tuple[int, str | None, int, int]:
        """(tag, VR, length, start of the value) of the element at `at`."""
        if end - at < 8:
            raise _broken("incomplete element", at, "truncated")
        group, number, length = encoding.head.unpack_from(self.data, at)
        tag = group << 16 | number
        vr = self.data[at + 4 : at + 6]
        if not encoding.explicit or group == 0xFFFE:
            return tag, None, length, at + 8
        if vr in SHORT_VRS:
            return tag, vr.decode("ascii"), encoding.short.unpack_from(self.data, at + 6)[0], at + 8
        if vr in LONG_VRS:
            if end - at < 12:
                raise _broken("incomplete element", at, "truncated")
            return tag, vr.decode("ascii"), encoding.long.unpack_from(self.data, at + 8)[0], at + 12
        if encoding.big_endian or (vr.isalpha() and vr.isupper()):
            raise _broken("unknown value representation", at)
        return tag, None, length, at + 8  # some writers switch to Implicit VR inside sequences, as pydicom knows too

    def _end(self, start: int, length: int, end: int) -> int:
        if start + length > end:
            raise _broken(f"value of {length} bytes ends after its data set", start, "truncated")
        return start + length

    def _undefined_length(
        self, tag: int, vr: str | None, start: int, end: int, depth: int, *, encoding: _Encoding
    ) -> tuple[Element, int]:
        if tag in {PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA} or vr in {"OB", "OW"}:
            fragments, at = self._fragments(start, end, encoding)
            return Element(vr, start, at - 8, None, fragments), at
        # UN of undefined length holds Implicit VR Little Endian items whatever the transfer syntax (PS3.5 6.2.2).
        inside = _IMPLICIT if vr == "UN" else encoding
        items, at = self._items(start, end, depth + 1, inside, delimited=True)
        return Element(vr, start, at - 8, items), at

    def _nested(
        self, tag: int, vr: str | None, start: int, end: int, depth: int, *, encoding: _Encoding
    ) -> tuple[Elements, ...] | None:
        """Items of a sequence of defined length; None where the element is not a sequence."""
        if vr == "SQ" or (vr is None and dictionary_vr(tag) == "SQ"):
            inside = encoding if vr == "SQ" else _IMPLICIT
            return self._items(start, end, depth + 1, inside, delimited=False)[0]
        return self._guessed_items(start, end, depth, encoding) if vr in {None, "UN"} else None

    def _guessed_items(self, start: int, end: int, depth: int, encoding: _Encoding) -> tuple[Elements, ...] | None:
        """Items of a value of unknown VR that looks like a sequence, None where it is not one after all."""
        for guess in dict.fromkeys((_IMPLICIT, encoding)):
            if self.data[start : start + 4] != guess.first_item:
                continue
            try:
                return self._items(start, end, depth + 1, guess, delimited=False)[0]
            except UnreadableObject as error:
                if error.code in {"too-deep", "too-many-elements"}:
                    raise
        return None

    def _items(
        self, at: int, end: int, depth: int, encoding: _Encoding, *, delimited: bool
    ) -> tuple[tuple[Elements, ...], int]:
        if depth > self.limits.depth:
            raise _broken(f"sequences nested deeper than {self.limits.depth}", at, "too-deep")
        items: list[Elements] = []
        while at < end:
            tag, _, length, start = self._head(at, end, encoding)
            if tag == SEQUENCE_END and delimited:
                return tuple(items), start
            if tag != ITEM:
                raise _broken("expected an item of a sequence", at)
            if length == UNDEFINED:
                item, at = self.data_set(start, end, depth, encoding, delimited=True)
            else:
                at = self._end(start, length, end)
                item, _ = self.data_set(start, at, depth, encoding)
            items.append(item)
        if delimited:
            raise _broken("sequence without its delimiter", at, "truncated")
        return tuple(items), at

    def _fragments(self, at: int, end: int, encoding: _Encoding) -> tuple[tuple[tuple[int, int], ...], int]:
        """Encapsulated pixel data, PS3.5 A.4."""
        fragments: list[tuple[int, int]] = []
        while at < end:
            tag, _, length, start = self._head(at, end, encoding)
            if tag == SEQUENCE_END:
                return tuple(fragments), start
            if tag != ITEM:
                raise _broken("expected a fragment of pixel data", at)
            at = self._end(start, length, end)
            fragments.append((start, at))
        raise _broken("pixel data without its delimiter", at, "truncated")
