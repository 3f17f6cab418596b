"""One received file → what the node needs to know of it, in one fast pass without decoding pixels.

`read` runs for every instance that arrives, in the sandbox. It keeps the listed attributes as JSON, checks that the
object can be what it says, and makes digests that stay the same however the data set is encoded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from struct import pack
from typing import NamedTuple

from pydicom.datadict import tag_for_keyword

from dicom_io import elements as structure
from dicom_io import functional_groups, values
from dicom_io.elements import Element, Elements, EncodedFile, Limits
from dicom_io.errors import UnreadableObject
from engines.contract import Json

Header = Mapping[str, Json]
"""Keyword → value; a list where the data dictionary allows several values, None where the element is empty.

The header of a multi-frame object also has "Frames" and "Problems", see `functional_groups.flattened`.
"""

_IDENTIFICATION = """
    PatientName PatientID IssuerOfPatientID PatientBirthDate
    AccessionNumber StudyID StudyDate StudyTime StudyDescription InstitutionName SeriesNumber InstanceNumber
"""
_MEANING = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType
    SeriesDate SeriesTime AcquisitionDate AcquisitionTime AcquisitionDateTime TimezoneOffsetFromUTC
    Manufacturer ManufacturerModelName StationName SeriesDescription ProtocolName BodyPartExamined
    PatientSex PatientAge PatientSize PatientWeight
    Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit
    PixelRepresentation RescaleSlope RescaleIntercept RescaleType LossyImageCompression
    PixelSpacing ImagePositionPatient ImageOrientationPatient SliceThickness SpacingBetweenSlices
    SeriesType Units CountsSource SUVType CorrectedImage DecayCorrection AttenuationCorrectionMethod
    ScatterCorrectionMethod RandomsCorrectionMethod TemporalPositionIdentifier
    NumberOfSlices NumberOfTimeSlices NumberOfRRIntervals NumberOfTimeSlots ImageIndex
    ActualFrameDuration FrameReferenceTime TriggerTime DecayFactor DecayCorrectionDateTime
    ConcatenationUID InConcatenationNumber InConcatenationTotalNumber
    RadiopharmaceuticalInformationSequence ContributingEquipmentSequence
"""
IDENTIFICATION_KEYWORDS = tuple(_IDENTIFICATION.split())
"""Who and which visit. A PACS rewrites these on the way; no number changes its meaning by it."""
MEANING_KEYWORDS = (*_MEANING.split(), *functional_groups.CORRECTIONS)
"""What the reading side decides by: geometry, quantity, tracer, kind, completeness, rules."""


class PrivateElement(NamedTuple):
    """A private attribute, found by the name of its creator and never by the number of its block (PS3.5 7.8.1)."""

    group: int
    creator: str
    element: int
    vr: str


PRIVATE_ELEMENTS = {
    "PhilipsSUVScaleFactor": PrivateElement(0x7053, "Philips PET Private Group", 0x00, "DS"),
    "PhilipsActivityConcentrationScaleFactor": PrivateElement(0x7053, "Philips PET Private Group", 0x09, "DS"),
    "GEScanDateTime": PrivateElement(0x0009, "GEMS_PETD_01", 0x0D, "DT"),
}
HEADER_KEYWORDS = (*IDENTIFICATION_KEYWORDS, *MEANING_KEYWORDS, *PRIVATE_ELEMENTS)


def _tags(keywords: Iterable[str]) -> dict[int, str]:
    return {tag_for_keyword(keyword) or 0: keyword for keyword in keywords}


PUBLIC_TAGS = _tags((*IDENTIFICATION_KEYWORDS, *MEANING_KEYWORDS))
SHARED_GROUPS, PER_FRAME_GROUPS = 0x52009229, 0x52009230
_OF_THE_OBJECT = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality
    Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit
    PixelRepresentation
"""
MACRO_TAGS = {tag: _tags(functional_groups.MACROS[macro]) for tag, macro in _tags(functional_groups.MACROS).items()} | {
    tag: _tags(sorted({*MEANING_KEYWORDS} - {*_OF_THE_OBJECT.split()})) for tag in _tags(functional_groups.UNASSIGNED)
}
"""Tag of a macro's sequence → the attributes read in it; what is unassigned may not describe the object anew."""

