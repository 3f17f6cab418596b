"""How fast results become DICOM objects, and how large they are, beside highdicom called the plain way and dcmqi.

    python -m benchmarks.speed.write [--rounds 5] [--seed 1] [--small]

Four tasks: a whole-body Segmentation (600 × 400 × 400, 30 lesions of 10 to 40 mm in at most 220 frames), one of 40
segments, reading the first one back, and a derived series over time (27 frames of 47 × 128 × 128). "tracerd" is the
product up to its Part 10 bytes in memory. "highdicom, one array" is its constructor with the source data sets and the
label array, and its own save; "highdicom, masks" with a mask per segment, as its guide shows for several segments: it
takes a gigabyte of memory for five of them and thirty times as long, so that it runs in the first rounds only. dcmqi
writes the same regions from a NIfTI file, reading source headers and writing a file. "pydicom" copies every source
data set, puts other pixels in and writes it: no new header, no provenance.
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
from copy import deepcopy
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

from benchmarks.machine import BUSY_CORES, REPOSITORY, machine_cpu_s, our_cpu_s, provenance, rotated, write_result
from benchmarks.readme import markdown, rewrite
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header, seg
from dicom_io.write.pet import Derivation, derived_pet
from engines.contract import DynamicVolume, Quantity, Volume
from tests import findings, make
from tests.findings import BERLIN, IDENTITY

WHOLE_BODY, SPACING_MM = (600, 400, 400), (3.0, 2.0, 2.0)
DYNAMIC, FRAMES = (47, 128, 128), (*[10.0] * 12, *[30.0] * 6, *[60.0] * 6, *[120.0] * 3)
LESIONS, SEGMENTS = 30, 40
FRAMES_PER_LESION = 220 / 30
MASKS_ROUNDS = 2
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MASKS = "highdicom, masks"
GOALS = {
    "whole-body SEG, 30 lesions": {"seconds": 5.0, "megabytes": 5.0, "frames": 220},
    "read the 30 lesions back": {"seconds": 2.0},
    "series over time, 27 frames": {"seconds": 10.0},
}
"""What the product shall not exceed, on one core."""
Contestant = Callable[[], int]
"""Does the work and returns the number of bytes."""


def main() -> None:
    arguments = _arguments()
    console = Console(width=120)
    work = Path(tempfile.mkdtemp(prefix="write-", dir=arguments.folder))
    try:
        result = provenance(work, packages=["highdicom", "pydicom", "numpy", "dcmqi"])
        result |= {"seed": arguments.seed, "rounds": arguments.rounds, "small": arguments.small}
        result |= {"rounds_with_masks": min(MASKS_ROUNDS, arguments.rounds), "goals": GOALS}
        tasks, result["segment_frames"] = prepared(work, arguments.seed, small=arguments.small)
        result |= measure(tasks, arguments.rounds, console)
    finally:
        shutil.rmtree(work)
    show(console, result)
    if arguments.small:
        console.print("small run: nothing written")
        return
    path = write_result("write", result)
    rewrite(Path(__file__).with_name("README.md"), "benchmarks/results/write.json", table(result))
    console.print(f"written: {path.relative_to(REPOSITORY)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="an eighth of every length, to see that it works")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build", help="where the files are written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments


def prepared(work: Path, seed: int, *, small: bool) -> tuple[dict[str, dict[str, Contestant]], dict[str, int]]:
    """What is measured, task → contestant → function; and the number of slices that each of the segmentations has."""
    divisor = 8 if small else 1
    shape, over_time = (tuple(max(6, n // divisor) for n in full) for full in (WHOLE_BODY, DYNAMIC))
    spacing_mm = tuple(mm * divisor for mm in SPACING_MM)
    source, files = whole_body(work / "source", shape, spacing_mm)
    tasks, frames = {}, {}
    for name, count in (("whole-body SEG, 30 lesions", LESIONS), ("SEG of 40 segments", SEGMENTS)):
        labels, frames[name] = lesions(shape, spacing_mm, count, seed)
        tasks[name] = writers(source, files, labels, work / f"{count}")
    labels, _ = lesions(shape, spacing_mm, LESIONS, seed)
    written = seg.segmentation(findings.products(source, labels), source, IDENTITY)
    assert written is not None
    tasks["read the 30 lesions back"] = readers(header.encode(written), work / "read")
    tasks["series over time, 27 frames"] = series_over_time(work / "dynamic", over_time)
    return tasks, frames


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


def lesions(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], count: int, seed: int
) -> tuple[NDArray[np.uint16], int]:
    """Balls of 10 to 40 mm that do not touch, and on how many slices they lie; where there is no room, fewer.

    Those that come may take FRAMES_PER_LESION slices on average, less what the others need at least.
    """
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    frames, least = 0, int(10.0 / spacing_mm[0]) + 1
    for _ in range(100 * count):
        radius = random.triangular(5.0, 7.0, 20.0) / np.array(spacing_mm)
        centre = random.uniform(radius + 1, np.array(shape) - radius - 1)
        box = tuple(slice(int(c - r), int(c + r) + 2) for c, r in zip(centre, radius, strict=True))
        if labels[box].any():
            continue
        grid = np.ogrid[box]
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)) <= 1.0
        slices = int(inside.any(axis=(1, 2)).sum())
        left = count - int(labels.max()) - 1
        if slices == 0 or frames + slices + left * least > count * FRAMES_PER_LESION:
            continue
        labels[box][inside] = labels.max() + 1
        frames += slices
        if left == 0:
            break
    return labels, frames


def writers(source: LoadedSeries, files: list[Path], labels: NDArray[np.uint16], folder: Path) -> dict[str, Contestant]:
    """Who writes a segmentation, and how."""
    found = findings.products(source, labels)

    def ours(*, labelmap: bool) -> int:
        written = seg.segmentation(found, source, IDENTITY, labelmap=labelmap)
        assert written is not None
        return len(header.encode(written))

    contestants: dict[str, Contestant] = {
        "tracerd": lambda: ours(labelmap=False),
        "tracerd, label map": lambda: ours(labelmap=True),
        "highdicom, one array": lambda: plain_highdicom(source, labels, masks=False),
        MASKS: lambda: plain_highdicom(source, labels, masks=True),
    }
    if (program := dcmqi("itkimage2segimage")) is not None:
        folder.mkdir(parents=True)
        command = dcmqi_command(program, files, labels, source, folder)
        contestants["dcmqi"] = lambda: by_dcmqi(command, folder / "dcmqi.dcm")
    return contestants


def dcmqi(name: str) -> Path | None:
    """A dcmqi program: pip puts it beside the interpreter."""
    program = Path(sys.executable).with_name(name)
    return program if program.is_file() else None


def plain_highdicom(source: LoadedSeries, labels: NDArray[np.uint16], *, masks: bool) -> int:
    """Every slice of the source, with a stacked mask per segment or the label array."""
    numbers = np.arange(1, labels.max() + 1)
    algorithm = hd.AlgorithmIdentificationSequence("t", codes.cid7162.ArtificialIntelligence, "1")
    segmentation = hd.seg.Segmentation(
        source_images=list(source.datasets),
        pixel_array=np.stack([labels == number for number in numbers], axis=-1) if masks else labels,
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


def readers(encoded: bytes, folder: Path) -> dict[str, Contestant]:
    """Who reads our segmentation."""
    folder.mkdir()
    file = folder / "seg.dcm"
    file.write_bytes(encoded)

    def by_highdicom() -> int:
        read = hd.seg.Segmentation.from_dataset(findings.reread(encoded), copy=False)
        assert read.get_volume(combine_segments=True).array.any()
        return len(encoded)

    contestants: dict[str, Contestant] = {"highdicom": by_highdicom}
    if (program := dcmqi("segimage2itkimage")) is not None:
        command = [str(program), "--inputDICOM", str(file), "--outputDirectory", str(folder), "-t", "nii"]
        contestants["dcmqi"] = lambda: by_dcmqi([*command, "--mergeSegments"], folder / "1.nii.gz")
    return contestants


def series_over_time(folder: Path, shape: tuple[int, ...]) -> dict[str, Contestant]:
    """Derive a PET series from one of 27 frames: every number of it is another."""
    paths = findings.dynamic_series(folder, (shape[0], shape[1], shape[2]), FRAMES)
    source = load(paths, Quantity.ACTIVITY_BQML, BERLIN)
    assert isinstance(source.volume, DynamicVolume)
    computed = replace(source.volume, array=source.volume.array * np.float32(0.5))
    derivation = Derivation("Denoised", codes.cid7203.Smoothing, "A benchmark.")

    def ours() -> int:
        return sum(len(header.encode(image)) for image in derived_pet(computed, source, IDENTITY, derivation))

    def pydicom() -> int:
        planes = computed.array.reshape(-1, *computed.array.shape[-2:])
        return sum(copied(*pair, number) for number, pair in enumerate(zip(source.datasets, planes, strict=True)))

    return {"tracerd": ours, "pydicom": pydicom}


def copied(original: Dataset, plane: NDArray[np.float32], number: int) -> int:
    """The plain way to put other values into an image, with pydicom alone."""
    image = deepcopy(original)
    image.SeriesInstanceUID, image.SOPInstanceUID = "2.25.1", f"2.25.2.{number}"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    slope = float(plane.max()) / 65535 or 1.0
    image.RescaleSlope, image.RescaleIntercept = f"{slope:.10g}", "0"
    image.PixelData = np.rint(plane / slope).astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.tell()


def measure(tasks: Mapping[str, Mapping[str, Contestant]], rounds: int, console: Console) -> dict[str, Any]:
    """Seconds and bytes of every contestant, interleaved; a round in which others were busy is marked."""
    runs: dict[str, dict[str, list[dict[str, float]]]] = {task: {} for task in tasks}
    for number in range(rounds):
        for task, contestants in tasks.items():
            for name, function in rotated(list(contestants.items()), number):
                if name == MASKS and number >= MASKS_ROUNDS:
                    continue
                run = measured(function)
                console.print(f"round {number + 1}: {task}, {name}: {run['seconds']} s, {run['cpu_s']} s of CPU")
                runs[task].setdefault(name, []).append(run)
    medians = {task: {name: summary(of_one) for name, of_one in by_name.items()} for task, by_name in runs.items()}
    others = [run["other_cores"] for by_name in runs.values() for of_one in by_name.values() for run in of_one]
    return {
        "medians": medians,
        "quiet": max(others) <= BUSY_CORES,
        "median_others_cores": statistics.median(others),
        "busiest_others_cores": max(others),
        "runs": runs,
    }


def measured(function: Contestant) -> dict[str, float]:
    """One run: wall time, CPU time of it and its children, and the cores that others took meanwhile."""
    machine, ours, began = machine_cpu_s(), sum(our_cpu_s()), perf_counter()
    size = function()
    seconds, cpu_s = perf_counter() - began, sum(our_cpu_s()) - ours
    others = max(0.0, machine_cpu_s() - machine - cpu_s) / seconds
    return {
        "seconds": round(seconds, 4),
        "cpu_s": round(cpu_s, 4),
        "bytes": size,
        "other_cores": round(others, 2),
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the times; the size is the same in every run."""
    return {
        "rounds": len(runs),
        "median_s": round(statistics.median(run["seconds"] for run in runs), 4),
        "fastest_s": min(run["seconds"] for run in runs),
        "median_cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 4),
        "megabytes": round(runs[0]["bytes"] / 1e6, 3),
    }


