"""Laws of a PET series: whatever the order of its files, the way it lies, its slopes, beds and frames, one volume.

The series are made here, data set by data set, and what a voxel must read as is computed here: place by position and
orientation of its slice, SUVbw by stored · slope · weight / (dose · 2^(−elapsed / half-life)).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_io.errors import GeometryRefused
from dicom_io.volume import LoadedSeries, load
from dicom_io.write import header
from dicom_io.write.pet import Derivation, derived_pet
from engines.contract import DynamicVolume, Quantity, Volume
from tests.findings import IDENTITY
from tests.laws.test_geometry_laws import rotations

ROWS, COLUMNS = 4, 5
ROW_MM, COLUMN_MM = 2.5, 2.0
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S = 80.0, 4e8, 6586.2
STARTED = datetime(2026, 3, 2, 23, 50)
"""Ten minutes before midnight: later beds and frames are of the next day."""
INJECTED = STARTED - timedelta(minutes=60)
SUV_PER_BQML = WEIGHT_KG * 1000.0 / (DOSE_BQ * 0.5 ** (3600.0 / HALF_LIFE_S))
BED_S = 150.0
DERIVATION = Derivation("Smoothed", codes.cid7203.Smoothing, "Gaussian of 4 mm FWHM.")
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Slice:
    """One image: where it lies, what it holds, when it was acquired [s after the start of the series]."""

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    stored: NDArray[np.uint16]
    slope: float
    acquired_s: float = 0.0
    duration_s: float = BED_S
    frames: int = 1

    def places(self) -> NDArray[np.float64]:
        """float64 (rows, columns, 3): LPS mm of each voxel."""
        rows, columns = np.mgrid[:ROWS, :COLUMNS][..., None]
        across, down = self.orientation.reshape(2, 3)
        return np.asarray(self.position + rows * ROW_MM * down + columns * COLUMN_MM * across)

    def suv(self) -> NDArray[np.float64]:
        return np.asarray(self.stored * self.slope * SUV_PER_BQML)


def axes() -> st.SearchStrategy[NDArray[np.float64]]:
    """Axial, coronal and sagittal, with rows and columns either way: columns are row, column direction and normal."""
    signs = list(product([1.0, -1.0], repeat=2))
    found = []
    for (first, second, _), (one, two) in product(permutations(range(3)), signs):
        across, down = one * np.eye(3)[first], two * np.eye(3)[second]
        found.append(np.column_stack([across, down, np.cross(across, down)]))
    assert len(found) == 24
    return st.sampled_from(found)


@st.composite
def stacks(draw: st.DrawFn, least: int = 3, most: int = 6) -> list[Slice]:
    """Slices from the first to the last along the normal; a bed is some neighbouring slices with one time."""
    axis = draw(st.one_of(axes(), rotations()))
    count, step_mm = draw(st.integers(least, most)), draw(st.floats(1.0, 8.0))
    origin = np.array(draw(st.tuples(*[st.floats(-900.0, 900.0)] * 3)))
    slopes = draw(st.lists(st.sampled_from([1.0, 0.37, 2.5e-3, 41.7, 1e4]), min_size=count, max_size=count))
    bed_of = sorted(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    downwards = draw(st.booleans())  # beds are scanned either way
    beds = [first - min(bed_of) if not downwards else max(bed_of) - first for first in bed_of]
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [
        Slice(
            position=origin + axis[:, 2] * step_mm * index,
            orientation=np.concatenate([axis[:, 0], axis[:, 1]]),
            stored=generator.integers(0, 2**16, (ROWS, COLUMNS), dtype=np.uint16),
            slope=slopes[index],
            acquired_s=beds[index] * BED_S,
        )
        for index in range(count)
    ]


def dataset_of(image: Slice, number: int, count: int, kind: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    dataset.Modality, dataset.ImageType = "PT", ["ORIGINAL", "PRIMARY"]
    dataset.SeriesType, dataset.NumberOfSlices = [kind, "IMAGE"], count
    dataset.Units, dataset.DecayCorrection, dataset.CountsSource = "BQML", "START", "EMISSION"
    dataset.CorrectedImage = ["NORM", "ATTN", "SCAT", "DECY"]
    dataset.PatientWeight, dataset.PatientID = WEIGHT_KG, "LAW"
    acquired = STARTED + timedelta(seconds=image.acquired_s)
    dataset.SeriesDate, dataset.SeriesTime = f"{STARTED:%Y%m%d}", f"{STARTED:%H%M%S}"
    dataset.AcquisitionDate, dataset.AcquisitionTime = f"{acquired:%Y%m%d}", f"{acquired:%H%M%S}"
    dataset.ActualFrameDuration = round(image.duration_s * 1000.0)
    decays = np.log(2.0) / HALF_LIFE_S * image.duration_s
    mean_s = np.log(decays / -np.expm1(-decays)) / (np.log(2.0) / HALF_LIFE_S)
    dataset.FrameReferenceTime = f"{(image.acquired_s + mean_s) * 1000.0:.3f}"
    injection = Dataset()
    injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = DOSE_BQ, HALF_LIFE_S
    injection.RadiopharmaceuticalStartTime = f"{INJECTED:%H%M%S}"
    injection.RadiopharmaceuticalStartDateTime = f"{INJECTED:%Y%m%d%H%M%S}"
    dataset.RadiopharmaceuticalInformationSequence = [injection]
    dataset.ImagePositionPatient = [format_number_as_ds(float(c)) for c in image.position]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(c)) for c in image.orientation]
    dataset.PixelSpacing, dataset.SliceThickness = [ROW_MM, COLUMN_MM], "9.5"  # the thickness says nothing
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{image.slope:.10g}", "0"
    dataset.PixelData = image.stored.astype("<u2").tobytes()
    if kind == "DYNAMIC":
        dataset.NumberOfTimeSlices = image.frames
    return dataset


def loaded(
    images: Sequence[Slice],
    order: Sequence[int] | None = None,
    quantity: Quantity = Quantity.SUVBW,
    kind: str = "STATIC",
) -> LoadedSeries:
    """Write the images to files in the order given, and read them."""
    count = len(images) // images[0].frames
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, number in enumerate(order or range(len(images))):
            paths.append(Path(folder) / f"{name:03d}.dcm")
            dataset_of(images[number], number, count, kind).save_as(paths[-1], enforce_file_format=True)
        return load(paths, quantity, UTC)


def check_in_space(array: NDArray[Any], affine: NDArray[np.float64], images: Sequence[Slice]) -> None:
    """Every voxel of every image is in the array, at the place where the affine puts it, and nothing else is."""
    taken = np.zeros(array.shape, bool)
    for image in images:
        places = image.places().reshape(-1, 3)
        index = np.linalg.solve(affine[:3, :3], (places - affine[:3, 3]).T).T
        rounded = np.rint(index).astype(int)
        assert np.abs(index - rounded).max() < 1e-3
        assert array[tuple(rounded.T)] == pytest.approx(image.suv().ravel(), rel=1e-6)
        taken[tuple(rounded.T)] = True
    assert taken.all()


def shuffled(images: Sequence[Slice], seed: int) -> list[int]:
    return [int(index) for index in np.random.default_rng(seed).permutation(len(images))]


@FEW
@given(images=stacks(), seed=st.integers(0, 2**32 - 1), whole_body=st.booleans())
def test_one_volume_however_it_arrives(images: list[Slice], seed: int, *, whole_body: bool) -> None:
    found = loaded(images, shuffled(images, seed), kind="WHOLE BODY" if whole_body else "STATIC")
    assert isinstance(found.volume, Volume)
    check_in_space(found.volume.array, found.volume.affine, images)
    normal = np.cross(found.volume.affine[:3, 2], found.volume.affine[:3, 1])
    assert normal @ found.volume.affine[:3, 0] > 0.0, "z runs along the normal"


@FEW
@given(images=stacks(), seed=st.integers(0, 2**32 - 1), negative=st.booleans(), in_suv=st.booleans())
def test_a_derived_series_reads_as_the_volume_it_was_written_from(
    images: list[Slice], seed: int, *, negative: bool, in_suv: bool
) -> None:
    quantity = Quantity.SUVBW if in_suv else Quantity.ACTIVITY_BQML
    source = loaded(images, shuffled(images, seed), quantity)
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-6, 6, (len(images), 1, 1))
    array = (generator.uniform(-0.5 if negative else 0.0, 1.0, source.volume.array.shape) * scale).astype(np.float32)
    volume = Volume(array, source.volume.affine, quantity)
    written = derived_pet(volume, source, IDENTITY, DERIVATION)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index in shuffled(images, seed + 1):
            paths.append(Path(folder) / f"{index:03d}.dcm")
            paths[-1].write_bytes(header.encode(written[index]))
        back = load(paths, quantity, UTC)
    slopes = np.array([float(dataset.RescaleSlope) for dataset in back.datasets])[:, None, None]
    error = np.abs(back.volume.array.astype(np.float64) - array)
    assert (error <= slopes * 0.5 * 1.01).all()  # float32 of what was read: 0.4 % of a slope at 65535 slopes
    assert (slopes <= np.abs(array).max(axis=(1, 2), keepdims=True) / (32767 if negative else 65535) * 1.0001).all()
    assert np.abs(back.volume.affine - source.volume.affine).max() <= 1e-6
    assert [d.SOPInstanceUID for d in back.datasets] == [image.SOPInstanceUID for image in written]


@FEW
@given(images=stacks(), seed=st.integers(0, 2**32 - 1))
def test_activity_copied_has_the_suv_of_its_source(images: list[Slice], seed: int) -> None:
    """A copy in Bq/mL, read as SUV: its header must mean the same as the source's."""
    source = loaded(images, shuffled(images, seed), Quantity.ACTIVITY_BQML)
    written = derived_pet(source.static, source, IDENTITY, DERIVATION)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index:03d}.dcm" for index in range(len(written))]
        for path, image in zip(paths, written, strict=True):
            path.write_bytes(header.encode(image))
        back = load(paths, Quantity.SUVBW, UTC)
    copy_of = {d.SourceImageSequence[0].ReferencedSOPInstanceUID: z for z, d in enumerate(back.datasets)}
    for number, image in enumerate(images, start=1):
        z = copy_of[f"1.2.3.{number}"]
        half_a_slope = image.stored.max() * image.slope * SUV_PER_BQML / 65535 / 2
        assert back.static.array[z] == pytest.approx(image.suv(), abs=half_a_slope * 1.01, rel=1e-6)


