"""The page for people: regions where they lie, the numbers of the products, nobody's name, and a sound object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from dicom_io.volume import LoadedSeries, load
from dicom_io.write import capture, header, seg
from engines.contract import LabelMap, Measurement, Products, Quantity
from tests import findings, make
from tests.findings import BERLIN, IDENTITY

SHAPE = (60, 40, 40)


def spheres(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint16]:
    """Label 3 on the patient's right near the feet, label 9 on the left near the head, in the phantom's own order."""
    labels = np.zeros(shape, np.uint16)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    labels[(z - 12) ** 2 + (y - 20) ** 2 + (x - 10) ** 2 <= 16] = 3
    labels[(z - 48) ** 2 + (y - 20) ** 2 + (x - 30) ** 2 <= 16] = 9
    return labels


def source(folder: Path, **more: Any) -> LoadedSeries:
    return findings.series(make.study(folder, pet_shape=SHAPE, **more).pet)


def written(products: Products, series: LoadedSeries) -> Dataset:
    return findings.reread(header.encode(capture.summary_page(products, series, IDENTITY)))


def texts(products: Products, series: LoadedSeries) -> str:
    figure = capture.pages.study_page(capture.page_of(products, series, IDENTITY))
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts) + "\n".join(
        text.get_text() for text in figure.texts
    )


def where(pixels: NDArray[np.uint8], colour: tuple[float, float, float]) -> NDArray[np.float64]:
    """Mean row and column of the outline of a colour on the coronal view, the left third of the page."""
    view = pixels[:, : pixels.shape[1] * 3 // 10].astype(float)
    near = np.abs(view - 255 * np.array(colour)).max(axis=2) < 40
    return np.argwhere(near).mean(axis=0)


@pytest.mark.parametrize("flip", ["", "zyx", "x"])
def test_regions_are_drawn_on_the_right_side_of_the_patient(tmp_path: Path, flip: str) -> None:
    """The page shows the patient facing us: his right on the left, whichever way the arrays run."""
    series = source(tmp_path, flip=flip)
    affine = series.volume.affine
    middle = (affine @ [*(np.array(SHAPE) - 1) / 2, 1.0])[:3]
    places = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(SHAPE)) + affine[:3, 3, None, None, None]
    labels = np.zeros(SHAPE, np.uint16)
    for label, aside_mm in ((3, (-120.0, 0.0, -270.0)), (9, (120.0, 0.0, 270.0))):  # LPS: right and feet are negative
        labels[((places - (middle + aside_mm)[:, None, None, None]) ** 2).sum(axis=0) <= 50.0**2] = label
    pixels = written(findings.products(series, labels), series).pixel_array
    right, left = (where(pixels, seg.colour(number)) for number in (1, 2))
    assert right[1] + 20 < left[1]
    assert right[0] > left[0] + 100  # nearer to the feet is lower on the page


def test_a_region_outside_the_body_is_drawn_too(tmp_path: Path) -> None:
    series = source(tmp_path)
    labels = np.zeros(SHAPE, np.uint16)
    labels[30:33, 0:3, 0:3] = 1
    pixels = written(findings.products(series, labels), series).pixel_array
    assert np.isfinite(where(pixels, seg.colour(1))).all()


def test_without_regions_nothing_is_drawn_in_their_colours(tmp_path: Path) -> None:
    series = source(tmp_path)
    pixels = written(findings.nothing(), series).pixel_array
    view = pixels[60:900, : pixels.shape[1] // 2].astype(int)
    assert np.ptp(view, axis=2).max() <= 2  # the image is grey
    assert "No lesion found" in texts(findings.nothing(), series)


def test_the_page_says_the_numbers_of_the_products(tmp_path: Path) -> None:
    series = source(tmp_path)
    said = texts(findings.products(series, spheres()), series)
    assert "2 lesions, MTV 16.2 mL, TLG 106 g" in said
    for words in ("12.3", "6.5", "10.2", "RESEARCH USE ONLY", "Physiological uptake is not excluded", "SUV ≥ 4 g/ml"):
        assert words in said, words
    assert "job 117 (5f5f5f5f5f5f)" in said
    assert series.suv_reference in said


def test_lesions_are_numbered_as_the_segments_are(tmp_path: Path) -> None:
    series = source(tmp_path)
    found = findings.products(series, spheres())
    page = capture.page_of(replace(found, lesions=found.lesions[::-1]), series, IDENTITY)
    segmentation = seg.segmentation(found, series, IDENTITY)
    assert segmentation is not None
    assert [region.cells[0] for region in page.regions] == [str(s.SegmentNumber) for s in segmentation.SegmentSequence]
    assert page.labels is not None
    assert np.array_equal(page.labels, (spheres() == 3) * 1 + (spheres() == 9) * 2)
    assert page.regions[0].cells[4] == "10.2" and page.regions[1].cells[4] == "–"  # only label 3 has a peak


def test_territories_have_a_table_of_their_own(tmp_path: Path) -> None:
    series = load(findings.dynamic_series(tmp_path, (8, 12, 10), (10.0, 30.0)), Quantity.ACTIVITY_BQML, BERLIN)
    found = findings.nothing(
        measurements=(
            Measurement("MBF", 2.125, "ml/min/g", region="LAD"),
            Measurement("MBF", 0.875, "ml/min/g", region="RCA"),
            Measurement("MFR", 2.5, "1", region="LAD"),
        )
    )
    page = capture.page_of(found, series, IDENTITY)
    assert page.columns == ("Region", "MBF\n[mL/min/g]", "MFR")
    assert [region.cells for region in page.regions] == [("LAD", "2.12", "2.50"), ("RCA", "0.88", "–")]
    # 10 s of the first frame and 30 s of the second, in kBq/mL
    mean = (series.volume.array[0] * 0.25 + series.volume.array[1] * 0.75) / 1000.0
    assert page.pet.array == pytest.approx(mean, rel=1e-5)


def strings(dataset: Dataset) -> set[str]:
    return {
        str(value)
        for element in dataset.iterall()
        if element.VR in {"PN", "LO", "SH", "ST", "LT", "UT", "DA"} and element.value
        for value in (element.value if isinstance(element.value, MultiValue) else [element.value])
    }


def test_nothing_of_the_patient_is_drawn(tmp_path: Path) -> None:
    """Free texts of the source that name a patient are not on the page, so that its burnt-in flag is true."""

    def name_everything(dataset: Dataset) -> None:
        for keyword in ("SeriesDescription", "StudyDescription", "ProtocolName", "PatientComments", "PatientID"):
            setattr(dataset, keyword, "QQNAMEQQ")
        dataset.PatientName = "QQNAMEQQ^X"
        for item in dataset.get("RadiopharmaceuticalInformationSequence", []):
            item.Radiopharmaceutical = "QQNAMEQQ"

    series = source(tmp_path, edit=name_everything)
    found = findings.products(series, spheres())
    assert "QQNAMEQQ" not in texts(found, series)
    dataset = written(found, series)
    assert dataset.BurnedInAnnotation == "NO"
    assert "QQNAMEQQ" in strings(dataset)  # in the header it stays: the object belongs to the patient


def test_the_object(tmp_path: Path) -> None:
    series = source(tmp_path)
    dataset = written(findings.products(series, spheres()), series)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation) == (1080, 1680, "RGB")
    assert min(dataset.Rows, dataset.Columns) >= 1024
    assert dataset.pixel_array.shape == (1080, 1680, 3)
    assert dataset.StudyInstanceUID == series.datasets[0].StudyInstanceUID
    assert (dataset.ContentQualification, dataset.ConversionType) == ("RESEARCH", "WSD")
    assert dataset.SeriesDescription == "Summary threshold_segmentation RESEARCH USE ONLY"
    assert len(dataset.SourceImageSequence) == SHAPE[0]
    # the banner: white letters on a dark red band over the whole width
    assert dataset.pixel_array[3, :, 0].min() > 120 > dataset.pixel_array[3, :, 1].max()


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    series = source(tmp_path)
    found = findings.products(series, spheres())
    once, again = (header.encode(capture.summary_page(found, series, IDENTITY)) for _ in "ab")
    assert once == again


def test_a_label_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    series = source(tmp_path)
    moved = series.volume.affine.copy()
    moved[2, 3] += 1.0
    found = findings.products(series, spheres())
    with pytest.raises(ValueError, match="grid"):
        capture.summary_page(replace(found, label_map=LabelMap(spheres(), moved, {})), series, IDENTITY)
