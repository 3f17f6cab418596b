"""Every writer × every kind of source, read by programs that are not ours: the values come back, and nobody complains.

dciodvfy, dcmdump     every object
dcmqi                 Segmentation, Label Map, report, Parametric Map
dicom3tools' readers  report (dcsrdump), derived PET (dctopgx), page (dctopnm): they read no multi-frame image
highdicom             every object but RT Structure Set
pydicom, numpy        the SUV of derived PET from source and copy, and the contours
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header
from dicom_io.write.kinds import KINDS
from dicom_io.write.makers import MakerName
from dicom_io.write.objects import objects
from engines.contract import Affine, DynamicVolume, Quantity, Volume
from tests import findings, make, make_enhanced, peers
from tests.findings import BERLIN, IDENTITY
from tests.unit import test_simulated_study as simulated
from tests.unit.test_enhanced_results import SOURCES as MULTI_FRAME
from tests.unit.test_rtstruct import rasterised
from tests.wire.test_validators import (
    ALLOWED,
    ALLOWED_IN_A_LABEL_MAP,
    ALLOWED_WITHOUT_A_BODY_PART,
    INFORMATION_OBJECTS,
    LPS_FROM_RAS,
    by_dcmqi,
    dcmqi,
    errors,
    run,
    sarcoma,
)

SHAPE = (8, 16, 14)
CALLED = INFORMATION_OBJECTS | {
    "parametric_map": INFORMATION_OBJECTS["map"],
    "labelmap": "Error - Information Object Not found",
    "sr_labelmap": INFORMATION_OBJECTS["sr"],
}
"""What dciodvfy calls each of the kinds; of a Label Map it says that it does not know it."""
ALLOWED_OF_A_LABEL_MAP = {
    "labelmap": ALLOWED_IN_A_LABEL_MAP,
    # Debian's dicom3tools does not know that a Label Map is a segmentation either (Sup 243, 2024d)
    "sr_labelmap": (re.compile("Shall not be present for Referenced SOP Class that is not segmentation"),),
}
HALF = np.float32(0.5)
INJECTIONS = "RadiopharmaceuticalInformationSequence"


@dataclass(frozen=True)
class World:
    """A source, what was found on it, and every object written of that.

    computed : what an engine might have made of the images: half of every value, in a series of its own
    """

    files: list[Path]
    source: LoadedSeries
    labels: NDArray[np.uint16]
    computed: Volume | DynamicVolume
    mapped: Volume
    paths: Mapping[str, list[Path]] = field(default_factory=dict)


def _made(**more: Any) -> Callable[[Path], list[Path]]:
    return lambda folder: make.study(folder, pet_shape=SHAPE, **more).pet


def _multi_frame(name: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        folder.mkdir()
        MULTI_FRAME[name](folder)
        return sorted(folder.glob("*.dcm"))

    return write


def _enhanced_over_time(folder: Path) -> list[Path]:
    frames = make_enhanced.dynamic(6, [10.0, 20.0, 60.0])
    return [
        make.save(
            make_enhanced.enhanced_pet(frames, make_enhanced.pixels(len(frames), 12, 14)), folder / "enhanced.dcm"
        )
    ]


def _sarcoma(study: str) -> Callable[[Path], list[Path]]:
    return lambda folder: sorted((peers.unpack_sarcoma(study) / "PET" / "image").glob("*.dcm"))


FILES: Mapping[str, Callable[[Path], list[Path]]] = {
    "phantom": _made(),
    "phantom, beds": _made(examination={"beds": 2}, flip="zy"),
    "phantom, bare": _made(
        omit=["CollimatorType", "PatientOrientationCodeSequence", "Manufacturer", "BodyPartExamined"]
    ),
    "phantom over time": lambda folder: findings.dynamic_series(folder, SHAPE, (10.0, 20.0, 60.0)),
    "Siemens-like": lambda folder: _simulated("fdg", "siemens", folder),
    "GE-like": lambda folder: _simulated("fdg", "ge", folder),
    "Philips-like": lambda folder: _simulated("fdg", "philips", folder),
    "Rb-82 over time": lambda folder: _simulated("rb82-stress", "siemens", folder),
    "Rb-82 over time, GE-like": lambda folder: _simulated("rb82-stress", "ge", folder),
    **{f"multi-frame, {name}": _multi_frame(name) for name in MULTI_FRAME},
    "multi-frame over time": _enhanced_over_time,
    "sarcoma STS_001": _sarcoma("STS_001"),
    "sarcoma STS_030": _sarcoma("STS_030"),
}


def _simulated(kind: str, maker: MakerName, folder: Path) -> list[Path]:
    """A whole simulated examination as one maker's scanner sends it."""
    folder.mkdir()
    made = simulated.study(kind)
    simulated.write_dicom(made, folder, simulated.wanted(kind, maker=maker).new_uid, maker)
    paths = sorted(folder.glob("*PT-*.dcm"))
    if kind.startswith("rb82"):
        return [
            path for path in paths if pydicom.dcmread(path, specific_tags=["SeriesType"]).SeriesType[0] == "DYNAMIC"
        ]
    return paths


