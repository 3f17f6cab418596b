"""The phantom is deterministic, sits where it says, and keeps its values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.contract import Quantity
from engines.simulation.phantom import ANATOMY, SITES, Body, Plan, footprint, grid_affine, render, simulate

SMALL = Plan(5, (90, 60, 60), (45, 64, 64))


def voxel_of(affine: np.ndarray, x: float, y: float, z: float) -> tuple[int, ...]:
    index = np.linalg.inv(affine) @ (x, y, z, 1.0)
    return tuple(round(i) for i in index[:3])


def test_the_same_plan_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = simulate(SMALL), simulate(SMALL), simulate(replace(SMALL, seed=6))
    assert first.pet is not None and again.pet is not None and other.pet is not None
    assert first.ct is not None and again.ct is not None
    assert first.pet.array.tobytes() == again.pet.array.tobytes()
    assert first.ct.array.tobytes() == again.ct.array.tobytes()
    assert (first.weight_kg, first.dose_bq, first.sex) == (again.weight_kg, again.dose_bq, again.sex)
    assert first.pet.array.tobytes() != other.pet.array.tobytes()
    assert first.weight_kg != other.weight_kg


def test_shapes_types_and_quantities() -> None:
    scan = simulate(SMALL)
    assert scan.pet is not None and scan.ct is not None and scan.truth is not None
    assert (scan.pet.array.shape, scan.pet.array.dtype, scan.pet.quantity) == ((90, 60, 60), np.float32, Quantity.SUVBW)
    assert (scan.ct.array.shape, scan.ct.array.dtype, scan.ct.quantity) == ((45, 64, 64), np.float32, Quantity.HU)
    assert scan.pet.spacing_mm == pytest.approx((10.0, 10.0, 10.0))  # 900 / 90, 600 / 60
    assert scan.ct.spacing_mm == pytest.approx((20.0, 7.8125, 7.8125))  # 900 / 45, 500 / 64
    assert scan.truth.array.dtype == np.uint16
    assert scan.pet.array.min() >= 0.0
    assert scan.ct.array.min() >= -1024.0 and scan.ct.array.max() <= 3071.0


def test_organs_have_their_suv_and_hu_at_their_place() -> None:
    scan = simulate(Plan(1, (225, 150, 150), (225, 256, 256), lesions=0, counts=None))
    assert scan.pet is not None and scan.ct is not None
    # LPS: the liver lies at negative x (right), the spleen at positive x, the bladder low, the brain high.
    for place, suv, hu in (
        ((-62, -8, 420), 2.2, 60),
        ((115, 45, 425), 1.8, 50),
        ((0, -35, 205), 12.0, 8),
        ((0, -5, 820), 7.0, 35),
        ((-85, -5, 590), 0.4, -800),
    ):
        assert scan.pet.array[voxel_of(scan.pet.affine, *place)] == pytest.approx(suv, rel=0.03)
        assert scan.ct.array[voxel_of(scan.ct.affine, *place)] == pytest.approx(hu, abs=60)  # 5 SD of the noise
    assert scan.pet.array[0, 0, 0] == 0.0
    assert scan.ct.array[100, 0, 0] == pytest.approx(-1000, abs=60)


def test_the_body_is_not_its_own_mirror_image() -> None:
    scan = simulate(replace(SMALL, counts=None, lesions=0))
    assert scan.pet is not None
    array = scan.pet.array
    for axis in range(3):
        assert np.abs(array - np.flip(array, axis)).max() > 1.0


def test_no_lesion_site_mirrors_another() -> None:
    for name, (x, y, z) in SITES:
        for other, (u, v, w) in SITES:
            assert name == other or abs(x + u) + abs(y - v) + abs(z - w) > 60.0


@pytest.mark.parametrize("shape", [(300, 200, 200), (30, 32, 32), (24, 24, 24)])
def test_every_lesion_is_labelled_named_hot_and_apart(shape: tuple[int, int, int]) -> None:
    for seed in range(5):
        scan = simulate(Plan(seed, shape, lesions=5, counts=None))
        assert scan.pet is not None and scan.truth is not None
        labels = scan.truth.array
        assert sorted(scan.truth.names) == [1, 2, 3, 4, 5]
        assert len(set(scan.truth.names.values())) == 5
        assert np.bincount(labels.ravel(), minlength=6)[1:].min() >= 4
        hottest = [scan.pet.array[labels == label].max() for label in scan.truth.names]
        assert min(hottest) > 3.0


def test_blur_and_noise_keep_the_activity() -> None:
    plan = Plan(2, (150, 100, 100), lesions=3, fwhm_mm=6.0)
    clean, noisy = simulate(replace(plan, counts=None)), simulate(plan)
    sharp = simulate(replace(plan, counts=None, fwhm_mm=0.0))
    assert clean.pet is not None and noisy.pet is not None and sharp.pet is not None
    total = sharp.pet.array.sum(dtype=np.float64)
    assert clean.pet.array.sum(dtype=np.float64) == pytest.approx(total, rel=1e-5)
    # Poisson: the relative SD of 5e7 counts is 1.4e-4.
    assert noisy.pet.array.sum(dtype=np.float64) == pytest.approx(total, rel=1e-3)


def test_noise_falls_with_the_square_root_of_the_counts() -> None:
    # Inside the liver, far from its edge; a factor 16 in counts is a factor 4 in SD.
    plan = Plan(2, (225, 150, 150), lesions=0)
    liver = Body("core", (-62, -8, 420), (60, 50, 40), 0, 0)
    spreads = []
    for counts in (1e6, 16e6):
        scan = simulate(replace(plan, counts=counts))
        assert scan.pet is not None
        window, inside = footprint(liver, scan.pet.array.shape, scan.pet.affine)
        spreads.append(scan.pet.array[window][inside].std())
    assert spreads[0] / spreads[1] == pytest.approx(4.0, rel=0.05)


def test_the_blur_has_the_stated_width() -> None:
    # An edge blurred by a Gaussian rises from 16 % to 84 % over 2σ: 4 mm voxels across the head, FWHM 24 mm, σ 10.2 mm.
    scan = simulate(Plan(1, (225, 150, 150), lesions=0, counts=None, fwhm_mm=24.0))
    assert scan.pet is not None
    z, y, _ = voxel_of(scan.pet.affine, 0, -5, 820)
    profile = scan.pet.array[z, y, 75:]
    positions = np.arange(len(profile)) * 4.0
    inner, outer = (np.interp(-level, -profile, positions) for level in (0.8413 * 7.0, 0.1587 * 7.0))
    assert outer - inner == pytest.approx(2 * 24.0 / 2.3548, rel=0.1)


def test_a_footprint_outside_the_grid_is_empty() -> None:
    affine = grid_affine((10, 10, 10), (100.0, 100.0, 100.0), bottom_mm=0.0)
    window, inside = footprint(Body("far", (900, 0, 0), (5, 5, 5), 0, 9), (10, 10, 10), affine)
    assert inside.size == 0
    image = render([Body("far", (900, 0, 0), (5, 5, 5), 0, 9)], (10, 10, 10), affine, "suv", background=0.0)
    assert not image.any()
    assert window[2] == slice(0, 0)


def test_a_footprint_counts_voxel_centres() -> None:
    # Centres at −45, −35 … 45 mm: a ball of 16 mm about (5, 5, 5) of a grid shifted by half its height.
    affine = grid_affine((10, 10, 10), (100.0, 100.0, 100.0), bottom_mm=-50.0)
    _, inside = footprint(Body("ball", (5, 5, 5), (16, 16, 16), 0, 0), (10, 10, 10), affine)
    assert inside.sum() == 1 + 6 + 12  # distances 0, 10 and 14.1 mm; the corners are 17.3 mm away


def test_the_grid_starts_half_a_voxel_above_its_bottom() -> None:
    affine = grid_affine((10, 4, 6), (300.0, 400.0, 600.0), bottom_mm=100.0)
    assert (affine @ (0, 0, 0, 1)).tolist() == [-250.0, -150.0, 115.0, 1.0]
    assert (affine @ (9, 3, 5, 1)).tolist() == [250.0, 150.0, 385.0, 1.0]


def test_a_partial_scan_shows_the_same_anatomy() -> None:
    whole = simulate(Plan(1, (90, 60, 60), lesions=0, counts=None, fwhm_mm=0.0))
    part = simulate(
        Plan(
            1, (30, 60, 60), lesions=0, counts=None, fwhm_mm=0.0, bottom_mm=300.0, pet_field_of_view_mm=(300, 600, 600)
        )
    )
    assert whole.pet is not None and part.pet is not None
    assert np.array_equal(whole.pet.array[30:60], part.pet.array)


@pytest.mark.parametrize("fault", [{"lesions": -1}, {"lesions": 9}, {"pet_shape": (0, 4, 4)}, {"ct_shape": (4, 0, 4)}])
def test_impossible_plans_are_refused(fault: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        Plan(**{"seed": 1, "pet_shape": (4, 4, 4), **fault})


def test_anatomy_stays_within_the_fields_of_view() -> None:
    for part in ANATOMY:
        for centre, half, (low, high) in zip(
            part.centre_mm, part.semi_axes_mm, ((-250, 250), (-250, 250), (-5, 900)), strict=True
        ):
            assert low <= centre - half and centre + half <= high
