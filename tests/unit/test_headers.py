"""Reading one file: what is kept, what is refused, and digests that do not depend on the encoding."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from struct import pack

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicom_io import elements, headers
from dicom_io.elements import Limits
from dicom_io.errors import UnreadableObject
from dicom_io.headers import Reading, read
from tests import make

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
ITEM = b"\xfe\xff\x00\xe0"
SEQUENCE = b"\x08\x00\x40\x11SQ\x00\x00"  # (0008,1140) Referenced Image Sequence


@pytest.fixture(scope="module")
def slice_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One PET slice, Explicit VR Little Endian."""
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(3, 8, 8)).pet[1]


def edited(source: Path, target: Path, edit: Callable[[Dataset], object]) -> Path:
    dataset = pydicom.dcmread(source)
    edit(dataset)
    dataset.save_as(target)
    return target


def refusal(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(UnreadableObject) as caught:
        read(path, limits or Limits())
    return caught.value.code


def raw_file(tmp_path: Path, body: bytes) -> Path:
    """Part 10 bytes around an Explicit VR Little Endian data set."""
    syntax = b"1.2.840.10008.1.2.1\0"
    meta = b"\x02\x00\x10\x00UI" + pack("<H", len(syntax)) + syntax
    path = tmp_path / "raw.dcm"
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    return path


def identity(uid: bytes = b"1.2.3\0") -> bytes:
    """SOP class, SOP instance, study and series UID, in the order of their tags, around nothing else."""
    tags = (b"\x08\x00\x16\x00", b"\x08\x00\x18\x00", b"\x20\x00\x0d\x00", b"\x20\x00\x0e\x00")
    return b"".join(tag + b"UI" + pack("<H", len(uid)) + uid for tag in tags)


# What is kept


def test_values_come_as_json_by_the_dictionarys_multiplicity(slice_path: Path) -> None:
    header = read(slice_path).header
    dataset = pydicom.dcmread(slice_path)
    assert header["Modality"] == "PT"
    assert header["Rows"] == 8
    assert header["PixelSpacing"] == [float(number) for number in dataset.PixelSpacing]
    assert header["ImageOrientationPatient"] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert header["ImageType"] == ["ORIGINAL", "PRIMARY"]
    assert header["NumberOfSlices"] == 3
    assert header["AccessionNumber"] is None
    assert "TimezoneOffsetFromUTC" not in header
    (item,) = header["RadiopharmaceuticalInformationSequence"]
    assert item["RadionuclideTotalDose"] == float(
        dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose
    )
    assert item["RadionuclideCodeSequence"][0]["CodeValue"] == "77004003"


def test_reading_survives_json(slice_path: Path) -> None:
    reading = read(slice_path)
    assert Reading.from_json(json.loads(json.dumps(reading.to_json(), allow_nan=False))) == reading


def test_every_listed_keyword_is_read(slice_path: Path) -> None:
    listed = set(headers.HEADER_KEYWORDS)
    assert set(read(slice_path).header) <= listed
    for keyword in (*headers.IDENTIFICATION_KEYWORDS, *headers.MEANING_KEYWORDS):
        assert pydicom.datadict.tag_for_keyword(keyword) is not None, keyword


@pytest.mark.parametrize(
    ("sent", "kept", "number"),
    [
        ("1.50", 1.5, 1.5),
        (" 70 ", 70.0, 70.0),
        ("1e400", "1e400", None),
        ("NaN", "NaN", None),
        ("-inf", "-inf", None),
        ("1_000", "1_000", None),
        ("70,5", "70,5", None),
        ("1\\2", "1\\2", None),
        ("", None, None),
    ],
)
def test_a_number_that_is_none_stays_the_text_that_was_sent(
    tmp_path: Path, sent: str, kept: object, number: float | None
) -> None:
    value = sent.encode() + b" " * (len(sent) % 2)
    body = identity() + b"\x28\x00\x53\x10DS" + pack("<H", len(value)) + value
    header = read(raw_file(tmp_path, body)).header
    assert header["RescaleSlope"] == kept
    assert headers.number(header, "RescaleSlope") == number


def test_texts_are_decoded_by_their_character_set(tmp_path: Path, slice_path: Path) -> None:
    for index, (character_set, text) in enumerate(
        [
            ("ISO_IR 100", "Müller^Jörg"),
            ("ISO_IR 192", "Ζωή^山田"),
            ("ISO_IR 144", "Люкceмбypг"),
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ]
    ):
        path = edited(slice_path, tmp_path / f"{index}.dcm", partial(rename, character_set=character_set, text=text))
        assert read(path).header["PatientName"] == text


def rename(dataset: Dataset, character_set: Sequence[str], text: str) -> None:
    dataset.SpecificCharacterSet = character_set
    dataset.PatientName = text


def test_only_dicoms_own_character_sets_are_looked_up(tmp_path: Path) -> None:
    charset, name = b"unicode_escape", b"\\x41 "
    body = b"\x08\x00\x05\x00CS" + pack("<H", len(charset)) + charset
    body += identity() + b"\x10\x00\x10\x00PN" + pack("<H", len(name)) + name
    assert read(raw_file(tmp_path, body)).header["PatientName"] == "\\x41"


def test_private_values_are_found_by_their_creator(tmp_path: Path, slice_path: Path) -> None:
    def add(dataset: Dataset) -> None:
        dataset.private_block(0x7053, "Somebody Else", create=True).add_new(0x00, "DS", "9.0")
        philips = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        philips.add_new(0x00, "DS", "0.000551")
        philips.add_new(0x09, "DS", "1.602563")
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20201217095621.00")

    path = edited(slice_path, tmp_path / "private.dcm", add)
    header = read(path).header
    assert (0x7053, 0x1100) in pydicom.dcmread(path), "Philips' block is the second one"
    assert header["PhilipsSUVScaleFactor"] == 0.000551
    assert header["PhilipsActivityConcentrationScaleFactor"] == 1.602563
    assert header["GEScanDateTime"] == "20201217095621.00"


def test_private_values_of_a_wrong_or_missing_creator_are_none(tmp_path: Path) -> None:
    orphan = b"\x53\x70\x00\x10DS\x04\x009.0 "
    assert "PhilipsSUVScaleFactor" not in read(raw_file(tmp_path, identity() + orphan)).header


def test_two_blocks_of_one_creator_that_disagree_give_no_number(tmp_path: Path) -> None:
    creator = b"Philips PET Private Group "
    blocks = b"".join(
        b"\x53\x70" + bytes([block, 0]) + b"LO" + pack("<H", len(creator)) + creator for block in (16, 17)
    )
    values = b"\x53\x70\x00\x10DS\x04\x000.1 \x53\x70\x00\x11DS\x04\x000.2 "
    header = read(raw_file(tmp_path, identity() + blocks + values)).header
    assert header["PhilipsSUVScaleFactor"] == [0.1, 0.2]
    assert headers.number(header, "PhilipsSUVScaleFactor") is None


@pytest.mark.parametrize(
    ("address", "peer"), [("dicom:10.1.2.9:50123", "10.1.2.9"), ("dicom:[fe80::1]:104", "fe80::1"), ("", None)]
)
def test_the_association_comes_from_file_meta_information(
    tmp_path: Path, slice_path: Path, address: str, peer: str | None
) -> None:
    def note(dataset: Dataset) -> None:
        dataset.file_meta.SendingApplicationEntityTitle = "PETCT1"
        dataset.file_meta.ReceivingApplicationEntityTitle = "TRACERD"
        dataset.file_meta.SendingPresentationAddress = address

    reading = read(edited(slice_path, tmp_path / "meta.dcm", note))
    assert reading.association == {"calling_ae": "PETCT1", "called_ae": "TRACERD", "peer": peer}


def test_a_file_without_file_meta_information_is_read(tmp_path: Path, slice_path: Path) -> None:
    dataset = pydicom.dcmread(slice_path)
    path = tmp_path / "bare.dcm"
    dataset.file_meta, dataset.preamble = pydicom.dataset.FileMetaDataset(), None
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert path.read_bytes()[:2] == b"\x08\x00"
    bare, whole = read(path), read(slice_path)
    assert bare.transfer_syntax_uid == ImplicitVRLittleEndian
    assert (bare.header, bare.content_sha256) == (whole.header, whole.content_sha256)


def test_a_long_value_is_hashed_but_not_kept(tmp_path: Path, slice_path: Path) -> None:
    def describe(letter: str) -> Callable[[Dataset], object]:
        return lambda dataset: setattr(dataset, "RadiopharmaceuticalInformationSequence", [long_item(letter)])

    def long_item(letter: str) -> Dataset:
        item = Dataset()
        item.AdministrationRouteCodeSequence = [Dataset()]
        item.AdministrationRouteCodeSequence[0].add_new(0x00080119, "UC", letter * 70_000)
        return item

    one = read(edited(slice_path, tmp_path / "one.dcm", describe("a")))
    other = read(edited(slice_path, tmp_path / "other.dcm", describe("b")))
    assert "RadiopharmaceuticalInformationSequence" not in one.header
    assert one.content_sha256 != other.content_sha256


# Digests


@pytest.mark.parametrize(
    "options",
    [["+ti"], ["+te"], ["+te", "-e"], ["+ti", "-e"], ["+te", "+g"], ["+ti", "+g"], ["+te", "+p", "512", "64"]],
    ids=" ".join,
)
def test_the_content_digest_is_the_same_in_every_encoding(tmp_path: Path, slice_path: Path, options: list[str]) -> None:
    """DCMTK as the re-encoder: VRs, undefined lengths (-e), group lengths (+g), trailing padding (+p)."""
    if shutil.which("dcmconv") is None:
        pytest.skip("dcmconv (DCMTK) is not installed")
    rich = edited(slice_path, tmp_path / "rich.dcm", with_private_and_nested)
    other = tmp_path / "other.dcm"
    subprocess.run(["dcmconv", *options, str(rich), str(other)], check=True, timeout=20)
    assert other.read_bytes() != rich.read_bytes()
    one, two = read(rich), read(other)
    assert two.content_sha256 == one.content_sha256
    assert two.pixel_sha256 == one.pixel_sha256
    assert two.header == one.header


def with_private_and_nested(dataset: Dataset) -> None:
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000551")
    block.add_new(0x12, "UN", b"\x01\x02\x03\x20")
    private = Dataset()
    private.PatientComments = "nested in a private sequence"
    dataset.private_block(0x0099, "SOMEBODY", create=True).add_new(0x01, "SQ", [private])
    dataset.ReferencedImageSequence = []


@pytest.mark.parametrize(
    "edit",
    [
        lambda ds: setattr(ds, "PatientWeight", "71.5"),
        lambda ds: setattr(ds, "PatientComments", "new"),
        lambda ds: delattr(ds, "StationName"),
        lambda ds: setattr(ds.RadiopharmaceuticalInformationSequence[0], "RadionuclideTotalDose", "1.0"),
        lambda ds: ds.RadiopharmaceuticalInformationSequence.append(Dataset()),
        lambda ds: ds.private_block(0x7053, "X", create=True).add_new(0x01, "UL", 0),
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2] + b"\x01\x07"),
        lambda ds: setattr(ds, "PixelRepresentation", 1),
    ],
)
def test_the_content_digest_changes_with_any_content(
    tmp_path: Path, slice_path: Path, edit: Callable[[Dataset], object]
) -> None:
    assert read(edited(slice_path, tmp_path / "e.dcm", edit)).content_sha256 != read(slice_path).content_sha256


