"""What a reader sees: a study and our results in OHIF, in front of a real archive, in a real browser.

The truth is what the phantom put into the study and what our own reader loads; the pictures are of the screen. With
TRACERD_SCREENSHOTS=FOLDER the windows are kept there (`make screenshots` renews those of the documentation).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser
from pydicom import Dataset
from scipy import ndimage
from skimage.transform import resize

from dicom_io.volume import LoadedSeries
from dicom_io.write.objects import objects
from dicom_io.write.seg import colour, segmentation
from engines.contract import Products, Volume
from engines.registry import engine
from tests import findings, make
from tests.flow.running import FDG_RULE, RunningNode
from tests.peers import Orthanc, Sender, dicom_web
from tests.web import ohif, viewer
from tests.web.viewer import Picture, Viewer

THRESHOLD_SUV = 4.0
PET = "PET WB AC"
LESIONS = "Lesions threshold_segmentation RESEARCH USE ONLY"
SMOOTHED = "Smoothed threshold_segmentation RESEARCH USE ONLY"
SUMMARY = "Summary threshold_segmentation RESEARCH USE ONLY"
BODY_MM = np.array([0.0, 0.0, 450.0])
"""The middle of the phantom, LPS."""
AIR, COLOURED = 4, 20
"""Grey levels (0 … 255): what is not brighter is air; what differs by more has a colour over it."""


class Elsewhere(AssertionError):
    """The regions are drawn, but not over the right voxels."""


@dataclass(frozen=True)
class Site:
    """An archive with OHIF in front of it, and what we know of the one study in it."""

    archive: Orthanc
    address: str
    study: make.Study
    pet: LoadedSeries
    found: Products
    smoothed: Volume
    smoothed_images: Sequence[Dataset]
    page: Picture

    @property
    def hot(self) -> NDArray[np.bool_]:
        """The voxels that the node was to segment, on the grid of `pet`."""
        return self.pet.volume.array >= THRESHOLD_SUV

    def place_mm(self, voxel: Sequence[int]) -> NDArray[np.float64]:
        place: NDArray[np.float64] = (self.pet.volume.affine @ [*voxel, 1.0])[:3]
        return place

    def voxels(self, places_mm: NDArray[np.float64]) -> NDArray[np.int64]:
        """Places [LPS mm] (…, 3) → indices of the nearest voxels of `pet` (…, 3), also outside of its grid."""
        to_index = np.linalg.inv(self.pet.volume.affine)
        return np.rint(places_mm @ to_index[:3, :3].T + to_index[:3, 3]).astype(np.int64)

    def peak(self, which: int) -> tuple[int, int, int]:
        """The hottest voxel of a lesion of the phantom, counted from the feet."""
        truth, suv = self.study.truth, self.study.suv
        lesions = sorted(np.unique(truth[truth > 0]), key=lambda label: np.argwhere(truth == label)[:, 0].mean())
        inside = np.argwhere(truth == lesions[which])
        written = inside[suv[tuple(inside.T)].argmax()]
        z, y, x = self.voxels((self.study.affine @ [*written, 1.0])[:3])
        return int(z), int(y), int(x)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node's results beside the study, and a derived PET and a page, which no rule asks for yet."""
    folder = tmp_path_factory.mktemp("site")
    with Orthanc(folder / "orthanc", settings=dicom_web()) as archive, ohif.served(archive) as address:
        study = make.study(folder / "study", seed=3, pet_shape=(75, 96, 96), ct_shape=(75, 128, 128))
        with RunningNode(folder / "node", archive.dicom_port) as node:
            assert not Sender(node.port).send(study.files).unacknowledged
            node.wait_delivered(2)
        pet = findings.series(study.pet)
        found = engine("threshold_segmentation")({"pet": pet.volume}, FDG_RULE["parameters"], lambda: False)
        smoothed = replace(pet.volume, array=ndimage.gaussian_filter(pet.volume.array, 0.7))
        images = replace(found, volumes={"Smoothed": smoothed})
        *series, page = [one.dataset for one in objects(images, pet, findings.IDENTITY, ("pet", "capture"))]
        store(archive, [*study.files, *findings.save([*series, page], folder / "written")])
        yield Site(archive, address, study, pet, found, smoothed, series, page.pixel_array)


