"""Real files of many makers, many of them broken: each gets a reading or a typed refusal, soon and in little memory.

The files of the pydicom package (its test files, character sets and palettes) and of its separate collection.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_io.errors import UnreadableObject
from dicom_io.headers import Reading
from dicom_io.pixels import stored_values
from dicom_io.sandbox import Sandbox
from tests.peers import REPOSITORY, session_folder, unpack

MEMORY_BYTES = 500 * 2**20
TIMEOUT_S = 2.0
PACKAGE = Path(pydicom.__file__).parent / "data"
CODES = {
    "not-dicom", "transfer-syntax", "missing-uid", "illegal-uid", "uid-mismatch", "class-mismatch", "truncated",
    "structure", "duplicate-element", "pixel-length", "pixel-description", "too-deep", "too-many-elements", "too-large",
}  # fmt: skip


def corpus(source: str) -> list[Path]:
    """Every file, DICOM or not."""
    folder = PACKAGE if source == "package" else unpack(source)
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def answers(paths: Sequence[Path]) -> list[Reading | UnreadableObject]:
    with Sandbox(MEMORY_BYTES, TIMEOUT_S) as sandbox:
        return list(sandbox.read_many(paths))


@pytest.mark.parametrize(("source", "read_min"), [("package", 75), ("pydicom_data.tar.xz", 50)])
def test_every_file_is_read_or_refused_by_type(source: str, read_min: int) -> None:
    paths = corpus(source)
    verdicts = Counter[str]()
    for path, answer in zip(paths, answers(paths), strict=True):
        code = answer.code if isinstance(answer, UnreadableObject) else "read"
        verdicts[code] += 1
        print(f"{path.name:60} {code}")
    print(f"{source}: {dict(verdicts.most_common())}")
    assert verdicts["read"] >= read_min
    assert set(verdicts) <= CODES | {"read"}


@pytest.mark.parametrize("source", ["package", "pydicom_data.tar.xz"])
def test_what_is_read_is_understood_and_decoded_or_refused_by_type(source: str) -> None:
    files = corpus(source)
    paths = [path for path, answer in zip(files, answers(files), strict=True) if isinstance(answer, Reading)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.verdicts", str(MEMORY_BYTES), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        timeout=300,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(paths)
    for path, one in zip(paths, told, strict=True):
        print(f"{path.name:60} {one['seconds']:6.2f} s {one['megabytes']:5.0f} MB  {one['verdict']}")
        assert not one["verdict"].startswith(("UNTYPED", "died")), path.name
        assert one["seconds"] < TIMEOUT_S, path.name
        assert one["megabytes"] * 2**20 < MEMORY_BYTES, path.name
    print(f"{source}: {dict(Counter(one['verdict'].partition(',')[0] for one in told).most_common())}")
    decoded = sum("×" in one["verdict"] for one in told)
    assert decoded >= 30


# The same pixels in several encodings


@pytest.mark.parametrize(
    ("plain", "others"),
    [
        ("693_UNCR.dcm", ["693_J2KR.dcm"]),
        ("MR2_UNCR.dcm", ["MR2_J2KR.dcm"]),
        ("US1_UNCR.dcm", ["US1_J2KR.dcm"]),
        ("OBXXXX1A.dcm", ["OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm"]),
        ("OBXXXX1A_2frame.dcm", ["OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_rle_2frame.dcm"]),
        ("emri_small.dcm", [
            "emri_small_RLE.dcm", "emri_small_big_endian.dcm", "emri_small_jpeg_2k_lossless.dcm",
            "emri_small_jpeg_ls_lossless.dcm",
        ]),
        ("liver.dcm", ["liver_expb.dcm", "liver_j2k.dcm"]),
        ("gdcm-US-ALOKA-16.dcm", ["gdcm-US-ALOKA-16_big.dcm"]),
        ("SC_rgb.dcm", ["SC_rgb_expb.dcm"]),
        ("SC_rgb_2frame.dcm", ["SC_rgb_expb_2frame.dcm"]),
    ],
)  # fmt: skip
def test_pixels_are_the_same_in_every_encoding(plain: str, others: list[str]) -> None:
    folder = next(unpack("pydicom_data.tar.xz").rglob(plain)).parent
    reference = pydicom.dcmread(folder / plain).pixel_array
    for name in others:
        assert np.array_equal(stored_values(pydicom.dcmread(folder / name)), reference), name


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("JPEG-LL.dcm", "dcmdjpeg"),
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", "dcmdjpeg"),
        ("emri_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
        ("emri_small_RLE.dcm", "dcmdrle"),
    ],
)
def test_dcmtk_decodes_the_same_pixels(name: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} (DCMTK) is not installed")
    source = next(unpack("pydicom_data.tar.xz").rglob(name))
    plain = session_folder() / f"plain_{name}"
    subprocess.run([program, source, plain], check=True, timeout=60, capture_output=True)
    assert np.array_equal(stored_values(pydicom.dcmread(source)), stored_values(pydicom.dcmread(plain)))
