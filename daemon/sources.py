"""Where cases come from: simulated cohorts, the node's own store, folders of DICOM, AutoPET, nnU-Net or plain NIfTI.

A source is named KIND:PLACE, and may end in #N for its first N cases:

    cohort:fdg-train          simulated studies, kept in a cache
    dicom:FOLDER              PET, CT and a SEG or RTSTRUCT drawn on the PET; every study in folders of its own
    store:NODE.yaml           the studies of a node that have a SEG or RTSTRUCT which somebody sent
    autopet:FOLDER            PATIENT/STUDY/{SUV,CTres,SEG}.nii.gz
    nnunet:FOLDER             imagesTr/CASE_0000 (CT), _0001 (SUV), labelsTr/CASE; channels as dataset.json names them
    nifti:FOLDER              CASE/{pet,ct,truth}.nii.gz, the CT on a grid of its own if it likes

NIfTI does not say what its numbers mean: a PET has to be SUV by body weight, a CT Hounsfield units. What cannot be
that is refused, as is a truth that is not on the grid of its PET. A case is read when it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import overload

import numpy as np

from daemon import dicom_cases, nifti
from dicom_io.geometry import apart_mm
from engines.contract import Case, LabelMap, Quantity, Volume
from engines.errors import CaseRefused, EngineError
from engines.simulation.cohort import cohort

Loader = Callable[[], Case]
KINDS = ("cohort", "dicom", "store", "autopet", "nnunet", "nifti")
SAME_GRID_VOXELS = 0.1
"""How far a voxel may lie from the same one of another file."""
SUV_MAX = 50.0
"""Of 99 voxels in 100: more than that is Bq/mL, whatever the file is called."""
SUFFIXES = (".nii.gz", ".nii")
PAIRS: Mapping[str, tuple[str, ...]] = {
    "pet": ("pet", "PET", "suv", "SUV"),
    "ct": ("ct", "CT", "CTres", "CT_resample"),
    "truth": ("truth", "lesions", "mask", "seg", "SEG", "tumorSeg"),
}
AUTOPET: Mapping[str, tuple[str, ...]] = {"pet": ("SUV",), "ct": ("CTres",), "truth": ("SEG",)}
"""PET.nii.gz beside them is in Bq/mL, CT.nii.gz on the grid of the CT (lab-midas/TCIA_processing)."""
_PATIENT = re.compile(r"(?:PETCT|fdg|psma)_[0-9a-f]{8,}(?=_)")
"""How identifiers of AutoPET begin: what comes behind it names the examination."""


class UnknownSource(EngineError):
    """No source of cases of that kind or name."""

    code = "unknown-source"
    hint = f"Name it KIND:PLACE with one of {', '.join(KINDS)}, such as cohort:fdg-train or dicom:FOLDER."


@dataclass(frozen=True, slots=True)
class Reading:
    """How cases are read.

    cache : folder that keeps simulated studies, None = they are made every time they are asked for
    for_evaluation : nothing is chosen by them, so that test cohorts may be read
    timezone : of the scanners' clocks, for DICOM times without an offset
    """

    cache: Path | None = None
    for_evaluation: bool = False
    timezone: tzinfo = UTC


class Cases(Sequence[Case]):
    """Cases that are read when they are asked for, every time anew."""

    def __init__(self, name: str, loaders: Sequence[Loader]) -> None:
        self.name = name
        self.loaders = tuple(loaders)

    def __len__(self) -> int:
        return len(self.loaders)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Cases: ...
    def __getitem__(self, index: int | slice) -> Case | Cases:
        if isinstance(index, slice):
            return Cases(self.name, self.loaders[index])
        return self.loaders[index]()

    def __add__(self, other: Cases) -> Cases:
        return Cases(f"{self.name} + {other.name}", self.loaders + other.loaders)


def cases(spec: str, reading: Reading) -> Cases:
    """The cases of a source; see the module's docstring for its name.

    Raises
    ------
    UnknownSource
        No such kind, cohort or folder, or nothing in it.
    engines.simulation.cohort.ForEvaluationOnly
        A test cohort for anything else than evaluation.
    config.load.ConfigError, db.errors.DatabaseError
        Of a store.
    CaseRefused, dicom_io.errors.DicomError
        Not here, but when a case is read.
    """
    kind, _, rest = spec.partition(":")
    place, _, first = rest.partition("#")
    if kind not in KINDS or not place or (first and not first.isdecimal()):
        raise UnknownSource(f"source {spec!r}: expected KIND:PLACE or KIND:PLACE#N")
    if kind == "cohort":
        loaders = _cohort(place, reading)
    elif kind == "store":
        loaders = dicom_cases.of_store(Path(place))
    else:
        loaders = _of_folder(kind, Path(place), reading)
    if not loaders:
        raise UnknownSource(f"source {spec!r}: expected cases, found none", code="no-cases")
    return Cases(spec, loaders[: int(first)] if first else loaders)


def _of_folder(kind: str, folder: Path, reading: Reading) -> list[Loader]:
    if not folder.is_dir():
        raise UnknownSource(f"{folder}: expected a folder", code="no-folder", hint="Check the path behind the colon.")
    if kind == "dicom":
        return dicom_cases.of_folder(folder, reading.timezone)
    if kind == "nnunet":
        return _nnunet(folder)
    return _autopet(folder) if kind == "autopet" else _pairs(folder)


def _cohort(name: str, reading: Reading) -> list[Loader]:
    chosen = cohort(name)
    chosen.check_use(for_evaluation=reading.for_evaluation)
    return [
        lambda seed=seed, kind=kind: chosen.study(seed, kind, reading.cache).case  # type: ignore[misc]  # PEP 484 has no words for defaults of lambdas
        for seed, kind in chosen.examined()
    ]


def _autopet(folder: Path) -> list[Loader]:
    """A patient's studies share the folder above theirs."""
    found = sorted({path.parent for suffix in SUFFIXES for path in folder.rglob(f"SUV{suffix}")})
    return [_loader(_named(each, AUTOPET), _patient(each, folder)) for each in found]


