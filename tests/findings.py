"""Findings for the tests of the writers: a series read back from files, regions drawn on it, and a job's identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header, scanner
from dicom_io.write.header import Identity
from engines.contract import DynamicVolume, LabelMap, Lesion, Measurement, Products, Quantity
from engines.simulation import phantom
from tests import make

BERLIN = ZoneInfo("Europe/Berlin")
IDENTITY = Identity(
    job_key="5f" * 32,
    job_id=117,
    engine="threshold_segmentation",
    engine_version="1.0.0",
    tracerd_version="0.1.0",
    weights_sha256=None,
    created=datetime(2026, 7, 1, 22, 30, 15, 250000, tzinfo=UTC),
    parameters={"method": "fixed", "threshold_suv": 4.0, "size_ml": [0.5, None]},
    timezone=BERLIN,
    installation_id="node-7",
)
"""Created on 1 July 2026 22:30:15.25 UTC, which in Berlin (UTC+2 in July) is 2 July 00:30:15.25."""


def series(paths: Sequence[Path]) -> LoadedSeries:
    return load(paths, Quantity.SUVBW, BERLIN)


def dynamic_series(folder: Path, shape: tuple[int, int, int], durations_s: Sequence[float]) -> list[Path]:
    """A phantom over time as a scanner sends it, [Bq/mL]: another level in every frame, no two voxels alike."""
    scan = phantom.simulate(phantom.Plan(1, shape))
    assert scan.pet is not None
    frames = len(durations_s)
    rng = np.random.default_rng(5)
    level = np.linspace(0.2, 1.7, frames)[:, None, None, None] * 4000.0
    array = (level * (scan.pet.array + rng.uniform(0.1, 1.0, (frames, *shape)))).astype(np.float32)
    starts_s = np.concatenate([[0.0], np.cumsum(durations_s)[:-1]])
    dynamic = DynamicVolume(array, scan.pet.affine, Quantity.ACTIVITY_BQML, starts_s, np.array(durations_s, float))
    scan = replace(scan, pet=None, ct=None, truth=None, dynamic=dynamic, uptake_s=0.0)
    exam = scanner.Examination(started=make.STARTED, patient_id="SIM0001")
    images = scanner.write(scan, exam, new_uid=scanner.hashed_uids("tests dynamic"))
    return [make.save(image, folder / f"{index:05d}.dcm") for index, image in enumerate(images)]


def save(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """Encode as the node does, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.dcm" for index in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        path.write_bytes(header.encode(dataset))
    return paths


def corner_regions(shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Labels 3 and 9 without any symmetry: no flip or transposition of an axis maps them onto themselves."""
    labels = np.zeros(shape, np.uint16)
    labels[1:4, 2:5, 3:9] = 3
    labels[1, 2, 9] = 3
    labels[2:4, -3:-1, 1:4] = 9
    labels[3, -4, 1] = 9
    return labels


def products(source: LoadedSeries, labels: NDArray[np.uint16] | None = None, **more: Any) -> Products:
    """Two lesions, labels 3 and 9 with invented measures, unless `labels` or other fields say otherwise."""
    array = corner_regions(source.volume.array.shape[-3:]) if labels is None else labels
    present = [int(label) for label in np.unique(array) if label]
    names = {label: f"Lesion {number}" for number, label in enumerate(present, start=1)}
    found = Products(
        method="SUV ≥ 4 g/ml",
        label_map=LabelMap(array, source.volume.affine, names),
        lesions=tuple(lesion(label, int((array == label).sum())) for label in present),
        measurements=(
            Measurement("MTV", 16.25, "ml"),
            Measurement("TLG", 105.5, "g"),
            Measurement("threshold", 4.0, "g/ml{SUVbw}"),
        ),
        warnings=("Physiological uptake is not excluded.",),
    )
    return replace(found, **more)


def lesion(label: int, voxels: int) -> Lesion:
    return Lesion(
        label=label,
        voxels=voxels,
        volume_ml=8.125,
        suv_max=float(np.float32(12.3456789)),
        suv_mean=6.5,
        suv_peak=10.25 if label == 3 else None,
        tlg_g=52.8125,
        centroid_mm=(1.0, 2.0, 3.0),
        confidence=0.75 if label == 3 else None,
    )


def nothing(**more: Any) -> Products:
    empty = Products("SUV ≥ 4 g/ml", measurements=(Measurement("MTV", 0.0, "ml"), Measurement("TLG", 0.0, "g")))
    return replace(empty, **more)


def reread(encoded: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded))
