"""The 20 real PET/CT studies as test input, and masks computed with pydicom and numpy alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from tests.peers import real_data, unpack_sarcoma

THRESHOLD_SUV = 2.5
"""Low enough that every one of the 20 tumours has voxels above it."""


@dataclass(frozen=True)
class Truth:
    """What the test itself makes of a PET: SOP Instance UIDs by position along z, and SUV (z, y, x)."""

    uids: list[str]
    suv: NDArray[np.float64]
    voxel_ml: float


def studies() -> list[Path]:
    names = sorted(path.name.removesuffix(".tar.xz") for path in (real_data() / "soft_tissue_sarcoma").glob("STS_*"))
    return [unpack_sarcoma(name) for name in names]


def files(study: Path) -> list[Path]:
    return sorted(study.rglob("*.dcm"))


def flipped_rows(source: Path, folder: Path) -> list[Path]:
    """The study with every PET slice's rows written from right to left: other geometry, same anatomy."""
    written = []
    for path in files(source):
        dataset = pydicom.dcmread(path)
        if dataset.Modality == "PT":
            row = np.array(dataset.ImageOrientationPatient[:3], float)
            step = row * float(dataset.PixelSpacing[1]) * (dataset.Columns - 1)
            position = np.array(dataset.ImagePositionPatient, float) + step
            dataset.ImagePositionPatient = [f"{value:.6f}" for value in position]
            dataset.ImageOrientationPatient = [-value for value in row] + list(dataset.ImageOrientationPatient[3:])
            dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[:, ::-1]).tobytes()
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target)
        written.append(target)
    return written


def truth(paths: list[Path]) -> Truth:
    """`pixel_array × slope`, sorted by position: these series are GML, so that is SUVbw."""
    slices = [pydicom.dcmread(path) for path in paths]
    slices = sorted((s for s in slices if s.Modality == "PT"), key=lambda s: float(s.ImagePositionPatient[2]))
    spacing_mm = abs(float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2]))
    area_mm2 = float(slices[0].PixelSpacing[0]) * float(slices[0].PixelSpacing[1])
    return Truth(
        [str(s.SOPInstanceUID) for s in slices],
        np.stack([s.pixel_array * float(s.RescaleSlope) for s in slices]),
        spacing_mm * area_mm2 / 1000,
    )


def expected_mask(pet: Truth, *, minimum_volume_ml: float) -> NDArray[np.bool_]:
    """SUV ≥ threshold, without components (26 neighbours) below the minimum volume; flood fill by hand, no scipy."""
    hot = pet.suv >= THRESHOLD_SUV
    mask = np.zeros(hot.shape, bool)
    seen = ~hot
    for start in zip(*np.nonzero(hot), strict=True):
        if seen[start]:
            continue
        component = _component(hot, seen, start)
        if len(component) * pet.voxel_ml >= minimum_volume_ml:
            mask[tuple(np.array(component).T)] = True
    return mask


def _component(hot: NDArray[np.bool_], seen: NDArray[np.bool_], start: tuple[int, ...]) -> list[tuple[int, ...]]:
    component, frontier = [], [start]
    seen[start] = True
    while frontier:
        voxel = frontier.pop()
        component.append(voxel)
        low = [max(0, n - 1) for n in voxel]
        window = tuple(slice(a, n + 2) for a, n in zip(low, voxel, strict=True))
        for offset in np.argwhere(hot[window] & ~seen[window]):
            neighbour = tuple(int(n) for n in offset + low)
            seen[neighbour] = True
            frontier.append(neighbour)
    return component


def mask_by_highdicom(seg_path: Path, pet: Truth) -> NDArray[np.bool_]:
    """Union of all segments on the PET grid, read by highdicom."""
    import highdicom

    seg = highdicom.seg.segread(seg_path)
    pixels = seg.get_pixels_by_source_instance(pet.uids, assert_missing_frames_are_empty=True)
    return np.any(pixels, axis=-1)


def mask_by_dcmqi(seg_path: Path, pet: Truth, paths: list[Path], folder: Path) -> NDArray[np.bool_]:
    """Union of all segments on the PET grid, read by dcmqi (C++, DCMTK) and placed by its own geometry."""
    import json
    import subprocess
    import sys

    import nibabel

    folder.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).parent / "segimage2itkimage"
    command = [tool, "--inputDICOM", seg_path, "--outputDirectory", folder, "--outputType", "nii", "--mergeSegments"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=120)
    assert json.loads(next(folder.glob("*.json")).read_text())
    mask = np.zeros(pet.suv.shape, bool)
    to_index = np.linalg.inv(_ras_affine(paths))
    for path in sorted(folder.glob("*.nii.gz")):
        image = nibabel.load(path)
        voxels = np.argwhere(np.asarray(image.dataobj) > 0)
        world = np.c_[voxels, np.ones(len(voxels))] @ np.asarray(image.affine).T
        index = np.rint(world @ to_index.T).astype(int)[:, :3]
        mask[index[:, 2], index[:, 1], index[:, 0]] = True
    return mask


def _ras_affine(paths: list[Path]) -> NDArray[np.float64]:
    """(x, y, z index) → RAS mm of the PET, from its headers."""
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    slices = sorted((s for s in slices if s.Modality == "PT"), key=lambda s: float(s.ImagePositionPatient[2]))
    first, last = (np.array(s.ImagePositionPatient, float) for s in (slices[0], slices[-1]))
    orientation = np.array(slices[0].ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * float(slices[0].PixelSpacing[1])
    affine[:3, 1] = orientation[3:] * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
