"""Stored pixel values of one instance, decompressed where needed, as integers before any rescaling."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.errors import BytesLengthException
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io import code_streams, lossless_jpeg
from dicom_io.code_streams import CodeStream
from dicom_io.elements import GE_BIG_ENDIAN_PIXELS
from dicom_io.errors import PixelsRefused

NATIVE_SYNTAXES = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
LIBJPEG = "libjpeg"
DECODERS = {
    JPEGLossless: LIBJPEG,
    JPEGLosslessSV1: LIBJPEG,
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    RLELossless: "pydicom",
}
"""Lossless transfer syntaxes and the one decoder of each: no other steps in where it fails, with other habits."""
RLE_RATIO_MAX = 64
"""Two bytes of RLE stand for at most 128 (PS3.5 annex G.3.1)."""


def read_dataset(source: Path | BinaryIO, transfer_syntax_uid: str) -> Dataset:
    """The data set of a file that `headers.read` accepted; one without File Meta Information gets what was found.

    Big endian pixels of GE's private transfer syntax are given in little endian, as Implicit VR Little Endian.

    Raises
    ------
    PixelsRefused
        undecodable: what was accepted there, pydicom cannot read.
    """
    opened = source.open("rb") if isinstance(source, Path) else nullcontext(source)
    with opened as file, _refused_when_broken():
        dataset = dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        if transfer_syntax_uid == GE_BIG_ENDIAN_PIXELS:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            if "PixelData" in dataset:
                dataset.PixelData = np.frombuffer(dataset.PixelData, ">u2").astype("<u2").tobytes()
    return dataset


def stored_values(dataset: Dataset) -> NDArray[Any]:
    """Pixel values as stored, integer, (rows, columns) or with frames before and samples behind.

    Raises
    ------
    PixelsRefused
        As `stored_frame`.
    """
    count = frame_count(dataset)
    if count == 1:
        return stored_frame(dataset, 0)
    return np.stack([stored_frame(dataset, index) for index in range(count)])


def frame_count(dataset: Dataset) -> int:
    """Number of Frames (0028,0008), 1 where it is absent or empty."""
    with _refused_when_broken():
        return int(dataset.get("NumberOfFrames") or 1)


def stored_frame(dataset: Dataset, index: int) -> NDArray[Any]:
    """One frame as stored, integer in native byte order, (rows, columns) or (rows, columns, samples).

    index : counted from 0

    Bits above Bits Stored are no part of a value, whatever is in them (PS3.5 8.1.1).

    Raises
    ------
    PixelsRefused
        transfer-syntax (lossy or unknown compression), lossy (compressed with loss once, or now in a lossless
        container), no-pixels, high-bit, byte-order, undecodable, too-large (a decoder ran out of memory).
    """
    with _refused_when_broken():
        syntax = _checked_syntax(dataset)
        bits = _checked_bits(dataset, syntax)
        frame = _native(dataset, index) if syntax in NATIVE_SYNTAXES else _decompressed(dataset, syntax, index)
        signed = frame.view(f"{'i' if dataset.PixelRepresentation else 'u'}{frame.itemsize}")
    spare = 8 * frame.itemsize - bits
    return signed << spare >> spare if spare > 0 else signed


@contextmanager
def _refused_when_broken() -> Iterator[None]:
    """A decoder's errors as one of ours. Their message may quote header values, so only their kind is told."""
    try:
        yield
    except MemoryError as error:
        raise PixelsRefused(
            "Pixel Data (7FE0,0010): decoding needs more memory than allowed", code="too-large"
        ) from error
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError,
        struct.error, zlib.error, BytesLengthException,
    ) as error:  # fmt: skip
        raise _undecodable(f"cannot be decoded ({type(error).__name__})") from error


def _undecodable(why: str) -> PixelsRefused:
    return PixelsRefused(f"Pixel Data (7FE0,0010): {why}", code="undecodable")


