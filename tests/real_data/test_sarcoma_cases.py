"""The twenty sarcoma studies as cases: contours that a radiologist drew on the PET meet the mask of the data set."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import nibabel
import numpy as np
import pytest

from daemon.sources import Reading, cases
from dicom_io.regions import drawn_on, read_regions, tumours
from dicom_io.volume import load
from engines.contract import Quantity
from tests.flow import sarcoma
from tests.peers import unpack_sarcoma
from tests.real_data.test_sarcoma_reading import NAMES, files
from tests.unit.test_sources import only


def mask(study: Path) -> tuple[np.ndarray, np.ndarray]:
    """gtv_on_pet.nii.gz as (z, y, x), and its affine (x, y, z, 1) → RAS mm."""
    image = nibabel.load(study / "gtv_on_pet.nii.gz")
    return np.asarray(image.dataobj).T > 0, np.asarray(image.affine)


@pytest.mark.parametrize("name", NAMES)
def test_contours_are_the_mask_of_the_data_set(name: str) -> None:
    study = unpack_sarcoma(name)
    case = only(f"dicom:{study}", Reading())
    expected, ras = mask(study)
    pet, truth = case.volumes["pet"], case.truth
    assert truth is not None
    assert np.array_equal(truth.array > 0, expected)
    assert np.allclose(np.diag([-1.0, -1.0, 1.0, 1.0]) @ truth.affine[:, [2, 1, 0, 3]], ras, atol=0.01)
    assert pet.array.shape == truth.array.shape
    assert case.volumes["ct"].array.shape[1] > 2 * pet.array.shape[1]
    assert case.group == "patient 1"
    assert set(truth.names.values()) == {"GTV_Mass_PET"}
    suv = sarcoma.truth(files(name, "PET")).suv
    assert float(pet.array[expected].max()) == pytest.approx(float(suv[expected].max()), rel=1e-6)


def test_all_of_them_below_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    for name in NAMES[:4]:
        for path in [*unpack_sarcoma(name).rglob("*.dcm")]:
            target = folder / name / path.relative_to(unpack_sarcoma(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    found = cases(f"dicom:{folder}", Reading())
    assert len(found) == 4
    assert [found[index].group for index in range(4)] == [f"patient {n}" for n in range(1, 5)]
    assert len(cases(f"dicom:{folder}#3", Reading())) == 3


@pytest.mark.parametrize("name", ["STS_001", "STS_019"])
def test_contours_on_the_ct_are_not_taken_for_the_pets(name: str) -> None:
    """Of STS_019 they enclose other voxels of the PET: Dice 0.64 with the mask."""
    study = unpack_sarcoma(name)
    pet, ct = (read_regions(study / place / "mask" / "RS.dcm") for place in ("PET", "CT"))
    assert drawn_on(pet) & drawn_on(ct) == frozenset()
    source = load(files(name, "PET"), Quantity.SUVBW, UTC)
    assert source.datasets[0].SeriesInstanceUID in drawn_on(pet)
    found, expected = tumours(ct, source).array > 0, mask(study)[0]
    dice = 2 * np.count_nonzero(found & expected) / (np.count_nonzero(found) + np.count_nonzero(expected))
    assert bool(dice > 0.99) is (name == "STS_001")
