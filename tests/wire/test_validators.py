"""Our objects before other people's programs: dciodvfy, dcmqi and DCMTK read what we wrote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.volume import LoadedSeries
from dicom_io.write import header, report, seg
from dicom_io.write.header import Reference
from tests import findings, make, peers
from tests.findings import IDENTITY

SHAPE = (8, 16, 14)
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

ALLOWED = (
    # Study ID of the sarcoma studies has 18 characters: Patient and Study are the source's words, not ours to mend.
    re.compile(r"StudyID|Study ID"),
    # dciodvfy's summary line of the fault above.
    re.compile(r"^Error - Dicom dataset contains invalid data values for Value Representations$"),
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


def dcmqi(name: str) -> str:
    """A dcmqi program: pip puts it beside the interpreter."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.is_file() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: pip install dcmqi")
    return path


def errors(path: Path, *, information_object: str, allowed: Sequence[re.Pattern[str]] = ()) -> list[str]:
    """What dciodvfy holds against a file, in both of its modes."""
    found = []
    for mode in ((), ("-new",)):
        output = run(peers.program("dciodvfy"), *mode, path)
        lines = output.stderr.splitlines()
        assert information_object in lines or mode, lines
        found += [line for line in lines if line.startswith("Error") and not any(p.search(line) for p in allowed)]
    return found


def objects(source: LoadedSeries, labels: NDArray[np.uint16] | None = None) -> dict[str, Dataset]:
    found = findings.products(source, labels)
    segmentation = seg.segmentation(found, source, IDENTITY)
    assert segmentation is not None
    before = Reference("1.2.3", "1.2.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.5")
    successor = replace(IDENTITY, rerun=1, supersedes=(before,), weights_sha256="ab" * 32)
    return {
        "seg": segmentation,
        "seg-learned": _present(seg.segmentation(found, source, successor)),
        "seg-regions": _present(seg.segmentation(replace(found, lesions=()), source, IDENTITY)),
        "sr": report.measurement_report(found, source, segmentation, IDENTITY),
        "sr-successor": report.measurement_report(
            found, source, _present(seg.segmentation(found, source, successor)), successor
        ),
        "sr-none": report.measurement_report(findings.nothing(), source, None, IDENTITY),
        "sr-not-processed": report.not_processed_report("code", "reason", source.datasets, IDENTITY),
    }


def _present(dataset: Dataset | None) -> Dataset:
    assert dataset is not None
    return dataset


