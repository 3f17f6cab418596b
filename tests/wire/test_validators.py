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

from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header, report, seg
from dicom_io.write.capture import summary_page
from dicom_io.write.concepts import derivation_code
from dicom_io.write.header import Reference
from dicom_io.write.parametric_map import parametric_map
from dicom_io.write.pet import Derivation, derived_pet
from dicom_io.write.rtstruct import structure_set
from engines.contract import Measurement, Quantity, Volume
from tests import findings, make, peers
from tests.findings import IDENTITY

SHAPE = (8, 16, 14)
INFORMATION_OBJECTS = {
    "seg": "Segmentation",
    "sr": "Comprehensive3DSR",
    "map": "ParametricMap",
    "pet": "PETImage",
    "rtstruct": "RTStructureSet",
    "capture": "SCImage",
}
"""What dciodvfy calls them, by the beginning of the names of `objects`."""
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

ALLOWED_WITHOUT_A_BODY_PART = (
    # Where the source names no body part, dciodvfy supposes a paired one and asks for its side (Type 2C).
    re.compile(r"Laterality.*Missing attribute|Missing attribute.*<Laterality>"),
)
ALLOWED = (
    *ALLOWED_WITHOUT_A_BODY_PART,
    # Study ID of the sarcoma studies has 18 characters: Patient and Study are the source's words, not ours to mend.
    re.compile(r"StudyID|Study ID"),
    # dciodvfy's summary line of the fault above.
    re.compile(r"^Error - Dicom dataset contains invalid data values for Value Representations$"),
)


ALLOWED_IN_A_LABEL_MAP = (
    # Debian's dicom3tools is older than Label Map Segmentation (Sup 243, 2024d): it does not know the object …
    re.compile(r"^Error - Information Object Not found$"),
    # … and not that segment 0 is the background there (PS3.3 C.8.20.2).
    re.compile(r"SegmentNumber not monotonically increasing from one by one .* with SegmentNumber of 0$"),
)


def information_object(name: str) -> str:
    return INFORMATION_OBJECTS[name.partition("-")[0]]


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
        "sr-not-processed": report.not_processed_report("code", "reason", source.datasets, IDENTITY, hint="hint"),
        "sr-regions": report.measurement_report(findings.nothing(measurements=TERRITORIES), source, None, IDENTITY),
    }


def second_forms(source: LoadedSeries, labels: NDArray[np.uint16] | None = None) -> dict[str, Dataset]:
    """What is written beside Segmentation and report."""
    found = findings.products(source, labels)
    flow = Volume(source.static.array * np.float32(0.25), source.volume.affine, Quantity.MBF)
    return {
        "map-mbf": parametric_map("MBF", flow, source, IDENTITY),
        "map-suv": parametric_map("SUV", replace(flow, quantity=Quantity.SUVBW), source, IDENTITY),
        "rtstruct": _present(structure_set(found, source, IDENTITY)),
        "capture": summary_page(found, source, IDENTITY),
    }


TERRITORIES = tuple(
    Measurement(name, 1.5, unit, region=region)
    for region in ("LAD", "global", "scar")
    for name, unit in (("K1", "ml/min/g"), ("k2", "/min"), ("MBF", "ml/min/g"), ("MFR", "1"))
)


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
    labels = np.zeros(source.volume.array.shape[-3:], np.uint16)
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
    source = synthetic(tmp_path, **more)
    for name, path in save(objects(source) | second_forms(source), tmp_path).items():
        assert errors(path, information_object=information_object(name)) == [], name


def test_dciodvfy_would_tell(tmp_path: Path) -> None:
    """The check itself: without a Type 1 attribute there is an error."""
    segmentation = objects(synthetic(tmp_path))["seg"]
    del segmentation.SegmentSequence[0].SegmentLabel
    path = save({"broken": segmentation}, tmp_path)["broken"]
    assert any("SegmentLabel" in line for line in errors(path, information_object="Segmentation"))


@pytest.mark.parametrize("study", ["STS_001", "STS_030"])
def test_dciodvfy_on_real_studies(tmp_path: Path, study: str) -> None:
    source, labels = sarcoma(study)
    for name, path in save(objects(source, labels) | second_forms(source, labels), tmp_path).items():
        assert errors(path, information_object=information_object(name), allowed=ALLOWED) == [], name