def store(archive: Orthanc, files: Sequence[Path]) -> None:
    assert not Sender(archive.dicom_port, called_ae=archive.aet, propose_needed=True).send(files).unacknowledged


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with viewer.browser() as started:
        yield started


@pytest.fixture
def reader(site: Site, chromium: Browser) -> Iterator[Viewer]:
    opened = Viewer(chromium, site.address, site.study.study_uid)
    yield opened
    faults = list(opened.faults)
    opened.close()
    assert faults == []


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("TRACERD_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_drawn(reader: Viewer, site: Site, peak: Sequence[int], down_mm: Sequence[float]) -> None:
    """What is drawn covers the hot voxels and no others, to one pixel, and the lesion is on its side of the body.

    peak : a voxel of the lesion in the plane that is shown
    down_mm : the patient's direction that runs down the image; the patient's left is at the right in both views

    Raises
    ------
    Elsewhere
        Something is drawn, but not there.
    """
    covered = reader.image()
    reader.show_segmentations(False)
    plain = reader.image()
    reader.show_segmentations(True)
    drawn = np.abs(covered.astype(int) - plain).max(axis=2) > COLOURED
    assert drawn.any(), "nothing is drawn"

    in_the_grid = np.pad(site.hot, 1)  # no voxel is hot outside
    voxels = site.voxels(reader.places_mm())
    z, y, x = np.moveaxis(np.clip(voxels + 1, 0, np.array(in_the_grid.shape) - 1), -1, 0)
    hot = in_the_grid[z, y, x]
    bare, beyond = ndimage.binary_erosion(hot) & ~drawn, drawn & ~ndimage.binary_dilation(hot)
    if bare.any() or beyond.any():
        raise Elsewhere(f"of {hot.sum()} pixels of hot voxels {bare.sum()} are bare, {beyond.sum()} others are covered")

    # The same without asking OHIF where a pixel lies: by the brightness of the image, and by the sides of the body.
    brightness = plain.max(axis=2)
    beside = brightness[~ndimage.binary_dilation(drawn, iterations=12)]
    assert np.median(brightness[drawn]) > beside.max(), "something brighter is not covered"
    regions, _ = ndimage.label(drawn)
    lesion = regions == regions[tuple(np.argwhere((voxels == peak).all(axis=2))[0])]
    body = np.argwhere(brightness > AIR)
    row, column = np.argwhere(lesion).mean(axis=0) - (body.min(axis=0) + body.max(axis=0)) / 2
    offset_mm = site.place_mm(peak) - BODY_MM
    assert np.sign(column) == np.sign(offset_mm[0]), "left and right"
    assert np.sign(row) == np.sign(offset_mm @ down_mm), "up and down"


def check_axial(reader: Viewer, site: Site, peak: Sequence[int]) -> None:
    reader.to_image(site.pet.datasets[peak[0]].SOPInstanceUID)
    assert reader.sides() == ("A", "R")
    check_drawn(reader, site, peak, down_mm=(0.0, 1.0, 0.0))


def check_coronal(reader: Viewer, site: Site, peak: Sequence[int]) -> None:
    """After `reader.turn("Coronal")`."""
    reader.to_place(site.place_mm(peak))
    reader.window(0.0, 6.0)
    assert reader.sides() == ("H", "R")
    check_drawn(reader, site, peak, down_mm=(0.0, 0.0, -1.0))


def test_the_segments_are_listed_and_drawn_over_the_lesions(site: Site, reader: Viewer, screenshots: Path) -> None:
    near_the_feet, near_the_head = site.peak(0), site.peak(-1)
    assert site.place_mm(near_the_feet)[0] < -50, "on the patient's right"
    assert site.place_mm(near_the_head)[0] > 50, "on the patient's left"
    assert any(line.startswith(f"SEG {LESIONS}") for line in reader.series())
    reader.open_series(PET)
    segments = reader.open_segmentation(LESIONS, PET)
    assert [segment.name for segment in segments] == [f"Lesion {number}" for number in range(1, len(segments) + 1)]
    assert len(segments) == ndimage.label(site.hot)[1]
    for segment in segments:
        assert np.abs(np.array(segment.colour) - 255 * np.array(colour(segment.number))).max() <= 2
    for segment, lesion in zip(segments, site.found.lesions, strict=True):
        shown = reader.statistics(segment)
        assert shown["Voxel Count"] == lesion.voxels
        assert shown["Volume"] == pytest.approx(1000 * lesion.volume_ml, rel=0.01), "mm³ and mL"
        assert shown["Max Value"] == pytest.approx(lesion.suv_max, rel=0.01)
        assert shown["Mean Value"] == pytest.approx(lesion.suv_mean, rel=0.01)
    check_axial(reader, site, near_the_feet)
    reader.keep(screenshots, "axial")
    check_axial(reader, site, near_the_head)
    reader.turn("Coronal")
    check_coronal(reader, site, near_the_feet)
    check_coronal(reader, site, near_the_head)
    reader.keep(screenshots, "coronal")


@pytest.fixture(params=[pytest.param(2, id="left for right"), pytest.param(0, id="head for feet")])
def mirrored(site: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The description of a Segmentation in the archive whose regions are mirrored along an axis."""
    regions, _ = ndimage.label(np.flip(site.hot, request.param))
    made = segmentation(findings.products(site.pet, regions.astype(np.uint16)), site.pet, findings.IDENTITY)
    assert made is not None
    made.SeriesDescription = "Mirrored"
    store(site.archive, findings.save([made], tmp_path / "mirrored"))
    yield made.SeriesDescription
    site.archive.delete(made.SOPInstanceUID)


def test_a_mirrored_segmentation_is_found_out(site: Site, mirrored: str, reader: Viewer) -> None:
    reader.open_series(PET)
    reader.open_segmentation(mirrored, PET)
    with pytest.raises(Elsewhere):
        check_axial(reader, site, site.peak(-1))
    reader.turn("Coronal")
    with pytest.raises(Elsewhere):
        check_coronal(reader, site, site.peak(-1))


def test_a_view_that_is_turned_over_is_found_out(site: Site, reader: Viewer) -> None:
    """The regions are then over the right voxels all the same: it takes eyes that know the patient's sides."""
    reader.open_series(PET)
    reader.open_segmentation(LESIONS, PET)
    reader.choose_tool("Flip Horizontal")
    reader.to_image(site.pet.datasets[site.peak(-1)[0]].SOPInstanceUID)
    assert reader.sides() == ("A", "L")
    with pytest.raises(AssertionError, match="left and right"):
        check_drawn(reader, site, site.peak(-1), down_mm=(0.0, 1.0, 0.0))


def test_the_probe_shows_our_suv(site: Site, reader: Viewer, screenshots: Path) -> None:
    reader.open_series(PET)
    liver = (-62.0, -8.0, 420.0)
    for voxel in (site.peak(0), site.peak(-1), tuple(site.voxels(np.array(liver)))):
        reader.to_image(site.pet.datasets[voxel[0]].SOPInstanceUID)
        value, unit = reader.probe(site.place_mm(voxel))
        assert unit == "SUV"
        assert value == pytest.approx(site.pet.volume.array[voxel], rel=0.01)
    reader.keep(screenshots, "probe")


def test_the_derived_pet_opens_with_its_own_suv(site: Site, reader: Viewer, screenshots: Path) -> None:
    reader.open_series(SMOOTHED)
    peak = site.peak(-1)
    smoothed, original = site.smoothed.array[peak], site.pet.volume.array[peak]
    assert smoothed < 0.8 * original, "the smoothing is not to be seen"
    reader.to_image(site.smoothed_images[peak[0]].SOPInstanceUID)
    value, unit = reader.probe(site.place_mm(peak))
    assert unit == "SUV"
    assert value == pytest.approx(smoothed, rel=0.01)
    reader.keep(screenshots, "derived")
    reader.turn("Coronal")  # OHIF then takes the window from the header
    assert (reader.image().max(axis=2) > AIR).mean() > 0.05


def test_the_summary_page_opens_as_it_was_drawn(site: Site, reader: Viewer, screenshots: Path) -> None:
    reader.open_series(SUMMARY)
    shown = reader.image()
    rows, columns = np.nonzero(shown.max(axis=2) > AIR)
    page = shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    expected = 255 * resize(site.page, page.shape[:2], anti_aliasing=True)
    assert page.shape[1] > 600
    assert np.abs(page - expected).mean() < 5
    reader.keep(screenshots, "summary")