def table(result: Mapping[str, Any]) -> str:
    """The Markdown table: seconds, CPU seconds relative to ours, size; and on what machine, how busy with others."""
    rows = []
    for task, by_name in result["medians"].items():
        ours_s = by_name.get("tracerd", next(iter(by_name.values())))["median_cpu_s"]
        for name, one in by_name.items():
            ratio = one["median_cpu_s"] / ours_s
            cells = f"{one['median_s']:.2f}", f"{one['median_cpu_s']:.2f} ({ratio:.2f})", f"{one['megabytes']:.2f}"
            rows.append([task, name, *cells, f"{one['rounds']:.0f}"])
    machine, frames = result["machine"], " and ".join(map(str, result["segment_frames"].values()))
    where = f"{machine['cpu']}, {machine['cores']} cores, of which others took {result['median_others_cores']} (median)"
    lines = markdown(["task", "by", "s", "CPU s (relative)", "MB", "rounds"], rows)
    return f"{lines}\n\n{where}. The segmentations have {frames} frames."


def show(console: Console, result: Mapping[str, Any]) -> None:
    console.print(table(result))
    if not result["quiet"]:
        console.print(f"others took {result['median_others_cores']} cores, at worst {result['busiest_others_cores']}")


if __name__ == "__main__":
    main()