def test_padding_of_a_number_is_a_digit(tmp_path: Path) -> None:
    """0x2000 as US ends in the byte that pads texts; it must not hash like 0x0000."""
    digests = {
        read(raw_file(tmp_path, identity() + b"\x20\x00\x10\x90US\x02\x00" + value)).content_sha256
        for value in (b"\x00\x20", b"\x00\x00")
    }
    assert len(digests) == 2


def test_the_pixel_digest_ignores_the_pad_byte(tmp_path: Path, slice_path: Path) -> None:
    def eight_bit(padding: bytes) -> Callable[[Dataset], None]:
        def edit(dataset: Dataset) -> None:
            dataset.Rows, dataset.Columns = 3, 3
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
            dataset.PixelData = bytes(range(9)) + padding
            dataset["PixelData"].VR = "OB"

        return edit

    one = read(edited(slice_path, tmp_path / "one.dcm", eight_bit(b"\x00")))
    other = read(edited(slice_path, tmp_path / "other.dcm", eight_bit(b"\xff")))
    assert one.pixel_sha256 == other.pixel_sha256


# Refusals


@pytest.mark.parametrize(
    "uid",
    ["../../../../tmp/pwn", "1." + "2" * 63, "1.2\0.3", "CON", "1.2.３", "$(reboot);", "1 2", "1.2\\1.3"],
)
def test_an_illegal_uid_is_refused(tmp_path: Path, uid: str) -> None:
    value = uid.encode()
    assert refusal(raw_file(tmp_path, identity(value + b"\0" * (len(value) % 2)))) == "illegal-uid"


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_missing_uid_is_refused(tmp_path: Path, slice_path: Path, keyword: str) -> None:
    dataset = pydicom.dcmread(slice_path)
    for how in ("absent", "empty"):
        setattr(dataset, keyword, "") if how == "empty" else delattr(dataset, keyword)
        dataset.save_as(tmp_path / "e.dcm", enforce_file_format=False)
        assert refusal(tmp_path / "e.dcm") == "missing-uid"


