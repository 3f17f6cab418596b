"""How fast results become DICOM objects, and how large they are, beside highdicom called the plain way and dcmqi.

    python -m benchmarks.speed.write [--rounds 5] [--seed 1] [--small]

Four numbers: a whole-body Segmentation (600 × 400 × 400, 30 lesions of 10 to 40 mm), one of 40 segments, reading the
first one back, and a derived series over time (27 frames of 47 × 128 × 128). "ours" is the product up to its Part 10
bytes in memory. "highdicom" is its constructor with the source data sets and a mask per segment, as its guide shows,
and its own save; dcmqi writes the same regions from a NIfTI file, reading source headers and writing a file.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from rich.console import Console
from rich.table import Table

from benchmarks.machine import BUSY_CORES, REPOSITORY, machine_cpu_s, our_cpu_s, provenance, rotated, write_result
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header, seg
from dicom_io.write.pet import Derivation, derived_pet
from engines.contract import DynamicVolume, Quantity, Volume
from tests import findings, make
from tests.findings import BERLIN, IDENTITY

WHOLE_BODY, SPACING_MM = (600, 400, 400), (3.0, 2.0, 2.0)
DYNAMIC, FRAMES = (47, 128, 128), (*[10.0] * 12, *[30.0] * 6, *[60.0] * 6, *[120.0] * 3)
LESIONS, SEGMENTS = 30, 40
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Contestant = Callable[[], int]
"""Does the work and returns the number of bytes."""


def main() -> None:
    arguments = _arguments()
    console = Console(width=120)
    work = Path(tempfile.mkdtemp(prefix="write-", dir=arguments.folder))
    try:
        result = provenance(work, packages=["highdicom", "pydicom", "numpy", "dcmqi"])
        result |= {"seed": arguments.seed, "rounds": arguments.rounds, "small": arguments.small}
        tasks = prepared(work, arguments.seed, small=arguments.small)
        result |= measure(tasks, arguments.rounds)
    finally:
        shutil.rmtree(work)
    show(console, result)
    path = write_result("write", result) if not arguments.small else None
    console.print(f"written: {path.relative_to(REPOSITORY)}" if path else "small run: nothing written")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="an eighth of every length, to see that it works")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="where the files are written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def prepared(work: Path, seed: int, *, small: bool) -> dict[str, dict[str, Contestant]]:
    """What is measured: task → contestant → function."""
    divisor = 8 if small else 1
    shape, over_time = (tuple(max(6, n // divisor) for n in full) for full in (WHOLE_BODY, DYNAMIC))
    spacing_mm = tuple(mm * divisor for mm in SPACING_MM)
    source, files = whole_body(work / "source", shape, spacing_mm)
    tasks = {}
    for name, count in (("whole-body SEG, 30 lesions", LESIONS), ("SEG of 40 segments", SEGMENTS)):
        labels = lesions(shape, spacing_mm, count, seed)
        tasks[name] = writers(source, files, labels, work / f"{count}")
    found = findings.products(source, lesions(shape, spacing_mm, LESIONS, seed))
    written = seg.segmentation(found, source, IDENTITY)
    assert written is not None
    encoded = header.encode(written)
    tasks["read the 30 lesions back"] = {"highdicom": lambda: read_back(encoded)}
    tasks["series over time, 27 frames"] = {"ours": series_over_time(work / "dynamic", over_time)}
    return tasks


def whole_body(folder: Path, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> tuple[LoadedSeries, list[Path]]:
    """Headers of a PET series and its files without pixels: no writer of segments looks at the source's."""
    template = dcmread(make.study(folder / "template", pet_shape=(2, 8, 8)).pet[0])
    del template.PixelData
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    affine[:2, 3] = -spacing_mm[1] * shape[1] / 2.0
    images, files = [], []
    for z in range(shape[0]):
        image = Dataset()
        image.update(template)
        image.file_meta = template.file_meta
        image.SOPInstanceUID = f"{template.SOPInstanceUID[:-6]}{z}"
        image.Rows, image.Columns, image.PixelSpacing = shape[1], shape[2], list(spacing_mm[1:])
        image.SliceThickness, image.ImageIndex = spacing_mm[0], z + 1
        image.ImagePositionPatient = [float(mm) for mm in (affine @ [z, 0, 0, 1])[:3]]
        images.append(image)
        files.append(make.save(image, folder / f"{z:04d}.dcm"))
    volume = Volume(np.zeros(shape, np.float32), affine, Quantity.SUVBW)
    return LoadedSeries(volume, tuple(images), "simulated"), files


