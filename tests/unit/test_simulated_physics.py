"""The simulated scanner against analytic truth: lines, counts, corrections, noise and resolution."""

from dataclasses import replace
from itertools import pairwise
from math import erf, exp, log, pi, sqrt

import numpy as np
import pytest
from scipy.special import iv, modstruve

from engines.simulation import projector
from engines.simulation.measurement import Scanner, Timing, bed_profiles, counted, expected, measure, thin
from engines.simulation.projector import Geometry, as_columns, as_volume
from engines.simulation.reconstruction import Method, reconstruct
from engines.simulation.resolution import blurred, kernel

WATER = 0.0096  # 1/mm at 511 keV
GEOMETRY = Geometry(pixels=64, pixel_mm=5.5, bins=88, bin_mm=4.0, angles=72, subsets=12)
PLAIN = Scanner(GEOMETRY, slice_mm=5.0, scatter_fraction=0.0, randoms_fraction=0.0)
WIDE = replace(PLAIN, geometry=replace(GEOMETRY, pixels=96, bins=132))


def radius_mm(geometry: Geometry, centre=(0.0, 0.0)):
    """Distance of pixel centres from a point (y, x) [mm]."""
    y, x = (np.mgrid[: geometry.pixels, : geometry.pixels] - (geometry.pixels - 1) / 2) * geometry.pixel_mm
    return np.hypot(y - centre[0], x - centre[1])


def soft_disc(geometry: Geometry, radius: float, centre=(0.0, 0.0)):
    """Share of each pixel that lies inside a disc, to about a hundredth of a pixel."""
    return np.clip((radius - radius_mm(geometry, centre)) / geometry.pixel_mm + 0.5, 0.0, 1.0).astype(np.float32)


def cylinder(scanner: Scanner, radius: float, slices: int, *, bqml: float, mu: float = WATER):
    """(activity, attenuation) on the fine grid."""
    disc = np.repeat(soft_disc(scanner.fine, radius)[None], 2 * slices, axis=0)
    return disc * np.float32(bqml), disc * np.float32(mu)


def rings(image, geometry: Geometry, edges):
    """Mean over all slices between neighbouring radii."""
    r = radius_mm(geometry)
    return [float(image[:, (r >= low) & (r < high)].mean()) for low, high in pairwise(edges)]


def nstd(image, geometry: Geometry, within_mm: float) -> float:
    values = image[:, radius_mm(geometry) < within_mm]
    return float(values.std() / values.mean())


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tof_fwhm_ps", [None, 400.0])
@pytest.mark.parametrize("psf_fwhm_mm", [0.0, 7.0])
def test_back_projection_is_the_transpose(tof_fwhm_ps, psf_fwhm_mm):
    geometry = replace(GEOMETRY, tof_fwhm_ps=tof_fwhm_ps)
    rng = np.random.default_rng(0)
    image = rng.random((geometry.pixels**2, 9), dtype=np.float32)

    def blur(columns):
        square = columns.reshape(geometry.pixels, geometry.pixels, -1)
        return blurred(square, psf_fwhm_mm, (5.5, 5.5, 5.0)).reshape(columns.shape)

    there = back = 0.0
    for subset in geometry.system:
        lines = rng.random((subset.matrix.shape[0], 9), dtype=np.float32)
        there += np.vdot(subset.forward(blur(image)).astype(float), lines)
        back += np.vdot(image.astype(float), blur(subset.back(lines)))
    assert there == pytest.approx(back, rel=1e-5)


