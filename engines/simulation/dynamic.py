"""A dynamic examination: one bed position, frame after frame.

Projection is linear, and the curves of a body are alike: the activities of all frames are combinations of a few basis
images. Those are projected once, and the line integrals of every frame are combined from theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from engines.simulation.anatomy import Grid, Person
from engines.simulation.circulation import HALF_LIFE_S
from engines.simulation.compartments import SCHEDULE, Array, Frame
from engines.simulation.kinetics import Course
from engines.simulation.measurement import Scanner, Sinograms, Timing, counted, expected_of, line_integrals
from engines.simulation.reconstruction import Method, reconstruct
from engines.simulation.shapes import FloatArray

HEART_MM = 497.0
"""Height of the heart's middle in the reference adult."""
POSITRON_RANGE_FWHM_MM = 3.0
"""Of Rb-82 in soft tissue, about (mean range 7 mm, but most annihilate near; the long tails are left out)."""
TOLERANCE = 1e-4
"""Largest error of a frame's curve values from leaving out basis images, relative to the frame's root mean square."""


def cardiac(scanner: Scanner) -> Scanner:
    """A scanner with Rb-82: one bed position over the heart, and the range of its positrons in the resolution."""
    return replace(scanner, fwhm_mm=float(np.hypot(scanner.fwhm_mm, POSITRON_RANGE_FWHM_MM)))


def chest_grid(person: Person, scanner: Scanner, *, slices: int = 44) -> Grid:
    """The fine grid of one bed position about the heart; `slices` where the scanner has no beds."""
    slices = scanner.bed_slices or slices
    g, fine = scanner.geometry, scanner.slice_mm / 2
    middle = HEART_MM * person.scale[2]
    return Grid(
        (2 * slices, 2 * g.pixels, 2 * g.pixels), (fine, g.pixel_mm / 2, g.pixel_mm / 2), middle - slices * fine
    )


def expected_frames(
    course: Course, mu_per_mm: FloatArray, scanner: Scanner, frames: tuple[Frame, ...] = SCHEDULE
) -> Iterator[tuple[Frame, Sinograms]]:
    """Mean counts of every frame, noise-free; decay before and during each is in them.

    mu_per_mm : float32 linear attenuation at 511 keV on the course's grid, which is the scanner's fine one
    """
    basis, weights = _basis(course, frames)
    projected: list[tuple[FloatArray, ...]] = []
    attenuation: tuple[FloatArray, ...] = ()
    for values in basis:
        activity = values.astype(np.float32)[course.regions] * course.texture
        integrals, attenuation = line_integrals(activity, mu_per_mm, scanner)
        projected.append(integrals)
    for number, frame in enumerate(frames):
        subsets = zip(*projected, strict=True)
        lines = tuple(_combined(parts, weights[:, number]) for parts in subsets)
        timing = Timing(frame.duration_s, frame.start_s, HALF_LIFE_S)
        yield frame, expected_of(lines, attenuation, scanner, timing)


def measured_frames(
    course: Course,
    mu_per_mm: FloatArray,
    scanner: Scanner,
    rng: np.random.Generator,
    *,
    frames: tuple[Frame, ...] = SCHEDULE,
) -> list[Sinograms]:
    """Counts of every frame."""
    return [counted(mean, rng) for _, mean in expected_frames(course, mu_per_mm, scanner, frames)]


def reconstruct_frames(
    measured: list[Sinograms], scanner: Scanner, method: Method, progress: Callable[[float], None] | None = None
) -> FloatArray:
    """float32 (t, z, y, x) Bq/mL, decay-corrected to the start of the scan; progress is told the share done."""
    images = []
    for number, sinograms in enumerate(measured):
        images.append(reconstruct(sinograms, scanner, method))
        if progress is not None:
            progress((number + 1) / len(measured))
    return np.stack(images)


def _basis(course: Course, frames: tuple[Frame, ...]) -> tuple[Array, Array]:
    """Values of basis images (few, regions) and their weights (few, frames), by the singular values of all frames."""
    values = course.values(frames)
    voxels = np.bincount(course.regions.ravel(), minlength=len(values))
    size = np.sqrt(voxels @ values**2 / voxels.sum())
    scale = np.where(size > 0.0, size, 1.0)
    used = voxels > 0
    left, strengths, right = np.linalg.svd(values[used] / scale, full_matrices=False)
    tail = np.abs(left[:, :, None] * strengths[None, :, None] * right[None]).cumsum(axis=1)
    error = (tail[:, -1:] - tail).max(axis=(0, 2))  # of keeping one, two, three …
    kept = min(int(np.argmax(error <= TOLERANCE)) + 1, len(strengths))
    basis = np.zeros((kept, len(values)))
    basis[:, used] = left[:, :kept].T * strengths[:kept, None]
    return basis, right[:kept] * scale


def _combined(parts: tuple[FloatArray, ...], weights: Array) -> FloatArray:
    """Σ weight · part; rounding below 0 is 0."""
    total = np.zeros_like(parts[0])
    for part, weight in zip(parts, weights.astype(np.float32), strict=True):
        total += weight * part
    return np.maximum(total, 0.0)
