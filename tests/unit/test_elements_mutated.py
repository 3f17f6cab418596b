"""Small valid files of every encoding, broken at random: a reading or a typed refusal, never anything else."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io import headers
from dicom_io.elements import Limits, parse
from dicom_io.errors import PixelsRefused, UnreadableObject
from dicom_io.pixels import read_dataset, stored_values
from tests import jpeg_lossless, make

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEGLossless,
    JPEG2000Lossless,
]
EXAMPLES = 500
"""For each of the eight encodings."""
Change = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One PET slice, 33 × 35, in each encoding."""
    folder = tmp_path_factory.mktemp("originals")
    source = make.study(folder, pet_shape=(3, 33, 35)).pet[1]
    return {syntax: encoded(source, syntax) for syntax in SYNTAXES}


def encoded(source: Path, syntax: pydicom.uid.UID) -> bytes:
    dataset = pydicom.dcmread(source)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    elif syntax == JPEGLossless:
        dataset.PixelData = pydicom.encaps.encapsulate([jpeg_lossless.encode(dataset.pixel_array, 16)])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.filewriter.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return buffer.getvalue()


def position(place: float, content: bytearray) -> int:
    """A byte after the preamble, which nobody reads."""
    return min(int(132 + place * (len(content) - 132)), len(content) - 1)


def flip(place: float, bit: int) -> Change:
    def change(content: bytearray) -> None:
        content[position(place, content)] ^= 1 << bit

    return change


def overwrite(place: float, value: bytes) -> Change:
    """Lengths, tags and VRs of all sorts, in both byte orders."""

    def change(content: bytearray) -> None:
        at = position(place, content)
        content[at : at + len(value)] = value

    return change


def cut(place: float, size: int) -> Change:
    def change(content: bytearray) -> None:
        at = position(place, content)
        del content[at : at + size]

    return change


def truncate(place: float) -> Change:
    def change(content: bytearray) -> None:
        del content[position(place, content) :]

    return change


def duplicate(place: float, size: int) -> Change:
    def change(content: bytearray) -> None:
        at = position(place, content)
        content[at:at] = content[at : at + size]

    return change


HOSTILE = [
    b"\xff\xff\xff\xff", b"\xf0\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"SQ", b"UN", b"\x01\x00",
    b"OB\0\0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\x00", b"\xe0\x7f\x10\x00",
]  # fmt: skip
PLACES = st.floats(0.0, 1.0, exclude_max=True)
CHANGES = st.one_of(
    st.builds(flip, PLACES, st.integers(0, 7)),
    st.builds(overwrite, PLACES, st.sampled_from(HOSTILE) | st.binary(min_size=1, max_size=8)),
    st.builds(cut, PLACES, st.integers(1, 40)),
    st.builds(truncate, PLACES),
    st.builds(duplicate, PLACES, st.integers(1, 400)),
)


def changed(content: bytes, changes: list[Change]) -> bytes:
    broken = bytearray(content)
    for change in changes:
        if len(broken) > 132:
            change(broken)
    return bytes(broken)


def changed_inside(content: bytes, changes: list[Change]) -> bytes:
    """A deflated file whose data set was broken before it was deflated."""
    at = max(element.end for element in parse(content, Limits()).meta.values())
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[at:])
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return content[:at] + packer.compress(changed(inflated, changes)) + packer.flush()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_broken_file_is_read_or_refused_by_type(originals: dict[str, bytes], tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "broken.dcm"
    outcomes: dict[str, int] = {}
    slowest = 0.0

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(changes=st.lists(CHANGES, min_size=1, max_size=5), inside=st.booleans())
    def law(changes: list[Change], *, inside: bool) -> None:
        nonlocal slowest
        change = changed_inside if inside and syntax == DeflatedExplicitVRLittleEndian else changed
        path.write_bytes(change(originals[syntax], changes))
        started = time.process_time()
        verdict = outcome(path)
        slowest = max(slowest, time.process_time() - started)
        outcomes[verdict] = outcomes.get(verdict, 0) + 1

    law()
    print(f"{syntax}: {outcomes}, slowest {slowest:.3f} s of CPU")
    assert slowest < 2.0
    assert len(outcomes) > 4, "the changes reach many checks"


def outcome(path: Path) -> str:
    """The verdict on one file: a code, or what became of its pixels."""
    try:
        reading = headers.read(path)
    except UnreadableObject as error:
        return error.code
    json.dumps(reading.to_json(), allow_nan=False)
    try:
        stored_values(read_dataset(path, reading.transfer_syntax_uid))
    except PixelsRefused as error:
        return f"pixels: {error.code}"
    return "read"