CHARACTER_SET = 0x00080005
PADDING = 0xFFFCFFFC
PIXELS = (structure.PIXEL_DATA, structure.FLOAT_PIXEL_DATA, structure.DOUBLE_PIXEL_DATA)
UID_TEXT = re.compile(r"[0-9.]{1,64}")
ASSOCIATION_TAGS = {"calling_ae": (0x00020017, 0x00020016), "called_ae": (0x00020018,), "peer": (0x00020027,)}
USUAL_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Reading:
    """One instance as the index stores it.

    header : HEADER_KEYWORDS that are present → JSON value
    content_sha256 : digest of the decoded data set, the same in every encoding of it; pixels by their own digest
    pixel_sha256 : digest of the pixel data as sent (of the code stream where compressed), None without pixels
    association : calling_ae, called_ae, peer (address) from the File Meta Information; None where it does not say
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    header: dict[str, Json]
    content_sha256: str
    pixel_sha256: str | None
    association: dict[str, str | None]

    def to_json(self) -> dict[str, Json]:
        """As a JSON object; `from_json` takes it back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Reading:
        """The reading that `to_json` wrote."""
        return cls(**document)


def read(path: Path, limits: Limits = USUAL_LIMITS) -> Reading:
    """Read one file within the limits.

    Raises
    ------
    UnreadableObject
        Structure (see `elements.read_file`); missing-uid, illegal-uid; class-mismatch, uid-mismatch (File Meta
        Information against data set); pixel-description, pixel-length, too-large.
    """
    encoded = structure.read_file(path, limits)
    header = checked_header(encoded, limits)
    pixel_sha256 = pixel_digest(encoded, header, limits)
    return Reading(
        sop_class_uid=header["SOPClassUID"],
        sop_instance_uid=header["SOPInstanceUID"],
        study_instance_uid=header["StudyInstanceUID"],
        series_instance_uid=header["SeriesInstanceUID"],
        transfer_syntax_uid=encoded.transfer_syntax_uid,
        header=header,
        content_sha256=_content_digest(encoded, encoded.elements, pixel_sha256).hex(),
        pixel_sha256=pixel_sha256,
        association=association_of(encoded),
    )


