"""A lossless JPEG encoder (ITU-T T.81 annex H) for tests: plain, and with what real encoders do and others avoid."""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack
from typing import Any

from numpy.typing import NDArray

Samples = list[list[int]]


def encode(
    pixels: NDArray[Any],
    precision: int,
    predictor: int = 1,
    *,
    wrapped: bool = False,
    shift: int = 0,
    rows_each: int | None = None,
) -> bytes:
    """The code stream (SOF3) of unsigned (rows, columns), one Huffman code of five bits for each category.

    wrapped : differences are taken the long way round, modulo 2**precision, as some ultrasound scanners do
    shift : point transform, the low bits that are lost
    rows_each : rows of a restart interval, None without
    """
    rows, columns = pixels.shape
    pixels = pixels.astype(int) >> shift
    middle = 1 << precision - shift - 1
    intervals = []
    for first in range(0, rows, rows_each or rows):
        samples: Samples = pixels[first : first + (rows_each or rows)].tolist()
        intervals.append(
            _packed(
                _difference(value - _prediction(samples, y, x, predictor, middle), precision, wrapped)
                for y, row in enumerate(samples)
                for x, value in enumerate(row)
            )
        )
    entropy = intervals[0] + b"".join(
        bytes([0xFF, 0xD0 + number % 8]) + interval for number, interval in enumerate(intervals[1:])
    )
    frame = _segment(0xC3, pack(">BHHB3B", precision, rows, columns, 1, 1, 0x11, 0))
    table = _segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *bytes(11), *range(17)]))
    restart = _segment(0xDD, pack(">H", rows_each * columns)) if rows_each else b""
    scan = _segment(0xDA, bytes([1, 1, 0, predictor, 0, shift]))
    return b"\xff\xd8" + frame + table + restart + scan + entropy + b"\xff\xd9"


def _packed(differences: Iterable[int]) -> bytes:
    """Codes in whole bytes, the last one filled up with ones, FF stuffed (F.1.2.3)."""
    bits = "".join(map(_coded, differences))
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def _prediction(samples: Samples, y: int, x: int, predictor: int, middle: int) -> int:
    """Table H.1; the first row of an interval looks left, the first column up."""
    if x == 0:
        return samples[y - 1][0] if y else middle
    if y == 0:
        return samples[0][x - 1]
    left, above, corner = samples[y][x - 1], samples[y - 1][x], samples[y - 1][x - 1]
    return {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor]


def _difference(difference: int, precision: int, wrapped: bool) -> int:
    """Between -32767 and 32768, modulo 2**16 (H.1.2.1)."""
    if wrapped:
        difference -= (1 << precision) * (1 if difference > 0 else -1)
    return (difference + 32767) % 65536 - 32767


def _coded(difference: int) -> str:
    """Category and, but for category 16, the low bits of the difference (H.1.2.2, table H.2)."""
    size = abs(difference).bit_length()
    low = difference if difference > 0 else difference + (1 << size) - 1
    return f"{size:05b}" + (f"{low:0{size}b}" if 0 < size < 16 else "")


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + pack(">H", len(content) + 2) + content
