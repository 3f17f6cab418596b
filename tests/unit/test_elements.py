"""One data set, four encodings: the walk gives the same values whatever their byte order and compression."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io import offer
from dicom_io.elements import EncodedFile, Limits, parse
from dicom_io.errors import UnreadableObject
from dicom_io.headers import Reading, read
from dicom_io.sameness import CONFLICTING, DUPLICATE, compare
from tests import make

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
GE = UID("1.2.840.113619.5.2")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def slice_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One PET slice, Explicit VR Little Endian."""
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(3, 8, 8)).pet[1]


def part10(syntax: str, data_set: bytes) -> bytes:
    """A Part 10 file with nothing but the Transfer Syntax UID in its meta information."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM\x02\x00\x10\x00UI" + pack("<H", len(uid)) + uid + data_set


def refusal(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(UnreadableObject) as caught:
        parse(data, limits or Limits())
    return caught.value.code


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# The same in every encoding


def sixteen_bits(_: Dataset) -> None:
    return


def eight_bits(dataset: Dataset) -> None:
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.Rows, dataset.Columns = 3, 5
    dataset.PixelData = bytes(range(15)) + b"\0"
    dataset["PixelData"].VR = "OB"


def eight_bits_in_words(dataset: Dataset) -> None:
    eight_bits(dataset)
    dataset["PixelData"].VR = "OW"


def floats(dataset: Dataset) -> None:
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.linspace(-1.0, 7.5, 64, dtype="<f4").tobytes()


def doubles(dataset: Dataset) -> None:
    del dataset.PixelData
    dataset.BitsAllocated = 64
    dataset.DoubleFloatPixelData = np.linspace(-1.0, 7.5, 64, dtype="<f8").tobytes()


def with_every_kind_of_number(dataset: Dataset) -> None:
    """Words of two, four and eight bytes, nested and private."""
    dataset.NumberOfTimeSlices = 0x0102  # US
    dataset.TagAngleSecondAxis = -2  # SS
    dataset.FrameIncrementPointer = [0x00540010, 0x00541300]  # AT
    dataset.SimpleFrameList = [1, 2**31 + 3]  # UL
    dataset.ReferencePixelX0 = -123456  # SL
    dataset.RecommendedDisplayFrameRateInFloat = 1.5  # FL
    dataset.DopplerCorrectionAngle = -2.25  # FD
    dataset.BadPixelImage = bytes(range(6))  # OB
    dataset.RedPaletteColorLookupTableData = bytes(range(10))  # OW
    dataset.VectorGridData = np.float32([1.5, -2]).tobytes()  # OF
    dataset.LongEdgePointIndexList = bytes(range(8))  # OL
    dataset.VolumetricCurvePoints = bytes(range(16))  # OD
    item = Dataset()
    item.ReferencedFrameNumber = [1, 2]
    item.DopplerCorrectionAngle = 3.75
    dataset.ReferencedImageSequence = [item, Dataset()]
    dataset.RadiopharmaceuticalInformationSequence[0].add_new(0x00189701, "DT", "20260302093000")
    block = dataset.private_block(0x0099, "SOMEBODY", create=True)
    block.add_new(0x01, "FD", [1.25, 2.5])
    block.add_new(0x02, "SL", -7)
    block.add_new(0x03, "UN", b"\x01\x02\x03\x04")
    block.add_new(0x04, "SQ", [item])


PIXELS = [sixteen_bits, eight_bits, eight_bits_in_words, floats, doubles]


@pytest.mark.parametrize("options", [["+ti"], ["+tb"], ["+td"], ["+tb", "-e"], ["+td", "-e"]], ids=" ".join)
@pytest.mark.parametrize("pixels", PIXELS, ids=lambda edit: str(edit.__name__))
def test_dcmtk_changes_the_encoding_and_nothing_is_read_differently(
    tmp_path: Path, slice_path: Path, options: list[str], pixels: Callable[[Dataset], None]
) -> None:
    if shutil.which("dcmconv") is None:
        pytest.skip("dcmconv (DCMTK) is not installed")
    dataset = pydicom.dcmread(slice_path)
    with_every_kind_of_number(dataset)
    pixels(dataset)
    dataset.save_as(tmp_path / "one.dcm")
    subprocess.run(["dcmconv", *options, tmp_path / "one.dcm", tmp_path / "two.dcm"], check=True, timeout=20)
    one, two = read(tmp_path / "one.dcm"), read(tmp_path / "two.dcm")
    expected = {"+ti": ImplicitVRLittleEndian, "+tb": ExplicitVRBigEndian, "+td": DeflatedExplicitVRLittleEndian}
    assert two.transfer_syntax_uid == expected[options[0]]
    assert same(one, two)


def value_of(encoded: EncodedFile, tag: int) -> bytes:
    return encoded.value(encoded.elements[tag])


def same(one: Reading, two: Reading) -> bool:
    return (one.header, one.content_sha256, one.pixel_sha256) == (two.header, two.content_sha256, two.pixel_sha256)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "PatientWeight": st.integers(1, 10**6).map(str),
    "SeriesDescription": st.text("abc XYZ", max_size=20),
    "NumberOfTimeSlices": st.integers(0, 2**16 - 1),
    "TagAngleSecondAxis": st.integers(-(2**15), 2**15 - 1),
    "SimpleFrameList": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
    "ReferencePixelX0": st.integers(-(2**31), 2**31 - 1),
    "FrameIncrementPointer": st.integers(0, 2**32 - 1),
    "RecommendedDisplayFrameRateInFloat": st.floats(width=32, allow_nan=False),
    "DopplerCorrectionAngle": st.floats(allow_nan=False),
    "SelectorUVValue": st.integers(0, 2**64 - 1),
    "SelectorSVValue": st.integers(-(2**63), 2**63 - 1),
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    dataset = Dataset()
    for keyword, strategy in VALUES.items():
        if draw(st.booleans()):
            setattr(dataset, keyword, draw(strategy))
    if depth < 2 and draw(st.booleans()):
        dataset.ReferencedImageSequence = draw(st.lists(data_sets(depth + 1), max_size=3))
    return dataset


def encoded_as(dataset: Dataset, syntax: UID) -> bytes:
    """pydicom as the writer of the data set; it never swaps Pixel Data, so that is done here."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    copy = Dataset()
    copy.update(dataset)
    if syntax == ExplicitVRBigEndian:
        copy.add_new("PixelData", "OW", np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes())
    pydicom.filewriter.write_dataset(buffer, copy)
    content = buffer.getvalue()
    return part10(syntax, deflated(content) if syntax == DeflatedExplicitVRLittleEndian else content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dataset=data_sets(), pixels=st.lists(st.integers(0, 2**16 - 1), min_size=6, max_size=6))