@pytest.mark.parametrize(
    ("keyword", "code"),
    [("MediaStorageSOPClassUID", "class-mismatch"), ("MediaStorageSOPInstanceUID", "uid-mismatch")],
)
def test_request_and_data_set_must_name_the_same_object(
    tmp_path: Path, slice_path: Path, keyword: str, code: str
) -> None:
    path = edited(slice_path, tmp_path / "e.dcm", lambda ds: None)
    file = pydicom.dcmread(path)
    setattr(file.file_meta, keyword, "1.2.840.10008.5.1.4.1.1.7")
    with path.open("wb") as target:
        pydicom.filewriter.dcmwrite(target, file, enforce_file_format=False)
    assert refusal(path) == code


def test_messages_hold_no_value(tmp_path: Path) -> None:
    with pytest.raises(UnreadableObject) as caught:
        read(raw_file(tmp_path, identity(b"1.2.999.secret")))
    assert "secret" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, slice_path: Path) -> None:
    """A prefix that ends between two elements is a data set of its own; every other one must be noticed."""
    whole = slice_path.read_bytes()
    encoded = elements.parse(whole, Limits())
    ends = {element.end for element in (*encoded.meta.values(), *encoded.elements.values())} | {132, 0}
    path = tmp_path / "cut.dcm"
    for length in range(140, len(whole)):
        path.write_bytes(whole[:length])
        if length in ends:
            continue
        assert refusal(path) in {"truncated", "not-dicom", "structure", "transfer-syntax", "missing-uid"}, length
    path.write_bytes(whole[:-50])
    assert refusal(path) == "truncated"