def lesions(shape: tuple[int, ...], spacing_mm: tuple[float, ...], count: int, seed: int) -> NDArray[np.uint16]:
    """Balls of 10 to 40 mm that do not touch; where there is no room, fewer."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for _ in range(100 * count):
        radius = random.triangular(5.0, 7.0, 20.0) / np.array(spacing_mm)
        centre = random.uniform(radius + 1, np.array(shape) - radius - 1)
        box = tuple(slice(int(c - r), int(c + r) + 2) for c, r in zip(centre, radius, strict=True))
        if labels[box].any():
            continue
        grid = np.ogrid[box]
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)) <= 1.0
        labels[box][inside] = labels.max() + 1
        if labels.max() == count:
            break
    return labels


def writers(source: LoadedSeries, files: list[Path], labels: NDArray[np.uint16], folder: Path) -> dict[str, Contestant]:
    """Who writes a segmentation, and how."""
    found = findings.products(source, labels)

    def ours(*, labelmap: bool) -> int:
        written = seg.segmentation(found, source, IDENTITY, labelmap=labelmap)
        assert written is not None
        return len(header.encode(written))

    contestants: dict[str, Contestant] = {
        "ours": lambda: ours(labelmap=False),
        "ours, label map": lambda: ours(labelmap=True),
        "highdicom": lambda: plain_highdicom(source, labels),
    }
    if (program := Path(sys.executable).with_name("itkimage2segimage")).is_file():
        folder.mkdir(parents=True)
        command = dcmqi_command(program, files, labels, source, folder)
        contestants["dcmqi"] = lambda: by_dcmqi(command, folder / "dcmqi.dcm")
    return contestants


def plain_highdicom(source: LoadedSeries, labels: NDArray[np.uint16]) -> int:
    """One stacked mask per segment, every slice of the source."""
    numbers = np.arange(1, labels.max() + 1)
    algorithm = hd.AlgorithmIdentificationSequence("t", codes.cid7162.ArtificialIntelligence, "1")
    segmentation = hd.seg.Segmentation(
        source_images=list(source.datasets),
        pixel_array=np.stack([labels == number for number in numbers], axis=-1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=int(number),
                segment_label=f"Lesion {number}",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lesion,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
            )
            for number in numbers
        ],
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.2",
        instance_number=1,
        manufacturer="plain",
        manufacturer_model_name="plain",
        software_versions="1",
        device_serial_number="1",
    )
    buffer = BytesIO()
    segmentation.save_as(buffer)
    return len(buffer.getvalue())


def dcmqi_command(
    program: Path, files: list[Path], labels: NDArray[np.uint16], source: LoadedSeries, folder: Path
) -> list[str]:
    """dcmqi's writer with one NIfTI file for all regions and the least metadata it takes."""
    image = nibabel.Nifti1Image(
        np.ascontiguousarray(labels.transpose(2, 1, 0)), LPS_FROM_RAS @ source.volume.affine[:, [2, 1, 0, 3]]
    )
    nibabel.save(image, folder / "labels.nii.gz")
    described = [
        {
            "labelID": number,
            "SegmentDescription": f"Lesion {number}",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "t",
            "SegmentedPropertyCategoryCodeSequence": _code("49755003", "Morphologically Abnormal Structure"),
            "SegmentedPropertyTypeCodeSequence": _code("52988006", "Lesion"),
            "recommendedDisplayRGBValue": [255, 0, 0],
        }
        for number in range(1, int(labels.max()) + 1)
    ]
    metadata = {
        "ContentCreatorName": "t",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "t",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": [described],
    }
    (folder / "meta.json").write_text(json.dumps(metadata))
    arguments = {
        "--inputImageList": folder / "labels.nii.gz",
        "--inputMetadata": folder / "meta.json",
        "--inputDICOMDirectory": files[0].parent,
        "--outputDICOM": folder / "dcmqi.dcm",
    }
    return [str(program), *(str(word) for pair in arguments.items() for word in pair)]


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def by_dcmqi(command: list[str], written: Path) -> int:
    written.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not written.is_file():
        raise RuntimeError(f"dcmqi gave up: {done.stderr.strip()[-300:] or done.stdout.strip()[-300:]}")
    return written.stat().st_size


def read_back(encoded: bytes) -> int:
    read = hd.seg.Segmentation.from_dataset(findings.reread(encoded), copy=False)
    assert read.get_volume(combine_segments=True).array.any()
    return len(encoded)


def series_over_time(folder: Path, shape: tuple[int, ...]) -> Contestant:
    """Derive a PET series from one of 27 frames: every number of it is another."""
    paths = findings.dynamic_series(folder, (shape[0], shape[1], shape[2]), FRAMES)
    source = load(paths, Quantity.ACTIVITY_BQML, BERLIN)
    assert isinstance(source.volume, DynamicVolume)
    computed = replace(source.volume, array=source.volume.array * np.float32(0.5))
    derivation = Derivation("Denoised", codes.cid7203.Smoothing, "A benchmark.")

    def ours() -> int:
        return sum(len(header.encode(image)) for image in derived_pet(computed, source, IDENTITY, derivation))

    return ours


def measure(tasks: Mapping[str, Mapping[str, Contestant]], rounds: int) -> dict[str, Any]:
    """Seconds and bytes of every contestant, interleaved; a round in which others were busy is marked."""
    runs: dict[str, dict[str, list[dict[str, float]]]] = {task: {} for task in tasks}
    for number in range(rounds):
        for task, contestants in tasks.items():
            for name, function in rotated(list(contestants.items()), number):
                machine, ours, began = machine_cpu_s(), sum(our_cpu_s()), perf_counter()
                size = function()
                seconds = perf_counter() - began
                others = max(0.0, machine_cpu_s() - machine - (sum(our_cpu_s()) - ours)) / seconds
                run = {"seconds": round(seconds, 4), "bytes": size, "other_cores": round(others, 2)}
                runs[task].setdefault(name, []).append(run)
    medians = {
        task: {
            name: {
                "median_s": round(statistics.median(run["seconds"] for run in of_one), 4),
                "megabytes": round(of_one[0]["bytes"] / 1e6, 3),
            }
            for name, of_one in by_name.items()
        }
        for task, by_name in runs.items()
    }
    busiest = max(run["other_cores"] for by_name in runs.values() for of_one in by_name.values() for run in of_one)
    return {"medians": medians, "quiet": busiest <= BUSY_CORES, "busiest_others_cores": busiest, "runs": runs}


def show(console: Console, result: Mapping[str, Any]) -> None:
    table = Table("task", "writer", "median s", "MB", box=None)
    for task, by_name in result["medians"].items():
        for name, one in by_name.items():
            table.add_row(task, name, f"{one['median_s']:.3f}", f"{one['megabytes']:.2f}")
    console.print(table)
    if not result["quiet"]:
        console.print(f"others took up to {result['busiest_others_cores']} cores: not worth publishing", style="red")


if __name__ == "__main__":
    main()
