"""Laws of the grid: independent of order, exact at every slice, right-handed, and blind to nothing that is amiss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicom_io.errors import GeometryRefused
from dicom_io.geometry import grid, places
from dicom_io.series import covers

Header = dict[str, Any]
COUNTS = st.integers(3, 40)
STEPS_MM = st.floats(0.5, 10.0)


@st.composite
def rotations(draw: st.DrawFn) -> NDArray[np.float64]:
    """Columns: row direction, column direction, normal."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    if np.linalg.norm(quaternion) < 0.1:
        return np.eye(3)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def slices(rotation: NDArray[np.float64], count: int, step_mm: float) -> list[Header]:
    return [
        {
            "Rows": 4,
            "Columns": 3,
            "PixelSpacing": [1.5, 2.5],
            "ImageOrientationPatient": [*rotation[:, 0], *rotation[:, 1]],
            "ImagePositionPatient": list(np.array([11.0, -5.0, 3.0]) + rotation[:, 2] * step_mm * index),
            "FrameOfReferenceUID": "1.2.3",
        }
        for index in range(count)
    ]


@settings(deadline=None)
@given(rotation=rotations(), count=COUNTS, step_mm=STEPS_MM, seed=st.integers(0, 2**32 - 1))
def test_any_order_of_arrival_gives_the_same_grid(
    rotation: NDArray[np.float64], count: int, step_mm: float, seed: int
) -> None:
    headers = slices(rotation, count, step_mm)
    order = np.random.default_rng(seed).permutation(count)
    found = grid([headers[index] for index in order])
    assert [int(order[index]) for index in found.order] == list(range(count))
    assert np.array_equal(found.affine, grid(headers).affine)


@settings(deadline=None)
@given(rotation=rotations(), count=COUNTS, step_mm=STEPS_MM)
def test_the_affine_puts_every_slice_where_its_header_says(
    rotation: NDArray[np.float64], count: int, step_mm: float
) -> None:
    headers = slices(rotation, count, step_mm)
    found = grid(headers)
    for z, index in enumerate(found.order):
        corner = found.affine @ [z, 0, 0, 1]
        assert corner[:3] == pytest.approx(np.array(headers[index]["ImagePositionPatient"]), abs=1e-6)
    next_row, next_column = found.affine[:3, 1], found.affine[:3, 2]
    assert next_row == pytest.approx(rotation[:, 1] * 1.5, abs=1e-9)
    assert next_column == pytest.approx(rotation[:, 0] * 2.5, abs=1e-9)
    assert np.linalg.det(found.affine[:3, :3][:, ::-1]) == pytest.approx(1.5 * 2.5 * step_mm)


@settings(deadline=None)
@given(rotation=rotations(), count=st.integers(6, 40), step_mm=STEPS_MM, data=st.data())
def test_a_slice_taken_out_or_sent_twice_is_always_noticed(
    rotation: NDArray[np.float64], count: int, step_mm: float, data: st.DataObject
) -> None:
    headers = slices(rotation, count, step_mm)
    index = data.draw(st.integers(1, count - 2))
    with pytest.raises(GeometryRefused) as caught:
        grid(headers[:index] + headers[index + 1 :])
    assert caught.value.code == "missing-slice"
    with pytest.raises(GeometryRefused) as caught:
        grid([*headers, headers[index]])
    assert caught.value.code == "duplicate-position"


@settings(deadline=None)
@given(rotation=rotations(), count=st.integers(4, 40), step_mm=STEPS_MM, data=st.data())
def test_a_slice_off_its_place_is_always_noticed(
    rotation: NDArray[np.float64], count: int, step_mm: float, data: st.DataObject
) -> None:
    """Moved by more than 0.3 mm in any direction, an inner slice breaks the grid."""
    headers = slices(rotation, count, step_mm)
    index = data.draw(st.integers(1, count - 2))
    direction = data.draw(st.sampled_from([0, 1, 2]))
    offset = data.draw(st.floats(0.3, 30.0)) * rotation[:, direction]
    headers[index]["ImagePositionPatient"] = list(np.array(headers[index]["ImagePositionPatient"]) + offset)
    with pytest.raises(GeometryRefused) as caught:
        grid(headers)
    assert caught.value.code in {"uneven-spacing", "gantry-tilt", "missing-slice", "duplicate-position"}


@settings(deadline=None)
@given(rotation=rotations(), count=COUNTS, step_mm=st.floats(1.0, 10.0), start_mm=st.floats(-900.0, 900.0))
def test_positions_rounded_to_tenths_of_a_millimetre_are_accepted(
    rotation: NDArray[np.float64], count: int, step_mm: float, start_mm: float
) -> None:
    """Each coordinate is off by up to 0.05 mm, a slice by up to 0.087 mm, and a grid through its ends by as much."""
    headers = slices(rotation, count, step_mm)
    truth = [np.array(header["ImagePositionPatient"]) + start_mm for header in headers]
    for header, position in zip(headers, truth, strict=True):
        header["ImagePositionPatient"] = [round(float(c), 1) for c in position]
    found = grid(headers)
    for z, index in enumerate(found.order):
        assert np.linalg.norm((found.affine @ [z, 0, 0, 1])[:3] - truth[index]) < 0.3