def test_line_integrals_of_an_ellipse_off_the_axis():
    geometry = Geometry(pixels=256, pixel_mm=1.5, bins=256, bin_mm=1.5, angles=60)
    a, b, x0, y0 = 90.0, 60.0, 30.0, -20.0
    inside = np.zeros((256, 256))
    for dy in np.arange(-0.4, 0.5, 0.2):  # 25 samples a pixel
        for dx in np.arange(-0.4, 0.5, 0.2):
            y, x = np.mgrid[:256, :256] - 127.5
            inside += (((x + dx) * 1.5 - x0) / a) ** 2 + (((y + dy) * 1.5 - y0) / b) ** 2 < 1.0
    lines = geometry.system[0].forward((inside / 25).astype(np.float32).reshape(-1, 1)).reshape(60, 256)
    theta = pi * np.arange(60)[:, None] / 60
    s = (np.arange(256)[None] - 127.5) * 1.5 - x0 * np.cos(theta) - y0 * np.sin(theta)
    w2 = (a * np.cos(theta)) ** 2 + (b * np.sin(theta)) ** 2
    truth = 2 * a * b * np.sqrt(np.maximum(w2 - s**2, 0.0)) / w2
    interior = np.abs(s) < 0.97 * np.sqrt(w2)
    assert np.abs(lines - truth)[interior].max() < 2.5  # mm, of up to 180
    np.testing.assert_allclose(lines.sum(axis=1) * 1.5, pi * a * b, rtol=3e-3)  # every angle sees the whole area


def test_intervals_of_time_of_flight_share_the_line_as_a_gaussian():
    plain = Geometry(pixels=65, pixel_mm=4.0, bins=65, bin_mm=4.0, angles=12)
    timed = replace(plain, tof_fwhm_ps=400.0, tof_bin_mm=20.0)
    rng = np.random.default_rng(1)
    image = rng.random((65 * 65, 3), dtype=np.float32)
    parts = timed.system[0].forward(image).reshape(-1, timed.tof_bins, 3)
    np.testing.assert_allclose(parts.sum(axis=1), plain.system[0].forward(image), rtol=1e-4, atol=1e-3)

    point = np.zeros((65, 65), np.float32)
    point[32 + 10, 32] = 1.0  # 40 mm along the line of angle 0 through the axis
    seen = timed.system[0].forward(point.reshape(-1, 1)).reshape(12, 65, timed.tof_bins)[0, 32]
    places = (np.arange(timed.tof_bins) - timed.tof_bins // 2) * 20.0
    mean = float((seen * places).sum() / seen.sum())
    variance = float((seen * (places - mean) ** 2).sum() / seen.sum())
    assert mean == pytest.approx(40.0, abs=0.3)
    # 400 ps · 0.29979 mm/ps / 2 = 59.96 mm FWHM, σ = 25.46 mm; an interval of 20 mm adds 20²/12
    assert variance == pytest.approx(25.46**2 + 20**2 / 12, rel=0.03)


@pytest.mark.parametrize("sigma", [0.15, 0.35, 0.7, 3.0])
def test_the_blur_has_the_variance_it_says_and_keeps_sums(sigma):
    weights = kernel(sigma)
    reach = len(weights) // 2
    assert weights @ np.arange(-reach, reach + 1) ** 2 == pytest.approx(sigma**2, rel=2e-3)
    array = np.random.default_rng(0).random((7, 8, 9), dtype=np.float32)
    assert blurred(array, 2.3548 * sigma, (1.0, 1.0, 1.0)).sum() == pytest.approx(array.sum(), rel=1e-5)


def test_columns_and_volumes_are_the_same_numbers():
    volume = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4)
    np.testing.assert_array_equal(as_volume(as_columns(volume), 4), volume)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_trues_of_a_source_in_air_are_decays_times_sensitivity():
    activity, mu = cylinder(PLAIN, 80.0, 6, bqml=3000.0, mu=0.0)
    # a fine voxel is 2.5 mm · 2.75 mm · 2.75 mm = 0.018906 mL
    becquerels = float(activity.sum(dtype=np.float64)) * 2.5 * 2.75 * 2.75 / 1000.0
    assert expected(activity, mu, PLAIN, 100.0).counts == pytest.approx(becquerels * 100.0 * 0.06, rel=3e-3)


def test_a_line_through_water_is_attenuated_exponentially():
    activity, mu = cylinder(PLAIN, 100.0, 1, bqml=1000.0)
    through = expected(activity, mu, PLAIN, 1.0)
    middle = through.attenuation[0].reshape(-1, 88)[:, 43:45].mean()  # 2 mm beside the axis
    assert middle == pytest.approx(exp(-WATER * 200.0), rel=5e-3)