@pytest.mark.parametrize("quantity", [Quantity.K1, Quantity.K2, Quantity.MBF])
def test_dciodvfy_finds_no_error_in_maps_of_a_series_over_time(tmp_path: Path, quantity: Quantity) -> None:
    paths = findings.dynamic_series(tmp_path / "source", SHAPE, (10.0, 20.0, 60.0))
    source = load(paths, Quantity.ACTIVITY_BQML, findings.BERLIN)
    volume = Volume(source.volume.array[1] * np.float32(1e-4) - 1.0, source.volume.affine, quantity)
    derivation = Derivation(quantity.value, derivation_code(quantity), "One-tissue model.")
    written = {
        "map": parametric_map(quantity.value, volume, source, IDENTITY),
        "pet": derived_pet(volume, source, IDENTITY, derivation)[0],
        "seg": _present(seg.segmentation(findings.products(source), source, IDENTITY)),
        "rtstruct": _present(structure_set(findings.products(source), source, IDENTITY)),
    }
    for name, path in save(written, tmp_path).items():
        assert errors(path, information_object=information_object(name)) == [], name


def test_a_label_map_segmentation(tmp_path: Path) -> None:
    """dciodvfy knows no such object; DCMTK parses it and dcmqi reads every voxel, and what each segment is."""
    source = synthetic(tmp_path)
    dataset = _present(seg.segmentation(findings.products(source), source, IDENTITY, labelmap=True))
    path = save({"labelmap": dataset}, tmp_path)["labelmap"]
    for mode in ((), ("-new",)):
        lines = run(peers.program("dciodvfy"), *mode, path).stderr.splitlines()
        assert [
            x for x in lines if x.startswith("Error") and not any(p.search(x) for p in ALLOWED_IN_A_LABEL_MAP)
        ] == []
    dumped = run(peers.program("dcmdump"), "-q", path)
    assert (dumped.returncode, dumped.stderr) == (0, "")
    masks, meta = by_dcmqi(path, tmp_path / "out", source)
    labels = findings.corner_regions(SHAPE)
    assert np.array_equal(masks[1], labels == 3)
    assert np.array_equal(masks[2], labels == 9)
    named = {s["labelID"]: s["SegmentLabel"] for group in meta["segmentAttributes"] for s in group}
    assert (named[1], named[2]) == ("Lesion 1", "Lesion 2")


@pytest.mark.parametrize("flip", ["", "zyx"])
def test_dcmqi_reads_a_parametric_map(tmp_path: Path, flip: str) -> None:
    """ITK's float image, in its own geometry, has the very numbers at the very places."""
    source = synthetic(tmp_path, flip=flip)
    array = np.random.default_rng(2).normal(1.0, 2.0, SHAPE).astype(np.float32)
    volume = Volume(array, source.volume.affine, Quantity.K1)
    path = save({"map": parametric_map("K1", volume, source, IDENTITY)}, tmp_path)["map"]
    out = tmp_path / "out"
    out.mkdir()
    done = run(dcmqi("paramap2itkimage"), "--inputDICOM", path, "--outputDirectory", out, "-t", "nii")
    assert done.returncode == 0, done.stderr
    read: Any = nibabel.load(next(out.glob("*.nii*")))
    index = np.argwhere(np.ones(SHAPE, bool))
    places = source.volume.affine @ np.column_stack([index, np.ones(len(index))]).T
    there = np.rint(np.linalg.inv(LPS_FROM_RAS @ read.affine) @ places)[:3].astype(int)
    assert np.array_equal(np.asarray(read.dataobj)[tuple(there)], array[tuple(index.T)])
    (quantity,) = (json.loads((out / "meta.json").read_text())["QuantityValueCode"],)
    assert quantity["CodeValue"] == "K1"


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
    source = synthetic(tmp_path)
    for path in save(objects(source) | second_forms(source), tmp_path).values():
        done = run(peers.program("dcmdump"), "-q", path)
        assert (done.returncode, done.stderr) == (0, "")
        assert pydicom.dcmread(path).preamble == bytes(128)
