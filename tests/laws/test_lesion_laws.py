"""What must hold of lesions on every image: partitions, order, turning, scaling."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from engines.contract import Products, Quantity, Volume
from engines.lesions import structure
from engines.registry import engine
from engines.threshold_segmentation.thresholds import OwnMaximum, share_of_own_maximum

# Few distinct values make plateaus, ties and shoulders; quarters are exact in float32.
images = arrays(
    np.float32,
    st.tuples(*[st.integers(3, 7)] * 3),
    elements=st.integers(0, 40).map(lambda n: n / 4.0),
    fill=st.nothing(),
)
connectivities = st.sampled_from([18, 26])
common = settings(deadline=None, max_examples=80)
AFFINE = np.array([[0, 0, 4.0, -30], [0, 4.0, 0, 12], [5.0, 0, 0, 7], [0, 0, 0, 1]])


def segment(array: np.ndarray, affine: np.ndarray = AFFINE, **parameters: object) -> Products:
    pet = Volume(np.ascontiguousarray(array), affine, Quantity.SUVBW)
    return engine("threshold_segmentation")({"pet": pet}, {"min_volume_ml": 0.0, **parameters}, lambda: False)


def labels_of(products: Products, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.uint16) if products.label_map is None else products.label_map.array


def rows(products: Products) -> list[tuple[float, ...]]:
    """The lesions without their labels, in an order that does not depend on the grid."""
    return sorted(
        tuple(
            np.round(
                (lesion.volume_ml, lesion.suv_max, lesion.suv_mean, lesion.suv_peak or -1.0, *lesion.centroid_mm), 4
            )
            + 0.0
        )
        for lesion in products.lesions
    )


@common
@given(images, connectivities)
def test_a_fixed_threshold_takes_exactly_the_voxels_above_it(image: np.ndarray, connectivity: int) -> None:
    products = segment(image, threshold_suv=4.0, connectivity=connectivity, max_lesions=1000)
    labels = labels_of(products, image.shape)
    assert np.array_equal(labels > 0, image >= 4.0)
    _, count = ndimage.label(image >= 4.0, structure(connectivity))
    assert len(products.lesions) == count
    assert [lesion.voxels for lesion in products.lesions] == np.bincount(labels.ravel(), minlength=count + 1)[
        1:
    ].tolist()
    sizes = [lesion.voxels for lesion in products.lesions]
    assert sizes == sorted(sizes, reverse=True)


@common
@given(images, st.sampled_from(["fixed", "percent"]))
def test_totals_are_the_sums_over_lesions(image: np.ndarray, method: str) -> None:
    products = segment(image, method=method)
    labels = labels_of(products, image.shape)
    totals = {measurement.name: measurement.value for measurement in products.measurements}
    voxel_ml = 0.08  # 5 × 4 × 4 mm³
    np.testing.assert_allclose(totals["MTV"], np.count_nonzero(labels) * voxel_ml)
    np.testing.assert_allclose(totals["TLG"], image[labels > 0].sum(dtype=np.float64) * voxel_ml)


@common
@given(images, st.sampled_from(["fixed", "percent"]), st.lists(st.integers(0, 2), max_size=3))
def test_a_flipped_grid_over_the_same_body_gives_the_same_lesions(
    image: np.ndarray, method: str, axes: list[int]
) -> None:
    flipped, affine = image, AFFINE.copy()
    for axis in axes:
        flipped = np.flip(flipped, axis)
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1.0
    assert rows(segment(flipped, affine, method=method)) == rows(segment(image, method=method))


@common
@given(images, st.permutations([0, 1, 2]), st.sampled_from(["fixed", "percent"]))
def test_a_transposed_grid_over_the_same_body_gives_the_same_lesions(
    image: np.ndarray, order: list[int], method: str
) -> None:
    affine = AFFINE.copy()
    affine[:, :3] = AFFINE[:, order]
    assert rows(segment(image.transpose(order), affine, method=method)) == rows(segment(image, method=method))


@common
@given(images)
def test_a_higher_threshold_never_adds_a_voxel(image: np.ndarray) -> None:
    low = labels_of(segment(image, threshold_suv=3.0), image.shape) > 0
    high = labels_of(segment(image, threshold_suv=5.0), image.shape) > 0
    assert not (high & ~low).any()


@common
@given(images, connectivities, st.sampled_from([0.3, 0.5, 0.75]))
def test_every_hot_spot_is_a_whole_component_at_a_share_of_a_maximum(
    image: np.ndarray, connectivity: int, share: float
) -> None:
    rule = OwnMaximum(share, 2.5, connectivity)
    owner = np.zeros(image.shape, dtype=int)
    for number, region in enumerate(share_of_own_maximum(image, rule, lambda: False), start=1):
        inside = np.zeros(image.shape, dtype=bool)
        inside[region.box] = region.mask
        assert not owner[inside].any(), "hot spots overlap"
        owner[inside] = number
        coolest, hottest = float(image[inside].min()), float(image[inside].max())
        # Its level lies between a share of its own maximum and its coolest voxel, and at that level it is complete.
        assert coolest >= rule.level(hottest)
        at_level, _ = ndimage.label(image >= coolest, structure(connectivity))
        assert np.array_equal(at_level == at_level[inside][0], inside)
    # The hottest voxel of every component above the seed belongs to a hot spot at the share of its own maximum.
    seeds, count = ndimage.label(image >= 2.5, structure(connectivity))
    for seed in range(1, count + 1):
        hottest = float(image[seeds == seed].max())
        assert owner[(seeds == seed) & (image == hottest)].all()


def component_at(image: np.ndarray, level: float, point: tuple[int, ...], connectivity: int) -> np.ndarray:
    labels, _ = ndimage.label(image >= level, structure(connectivity))
    return labels == labels[point]


def neighbours(point: tuple[int, ...], shape: tuple[int, ...], connectivity: int) -> list[tuple[int, ...]]:
    steps = [step for step in np.ndindex(3, 3, 3) if connectivity == 26 or step.count(1) > 0]
    others = [tuple(i + n - 1 for i, n in zip(point, step, strict=True)) for step in steps]
    return [other for other in others if all(0 <= i < n for i, n in zip(other, shape, strict=True))]


def by_the_definition(image: np.ndarray, rule: OwnMaximum) -> set[bytes]:
    """The docstring word by word, one local maximum after the other."""
    taken = np.zeros(image.shape, dtype=bool)
    found = set()
    for point in sorted(np.ndindex(*image.shape), key=lambda point: -image[point]):
        hot = image[point]
        if hot < rule.seed_suv or taken[point]:
            continue
        if any(image[other] > hot for other in neighbours(point, image.shape, rule.connectivity)):
            continue
        lesion = component_at(image, max(rule.seed_suv, rule.share * float(hot)), point, rule.connectivity)
        hottest = float(image[lesion].max())
        if hottest > hot:
            level = max(rule.seed_suv, rule.share * hottest)
            if hot < level:
                continue
            lesion = component_at(image, level, point, rule.connectivity)
        assert not (lesion & taken).any()
        taken |= lesion
        found.add(lesion.tobytes())
    return found


@settings(deadline=None, max_examples=150)
@given(images, connectivities, st.sampled_from([0.3, 0.41, 0.5, 0.75, 0.9]))
def test_hot_spots_are_those_of_the_definition(image: np.ndarray, connectivity: int, share: float) -> None:
    rule = OwnMaximum(share, 2.5, connectivity)
    found = []
    for region in share_of_own_maximum(image, rule, lambda: False):
        mask = np.zeros(image.shape, dtype=bool)
        mask[region.box] = region.mask
        found.append(mask.tobytes())
    assert len(found) == len(set(found))
    assert set(found) == by_the_definition(image, rule)


@common
@given(images, connectivities)
def test_scaling_the_image_and_its_floor_changes_no_outline(image: np.ndarray, connectivity: int) -> None:
    once = segment(image, method="percent", seed_suv=2.5, connectivity=connectivity)
    twice = segment(image * 2, method="percent", seed_suv=5.0, connectivity=connectivity)
    assert np.array_equal(labels_of(once, image.shape), labels_of(twice, image.shape))


@common
@given(images, st.integers(0, 6))
def test_the_cap_keeps_the_largest_and_says_so(image: np.ndarray, extra: int) -> None:
    every = segment(image, max_lesions=1000).lesions
    cap = 1 + extra
    capped = segment(image, max_lesions=cap)
    assert capped.lesions == every[:cap]
    assert any("largest are reported" in warning for warning in capped.warnings) == (len(every) > cap)
