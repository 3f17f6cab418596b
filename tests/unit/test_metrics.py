"""Scores against counts done by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from engines.metrics import (
    LesionCount,
    bootstrap_interval,
    count_lesions,
    dice,
    false_negative_ml,
    false_positive_ml,
    hausdorff_95_mm,
    mtv_error,
    tlg_error,
)


def row(*marks: int) -> np.ndarray:
    return np.array(marks, dtype=bool).reshape(1, 1, -1)


def test_dice_by_hand() -> None:
    assert dice(row(1, 1, 0, 0), row(0, 1, 1, 0)) == 0.5  # 2·1 / (2 + 2)
    assert dice(row(1, 1, 1, 0), row(1, 1, 1, 0)) == 1.0
    assert dice(row(1, 0, 0, 0), row(0, 0, 1, 0)) == 0.0
    assert dice(row(0, 0, 0, 0), row(0, 0, 1, 0)) == 0.0


def test_dice_is_undefined_without_a_true_lesion() -> None:
    assert math.isnan(dice(row(1, 0), row(0, 0)))


def test_only_components_that_miss_the_truth_entirely_are_false_positive() -> None:
    predicted = row(1, 1, 1, 0, 1, 1, 0, 1)  # 3 voxels touch the truth, 2 and 1 do not
    truth = row(0, 0, 1, 1, 0, 0, 0, 0)
    assert false_positive_ml(predicted, truth, 0.5) == 1.5
    assert false_negative_ml(predicted, truth, 0.5) == 0.0
    assert false_negative_ml(row(0, 0, 0, 0, 0, 0, 0, 1), truth, 0.5) == 1.0


def test_components_are_18_connected() -> None:
    predicted = np.zeros((2, 2, 2), dtype=bool)
    predicted[0, 0, 0] = predicted[1, 1, 1] = True  # share a corner only: two components
    truth = np.zeros((2, 2, 2), dtype=bool)
    truth[0, 0, 0] = True
    assert false_positive_ml(predicted, truth, 1.0) == 1.0
    predicted[1, 1, 1], predicted[0, 1, 1] = False, True  # share an edge: one component
    assert false_positive_ml(predicted, truth, 1.0) == 0.0


def test_volume_error_has_a_sign() -> None:
    error = mtv_error(row(1, 1, 1, 0), row(1, 1, 1, 1), 2.0)
    assert (error.absolute_ml, error.relative) == (-2.0, -0.25)
    assert math.isnan(mtv_error(row(1, 0), row(0, 0), 1.0).relative)


def test_masks_of_two_grids_are_refused() -> None:
    for score in (dice, lambda a, b: false_positive_ml(a, b, 1.0), lambda a, b: mtv_error(a, b, 1.0)):
        with pytest.raises(ValueError, match="one grid"):
            score(row(1, 0), row(1, 0, 0))


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_large_sample() -> None:
    values = np.random.default_rng(7).normal(0.7, 0.1, size=400)
    interval = bootstrap_interval(list(values), seed=1)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert interval.level == 0.95
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.001)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.001)


def test_the_bootstrap_repeats_itself_for_one_seed_and_takes_any_statistic() -> None:
    values = [0.11, 0.23, 0.35, 0.52, 0.64, 0.71, 0.87]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    median = bootstrap_interval(values, seed=3, statistic=lambda sample: float(np.median(sample)), level=0.5)
    assert 0.11 <= median.low <= median.high <= 0.87


def test_the_bootstrap_of_one_value_is_that_value() -> None:
    interval = bootstrap_interval([0.3], seed=0)
    assert (interval.low, interval.high) == (0.3, 0.3)


@pytest.mark.parametrize("values", [[], [0.5, math.nan]])
def test_the_bootstrap_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value and all finite"):
        bootstrap_interval(values, seed=0)


def test_lesions_are_counted_by_hand() -> None:
    truth = row(1, 1, 0, 1, 0, 1, 1, 0, 0, 0)
    predicted = row(0, 1, 0, 0, 0, 1, 0, 0, 1, 1)  # finds the first and the third, says one too many
    count = count_lesions(predicted, truth)
    assert count == LesionCount(true=3, found=2, predicted=3, correct=2)
    assert count.sensitivity == count.precision == count.f1 == pytest.approx(2 / 3)


def test_one_region_may_find_two_lesions_and_two_regions_one() -> None:
    assert count_lesions(row(1, 1, 1), row(1, 0, 1)) == LesionCount(true=2, found=2, predicted=1, correct=1)
    assert count_lesions(row(1, 0, 1), row(1, 1, 1)) == LesionCount(true=1, found=1, predicted=2, correct=2)


def test_lesion_scores_without_lesions() -> None:
    nothing = count_lesions(row(0, 0), row(0, 0))
    assert math.isnan(nothing.sensitivity) and math.isnan(nothing.precision) and math.isnan(nothing.f1)
    missed = count_lesions(row(0, 0), row(0, 1))
    assert (missed.sensitivity, missed.f1) == (0.0, 0.0)


def test_tlg_error_has_a_sign() -> None:
    suv = np.array([2.0, 4.0, 6.0], np.float32).reshape(1, 1, 3)
    error = tlg_error(row(1, 1, 0), row(0, 1, 1), suv, 0.5)
    assert (error.absolute_ml, error.relative) == (-2.0, pytest.approx(-0.4))  # 3 g instead of 5 g


def test_hausdorff_distance_by_hand() -> None:
    truth, predicted = row(1, 1, 1, 0, 0, 0), row(1, 1, 1, 1, 1, 1)
    # 2 mm a voxel: the far end is 6 mm away; of 0, 0, 0, 2, 4, 6 mm the 95th percentile is 5.5
    assert hausdorff_95_mm(predicted, truth, (1.0, 1.0, 2.0)) == pytest.approx(5.5)
    assert hausdorff_95_mm(truth, predicted, (1.0, 1.0, 2.0)) == pytest.approx(5.5)
    assert hausdorff_95_mm(truth, truth, (1.0, 1.0, 2.0)) == 0.0
    assert math.isnan(hausdorff_95_mm(row(0, 0), row(0, 1), (1.0, 1.0, 1.0)))


@pytest.mark.filterwarnings("ignore:monai.*deprecated:FutureWarning")
def test_hausdorff_distance_agrees_with_monai() -> None:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    rng = np.random.default_rng(4)
    blobs = [ndimage.gaussian_filter(rng.normal(size=(20, 24, 28)), 2.0) > 0.02 for _ in range(2)]
    for mask in blobs:
        mask[[0, -1]] = mask[:, [0, -1]] = mask[:, :, [0, -1]] = False
    spacing = (3.0, 2.0, 1.5)
    a, b = (torch.from_numpy(mask)[None, None] for mask in blobs)
    expected = float(compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing))
    assert hausdorff_95_mm(blobs[0], blobs[1], spacing) == pytest.approx(expected, rel=1e-6)