def regions(name: str, source: LoadedSeries) -> NDArray[np.uint16]:
    """As physicians drew them, else what is hottest, else two without any symmetry."""
    if name.startswith("sarcoma"):
        return sarcoma(name.removeprefix("sarcoma "))[1]
    if "phantom" in name or "multi-frame" in name:
        return findings.corner_regions(source.volume.array.shape[-3:])
    array = source.volume.array.reshape(-1, *source.volume.array.shape[-3:])[-1]
    pieces, count = ndimage.label(array > np.quantile(array, 0.99))
    sizes = ndimage.sum_labels(np.ones_like(pieces), pieces, range(1, count + 1))
    kept = np.argsort(-sizes)[:5] + 1
    return np.select([pieces == piece for piece in kept], range(1, len(kept) + 1), 0).astype(np.uint16)


@cache
def world(name: str) -> World:
    folder = peers.session_folder() / "writers" / name.replace(" ", "-").replace(",", "")
    folder.parent.mkdir(exist_ok=True)
    files = FILES[name](folder)
    wanted = Quantity.ACTIVITY_BQML if "over time" in name else Quantity.SUVBW
    source = load(files, wanted, BERLIN)
    labels = regions(name, source)
    computed = replace(source.volume, array=source.volume.array * HALF)
    still = computed.array.reshape(-1, *computed.array.shape[-3:])[-1]
    mapped = Volume(still * np.float32(1e-3) - 1.0, source.volume.affine, Quantity.K1)
    found = replace(findings.products(source, labels), volumes={"Denoised": computed})
    out = folder.with_name(f"{folder.name}-written")
    paths: dict[str, list[Path]] = {}
    kinds = [kind for kind in KINDS if kind != "parametric_map"]
    everything = [
        *objects(found, source, IDENTITY, kinds),
        *objects(replace(found, volumes={"K1": mapped}), source, IDENTITY, ("parametric_map",)),
    ]
    out.mkdir()
    for each in everything:
        paths.setdefault(each.kind, []).append(out / f"{each.name}.dcm")
        paths[each.kind][-1].write_bytes(header.encode(each.dataset))
    return World(files, source, labels, computed, mapped, paths)


every_source = pytest.mark.parametrize("name", FILES)


def on_the_grid(array: NDArray[Any], affine: Affine, source: LoadedSeries) -> NDArray[Any]:
    """Values of an image (affine of its indices to LPS mm) at the places of the source's voxels."""
    shape = source.volume.array.shape[-3:]
    index = np.indices(shape).reshape(3, -1)
    places = source.volume.affine @ np.vstack([index, np.ones(index.shape[1])])
    there = (np.linalg.inv(affine) @ places)[:3]
    rounded = np.rint(there).astype(int)
    assert np.abs(there - rounded).max() < 0.02
    return array[tuple(rounded)].reshape(shape)