def test_decay_before_and_during_every_bed():
    half_life_s = 76.4  # Rb-82
    times = np.linspace(0.0, 60.0, 60001)
    scanner = replace(PLAIN, bed_slices=8, overlap_slices=0)
    activity, mu = cylinder(scanner, 60.0, 16, bqml=5000.0)
    still = expected(activity, mu, scanner, 60.0).calibration
    decayed = expected(activity, mu, scanner, Timing(60.0, start_s=30.0, half_life_s=half_life_s)).calibration
    for bed, slices in ((0, slice(8, 16)), (1, slice(0, 8))):  # the last slices are scanned first
        lived = np.trapezoid(0.5 ** ((30.0 + 60.0 * bed + times) / half_life_s), times) / 60.0
        np.testing.assert_allclose(decayed[slices] / still[slices], lived, rtol=1e-4)


def test_the_image_is_in_bqml_at_the_time_the_activity_was_given():
    scanner = replace(PLAIN, bed_slices=8, overlap_slices=2)
    activity, mu = cylinder(scanner, 80.0, 14, bqml=20000.0)
    image = reconstruct(expected(activity, mu, scanner, Timing(120.0, 40.0, 109.77 * 60)), scanner, Method())
    for z in range(14):
        assert rings(image[z : z + 1], GEOMETRY, (0, 60))[0] == pytest.approx(20000.0, rel=0.01)


def test_fractions_of_scatter_and_randoms_are_as_stated():
    scanner = replace(PLAIN, scatter_fraction=0.4, randoms_fraction=0.3, bed_slices=6, overlap_slices=2)
    activity, mu = cylinder(scanner, 100.0, 10, bqml=5000.0)
    mean = expected(activity, mu, scanner, 60.0)
    trues = expected(activity, mu, replace(scanner, scatter_fraction=0.0, randoms_fraction=0.0), 60.0).counts
    scatter = sum(float(part.sum()) for part in mean.scatter)
    randoms = sum(float(part.shape[0]) * float(mean.randoms.sum()) for part in mean.prompts)
    assert scatter / (trues + scatter) == pytest.approx(0.4, rel=1e-4)
    assert randoms / mean.counts == pytest.approx(0.3, rel=1e-4)
    assert trues + scatter + randoms == pytest.approx(mean.counts, rel=1e-5)
    outside = mean.scatter[0].reshape(-1, 88, 10)[:, 5]  # a line 150 mm off the axis misses the cylinder
    assert (outside > 0.0).all()


def test_counts_are_poisson_and_a_seed_gives_the_same_bytes(monkeypatch):
    activity, mu = cylinder(PLAIN, 100.0, 6, bqml=5000.0)
    mean = expected(activity, mu, PLAIN, 60.0)
    one, same, other = (counted(mean, np.random.default_rng(seed)) for seed in (4, 4, 5))
    pairs = list(zip(one.prompts, mean.prompts, strict=True))
    lit = np.concatenate([(p[m > 1.0] - m[m > 1.0]) / np.sqrt(m[m > 1.0]) for p, m in pairs])
    assert lit.mean() == pytest.approx(0.0, abs=0.02)
    assert lit.var() == pytest.approx(1.0, abs=0.02)
    assert all(np.array_equal(p, np.floor(p)) for p in one.prompts)
    assert not np.array_equal(one.prompts[0], other.prompts[0])

    image = reconstruct(one, PLAIN, Method(1))
    monkeypatch.setattr(projector, "THREADS", 3)  # more threads or fewer: the same bytes
    projector._system.cache_clear()
    assert reconstruct(same, PLAIN, Method(1)).tobytes() == image.tobytes()
    projector._system.cache_clear()


def test_arrays_off_the_fine_grid_are_refused():
    with pytest.raises(ValueError, match=r"expected two arrays \(even, 128, 128\)"):
        expected(np.zeros((4, 64, 64), np.float32), np.zeros((4, 64, 64), np.float32), PLAIN, 1.0)