def test_any_data_set_reads_the_same_in_all_four_encodings(tmp_path: Path, dataset: Dataset, pixels: list[int]) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, "1.2.3")
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 2, 3, 16
    dataset.add_new("PixelData", "OW", np.array(pixels, "<u2").tobytes())
    readings = []
    for syntax in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ):
        path = tmp_path / "one.dcm"
        path.write_bytes(encoded_as(dataset, syntax))
        readings.append(read(path))
        assert readings[-1].transfer_syntax_uid == syntax
    assert all(same(readings[0], other) for other in readings[1:])


@pytest.mark.parametrize(
    ("little", "big"),
    [
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_expb.dcm"),
        ("liver_1frame.dcm", "liver_expb_1frame.dcm"),
        ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"),
    ],
)
def test_real_files_of_both_byte_orders_hold_the_same(little: str, big: str) -> None:
    one, two = read(PYDICOM_FILES / little), read(PYDICOM_FILES / big)
    assert one.header["Rows"] == two.header["Rows"]
    assert one.pixel_sha256 == two.pixel_sha256
    assert {k: v for k, v in one.header.items() if k in two.header} == {
        k: v for k, v in two.header.items() if k in one.header
    }


def test_a_big_endian_file_without_meta_information_is_recognised() -> None:
    reading = read(PYDICOM_FILES / "ExplVR_BigEndNoMeta.dcm")
    assert reading.transfer_syntax_uid == ExplicitVRBigEndian
    dataset = pydicom.dcmread(PYDICOM_FILES / "ExplVR_BigEndNoMeta.dcm", force=True)
    assert reading.header["Modality"] == dataset.Modality
    assert reading.header["Manufacturer"] == dataset.Manufacturer


@pytest.mark.parametrize("options", [["+tb"], ["+td"]], ids=" ".join)
def test_a_compressed_copy_of_another_encoding_is_the_same_object(
    tmp_path: Path, slice_path: Path, options: list[str]
) -> None:
    if shutil.which("dcmconv") is None:
        pytest.skip("dcmconv (DCMTK) is not installed")
    subprocess.run(["dcmconv", *options, slice_path, tmp_path / "other.dcm"], check=True, timeout=20)
    compressed = pydicom.dcmread(slice_path)
    compressed.compress(JPEGLSLossless, generate_instance_uid=False)
    compressed.save_as(tmp_path / "compressed.dcm")
    assert compare(tmp_path / "other.dcm", tmp_path / "compressed.dcm").verdict == DUPLICATE
    compressed.decompress(generate_instance_uid=False)
    compressed.PixelData = compressed.PixelData[:-2] + b"\x01\x07"
    compressed.compress(JPEGLSLossless, generate_instance_uid=False)
    compressed.save_as(tmp_path / "changed.dcm")
    assert compare(tmp_path / "other.dcm", tmp_path / "changed.dcm").verdict == CONFLICTING