def _patient(study: Path, top: Path) -> str:
    """The folder above a study, or the study where that is the folder of everything."""
    return str((study if study.parent == top else study.parent).relative_to(top))


def _pairs(folder: Path) -> list[Loader]:
    """A folder for each case, at any depth; the patient is the case."""
    found = sorted({path.parent for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}")})
    return [_loader(_named(each, PAIRS), str(each.relative_to(folder)), one_grid=False) for each in found]


def _named(folder: Path, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """Role → file. Raises CaseRefused where one has none or several files."""
    found = {}
    for role, stems in names.items():
        there = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
        there = [path for path in there if path.is_file()]
        if len(there) != 1:
            wanted = " or ".join(stems)
            text = f"{folder}: expected one file for {role} ({wanted}.nii.gz), got {len(there)}"
            raise CaseRefused(text, code="files")
        found[role] = there[0]
    return found


def _nnunet(folder: Path) -> list[Loader]:
    """nnU-Net's raw layout: images by channel, a label of the same name (nnU-Net v2, dataset_format.md)."""
    channels, names = _channels(folder)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    loaders = []
    for label in sorted(path for suffix in SUFFIXES for path in labels.glob(f"*{suffix}")):
        suffix = next(suffix for suffix in SUFFIXES if label.name.endswith(suffix))
        identifier = label.name.removesuffix(suffix)
        files = {role: images / f"{identifier}_{number:04d}{suffix}" for role, number in channels.items()}
        patient = _PATIENT.match(identifier)
        loaders.append(_loader({**files, "truth": label}, patient.group() if patient else identifier, names=names))
    return loaders


def _channels(folder: Path) -> tuple[dict[str, int], dict[int, str]]:
    """Role → channel, and label → name, as dataset.json says; without it as AutoPET has them: CT first, then SUV."""
    described = folder / "dataset.json"
    if not described.is_file():
        return {"pet": 1, "ct": 0}, {}
    try:
        document = json.loads(described.read_text(encoding="utf-8"))
        named = document.get("channel_names", document.get("modality"))
        numbers = {str(name).lower(): int(number) for number, name in named.items()}
        labels = {int(n): str(name) for name, n in document["labels"].items() if isinstance(n, int) and n > 0}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"{described}: expected channel_names and labels as nnU-Net writes them"
        raise CaseRefused(message, code="dataset-json") from error
    pet = [numbers[name] for name in numbers if re.search(r"pet|suv", name)]
    ct = [numbers[name] for name in numbers if re.search(r"(?<![a-z])ct", name)]
    if set(numbers) == {"ct"} or (len(pet), len(ct)) != (1, 1) or len(numbers) != 2:
        shown = ", ".join(f"{number} {name}" for name, number in numbers.items())
        text = f"{described}: expected one channel named CT and one named PET or SUV, got {shown}"
        raise CaseRefused(text, code="channels", hint="Correct channel_names: they say which file is which.")
    return {"pet": pet[0], "ct": ct[0]}, labels


def _loader(
    files: Mapping[str, Path], group: str, *, one_grid: bool = True, names: Mapping[int, str] | None = None
) -> Loader:
    return lambda: _case(files, group, one_grid=one_grid, names=names or {1: "Lesion"})


def _case(files: Mapping[str, Path], group: str, *, one_grid: bool, names: Mapping[int, str]) -> Case:
    for path in files.values():
        if not path.is_file():
            raise CaseRefused(f"{path}: expected a file, there is none", code="files")
    pet = nifti.read_volume(files["pet"], Quantity.SUVBW)
    ct = nifti.read_volume(files["ct"], Quantity.HU)
    truth = nifti.read_labels(files["truth"], names)
    _check_units(pet, ct, files)
    check_grid(truth, pet, files["truth"].name)
    if one_grid:
        check_grid(ct, pet, files["ct"].name)
    return Case({"pet": pet, "ct": ct}, truth, group)


def check_grid(other: Volume | LabelMap, pet: Volume, name: str) -> None:
    """Raise CaseRefused where an image does not lie on the grid of the PET, voxel for voxel."""
    if other.array.shape != pet.array.shape:
        text = f"{name}: expected the grid of the PET, {pet.array.shape}, got {other.array.shape}"
        raise CaseRefused(text, code="grid")
    apart = apart_mm(other.affine, pet.affine, pet.array.shape)
    if apart > SAME_GRID_VOXELS * min(pet.spacing_mm):
        raise CaseRefused(f"{name}: expected the grid of the PET, got one up to {apart:.2f} mm away", code="grid")


def _check_units(pet: Volume, ct: Volume, files: Mapping[str, Path]) -> None:
    usual = float(np.percentile(pet.array, 99.0))
    if usual > SUV_MAX:
        text = f"{files['pet'].name}: expected SUV by body weight, got numbers such as {usual:.0f}"
        raise CaseRefused(text, code="not-suv", hint="Divide Bq/mL by decayed dose per body weight, or use the DICOM.")
    if float(ct.array.min()) >= 0.0:
        text = f"{files['ct'].name}: expected Hounsfield units with air below 0, got nothing below 0"
        raise CaseRefused(text, code="not-hu", hint="Subtract 1024 if the numbers are as the CT stored them.")
