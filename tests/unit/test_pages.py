"""Pages: which way the patient faces, true proportions, and that nothing is drawn over the edge."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from dicom_io.write import pages
from engines.contract import Quantity, Volume


def marked_grid(order: tuple[int, ...], backward: tuple[bool, ...]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """An array whose axis k runs along the patient axis order[k] (0 left, 1 posterior, 2 superior), or against it.

    The patient is 4 voxels of 2 mm from right to left, 6 of 3 mm from front to back, 10 of 5 mm from foot to head; one
    voxel is marked: the patient's right (0), the back (5), the second from the head (8).
    """
    shape_lps, spacing_lps, marked_lps = (4, 6, 10), (2.0, 3.0, 5.0), (0, 5, 8)
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    index = []
    for axis, patient in enumerate(order):
        sign = -1.0 if backward[axis] else 1.0
        affine[patient, axis] = sign * spacing_lps[patient]
        last = shape_lps[patient] - 1
        index.append(last - marked_lps[patient] if backward[axis] else marked_lps[patient])
    array = np.zeros([shape_lps[patient] for patient in order], np.float32)
    array[tuple(index)] = 1.0
    return array, affine


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("backward", [(False, False, False), (True, False, False), (False, True, True)])
def test_every_orientation_is_turned_upright(order: tuple[int, ...], backward: tuple[bool, ...]) -> None:
    turned, spacing_mm = pages.upright(*marked_grid(order, backward))
    assert turned.shape == (10, 6, 4)  # head → feet, front → back, right → left
    assert list(spacing_mm) == [5.0, 3.0, 2.0]
    assert [int(i) for i in np.argwhere(turned)[0]] == [1, 5, 0]  # second from the head, back, right


def test_an_oblique_grid_is_turned_to_the_nearest_axes() -> None:
    array, affine = marked_grid((2, 1, 0), (False, False, False))
    tilt = np.radians(20.0)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    turned, _ = pages.upright(array, rotation @ affine)
    assert [int(i) for i in np.argwhere(turned)[0]] == [1, 5, 0]


def test_numbers_beside_the_body_keep_their_distance_and_order() -> None:
    assert pages.spread([10.0, 100.0], gap=20.0, low=0.0, high=200.0) == [10.0, 100.0]
    assert pages.spread([50.0, 52.0, 53.0], gap=20.0, low=0.0, high=200.0) == [50.0, 70.0, 90.0]
    assert pages.spread([190.0, 195.0], gap=20.0, low=0.0, high=200.0) == [180.0, 200.0]
    assert pages.spread([1.0, 2.0, 3.0], gap=20.0, low=0.0, high=10.0) == [0.0, 5.0, 10.0]
    assert pages.spread([], gap=20.0, low=0.0, high=10.0) == []


def page(regions: int, *, labels: bool = True, notes: int = 3) -> pages.Page:
    """A page about a body of 300 × 200 × 800 mm with regions of 20 mm."""
    pet = np.zeros((80, 40, 50), np.float32)
    pet[:, 10:30, 10:40] = 1.0
    drawn = np.zeros(pet.shape, np.uint16)
    for label in range(1, regions + 1):
        z, x = 3 * (label % 24) + 2, 12 + 2 * (label // 24)
        drawn[z : z + 2, 15:17, x : x + 2] = label
        pet[z : z + 2, 15:17, x : x + 2] = 9.0
    affine = np.array([[0, 0, 10.0, 0], [0, 10.0, 0, 0], [10.0, 0, 0, 0], [0, 0, 0, 1.0]])
    colour = (0.9, 0.2, 0.1)
    return pages.Page(
        title="Study 1  ·  rule",
        facts=("FDG F-18", "70 kg"),
        headline=f"{regions} regions",
        pet=Volume(pet, affine, Quantity.SUVBW),
        labels=drawn if labels else None,
        columns=("No.", "MTV\n[mL]", "TLG\n[g]"),
        regions=tuple(pages.Region(label, colour, (str(label), "8.0", "72")) for label in range(1, regions + 1)),
        notes=tuple(
            "A sentence of a report that is long enough to be wrapped into several lines of the page."
            for _ in range(notes)
        ),
        window=(0.0, 7.0),
        unit="SUVbw [g/mL]",
    )


@pytest.mark.parametrize("regions", [0, 1, 10, 60])
def test_a_page_shows_millimetres_in_true_proportions_and_clips_no_text(regions: int) -> None:
    figure = pages.study_page(page(regions))
    figure.canvas.draw()
    views = [axes for axes in figure.axes if axes.texts and axes.images]
    assert len(views) == 2
    scales = []
    for axes in views:
        box = axes.get_window_extent()
        scales += [box.width / abs(np.ptp(axes.get_xlim())), box.height / abs(np.ptp(axes.get_ylim()))]
    assert scales == pytest.approx([scales[0]] * 4)  # one scale for both views and both directions
    texts = [text for axes in figure.axes for text in axes.texts] + list(figure.texts)
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= figure.bbox.width, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.y1 <= figure.bbox.height, text.get_text()


def test_views_name_the_sides_of_the_patient() -> None:
    figure = pages.study_page(page(1))
    coronal, sagittal = (axes for axes in figure.axes if axes.texts and axes.images)
    for axes, (left, right) in ((coronal, "RL"), (sagittal, "AP")):
        places = {text.get_text(): text.get_position() for text in axes.texts}
        assert places[left][0] < places["H"][0] < places[right][0]
        assert places["H"][1] < 0.0 < places["F"][1]  # y grows towards the feet


def test_the_same_page_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        pages.save(pages.study_page(page(3)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imread(tmp_path / "a.png")
    assert picture.shape[:2] == (990, 1540)  # 9 × 14 inches at 110 dpi
    assert picture.std() > 0.05


def test_a_page_without_regions_and_without_uptake_is_drawn() -> None:
    empty = page(0, labels=False, notes=0)
    nothing = Volume(np.zeros_like(empty.pet.array), empty.pet.affine, Quantity.SUVBW)
    figure = pages.study_page(pages.Page(**{**{f: getattr(empty, f) for f in empty.__slots__}, "pet": nothing}))
    assert len(figure.axes) == 4
