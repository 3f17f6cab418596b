"""Enhanced and Legacy Converted Enhanced objects: read and loaded as the single-frame images they stand for."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import RLELossless

from dicom_io import headers, sameness, series
from dicom_io.errors import DicomError, UnreadableObject
from dicom_io.volume import LoadedSeries, load
from engines.contract import DynamicVolume, Quantity, Volume
from tests import make, make_enhanced
from tests.make_enhanced import INJECTED, SPACING_MM, STARTED, concatenation, enhanced_pet, mapping, pixels
from tests.unit.test_volume import repeated, timed
from tests.wire.test_validators import errors

SHAPE = (6, 12, 10)
SLICES = 4
SUV_AT_START = 70.0 * 1000.0 / 350e6 * 2.0 ** (3600.0 / 6586.2)
"""SUVbw per Bq/mL where decay is corrected to the start, one hour after 350 MBq for 70 kg."""
SUV_AT_INJECTION = 70.0 * 1000.0 / 350e6
CONVERTERS = {
    Quantity.SUVBW: hd.legacy.LegacyConvertedEnhancedPETImage,
    Quantity.HU: hd.legacy.LegacyConvertedEnhancedCTImage,
}


def save(folder: Path, *datasets: Dataset) -> list[Path]:
    return [make.save(dataset, folder / f"{index}.dcm") for index, dataset in enumerate(datasets)]


def converted(paths: Sequence[Path], wanted: Quantity, target: Path, *, number: int = 1) -> Path:
    """One multi-frame object of these single-frame ones, by highdicom."""
    sources = [pydicom.dcmread(path) for path in paths]
    uids = {"series_instance_uid": "1.2.3.4", "sop_instance_uid": f"1.2.3.4.{number}"}
    dataset = CONVERTERS[wanted](sources, series_number=7, instance_number=number, **uids)
    return make.save(dataset, target)


def refusal(paths: Sequence[Path], wanted: Quantity = Quantity.SUVBW) -> DicomError:
    with pytest.raises(DicomError) as caught:
        load(paths, wanted, UTC)
    return caught.value


def facts(paths: Sequence[Path]) -> dict[str, Any]:
    return series.understand([headers.read(path).header for path in paths], {}, UTC)


def assert_same_series(one: LoadedSeries, other: LoadedSeries) -> None:
    assert one.volume.array.shape == other.volume.array.shape
    assert one.volume.array == pytest.approx(other.volume.array, rel=1e-6, abs=1e-9)
    assert one.volume.affine == pytest.approx(other.volume.affine, abs=1e-6)
    assert one.suv_reference == other.suv_reference


# Converted by another program


@pytest.mark.parametrize("beds", [1, 3])
@pytest.mark.parametrize(("units", "correction"), [("BQML", "START"), ("BQML", "NONE"), ("GML", "ADMIN")])
def test_a_converted_pet_is_the_pet(tmp_path: Path, units: str, correction: str, beds: int) -> None:
    """Whatever the order in which the slices were converted; slopes and factors differ between slices and beds."""
    examination = {"units": units, "decay_correction": correction, "beds": beds}
    made = make.study(tmp_path, pet_shape=SHAPE, examination=examination)
    classic = load(made.pet, Quantity.SUVBW, UTC)
    for name, order in {"as sent": (0, 1, 2, 3, 4, 5), "shuffled": (3, 0, 5, 1, 4, 2)}.items():
        path = converted([made.pet[index] for index in order], Quantity.SUVBW, tmp_path / f"{name}.dcm")
        assert_same_series(load([path], Quantity.SUVBW, UTC), classic)
    assert len({float(dataset.RescaleSlope) for dataset in classic.datasets}) > 1


@pytest.mark.parametrize("flip", ["z", "y", "zyx"])
def test_a_converted_pet_lies_where_the_pet_lies(tmp_path: Path, flip: str) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE, flip=flip)
    path = converted(made.pet, Quantity.SUVBW, tmp_path / "converted.dcm")
    assert_same_series(load([path], Quantity.SUVBW, UTC), load(made.pet, Quantity.SUVBW, UTC))


def test_a_converted_ct_is_the_ct(tmp_path: Path) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE, ct_shape=(8, 12, 10))
    path = converted(made.ct[::-1], Quantity.HU, tmp_path / "converted.dcm")
    assert_same_series(load([path], Quantity.HU, UTC), load(made.ct, Quantity.HU, UTC))


def test_a_series_converted_in_several_objects_is_one_series(tmp_path: Path) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE)
    parts = [
        converted(made.pet[first::3], Quantity.SUVBW, tmp_path / f"{first}.dcm", number=first + 1) for first in range(3)
    ]
    assert_same_series(load(parts[::-1], Quantity.SUVBW, UTC), load(made.pet, Quantity.SUVBW, UTC))


def test_a_converted_dynamic_pet_is_the_dynamic_pet(tmp_path: Path) -> None:
    made = make.study(tmp_path / "study", pet_shape=SHAPE)
    clocks = [("093000", 10), ("093010", 20), ("093030", 60)]
    paths = repeated(made, tmp_path / "frames", [timed(*clock) for clock in clocks])
    path = converted(paths, Quantity.SUVBW, tmp_path / "converted.dcm")
    classic, multi = (load(each, Quantity.SUVBW, UTC) for each in (paths, [path]))
    assert_same_series(multi, classic)
    assert isinstance(multi.volume, DynamicVolume)
    assert multi.volume.frame_start_s.tolist() == [0.0, 10.0, 30.0]
    assert multi.volume.frame_duration_s.tolist() == [10.0, 20.0, 60.0]


def test_philips_factors_of_a_converted_pet_are_found(tmp_path: Path) -> None:
    """They stand among the unassigned attributes, one per frame, under their creator."""

    def counts(dataset: Dataset) -> None:
        if dataset.Modality == "PT":
            dataset.Units = "CNTS"
            block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
            block.add_new(0x00, "DS", f"{0.001 * dataset.InstanceNumber:g}")

    made = make.study(tmp_path, pet_shape=SHAPE, edit=counts)
    path = converted(made.pet, Quantity.SUVBW, tmp_path / "converted.dcm")
    classic, multi = (load(paths, Quantity.SUVBW, UTC) for paths in (made.pet, [path]))
    assert_same_series(multi, classic)
    assert classic.suv_reference.startswith("CNTS")


def test_facts_of_a_converted_pet_are_those_of_the_pet(tmp_path: Path) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE, examination={"beds": 3})
    one, other = facts(made.pet), facts([converted(made.pet, Quantity.SUVBW, tmp_path / "converted.dcm")])
    same = """
        modality kind tracer radionuclide attenuation_corrected decay_corrected units suv shape spacing_mm affine slices
        weight_kg dose_bq uptake_min frame_duration_s complete problems beds
    """
    assert {name: other[name] for name in same.split()} == {name: one[name] for name in same.split()}


# Enhanced PET


@pytest.mark.parametrize("kind", ["static", "dynamic", "gated"])
def test_the_builder_makes_legal_objects(tmp_path: Path, kind: str) -> None:
    frames = {
        "static": make_enhanced.static(2),
        "dynamic": make_enhanced.dynamic(2, [10.0, 30.0]),
        "gated": make_enhanced.gated(2, [0.0, 400.0]),
    }[kind]
    (path,) = save(tmp_path, enhanced_pet(frames, pixels(len(frames))))
    assert errors(path, information_object="EnhancedPETImage") == []


@pytest.mark.parametrize(
    ("corrected_to", "factor"),
    [(STARTED, SUV_AT_START), (INJECTED, SUV_AT_INJECTION), (STARTED - timedelta(seconds=1800), None)],
    ids=["start", "injection", "between"],
)
def test_decay_counts_from_decay_correction_datetime(
    tmp_path: Path, corrected_to: datetime, factor: float | None
) -> None:
    """Series Time of these objects is that of the reconstruction, two and a half hours later."""
    stored = pixels(SLICES)
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), stored, decay_corrected_to=corrected_to))
    slopes = 2.0 * (1.0 + 0.25 * np.arange(SLICES))  # as `static` says
    expected = stored * slopes[:, None, None] * (factor or SUV_AT_INJECTION * 2.0 ** (1800.0 / 6586.2))
    loaded = load([path], Quantity.SUVBW, UTC)
    assert loaded.volume.array == pytest.approx(expected.astype(np.float32), rel=2e-6)
    assert loaded.volume.affine[:3, 3] == pytest.approx([-20.0, -30.0, 0.0])
    assert loaded.static.spacing_mm == pytest.approx(SPACING_MM)
    assert facts([path])["kind"] == "static"
    assert facts([path])["problems"] == []


def test_without_decay_correction_decay_is_computed(tmp_path: Path) -> None:
    """From the injection to the start of the frame, 3600 s, and over its 180 s."""
    stored = pixels(SLICES)
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), stored, decay_corrected_to=None))
    decays = np.log(2.0) / 6586.2 * 180.0
    expected = stored[1] * 2.5 * SUV_AT_START * decays / (1.0 - np.exp(-decays))
    assert load([path], Quantity.SUVBW, UTC).volume.array[1] == pytest.approx(expected.astype(np.float32), rel=2e-6)


def test_suv_needs_no_arithmetic(tmp_path: Path) -> None:
    stored = pixels(SLICES)
    frames = make_enhanced.static(SLICES, slope=1e-4)
    (path,) = save(tmp_path, enhanced_pet(frames, stored, unit="g/ml{SUVbw}"))
    expected = stored[2] * 1e-4 * 1.5
    assert load([path], Quantity.SUVBW, UTC).volume.array[2] == pytest.approx(expected.astype(np.float32), rel=1e-6)
    assert refusal([path], Quantity.ACTIVITY_BQML).code == "units"


@pytest.mark.parametrize("unit", ["{counts}/s", "mg/min/ml", "g/ml"])
def test_other_units_are_refused(tmp_path: Path, unit: str) -> None:
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES), unit=unit))
    assert refusal([path]).code == "units"


def test_frames_may_stand_in_any_order(tmp_path: Path) -> None:
    frames, stored = make_enhanced.static(SLICES), pixels(SLICES)
    order = [2, 0, 3, 1]
    shuffled = enhanced_pet([frames[index] for index in order], stored[order])
    plain, mixed = save(tmp_path, enhanced_pet(frames, stored), shuffled)
    assert_same_series(load([mixed], Quantity.SUVBW, UTC), load([plain], Quantity.SUVBW, UTC))
    numbers = [dataset.ReferencedFrameNumber for dataset in load([mixed], Quantity.SUVBW, UTC).datasets]
    assert numbers == [2, 4, 1, 3], "the frames that hold slices 0, 1, 2, 3"


@pytest.mark.parametrize("durations_s", [[10.0, 20.0, 60.0], [300.0, 5.0]])
def test_a_dynamic_pet_has_frames_and_times(tmp_path: Path, durations_s: list[float]) -> None:
    """Frames shuffled over all times and slices."""
    frames = make_enhanced.dynamic(SLICES, durations_s)
    stored = pixels(len(frames))
    order = np.random.default_rng(3).permutation(len(frames))
    (path,) = save(tmp_path, enhanced_pet([frames[index] for index in order], stored[order]))
    volume = load([path], Quantity.ACTIVITY_BQML, UTC).volume
    assert isinstance(volume, DynamicVolume)
    slopes = np.array([frame.slope for frame in frames])
    expected = (stored * slopes[:, None, None]).reshape(len(durations_s), SLICES, 6, 8)
    assert volume.array.dtype == np.float32
    assert volume.array == pytest.approx(expected.astype(np.float32), rel=1e-6)
    assert volume.frame_duration_s.tolist() == durations_s
    assert volume.frame_start_s.tolist() == [0.0, *np.cumsum(durations_s)[:-1]]
    assert volume.frame(1).array == pytest.approx(expected[1].astype(np.float32), rel=1e-6)
    assert facts([path])["kind"] == "dynamic"
    assert facts([path])["shape"] == list(expected.shape)


def test_every_time_frame_may_be_an_instance(tmp_path: Path) -> None:
    durations_s = [10.0, 30.0, 60.0]
    frames = make_enhanced.dynamic(SLICES, durations_s)
    stored = pixels(len(frames))
    parts = [
        enhanced_pet(frames[first : first + SLICES], stored[first : first + SLICES], instance=first + 1)
        for first in range(0, len(frames), SLICES)
    ]
    (whole,) = save(tmp_path / "whole", enhanced_pet(frames, stored))
    paths = save(tmp_path / "parts", parts[2], parts[0], parts[1])
    one, other = (load(each, Quantity.SUVBW, UTC) for each in ([whole], paths))
    assert_same_series(other, one)
    assert isinstance(other.volume, DynamicVolume)
    assert other.volume.frame_start_s.tolist() == [0.0, 10.0, 40.0]
    assert len({dataset.SOPInstanceUID for dataset in other.datasets[:SLICES]}) == 1


def test_a_gated_pet_has_gates_without_times(tmp_path: Path) -> None:
    frames = make_enhanced.gated(SLICES, [0.0, 266.0, 533.0])
    stored = pixels(len(frames))
    order = list(reversed(range(len(frames))))
    (path,) = save(tmp_path, enhanced_pet([frames[index] for index in order], stored[order]))
    volume = load([path], Quantity.ACTIVITY_BQML, UTC).volume
    assert isinstance(volume, DynamicVolume)
    slopes = np.array([frame.slope for frame in frames])
    expected = (stored * slopes[:, None, None]).reshape(3, SLICES, 6, 8)
    assert volume.array == pytest.approx(expected.astype(np.float32), rel=1e-6)
    assert np.isnan(volume.frame_start_s).all()
    assert facts([path])["kind"] == "gated"


def test_a_concatenation_is_one_object(tmp_path: Path) -> None:
    stored = pixels(SLICES)
    whole = enhanced_pet(make_enhanced.static(SLICES), stored)
    paths = save(tmp_path / "parts", *concatenation(whole, [1, 2, 1]))
    (path,) = save(tmp_path / "whole", whole)
    assert_same_series(load(paths[::-1], Quantity.SUVBW, UTC), load([path], Quantity.SUVBW, UTC))
    header = headers.read(paths[1]).header
    assert (header["InConcatenationNumber"], header["InConcatenationTotalNumber"]) == (2, 3)
    assert facts(paths)["complete"] is True
    assert facts(paths[:2])["complete"] is False


@pytest.mark.parametrize("command", ["dcmcrle", "dcmcjpeg +e1", "dcmcjpls +el", "dcmconv +ti", "dcmconv +te -e"])
def test_another_encoding_changes_no_voxel(tmp_path: Path, command: str) -> None:
    program, *options = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} (DCMTK) is not installed")
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES)))
    other = tmp_path / "other.dcm"
    subprocess.run([program, *options, str(path), str(other)], check=True, timeout=20)
    one, two = headers.read(path).header, headers.read(other).header
    assert {k: v for k, v in two.items() if k != "LossyImageCompression"} == {
        k: v for k, v in one.items() if k != "LossyImageCompression"
    }
    assert_same_series(load([other], Quantity.SUVBW, UTC), load([path], Quantity.SUVBW, UTC))


# What the writers get


def test_a_frame_looks_like_a_single_frame_image(tmp_path: Path) -> None:
    made = make.study(tmp_path, pet_shape=SHAPE)
    path = converted(made.pet, Quantity.SUVBW, tmp_path / "converted.dcm")
    loaded, classic = load([path], Quantity.SUVBW, UTC), load(made.pet, Quantity.SUVBW, UTC)
    for dataset, original in zip(loaded.datasets, classic.datasets, strict=True):
        for keyword in [
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "SliceThickness",
            "RescaleSlope",
            "Units",
            "CorrectedImage",
            "DecayCorrection",
            "SeriesType",
            "RadiopharmaceuticalInformationSequence",
            "ImageIndex",
            "PatientWeight",
            "Rows",
        ]:
            assert dataset[keyword].value == original[keyword].value, keyword
        assert dataset.SOPInstanceUID == "1.2.3.4.1"
        assert "PixelData" not in dataset
        assert "PerFrameFunctionalGroupsSequence" not in dataset
        assert "NumberOfFrames" not in dataset


# Refusals


def without(*path: str) -> Callable[[Dataset], None]:
    """Remove a macro, or an attribute in a macro, wherever it stands."""

    def edit(dataset: Dataset) -> None:
        for groups in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
            item = groups
            for keyword in path[:-1]:
                item = (item.get(keyword) or [Dataset()])[0]
            if path[-1] in item:
                delattr(item, path[-1])

    return edit


def top(**values: Any) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def rescaled(slope: str) -> Callable[[Dataset], None]:
    """Rescale Type names the unit of the mapping, too."""

    def edit(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            (item,) = groups.PixelValueTransformationSequence
            item.RescaleSlope, item.RescaleType = slope, "BQML"

    return edit


def mapped_to(first: int, last: int) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            groups.RealWorldValueMappingSequence = [mapping("Bq/ml", 2.0, first=first, last=last)]

    return edit


def of_frame(index: int, edit: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
    return lambda dataset: edit(dataset.PerFrameFunctionalGroupsSequence[index])


def same_place(groups: Dataset) -> None:
    groups.PlanePositionSequence[0].ImagePositionPatient = [-20.0, -30.0, 0.0]


def tilted(groups: Dataset) -> None:
    item = Dataset()
    item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    groups.PlaneOrientationSequence = [item]


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (without("PlanePositionSequence"), "no-position"),
        (without("PlaneOrientationSequence"), "no-position"),
        (without("PixelMeasuresSequence"), "no-position"),
        (without("PixelMeasuresSequence", "PixelSpacing"), "no-position"),
        (without("RealWorldValueMappingSequence"), "units"),
        (without("RealWorldValueMappingSequence", "MeasurementUnitsCodeSequence"), "units"),
        (without("RealWorldValueMappingSequence", "RealWorldValueSlope"), "units"),
        (rescaled("7"), "units"),
        (mapped_to(0, 1000), "not-mapped"),
        (mapped_to(1000, 65535), "not-mapped"),
        (top(PerFrameFunctionalGroupsSequence=None), "multi-frame"),
        (top(PerFrameFunctionalGroupsSequence=[]), "multi-frame"),
        (top(SharedFunctionalGroupsSequence=None), "no-position"),
        (top(DecayCorrectionDateTime=None), "not-decay-corrected"),
        (top(AttenuationCorrected="NO"), "not-attenuation-corrected"),
        (top(AttenuationCorrected=None), "not-attenuation-corrected"),
        (top(PatientWeight=None), "no-weight"),
        (of_frame(1, same_place), "duplicate-position"),
        (of_frame(3, tilted), "mixed-orientation"),
        (top(PhotometricInterpretation="MONOCHROME1"), "photometric"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused(
    tmp_path: Path, edit: Callable[[Dataset], None], code: str
) -> None:
    """By type; and it can be read and described all the same."""
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES), edit=edit))
    assert refusal([path]).code == code
    found = facts([path])
    assert found["problems"] or code in {"not-mapped", "photometric"}, "what only its pixels show is not in the header"
    json.dumps(found, allow_nan=False)


def test_a_frame_too_few_is_refused(tmp_path: Path) -> None:
    def drop(dataset: Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]

    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES), edit=drop))
    assert refusal([path]).code == "multi-frame"
    assert any(line.startswith("frames: expected functional groups of 4 frames") for line in facts([path])["problems"])


def test_converted_attributes_cannot_describe_the_object_anew(tmp_path: Path) -> None:
    def lie(dataset: Dataset) -> None:
        item = Dataset()
        item.Rows, item.Columns, item.NumberOfFrames, item.BitsAllocated, item.Modality = 1, 1, 1, 8, "CT"
        item.SOPInstanceUID, item.SeriesInstanceUID, item.StudyInstanceUID = "1.1", "1.2", "1.3"
        item.PatientWeight, item.StationName = "1", "a" * 70_000  # the second is too long to be kept
        dataset.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence = [item]

    frames, stored = make_enhanced.static(SLICES), pixels(SLICES)
    honest, lying = save(tmp_path, enhanced_pet(frames, stored), enhanced_pet(frames, stored, edit=lie))
    one, other = headers.read(honest).header, headers.read(lying).header
    assert {keyword for keyword in other if other[keyword] != one.get(keyword)} == {"PatientWeight"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(400, 8000), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_objects_are_understood_or_refused_by_type(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    frames = make_enhanced.gated(2, [0.0, 400.0])
    buffer = DicomBytesIO()
    enhanced_pet(frames, pixels(len(frames))).save_as(buffer, enforce_file_format=True)
    content = bytearray(buffer.getvalue())
    for at, byte in changes:
        content[at % len(content)] = byte
    path = tmp_path / "mutated.dcm"
    path.write_bytes(bytes(content))
    try:
        json.dumps(facts([path]), allow_nan=False)
        load([path], Quantity.SUVBW, UTC)
    except DicomError:
        return


def test_a_frame_costs_less_than_a_slice(tmp_path: Path) -> None:
    """A classic slice takes half a millisecond; the limit leaves room for a busy machine."""
    frames = make_enhanced.dynamic(50, [10.0] * 10)
    (path,) = save(tmp_path, enhanced_pet(frames, pixels(len(frames), 2, 2)))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        reading = headers.read(path)
        times.append(time.perf_counter() - started)
    assert min(times) / len(frames) < 0.002
    assert len(json.dumps(reading.to_json())) / len(frames) < 400


def test_a_time_frame_with_a_hole_is_refused(tmp_path: Path) -> None:
    frames = make_enhanced.dynamic(SLICES, [10.0, 30.0])
    (path,) = save(tmp_path, enhanced_pet(frames[:-2] + frames[-1:], pixels(len(frames) - 1)))
    assert refusal([path]).code == "uneven-frames"


def test_frames_that_lie_about_their_pixels_are_unreadable(tmp_path: Path) -> None:
    (path,) = save(tmp_path, enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES), edit=top(NumberOfFrames=3)))
    with pytest.raises(UnreadableObject) as caught:
        headers.read(path)
    assert caught.value.code == "pixel-length"


def test_a_static_volume_is_asked_for_by_name(tmp_path: Path) -> None:
    still, moving = make_enhanced.static(2), make_enhanced.dynamic(2, [10.0, 10.0])
    one, other = save(tmp_path, *(enhanced_pet(frames, pixels(len(frames))) for frames in (still, moving)))
    assert isinstance(load([one], Quantity.SUVBW, UTC).static, Volume)
    with pytest.raises(DicomError) as caught:
        _ = load([other], Quantity.SUVBW, UTC).static
    assert caught.value.code == "not-static"


# The same object again


@pytest.mark.parametrize(
    ("path", "value", "verdict", "keyword"),
    [
        (("RealWorldValueMappingSequence", "RealWorldValueSlope"), 3.5, "conflicting", "Frames"),
        (("PlanePositionSequence", "ImagePositionPatient"), [0, 0, 99], "conflicting", "Frames"),
        (("FrameContentSequence", "FrameAcquisitionDuration"), 7.0, "conflicting", "Frames"),
        (("FrameContentSequence", "FrameComments"), "new", "coerced", "PerFrameFunctionalGroupsSequence"),
    ],
)
def test_a_changed_frame_is_another_object(
    tmp_path: Path, path: tuple[str, str], value: Any, verdict: str, keyword: str
) -> None:
    def edit(dataset: Dataset) -> None:
        macro, attribute = path
        setattr(dataset.PerFrameFunctionalGroupsSequence[2][macro].value[0], attribute, value)

    frames, stored = make_enhanced.static(SLICES), pixels(SLICES)
    one, other = save(tmp_path, enhanced_pet(frames, stored), enhanced_pet(frames, stored, edit=edit))
    found = sameness.compare(one, other)
    assert found.verdict == verdict
    assert keyword in found.keywords
    assert sameness.compare(one, one).verdict == "duplicate"


def test_a_changed_shared_group_is_named_by_its_attribute(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [4.0, 5.5]

    frames, stored = make_enhanced.static(SLICES), pixels(SLICES)
    one, other = save(tmp_path, enhanced_pet(frames, stored), enhanced_pet(frames, stored, edit=edit))
    assert sameness.compare(one, other) == sameness.Sameness(
        "conflicting", ("PixelSpacing", "SharedFunctionalGroupsSequence")
    )


def test_recompressed_frames_are_a_duplicate(tmp_path: Path) -> None:
    dataset = enhanced_pet(make_enhanced.static(SLICES), pixels(SLICES))
    (one,) = save(tmp_path / "one", dataset)
    dataset.compress(RLELossless, generate_instance_uid=False)
    (other,) = save(tmp_path / "other", dataset)
    assert sameness.compare(one, other).verdict == "duplicate"
