"""Our affine against those of highdicom and nibabel: on real slices, and on synthetic ones of any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from dicom_io import geometry, headers
from dicom_io.geometry import Grid
from tests import make
from tests.peers import unpack_sarcoma


def grid(paths: Sequence[Path]) -> Grid:
    return geometry.grid([headers.read(path).header for path in paths])


def by_highdicom(paths: Sequence[Path]) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """highdicom.Volume has our convention, (slice, row, column) → LPS mm, but counts slices against row × column."""
    volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    affine = volume.affine.copy()
    affine[:3, 3] += (volume.spatial_shape[0] - 1) * affine[:3, 0]
    affine[:3, 0] *= -1.0
    return affine, volume.spatial_shape


def check(paths: Sequence[Path]) -> None:
    ours = grid(paths)
    theirs, shape = by_highdicom(paths)
    assert ours.shape == shape
    assert np.abs(ours.affine - theirs).max() < 1e-5
    for z, index in enumerate(ours.order):
        check_slice(ours, z, pydicom.dcmread(paths[index]))


def check_slice(ours: Grid, z: int, dataset: pydicom.Dataset) -> None:
    """nibabel's wrapper of one image maps (row, column, 0) → LPS mm."""
    from nibabel.nicom import dicomwrappers

    theirs: Any = dicomwrappers.wrapper_from_data(dataset)
    rows, columns = ours.shape[1:]
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
        assert (ours.affine @ [z, row, column, 1])[:3] == pytest.approx(
            (theirs.affine @ [row, column, 0, 1])[:3], abs=2e-4
        )


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize("modality", ["PET", "CT"])
@pytest.mark.parametrize("study", ["STS_001", "STS_020"])
def test_real_slices(study: str, modality: str) -> None:
    check(sorted((unpack_sarcoma(study) / modality / "image").glob("*.dcm")))


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize("flip", ["", "z", "y", "x", "zy", "yx", "zx", "zyx"])
def test_synthetic_slices(tmp_path: Path, flip: str) -> None:
    check(make.study(tmp_path, pet_shape=(5, 7, 6), flip=flip).pet)


def turned(rotation: NDArray[np.float64], folder: Path, paths: Sequence[Path]) -> list[Path]:
    """The same slices in a patient who lies turned by a rotation (LPS mm → LPS mm)."""
    written = []
    for path in paths:
        dataset = pydicom.dcmread(path)
        position, orientation = np.array(dataset.ImagePositionPatient), np.array(dataset.ImageOrientationPatient)
        dataset.ImagePositionPatient = [f"{c:.10g}" for c in rotation @ position]
        dataset.ImageOrientationPatient = [f"{c:.10g}" for c in (rotation @ orientation.reshape(2, 3).T).T.ravel()]
        written.append(make.save(dataset, folder / path.name))
    return written


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize(
    "rotation",
    [
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],  # coronal: rows run to the feet
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],  # sagittal: columns run to the back, rows to the head
        [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]],  # by 36.87° about the long axis
        [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]],  # oblique
    ],
    ids=["coronal", "sagittal", "axial-turned", "oblique"],
)
def test_turned_slices(tmp_path: Path, rotation: list[list[float]]) -> None:
    made = make.study(tmp_path / "axial", pet_shape=(5, 7, 6))
    check(turned(np.array(rotation, dtype=np.float64), tmp_path / "turned", made.pet))