# The validators


@every_source
@pytest.mark.parametrize("kind", KINDS)
def test_no_validator_complains(name: str, kind: str) -> None:
    """Of a series the first, the middle and the last image."""
    of_the_source = ALLOWED if "sarcoma" in name else ALLOWED_WITHOUT_A_BODY_PART if "bare" in name else ()
    allowed = (*of_the_source, *ALLOWED_OF_A_LABEL_MAP.get(kind, ()))
    written = world(name).paths[kind]
    for path in dict.fromkeys([written[0], written[len(written) // 2], written[-1]]):
        assert errors(path, information_object=CALLED[kind], allowed=allowed) == []
        dumped = run(peers.program("dcmdump"), "-q", path)
        assert (dumped.returncode, dumped.stderr) == (0, "")


# dcmqi


@every_source
@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_dcmqi_reads_every_voxel(name: str, kind: str, tmp_path: Path) -> None:
    of = world(name)
    masks, meta = by_dcmqi(of.paths[kind][0], tmp_path / "out", of.source)
    present = [label for label in np.unique(of.labels) if label]
    assert sorted(masks) == list(range(1, len(present) + 1))
    for number, label in enumerate(present, start=1):
        assert np.array_equal(masks[number], of.labels == label)
    assert {s["labelID"] for group in meta["segmentAttributes"] for s in group} == set(masks)


@every_source
def test_dcmqi_reads_every_number_of_a_map(name: str, tmp_path: Path) -> None:
    of = world(name)
    done = run(
        dcmqi("paramap2itkimage"),
        "--inputDICOM",
        of.paths["parametric_map"][0],
        "--outputDirectory",
        tmp_path,
        "-t",
        "nii",
    )
    assert done.returncode == 0, done.stderr
    read: Any = nibabel.load(next(tmp_path.glob("*.nii*")))
    there = on_the_grid(np.asarray(read.dataobj), LPS_FROM_RAS @ read.affine, of.source)
    assert np.array_equal(there, of.mapped.array)
    assert json.loads((tmp_path / "meta.json").read_text())["QuantityValueCode"]["CodeValue"] == "K1"


@every_source
def test_dcmqi_reads_the_report(name: str, tmp_path: Path) -> None:
    of = world(name)
    done = run(dcmqi("tid1500reader"), "--inputDICOM", of.paths["sr"][0], "--outputMetadata", tmp_path / "sr.json")
    assert done.returncode == 0, done.stderr
    *lesions, whole = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    uids = [segment.TrackingUID for segment in pydicom.dcmread(of.paths["seg"][0]).SegmentSequence]
    assert [one["TrackingUniqueIdentifier"] for one in lesions] == uids
    assert {one["SourceSeriesForImageSegmentation"] for one in lesions} == {of.source.datasets[0].SeriesInstanceUID}
    assert {
        item["value"] for one in lesions for item in one["measurementItems"] if item["units"]["CodeValue"] == "g"
    } == {"52.8125"}
    assert whole["TrackingIdentifier"] == "Whole image"


# dicom3tools


@every_source
def test_dicom3tools_reads_the_report(name: str) -> None:
    of = world(name)
    done = run(peers.program("dcsrdump"), of.paths["sr"][0])
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert said.count("(126033,DCM,") == len(np.unique(of.labels)) - 1 + 1, "one TLG per lesion, one of the image"
    assert "52.8125 {52.8125} (g,UCUM" in said
    assert not [line for line in said.splitlines() if line.startswith("Error")]


@every_source
def test_dicom3tools_reads_the_pixels_of_derived_pet(name: str, tmp_path: Path) -> None:
    of = world(name)
    images = {path: pydicom.dcmread(path) for path in of.paths["pet"][:: max(1, len(of.paths["pet"]) // 4)]}
    for path, image in images.items():
        done = run(peers.program("dctopgx"), "-quiet", path, tmp_path / "out.pgx")
        assert done.returncode == 0, done.stderr
        head, _, body = (tmp_path / "out.pgx").read_bytes().partition(b"\n")
        magic, order, *size = head.split()
        assert (magic, order) == (b"PG", b"LM")
        assert size[-2:] == [str(image.Columns).encode(), str(image.Rows).encode()]
        assert body == image.PixelData


@every_source
def test_dicom3tools_reads_the_page(name: str, tmp_path: Path) -> None:
    (page,) = world(name).paths["capture"]
    done = run(peers.program("dctopnm"), "-quiet", page, tmp_path / "out.ppm")
    assert done.returncode == 0, done.stderr
    magic, size, depth, body = (tmp_path / "out.ppm").read_bytes().split(b"\n", 3)
    assert (magic, size, depth) == (b"P6", b"1680 1080", b"255")
    assert body == pydicom.dcmread(page).PixelData


# highdicom


@every_source
@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_highdicom_reads_every_voxel(name: str, kind: str) -> None:
    of = world(name)
    read = hd.seg.segread(of.paths[kind][0])
    z = slice(*(np.flatnonzero((of.labels > 0).any(axis=(1, 2)))[[0, -1]] + [0, 1]))
    expected = np.searchsorted([0, *np.unique(of.labels[of.labels > 0])], of.labels)
    volume = read.get_volume(combine_segments=True)
    index = np.argwhere(expected > 0)
    places = of.source.volume.affine @ np.column_stack([index, np.ones(len(index))]).T
    there = np.rint((np.linalg.inv(volume.affine) @ places)[:3]).astype(int)
    assert np.array_equal(volume.array[tuple(there)], expected[tuple(index.T)])
    assert np.count_nonzero(volume.array) == np.count_nonzero(expected[z])


@every_source
def test_highdicom_reads_every_number_of_a_map(name: str) -> None:
    of = world(name)
    volume = hd.imread(of.paths["parametric_map"][0]).get_volume(apply_real_world_transform=True, dtype=np.float32)
    assert np.array_equal(on_the_grid(volume.array, volume.affine, of.source), of.mapped.array)


@every_source
def test_highdicom_reads_the_report(name: str) -> None:
    of = world(name)
    groups = hd.sr.srread(of.paths["sr"][0]).content.get_volumetric_roi_measurement_groups()
    uids = [segment.TrackingUID for segment in pydicom.dcmread(of.paths["seg"][0]).SegmentSequence]
    assert [group.tracking_uid for group in groups] == uids
    for group in groups:
        maximum = group.get_measurements(name=pydicom.sr.codedict.codes.DCM.Suvbw)[0]
        assert maximum.value == pytest.approx(float(np.float32(12.3456789)))


@every_source
def test_highdicom_reads_the_derived_series(name: str) -> None:
    """One volume of a static series, with its places; of a series over time every frame."""
    of = world(name)
    images = [pydicom.dcmread(path) for path in of.paths["pet"]]
    frames = of.computed.array.reshape(-1, *of.computed.array.shape[-3:])
    slices = frames.shape[1]
    for t, frame in enumerate(frames):
        of_frame = images[t * slices : (t + 1) * slices]
        volume = hd.get_volume_from_series(of_frame, apply_modality_transform=True, apply_voi_transform=False)
        slopes = np.array([float(image.RescaleSlope) for image in of_frame])[:, None, None]
        found = on_the_grid(volume.array, volume.affine, of.source)
        assert (np.abs(found - frame) <= slopes / 2 * 1.01).all()


# The SUV, from source and from copy, by pydicom and numpy alone


def _seconds(text: Any) -> float:
    time = str(text)
    return int(time[:2]) * 3600.0 + int(time[2:4]) * 60.0 + float(time[4:])


def _moment(text: Any) -> datetime:
    digits, _, fraction = str(text).partition(".")
    return datetime.strptime(digits, "%Y%m%d%H%M%S") + timedelta(seconds=float(f"0.{fraction or 0}"))


def by_hand(path: Path) -> Iterator[tuple[tuple[float, ...], NDArray[np.float64], float]]:
    """Place and time of every image or frame of a file, its SUVbw, and the SUV of one step of its stored values."""
    dataset = pydicom.dcmread(path)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        factor = suv_factor(dataset) * float(dataset.RescaleSlope)
        key = *map(float, dataset.ImagePositionPatient), _seconds(dataset.AcquisitionTime)
        yield key, dataset.pixel_array * factor + float(dataset.RescaleIntercept) * suv_factor(dataset), factor
        return
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for groups, stored in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        mapped = groups.get("RealWorldValueMappingSequence")
        slope = mapped[0].RealWorldValueSlope if mapped else groups.PixelValueTransformationSequence[0].RescaleSlope
        factor = suv_factor(dataset) * float(slope)
        at = str(groups.FrameContentSequence[0].FrameAcquisitionDateTime)[8:]
        yield (*map(float, groups.PlanePositionSequence[0].ImagePositionPatient), _seconds(at)), stored * factor, factor


def suv_factor(dataset: Dataset) -> float:
    """SUVbw of one unit (PS3.3 C.8.9.1.1.3; the vendor-neutral formula for Bq/mL corrected to START)."""
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    converted = shared.get("UnassignedSharedConvertedAttributesSequence", [Dataset()])[0]
    units = dataset.get("Units") or converted.get("Units") or "BQML"
    if units == "GML":
        return 1.0
    if units == "CNTS":
        return float(dataset[0x70531000].value)
    assert units == "BQML"
    (given,) = (dataset if INJECTIONS in dataset else converted)[INJECTIONS]
    dose_bq = float(given.RadionuclideTotalDose)
    dose_bq *= 1e6 if dose_bq < 1e5 else 1.0
    reference = _moment(dataset.get("DecayCorrectionDateTime") or f"{dataset.SeriesDate}{dataset.SeriesTime}")
    injected = _moment(
        given.get("RadiopharmaceuticalStartDateTime") or f"{dataset.SeriesDate}{given.RadiopharmaceuticalStartTime}"
    )
    half_lives = (reference - injected).total_seconds() / float(given.RadionuclideHalfLife)
    return float(dataset.PatientWeight) * 1000.0 / (dose_bq * 2.0**-half_lives)


@every_source
def test_the_suv_of_a_copy_is_that_of_its_source(name: str) -> None:
    """Half of it, at the same place and time, within half a step; and our own reader says the same."""
    of = world(name)
    source = {key: suv for path in of.files for key, suv, _ in by_hand(path)}
    copies = [image for path in of.paths["pet"] for image in by_hand(path)]
    assert len(copies) == len(source) == len(of.source.datasets)
    rounded = {tuple(np.round(key, 2).tolist()): suv for key, suv in source.items()}
    for key, suv, step in copies:
        expected = rounded[tuple(np.round(key, 2).tolist())] * 0.5
        assert np.abs(suv - expected).max() <= step / 2 * 1.02 + 1e-12
    back = load(of.paths["pet"], Quantity.SUVBW, BERLIN).volume.array
    ours = back.reshape(-1, *back.shape[-2:])
    for index, (_, suv, step) in enumerate(copies):
        assert np.abs(ours[index] - suv).max() <= step * 1e-2 + float(np.abs(suv).max()) * 1e-6


# The contours, by scikit-image


@every_source
def test_contours_enclose_the_regions(name: str) -> None:
    of = world(name)
    dataset = pydicom.dcmread(of.paths["rtstruct"][0])
    for number, label in enumerate((label for label in np.unique(of.labels) if label), start=1):
        assert np.array_equal(rasterised(dataset, number, of.source), of.labels == label)


def test_every_kind_is_written_of_every_source() -> None:
    for name in FILES:
        assert set(world(name).paths) == set(KINDS), name
        assert len(world(name).paths["pet"]) == len(world(name).source.datasets), name
