"""Cases from every kind of source: the same study comes out of each, and what cannot be a case is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from daemon import nifti
from daemon.sources import Cases, Reading, UnknownSource, cases
from dicom_io.errors import RegionsRefused
from engines.contract import Case, Quantity
from engines.errors import CaseRefused, EngineError
from engines.simulation import packed
from engines.simulation.cohort import ForEvaluationOnly, UnknownCohort
from tests import drawn, make

SHAPE = (6, 7, 8)
AFFINE = np.array([[0.0, 0.0, 2.0, -10.0], [0.0, 3.0, 0.0, -20.0], [5.0, 0.0, 0.0, -30.0], [0.0, 0.0, 0.0, 1.0]])
"""(z, y, x, 1) → LPS mm."""
BERLIN = Reading(timezone=ZoneInfo("Europe/Berlin"))


def pet() -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0.0, 9.0, SHAPE).astype(np.float32)


def ct() -> NDArray[np.float32]:
    return np.random.default_rng(2).uniform(-1000.0, 1000.0, SHAPE).round().astype(np.float32)


def truth() -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5, 3:4] = 1
    return labels


def write(path: Path, array: NDArray[Any], affine: NDArray[np.float64] = AFFINE, axes: str = "") -> Path:
    """By nibabel alone; `axes` such as "LPS" stores the same image with its axes along those directions."""
    image = nibabel.Nifti1Image(array.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]])
    if axes:
        turn = ornt_transform(nibabel.io_orientation(image.affine), axcodes2ornt(tuple(axes)))
        image = image.as_reoriented(turn)
        assert "".join(nibabel.aff2axcodes(image.affine)) == axes
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def autopet(folder: Path, study: str = "PETCT_0123456789/01-01-2001-NA-PET") -> Path:
    write(folder / study / "SUV.nii.gz", pet())
    write(folder / study / "CTres.nii.gz", ct())
    write(folder / study / "SEG.nii.gz", truth())
    write(folder / study / "PET.nii.gz", pet() * 5000)
    write(folder / study / "CT.nii.gz", np.zeros((9, 9, 9)))
    return folder


def nnunet(folder: Path, names: dict[str, str] | None = None, identifier: str = "PETCT_0123456789_study") -> Path:
    order = [ct(), pet()] if names is None or "ct" in names["0"].lower() else [pet(), ct()]
    for channel, array in enumerate(order):
        write(folder / "imagesTr" / f"{identifier}_{channel:04d}.nii.gz", array)
    write(folder / "labelsTr" / f"{identifier}.nii.gz", truth())
    if names is not None:
        document = {"channel_names": names, "labels": {"background": 0, "tumor": 1}, "numTraining": 1}
        (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def pairs(folder: Path, **names: str) -> Path:
    write(folder / "one" / f"{names.get('pet', 'pet')}.nii.gz", pet())
    write(folder / "one" / f"{names.get('ct', 'ct')}.nii.gz", ct())
    write(folder / "one" / f"{names.get('truth', 'truth')}.nii.gz", truth())
    return folder


def only(spec: str, reading: Reading = BERLIN) -> Case:
    found = cases(spec, reading)
    assert len(found) == 1
    return found[0]


def check(case: Case, name: str) -> None:
    assert list(case.volumes) == ["pet", "ct"]
    assert np.array_equal(case.volumes["pet"].array, pet())
    assert np.array_equal(case.volumes["ct"].array, ct())
    assert case.volumes["pet"].quantity is Quantity.SUVBW
    assert case.volumes["ct"].quantity is Quantity.HU
    assert case.truth is not None
    assert np.array_equal(case.truth.array, truth())
    assert case.truth.names == {1: name}
    for each in (*case.volumes.values(), case.truth):
        assert np.allclose(each.affine, AFFINE, atol=1e-5)


def refusal(spec: str, reading: Reading = BERLIN) -> str:
    with pytest.raises(EngineError) as refused:
        list(cases(spec, reading))
    assert refused.value.hint
    return refused.value.code


@pytest.mark.parametrize("layout", [autopet, nnunet, pairs])
def test_the_same_study_out_of_every_layout(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    kind = {autopet: "autopet", nnunet: "nnunet", pairs: "nifti"}[layout]
    check(only(f"{kind}:{layout(tmp_path)}"), "Lesion")


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({"0": "CT", "1": "PET"}, "tumor"),
        ({"0": "PET", "1": "CT"}, "tumor"),
        ({"0": "SUV", "1": "CTres"}, "tumor"),
        (None, "Lesion"),
    ],
)
def test_channels_of_nnunet_are_what_dataset_json_calls_them(
    tmp_path: Path, names: dict[str, str] | None, label: str
) -> None:
    check(only(f"nnunet:{nnunet(tmp_path, names)}"), label)


@pytest.mark.parametrize(
    "names", [{"0": "CT", "1": "CT"}, {"0": "noNorm", "1": "zscore"}, {"0": "CT"}, {"0": "CT", "1": "PET", "2": "x"}]
)
def test_channels_that_nobody_can_tell_are_refused(tmp_path: Path, names: dict[str, str]) -> None:
    assert refusal(f"nnunet:{nnunet(tmp_path, names)}") == "channels"


def test_a_dataset_json_that_is_none(tmp_path: Path) -> None:
    nnunet(tmp_path)
    for text in ("{", "[]", '{"channel_names": 3}'):
        (tmp_path / "dataset.json").write_text(text)
        assert refusal(f"nnunet:{tmp_path}") == "dataset-json"


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "RPI", "SAR", "PIL"])
def test_storage_order_does_not_move_anything(tmp_path: Path, axes: str) -> None:
    """Each voxel keeps its value at its place in the patient, however the file is stored."""
    write(tmp_path / "pet.nii.gz", pet(), axes=axes)
    found = nifti.read_volume(tmp_path / "pet.nii.gz", Quantity.SUVBW)
    index = np.argwhere(np.ones(SHAPE, bool))
    world = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    there = np.rint((world - found.affine[:3, 3]) @ np.linalg.inv(found.affine[:3, :3]).T).astype(int)
    assert np.array_equal(found.array[tuple(there.T)], pet()[tuple(index.T)])


def test_what_we_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "pet.nii.gz").write_bytes(nifti.encoded(pet(), AFFINE, "words"))
    found = nifti.read_volume(tmp_path / "pet.nii.gz", Quantity.SUVBW)
    assert np.array_equal(found.array, pet())
    assert np.allclose(found.affine, AFFINE)


def test_scaled_whole_numbers_and_a_fourth_axis(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(pet().T[..., None], np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").dataobj.slope < 0.001  # type: ignore[attr-defined]
    assert np.allclose(nifti.read_volume(tmp_path / "a.nii", Quantity.SUVBW).array, pet(), atol=0.001)


@pytest.mark.parametrize("names", [{"pet": "SUV", "ct": "CT_resample", "truth": "tumorSeg"}, {"pet": "PET"}])
def test_usual_names_of_pairs(tmp_path: Path, names: dict[str, str]) -> None:
    check(only(f"nifti:{pairs(tmp_path, **names)}"), "Lesion")


def test_a_ct_of_a_pair_may_have_its_own_grid(tmp_path: Path) -> None:
    fine = np.zeros((12, 14, 16), np.float32) - 1000
    write(pairs(tmp_path) / "one" / "ct.nii.gz", fine, AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0]))
    assert only(f"nifti:{tmp_path}").volumes["ct"].array.shape == (12, 14, 16)


@pytest.mark.parametrize("role", ["CTres", "SEG"])
@pytest.mark.parametrize("change", ["shape", "shift", "turn"])
def test_grids_that_differ_are_refused(tmp_path: Path, role: str, change: str) -> None:
    path = next(autopet(tmp_path).rglob(f"{role}.nii.gz"))
    array = truth() if role == "SEG" else ct()
    moved = AFFINE.copy()
    if change == "shape":
        array = array[:, :-1]
    elif change == "shift":
        moved[:3, 3] += (0.0, 0.0, 0.7)
    else:
        moved[:, 1] *= -1
    write(path, array, moved)
    assert refusal(f"autopet:{tmp_path}") == "grid"


def test_a_truth_off_the_grid_of_a_pair_is_refused(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 1.0
    write(pairs(tmp_path) / "one" / "truth.nii.gz", truth(), moved)
    assert refusal(f"nifti:{tmp_path}") == "grid"


def test_numbers_that_cannot_be_suv_or_hu_are_refused(tmp_path: Path) -> None:
    path = next(autopet(tmp_path).rglob("SUV.nii.gz"))
    write(path, pet() * 5000)
    assert refusal(f"autopet:{tmp_path}") == "not-suv"
    write(path, pet())
    write(path.with_name("CTres.nii.gz"), ct() + 1024)
    assert refusal(f"autopet:{tmp_path}") == "not-hu"
    write(path.with_name("CTres.nii.gz"), np.where(ct() > 900, np.nan, ct()))
    assert refusal(f"autopet:{tmp_path}") == "not-finite"
    write(path.with_name("CTres.nii.gz"), ct())
    write(path.with_name("SEG.nii.gz"), truth() * np.float32(0.5))
    assert refusal(f"autopet:{tmp_path}") == "not-labels"
    write(path.with_name("SEG.nii.gz"), -truth().astype(np.int16))
    assert refusal(f"autopet:{tmp_path}") == "not-labels"


def test_files_that_are_missing_twice_there_or_broken(tmp_path: Path) -> None:
    folder = autopet(tmp_path) / "PETCT_0123456789" / "01-01-2001-NA-PET"
    whole = (folder / "SUV.nii.gz").read_bytes()
    (folder / "SUV.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert refusal(f"autopet:{tmp_path}") == "unreadable"
    (folder / "SUV.nii.gz").write_bytes(b"no image")
    assert refusal(f"autopet:{tmp_path}") == "unreadable"
    (folder / "SUV.nii.gz").write_bytes(whole)
    write(folder / "SUV.nii", pet())
    assert refusal(f"autopet:{tmp_path}") == "files"
    (folder / "SUV.nii").unlink()
    (folder / "SEG.nii.gz").unlink()
    assert refusal(f"autopet:{tmp_path}") == "files"
    (nnunet(tmp_path / "n") / "imagesTr" / "PETCT_0123456789_study_0001.nii.gz").unlink()
    assert refusal(f"nnunet:{tmp_path / 'n'}") == "files"


def test_an_image_without_orientation_or_of_four_axes(tmp_path: Path) -> None:
    pairs(tmp_path)
    image = nibabel.Nifti1Image(pet().T, None)
    nibabel.save(image, tmp_path / "one" / "pet.nii.gz")
    assert refusal(f"nifti:{tmp_path}") == "no-orientation"
    write(tmp_path / "one" / "pet.nii.gz", np.stack([pet(), pet()]))
    assert refusal(f"nifti:{tmp_path}") == "not-3d"


def test_an_image_that_claims_to_be_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(tmp_path)
    monkeypatch.setattr(nifti, "VOXELS_MAX", pet().size - 1)
    assert refusal(f"nifti:{tmp_path}") == "too-large"


def test_patients_are_told_apart(tmp_path: Path) -> None:
    for study in ("PETCT_aaaaaaaaaa/one", "PETCT_aaaaaaaaaa/two", "PETCT_bbbbbbbbbb/one"):
        autopet(tmp_path / "a", study)
    assert [case.group for case in cases(f"autopet:{tmp_path / 'a'}", BERLIN)] == [
        "PETCT_aaaaaaaaaa",
        "PETCT_aaaaaaaaaa",
        "PETCT_bbbbbbbbbb",
    ]
    for identifier in ("fdg_aaaaaaaaaa_2001", "fdg_aaaaaaaaaa_2002", "case_001", "case_002"):
        nnunet(tmp_path / "n", identifier=identifier)
    assert [case.group for case in cases(f"nnunet:{tmp_path / 'n'}", BERLIN)] == [
        "case_001",
        "case_002",
        "fdg_aaaaaaaaaa",
        "fdg_aaaaaaaaaa",
    ]


def test_cases_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    for study in ("PETCT_aaaaaaaaaa/one", "PETCT_bbbbbbbbbb/one", "PETCT_cccccccccc/one"):
        autopet(tmp_path, study)
    (tmp_path / "PETCT_bbbbbbbbbb/one/SUV.nii.gz").write_bytes(b"no image")
    found = cases(f"autopet:{tmp_path}", BERLIN)
    assert isinstance(found, Cases)
    assert len(found) == 3
    check(found[0], "Lesion")
    check(found[-1], "Lesion")
    with pytest.raises(CaseRefused):
        found[1]
    assert len(found[::2]) == 2
    joined = found[::2] + found[:1]
    assert [case.group for case in joined] == ["PETCT_aaaaaaaaaa", "PETCT_cccccccccc", "PETCT_aaaaaaaaaa"]
    assert len(cases(f"autopet:{tmp_path}#2", BERLIN)) == 2
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize(
    "spec", ["", "fdg-train", "pickle:x", "dicom:", "cohort:", "nifti:/nowhere", "cohort:fdg-train#x", "cohort:#3"]
)
def test_specs_that_name_nothing(spec: str) -> None:
    with pytest.raises(UnknownSource):
        cases(spec, BERLIN)


def test_an_empty_folder_and_an_unknown_cohort(tmp_path: Path) -> None:
    for kind in ("dicom", "autopet", "nnunet", "nifti"):
        assert refusal(f"{kind}:{tmp_path}") == "no-cases"
    with pytest.raises(UnknownCohort):
        cases("cohort:fdg-trian", BERLIN)


def test_test_cohorts_are_for_evaluation_only(tmp_path: Path) -> None:
    for name in ("fdg-test", "fdg-shift"):
        with pytest.raises(ForEvaluationOnly):
            cases(f"cohort:{name}", BERLIN)
        assert len(cases(f"cohort:{name}", Reading(for_evaluation=True))) >= 40
    assert len(cases("cohort:fdg-train", BERLIN)) == 200


def test_a_simulated_case_is_kept(tmp_path: Path) -> None:
    found = cases("cohort:fdg-tune#1", Reading(cache=tmp_path))
    first = found[0]
    (kept,) = tmp_path.rglob("*.npz")
    written = packed.read(kept.with_suffix(""))
    assert written is not None
    assert first.truth is not None
    assert np.array_equal(first.volumes["pet"].array, written.case.volumes["pet"].array)
    assert np.array_equal(first.truth.array, written.labels["lesions"].array)
    stamp = kept.stat().st_mtime_ns
    assert np.array_equal(found[0].volumes["ct"].array, first.volumes["ct"].array)
    assert kept.stat().st_mtime_ns == stamp


def study(folder: Path, seed: int = 1, **more: Any) -> make.Study:
    return make.study(folder, seed=seed, pet_shape=(12, 16, 16), ct_shape=(12, 32, 32), **more)


def test_dicom_with_a_segmentation(tmp_path: Path) -> None:
    made = study(tmp_path / "one")
    drawn.segmentation(made.pet, made.truth > 0, tmp_path / "one" / "SEG" / "seg.dcm", order=slice(None, None, -1))
    case = only(f"dicom:{tmp_path}")
    assert case.truth is not None
    assert np.array_equal(case.truth.array > 0, made.truth > 0)
    assert np.allclose(case.volumes["pet"].array, made.suv, atol=0.01)
    assert np.allclose(case.volumes["pet"].affine, made.affine, atol=1e-4)
    assert case.volumes["ct"].array.min() < -900
    assert case.group == "patient 1"


def test_studies_and_patients_of_a_folder(tmp_path: Path) -> None:
    """Nobody drew on the second; the third is another study of the first patient; a note lies about."""
    first = study(tmp_path / "a")
    drawn.segmentation(first.pet, first.truth > 0, tmp_path / "a" / "SEG" / "seg.dcm")
    study(tmp_path / "b", seed=2)
    study(tmp_path / "c", seed=3, examination={"patient_id": "SIM0001"})
    (tmp_path / "b" / "PT" / "0.txt").write_text("note")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "0.txt").write_text("note")
    found = list(cases(f"dicom:{tmp_path}", BERLIN))
    assert [case.group for case in found] == ["patient 1", "patient 2", "patient 1"]
    assert [case.truth is None for case in found] == [False, True, True]


def test_dicom_that_is_no_case(tmp_path: Path) -> None:
    made = study(tmp_path / "one")
    drawn.segmentation(made.pet, made.truth > 0, tmp_path / "one" / "SEG" / "1.dcm")
    drawn.segmentation(made.pet, made.truth > 0, tmp_path / "one" / "SEG" / "2.dcm")
    assert refusal(f"dicom:{tmp_path}") == "several-truths"
    shutil.rmtree(tmp_path / "one" / "SEG")
    shutil.move(tmp_path / "one" / "CT", tmp_path / "elsewhere")
    assert refusal(f"dicom:{tmp_path / 'one'}") == "no-ct"
    shutil.move(tmp_path / "elsewhere", tmp_path / "one" / "CT")
    shutil.rmtree(tmp_path / "one" / "PT")
    assert refusal(f"dicom:{tmp_path}") == "no-pet"


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    for seed in (1, 2):
        for path in study(tmp_path / "made" / str(seed), seed=seed).files:
            target = tmp_path / "all" / f"{seed}-{path.parent.name}-{path.name}"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
    assert refusal(f"dicom:{tmp_path / 'all'}") == "mixed-studies"


def test_a_pet_without_correction_or_a_segmentation_elsewhere_is_no_case(tmp_path: Path) -> None:
    made = study(tmp_path / "one")
    drawn.segmentation(made.pet, made.truth > 0, tmp_path / "one" / "SEG" / "1.dcm")
    uncorrected = {"CorrectedImage": ["DECY"], "AttenuationCorrectionMethod": "NONE", "SeriesDescription": "PET NAC"}
    study(tmp_path / "one", change=uncorrected)
    assert refusal(f"dicom:{tmp_path}") == "no-pet"
    other = study(tmp_path / "two", seed=2)
    shutil.copytree(tmp_path / "two" / "PT", tmp_path / "two" / "again")
    seg = drawn.segmentation(other.pet, other.truth > 0, tmp_path / "two" / "SEG" / "1.dcm")
    import pydicom

    dataset = pydicom.dcmread(seg)
    dataset.FrameOfReferenceUID = "2.25.7"
    dataset.save_as(seg)
    with pytest.raises(RegionsRefused):
        list(cases(f"dicom:{tmp_path / 'two'}", BERLIN))
