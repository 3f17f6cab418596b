"""What a scanner counts: trues behind attenuation, scatter, randoms, Poisson noise.

The activity is given on a grid twice as fine as the reconstruction's, along all three axes, and is projected there,
so that what is reconstructed was never made with the reconstruction's own matrix. Counts of a shorter or weaker
examination are drawn out of the counts of the full one (binomial thinning): the same acquisition with fewer counts.

Units. A voxel of a Bq/mL decays a·V times a second (V in mL), and of these decays `sensitivity` are counted as trues
when nothing attenuates. All lines of one angle together integrate a·mm over the slice, so one line with the integral
p [Bq/mL·mm] expects

    p · bin_mm · slice_mm / 1000 / angles · sensitivity · profile · seconds   counts.

That factor is the calibration which the reconstruction divides by: its images are in Bq/mL at the time to which the
activity was given, whatever decayed before and during the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, expm1, log

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from engines.simulation.projector import FWHM_PER_SIGMA, Geometry, as_columns, together
from engines.simulation.resolution import blurred

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Scanner:
    """A PET scanner and what it does to an examination.

    geometry : lines and pixels of the reconstruction; slice_mm : its slices
    fwhm_mm : resolution before reconstruction, the same along all axes: detectors and positron range together
    sensitivity : trues per decay of a source in air amid one bed position. The usual 0.06 is a whole-body scanner of
        about 22 cm: NEMA NU 2 measures 9.7 cps/kBq on a line of 70 cm, of which it sees 22 cm (Jakoby 2011, Phys Med
        Biol 56:2375), so 9.7·70/22 = 31 cps/kBq on the mean and twice that at the top of the triangle
    scatter_fraction, randoms_fraction : scatter / (trues + scatter), randoms / prompts, of the whole examination
    bed_slices : slices of one bed position; overlap_slices : shared by neighbouring beds; None = one long bed whose
        slices are all equally sensitive
    exact_slices : attenuate the two fine slices of a slice each by its own tissue, at twice the cost. Without, their
        means are projected: exact for the activity, and for attenuation as far as both halves attenuate alike (in
        bodies with slices of 5 mm the images differ by 0.0006 SUV on the mean and 0.04 in one voxel of a thousand)
    """

    geometry: Geometry
    slice_mm: float
    fwhm_mm: float = 4.5
    sensitivity: float = 0.06
    scatter_fraction: float = 0.33
    randoms_fraction: float = 0.25
    bed_slices: int | None = None
    overlap_slices: int = 0
    exact_slices: bool = False

    @property
    def fine(self) -> Geometry:
        """Half the pixel, half the distance of lines: two of its lines make one of the scanner's."""
        g = self.geometry
        return replace(g, pixels=2 * g.pixels, pixel_mm=g.pixel_mm / 2, bins=2 * g.bins, bin_mm=g.bin_mm / 2)

    def beds(self, slices: int) -> int:
        """Bed positions that cover so many slices."""
        if self.bed_slices is None:
            return 1
        return 1 + max(0, -(-(slices - self.bed_slices) // (self.bed_slices - self.overlap_slices)))


@dataclass(frozen=True, eq=False)
class Sinograms:
    """Counts of one examination, one float32 array (lines, slices) per subset of angles.

    prompts : whole counts, or their expectation
    attenuation : factors in (0, 1], the same for all intervals of time of flight: (angles·bins, slices)
    scatter : expected counts, as an ideal scatter simulation estimates them
    randoms : expected counts of any line (slices,), as delayed coincidences estimate them
    calibration : expected counts per Bq/mL·mm of line integral, without attenuation (slices,)
    """

    prompts: tuple[FloatArray, ...]
    attenuation: tuple[FloatArray, ...]
    scatter: tuple[FloatArray, ...]
    randoms: FloatArray
    calibration: FloatArray

    @property
    def counts(self) -> float:
        """All prompts."""
        return float(sum(part.sum(dtype=np.float64) for part in self.prompts))


@dataclass(frozen=True)
class Timing:
    """When counts are taken, of an activity that is given at second 0.

    start_s : when the first bed begins; bed_s : how long each lasts, one after the other, from the last slice down
    half_life_s : None = nothing decays
    """

    bed_s: float
    start_s: float = 0.0
    half_life_s: float | None = None

    def decays(self, bed: int) -> float:
        """Decays during a bed position per becquerel at second 0 [s]: the integral of exp(−λt) over it."""
        if self.half_life_s is None:
            return self.bed_s
        rate = log(2.0) / self.half_life_s
        return exp(-rate * (self.start_s + bed * self.bed_s)) * -expm1(-rate * self.bed_s) / rate


def measure(
    activity: FloatArray, mu_per_mm: FloatArray, scanner: Scanner, timing: Timing | float, rng: np.random.Generator
) -> Sinograms:
    """Examine an activity.

    activity : float32 (2 z, 2 n, 2 n) Bq/mL on the fine grid, n the pixels of the scanner's geometry
    mu_per_mm : float32 (2 z, 2 n, 2 n) linear attenuation at 511 keV on the fine grid
    timing : or the seconds of each bed position, without decay

    Raises
    ------
    ValueError
        The arrays are not on the fine grid.
    """
    return counted(expected(activity, mu_per_mm, scanner, timing), rng)


def expected(activity: FloatArray, mu_per_mm: FloatArray, scanner: Scanner, timing: Timing | float) -> Sinograms:
    """Mean counts of an examination, noise-free; arguments as of `measure`."""
    side = 2 * scanner.geometry.pixels
    if activity.shape != mu_per_mm.shape or activity.shape[0] % 2 or activity.shape[1:] != (side, side):
        raise ValueError(f"expected two arrays (even, {side}, {side}), got {activity.shape} and {mu_per_mm.shape}")
    timing = timing if isinstance(timing, Timing) else Timing(float(timing))
    return expected_of(*line_integrals(activity, mu_per_mm, scanner), scanner, timing)


def expected_of(
    integrals: tuple[FloatArray, ...], attenuation: tuple[FloatArray, ...], scanner: Scanner, timing: Timing
) -> Sinograms:
    """Mean counts of what `line_integrals` gave."""
    calibration = counts_per_integral(scanner, integrals[0].shape[1], timing)
    trues = [part * calibration for part in integrals]
    scatter = _scaled([part * calibration for part in _smeared(integrals, scanner)], trues, scanner.scatter_fraction)
    prompts = [t + s for t, s in zip(trues, scatter, strict=True)]
    lines = sum(len(part) for part in prompts)
    share = scanner.randoms_fraction / (1.0 - scanner.randoms_fraction)
    level = _sum(prompts) * share / (lines * float(calibration.sum(dtype=np.float64)))
    randoms = (calibration * level).astype(np.float32)
    return Sinograms(tuple(part + randoms for part in prompts), attenuation, tuple(scatter), randoms, calibration)


def counted(mean: Sinograms, rng: np.random.Generator) -> Sinograms:
    """One examination out of all possible ones: Poisson counts."""
    draws = zip(mean.prompts, rng.spawn(len(mean.prompts)), strict=True)
    return replace(mean, prompts=tuple(together(lambda draw: draw[1].poisson(draw[0]).astype(np.float32), draws)))


def thin(full: Sinograms, fraction: float, rng: np.random.Generator) -> Sinograms:
    """The same examination with a fraction of its counts, each kept by chance.

    Raises
    ------
    ValueError
        The fraction is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction: expected above 0 and at most 1, got {fraction}")
    draws = zip(full.prompts, rng.spawn(len(full.prompts)), strict=True)
    share = np.float32(fraction)
    return replace(
        full,
        prompts=tuple(together(lambda draw: _kept(draw[0], fraction, draw[1]), draws)),
        scatter=tuple(part * share for part in full.scatter),
        randoms=full.randoms * share,
        calibration=full.calibration * share,
    )


def _kept(counts: FloatArray, fraction: float, rng: np.random.Generator) -> FloatArray:
    return rng.binomial(counts.astype(np.int64), fraction).astype(np.float32)


def counts_per_integral(scanner: Scanner, slices: int, timing: Timing) -> FloatArray:
    """Expected counts per Bq/mL·mm of a line integral that nothing attenuates, float32 (slices,)."""
    g = scanner.geometry
    profiles = bed_profiles(scanner, slices)
    decays = np.asarray([timing.decays(bed) for bed in range(len(profiles))])
    per_decay = scanner.sensitivity * g.bin_mm * scanner.slice_mm / 1000.0 / g.angles
    return np.asarray(per_decay * (decays @ profiles), np.float32)


def bed_profiles(scanner: Scanner, slices: int) -> NDArray[np.float64]:
    """Sensitivity (beds, slices) of each bed position relative to its middle: a triangle, the last slices first."""
    if scanner.bed_slices is None:
        return np.ones((1, slices))
    bed, step, beds = scanner.bed_slices, scanner.bed_slices - scanner.overlap_slices, scanner.beds(slices)
    triangle = 1.0 - np.abs((np.arange(bed) - (bed - 1) / 2) / (bed / 2 + 1))
    profiles = np.zeros((beds, bed + step * (beds - 1)))
    for number in range(beds):
        first = (beds - 1 - number) * step
        profiles[number, first : first + bed] = triangle
    spare = (profiles.shape[1] - slices) // 2
    return profiles[:, spare : spare + slices]


def line_integrals(
    activity: FloatArray, mu_per_mm: FloatArray, scanner: Scanner
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Line integrals [Bq/mL·mm] behind attenuation, and the attenuation factors: (lines, slices) per subset."""
    fine = scanner.fine
    halves = 2 if scanner.exact_slices else 1
    seen = blurred(activity, scanner.fwhm_mm, (scanner.slice_mm / 2, None, None))
    columns = [as_columns(volume if scanner.exact_slices else _pairs(volume, 0)) for volume in (seen, mu_per_mm)]
    plane = blurred(columns[0].reshape(fine.pixels, fine.pixels, -1), scanner.fwhm_mm, (*[fine.pixel_mm] * 2, None))
    sources, absorbers = plane.reshape(columns[0].shape), columns[1]
    parts = [
        _behind(subset.forward(sources), opaque.forward(absorbers), fine, halves)
        for subset, opaque in zip(fine.system, fine.without_tof.system, strict=True)
    ]
    return tuple(part[0] for part in parts), tuple(part[1] for part in parts)


def _behind(lines: FloatArray, depths: FloatArray, fine: Geometry, halves: int) -> tuple[FloatArray, FloatArray]:
    """Fine lines of an activity and of what absorbs it → the scanner's lines and their attenuation factors."""
    shape = (-1, 2, fine.tof_bins, lines.shape[1] // halves, halves)
    factors = np.exp(-depths.reshape(-1, 2, 1, *shape[3:]).mean(axis=1, keepdims=True))
    seen = (lines.reshape(shape).mean(axis=1, keepdims=True) * factors).mean(axis=4)
    return seen.reshape(-1, shape[3]), factors.mean(axis=4).reshape(-1, shape[3])


def _smeared(integrals: tuple[FloatArray, ...], scanner: Scanner, *, width_mm: float = 180.0) -> list[FloatArray]:
    """What arrives on a wrong line: the trues smeared over the field of view, in arbitrary units.

    A convolution that is wide against the object is what single-scatter simulations of a body come out as (Bailey and
    Meikle 1994, Phys Med Biol 39:411). Times of flight are kept.
    """
    g, sigma = scanner.geometry, width_mm / FWHM_PER_SIGMA

    def wide(part: FloatArray) -> FloatArray:
        shaped = part.reshape(-1, g.bins, g.tof_bins, part.shape[1])
        across = gaussian_filter1d(shaped, sigma / g.bin_mm, axis=1, mode="constant")
        smooth = gaussian_filter1d(across, sigma / scanner.slice_mm, axis=3, mode="nearest")
        return np.asarray(smooth.reshape(part.shape), np.float32)

    return together(wide, integrals)


def _scaled(scatter: list[FloatArray], trues: list[FloatArray], fraction: float) -> list[FloatArray]:
    """Scatter so that it is `fraction` of trues and scatter together."""
    total = _sum(scatter)
    scale = np.float32(fraction / (1.0 - fraction) * _sum(trues) / total if total > 0.0 else 0.0)
    return [part * scale for part in scatter]


def _sum(parts: list[FloatArray]) -> float:
    return float(sum(part.sum(dtype=np.float64) for part in parts))


def pairs_of_slices(fine: FloatArray) -> FloatArray:
    """(2 z, y, x) → (z, y, x): means of two slices."""
    return _pairs(fine, 0)


def _pairs(fine: FloatArray, axis: int) -> FloatArray:
    shape = (*fine.shape[:axis], fine.shape[axis] // 2, 2, *fine.shape[axis + 1 :])
    return np.asarray(fine.reshape(shape).mean(axis=axis + 1), np.float32)