# What is no volume


def refused(images: Sequence[Slice], seed: int) -> str:
    with pytest.raises(GeometryRefused) as caught:
        loaded(images, shuffled(images, seed))
    return caught.value.code


@FEW
@given(images=stacks(least=4), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_stack_with_a_fault_is_never_a_volume(images: list[Slice], seed: int, data: st.DataObject) -> None:
    inner = data.draw(st.integers(1, len(images) - 2))
    one = images[inner]
    across, down = one.orientation.reshape(2, 3)
    normal = np.cross(across, down)
    step_mm = float(np.linalg.norm(images[1].position - images[0].position))
    aside = data.draw(st.sampled_from([1, -1])) * across + data.draw(st.sampled_from([0, 1])) * down
    shift_mm = data.draw(st.floats(max(0.2, 0.05 * step_mm), 0.4 * step_mm)) * data.draw(st.sampled_from([1, -1]))
    turn = np.radians(data.draw(st.floats(0.5, 90.0)))
    turned = np.concatenate([np.cos(turn) * across + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * across])
    lean = np.tan(np.radians(data.draw(st.floats(5.0, 30.0)))) * data.draw(st.sampled_from([1, -1]))

    def with_inner(**changes: Any) -> list[Slice]:
        return [*images[:inner], replace(one, **changes), *images[inner + 1 :]]

    assert refused(with_inner(position=one.position + shift_mm * normal), seed) == "uneven-spacing"
    assert refused(with_inner(position=one.position + 0.21 * aside), seed) == "gantry-tilt"
    assert refused(with_inner(orientation=turned), seed) == "mixed-orientation"
    assert refused([*images, images[inner]], seed) == "duplicate-position"
    assert refused([*images[:inner], *images[inner + 1 :]], seed) == "missing-slice"
    sheared = [replace(i, position=i.position + lean * step_mm * index * down) for index, i in enumerate(images)]
    assert refused(sheared, seed) == "gantry-tilt"


# Dynamic series


@st.composite
def dynamics(draw: st.DrawFn) -> list[list[Slice]]:
    """Frames one after the other, of different lengths, each with slopes and values of its own."""
    first = [replace(image, acquired_s=0.0) for image in draw(stacks(most=4))]
    durations = draw(st.lists(st.sampled_from([10.0, 30.0, 60.0, 300.0]), min_size=2, max_size=4))
    starts = np.cumsum([0.0, *durations[:-1]])
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [
        [
            replace(
                image,
                stored=generator.integers(0, 2**16, (ROWS, COLUMNS), dtype=np.uint16),
                slope=float(generator.choice([0.5, 3.25, 1e3])),
                acquired_s=float(start),
                duration_s=duration,
                frames=len(durations),
            )
            for image in first
        ]
        for start, duration in zip(starts, durations, strict=True)
    ]


@FEW
@given(frames=dynamics(), seed=st.integers(0, 2**32 - 1))
def test_one_dynamic_volume_however_it_arrives(frames: list[list[Slice]], seed: int) -> None:
    images = [image for frame in frames for image in frame]
    found = loaded(images, shuffled(images, seed), kind="DYNAMIC").volume
    assert isinstance(found, DynamicVolume)
    assert found.frame_start_s == pytest.approx([frame[0].acquired_s for frame in frames])
    assert found.frame_duration_s == pytest.approx([frame[0].duration_s for frame in frames])
    for array, frame in zip(found.array, frames, strict=True):
        check_in_space(array, found.affine, frame)


@FEW
@given(frames=dynamics(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_dynamic_series_with_a_hole_is_refused(frames: list[list[Slice]], seed: int, data: st.DataObject) -> None:
    images = [image for frame in frames for image in frame]
    del images[data.draw(st.integers(0, len(images) - 1))]
    with pytest.raises(GeometryRefused) as caught:
        loaded(images, shuffled(images, seed), kind="DYNAMIC")
    assert caught.value.code == "uneven-frames"


@FEW
@given(frames=dynamics(), seed=st.integers(0, 2**32 - 1))
def test_a_derived_dynamic_series_stays_dynamic(frames: list[list[Slice]], seed: int) -> None:
    images = [image for frame in frames for image in frame]
    source = loaded(images, shuffled(images, seed), kind="DYNAMIC")
    assert isinstance(source.volume, DynamicVolume)
    volume = replace(source.volume, array=source.volume.array * np.float32(0.5))
    written = derived_pet(volume, source, IDENTITY, DERIVATION)
    assert {image.NumberOfTimeSlices for image in written} == {len(frames)}
    assert {image.NumberOfSlices for image in written} == {len(frames[0])}
    assert [image.ImageIndex for image in written] == list(range(1, len(images) + 1))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index in shuffled(images, seed + 1):
            paths.append(Path(folder) / f"{index:03d}.dcm")
            paths[-1].write_bytes(header.encode(written[index]))
        back = load(paths, Quantity.SUVBW, UTC).volume
    assert isinstance(back, DynamicVolume)
    assert back.frame_start_s.tolist() == source.volume.frame_start_s.tolist()
    assert back.frame_duration_s.tolist() == source.volume.frame_duration_s.tolist()
    top = volume.array.max(axis=(2, 3), keepdims=True)
    assert (np.abs(back.array - volume.array) <= top / 65535 * 0.51).all()
    late = replace(volume, frame_start_s=volume.frame_start_s + 0.01)
    with pytest.raises(GeometryRefused) as caught:
        derived_pet(late, source, IDENTITY, DERIVATION)
    assert caught.value.code == "not-source-frames"
