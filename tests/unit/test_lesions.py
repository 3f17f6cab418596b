"""Components and measures of lesions against values worked out by hand."""

import numpy as np
import pytest

from engines.contract import Quantity, Volume
from engines.lesions import (
    PEAK_RADIUS_MM,
    Region,
    bounding_box,
    components,
    largest_first,
    measure,
    sphere_weights,
    suv_peak,
)


def pet(array: np.ndarray, affine: np.ndarray | None = None, spacing_mm: float = 4.0) -> Volume:
    return Volume(array.astype(np.float32), axial(spacing_mm) if affine is None else affine, Quantity.SUVBW)


def axial(spacing_mm: float, origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """(z, y, x) → LPS with z up, y posterior, x left."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = spacing_mm
    affine[:, 3] = (*origin_mm, 1.0)
    return affine


def whole(array: np.ndarray) -> Region:
    mask = array > 0
    box = bounding_box(mask)
    assert box is not None
    return Region(box, mask[box])


def test_voxels_that_share_only_an_edge_are_one_component_of_18_and_those_that_share_only_a_corner_of_26() -> None:
    edge = np.zeros((3, 3, 3), dtype=bool)
    edge[0, 0, 0] = edge[0, 1, 1] = True
    corner = np.zeros((3, 3, 3), dtype=bool)
    corner[0, 0, 0] = corner[1, 1, 1] = True
    assert [len(components(edge, n)) for n in (6, 18, 26)] == [2, 1, 1]
    assert [len(components(corner, n)) for n in (6, 18, 26)] == [2, 2, 1]


def test_a_component_comes_with_its_place_in_the_volume() -> None:
    mask = np.zeros((9, 8, 7), dtype=bool)
    mask[2:4, 5, 6] = True
    mask[8, 0, 0] = True
    first, second = components(mask, 26)
    assert first.box == (slice(2, 4), slice(5, 6), slice(6, 7))
    assert (first.voxels, first.first) == (2, (2, 5, 6))
    assert (second.voxels, second.first) == (1, (8, 0, 0))


def test_an_empty_mask_has_no_component_and_no_box() -> None:
    empty = np.zeros((4, 4, 4), dtype=bool)
    assert components(empty, 26) == []
    assert bounding_box(empty) is None


def test_an_unknown_connectivity_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 6, 18 or 26, got 8"):
        components(np.ones((1, 1, 1), dtype=bool), 8)


def test_labels_go_from_the_largest_to_the_smallest_and_by_place_among_equals() -> None:
    mask = np.zeros((1, 1, 12), dtype=bool)
    mask[0, 0, [0, 2, 4, 5, 7, 9, 10, 11]] = True  # sizes 1, 1, 2, 1, 3
    starts = [region.box[2].start for region in largest_first(components(mask, 6))]
    assert starts == [9, 4, 0, 2, 7]


def test_measures_of_three_voxels_by_hand() -> None:
    array = np.zeros((7, 7, 7))
    array[3, 3, 2], array[3, 3, 3], array[3, 3, 4] = 4.0, 5.0, 9.0
    lesion = measure(pet(array), whole(array), 7)
    assert lesion.label == 7
    assert lesion.voxels == 3
    assert lesion.volume_ml == pytest.approx(0.192)  # 3 × (4 mm)³ = 3 × 0.064 mL
    assert lesion.suv_max == 9.0
    assert lesion.suv_mean == pytest.approx(6.0)  # (4 + 5 + 9) / 3
    assert lesion.tlg_g == pytest.approx(1.152)  # 6 g/mL × 0.192 mL
    assert lesion.centroid_mm == pytest.approx((12.0, 12.0, 12.0))  # index 3 × 4 mm on each axis


def test_a_centroid_follows_an_oblique_affine() -> None:
    # Axial grid of 2 mm turned by 30° about z: x = −1 + 2(cos30·i_x − sin30·i_y), y = 5 + 2(sin30·i_x + cos30·i_y).
    cos, sin = np.sqrt(3.0) / 2.0, 0.5
    affine = np.array([[0, -2 * sin, 2 * cos, -1], [0, 2 * cos, 2 * sin, 5], [2, 0, 0, 100], [0, 0, 0, 1]], dtype=float)
    array = np.zeros((12, 12, 12))
    array[5, 4, 6] = 3.0
    lesion = measure(Volume(array.astype(np.float32), affine, Quantity.SUVBW), whole(array), 1)
    # x = −1 + 12·0.8660254 − 8·0.5 = 5.392305; y = 5 + 12·0.5 + 8·0.8660254 = 17.928203; z = 100 + 10
    assert lesion.centroid_mm == pytest.approx((5.392305, 17.928203, 110.0), abs=1e-5)
    assert lesion.volume_ml == pytest.approx(0.008)  # (2 mm)³


def test_sheared_voxels_have_the_volume_of_their_parallelepiped() -> None:
    affine = axial(4.0)
    affine[1, 0] = 1.0  # slices step 1 mm towards posterior: base and height stay
    array = np.zeros((9, 9, 9))
    array[4, 4, 4] = 2.0
    assert measure(pet(array, affine), whole(array), 1).volume_ml == pytest.approx(0.064)


def test_the_peak_sphere_has_one_millilitre_on_every_grid() -> None:
    assert pytest.approx(6.2035, abs=1e-4) == PEAK_RADIUS_MM  # (3 / 4π · 1000 mm³)^(1/3)
    turned = np.array([[0.3, -1.0, 2.0, 0], [0.2, 2.5, 1.0, 0], [3.0, 0.1, -0.4, 0], [0, 0, 0, 1]])
    for affine in (axial(1.0), axial(2.04), axial(4.07), axial(30.0), turned):
        offsets, weights = sphere_weights(affine, PEAK_RADIUS_MM)
        assert weights.sum() == pytest.approx(1.0)
        voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000.0
        # A voxel cannot hold more of the sphere than itself or than the whole sphere (points are counted: 1 %).
        assert weights.max() <= min(voxel_ml, 1.0) * 1.01
        distances = np.linalg.norm(offsets @ affine[:3, :3].T, axis=1)
        half_diagonal = 0.5 * np.abs(affine[:3, :3]).sum()
        assert distances.max() <= PEAK_RADIUS_MM + half_diagonal


def test_peak_of_one_hot_voxel_is_its_share_of_the_millilitre() -> None:
    array = np.zeros((9, 9, 9))
    array[4, 4, 4] = 100.0
    # The farthest corner of a 4 mm voxel is 3.46 mm away: all 0.064 mL of it lie in the sphere of 1 mL.
    assert suv_peak(pet(array), whole(array)) == pytest.approx(6.4, rel=0.01)


def test_peak_of_uniform_uptake_is_that_uptake() -> None:
    array = np.full((9, 9, 9), 3.5)
    assert suv_peak(pet(array), whole(array)) == pytest.approx(3.5)


def test_peak_of_a_ramp_is_the_value_at_the_outermost_centre_whose_sphere_fits() -> None:
    array = np.broadcast_to(np.arange(11.0) + 1.0, (11, 11, 11))
    # 6.2 mm reach over two voxels of 4 mm: the last centre is index 8, value 9; a ramp's mean is its central value.
    assert suv_peak(pet(array), whole(array)) == pytest.approx(9.0)


def test_peak_of_a_ball_larger_than_the_sphere_is_its_plateau_and_of_a_smaller_one_its_share() -> None:
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    squared_mm = (z**2 + y**2 + x**2) * 1.0
    large = np.where(squared_mm <= 9.0**2, 10.0, 0.0)
    assert suv_peak(pet(large, spacing_mm=1.0), whole(large)) == pytest.approx(10.0)
    small = np.where(squared_mm <= 4.0**2, 10.0, 0.0)
    # (4 / 6.2035)³ = 0.2681 of the sphere is hot; voxels are counted whole in the ball, hence 5 %.
    assert suv_peak(pet(small, spacing_mm=1.0), whole(small)) == pytest.approx(2.681, rel=0.05)


def test_peak_is_unknown_where_no_sphere_fits_the_image() -> None:
    array = np.full((2, 9, 9), 3.5)
    assert suv_peak(pet(array), whole(array)) is None


def test_peak_may_use_voxels_beside_the_lesion() -> None:
    array = np.full((9, 9, 9), 2.0)
    array[4, 4, 4] = 10.0
    lesion = Region((slice(4, 5), slice(4, 5), slice(4, 5)), np.ones((1, 1, 1), dtype=bool))
    assert suv_peak(pet(array), lesion) == pytest.approx(2.512, rel=0.01)  # 0.064 · 10 + 0.936 · 2
