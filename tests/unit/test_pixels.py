"""Pixel values by every lossless transfer syntax: bit for bit what an independent encoder was given, or a refusal."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io import code_streams, headers
from dicom_io.elements import GE_BIG_ENDIAN_PIXELS
from dicom_io.errors import PixelsRefused
from dicom_io.pixels import DECODERS, read_dataset, stored_frame, stored_values
from tests import jpeg_lossless, make

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
ROWS, COLUMNS = 33, 40
SIGNED_HTJ2K = (
    "|4;u>04YEK0000G0000800000000000000G00008000000000000EBy0sl|{2mk^A000U9QUDA90ssL30R#j<0smY82Ox-uh=~7W",
    "02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000>i_}&lfVEkNdI5?ZVk~6LLVZ>gv>1Ox;tFOQ}xO0Wp-U@##*i4p{<I}oSgMR",
    "_PMoGnGn0VO*1M2vFe5L+c$1moeW1&(a;9QIzZW+0Kfn)wg3Tl5C99I|3Ch}{vZE;{J;5s;O@D*|4081{=fV`{~!MUe?NE6-2is^",
    "lanM5tEdWm0RBJ!U;l6aAOC;<bN_k&bN^@mKZyQ+AEN(X57CF{L*)N^A@=`q-Sr{%0GY>3l>k4ar~!YS0RMmd|9Jm%|8M_K|6l(<",
    "|9}5~|9=3XM=F9=pew8jd;tI1",
)
Pixels = NDArray[Any]


@pytest.fixture(scope="module")
def slice_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=(3, 8, 8)).pet[1]


def tool(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def image(slice_path: Path, pixels: Pixels, bits: int) -> Dataset:
    """The slice with other pixels: (rows, columns) or (frames, rows, columns) of `bits` bits."""
    dataset = pydicom.dcmread(slice_path)
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return dataset


def with_streams(dataset: Dataset, syntax: UID, *streams: bytes) -> Dataset:
    """The data set with its pixels replaced by code streams."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(list(streams))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def refusal(dataset: Dataset) -> str:
    with pytest.raises(PixelsRefused) as caught:
        stored_values(dataset)
    return caught.value.code


