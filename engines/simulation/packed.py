"""Simulated studies as engines train on them, and how they are kept on disk: numbers in .npz, the rest in JSON.

Images are kept in 16 bits with one step for each image, or for each frame, as PET series are in DICOM. The error is at
most half a step, (highest − lowest) / 131070: 0.0004 SUV where the hottest voxel has 50. Whole numbers (HU) and zeros
of images without negative values are exact.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engines.contract import Case, DynamicVolume, Json, LabelMap, Quantity, Volume
from engines.durable import replace
from engines.simulation.study import Kind, Study

LEVELS = 65535
DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
"""What reading half a file, or another one, raises."""
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Example:
    """One study of a cohort.

    volumes : each on its own grid: "pet" [SUVbw] and "ct" [HU; its slices are those of the PET, its pixels are half as
        wide; not of nac], and "reference" [SUVbw] of lowcount and nac. Of Rb-82 "dynamic" and "reference" over time
        [Bq/mL], "ct", and "k1", "mbf" [mL/min/g] and "k2" [1/min]
    labels : "lesions", "organs" and, of Rb-82, "segments", on the grid of the PET
    facts : as of `study.Study`
    """

    kind: Kind
    seed: int
    volumes: Mapping[str, Volume | DynamicVolume]
    labels: Mapping[str, LabelMap]
    facts: Mapping[str, Json]

    @property
    def case(self) -> Case:
        """What static engines train on: the volumes as slots, "pet" first, and the lesions on its grid as the truth.

        Raises
        ------
        ValueError
            The study is dynamic.
        """
        still = {name: volume for name, volume in self.volumes.items() if isinstance(volume, Volume)}
        if len(still) < len(self.volumes):
            raise ValueError(f"case: expected a static study, got {self.kind}")
        return Case(still, self.labels["lesions"], f"seed {self.seed}")


def example(study: Study, seed: int) -> Example:
    """What engines want to know of a study; images are not yet rounded."""
    taken, volumes = study.acquisition, dict[str, Volume | DynamicVolume | None]()
    volumes |= {"pet": taken.pet, "dynamic": taken.dynamic, "ct": taken.ct}
    if study.reference is not taken.pet:
        volumes["reference"] = study.reference
    given: dict[str, Volume | DynamicVolume] = {name: each for name, each in volumes.items() if each is not None}
    if taken.dynamic is not None:
        affine = taken.dynamic.affine
        given |= {name: Volume(array, affine, Quantity(name)) for name, array in study.maps.items()}
    labels = {"lesions": study.lesions, "organs": study.organs}
    if study.segments is not None:
        labels["segments"] = study.segments
    return Example(study.kind, seed, given, labels, study.facts)


def packed(made: Example) -> tuple[Arrays, Json]:
    """Arrays for an .npz and the rest for JSON."""
    arrays, volumes = Arrays(), {}
    for name, volume in made.volumes.items():
        arrays[name], arrays[f"{name} lowest"], arrays[f"{name} step"] = _levels(volume.array)
        arrays[f"{name} affine"] = volume.affine
        volumes[name] = volume.quantity.value
        if isinstance(volume, DynamicVolume):
            arrays[f"{name} start_s"], arrays[f"{name} duration_s"] = volume.frame_start_s, volume.frame_duration_s
    names = {}
    for name, labels in made.labels.items():
        arrays[name], arrays[f"{name} affine"] = labels.array, labels.affine
        names[name] = {str(label): text for label, text in labels.names.items()}
    rest = {"kind": made.kind, "seed": made.seed, "volumes": volumes, "labels": names, "facts": dict(made.facts)}
    return arrays, rest


def unpacked(arrays: Mapping[str, NDArray[Any]], rest: Json) -> Example:
    """The study of what `packed` gave. Raises KeyError or ValueError where it did not."""
    volumes: dict[str, Volume | DynamicVolume] = {}
    for name, quantity in rest["volumes"].items():
        numbers = arrays[name].astype(np.float64) * arrays[f"{name} step"] + arrays[f"{name} lowest"]
        array, affine = numbers.astype(np.float32), np.asarray(arrays[f"{name} affine"], np.float64)
        if array.ndim == 3:
            volumes[name] = Volume(array, affine, Quantity(quantity))
            continue
        starts, lasting = (np.asarray(arrays[f"{name} {what}"], np.float64) for what in ("start_s", "duration_s"))
        volumes[name] = DynamicVolume(array, affine, Quantity(quantity), starts, lasting)
    labels = {
        name: LabelMap(
            np.asarray(arrays[name], np.uint16),
            np.asarray(arrays[f"{name} affine"], np.float64),
            {int(label): text for label, text in names.items()},
        )
        for name, names in rest["labels"].items()
    }
    return Example(rest["kind"], rest["seed"], volumes, labels, rest["facts"])


def _levels(array: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float64], NDArray[np.float64]]:
    """uint16 of the same shape, and lowest value and step of every image; a 4-D array holds several images."""
    axes = tuple(range(array.ndim - 3, array.ndim))
    lowest, highest = (end(array, axis=axes, keepdims=True).astype(np.float64) for end in (np.min, np.max))
    step = (highest - lowest) / LEVELS
    whole = np.all(array == np.rint(array), axis=axes, keepdims=True)
    step = np.where((step <= 0.0) | (whole & (step <= 1.0)), 1.0, step)
    return np.rint((array - lowest) / step).astype(np.uint16), lowest, step


def write(path: Path, arrays: Arrays, rest: Json) -> None:
    """Keep a study as PATH.npz and PATH.json, the latter last: where it is, both are whole."""

    def numbers(file: IO[bytes]) -> None:
        np.savez_compressed(file, allow_pickle=False, **arrays)

    replace(path.with_suffix(".npz"), numbers)
    text = json.dumps(rest, ensure_ascii=False, indent=1, allow_nan=False)
    replace(path.with_suffix(".json"), lambda file: file.write(text.encode()))


def read(path: Path) -> Example | None:
    """The study that `write` kept, None where it is missing or damaged."""
    try:
        rest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            return unpacked(dict(arrays), rest)
    except DAMAGED:
        return None