# Byte order of single values


def big(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Big Endian."""
    head = pack(">HH", tag >> 16, tag & 0xFFFF) + vr
    long = vr in {b"OB", b"OW", b"SQ", b"UN"}
    return head + (b"\0\0" + pack(">I", len(value)) if long else pack(">H", len(value))) + value


@pytest.mark.parametrize(
    ("vr", "sent", "kept"),
    [
        (b"US", b"\x01\x02", b"\x02\x01"),
        (b"US", b"\x01\x02\x03", b"\x01\x02\x03"),  # no whole number of words: left as it is
        (b"AT", b"\x00\x54\x13\x00", b"\x54\x00\x00\x13"),
        (b"UL", b"\x01\x02\x03\x04", b"\x04\x03\x02\x01"),
        (b"FD", bytes(range(8)), bytes(reversed(range(8)))),
        (b"OB", b"\x01\x02", b"\x01\x02"),
        (b"OW", b"\x01\x02\x03\x04", b"\x02\x01\x04\x03"),
        (b"LO", b"AB", b"AB"),
        (b"UN", b"\x01\x02", b"\x01\x02"),  # little endian whatever the transfer syntax, PS3.5 6.2.2
    ],
)
def test_values_are_given_in_little_endian(vr: bytes, sent: bytes, kept: bytes) -> None:
    encoded = parse(part10(ExplicitVRBigEndian, big(0x00091001, vr, sent)), Limits())
    assert value_of(encoded, 0x00091001) == kept


def test_a_sequence_of_unknown_vr_in_a_big_endian_file_is_implicit_little_endian() -> None:
    inside = b"\x10\x00\x20\x00\x02\x00\x00\x00AB" + b"\x28\x00\x10\x00\x02\x00\x00\x00\x05\x00"
    item = b"\xfe\xff\x00\xe0" + pack("<I", len(inside)) + inside
    encoded = parse(part10(ExplicitVRBigEndian, big(0x00091001, b"UN", item)), Limits())
    (elements,) = encoded.elements[0x00091001].items or ()
    assert encoded.value(elements[0x00280010]) == b"\x05\x00"


# Declared and found


def test_a_byte_order_that_lies_is_refused() -> None:
    little = b"\x08\x00\x60\x00CS\x02\x00PT"
    assert refusal(part10(ExplicitVRBigEndian, little)) == "transfer-syntax"
    assert refusal(part10(ExplicitVRLittleEndian, big(0x00080060, b"CS", b"PT"))) == "transfer-syntax"
    assert refusal(part10(ImplicitVRLittleEndian, big(0x00080060, b"CS", b"PT"))) == "transfer-syntax"
    assert refusal(part10(DeflatedExplicitVRLittleEndian, little)) in {"structure", "truncated"}


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.205", "1.2.3", "1.2.840.10008.1.1"])
def test_other_transfer_syntaxes_are_refused(syntax: str) -> None:
    assert refusal(part10(syntax, b"\x08\x00\x60\x00CS\x02\x00PT")) == "transfer-syntax"


def test_big_endian_and_deflated_are_read_but_not_offered() -> None:
    assert not {ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, GE} & {*offer.TRANSFER_SYNTAXES}


# GE: implicit little endian, pixels big endian


def ge_file(slice_path: Path, path: Path, **changes: object) -> Path:
    dataset = pydicom.dcmread(slice_path)
    dataset.RedPaletteColorLookupTableData = b"\x01\x02\x03\x04"
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.TransferSyntaxUID = GE
    with path.open("wb") as target:
        pydicom.filewriter.dcmwrite(target, dataset, implicit_vr=True, little_endian=True)
    return path


def test_ges_private_transfer_syntax_swaps_nothing_but_pixels(tmp_path: Path, slice_path: Path) -> None:
    path = ge_file(slice_path, tmp_path / "ge.dcm")
    ours, plain = read(path), read(slice_path)
    assert ours.transfer_syntax_uid == GE
    assert ours.pixel_sha256 == plain.pixel_sha256
    assert ours.header == plain.header
    if shutil.which("dcmconv") is None:
        pytest.skip("dcmconv (DCMTK) is not installed")
    subprocess.run(["dcmconv", "+te", path, tmp_path / "dcmtk.dcm"], check=True, timeout=20)
    assert same(read(tmp_path / "dcmtk.dcm"), ours)


def test_ges_private_transfer_syntax_with_other_pixels_is_refused(tmp_path: Path, slice_path: Path) -> None:
    path = ge_file(slice_path, tmp_path / "ge.dcm", BitsAllocated=8, Columns=16)
    assert refusal(path.read_bytes()) == "transfer-syntax"


# Deflated


def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    """512 MiB of zeros in half a megabyte, in a process of its own so that its peak is its own."""
    pixels = 512 * 2**20
    path = tmp_path / "bomb.dcm"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = packer.compress(b"\xe0\x7f\x10\x00OW\x00\x00" + pack("<I", pixels))
    content += b"".join(packer.compress(bytes(2**20)) for _ in range(512)) + packer.flush()
    path.write_bytes(part10(DeflatedExplicitVRLittleEndian, content))
    assert path.stat().st_size < 600_000
    code = """
import resource, sys, time
from pathlib import Path
from dicom_io import headers
from dicom_io.errors import UnreadableObject
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    headers.read(Path(sys.argv[1]))
except UnreadableObject as error:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(error.code, (peak - before) // 1024, time.perf_counter() - started)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    verdict, megabytes, seconds = done.stdout.split()
    assert verdict == "too-large"
    assert int(megabytes) < 100
    assert float(seconds) < 0.5


def test_an_empty_image_is_no_bomb(tmp_path: Path, slice_path: Path) -> None:
    """512 × 512 zeros deflate by a factor of several hundred."""
    dataset = pydicom.dcmread(slice_path)
    dataset.Rows = dataset.Columns = 512
    dataset.PixelData = bytes(512 * 512 * 2)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "empty.dcm")
    assert (tmp_path / "empty.dcm").stat().st_size < 3000
    assert read(tmp_path / "empty.dcm").header["Rows"] == 512


def test_a_deflated_data_set_must_end(slice_path: Path) -> None:
    content = slice_path.read_bytes()
    at = parse(content, Limits()).elements[0x00080005].start - 8
    whole = deflated(content[at:])
    assert parse(part10(DeflatedExplicitVRLittleEndian, whole + b"\0"), Limits()).elements, "padded to even length"
    for cut in (1, 2, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        assert refusal(part10(DeflatedExplicitVRLittleEndian, whole[:-cut])) == "truncated"
    assert refusal(part10(DeflatedExplicitVRLittleEndian, b"\xff" * 50)) == "structure"
    zlib_wrapped = zlib.compress(content[at:])
    assert refusal(part10(DeflatedExplicitVRLittleEndian, zlib_wrapped)) in {"structure", "truncated"}


def test_the_size_of_a_file_limits_what_it_inflates_to(slice_path: Path) -> None:
    content = slice_path.read_bytes()
    at = parse(content, Limits()).elements[0x00080005].start - 8
    file = part10(DeflatedExplicitVRLittleEndian, deflated(content[at:]))
    inflated = len(content) - at
    assert refusal(file, Limits(file_bytes=inflated - 1)) == "too-large"
    assert parse(file, Limits(file_bytes=inflated)).elements
    assert refusal(file, Limits(inflated_bytes=0, inflation=1)) == "too-large"
    assert parse(file, Limits(inflated_bytes=0, inflation=64)).elements


# As many code streams as frames


@pytest.mark.parametrize(
    ("syntax", "frames", "fragments", "offsets", "is_read"),
    [
        (JPEGLSLossless, 1, 0, 0, False),
        (JPEGLSLossless, 1, 3, 0, True),
        (JPEGLSLossless, 3, 2, 0, False),
        (JPEGLSLossless, 3, 3, 3, True),
        (JPEGLSLossless, 3, 6, 3, True),
        (JPEGLSLossless, 3, 3, 2, False),
        (RLELossless, 3, 4, 0, False),  # a frame of RLE is one fragment
        (RLELossless, 3, 3, 0, True),
        (MPEG4HP41, 3, 1, 0, True),  # a video is one stream
    ],
)
def test_code_streams_are_counted(
    tmp_path: Path, slice_path: Path, syntax: UID, frames: int, fragments: int, offsets: int, is_read: bool
) -> None:
    dataset = pydicom.dcmread(slice_path)
    dataset.NumberOfFrames = frames
    items = [bytes(4 * offsets), *[b"stream"] * fragments]
    content = b"".join(b"\xfe\xff\x00\xe0" + pack("<I", len(item)) + item for item in items)
    dataset.add_new("PixelData", "OB", content)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "frames.dcm")
    if is_read:
        assert read(tmp_path / "frames.dcm").pixel_sha256
    else:
        with pytest.raises(UnreadableObject) as caught:
            read(tmp_path / "frames.dcm")
        assert caught.value.code == "pixel-length"
