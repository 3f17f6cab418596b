"""Files to volumes: every voxel's number and place, and what is not loaded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_io.errors import DicomError, GeometryRefused, PixelsRefused, QuantityRefused, UnreadableObject
from dicom_io.inspect import inspect
from dicom_io.volume import load
from engines.contract import DynamicVolume, Quantity
from tests import make

SHAPE = (6, 12, 10)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> make.Study:
    return make.study(tmp_path_factory.mktemp("study"), pet_shape=SHAPE, ct_shape=(12, 24, 20))


def copies(
    study: make.Study, folder: Path, edit: Callable[[Dataset], object], *, only: int | None = None
) -> list[Path]:
    """The PET with every slice, or only one, changed."""
    folder.mkdir(exist_ok=True)
    written = []
    for index, path in enumerate(study.pet):
        dataset = pydicom.dcmread(path)
        if only is None or index == only:
            edit(dataset)
        dataset.save_as(folder / path.name)
        written.append(folder / path.name)
    return written


def refusal(paths: list[Path], quantity: Quantity = Quantity.SUVBW) -> DicomError:
    with pytest.raises(DicomError) as caught:
        load(paths, quantity, UTC)
    return caught.value


def half_steps(study: make.Study) -> Any:
    """Largest rounding error of each slice: half its rescale slope, in SUV."""
    return np.maximum(study.suv.max(axis=(1, 2), keepdims=True) / 65534.0, 1e-6) * 1.001


def ascending(study: make.Study) -> bool:
    """Whether the slices were written from foot to head."""
    return bool(study.affine[2, 0] > 0)


# Numbers and places


@pytest.mark.parametrize("beds", [1, 3])
@pytest.mark.parametrize(
    ("units", "correction"),
    [("BQML", "START"), ("BQML", "ADMIN"), ("BQML", "NONE"), ("GML", "START"), ("GML", "ADMIN")],
)
def test_suv_is_what_the_scanner_measured(tmp_path: Path, units: str, correction: str, beds: int) -> None:
    """Each bed and slice with its own factor and slope."""
    made = make.study(
        tmp_path, pet_shape=SHAPE, examination={"units": units, "decay_correction": correction, "beds": beds}
    )
    loaded = load(made.pet, Quantity.SUVBW, UTC)
    truth = made.suv if ascending(made) else made.suv[::-1]
    steps = half_steps(made) if ascending(made) else half_steps(made)[::-1]
    assert loaded.volume.array.dtype == np.float32
    assert (np.abs(loaded.volume.array - truth) <= steps).all()
    slopes = {float(dataset.RescaleSlope) for dataset in loaded.datasets}
    assert len(slopes) > 1, "a reader that takes one slope for all slices must fail here"


@pytest.mark.parametrize("flip", ["", "z", "y", "x", "zy", "zyx"])
def test_every_voxel_lies_where_it_was_made(tmp_path: Path, flip: str) -> None:
    """The value at a place in the patient, by the affine alone, is that of the phantom at this place."""
    made = make.study(tmp_path, pet_shape=SHAPE, flip=flip)
    loaded = load(made.pet, Quantity.SUVBW, UTC).volume
    indices = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    world = made.affine[:3, :3] @ indices.T + made.affine[:3, 3:]
    back = np.linalg.solve(loaded.affine[:3, :3], world - loaded.affine[:3, 3:])
    found = np.rint(back).astype(int)
    assert np.abs(back - found).max() < 1e-3
    values = loaded.array[tuple(found)].reshape(SHAPE)
    assert (np.abs(values - made.suv) <= half_steps(made)).all()
    normal = np.cross(loaded.affine[:3, 2], loaded.affine[:3, 1])
    assert loaded.affine[:3, 0] @ normal > 0, "z runs along the slice normal"


def test_datasets_stand_in_the_order_of_the_array(study: make.Study) -> None:
    shuffled = [study.pet[index] for index in (3, 0, 5, 1, 4, 2)]
    loaded = load(shuffled, Quantity.SUVBW, UTC)
    assert len(loaded.datasets) == SHAPE[0]
    for z, dataset in enumerate(loaded.datasets):
        corner = loaded.volume.affine @ [z, 0, 0, 1]
        assert [float(c) for c in dataset.ImagePositionPatient] == pytest.approx(corner[:3], abs=1e-4)
        assert "PixelData" not in dataset
        assert dataset.PatientID == "SIM0001"
        assert dataset.file_meta.TransferSyntaxUID.is_little_endian
    assert np.array_equal(loaded.volume.array, load(study.pet, Quantity.SUVBW, UTC).volume.array)
    assert loaded.suv_reference == "BQML, START, series time"


def test_activity_is_the_rescaled_value(study: make.Study) -> None:
    loaded = load(study.pet, Quantity.ACTIVITY_BQML, UTC)
    for plane, dataset in zip(loaded.volume.array, loaded.datasets, strict=True):
        path = next(path for path in study.pet if pydicom.dcmread(path).SOPInstanceUID == dataset.SOPInstanceUID)
        expected = pydicom.dcmread(path).pixel_array * float(dataset.RescaleSlope)
        assert plane == pytest.approx(expected.astype(np.float32), rel=1e-6)
    assert loaded.volume.quantity is Quantity.ACTIVITY_BQML


def test_ct_is_in_hounsfield_units(study: make.Study) -> None:
    loaded = load(study.ct, Quantity.HU, UTC)
    assert study.acquisition.ct is not None
    made = study.acquisition.ct.array
    truth = made if study.acquisition.ct.affine[2, 0] > 0 else made[::-1]
    assert np.abs(loaded.volume.array - truth).max() <= 0.5
    assert loaded.volume.array.min() < -900, "there is air"


def test_negative_values_stay_negative(study: make.Study, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1
        dataset.PixelData = (dataset.pixel_array.astype(np.int16) - 100).astype("<i2").tobytes()

    plain = load(study.pet, Quantity.ACTIVITY_BQML, UTC)
    lowered = load(copies(study, tmp_path / "signed", edit), Quantity.ACTIVITY_BQML, UTC)
    for z, dataset in enumerate(lowered.datasets):
        step = 100.0 * float(dataset.RescaleSlope)
        assert lowered.volume.array[z] == pytest.approx(plain.volume.array[z] - step, rel=1e-5, abs=1e-2)
    assert lowered.volume.array.min() < 0


@pytest.mark.parametrize("signed", [False, True])
def test_bits_beyond_bits_stored_are_no_part_of_the_value(study: make.Study, tmp_path: Path, *, signed: bool) -> None:
    """Old scanners put overlays into the upper bits."""

    def twelve_bits(dataset: Dataset) -> None:
        values = dataset.pixel_array // 16 - (1000 if signed else 0)
        dataset.PixelRepresentation = int(signed)
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PixelData = (values.astype(np.int32) & 0x0FFF).astype("<u2").tobytes()

    def overlay(dataset: Dataset) -> None:
        twelve_bits(dataset)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") | 0xA000).astype("<u2").tobytes()

    plain = load(copies(study, tmp_path / "plain", twelve_bits), Quantity.ACTIVITY_BQML, UTC).volume.array
    marked = load(copies(study, tmp_path / "marked", overlay), Quantity.ACTIVITY_BQML, UTC).volume.array
    assert np.array_equal(plain, marked)
    assert bool(plain.min() < 0) is signed


@pytest.mark.parametrize("command", ["dcmcrle", "dcmcjpeg +e1", "dcmcjpeg +el +sv 6", "dcmcjpls +el", "dcmconv +ti"])
def test_lossless_compression_changes_no_voxel(study: make.Study, tmp_path: Path, command: str) -> None:
    program, *options = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} (DCMTK) is not installed")
    for path in study.pet:
        subprocess.run([program, *options, str(path), str(tmp_path / path.name)], check=True, timeout=20)
    loaded = load([tmp_path / path.name for path in study.pet], Quantity.SUVBW, UTC)
    assert np.array_equal(loaded.volume.array, load(study.pet, Quantity.SUVBW, UTC).volume.array)


def test_files_without_file_meta_information_load(study: make.Study, tmp_path: Path) -> None:
    paths = []
    for path in study.pet:
        dataset = pydicom.dcmread(path)
        dataset.file_meta, dataset.preamble = pydicom.dataset.FileMetaDataset(), None
        dataset.save_as(tmp_path / path.name, implicit_vr=True, little_endian=True)
        paths.append(tmp_path / path.name)
    loaded = load(paths, Quantity.SUVBW, UTC)
    assert np.array_equal(loaded.volume.array, load(study.pet, Quantity.SUVBW, UTC).volume.array)


# Dynamic and gated series


def repeated(study: make.Study, folder: Path, edits: list[dict[str, Any]]) -> list[Path]:
    """The PET once for every edit, each time with values one tenth larger than before, in files of mixed order."""
    written = []
    for t, values in enumerate(edits):
        for z, path in enumerate(study.pet):
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{t}.{z}"
            dataset.RescaleSlope = f"{float(dataset.RescaleSlope) * (1.0 + 0.1 * t):.12g}"
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
            written.append(make.save(dataset, folder / f"{t}-{z}.dcm"))
    return [written[index] for index in np.random.default_rng(5).permutation(len(written))]


def timed(clock: str, seconds: int) -> dict[str, Any]:
    return {
        "SeriesType": ["DYNAMIC", "IMAGE"],
        "AcquisitionTime": clock,
        "ActualFrameDuration": seconds * 1000,
        "NumberOfTimeSlices": 3,
        "FrameReferenceTime": "0",
    }


def test_a_dynamic_series_has_its_frames_in_the_order_of_time(study: make.Study, tmp_path: Path) -> None:
    """09:30:00 for 10 s, 09:30:10 for 20 s, and after a pause 09:31:00 for 60 s."""
    clocks = [("093000", 10), ("093010", 20), ("093100", 60)]
    paths = repeated(study, tmp_path, [timed(*clock) for clock in clocks])
    loaded = load(paths, Quantity.ACTIVITY_BQML, UTC)
    volume = loaded.volume
    assert isinstance(volume, DynamicVolume)
    assert volume.frame_start_s.tolist() == [0.0, 10.0, 60.0]
    assert volume.frame_duration_s.tolist() == [10.0, 20.0, 60.0]
    still = load(study.pet, Quantity.ACTIVITY_BQML, UTC).static
    assert volume.array.shape == (3, *SHAPE)
    for t in range(3):
        assert volume.array[t] == pytest.approx(still.array * np.float32(1.0 + 0.1 * t), rel=1e-5)
    assert volume.affine == pytest.approx(still.affine)
    assert len(loaded.datasets) == 3 * SHAPE[0]
    for index, dataset in enumerate(loaded.datasets):
        t, z = divmod(index, SHAPE[0])
        assert dataset.AcquisitionTime == clocks[t][0]
        assert float(dataset.ImagePositionPatient[2]) == pytest.approx(still.affine[2, 3] + z * still.affine[2, 0])


def test_a_gated_series_has_gates_without_times(study: make.Study, tmp_path: Path) -> None:
    gates = [
        {
            "SeriesType": ["GATED", "IMAGE"],
            "TriggerTime": str(ms),
            "NumberOfTimeSlots": 4,
            "NumberOfRRIntervals": 1,
        }
        for ms in (0, 200, 400, 600)
    ]
    volume = load(repeated(study, tmp_path, gates), Quantity.ACTIVITY_BQML, UTC).volume
    assert isinstance(volume, DynamicVolume)
    assert np.isnan(volume.frame_start_s).all()
    means = volume.array.mean(axis=(1, 2, 3))
    assert means / means[0] == pytest.approx([1.0, 1.1, 1.2, 1.3], rel=1e-5)


def test_a_dynamic_series_with_a_hole_is_refused(study: make.Study, tmp_path: Path) -> None:
    paths = repeated(study, tmp_path, [timed("093000", 10), timed("093010", 20)])
    assert refusal(paths[:-1], Quantity.ACTIVITY_BQML).code == "uneven-frames"


# Refusals


def test_a_volume_has_a_limit(study: make.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before memory is asked for: 6 × 12 × 10 numbers of 4 bytes are 2880 bytes."""
    monkeypatch.setattr("dicom_io.volume.BYTES_MAX", 2880)
    load(study.pet, Quantity.SUVBW, UTC)
    monkeypatch.setattr("dicom_io.volume.BYTES_MAX", 2879)
    error = refusal(study.pet)
    assert (type(error), error.code) == (PixelsRefused, "too-large")
    assert "2880" in str(error)


