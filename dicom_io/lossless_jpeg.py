"""Lossless JPEG (ITU-T T.81 annex H) by libjpeg, made to wrap where it would clamp, and its result verified.

libjpeg says nothing when the entropy-coded data ends too early, it invents the rest; and it clamps what leaves the
range of the samples where the arithmetic is modulo 2¹⁶ (pylibjpeg-libjpeg issue 90). Both would be wrong numbers
without a word.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from libjpeg.utils import decode as decode_jpeg
from numpy.typing import NDArray

from dicom_io.code_streams import CodeStream, jpeg_segments

HUFFMAN_TABLES, RESTART_INTERVAL, SCAN = 0xC4, 0xDD, 0xDA
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
AVERAGING = range(5, 8)
"""Predictors that divide, and so do not commute with wrapping (table H.1)."""


def decode(stream: bytes, described: CodeStream) -> NDArray[np.uint16]:
    """Samples of one frame, uint16 (rows, columns) or (rows, columns, samples); ValueError where they are not certain.

    At 16 bits libjpeg wraps as T.81 H.1.2.1 asks for, so every stream is decoded as one of 16 bits. Predictions are
    relative to the first sample, whose own prediction is half the range: all samples come out higher by the difference
    of these halves, modulo 2¹⁶. An encoder that relies on wrapping at a smaller range is right in the low bits.

    Only images of one sample per pixel are verified.
    """
    widened = bytearray(stream)
    widened[described.precision_at] = 16
    wide: NDArray[np.uint16] = decode_jpeg(bytes(widened))
    if described.samples == 1:
        _check_length(stream, wide, described.predictor)
    shifted = wide - np.uint16((1 << 15) - (1 << described.precision - 1))
    values = shifted & np.uint16((1 << described.precision) - 1)
    if described.predictor in AVERAGING and not np.array_equal(values, shifted):
        raise ValueError("samples leave their range, which this predictor does not define")
    return values


def _check_length(stream: bytes, wide: NDArray[np.uint16], predictor: int) -> None:
    """Count the bits these samples take in the stream's own Huffman code: more than were sent means invented ones."""
    segments = {segment.marker: segment for segment in jpeg_segments(stream)}
    interval = segments.get(RESTART_INTERVAL)
    rows, columns = wide.shape
    pixels = int.from_bytes(stream[interval.start : interval.end], "big") if interval else 0
    if pixels % columns:
        raise ValueError("restart interval: expected whole rows")
    rows_each = pixels // columns or rows
    scan = segments[SCAN]
    lengths = _code_lengths(stream, stream[scan.start + 2] >> 4)
    bits = lengths[_categories(wide, predictor, rows_each)].sum(axis=1)
    needed = -(-np.add.reduceat(bits, range(0, rows, rows_each)) // 8)
    sent = [len(part) - part.count(b"\xff\x00") for part in RESTART.split(_entropy_coded(stream[scan.end :]))]
    if (bits < 0).any() or len(sent) != len(needed) or (needed > sent).any():
        raise ValueError("entropy-coded data ends before the last sample")


def _entropy_coded(data: bytes) -> bytes:
    """What comes before the next marker; FF 00 is a byte of data and a restart marker belongs to it."""
    end = MARKER.search(data)
    return data[: end.start()] if end else data


def _code_lengths(stream: bytes, table: int) -> NDArray[np.int64]:
    """Bits of code and difference for each of the categories 0 to 16 (B.2.4.2, H.1.2.2); hugely negative if unused."""
    lengths = np.full(17, np.iinfo(np.int32).min, dtype=np.int64)
    for segment in jpeg_segments(stream):
        at = segment.start if segment.marker == HUFFMAN_TABLES else segment.end
        while at < segment.end:
            counts = stream[at + 1 : at + 17]
            categories = stream[at + 17 : at + 17 + sum(counts)]
            if stream[at] == table:
                code_bits = np.repeat(np.arange(1, 17), list(counts))
                used = np.frombuffer(categories, np.uint8)
                lengths[used] = code_bits + np.where(used < 16, used, 0)
            at += 17 + len(categories)
    return lengths


def _categories(wide: NDArray[np.uint16], predictor: int, rows_each: int) -> NDArray[Any]:
    """Category of every difference between sample and prediction, int (rows, columns) (H.1.2.1, tables H.1, H.2)."""
    samples = wide.astype(np.int32)
    prediction = np.empty_like(samples)
    left, above, corner = samples[1:, :-1], samples[:-1, 1:], samples[:-1, :-1]
    prediction[1:, 1:] = (
        left,
        above,
        corner,
        left + above - corner,
        left + ((above - corner) >> 1),
        above + ((left - corner) >> 1),
        (left + above) >> 1,
    )[predictor - 1]
    prediction[1:, 0] = samples[:-1, 0]
    prediction[::rows_each, 1:] = samples[::rows_each, :-1]
    prediction[::rows_each, 0] = 1 << 15
    differences = (samples - prediction).astype(np.int16).astype(np.int32)
    return np.frexp(np.abs(differences).astype(np.float64))[1]