def save(datasets: dict[str, Dataset], folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.dcm" for name in datasets}
    for name, dataset in datasets.items():
        paths[name].write_bytes(header.encode(dataset))
    return paths


def synthetic(folder: Path, **more: Any) -> LoadedSeries:
    return findings.series(make.study(folder / "study", pet_shape=SHAPE, **more).pet)


def sarcoma(study: str) -> tuple[LoadedSeries, NDArray[np.uint16]]:
    """A real PET series and its tumour, drawn by physicians, as labels on its grid."""
    folder = peers.unpack_sarcoma(study)
    source = findings.series(sorted((folder / "PET" / "image").glob("*.dcm")))
    drawn: Any = nibabel.load(folder / "gtv_on_pet.nii.gz")
    voxels = np.argwhere(np.asarray(drawn.dataobj) > 0)
    return source, draw(source, voxels, LPS_FROM_RAS @ drawn.affine)


def draw(source: LoadedSeries, voxels: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Voxels of an image (x, y, z; affine to LPS mm) → labels on the source's grid, through the patient's space."""
    places = affine @ np.column_stack([voxels, np.ones(len(voxels))]).T
    index = np.linalg.inv(source.volume.affine) @ places
    rounded = np.rint(index[:3]).astype(int)
    assert np.abs(index[:3] - rounded).max() < 0.02
    labels = np.zeros(source.volume.array.shape, np.uint16)
    labels[tuple(rounded)] = 1
    return labels


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"flip": "zy"},
        {"omit": ["PatientID", "StudyTime", "AccessionNumber", "Manufacturer", "SpecificCharacterSet"]},
        {"change": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}},
        {"edit": lambda dataset: setattr(dataset, "TimezoneOffsetFromUTC", "+0100")},
    ],
    ids=["plain", "flipped", "bare", "latin-1", "offset"],
)
def test_dciodvfy_finds_no_error(tmp_path: Path, more: dict[str, Any]) -> None:
    for name, path in save(objects(synthetic(tmp_path, **more)), tmp_path).items():
        kind = "Segmentation" if name.startswith("seg") else "Comprehensive3DSR"
        assert errors(path, information_object=kind) == [], name


def test_dciodvfy_would_tell(tmp_path: Path) -> None:
    """The check itself: without a Type 1 attribute there is an error."""
    segmentation = objects(synthetic(tmp_path))["seg"]
    del segmentation.SegmentSequence[0].SegmentLabel
    path = save({"broken": segmentation}, tmp_path)["broken"]
    assert any("SegmentLabel" in line for line in errors(path, information_object="Segmentation"))


@pytest.mark.parametrize("study", ["STS_001", "STS_030"])
def test_dciodvfy_on_real_studies(tmp_path: Path, study: str) -> None:
    source, labels = sarcoma(study)
    for name, path in save(objects(source, labels), tmp_path).items():
        kind = "Segmentation" if name.startswith("seg") else "Comprehensive3DSR"
        assert errors(path, information_object=kind, allowed=ALLOWED) == [], name


def by_dcmqi(path: Path, folder: Path, source: LoadedSeries) -> tuple[dict[int, NDArray[np.uint16]], dict[str, Any]]:
    """Segment number → mask on the source's grid, and the metadata, as dcmqi's C++ reader sees them."""
    folder.mkdir()
    done = run(dcmqi("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "-t", "nii")
    assert done.returncode == 0, done.stderr
    assert "absent" not in done.stdout + done.stderr
    meta = json.loads((folder / "meta.json").read_text())
    masks = {}
    for image in folder.glob("*.nii*"):
        read: Any = nibabel.load(image)
        data = np.asarray(read.dataobj)
        for number in np.unique(data[data > 0]):
            masks[int(number)] = draw(source, np.argwhere(data == number), LPS_FROM_RAS @ read.affine)
    return masks, meta


@pytest.mark.parametrize("flip", ["", "y", "z", "x"])
def test_dcmqi_reads_every_voxel(tmp_path: Path, flip: str) -> None:
    source = synthetic(tmp_path, flip=flip)
    path = save(objects(source), tmp_path)["seg"]
    masks, meta = by_dcmqi(path, tmp_path / "out", source)
    labels = findings.corner_regions(SHAPE)
    assert set(masks) == {1, 2}
    assert np.array_equal(masks[1], labels == 3)
    assert np.array_equal(masks[2], labels == 9)
    segments = {s["labelID"]: s for group in meta["segmentAttributes"] for s in group}
    assert segments[2]["SegmentLabel"] == "Lesion 2"
    assert segments[2]["TrackingUniqueIdentifier"] == IDENTITY.uid("region", "tracking", 9)


@pytest.mark.parametrize("study", ["STS_001", "STS_030"])
def test_dcmqi_reads_a_real_tumour(tmp_path: Path, study: str) -> None:
    source, labels = sarcoma(study)
    masks, _ = by_dcmqi(save(objects(source, labels), tmp_path)["seg"], tmp_path / "out", source)
    assert np.array_equal(masks[1], labels)
    assert labels.sum() > 100


def test_dcmqi_reads_the_report(tmp_path: Path) -> None:
    source = synthetic(tmp_path)
    datasets = objects(source)
    path = save(datasets, tmp_path)["sr"]
    done = run(dcmqi("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    assert done.returncode == 0, done.stderr
    read = json.loads((tmp_path / "sr.json").read_text())
    assert read["VerificationFlag"] == "UNVERIFIED"
    first, second, whole = read["Measurements"]
    assert (first["ReferencedSegment"], second["ReferencedSegment"]) == (1, 2)
    assert first["TrackingUniqueIdentifier"] == datasets["seg"].SegmentSequence[0].TrackingUID
    assert first["SourceSeriesForImageSegmentation"] == source.datasets[0].SeriesInstanceUID
    measured = {
        (item["quantity"]["CodeValue"], item.get("derivationModifier", {}).get("CodeMeaning")): (
            item["value"],
            item["units"]["CodeValue"],
        )
        for item in first["measurementItems"]
    }
    assert measured == {
        ("126401", "Maximum"): ("12.3457", "g/ml{SUVbw}"),
        ("126401", "Mean"): ("6.5", "g/ml{SUVbw}"),
        ("126401", "Peak Value Within ROI"): ("10.25", "g/ml{SUVbw}"),
        ("118565006", None): ("8.125", "ml"),
        ("126032", None): ("8.125", "ml"),
        ("126033", None): ("52.8125", "g"),
        ("111012", None): ("75", "%"),
    }
    assert whole["TrackingIdentifier"] == "Whole image"


@pytest.mark.parametrize("name", ["sr-none", "sr-not-processed"])
def test_dcmqi_reads_reports_without_lesions(tmp_path: Path, name: str) -> None:
    path = save(objects(synthetic(tmp_path)), tmp_path)[name]
    done = run(dcmqi("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    assert done.returncode == 0, done.stderr
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == (["Whole image"] if name == "sr-none" else [])


def test_dcmtk_shows_the_reports(tmp_path: Path) -> None:
    said = {
        "sr": "2 lesions found.",
        "sr-none": "No lesion found.",
        "sr-not-processed": "Not processed: reason",
    }
    paths = save(objects(synthetic(tmp_path)), tmp_path)
    for name, words in said.items():
        done = run(peers.program("dsrdump"), "+Pl", paths[name])
        assert done.returncode == 0, done.stderr
        # DCMTK checks no value representations in UTF-8, and says so
        assert [line for line in done.stderr.splitlines() if "ISO_IR 192" not in line] == []
        assert words in done.stdout
        assert "RESEARCH USE ONLY" in done.stdout


def test_dcmtk_parses_every_object_without_a_word(tmp_path: Path) -> None:
    for path in save(objects(synthetic(tmp_path)), tmp_path).values():
        done = run(peers.program("dcmdump"), "-q", path)
        assert (done.returncode, done.stderr) == (0, "")
        assert pydicom.dcmread(path).preamble == bytes(128)
