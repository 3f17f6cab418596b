"""What a viewer reads in our results is what the engine found."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from daemon.readback import NotOnGrid, read_colours, read_labels, read_report
from dicom_io.volume import load
from dicom_io.write import report, seg
from dicom_io.write.header import Identity, encode
from engines.contract import Products, Quantity, Volume
from engines.threshold_segmentation.infer import ThresholdSegmentation
from tests import make

Written = tuple[Volume, Products, Dataset, Dataset]
IDENTITY = Identity(
    job_key="ab" * 32,
    job_id=7,
    engine="threshold_segmentation",
    engine_version="1.0.0",
    tracerd_version="0.1.0",
    weights_sha256=None,
    created=datetime(2026, 3, 2, 10, 0, tzinfo=UTC),
)


def as_received(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


@pytest.fixture(params=["", "z", "xy"])
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Written:
    study = make.study(tmp_path, seed=4, pet_shape=(40, 48, 48), flip=request.param)
    source = load(study.pet, Quantity.SUVBW, UTC)
    products = ThresholdSegmentation()({"pet": source.volume}, {}, lambda: False)
    segmentation = seg.segmentation(products, source, IDENTITY)
    assert segmentation is not None
    document = report.measurement_report(products, source, segmentation, IDENTITY)
    return source.volume, products, as_received(segmentation), as_received(document)


def test_segments_lie_where_the_engine_put_them(written: Written) -> None:
    volume, products, segmentation, _ = written
    labels = read_labels(segmentation, volume.array.shape, volume.affine)
    assert products.label_map is not None
    assert labels.max() >= 3
    np.testing.assert_array_equal(labels, products.label_map.array)


def test_numbers_and_sentences_are_those_of_the_engine(written: Written) -> None:
    _, products, _, document = written
    read = read_report(document)
    lesions = [group for group in read.groups if group.segment is not None]
    assert [group.segment for group in lesions] == [lesion.label for lesion in products.lesions]
    for group, lesion in zip(lesions, products.lesions, strict=True):
        expected = {
            "suv_max": lesion.suv_max,
            "suv_mean": lesion.suv_mean,
            "suv_peak": lesion.suv_peak,
            "mtv_ml": lesion.volume_ml,
            "tlg_g": lesion.tlg_g,
        }
        assert group.measures == pytest.approx({name: value for name, value in expected.items() if value is not None})
    assert read.sentences["Finding"] == (f"{len(products.lesions)} lesions found.",)


def test_every_segment_has_a_colour(written: Written) -> None:
    _, products, segmentation, _ = written
    colours = read_colours(segmentation)
    assert set(colours) == {lesion.label for lesion in products.lesions}
    assert all(0.0 <= part <= 1.0 for colour in colours.values() for part in colour)
    assert len(set(colours.values())) == len(colours)


@pytest.mark.parametrize("change", ["shifted", "turned", "elsewhere"])
def test_a_segmentation_of_another_grid_is_refused(written: Written, change: str) -> None:
    volume, _, segmentation, _ = written
    affine = volume.affine.copy()
    if change == "shifted":
        affine[0, 3] += 0.5
    elif change == "elsewhere":
        affine[2, 3] += 10_000.0
    else:
        affine[:3, 2] *= -1.0
    with pytest.raises(NotOnGrid):
        read_labels(segmentation, volume.array.shape, replace(volume, affine=affine).affine)