def test_exact_slices_attenuate_each_half_by_its_own_tissue():
    activity, mu = cylinder(PLAIN, 100.0, 2, bqml=1000.0)
    air_above = mu.copy()
    air_above[1::2] = 0.0  # every second fine slice holds no absorber
    exact = expected(activity, air_above, replace(PLAIN, exact_slices=True), 1.0)
    quick = expected(activity, air_above, PLAIN, 1.0)
    depth = WATER * 200.0
    middle = [part.attenuation[0].reshape(-1, 88, 2)[:, 43:45].mean() for part in (exact, quick)]
    assert middle[0] == pytest.approx((exp(-depth) + 1.0) / 2.0, rel=5e-3)
    assert middle[1] == pytest.approx(exp(-depth / 2.0), rel=5e-3)  # the approximation, at its worst
    alike = [expected(activity, mu, replace(PLAIN, exact_slices=each), 1.0).prompts[0] for each in (True, False)]
    np.testing.assert_allclose(alike[0], alike[1], rtol=1e-4, atol=1e-3)


# --- corrections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tof_fwhm_ps", [None, 500.0])
@pytest.mark.parametrize("psf_fwhm_mm", [None, 4.5])
def test_a_cylinder_of_30_cm_is_uniform_to_two_per_cent(tof_fwhm_ps, psf_fwhm_mm):
    scanner = replace(WIDE, geometry=replace(WIDE.geometry, tof_fwhm_ps=tof_fwhm_ps), scatter_fraction=0.33)
    scanner = replace(scanner, randoms_fraction=0.25)
    activity, mu = cylinder(scanner, 150.0, 6, bqml=5000.0)
    mean = expected(activity, mu, scanner, 120.0)
    image = reconstruct(mean, scanner, Method(psf_fwhm_mm=psf_fwhm_mm))
    for ring in rings(image, scanner.geometry, (0, 25, 50, 75, 100, 125, 138)):
        assert ring == pytest.approx(5000.0, rel=0.02)
    no_scatter = rings(reconstruct(mean, scanner, Method(scatter=False)), scanner.geometry, (0, 25, 100, 125))
    assert no_scatter[0] > 1.1 * no_scatter[2] > 1.1 * 5000.0  # uncorrected scatter is added, most in the middle


@pytest.mark.parametrize("radius", [50.0, 70.0])
def test_without_attenuation_correction_a_cylinder_is_cupped_as_the_abel_transform_says(radius):
    """Lines of a disc measure 2a·u·exp(−2µu), u = √(R²−s²).

    Their inverse Abel transform at r is a·d/dz[z·(I0−L0)(z)] = a·[(I0−L0) + z·(I1−L1−2/π)] at z = 2µ√(R²−r²), with L
    the modified Struve functions: (2/π)∫exp(−z·sin φ)dφ over a quarter turn is I0(z) − L0(z), and L0' = 2/π + L1.
    """
    activity, mu = cylinder(PLAIN, radius, 3, bqml=1000.0)
    uncorrected = reconstruct(expected(activity, mu, PLAIN, 60.0), PLAIN, Method(8, 0.0, attenuation=False))
    r = radius_mm(GEOMETRY)
    z = 2 * WATER * np.sqrt(np.maximum(radius**2 - r**2, 0.0))
    truth = 1000.0 * (iv(0, z) - modstruve(0, z) + z * (iv(1, z) - modstruve(1, z) - 2 / pi))
    for low, high in ((0, 15), (15, 25), (25, 35), (35, radius - 12)):
        ring = (r >= low) & (r < high)
        if ring.any():
            assert uncorrected[:, ring].mean() == pytest.approx(truth[ring].mean(), abs=20.0)  # 2 % of the activity
    middle, rim = rings(uncorrected, GEOMETRY, (0, 15))[0], rings(uncorrected, GEOMETRY, (radius - 15, radius - 8))[0]
    assert middle < 0.7 * rim


def test_without_attenuation_correction_skin_and_lungs_light_up():
    activity, mu = cylinder(WIDE, 150.0, 4, bqml=2000.0)
    for side in (-1, 1):
        lung = soft_disc(WIDE.fine, 45.0, (0.0, side * 70.0))
        activity *= 1.0 - 0.75 * lung
        mu *= 1.0 - 0.75 * lung
    mean = expected(activity, mu, WIDE, 120.0)
    corrected, nac = (reconstruct(mean, WIDE, Method(attenuation=each)) for each in (True, False))
    lung, r = radius_mm(WIDE.geometry, (0.0, 70.0)) < 25, radius_mm(WIDE.geometry)
    rim, between = (r > 130) & (r < 142), (r < 15)
    assert corrected[:, lung].mean() / corrected[:, between].mean() == pytest.approx(0.25, abs=0.03)
    assert nac[:, lung].mean() > 1.2 * nac[:, between].mean()
    assert nac[:, rim].mean() > 5.0 * nac[:, between].mean()


