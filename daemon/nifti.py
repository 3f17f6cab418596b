"""NIfTI files in and out: (x, y, z) in RAS there, (z, y, x) in LPS here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.contract import Affine, LabelMap, Quantity, Volume
from engines.errors import CaseRefused

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER_ANATOMICAL = 1
"""NIfTI-1's code of a world that is the scanner's."""
GZIP_LEVEL = 1
"""Noise hardly shrinks however long one tries; label maps do at once."""
VOXELS_MAX = 2**31
LARGEST_LABEL = 65535
DAMAGED = (EOFError, ValueError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged file raises, besides nibabel's own errors."""


def encoded(array: NDArray[Any], affine: Affine, description: str) -> bytes:
    """A compressed NIfTI-1 file.

    array : (z, y, x) or (t, z, y, x), in the file (x, y, z) and (x, y, z, t)
    affine : (z, y, x, 1) → LPS mm, in the file (x, y, z, 1) → RAS mm
    description : at most 80 characters

    The axis of time has no step of its own, since frames may differ; truth.json tells when each was taken.
    """
    import nibabel

    ras = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(array.T, ras)
    image.set_sform(ras, SCANNER_ANATOMICAL)
    image.set_qform(ras, SCANNER_ANATOMICAL)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    return gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)


def read_volume(path: Path, quantity: Quantity) -> Volume:
    """A 3-D image, float32; what its numbers mean is not in the file.

    Raises
    ------
    CaseRefused
        unreadable, not-3d, too-large, no-orientation, not-finite.
    """
    numbers, affine = _read(path)
    array = np.ascontiguousarray(numbers.astype(np.float32, copy=False))
    if not np.isfinite(array).all():
        raise CaseRefused(f"{path.name}: expected finite numbers, got others", code="not-finite")
    return Volume(array, affine, quantity)


def read_labels(path: Path, names: Mapping[int, str]) -> LabelMap:
    """A 3-D image of whole numbers as labels; those without a name in `names` are called after their number.

    Raises
    ------
    CaseRefused
        As `read_volume`, and not-labels.
    """
    numbers, affine = _read(path)
    found = np.unique(numbers)
    if not np.isfinite(found).all() or (found != np.rint(found)).any() or found[0] < 0 or found[-1] > LARGEST_LABEL:
        text = f"{path.name}: expected whole numbers from 0 to {LARGEST_LABEL}, got {found[0]:g} to {found[-1]:g}"
        raise CaseRefused(text, code="not-labels")
    present = (int(label) for label in found if label > 0)
    named = {label: names.get(label, f"Region {label}") for label in present}
    return LabelMap(np.ascontiguousarray(numbers.astype(np.uint16)), affine, named)


def _read(path: Path) -> tuple[NDArray[Any], Affine]:
    """The numbers (z, y, x), rescaled as the file says, and (z, y, x, 1) → LPS mm."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        shape = image.shape
        _check_header(path, image, shape)
        numbers = np.asarray(image.dataobj).reshape(shape[:3])
        ras = np.asarray(image.affine, np.float64)
    except (ImageFileError, HeaderDataError, *DAMAGED) as error:
        raise CaseRefused(f"{path.name}: expected a NIfTI file that can be read", code="unreadable") from error
    affine = (LPS_TO_RAS @ ras)[:, [2, 1, 0, 3]]
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-9:
        raise CaseRefused(f"{path.name}: expected an affine that can be inverted", code="no-orientation")
    return numbers.T, affine


def _check_header(path: Path, image: Any, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or prod(shape[3:]) != 1:
        raise CaseRefused(f"{path.name}: expected a 3-D image, got {shape}", code="not-3d")
    if not 0 < prod(shape) <= VOXELS_MAX:
        raise CaseRefused(f"{path.name}: expected up to {VOXELS_MAX} voxels, got {shape}", code="too-large")
    codes = [image.header[code] for code in ("sform_code", "qform_code") if code in image.header]
    if not any(codes):
        hint = "Write the file with its sform or qform: without it nobody knows which side is left."
        raise CaseRefused(f"{path.name}: expected an orientation, got none", code="no-orientation", hint=hint)