def test_a_series_with_a_hole_is_refused(study: make.Study) -> None:
    error = refusal(study.pet[:2] + study.pet[3:])
    assert isinstance(error, GeometryRefused)
    assert error.code == "missing-slice"


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    error = refusal(make.study(tmp_path, pet_shape=SHAPE, tilt_deg=8.0).pet)
    assert (type(error), error.code) == (GeometryRefused, "gantry-tilt")


def test_two_series_are_refused(study: make.Study) -> None:
    assert refusal([*study.pet, study.ct[0]]).code == "mixed-series"


def test_another_modality_is_refused(study: make.Study) -> None:
    error = refusal(study.ct, Quantity.SUVBW)
    assert (type(error), error.code) == (QuantityRefused, "modality")
    assert refusal(study.pet, Quantity.HU).code == "modality"


def test_a_truncated_file_is_refused(study: make.Study, tmp_path: Path) -> None:
    paths = copies(study, tmp_path / "cut", lambda dataset: None)
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    assert isinstance(refusal(paths), UnreadableObject)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PatientWeight": None}, "no-weight"),
        ({"RescaleIntercept": "-1"}, "intercept"),
        ({"RescaleSlope": "0"}, "slope"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "photometric"),
        ({"HighBit": 14}, "high-bit"),
        ({"BitsStored": 17, "HighBit": 16}, "high-bit"),
        ({"RescaleSlope": "1e300"}, "not-finite"),
    ],
)
def test_what_cannot_be_right_is_refused(study: make.Study, tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    def edit(dataset: Dataset) -> None:
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    assert refusal(copies(study, tmp_path / "odd", edit)).code == code


def test_one_bad_slice_refuses_the_series(study: make.Study, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.RescaleSlope = "-1"

    assert refusal(copies(study, tmp_path / "odd", edit, only=3)).code == "slope"


def test_pixels_that_cannot_be_decoded_are_refused(study: make.Study, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"not JPEG-LS at all"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    error = refusal(copies(study, tmp_path / "odd", edit))
    assert (type(error), error.code) == (PixelsRefused, "undecodable")


def test_lossy_pixels_are_refused(study: make.Study, tmp_path: Path) -> None:
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg (DCMTK) is not installed")

    def eight_bits(dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = (dataset.pixel_array >> 8).astype(np.uint8).tobytes()
        dataset["PixelData"].VR = "OB"

    lossy = tmp_path / "lossy"
    lossy.mkdir()
    for path in copies(study, tmp_path / "eight", eight_bits):
        subprocess.run(["dcmcjpeg", "+eb", "+un", str(path), str(lossy / path.name)], check=True, timeout=20)
    assert refusal(sorted(lossy.iterdir())).code == "transfer-syntax"


def test_an_object_without_pixels_is_refused(study: make.Study, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.PixelData

    assert refusal(copies(study, tmp_path / "odd", edit)).code == "no-pixels"


# tracerd inspect


def test_inspect_tells_each_series_once(study: make.Study, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for path in study.files:
        make.save(pydicom.dcmread(path), folder / path.parent.name / path.name)
    (folder / "README.txt").write_text("not DICOM")
    (folder / "cut.dcm").write_bytes(study.pet[0].read_bytes()[:-3])
    document = inspect([folder, folder / "PT", folder / "PT" / study.pet[0].name], UTC)
    ct, pet = sorted(document["series"], key=lambda facts: str(facts["modality"]))
    assert (pet["modality"], pet["complete"], pet["shape"], pet["problems"]) == ("PT", True, list(SHAPE), [])
    assert (ct["modality"], ct["complete"], ct["suv"]["min"]) == ("CT", True, None)
    assert pet["suv"]["max"] == pytest.approx(float(study.suv.max()), rel=1e-4)
    assert pet["suv"]["min"] == pytest.approx(float(study.suv.min()), abs=1e-3)
    assert [(Path(bad["path"]).name, bad["code"]) for bad in document["unreadable"]] == [("cut.dcm", "truncated")]


def test_inspect_says_what_is_missing(study: make.Study) -> None:
    (pet,) = inspect(study.pet[:3] + study.pet[4:], UTC)["series"]
    assert (pet["complete"], pet["shape"]) == (False, None)
    assert pet["problems"][0].startswith("missing-slice: ")
    assert pet["suv"]["max"] is not None


def test_inspect_names_a_file_that_is_no_dicom_when_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    assert inspect([tmp_path], UTC) == {"series": [], "unreadable": []}
    assert inspect([tmp_path / "notes.txt"], UTC)["unreadable"][0]["code"] == "not-dicom"
