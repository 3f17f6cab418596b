"""Results on multi-frame sources: every frame of a Segmentation names the frame it was drawn on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage

from dicom_io.volume import LoadedSeries
from dicom_io.write import header, report, seg
from tests import findings, make, make_enhanced
from tests.findings import IDENTITY
from tests.make_enhanced import concatenation, enhanced_pet, pixels

SHAPE = (6, 12, 14)
ORDER = [2, 0, 5, 1, 4, 3]
"""Of the slices in the object: no frame has the number of its slice."""


def enhanced(folder: Path, *, parts: Sequence[int] = (6,)) -> LoadedSeries:
    """An Enhanced PET whose frames are not in the order of the slices, as one instance or a concatenation."""
    frames, stored = make_enhanced.static(SHAPE[0]), pixels(*SHAPE)
    whole = enhanced_pet([frames[index] for index in ORDER], stored[ORDER])
    instances = [whole] if len(parts) == 1 else concatenation(whole, parts)
    return findings.series([make.save(each, folder / f"{n}.dcm") for n, each in enumerate(instances)])


def converted(folder: Path) -> LoadedSeries:
    made = make.study(folder, pet_shape=SHAPE)
    sources = [pydicom.dcmread(path) for path in made.pet]
    dataset = hd.legacy.LegacyConvertedEnhancedPETImage(
        sources, series_instance_uid="1.2.3", sop_instance_uid="1.2.3.4", series_number=7, instance_number=1
    )
    return findings.series([make.save(dataset, folder / "converted.dcm")])


SOURCES = {
    "enhanced": enhanced,
    "concatenation": lambda folder: enhanced(folder, parts=(2, 1, 3)),
    "converted": converted,
}


def written(source: LoadedSeries) -> Dataset:
    dataset = seg.segmentation(findings.products(source), source, IDENTITY)
    assert dataset is not None
    return findings.reread(header.encode(dataset))


@pytest.mark.parametrize("name", SOURCES)
def test_every_voxel_comes_back_by_frame(tmp_path: Path, name: str) -> None:
    """highdicom finds the pixels by instance and frame number alone."""
    source = SOURCES[name](tmp_path)
    segmentation = hd.seg.Segmentation.from_dataset(written(source))
    labels = findings.corner_regions(SHAPE)
    expected = (labels == 3) * 1 + (labels == 9) * 2
    for image, plane in zip(source.datasets, expected, strict=True):
        (found,) = segmentation.get_pixels_by_source_frame(
            image.SOPInstanceUID,
            [image.ReferencedFrameNumber],
            combine_segments=True,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(found, plane)


def test_frame_numbers_are_those_of_the_object(tmp_path: Path) -> None:
    """Label 3 is on slices 1, 2, 3 and label 9 on slices 2, 3; slice z is frame ORDER.index(z) + 1 of the object."""
    source = enhanced(tmp_path)
    segmentation = written(source)
    numbers = {}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.datasets[0].SOPInstanceUID
        assert item.ReferencedSOPClassUID == EnhancedPETImageStorage
        z = round(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) / make_enhanced.SPACING_MM[0])
        numbers.setdefault(z, set()).add(int(item.ReferencedFrameNumber))
    assert numbers == {1: {4}, 2: {1}, 3: {6}}


@pytest.mark.parametrize(("name", "instances"), [("enhanced", 1), ("concatenation", 3), ("converted", 1)])
def test_an_instance_is_referred_to_once(tmp_path: Path, name: str, instances: int) -> None:
    source = SOURCES[name](tmp_path)
    segmentation = written(source)
    uids = list(dict.fromkeys(image.SOPInstanceUID for image in source.datasets))
    assert len(uids) == instances
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.datasets[0].SeriesInstanceUID
    for references in (series.ReferencedInstanceSequence, segmentation.SourceImageSequence):
        assert [item.ReferencedSOPInstanceUID for item in references] == uids
        classes = {item.ReferencedSOPClassUID for item in references}
        assert classes <= {EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage}
    document = report.measurement_report(findings.products(source), source, segmentation, IDENTITY)
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    evidence = itertools.chain.from_iterable(item.ReferencedSOPSequence for item in study.ReferencedSeriesSequence)
    assert [item.ReferencedSOPInstanceUID for item in evidence] == [*uids, segmentation.SOPInstanceUID]


def test_a_source_is_left_as_it_is(tmp_path: Path) -> None:
    source = enhanced(tmp_path)
    before = [dataset.to_json() for dataset in source.datasets]
    written(source)
    assert [dataset.to_json() for dataset in source.datasets] == before


def test_regions_on_a_dynamic_source_lie_on_its_first_frames(tmp_path: Path) -> None:
    frames = make_enhanced.dynamic(6, [10.0, 20.0])
    path = make.save(enhanced_pet(frames, pixels(len(frames), *SHAPE[1:])), tmp_path / "dynamic.dcm")
    source = findings.series([path])
    segmentation = hd.seg.Segmentation.from_dataset(written(source))
    labels = findings.corner_regions(SHAPE)
    for z, image in enumerate(source.datasets[: SHAPE[0]]):
        (found,) = segmentation.get_pixels_by_source_frame(
            image.SOPInstanceUID,
            [image.ReferencedFrameNumber],
            combine_segments=True,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(found, (labels[z] == 3) * 1 + (labels[z] == 9) * 2)
    (series,) = segmentation.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1