def _checked_syntax(dataset: Dataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in NATIVE_SYNTAXES and syntax not in DECODERS:
        message = "Transfer Syntax UID (0002,0010): expected uncompressed or lossless pixels"
        raise PixelsRefused(message, code="transfer-syntax")
    if dataset.get("LossyImageCompression") == "01":
        message = "Lossy Image Compression (0028,2110): expected 00, the values were changed by a lossy compression"
        raise PixelsRefused(message, code="lossy")
    if "PixelData" not in dataset:
        raise PixelsRefused("Pixel Data (7FE0,0010): expected integer pixels, got none", code="no-pixels")
    return UID(syntax)


def _checked_bits(dataset: Dataset, syntax: UID) -> int:
    """Bits Stored, once it is clear where in a word they stand."""
    allocated, stored, high = (dataset.get(keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit"))
    if not (isinstance(allocated, int) and isinstance(stored, int) and 0 < stored <= allocated and high == stored - 1):
        message = "Bits Stored, High Bit: expected High Bit = Bits Stored - 1 within Bits Allocated (PS3.5 8.1.1)"
        raise PixelsRefused(message, code="high-bit")
    words_of_16_bits = allocated == 16 and dataset["PixelData"].VR == "OW"
    if syntax == ExplicitVRBigEndian and allocated > 8 and not words_of_16_bits:
        # The Standard swaps the bytes of 16-bit words and leaves the words in order (DCMTK does); others swap them too.
        vr = dataset["PixelData"].VR
        message = f"Pixel Data (7FE0,0010): expected OW of 16 bits in big endian, got {vr} of {allocated} bits"
        raise PixelsRefused(message, code="byte-order")
    return stored


def _native(dataset: Dataset, index: int) -> NDArray[Any]:
    frame = np.asarray(pixel_array(dataset, raw=True, index=index))
    return frame.astype(frame.dtype.newbyteorder("="), copy=False)


def _decompressed(dataset: Dataset, syntax: UID, index: int) -> NDArray[Any]:
    options = as_pixel_options(dataset, number_of_frames=1)
    stream = get_frame(
        dataset.PixelData,
        index,
        number_of_frames=frame_count(dataset),
        extended_offsets=options.pop("extended_offsets", None),
    )
    if syntax == RLELossless:
        _check_rle(stream, dataset)
    else:
        described = _checked_stream(stream, dataset)
        if DECODERS[syntax] == LIBJPEG:
            return lossless_jpeg.decode(stream, described)
    frame, _ = get_decoder(syntax).as_array(
        encapsulate([stream]), index=0, raw=True, decoding_plugin=DECODERS[syntax], **options
    )
    return np.asarray(frame)


def _check_rle(stream: bytes, dataset: Dataset) -> None:
    """Refuse a stream that is too short for what it is to hold before memory is spent on that."""
    expected = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * (dataset.BitsAllocated // 8)
    if len(stream) * RLE_RATIO_MAX < expected:
        raise _undecodable(f"expected {expected} bytes of one frame, {len(stream)} bytes of RLE cannot hold them")


def _checked_stream(stream: bytes, dataset: Dataset) -> CodeStream:
    """Header and code stream must describe the same image (PS3.5 8.2), and the stream must be exact."""
    described = code_streams.describe(stream)
    if described is None:
        raise _undecodable("expected a JPEG, JPEG-LS or JPEG 2000 code stream, got something else")
    if not described.lossless:
        raise PixelsRefused("Pixel Data (7FE0,0010): a lossy code stream in a lossless transfer syntax", code="lossy")
    expected = dataset.Rows, dataset.Columns, dataset.get("SamplesPerPixel", 1)
    got = described.rows, described.columns, described.samples
    if got != expected:
        raise _undecodable(f"expected rows, columns, samples {expected}, code stream has {got}")
    if described.precision > dataset.BitsAllocated:
        raise _undecodable(f"expected at most {dataset.BitsAllocated} bits, code stream has {described.precision}")
    if described.precision < dataset.BitsStored and described.signed is not bool(dataset.PixelRepresentation):
        raise _undecodable("code stream of fewer bits than Bits Stored does not tell where the sign is")
    return described