def test_pixels_shorter_than_described_are_refused(tmp_path: Path, slice_path: Path) -> None:
    pixels = bytes(pydicom.dcmread(slice_path).PixelData)
    for wrong in (pixels[:-2], pixels + b"\0\0", b""):
        path = edited(slice_path, tmp_path / "e.dcm", partial(replace_pixels, pixels=wrong))
        assert refusal(path) == "pixel-length"


def replace_pixels(dataset: Dataset, pixels: bytes) -> None:
    dataset.PixelData = pixels


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("Rows", 0, "pixel-description"),
        ("Columns", None, "pixel-description"),
        ("BitsAllocated", 12, "pixel-description"),
        ("BitsAllocated", None, "pixel-description"),
        ("SamplesPerPixel", 2, "pixel-description"),
        ("SamplesPerPixel", 3, "pixel-length"),
        ("NumberOfFrames", 10**9, "too-large"),
        ("NumberOfFrames", 0, "pixel-description"),
        ("NumberOfFrames", -1, "pixel-description"),
        ("Rows", 65535, "pixel-length"),
    ],
)
def test_impossible_pixel_descriptions_are_refused(
    tmp_path: Path, slice_path: Path, keyword: str, value: int | None, code: str
) -> None:
    assert refusal(edited(slice_path, tmp_path / "e.dcm", lambda ds: setattr(ds, keyword, value))) == code