@settings(deadline=None)
@given(rotation=rotations(), count=st.integers(3, 400), step_mm=STEPS_MM)
def test_cosines_rounded_to_three_digits_shift_no_slice(
    rotation: NDArray[np.float64], count: int, step_mm: float
) -> None:
    headers = slices(rotation, count, step_mm)
    for header in headers:
        header["ImageOrientationPatient"] = [round(float(c), 3) for c in header["ImageOrientationPatient"]]
    found = grid(headers)
    for z, index in enumerate(found.order):
        assert (found.affine @ [z, 0, 0, 1])[:3] == pytest.approx(headers[index]["ImagePositionPatient"], abs=1e-6)
    # in the plane: a direction off by √3 · 0.0005, turned by the normal's error of √6 · 0.0005 at most
    unit = found.affine[:3, [2, 1]] / [2.5, 1.5]
    assert np.linalg.norm(unit - rotation[:, :2], axis=0).max() < 0.0025
    assert unit.T @ unit == pytest.approx(np.eye(2), abs=1e-12)


@settings(deadline=None, max_examples=300)
@given(
    rotation=rotations(),
    count=st.integers(2, 12),
    step_mm=STEPS_MM,
    amount=st.sampled_from([0.05, 0.15, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_accepted_puts_every_slice_where_its_header_says(
    rotation: NDArray[np.float64], count: int, step_mm: float, amount: float, seed: int
) -> None:
    """However the positions were spoilt: a slice farther off than the tolerances along or across is never accepted."""
    headers = slices(rotation, count, step_mm)
    generator = np.random.default_rng(seed)
    for header in headers:
        spoilt = np.array(header["ImagePositionPatient"]) + generator.uniform(-amount, amount, 3)
        header["ImagePositionPatient"] = list(spoilt)
    try:
        found = grid(headers)
    except GeometryRefused:
        return
    normal = found.affine[:3, 0] / np.linalg.norm(found.affine[:3, 0])
    for z, index in enumerate(found.order):
        off = (found.affine @ [z, 0, 0, 1])[:3] - headers[index]["ImagePositionPatient"]
        assert abs(off @ normal) <= 0.18 + 1e-9
        assert np.linalg.norm(off - (off @ normal) * normal) <= 0.18 + 1e-9  # more than a tenth of the 1.5 mm pixel


@settings(deadline=None)
@given(rotation=rotations(), count=COUNTS, step_mm=STEPS_MM)
def test_the_affine_and_the_headers_it_describes_are_one(
    rotation: NDArray[np.float64], count: int, step_mm: float
) -> None:
    """Headers made of an affine give the affine back: positions, directions and spacings hold all of it."""
    first = grid(slices(rotation, count, step_mm))
    again = [
        {
            **slices(rotation, 1, step_mm)[0],
            "ImagePositionPatient": list((first.affine @ [z, 0, 0, 1])[:3]),
            "ImageOrientationPatient": list(first.orientation),
            "PixelSpacing": list(first.spacing_mm[1:]),
        }
        for z in range(count)
    ]
    assert np.abs(grid(again).affine - first.affine).max() < 1e-9
    low, high = first.z_range_mm
    assert high - low == pytest.approx((count - 1) * step_mm)
    assert low == pytest.approx(rotation[:, 2] @ np.array([11.0, -5.0, 3.0]), abs=1e-9)


@settings(deadline=None)
@given(rotation=rotations(), count=COUNTS, step_mm=STEPS_MM, frames=st.integers(1, 5))
def test_places_hold_each_frame_once(rotation: NDArray[np.float64], count: int, step_mm: float, frames: int) -> None:
    found = places(slices(rotation, count, step_mm) * frames)
    assert found is not None
    assert [len(place) for place in found] == [frames] * count
    assert sorted(index for place in found for index in place) == list(range(count * frames))


def facts(rotation: NDArray[np.float64], count: int, step_mm: float) -> dict[str, Any]:
    found = grid(slices(rotation, count, step_mm))
    return {
        "affine": found.affine.tolist(),
        "frame_of_reference_uid": "1.2.3",
        "orientation": list(found.orientation),
        "z_range_mm": list(found.z_range_mm),
        "spacing_mm": list(found.spacing_mm),
    }


@settings(deadline=None)
@given(rotation=rotations(), pet=st.integers(2, 60), ct=st.integers(2, 60), turned=st.booleans())
def test_a_ct_covers_a_pet_exactly_when_it_is_long_enough(
    rotation: NDArray[np.float64], pet: int, ct: int, *, turned: bool
) -> None:
    """Both start at the same slice and have 3 mm steps; the CT may be stored upside down."""
    pet_facts = facts(rotation, pet, 3.0)
    ct_facts = facts(rotation, ct, 3.0)
    if turned:
        upside_down = np.column_stack([rotation[:, 0], -rotation[:, 1], -rotation[:, 2]])
        low, high = ct_facts["z_range_mm"]
        ct_facts["orientation"] = [*upside_down[:, 0], *upside_down[:, 1]]
        ct_facts["z_range_mm"] = [-high, -low]
    assert covers(ct_facts, pet_facts).covered is (ct >= pet)
