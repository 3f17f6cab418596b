"""What a compressed frame says about itself, read from its first marker segments without decoding anything.

ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000, and T.814 High-Throughput with it).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

PADDING = b"\0\xff"
"""What writers put after a stream of odd length: NUL by the Standard, FF too."""
START_OF_SCAN, JPEG_LS_FRAME = 0xDA, 0xF7
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {JPEG_LS_FRAME}
"""Second bytes of the markers that begin a frame; C4, C8 and CC are tables and an extension."""
LOSSLESS_FRAME = 0xC3
END_OF_IMAGE = b"\xff\xd9"
"""Where it is missing, CharLS may read on for ever."""
CODESTREAM_AND_SIZE = b"\xff\x4f\xff\x51"
"""Start of codestream and its first marker segment; boxes of a JP2 file may stand before them."""
CODING_STYLE, START_OF_TILE = 0xFF52, 0xFF90
REVERSIBLE_TRANSFORM = 1


@dataclass(frozen=True, slots=True)
class CodeStream:
    """Image and coding parameters of one frame.

    precision : bits of a sample
    signed : whether samples are signed; JPEG and JPEG-LS cannot say, so never
    lossless : reconstruction is exact as far as the stream tells (a truncated JPEG 2000 stream need not)
    predictor : selection value of lossless JPEG, 0 elsewhere
    precision_at : where the byte with the precision of a JPEG or JPEG-LS frame stands
    """

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool
    lossless: bool
    predictor: int = 0
    precision_at: int = 0


class Segment(NamedTuple):
    """One marker segment of a JPEG stream, whose content is `stream[start:end]`."""

    marker: int
    start: int
    end: int


def describe(stream: bytes) -> CodeStream | None:
    """The parameters of a JPEG, JPEG-LS or JPEG 2000 code stream; None where it is none of them or broken off."""
    try:
        if stream[:3] == b"\xff\xd8\xff":
            return _jpeg(stream)
        start = stream.find(CODESTREAM_AND_SIZE)
        return _jpeg_2000(stream, start) if start >= 0 else None
    except struct.error:
        return None


def jpeg_segments(stream: bytes) -> Iterator[Segment]:
    """The marker segments of a JPEG or JPEG-LS stream up to its first scan; struct.error where it is broken off."""
    at = 2
    while stream[at : at + 1] == b"\xff":
        (marker,) = struct.unpack_from("B", stream, at + 1)
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
        yield Segment(marker, at + 4, end)
        if marker == START_OF_SCAN:
            return
        at = end


def _jpeg(stream: bytes) -> CodeStream | None:
    frame = scan = None
    for segment in jpeg_segments(stream):
        if segment.marker in FRAMES:
            frame = segment
        scan = segment
    if frame is None or scan is None or scan.marker != START_OF_SCAN or stream.rstrip(PADDING)[-2:] != END_OF_IMAGE:
        return None
    precision, rows, columns, samples = struct.unpack_from(">BHHB", stream, frame.start)
    (components,) = struct.unpack_from("B", stream, scan.start)
    # Predictor and point transform of lossless JPEG stand where JPEG-LS has its NEAR and its point transform.
    first, _, shift = struct.unpack_from("BBB", stream, scan.start + 1 + 2 * components)
    near = first if frame.marker == JPEG_LS_FRAME else 0
    return CodeStream(
        rows,
        columns,
        samples,
        precision,
        signed=False,
        lossless=frame.marker in {LOSSLESS_FRAME, JPEG_LS_FRAME} and near == 0 and shift & 0x0F == 0,
        predictor=first if frame.marker == LOSSLESS_FRAME else 0,
        precision_at=frame.start,
    )


def _jpeg_2000(stream: bytes, start: int) -> CodeStream | None:
    x_end, y_end, x_begin, y_begin = struct.unpack_from(">4I", stream, start + 8)
    samples, depth = struct.unpack_from(">HB", stream, start + 40)
    transform, at = None, start + 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == START_OF_TILE:
            break
        if marker <= 0xFF00:
            return None
        if marker == CODING_STYLE:
            (transform,) = struct.unpack_from("B", stream, at + 13)
        at += 2 + length
    if transform is None or not _has_all_tiles(stream, at):
        return None
    return CodeStream(
        rows=y_end - y_begin,
        columns=x_end - x_begin,
        samples=samples,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossless=transform == REVERSIBLE_TRANSFORM,
    )


def _has_all_tiles(stream: bytes, at: int) -> bool:
    """Whether every tile-part is as long as it says, up to the end of the codestream (T.800 A.4.2)."""
    while stream[at : at + 2] != END_OF_IMAGE:
        marker, _, _, length = struct.unpack_from(">HHHI", stream, at)
        if marker != START_OF_TILE:
            return False
        if length == 0:  # the last one, up to the end
            return stream.rstrip(PADDING)[-2:] == END_OF_IMAGE
        if length < 14:
            return False
        at += length
    return True