def test_all_the_activity_comes_back():
    rng = np.random.default_rng(2)
    activity, mu = cylinder(PLAIN, 110.0, 8, bqml=1000.0)
    lump = soft_disc(PLAIN.fine, 14.0, (30.0, -40.0))
    activity[5:11] += 9000.0 * lump
    given = float(activity.sum(dtype=np.float64)) * 2.5 * 2.75 * 2.75
    scanner = replace(PLAIN, scatter_fraction=0.33, randoms_fraction=0.25)
    image = reconstruct(measure(activity, mu, scanner, 600.0, rng), scanner, Method())
    assert float(image.sum(dtype=np.float64)) * 5.0 * 5.5 * 5.5 == pytest.approx(given, rel=0.01)


# --- noise -----------------------------------------------------------------------------------------------------------

REAL = replace(PLAIN, scatter_fraction=0.33, randoms_fraction=0.25)


@pytest.fixture(scope="module")
def full():
    """20 cm of water with 10 kBq/mL for 10 minutes."""
    activity, mu = cylinder(REAL, 100.0, 16, bqml=10000.0)
    return measure(activity, mu, REAL, 600.0, np.random.default_rng(6))


def test_noise_falls_with_the_root_of_the_counts_and_the_mean_stays(full):
    fractions = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
    rng = np.random.default_rng(7)
    images = [reconstruct(thin(full, fraction, rng), REAL, Method()) for fraction in fractions]
    noise = [nstd(image, GEOMETRY, 70.0) for image in images]
    slope = np.polyfit(np.log(fractions), np.log(noise), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)
    means = [rings(image, GEOMETRY, (0, 70))[0] for image in images]
    np.testing.assert_allclose(means, means[-1], rtol=0.02)
    np.testing.assert_allclose(means[-1], 10000.0, rtol=0.02)


