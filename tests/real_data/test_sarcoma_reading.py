"""Twenty real FDG PET/CT studies (GE Discovery ST, TCIA Soft-tissue-Sarcoma): read, understood, loaded."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from dicom_io import headers, quantity, series
from dicom_io.errors import QuantityRefused
from dicom_io.sandbox import Sandbox
from dicom_io.volume import load
from engines.contract import Quantity
from tests.flow import sarcoma
from tests.peers import unpack_sarcoma

NAMES = [
    f"STS_{number:03d}" for number in (1, 3, 4, 5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 21, 23, 25, 26, 27, 30, 32)
]  # fmt: skip
SHORT_CT = {"STS_019"}
"""Cropped so that the PET is 6.6 mm, two slices, longer than its CT."""


def files(name: str, modality: str) -> list[Path]:
    return sorted((unpack_sarcoma(name) / modality / "image").glob("*.dcm"))


def facts(name: str, modality: str) -> dict[str, Any]:
    return series.understand([headers.read(path).header for path in files(name, modality)], {}, UTC)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_series_are(name: str) -> None:
    pet, ct = facts(name, "PET"), facts(name, "CT")
    assert pet["problems"] == ct["problems"] == []
    assert (pet["tracer"], pet["radionuclide"], pet["kind"]) == ("FDG", "F-18", "static")
    assert pet["attenuation_corrected"] is True
    assert (pet["units"], pet["suv"]["factor"]) == ("GML", 1.0)
    assert (pet["complete"], pet["expected"]) == (True, len(files(name, "PET")))
    assert pet["spacing_mm"][0] == pytest.approx(3.27, abs=0.001)
    assert 30.0 < pet["uptake_min"] < 200.0
    assert 1.5e8 < pet["dose_bq"] < 8e8
    assert series.covers(ct, pet).covered is (name not in SHORT_CT)


@pytest.mark.parametrize("name", ["STS_001", "STS_019", "STS_020"])
def test_the_volume_is_that_of_pydicom_and_numpy_alone(name: str) -> None:
    loaded = load(files(name, "PET"), Quantity.SUVBW, UTC)
    truth = sarcoma.truth(files(name, "PET"))
    assert [dataset.SOPInstanceUID for dataset in loaded.datasets] == truth.uids
    assert loaded.volume.array == pytest.approx(truth.suv.astype(np.float32), rel=1e-6)
    assert loaded.volume.voxel_volume_ml == pytest.approx(truth.voxel_ml, rel=1e-6)


@pytest.mark.parametrize("name", ["STS_001", "STS_013"])
def test_the_tumour_contour_lies_where_the_affine_says(name: str) -> None:
    """The published mask on the PET grid, with an affine of its own (NIfTI, RAS), falls on our voxels."""
    loaded = load(files(name, "PET"), Quantity.SUVBW, UTC).volume
    image: Any = nibabel.load(unpack_sarcoma(name) / "gtv_on_pet.nii.gz")
    mask = np.asarray(image.dataobj) > 0
    voxels = np.argwhere(mask)
    ras = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    lps = ras * [-1.0, -1.0, 1.0]
    ours = np.linalg.solve(loaded.affine[:3, :3], lps.T - loaded.affine[:3, 3:]).T
    found = np.rint(ours).astype(int)
    assert np.abs(ours - found).max() < 0.05
    inside = loaded.array[tuple(found.T)]
    assert inside.mean() > 2.0 * loaded.array.mean(), "a sarcoma takes up more FDG than what lies around it"


def test_the_ct_is_in_hounsfield_units() -> None:
    array = load(files("STS_001", "CT"), Quantity.HU, UTC).volume.array
    assert array.min() == -1000.0
    assert -200.0 < float(np.median(array[array > -500.0])) < 200.0, "soft tissue"


def test_bare_activity_is_refused_for_suv_images() -> None:
    found = [headers.read(path).header for path in files("STS_001", "PET")]
    with pytest.raises(QuantityRefused) as caught:
        quantity.activity(found)
    assert caught.value.code == "units"


def test_the_sandbox_reads_a_whole_study_as_the_function_does() -> None:
    paths = files("STS_001", "PET") + files("STS_001", "CT")
    with Sandbox(2**30, 20.0) as sandbox:
        assert list(sandbox.read_many(paths)) == [headers.read(path) for path in paths]