def stacks() -> list[Any]:
    """(frames, rows, columns): smooth, random, and jumping over the whole range, where predictors overflow."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    made = []
    for bits, container, signed in ((b, 1 if b == 8 else 2, s) for b in (8, 10, 12, 15, 16) for s in (False, True)):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        frames = [
            low + (y * 3 + x) % (high - low),
            random.integers(low, high, (ROWS, COLUMNS), endpoint=True),
            random.choice([low, high, low + 1, high - 1, (low + high) // 2], (ROWS, COLUMNS)),
            np.where((y + x) % 2, low, high),
            np.where((y + x) % 2, low, low + (1 << bits - 1)),
            np.zeros((ROWS, COLUMNS), int),
        ]
        kind = f"{'i' if signed else 'u'}{container}"
        made.append(pytest.param(np.stack(frames).astype(kind), bits, id=f"{kind}-{bits}"))
    return made


# Encoded elsewhere, decoded here


@pytest.mark.parametrize(
    ("program", "options", "syntax"),
    [
        ("dcmcjpeg", ["+e1"], JPEGLosslessSV1),
        *(("dcmcjpeg", ["+el", "+sv", str(predictor)], JPEGLossless) for predictor in range(1, 8)),
        ("dcmcjpls", ["+el"], JPEGLSLossless),
        ("dcmcrle", [], RLELossless),
        ("dcmconv", ["+tb"], ExplicitVRBigEndian),
        ("dcmconv", ["+td"], DeflatedExplicitVRLittleEndian),
        ("dcmconv", ["+ti"], ImplicitVRLittleEndian),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_dcmtk_encoded_is_decoded_exactly(
    tmp_path: Path, slice_path: Path, program: str, options: list[str], syntax: UID
) -> None:
    program = tool(program)
    for number, (frames, bits) in enumerate(parameters.values for parameters in stacks()):
        source, target = tmp_path / f"{number}.dcm", tmp_path / f"{number}.out.dcm"
        image(slice_path, frames, bits).save_as(source)
        subprocess.run([program, *options, source, target], check=True, timeout=20, capture_output=True)
        reading = headers.read(target)
        assert reading.transfer_syntax_uid == syntax
        decoded = stored_values(read_dataset(target, syntax))
        assert decoded.dtype.kind == frames.dtype.kind
        assert decoded.dtype.isnative
        assert np.array_equal(decoded, frames), (frames.dtype, bits)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize(("frames", "bits"), stacks())
def test_what_pydicoms_encoders_made_is_decoded_exactly(
    slice_path: Path, syntax: UID, frames: Pixels, bits: int
) -> None:
    dataset = image(slice_path, frames, bits)
    dataset.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(stored_values(dataset), frames)


@pytest.mark.parametrize(
    ("order", "syntax"), [("LRCP", HTJ2KLossless), ("RPCL", HTJ2KLossless), ("RPCL", HTJ2KLosslessRPCL)]
)
def test_what_openjph_encoded_is_decoded_exactly(tmp_path: Path, slice_path: Path, order: str, syntax: UID) -> None:
    program = tool("ojph_compress")
    raw, stream = tmp_path / "image.yuv", tmp_path / "image.j2c"
    for frames, bits in (parameters.values for parameters in stacks()):
        if frames.dtype.kind == "i":
            continue  # ojph_compress reads every number of a raw file as unsigned
        size = ["-dims", f"{{{COLUMNS},{ROWS}}}", "-num_comps", "1", "-downsamp", "{1,1}", "-bit_depth", str(bits)]
        size += ["-signed", "false"]
        command = [program, "-i", raw, "-o", stream, *size, "-reversible", "true", "-prog_order", order]
        for frame in frames:
            raw.write_bytes(frame.tobytes())
            subprocess.run(command, check=True, timeout=20, capture_output=True)
            dataset = with_streams(image(slice_path, frame, bits), syntax, stream.read_bytes())
            assert np.array_equal(stored_values(dataset), frame), (frame.dtype, bits)


def test_signed_high_throughput_jpeg_2000(slice_path: Path) -> None:
    """Encoded once by OpenJPH 0.26.3 through imagecodecs: numbers all over the 16 bits, by a formula."""
    y, x = np.mgrid[:8, :16]
    pixels = ((y * 16 + x) * 7919 % 65536 - 32768).astype(np.int16)
    dataset = with_streams(image(slice_path, pixels, 16), HTJ2KLossless, base64.b85decode("".join(SIGNED_HTJ2K)))
    assert np.array_equal(stored_values(dataset), pixels)


# Lossless JPEG beyond the range of its samples


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_of_any_predictor_and_precision(slice_path: Path, bits: int, predictor: int) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (ROWS, COLUMNS))
    pixels = values.astype(np.uint8 if bits == 8 else np.uint16)
    stream = jpeg_lossless.encode(pixels, bits, predictor)
    dataset = with_streams(image(slice_path, pixels, bits), JPEGLossless, stream)
    assert np.array_equal(stored_values(dataset), pixels)
    for cut in (3, 4, 10, len(stream) // 2):  # entropy-coded data that ends early, and an orderly end of the image
        broken = stream[:-cut] + b"\xff\xd9"
        assert refusal(with_streams(dataset, JPEGLossless, broken)) == "undecodable"


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_differences_that_wrap_around_are_decoded_exactly_or_refused(
    slice_path: Path, bits: int, predictor: int
) -> None:
    """Ultrasound scanners send 128 after 52 as -180: libjpeg alone makes 255 of it and of all that follows."""
    values = np.random.default_rng(bits).integers(0, 1 << bits, (ROWS, COLUMNS))
    pixels = values.astype(np.uint8 if bits == 8 else np.uint16)
    stream = jpeg_lossless.encode(pixels, bits, predictor, wrapped=True)
    dataset = with_streams(image(slice_path, pixels, bits), JPEGLossless, stream)
    if predictor > 4 and bits < 16:
        assert refusal(dataset) == "undecodable"
    else:
        assert np.array_equal(stored_values(dataset), pixels)


def test_dcmtk_agrees_where_differences_wrap_around(tmp_path: Path, slice_path: Path) -> None:
    program = tool("dcmdjpeg")
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
    stream = jpeg_lossless.encode(pixels, 8, wrapped=True)
    with_streams(image(slice_path, pixels, 8), JPEGLosslessSV1, stream).save_as(tmp_path / "in.dcm")
    subprocess.run([program, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True, timeout=20)
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, pixels)


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\0\0\0"])
def test_padding_after_the_end_of_the_image_is_none_of_it(slice_path: Path, padding: bytes) -> None:
    pixels = np.random.default_rng(6).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    stream = jpeg_lossless.encode(pixels, 12) + padding
    assert np.array_equal(stored_values(with_streams(image(slice_path, pixels, 12), JPEGLossless, stream)), pixels)


@pytest.mark.parametrize("predictor", [1, 4, 7])
@pytest.mark.parametrize("rows_each", [1, 2, 33])
def test_lossless_jpeg_with_restart_markers(slice_path: Path, predictor: int, rows_each: int) -> None:
    pixels = np.random.default_rng(4).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    stream = jpeg_lossless.encode(pixels, 12, predictor, rows_each=rows_each)
    dataset = with_streams(image(slice_path, pixels, 12), JPEGLossless, stream)
    assert np.array_equal(stored_values(dataset), pixels)
    assert refusal(with_streams(dataset, JPEGLossless, stream[:-5] + b"\xff\xd9")) == "undecodable"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_stream_that_ends_early_is_refused(slice_path: Path, syntax: UID) -> None:
    """At any byte, with or without an orderly end of the image; without one CharLS would read on for ever."""
    pixels = np.random.default_rng(4).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    dataset = image(slice_path, pixels, 12)
    dataset.compress(syntax, generate_instance_uid=False)
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    for length in (*range(2, 200), *range(200, len(stream) - 2, 17), len(stream) - 3):
        for end in (b"", b"\xff\xd9"):
            # Where an end of the image stands in place of the scan's parameters, these say "near-lossless".
            assert refusal(with_streams(dataset, syntax, stream[:length] + end)) in {"undecodable", "lossy"}, length


def test_a_point_transform_is_a_loss(slice_path: Path) -> None:
    pixels = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    stream = jpeg_lossless.encode(pixels, 12, shift=2)
    assert refusal(with_streams(image(slice_path, pixels, 12), JPEGLossless, stream)) == "lossy"


# Real files


@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_expb.dcm"),
        ("MR_small.dcm", "MR_small_implicit.dcm"),
        ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"),
        ("liver_1frame.dcm", "liver_expb_1frame.dcm"),
    ],
)
def test_real_files_in_several_encodings_hold_the_same_pixels(plain: str, other: str) -> None:
    reference = pydicom.dcmread(PYDICOM_FILES / plain).pixel_array
    dataset = pydicom.dcmread(PYDICOM_FILES / other)
    assert np.array_equal(stored_values(dataset), reference)


# Which bits are the value


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGLossless]
)
def test_bits_above_bits_stored_are_no_part_of_the_value(slice_path: Path, syntax: UID, signed: bool) -> None:
    """Overlays in the four upper bits, compressed with them as 16 bits or sent as they are."""
    random = np.random.default_rng(3)
    low, high = (-2048, 2047) if signed else (0, 4095)
    pixels = random.integers(low, high, (ROWS, COLUMNS), endpoint=True).astype(np.int16 if signed else np.uint16)
    words = (pixels.view(np.uint16) & 0x0FFF) | random.integers(0, 16, pixels.shape).astype(np.uint16) << 12
    dataset = image(slice_path, words, 16)
    if syntax == JPEGLossless:
        with_streams(dataset, syntax, jpeg_lossless.encode(words, 16))
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = words.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(signed)
    assert np.array_equal(stored_values(dataset), pixels)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"HighBit": 15}, "high-bit"),
        ({"HighBit": None}, "high-bit"),
        ({"BitsStored": 0}, "high-bit"),
        ({"BitsStored": 17, "HighBit": 16}, "high-bit"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"PixelRepresentation": None}, "undecodable"),
    ],
)
def test_what_does_not_say_where_its_values_are_is_refused(
    slice_path: Path, changes: dict[str, object], code: str
) -> None:
    dataset = image(slice_path, np.zeros((ROWS, COLUMNS), np.uint16), 12)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    assert refusal(dataset) == code


def test_words_of_32_bits_in_big_endian_are_refused(slice_path: Path) -> None:
    """DCMTK and the Standard swap bytes in words of 16 bits; other writers swap all four bytes."""
    dataset = image(slice_path, np.arange(ROWS * COLUMNS, dtype=np.uint32).reshape(ROWS, COLUMNS), 32)
    assert stored_values(dataset)[0, 1] == 1
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert refusal(dataset) == "byte-order"


def test_ges_big_endian_pixels(tmp_path: Path, slice_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(-3000, 3000, (ROWS, COLUMNS), dtype=np.int16)
    dataset = image(slice_path, pixels, 16)
    dataset.PixelData = pixels.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = UID(GE_BIG_ENDIAN_PIXELS)
    with (tmp_path / "ge.dcm").open("wb") as target:
        pydicom.filewriter.dcmwrite(target, dataset, implicit_vr=True, little_endian=True)
    reading = headers.read(tmp_path / "ge.dcm")
    read = read_dataset(tmp_path / "ge.dcm", reading.transfer_syntax_uid)
    assert np.array_equal(stored_values(read), pixels)
    assert read.PatientID == dataset.PatientID


# Frames


@pytest.mark.parametrize("table", ["basic", "none", "extended", "split"])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless, ExplicitVRLittleEndian])
def test_one_frame_is_decoded_without_the_others(slice_path: Path, syntax: UID, table: str) -> None:
    pixels = np.random.default_rng(5).integers(0, 4096, (4, ROWS, COLUMNS), dtype=np.uint16)
    dataset = image(slice_path, pixels, 12)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
        streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=4))
        if table == "extended":
            dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
                streams
            )
        elif table == "split":
            if syntax == RLELossless:
                pytest.skip("a frame of RLE is one fragment")
            dataset.PixelData = encapsulate(streams, fragments_per_frame=3)
        else:
            dataset.PixelData = encapsulate(streams, has_bot=table == "basic")
        dataset["PixelData"].VR = "OB"
    for index in (2, 0, 3):
        assert np.array_equal(stored_frame(dataset, index), pixels[index])
    assert np.array_equal(stored_values(dataset), pixels)
    with pytest.raises(PixelsRefused) as caught:
        stored_frame(dataset, 4)
    assert caught.value.code == "undecodable"


def test_samples_of_colour_come_last(slice_path: Path) -> None:
    dataset = pydicom.dcmread(PYDICOM_FILES / "SC_rgb_rle_2frame.dcm")
    assert stored_values(dataset).shape == (2, 100, 100, 3)
    assert stored_frame(dataset, 1).shape == (100, 100, 3)


# Lossy, or not what the header says


def eight(slice_path: Path) -> Dataset:
    pixels = np.random.default_rng(2).integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
    return image(slice_path, pixels, 8)


@pytest.mark.parametrize(
    ("compressed_as", "declared", "options"),
    [
        (JPEG2000, JPEG2000Lossless, {"j2k_cr": [4]}),
        (JPEG2000, HTJ2KLossless, {"j2k_cr": [4]}),
        (JPEGLSNearLossless, JPEGLSLossless, {"jls_error": 3}),
    ],
)
def test_a_lossy_stream_in_a_lossless_container_is_refused(
    slice_path: Path, compressed_as: UID, declared: UID, options: dict[str, Any]
) -> None:
    dataset = eight(slice_path)
    dataset.compress(compressed_as, generate_instance_uid=False, **options)
    dataset.LossyImageCompression = "00"
    assert refusal(dataset) == "transfer-syntax"
    dataset.file_meta.TransferSyntaxUID = declared
    assert refusal(dataset) == "lossy"


def test_baseline_jpeg_in_a_lossless_container_is_refused(tmp_path: Path, slice_path: Path) -> None:
    eight(slice_path).save_as(tmp_path / "in.dcm")
    subprocess.run([tool("dcmcjpeg"), "+eb", tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True, timeout=20)
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    dataset.LossyImageCompression = "00"
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    assert refusal(dataset) == "lossy"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLossless])
@pytest.mark.parametrize(
    "change",
    [
        lambda ds: setattr(ds, "Rows", ds.Rows + 1),
        lambda ds: setattr(ds, "Columns", ds.Columns - 1),
        lambda ds: setattr(ds, "SamplesPerPixel", 3),
        lambda ds: (setattr(ds, "BitsAllocated", 8), setattr(ds, "BitsStored", 8), setattr(ds, "HighBit", 7)),
        lambda ds: setattr(ds, "PixelData", encapsulate([b"no code stream at all"])),
        lambda ds: setattr(ds, "PixelData", encapsulate([b"\xff\xd8\xff"])),
        lambda ds: setattr(ds, "PixelData", encapsulate([b"\xff\x4f\xff\x51" + bytes(20)])),
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:-600]),
    ],
)
def test_a_stream_that_is_not_what_the_header_says_is_refused(
    slice_path: Path, syntax: UID, change: Callable[[Dataset], object]
) -> None:
    pixels = np.random.default_rng(2).integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
    dataset = image(slice_path, pixels, 12)
    if syntax == JPEGLossless:
        with_streams(dataset, syntax, jpeg_lossless.encode(pixels, 12))
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    change(dataset)
    assert refusal(dataset) == "undecodable"


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless])
def test_a_sign_that_no_bit_tells_is_refused(slice_path: Path, syntax: UID) -> None:
    """A stream of 12 bits under Bits Stored 16, signed: is 4095 still 4095, or -1?"""
    pixels = np.full((ROWS, COLUMNS), 4095, np.uint16)
    dataset = image(slice_path, pixels, 12)
    if syntax == JPEGLossless:
        with_streams(dataset, syntax, jpeg_lossless.encode(pixels, 12))
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 16, 15
    assert np.array_equal(stored_values(dataset), pixels)
    dataset.PixelRepresentation = 1
    assert refusal(dataset) == "undecodable"


def test_rle_of_80_bytes_holds_no_900_million_pixels(slice_path: Path) -> None:
    dataset = with_streams(eight(slice_path), RLELossless, b"\x01\0\0\0\x40" + bytes(75))
    dataset.Rows = dataset.Columns = 30_000
    started = time.perf_counter()
    assert refusal(dataset) == "undecodable"
    assert time.perf_counter() - started < 0.1


def test_messages_tell_no_value_of_the_header(slice_path: Path) -> None:
    dataset = with_streams(eight(slice_path), JPEGLSLossless, b"\xff\xd8\xff no stream")
    dataset.PatientID = "SECRET"
    with pytest.raises(PixelsRefused) as caught:
        stored_values(dataset)
    assert "SECRET" not in str(caught.value)


# What a code stream says of itself


def test_a_jpeg_2000_stream_in_a_file_format_is_found() -> None:
    stream = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"".join(
        number.to_bytes(4, "big") for number in (50, 30, 10, 5, 50, 30, 0, 0)
    )
    stream += b"\x00\x01\x8b\x01\x01"
    style, tile = (
        b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00",
        b"\xff\x90\x00\x0a\0\0\0\0\0\x10\0\x01\xff\x93AB",
    )
    reversible, irreversible = (stream + style + transform + tile + b"\xff\xd9" for transform in (b"\x01", b"\x00"))
    box = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\0\0\0\0jp2c"
    assert code_streams.describe(box + reversible) == code_streams.CodeStream(25, 40, 1, 12, signed=True, lossless=True)
    described = code_streams.describe(irreversible)
    assert described is not None
    assert not described.lossless
    assert all(code_streams.describe(reversible[:cut]) is None for cut in range(len(reversible)))


def test_every_lossless_syntax_has_one_decoder_that_is_there() -> None:
    for syntax, name in DECODERS.items():
        plugins = pydicom.pixels.decoders.base.get_decoder(syntax).available_plugins
        assert name in plugins or name == "libjpeg", syntax.name