def number(header: Header, keyword: str) -> float | None:
    """A finite number, or None where the attribute is absent, empty or no number."""
    value = header.get(keyword)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def numbers(header: Header, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` numbers of one attribute, else None."""
    found = header.get(keyword)
    if not isinstance(found, list) or len(found) != count:
        return None
    whole = all(isinstance(value, int | float) and math.isfinite(value) for value in found)
    return tuple(float(value) for value in found) if whole else None


def text(header: Header, keyword: str) -> str | None:
    """A text that is present and not empty, else None."""
    value = header.get(keyword)
    return value if isinstance(value, str) and value else None


def items(header: Header, keyword: str) -> list[Header]:
    """The items of a sequence, none where it is absent or was sent as something else."""
    value = header.get(keyword)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def common(headers: Sequence[Header], keyword: str) -> Json:
    """The value that all instances share, None where they differ or none has one."""
    first = headers[0].get(keyword)
    return first if all(header.get(keyword) == first for header in headers) else None


def checked_header(encoded: EncodedFile, limits: Limits = USUAL_LIMITS) -> dict[str, Json]:
    """`header_of` of an object whose identifiers are usable; errors on identifiers as in `read`."""
    header = header_of(encoded, limits)
    _check_identity(encoded, header)
    return header


def header_of(encoded: EncodedFile, limits: Limits = USUAL_LIMITS) -> dict[str, Json]:
    """The listed attributes of a walked file; values longer than `limits.value_bytes` are left out.

    Of a multi-frame object with functional groups, what `functional_groups.flattened` makes of them.
    """
    encodings = _encodings(encoded, encoded.elements, values.ASCII)
    header = _attributes(encoded, encoded.elements, PUBLIC_TAGS, encodings, limits)
    header |= private_values(encoded, encoded.elements)
    if text(header, "SOPClassUID") not in functional_groups.SOP_CLASSES:
        return header
    shared, per_frame = (
        [_groups(encoded, item, encodings, limits) for item in element.items or ()]
        for element in (encoded.elements.get(tag, Element(None, 0, 0)) for tag in (SHARED_GROUPS, PER_FRAME_GROUPS))
    )
    return functional_groups.flattened(header, shared[0] if shared else {}, per_frame)


def _groups(
    encoded: EncodedFile, group: Elements, inherited: values.Encodings, limits: Limits
) -> dict[str, list[dict[str, Json]]]:
    """What `functional_groups` reads in one item of a Functional Groups Sequence."""
    encodings = _encodings(encoded, group, inherited)
    found: dict[str, list[dict[str, Json]]] = {}
    for tag, wanted in MACRO_TAGS.items():
        element = group.get(tag)
        if element is not None and element.items:
            macro = structure.dictionary_keyword(tag)
            found[macro] = [_attributes(encoded, item, wanted, encodings, limits) for item in element.items]
            if macro in functional_groups.UNASSIGNED:
                found[macro][0] |= private_values(encoded, element.items[0])
    return found


def _attributes(
    encoded: EncodedFile, elements: Elements, wanted: Mapping[int, str], encodings: values.Encodings, limits: Limits
) -> dict[str, Json]:
    """The wanted attributes that are present and not too long."""
    return {
        keyword: _value(encoded, tag, element, encodings)
        for tag, keyword in wanted.items()
        if (element := elements.get(tag)) is not None and element.end - element.start <= limits.value_bytes
    }


def private_values(encoded: EncodedFile, elements: Elements) -> dict[str, Json]:
    """PRIVATE_ELEMENTS that are present; a list of all values where blocks of one creator contradict each other."""
    blocks = [
        (tag, encoded.value(element).rstrip(b"\0 "))
        for tag, element in elements.items()
        if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
    ]
    found: dict[str, Json] = {}
    for keyword, wanted in PRIVATE_ELEMENTS.items():
        tags = [
            tag & 0xFFFF0000 | (tag & 0xFF) << 8 | wanted.element
            for tag, creator in blocks
            if tag >> 16 == wanted.group and creator == wanted.creator.encode()
        ]
        candidates = [
            values.decode(encoded.value(element), _vr(element.vr, wanted.vr), values.ASCII, several=False)
            for element in map(elements.get, tags)
            if element is not None
        ]
        if candidates:
            found[keyword] = candidates[0] if len(set(candidates)) == 1 else candidates
    return found


def _vr(sent: str | None, dictionary: str | None) -> str:
    """The VR the bytes are in: as sent, by the dictionary where nothing useful was sent."""
    return sent if sent and sent != "UN" else dictionary or "UN"


def _encodings(encoded: EncodedFile, elements: Elements, inherited: values.Encodings) -> values.Encodings:
    element = elements.get(CHARACTER_SET)
    return values.character_set(encoded.value(element)) if element else inherited


def _value(encoded: EncodedFile, tag: int, element: Element, encodings: values.Encodings) -> Json:
    if element.items is not None:
        return [_item(encoded, item, encodings) for item in element.items]
    vr, several = _coding(tag, element.vr)
    return values.decode(encoded.value(element), vr, encodings, several=several)


@lru_cache(maxsize=4096)
def _coding(tag: int, sent: str | None) -> tuple[str, bool]:
    """VR of a public attribute, and whether it may have several values."""
    return _vr(sent, structure.dictionary_vr(tag)), structure.has_several_values(tag)


def _item(encoded: EncodedFile, item: Elements, inherited: values.Encodings) -> dict[str, Json]:
    """Every attribute of a sequence item that the dictionary knows."""
    encodings = _encodings(encoded, item, inherited)
    return {
        keyword: _value(encoded, tag, element, encodings)
        for tag, element in item.items()
        if tag != PADDING and (keyword := structure.dictionary_keyword(tag))
    }


def _check_identity(encoded: EncodedFile, header: Header) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = header.get(keyword)
        if not uid:
            raise UnreadableObject(f"{keyword}: expected a UID, got none", code="missing-uid")
        if not isinstance(uid, str) or not UID_TEXT.fullmatch(uid):
            raise UnreadableObject(f"{keyword}: expected 1 to 64 digits and dots (PS3.5 9.1)", code="illegal-uid")
    for tag, keyword, code in (
        (0x00020002, "SOPClassUID", "class-mismatch"),
        (0x00020003, "SOPInstanceUID", "uid-mismatch"),
    ):
        element = encoded.meta.get(tag)
        if element and encoded.value(element).rstrip(b"\0 ") != header[keyword].encode():
            message = f"{keyword}: File Meta Information (C-STORE request) and data set name different ones"
            raise UnreadableObject(message, code=code)


def pixel_digest(encoded: EncodedFile, header: Header, limits: Limits) -> str | None:
    """SHA-256 of the pixel data, None without pixels; errors as in `checked_pixels`."""
    pixels = checked_pixels(encoded, header, limits)
    if pixels is None:
        return None
    element, size = pixels
    if element.fragments is None and element.word_bytes > 1:
        return sha256(encoded.value(element)[:size]).hexdigest()
    with memoryview(encoded.data) as view:
        if element.fragments is None:
            return sha256(view[element.start : element.start + size]).hexdigest()
        digest = sha256(encoded.transfer_syntax_uid.encode())
        for start, end in element.fragments[1:]:  # the first is the offset table, which a re-encoder may drop
            digest.update(view[start:end])
    return digest.hexdigest()


def checked_pixels(encoded: EncodedFile, header: Header, limits: Limits) -> tuple[Element, int] | None:
    """The pixel data and its size when decoded [bytes], None without pixels (PS3.5 8.1, PS3.3 C.7.6.3).

    Raises
    ------
    UnreadableObject
        pixel-description, pixel-length, too-large.
    """
    element = next((encoded.elements[tag] for tag in PIXELS if tag in encoded.elements), None)
    if element is None:
        return None
    size = _pixel_bytes(encoded, header)
    if size > limits.decoded_bytes:
        message = f"pixels: expected at most {limits.decoded_bytes} bytes decoded, described are {size}"
        raise UnreadableObject(message, code="too-large")
    length = element.end - element.start
    if element.fragments is not None:
        _check_fragments(encoded, element.fragments, header.get("NumberOfFrames") or 1)
    elif length not in {size, size + size % 2}:  # values have even length, PS3.5 7.1.1
        message = f"Pixel Data (7FE0,0010): expected {size} bytes by Rows, Columns and so on, got {length}"
        raise UnreadableObject(message, code="pixel-length")
    return element, size


def _check_fragments(encoded: EncodedFile, fragments: tuple[tuple[int, int], ...], frames: int) -> None:
    """As many code streams as frames: no fragment holds two, in RLE each is one (PS3.5 A.4); a video is one stream."""
    if encoded.transfer_syntax_uid.startswith(structure.VIDEO_SYNTAXES):
        frames = 1
    got = len(fragments) - 1  # the first is the offset table
    offset_table = fragments[0][1] - fragments[0][0] if fragments else 0
    exact = encoded.transfer_syntax_uid == structure.RLE
    if got < frames or (exact and got != frames) or (frames > 1 and offset_table not in {0, 4 * frames}):
        message = f"Pixel Data (7FE0,0010): expected code streams of {frames} frames, got {max(got, 0)} fragments"
        raise UnreadableObject(message, code="pixel-length")


def _pixel_bytes(encoded: EncodedFile, header: Header) -> int:
    """Bytes of the decoded pixels as the Image Pixel module describes them."""
    for tag, keyword in ((0x00280010, "Rows"), (0x00280011, "Columns")):
        element = encoded.elements.get(tag)
        legal = element is not None and element.vr in {None, "US", "UN"} and element.end - element.start == 2
        if not legal or not header[keyword]:
            message = f"{keyword}: expected one unsigned 16-bit number from 1 to 65535"
            raise UnreadableObject(message, code="pixel-description")
    count: int = header["Rows"] * header["Columns"]
    for keyword, allowed, default in (
        ("NumberOfFrames", range(1, 2**31), 1),
        ("SamplesPerPixel", (1, 3, 4), 1),
        ("BitsAllocated", (1, 8, 16, 32, 64), None),
    ):
        factor = default if header.get(keyword) is None else header[keyword]
        if not isinstance(factor, int) or factor not in allowed:
            raise UnreadableObject(f"{keyword}: expected {_allowed(allowed)}", code="pixel-description")
        count *= factor
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        count = count * 2 // 3  # two chrominance samples for two pixels
    return -(-count // 8)


def _allowed(values_: range | tuple[int, ...]) -> str:
    return f"a whole number above {values_.start - 1}" if isinstance(values_, range) else f"one of {values_}"


def _content_digest(encoded: EncodedFile, elements: Elements, pixel_sha256: str | None) -> bytes:
    """Digest of one data set: sorted, without group lengths, padding and VRs, which depend on the encoding."""
    parts: list[bytes] = []
    for tag in sorted(elements):
        if tag & 0xFFFF == 0 or tag == PADDING:
            continue
        element = elements[tag]
        if tag in PIXELS and pixel_sha256:
            kind, content = b"p", pixel_sha256.encode()
        elif element.items:
            kind, content = b"s", b"".join(_content_digest(encoded, item, None) for item in element.items)
        else:
            kind, content = b"v", _canonical(encoded, tag, element)
        parts += (pack("<IcQ", tag, kind, len(content)), content)
    return sha256(b"".join(parts)).digest()


def _canonical(encoded: EncodedFile, tag: int, element: Element) -> bytes:
    """Padding is dropped only where both dictionary and sender call the value a text: in a number it is a digit."""
    value = encoded.value(element)
    text_as_sent = element.vr in {None, "UN"} or element.vr in values.TEXT
    return values.stripped_bytes(value, structure.dictionary_vr(tag)) if text_as_sent else value


def association_of(encoded: EncodedFile) -> dict[str, str | None]:
    """calling_ae, called_ae and peer (address) of the association a file came by; None where it does not say."""
    found: dict[str, str | None] = {}
    for name, tags in ASSOCIATION_TAGS.items():
        element = next((encoded.meta[tag] for tag in tags if tag in encoded.meta), None)
        value = encoded.value(element).decode("ascii", "replace").strip("\0 ") if element else ""
        found[name] = value or None
    if found["peer"]:
        found["peer"] = found["peer"].removeprefix("dicom:").rpartition(":")[0].strip("[]") or None
    return found
