"""Slices to a grid, with literal numbers, and every reason not to."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, radians, sin, tan
from typing import Any

import numpy as np
import pytest

from dicom_io.errors import GeometryRefused
from dicom_io.geometry import apart_mm, check_one_kind, distances_mm, grid, places

Header = dict[str, Any]


def stack(count: int = 4, **changes: Any) -> list[Header]:
    """Axial slices 3 mm apart from z = −10 mm up, rows 2.5 mm and columns 2 mm apart, in order of z."""
    return [
        {
            "Rows": 5,
            "Columns": 6,
            "PixelSpacing": [2.5, 2.0],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "ImagePositionPatient": [-7.0, 20.0, -10.0 + 3.0 * index],
            "FrameOfReferenceUID": "1.2.3",
            "SliceThickness": 5.0,
            **changes,
        }
        for index in range(count)
    ]


def refusal(headers: list[Header]) -> GeometryRefused:
    with pytest.raises(GeometryRefused) as caught:
        grid(headers)
    return caught.value


def test_the_affine_maps_indices_to_patient_millimetres() -> None:
    found = grid(stack())
    assert found.shape == (4, 5, 6)
    assert found.affine.tolist() == [
        [0.0, 0.0, 2.0, -7.0],  # x: columns are 2 mm apart
        [0.0, 2.5, 0.0, 20.0],  # y: rows are 2.5 mm apart
        [3.0, 0.0, 0.0, -10.0],  # z: from the positions, not from Slice Thickness 5
        [0.0, 0.0, 0.0, 1.0],
    ]
    assert found.spacing_mm == (3.0, 2.5, 2.0)
    assert found.z_range_mm == (-10.0, -1.0)
    assert found.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def test_slices_are_sorted_along_the_normal() -> None:
    headers = stack()
    shuffled = [headers[index] for index in (2, 0, 3, 1)]
    found = grid(shuffled)
    assert found.order == (1, 3, 0, 2)
    assert np.array_equal(found.affine, grid(headers).affine)


@pytest.mark.parametrize(
    ("orientation", "affine"),
    [
        # Columns to the right, rows to the front: the normal still points to the head.
        ([-1.0, 0, 0, 0, -1.0, 0], [[0, 0, -2.0, -7.0], [0, -2.5, 0, 20.0], [3.0, 0, 0, -10.0]]),
        # Rows to the front alone: the normal points to the feet, so z starts at the uppermost slice.
        ([1.0, 0, 0, 0, -1.0, 0], [[0, 0, 2.0, -7.0], [0, -2.5, 0, 20.0], [-3.0, 0, 0, -1.0]]),
        ([-1.0, 0, 0, 0, 1.0, 0], [[0, 0, -2.0, -7.0], [0, 2.5, 0, 20.0], [-3.0, 0, 0, -1.0]]),
    ],
)
def test_flipped_rows_and_columns_stay_as_they_are(orientation: list[float], affine: list[list[float]]) -> None:
    found = grid(stack(ImageOrientationPatient=orientation))
    assert found.affine[:3].tolist() == pytest.approx(np.array(affine))
    assert np.linalg.det(found.affine[:3, :3][:, ::-1]) > 0, "x, y, normal are right-handed"


def test_sagittal_slices() -> None:
    """Columns run to the back (+y), rows to the feet (−z): the normal is (0,1,0)×(0,0,−1) = (−1,0,0)."""
    headers = stack(3, ImageOrientationPatient=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0])
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [4.0 * index, 0.0, 0.0]
    found = grid(headers)
    assert found.order == (2, 1, 0)
    assert found.affine[:3].tolist() == [[-4.0, 0, 0, 8.0], [0, 0, 2.0, 0], [0, -2.5, 0, 0]]
    assert found.z_range_mm == (-8.0, 0.0)


def test_an_oblique_stack_is_a_grid() -> None:
    """Turned by 30° about x: normal (0, −sin 30°, cos 30°) = (0, −0.5, 0.8660254)."""
    c, s = cos(radians(30)), sin(radians(30))
    headers = stack(3, ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, c, s])
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [0.0, -s * 3.0 * index, c * 3.0 * index]
    found = grid(headers)
    assert found.affine[:3, 0].tolist() == pytest.approx([0.0, -1.5, 2.5980762])
    assert found.spacing_mm == pytest.approx((3.0, 2.5, 2.0))


def test_rounded_positions_are_accepted() -> None:
    """Slices every 3.27 mm whose header says whole tenths: 0, 3.3, 6.5, 9.8, 13.1 …"""
    headers = stack(40)
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [0.0, 0.0, round(3.27 * index, 1)]
    assert grid(headers).spacing_mm[0] == pytest.approx(3.27, abs=0.003)


@pytest.mark.parametrize("orientation", [[1.0, 0, 0, 0, 1.0, 0], [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]])
def test_positions_in_whole_millimetres_are_refused(orientation: list[float]) -> None:
    """Half a millimetre off in slices of 3.27 mm is no rounding to overlook."""
    normal = np.cross(orientation[:3], orientation[3:])
    headers = stack(40, ImageOrientationPatient=orientation)
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [float(np.rint(c)) for c in 3.27 * index * normal]
    assert refusal(headers).code in {"uneven-spacing", "gantry-tilt"}


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_head_first_or_feet_first_is_one_grid(order: slice) -> None:
    headers = stack()[order]
    found = grid(headers)
    assert found.affine[:3, 3].tolist() == [-7.0, 20.0, -10.0]
    assert [headers[index]["ImagePositionPatient"][2] for index in found.order] == [-10.0, -7.0, -4.0, -1.0]


@pytest.mark.parametrize("declared", [-3.0, 5.0, 0.0, None])
def test_where_positions_speak_the_declared_spacing_does_not(declared: float | None) -> None:
    assert grid(stack(SpacingBetweenSlices=declared)).spacing_mm[0] == 3.0


def test_one_slice_needs_a_declared_spacing() -> None:
    """A negative one has a meaning in reconstructed NM images only (PS3.3 C.7.6.2, C.8.4.15)."""
    for missing in (stack(1), stack(1, SpacingBetweenSlices=-3.5), stack(1, SpacingBetweenSlices=0.0)):
        error = refusal(missing)
        assert error.code == "single-slice"
        assert "one slice alone has no slice spacing" in str(error)
    found = grid(stack(1, SpacingBetweenSlices=3.5))
    assert (found.order, found.shape) == ((0,), (1, 5, 6))
    assert found.affine[:3].tolist() == [[0, 0, 2.0, -7.0], [0, 2.5, 0, 20.0], [3.5, 0, 0, -10.0]]
    assert found.z_range_mm == (-10.0, -10.0)


def test_far_from_the_origin_is_no_trouble() -> None:
    headers = stack(100)
    for header in headers:
        header["ImagePositionPatient"] = [c + 1e6 for c in header["ImagePositionPatient"]]
    found = grid(headers)
    assert found.affine[:3, 3].tolist() == [999993.0, 1000020.0, 999990.0]
    assert found.affine[:3, 0].tolist() == [0.0, 0.0, 3.0]


def test_positions_too_large_to_tell_apart_are_refused() -> None:
    headers = stack(5)
    for header in headers:
        header["ImagePositionPatient"] = [c + 1e20 for c in header["ImagePositionPatient"]]
    assert refusal(headers).code == "duplicate-position"


# Rounded directions


def turned_stack(count: int, step_mm: float, digits: int | None) -> tuple[list[Header], np.ndarray[Any, Any]]:
    """Slices turned by 20° about x, then by 10° about z, with cosines rounded; and the true columns of the affine.

    across = (cos 10°, sin 10°, 0), down = cos 20° · (−sin 10°, cos 10°, 0) + sin 20° · z, normal = across × down
    """
    cz, sz, cx, sx = cos(radians(10)), sin(radians(10)), cos(radians(20)), sin(radians(20))
    across, down = np.array([cz, sz, 0.0]), np.array([-sz * cx, cz * cx, sx])
    normal = np.array([sz * sx, -cz * sx, cx])
    cosines = [float(c) if digits is None else round(float(c), digits) for c in (*across, *down)]
    headers = stack(count, ImageOrientationPatient=cosines)
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [float(c) for c in normal * step_mm * index]
    return headers, np.column_stack([normal * step_mm, down * 2.5, across * 2.0])


@pytest.mark.parametrize("digits", [3, 4, 6])
def test_rounded_cosines_shift_no_slice_of_a_long_stack(digits: int) -> None:
    """Over 500 mm the normal of cosines rounded to three digits is 0.2 mm off; the positions know better."""
    headers, truth = turned_stack(501, 1.0, digits)
    found = grid(headers)
    assert found.affine[:3, 0] == pytest.approx(truth[:, 0], abs=1e-9)
    # in the plane, each voxel lies where it is to the rounding of the cosines: 2.5 mm · 0.001
    assert found.affine[:3, 1:3] == pytest.approx(truth[:, 1:], abs=2.5e-3)
    axes = found.affine[:3, :3] / np.linalg.norm(found.affine[:3, :3], axis=0)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-12)
    assert found.spacing_mm == pytest.approx((1.0, 2.5, 2.0), abs=1e-9)
    assert np.linalg.det(axes) == pytest.approx(-1.0), "(z, y, x) of a right-handed (x, y, z)"


def test_cosines_of_unit_length_are_taken_exactly() -> None:
    headers, truth = turned_stack(12, 4.0, None)
    assert grid(headers).affine[:3, :3] == pytest.approx(truth, abs=1e-12)


def test_a_scaled_direction_gives_no_scaled_voxel() -> None:
    """Lengths 1.0015 and 0.9985: within rounding, and no part of Pixel Spacing."""
    found = grid(stack(1, SpacingBetweenSlices=3.0, ImageOrientationPatient=[1.0015, 0, 0, 0, 0.9985, 0]))
    assert found.spacing_mm == pytest.approx((3.0, 2.5, 2.0), abs=1e-12)


def test_a_short_stack_does_not_turn_the_directions() -> None:
    """Two slices 3 mm apart, 0.1 mm aside by rounding, are 1.9° apart from the normal: the cosines know better."""
    headers = stack(2)
    headers[1]["ImagePositionPatient"] = [-6.9, 20.0, -7.0]
    assert grid(headers).affine[:3, :3].tolist() == [[0, 0, 2.0], [0, 2.5, 0], [3.0, 0, 0]]


def test_slightly_different_headers_give_one_grid_in_any_order() -> None:
    """Cosines and spacings that differ by rounding: the middle ones count, whoever arrives first."""
    headers = stack(3)
    headers[0]["ImageOrientationPatient"] = [1.0, 0.001, 0, 0, 1.0, 0]
    headers[1]["PixelSpacing"] = [2.501, 2.0]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        found = grid([headers[index] for index in order])
        assert found.affine[:3, :3].tolist() == [[0, 0, 2.0], [0, 2.5, 0], [3.0, 0, 0]]


# Each tolerance from both sides

ORIENTATION = "ImageOrientationPatient"


@pytest.mark.parametrize(
    ("inside", "outside", "code"),
    [
        # the third of eight slices, away from its place along the normal: 0.18 mm, headers round to 0.1 mm
        (("move", (0, 0, 0.179)), ("move", (0, 0, 0.181)), "uneven-spacing"),
        (("move", (0, 0, -0.179)), ("move", (0, 0, -0.181)), "uneven-spacing"),
        # aside: a tenth of the smaller pixel side, 2 mm
        (("move", (0.199, 0, 0)), ("move", (0.201, 0, 0)), "gantry-tilt"),
        (("move", (0, -0.199, 0)), ("move", (0, -0.201, 0)), "gantry-tilt"),
        ((ORIENTATION, [1, 0.0019, 0, 0, 1, 0]), (ORIENTATION, [1, 0.0021, 0, 0, 1, 0]), "mixed-orientation"),
        (("PixelSpacing", [2.5024, 2.0]), ("PixelSpacing", [2.5026, 2.0]), "mixed-spacing"),
        (("PixelSpacing", [2.5, 1.9981]), ("PixelSpacing", [2.5, 1.9979]), "mixed-spacing"),
    ],
)  # fmt: skip
def test_one_slice_may_differ_by_rounding_only(inside: tuple[str, Any], outside: tuple[str, Any], code: str) -> None:
    for (what, value), expected in ((inside, None), (outside, code)):
        headers = stack(8)
        (move(2, *value) if what == "move" else put(2, what, value))(headers)
        if expected is None:
            assert grid(headers).spacing_mm[0] == 3.0
        else:
            assert refusal(headers).code == expected


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ([1.0019, 0, 0, 0, 1, 0], [1.0021, 0, 0, 0, 1, 0]),
        ([0.9981, 0, 0, 0, 1, 0], [0.9979, 0, 0, 0, 1, 0]),
        ([1, 0, 0, 0, 1.0019, 0], [1, 0, 0, 0, 1.0021, 0]),
        ([1, 0, 0, 0.0019, 1, 0], [1, 0, 0, 0.0021, 1, 0]),
        ([1, 0, 0, -0.0019, 1, 0], [1, 0, 0, -0.0021, 1, 0]),
    ],
)
def test_directions_may_be_off_by_rounding_only(inside: list[float], outside: list[float]) -> None:
    assert grid(stack(ImageOrientationPatient=inside)).shape == (4, 5, 6)
    assert refusal(stack(ImageOrientationPatient=outside)).code == "bad-orientation"


@pytest.mark.parametrize("pixel_mm", [1.0, 5.0])
def test_lateral_tolerance_grows_with_the_pixel(pixel_mm: float) -> None:
    """0.18 mm where pixels are small, a tenth of a pixel where they are large."""
    limit = {1.0: 0.18, 5.0: 0.5}[pixel_mm]
    for offset, refused in ((limit - 0.001, False), (limit + 0.001, True)):
        headers = stack(8, PixelSpacing=[pixel_mm, pixel_mm])
        move(4, offset, 0.0, 0.0)(headers)
        if refused:
            assert f"{offset:.2f} mm aside over 21.0 mm" in str(refusal(headers))
        else:
            grid(headers)


def test_slices_closer_than_a_fiftieth_of_a_millimetre_are_one_place() -> None:
    headers = stack(3)
    headers[1]["ImagePositionPatient"] = [-7.0, 20.0, -9.981]
    assert refusal(headers).code == "duplicate-position"
    headers[1]["ImagePositionPatient"] = [-7.0, 20.0, -9.979]
    assert refusal(headers).code == "missing-slice", "the gaps are 0.021 and 5.979 mm"
    assert [len(place) for place in places([*stack(1), *stack(1)]) or []] == [2]
    for z, count in ((-9.981, 1), (-9.979, 2)):
        assert len(places([stack(1)[0], {**stack(1)[0], "ImagePositionPatient": [-7.0, 20.0, z]}]) or []) == count


def at(*heights_mm: float, **changes: Any) -> list[Header]:
    """Axial slices at these heights."""
    return [{**stack(1, **changes)[0], "ImagePositionPatient": [0.0, 0.0, height]} for height in heights_mm]


def test_the_tolerances_themselves_are_still_inside() -> None:
    """With numbers that need no rounding: what lies at the limit is not beyond it."""
    assert grid(at(0.0, 0.02)).spacing_mm[0] == 0.02
    assert len(places(at(0.0, 0.02)) or []) == 2
    assert "1 places" in str(refusal(at(0.0, 0.0, 0.02)))
    assert refusal(at(0.0, 2.0, 5.0)).code == "uneven-spacing", "3 is one and a half times 2, not more"
    assert grid(at(-1.0, 0.18, 1.0)).spacing_mm[0] == 1.0
    assert grid([*at(0.0, ImageOrientationPatient=[1, 0.002, 0, 0, 1, 0]), *at(3.0)]).shape[0] == 2
    assert grid(stack(ImageOrientationPatient=[1, 0, 0, 0.002, 1, 0])).shape[0] == 4
    assert grid([*at(0.0, PixelSpacing=[1000, 9]), *at(3.0, PixelSpacing=[1001, 9])]).shape[0] == 2
    aside = stack(3, PixelSpacing=[2.5, 2.5])
    aside[1]["ImagePositionPatient"] = [-7.25, 20.0, -7.0]
    assert grid(aside).shape[0] == 3
    assert grid(stack(1, SpacingBetweenSlices=0.5)).spacing_mm[0] == 0.5


@pytest.mark.parametrize(("count", "gap", "code"), [(3, 4.49, "uneven-spacing"), (3, 4.51, "missing-slice")])
def test_a_gap_of_half_a_slice_more_is_a_missing_slice(count: int, gap: float, code: str) -> None:
    headers = stack(count)
    headers[-1]["ImagePositionPatient"] = [-7.0, 20.0, -10.0 + 3.0 * (count - 2) + gap]
    assert refusal(headers).code == code


def test_three_slices_show_that_one_is_missing() -> None:
    """Gaps of 3 and 6 mm, in either order: half of the gaps are wrong, and the smaller one counts."""
    for missing in (1, 2):
        headers = stack(4)
        del headers[missing]
        error = refusal(headers)
        assert error.code == "missing-slice"
        assert "one every 3.000 mm, largest gap 6.000 mm, about 1 missing" in str(error)


def test_several_gaps_are_counted() -> None:
    headers = stack(20)
    for index in (15, 9, 8, 3):
        del headers[index]
    assert "largest gap 9.000 mm, about 4 missing" in str(refusal(headers))


def test_repeated_slices_are_counted() -> None:
    assert "2 places have more" in str(refusal([*stack(5), *stack(2)]))


def test_numbers_of_pixels_must_be_numbers() -> None:
    for keyword in ("Rows", "Columns"):
        for value in (0, None, "5"):
            assert refusal(stack(**{keyword: value})).code == "mixed-size"
        headers = stack(3)
        headers[1][keyword] += 1
        assert refusal(headers).code == "mixed-size"


def test_one_frame_is_a_single_frame_image() -> None:
    assert grid(stack(NumberOfFrames=1)).shape == (4, 5, 6)
    check_one_kind(stack(NumberOfFrames=None))
    assert "2 have more frames" in str(refusal([*stack(2), *stack(2, NumberOfFrames=2)]))


def test_a_frame_of_reference_that_only_some_have_is_refused() -> None:
    assert refusal([*stack(2), *stack(2, FrameOfReferenceUID=None)[1:]]).code == "mixed-frame-of-reference"
    assert grid(stack(FrameOfReferenceUID=None)).shape == (4, 5, 6)


def move(index: int, *offset_mm: float) -> Callable[[list[Header]], object]:
    def change(headers: list[Header]) -> None:
        position = headers[index]["ImagePositionPatient"]
        headers[index]["ImagePositionPatient"] = [a + b for a, b in zip(position, offset_mm, strict=True)]

    return change


def put(index: int, keyword: str, value: object) -> Callable[[list[Header]], object]:
    return lambda headers: headers[index].update({keyword: value})


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (put(1, "ImageOrientationPatient", [1.0, 0, 0, 0, 0.99, 0.141]), "mixed-orientation", "0.141"),
        (put(2, "ImagePositionPatient", [-7.0, 20.0, -7.0]), "duplicate-position", "1 places"),
        (lambda headers: headers.pop(4), "missing-slice", "expected one every 3.000 mm, largest gap 6.000 mm, about 1"),
        (lambda headers: [headers.pop(4), headers.pop(4)], "missing-slice", "largest gap 9.000 mm, about 2"),
        (move(3, 0.0, 0.0, 0.5), "uneven-spacing", "gaps are 2.500 to 3.500 mm"),
        (move(3, 0.0, 1.0, 0.0), "gantry-tilt", "1.00 mm aside"),
        (put(5, "Rows", 7), "mixed-size", "5 to 7 rows and 6 to 6 columns"),
        (put(5, "PixelSpacing", [2.5, 2.01]), "mixed-spacing", "2 to 2.5"),
        (put(5, "FrameOfReferenceUID", "1.2.4"), "mixed-frame-of-reference", "several"),
        (put(5, "ImagePositionPatient", None), "no-position", "1 have none"),
        (put(5, "ImagePositionPatient", [0.0, "NaN", 1.0]), "no-position", "ImagePositionPatient"),
        (put(5, "ImageOrientationPatient", [1.0, 0.0, 0.0]), "no-position", "ImageOrientationPatient"),
        (put(5, "PixelSpacing", None), "no-position", "PixelSpacing"),
        (put(5, "NumberOfFrames", 12), "multi-frame", "1 have more frames"),
        (lambda headers: headers.clear(), "no-position", "got none"),
        (lambda headers: [h.update(PixelSpacing=[0.0, 2.0]) for h in headers], "bad-spacing", "got 0 mm"),
        (
            lambda headers: [h.update(ImageOrientationPatient=[2.0, 0, 0, 0, 1, 0]) for h in headers],
            "bad-orientation",
            "lengths 2 and 1",
        ),
        (
            lambda headers: [h.update(ImageOrientationPatient=[1.0, 0, 0, 0.6, 0.8, 0]) for h in headers],
            "bad-orientation",
            "product 0.6",
        ),
    ],
)  # fmt: skip
def test_what_is_no_grid_is_refused_with_numbers(
    change: Callable[[list[Header]], object], code: str, says: str
) -> None:
    headers = stack(8)
    change(headers)
    error = refusal(headers)
    assert error.code == code
    assert says in str(error)


@pytest.mark.parametrize("tilt_deg", [1.0, -5.0, 20.0])
def test_a_tilted_gantry_is_refused(tilt_deg: float) -> None:
    headers = stack(30)
    for index, header in enumerate(headers):
        header["ImagePositionPatient"] = [0.0, 3.0 * index * tan(radians(tilt_deg)), 3.0 * index]
    error = refusal(headers)
    assert error.code == "gantry-tilt"
    assert f"{abs(tilt_deg):.2f}°" in str(error)


def test_a_slight_tilt_is_refused_and_named() -> None:
    """0.2° over 297 mm puts the last slice 1.04 mm aside; 0.05°, 0.26 mm, is what rounded cosines may explain."""
    for tilt_deg, refused in ((0.2, True), (0.05, False)):
        headers = stack(100)
        for index, header in enumerate(headers):
            header["ImagePositionPatient"] = [0.0, 3.0 * index * tan(radians(tilt_deg)), 3.0 * index]
        if refused:
            assert "1.04 mm aside over 297.0 mm (0.20°)" in str(refusal(headers))
            continue
        found = grid(headers)
        for z, header in enumerate(headers):
            assert (found.affine @ [z, 0, 0, 1])[:3] == pytest.approx(header["ImagePositionPatient"], abs=1e-9)


def test_distances_are_along_the_normal() -> None:
    """Rows run to the front: the normal is (1,0,0)×(0,−1,0) = (0,0,−1)."""
    found = distances_mm(stack(3, ImageOrientationPatient=[1.0, 0, 0, 0, -1.0, 0]))
    assert found is not None
    assert found.tolist() == [10.0, 7.0, 4.0]
    other_way = stack(2)
    other_way[1]["ImageOrientationPatient"] = [1.0, 0, 0, 0, -1.0, 0]
    along = distances_mm(other_way)
    assert along is not None
    assert along.tolist() == [-10.0, -7.0], "the first slice says which way is up"
    assert distances_mm([]) is None
    assert distances_mm(stack(2, ImageOrientationPatient=None)) is None
    assert distances_mm([*stack(1), {}]) is None


def test_how_far_two_grids_are_apart() -> None:
    """The farthest voxel counts, (1, 2, 3) of (2, 3, 4): x stretched by 0.1 mm a column, z shifted by 0.4 mm."""
    one = grid(stack()).affine
    other = one.copy()
    other[0, 2] += 0.1
    other[2, 3] -= 0.4
    assert apart_mm(one, one, (2, 3, 4)) == 0.0
    assert apart_mm(one, other, (2, 3, 4)) == pytest.approx(0.5)  # √(0.3² + 0.4²)
    assert apart_mm(other, one, (9, 2, 3, 4)) == pytest.approx(0.5), "frames in front do not count"
    nearer = one.copy()
    nearer[0] += [0.0, 0.0, -0.1, 0.4]
    assert apart_mm(one, nearer, (2, 3, 4)) == pytest.approx(0.4), "the first voxel is the farthest"
    transposed = one[:, [0, 2, 1, 3]]
    assert apart_mm(one, transposed, (1, 3, 3)) > 1.0, "opposite corners alone would not show it"


def test_places_group_frames_of_one_position() -> None:
    headers = stack(3) + stack(3)
    assert places(headers) == [[0, 3], [1, 4], [2, 5]]
    assert places([*headers, {}]) is None
    assert places([]) is None
