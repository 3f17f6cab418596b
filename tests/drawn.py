"""Segmentations as other programs write them, by highdicom: in any order of slices, of any extent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

BINARY = SegmentationTypeValues.BINARY


def segmentation(
    pet: Sequence[Path],
    mask: NDArray[np.bool_],
    path: Path,
    *,
    order: slice = slice(None),
    kind: SegmentationTypeValues = BINARY,
    omit_empty: bool = False,
) -> Path:
    """Write the mask (z, y, x), z along the slice normal, as one segment "Tumor"; `order` picks and turns slices."""
    images = [pydicom.dcmread(file) for file in pet]
    orientation = np.array(images[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    images.sort(key=lambda image: float(np.array(image.ImagePositionPatient, float) @ normal))
    described = SegmentDescription(
        1,
        "Tumor",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Neoplasm,
        SegmentAlgorithmTypeValues.MANUAL,
    )
    made = highdicom.seg.Segmentation(
        images[order],
        mask[order].astype(np.uint8),
        kind,
        [described],
        highdicom.UID(),
        9,
        highdicom.UID(),
        1,
        "Somebody",
        "Tool",
        "1",
        "0",
        omit_empty_frames=omit_empty,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path