def test_a_thinned_study_is_the_same_acquisition_with_fewer_counts(full):
    weak = thin(full, 0.1, np.random.default_rng(8))
    for few, many in zip(weak.prompts, full.prompts, strict=True):
        assert (few <= many).all()
    assert weak.counts == pytest.approx(0.1 * full.counts, abs=5 * sqrt(0.09 * full.counts))
    surprises = []
    for kept, many in zip(weak.prompts, full.prompts, strict=True):
        surprises.append([(part - part.mean(axis=1, keepdims=True)).ravel() for part in (kept, many - kept)])
    kept, left = (np.concatenate(parts) for parts in zip(*surprises, strict=True))
    assert abs(np.corrcoef(kept, left)[0, 1]) < 0.02  # thinned Poisson counts are independent of the rest
    np.testing.assert_allclose(weak.scatter[0], 0.1 * full.scatter[0], rtol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_no_more_counts_than_there_are(full, fraction):
    with pytest.raises(ValueError, match="fraction"):
        thin(full, fraction, np.random.default_rng(0))


def test_slices_between_beds_are_noisier():
    scanner = replace(REAL, bed_slices=40, overlap_slices=0)
    activity, mu = cylinder(scanner, 80.0, 40, bqml=8000.0)
    image = reconstruct(measure(activity, mu, scanner, 600.0, np.random.default_rng(3)), scanner, Method(2, 0.0))
    profile = bed_profiles(scanner, 40).sum(axis=0)
    assert profile.max() == pytest.approx(1.0, abs=0.05)
    noise = [nstd(image[part], GEOMETRY, 60.0) for part in (slice(0, 6), slice(17, 23))]
    wanted = sqrt(np.mean(1 / profile[:6]) / np.mean(1 / profile[17:23]))
    assert noise[0] / noise[1] == pytest.approx(wanted, rel=0.15)
    assert wanted > 2.0


def test_beds_overlap_to_an_even_sensitivity():
    scanner = replace(PLAIN, bed_slices=44, overlap_slices=22)
    assert scanner.beds(44) == 1
    assert scanner.beds(45) == 2
    profile = bed_profiles(scanner, 180).sum(axis=0)
    assert len(profile) == 180
    assert profile[30:-30].std() / profile[30:-30].mean() < 0.03


# --- resolution and time of flight -----------------------------------------------------------------------------------


def spheres(diameter_mm: float):
    """A hot sphere (1) in a warm surrounding (0.25), noise-free: (scanner, sinograms, image places)."""
    geometry = Geometry(pixels=61, pixel_mm=2.0, bins=61, bin_mm=2.0, angles=72, subsets=12)
    scanner = replace(PLAIN, geometry=geometry, slice_mm=2.0, fwhm_mm=6.0)
    z, y, x = np.mgrid[:62, :122, :122] - np.array([30.5, 60.5, 60.5]).reshape(3, 1, 1, 1)
    r = np.sqrt(z**2 + y**2 + x**2)  # the fine voxel is 1 mm
    inside = np.clip(diameter_mm / 2 - r + 0.5, 0.0, 1.0)
    activity = (1000.0 * (0.25 + 0.75 * inside) * (np.hypot(y, x) < 55)).astype(np.float32)
    return scanner, expected(activity, np.zeros_like(activity), scanner, 3600.0)


def recovery(image) -> float:
    return float((image[15, 30, 30] / 1000.0 - 0.25) / 0.75)


@pytest.mark.parametrize("diameter_mm", [10.0, 13.0, 17.0, 22.0, 28.0, 37.0])
def test_recovery_of_spheres_follows_the_resolution(diameter_mm):
    scanner, data = spheres(diameter_mm)
    image = reconstruct(data, scanner, Method(iterations=12, filter_fwhm_mm=4.0))
    # variances add: scanner 6 mm, filter 4 mm, a line as wide as its bin: 2²/12 mm², twice for the image's own pixel
    sigma = sqrt((6.0**2 + 4.0**2) / 2.3548**2)
    ratio = diameter_mm / 2 / sigma
    truth = erf(ratio / sqrt(2)) - sqrt(2 / pi) * ratio * exp(-(ratio**2) / 2)
    assert recovery(image) == pytest.approx(truth, abs=0.04)


def test_resolution_modelling_recovers_more_and_may_overshoot():
    scanner, data = spheres(13.0)
    plain, modelled = (
        reconstruct(data, scanner, Method(12, 2.0, psf_fwhm_mm=each)) for each in (None, scanner.fwhm_mm)
    )
    assert recovery(modelled) > recovery(plain) + 0.08
    scanner, data = spheres(37.0)
    edge = reconstruct(data, scanner, Method(12, 0.0, psf_fwhm_mm=scanner.fwhm_mm))[15, 30] / 1000.0
    assert 1.02 < edge.max() < 1.4  # Gibbs
    assert edge[30] == pytest.approx(1.0, abs=0.1)


def test_time_of_flight_lowers_noise_where_both_have_converged():
    noise = []
    for fwhm_ps in (None, 500.0, 250.0):
        scanner = replace(WIDE, geometry=replace(WIDE.geometry, tof_fwhm_ps=fwhm_ps))
        activity, mu = cylinder(scanner, 150.0, 4, bqml=5000.0)
        data = measure(activity, mu, scanner, 600.0, np.random.default_rng(9))
        noise.append(nstd(reconstruct(data, scanner, Method(16, 12.0)), scanner.geometry, 110.0))
    assert noise[0] > 1.2 * noise[1]  # 300 mm against 75 mm of uncertainty
    assert noise[1] > 1.08 * noise[2]


def test_the_half_life_of_fluorine_leaves_the_stated_share():
    # F-18, 109.77 min: after 10 min of 2^(−10/109.77) = 0.93881
    late, early = Timing(60.0, 600.0, 109.77 * 60), Timing(60.0, 0.0, 109.77 * 60)
    assert late.decays(0) / early.decays(0) == pytest.approx(0.93881, abs=1e-5)
    assert Timing(60.0).decays(5) == 60.0
    assert early.decays(0) == pytest.approx(60.0 * (1 - log(2) * 30 / (109.77 * 60)), rel=1e-4)
