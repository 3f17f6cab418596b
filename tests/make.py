"""The one builder of synthetic studies for every test: a phantom, written as a scanner sends it, with chosen faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.write import scanner
from engines.contract import Acquisition, Volume
from engines.simulation import phantom

STARTED = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""Start of the PET series unless a test says otherwise."""


@dataclass(frozen=True)
class Study:
    """A written study: one entry per file in the order of the slices, and what a perfect reader gets from it.

    suv is float32 (z, y, x) before the rounding to 16 bits: a reader is within half a rescale slope of it, that is
    max(slice) / 65534 of each slice. suv, truth and affine are in the order in which the slices were written.
    """

    pet: list[Path]
    ct: list[Path]
    datasets: list[Dataset]
    acquisition: Acquisition
    study_uid: str
    pet_uid: str
    ct_uid: str
    frame_of_reference_uid: str
    suv: NDArray[np.float32] = field(repr=False)
    truth: NDArray[np.uint16] = field(repr=False)
    affine: NDArray[np.float64]

    @property
    def files(self) -> list[Path]:
        return [*self.ct, *self.pet]


def study(
    folder: Path,
    *,
    seed: int = 1,
    pet_shape: tuple[int, int, int] = (30, 32, 32),
    ct_shape: tuple[int, int, int] | None = None,
    plan: dict[str, Any] | None = None,
    acquisition: dict[str, Any] | None = None,
    examination: dict[str, Any] | None = None,
    flip: str = "",
    tilt_deg: float = 0.0,
    missing: Sequence[int] = (),
    omit: Sequence[str] = (),
    change: dict[str, Any] | None = None,
    edit: Callable[[Dataset], None] | None = None,
) -> Study:
    """Write a synthetic PET(/CT) study to folder/CT and folder/PT and say what is in it.

    seed : another seed is another patient, other lesions and other UIDs; the UIDs depend on nothing else, so that two
        calls with one seed and another value are two versions of the same instances
    plan, acquisition, examination : fields of phantom.Plan, contract.Acquisition and scanner.Examination to set
    flip : any of "z", "y", "x": the PET's array axis runs the other way, anatomy stays in place
    tilt_deg : every series is sheared as by a gantry tilt
    missing : indices of PET slices left out
    omit, change : keywords removed from, or set in, every PET instance (None = empty value); those of the injection
        (RadionuclideTotalDose, RadiopharmaceuticalStartTime …) in its sequence item
    edit : last word on every instance, PET and CT; the file meta information follows it
    """
    scan = phantom.simulate(phantom.Plan(seed, pet_shape, ct_shape, **(plan or {})))
    scan = _turned(replace(scan, **(acquisition or {})), flip, tilt_deg)
    exam = scanner.Examination(**{"started": STARTED, "patient_id": f"SIM{seed:04d}", **(examination or {})})
    new_uid = scanner.hashed_uids(f"tests {seed}")
    instances = scanner.write(scan, exam, new_uid=new_uid)
    cts = [dataset for dataset in instances if dataset.Modality == "CT"]
    pets = [dataset for dataset in instances if dataset.Modality == "PT"]
    pets = [dataset for index, dataset in enumerate(pets) if index not in missing]
    for dataset in pets:
        _alter(dataset, omit, change or {})
    for dataset in (*cts, *pets):
        if edit is not None:
            edit(dataset)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID")
    pet, truth = scan.pet, scan.truth
    assert pet is not None and truth is not None
    return Study(
        pet=[save(dataset, folder / "PT" / f"{index:04d}.dcm") for index, dataset in enumerate(pets)],
        ct=[save(dataset, folder / "CT" / f"{index:04d}.dcm") for index, dataset in enumerate(cts)],
        datasets=[*cts, *pets],
        acquisition=scan,
        study_uid=new_uid("study", 0),
        pet_uid=new_uid("pet series", 0),
        ct_uid=new_uid("ct series", 0),
        frame_of_reference_uid=new_uid("frame of reference", 0),
        suv=pet.array,
        truth=truth.array,
        affine=pet.affine,
    )


def save(dataset: Dataset, path: Path) -> Path:
    """Write one Part 10 file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _alter(dataset: Dataset, omit: Sequence[str], change: dict[str, Any]) -> None:
    for keyword in omit:
        if keyword in dataset:
            delattr(dataset, keyword)
        for item in dataset.get("RadiopharmaceuticalInformationSequence", []):
            if keyword in item:
                delattr(item, keyword)
    for keyword, value in change.items():
        injections = dataset.get("RadiopharmaceuticalInformationSequence") or [dataset]
        setattr(injections[0] if keyword in injections[0] else dataset, keyword, value)


def _turned(scan: Acquisition, flip: str, tilt_deg: float) -> Acquisition:
    """The same body on a PET grid whose axes run the other way, or sheared along y as by a tilted gantry."""
    pet, ct, truth = scan.pet, scan.ct, scan.truth
    assert pet is not None and truth is not None
    for axis in ("zyx".index(letter) for letter in flip):
        affine = pet.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (pet.array.shape[axis] - 1)
        affine[:3, axis] *= -1.0
        pet = Volume(np.ascontiguousarray(np.flip(pet.array, axis)), affine, pet.quantity)
        truth = replace(truth, array=np.ascontiguousarray(np.flip(truth.array, axis)), affine=affine)
    if tilt_deg:
        pet, truth = (
            replace(pet, affine=_sheared(pet.affine, tilt_deg)),
            replace(truth, affine=_sheared(pet.affine, tilt_deg)),
        )
        ct = ct and replace(ct, affine=_sheared(ct.affine, tilt_deg))
    return replace(scan, pet=pet, ct=ct, truth=truth)


def _sheared(affine: NDArray[np.float64], tilt_deg: float) -> NDArray[np.float64]:
    sheared = affine.copy()
    sheared[1, 0] = abs(affine[2, 0]) * np.tan(np.radians(tilt_deg))
    return sheared
