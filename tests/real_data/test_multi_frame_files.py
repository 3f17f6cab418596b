"""Multi-frame CT that other people wrote: voxel for voxel and place for place the volume highdicom makes of it."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import highdicom
import numpy as np
import pytest

from dicom_io.volume import load
from engines.contract import Quantity
from tests.peers import unpack

FILES = {
    "an Enhanced CT whose rows run from right to left": (
        "pydicom_data.tar.xz",
        "pydicom-data/eCT_Supplemental.dcm",
    ),
    "a Legacy Converted Enhanced CT of dcmqi": (
        "dicom_objects_by_others.tar.xz",
        "QIICR_dcmqi/segmentations/24x38x3/multiframe/mf.dcm",
    ),
}


@pytest.mark.parametrize(("archive", "name"), FILES.values(), ids=FILES)
def test_the_volume_is_the_one_highdicom_makes(archive: str, name: str) -> None:
    path: Path = unpack(archive) / name
    ours = load([path], Quantity.HU, UTC).static
    theirs = highdicom.imread(path).get_volume(
        apply_modality_transform=True,
        apply_real_world_transform=False,
        apply_voi_transform=False,
        apply_palette_color_lut=False,
        apply_presentation_lut=False,
        apply_icc_profile=False,
    )
    assert np.array_equal(ours.array, theirs.array[::-1]), "highdicom counts slices against row × column"
    last, flipped = len(ours.array) - 1, np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = last
    assert ours.affine == pytest.approx(theirs.affine @ flipped, abs=1e-6)
