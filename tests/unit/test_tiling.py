"""Windows cover the volume, blending is a weighted mean, and the loop can be stopped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import Stopped
from engines.tiling import Tiling, blend_weights, predict_in_windows, windows

shapes = st.tuples(*[st.integers(1, 14)] * 3)
tilings = st.builds(
    Tiling,
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    st.sampled_from(["gaussian", "constant"]),
)


def never() -> bool:
    return False


@settings(deadline=None, max_examples=60)
@given(shapes, tilings, st.integers(0, 2**32 - 1))
def test_the_identity_predictor_gives_the_image_back(shape: tuple[int, int, int], tiling: Tiling, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    seen = predict_in_windows(image, lambda part: part, tiling, never)
    assert seen.shape == image.shape
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, image, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(shapes, tilings)
def test_windows_cover_every_voxel_and_stay_inside(shape: tuple[int, int, int], tiling: Tiling) -> None:
    shape = tuple(max(n, w) for n, w in zip(shape, tiling.window, strict=True))
    covered = np.zeros(shape, dtype=int)
    for window in windows(shape, tiling, never):
        assert covered[window].shape == tiling.window
        covered[window] += 1
    assert covered.min() >= 1


def test_neighbouring_windows_overlap_by_half() -> None:
    starts = [window[2].start for window in windows((4, 4, 10), Tiling((4, 4, 4), overlap=0.5), never)]
    assert starts == [0, 2, 4, 6]


def test_without_overlap_windows_lie_side_by_side() -> None:
    starts = [window[0].start for window in windows((12, 4, 4), Tiling((4, 4, 4), overlap=0.0), never)]
    assert starts == [0, 4, 8]


def test_overlapping_predictions_are_averaged_by_weight() -> None:
    predictions = iter([1.0, 4.0])

    def predict(part: np.ndarray) -> np.ndarray:
        return np.full_like(part, next(predictions))

    image = np.zeros((1, 1, 1, 3), dtype=np.float32)
    seen = predict_in_windows(image, predict, Tiling((1, 1, 2), overlap=0.5, weights="constant"), never)
    assert seen.ravel().tolist() == [1.0, 2.5, 4.0]  # both windows cover the middle voxel


def test_gaussian_weights_peak_in_the_middle_and_never_vanish() -> None:
    weights = blend_weights(Tiling((9, 9, 9)))
    assert weights[4, 4, 4] == 1.0
    assert weights.min() > 0.0
    # σ = 9 / 8: four voxels off the centre exp(−½ (4 / 1.125)²) = 0.0018
    assert weights[4, 4, 0] == pytest.approx(0.0018, abs=5e-5)


def test_a_predictor_may_return_more_classes_than_there_are_channels() -> None:
    image = np.ones((1, 4, 4, 4), dtype=np.float32)
    seen = predict_in_windows(image, lambda part: np.concatenate([part, 2 * part, 3 * part]), Tiling((2, 2, 2)), never)
    assert seen[:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0]


def test_skipped_windows_count_as_zero_and_are_not_predicted() -> None:
    image = np.zeros((1, 1, 1, 8), dtype=np.float32)
    image[..., 4:] = 5.0
    seen_parts = []

    def predict(part: np.ndarray) -> np.ndarray:
        seen_parts.append(part)
        return part

    tiling = Tiling((1, 1, 4), overlap=0.0)
    seen = predict_in_windows(image, predict, tiling, never, skip=lambda part: not part.any())
    assert len(seen_parts) == 1
    assert np.array_equal(seen, image)
    nothing = predict_in_windows(np.zeros_like(image), predict, tiling, never, skip=lambda part: not part.any())
    assert len(seen_parts) == 1
    assert nothing.shape == (1, 1, 1, 8)
    assert not nothing.any()


def test_it_stops_between_windows_when_asked() -> None:
    answers = iter([False, False, True])
    predicted = []

    def predict(part: np.ndarray) -> np.ndarray:
        predicted.append(1)
        return part

    with pytest.raises(Stopped):
        predict_in_windows(np.zeros((1, 1, 1, 9), np.float32), predict, Tiling((1, 1, 3), 0.0), lambda: next(answers))
    assert len(predicted) == 2


@pytest.mark.parametrize(
    "fault", [{"window": (0, 4, 4)}, {"window": (4, 4, 4), "overlap": 1.0}, {"window": (4, 4, 4), "overlap": -0.1}]
)
def test_an_impossible_tiling_is_refused(fault: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        Tiling(**fault)