def test_rows_of_four_bytes_are_refused(tmp_path: Path, slice_path: Path) -> None:
    def widen(dataset: Dataset) -> None:
        dataset["Rows"].VR = "UL"

    assert refusal(edited(slice_path, tmp_path / "e.dcm", widen)) == "pixel-description"


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one inside the other."""
    begin, end = (
        SEQUENCE + b"\xff" * 4 + ITEM + b"\xff" * 4,
        b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4),
    )
    return begin * depth + end * depth


def test_nesting_has_a_limit(tmp_path: Path) -> None:
    first, rest = identity()[:28], identity()[28:]
    assert read(raw_file(tmp_path, first + nested(32) + rest)).sop_class_uid == "1.2.3"
    started = time.monotonic()
    for depth in (33, 300, 100_000):
        assert refusal(raw_file(tmp_path, first + nested(depth) + rest)) == "too-deep"
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x10\x00\x10\x00OB\x00\x00\xf0\xff\xff\xff" + b"x" * 200, "truncated"),
        (SEQUENCE + b"\xff\xff\xff\xff", "truncated"),
        (SEQUENCE + b"\x08\x00\x00\x00" + b"\x10\x00\x10\x00PN\x00\x00", "structure"),
        (SEQUENCE + b"\x08\x00\x00\x00" + ITEM + b"\x40\x00\x00\x00", "truncated"),
        (b"\xfe\xff\x0d\xe0" + bytes(4), "structure"),
        (b"\x10\x00\x10\x00QQ\x02\x00AB", "structure"),
        (b"\x10\x00\x20\x00LO\x02\x00AB" * 2, "duplicate-element"),
        (b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff" + ITEM + bytes(4), "truncated"),
    ],
)
def test_broken_structure_is_refused(tmp_path: Path, body: bytes, code: str) -> None:
    assert refusal(raw_file(tmp_path, identity() + body)) == code


@pytest.mark.parametrize("count", [1, 3, 5, 8, 100])
def test_nul_bytes_after_the_last_element_are_padding(tmp_path: Path, count: int) -> None:
    bare = read(raw_file(tmp_path, identity())).content_sha256
    assert read(raw_file(tmp_path, identity() + bytes(count))).content_sha256 == bare
    assert refusal(raw_file(tmp_path, identity() + bytes(count) + b"x")) in {"truncated", "duplicate-element"}


def test_file_size_and_number_of_elements_have_limits(tmp_path: Path) -> None:
    path = raw_file(tmp_path, identity())
    assert refusal(path, Limits(file_bytes=path.stat().st_size - 1)) == "too-large"
    assert refusal(path, Limits(elements=3)) == "too-many-elements"
    assert read(path, Limits(elements=4)).sop_class_uid == "1.2.3"


def test_a_transfer_syntax_that_lies_is_refused(tmp_path: Path, slice_path: Path) -> None:
    declared = slice_path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    (tmp_path / "e.dcm").write_bytes(declared)
    assert refusal(tmp_path / "e.dcm") == "transfer-syntax"


@pytest.mark.parametrize("content", [b"", b"no DICOM" * 40, b"\x7fELF" + bytes(200), bytes(128) + b"DICM"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert refusal(path) in {"not-dicom", "transfer-syntax", "missing-uid"}


def test_pydicoms_own_test_files_are_read_or_refused_by_type() -> None:
    """Real files of many makers, many of them broken: a reading that agrees with pydicom, or a typed refusal."""
    outcomes = []
    for path in sorted(PYDICOM_FILES.rglob("*.dcm")):
        try:
            reading = read(path)
        except UnreadableObject as error:
            outcomes.append(error.code)
            continue
        dataset = pydicom.dcmread(path, force=True)
        assert reading.sop_instance_uid == dataset.SOPInstanceUID, path.name
        assert reading.header.get("Rows") == dataset.get("Rows"), path.name
        outcomes.append("read")
    assert outcomes.count("read") >= 40
    assert set(outcomes) - {"read"} <= {
        "transfer-syntax", "missing-uid", "not-dicom", "truncated", "structure", "pixel-length", "pixel-description",
        "uid-mismatch", "class-mismatch", "duplicate-element",
    }  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(132, 2500), st.integers(0, 255)), min_size=1, max_size=12))
def test_mutated_files_are_read_or_refused_by_type(
    tmp_path: Path, slice_path: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(slice_path.read_bytes())
    for at, byte in changes:
        content[at % len(content)] = byte
    path = tmp_path / "mutated.dcm"
    path.write_bytes(bytes(content))
    try:
        json.dumps(read(path).to_json(), allow_nan=False)
    except UnreadableObject:
        return


def test_reading_is_fast(tmp_path: Path, slice_path: Path) -> None:
    """A 200 × 200 PET slice takes well under 2 ms on one core; the limit here leaves room for a busy machine."""

    def enlarge(dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 200
        dataset.PixelData = np.arange(40_000, dtype="<u2").tobytes()

    path = edited(slice_path, tmp_path / "large.dcm", enlarge)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        read(path)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.004
