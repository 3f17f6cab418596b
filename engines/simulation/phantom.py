"""A simple synthetic FDG PET/CT of one body, for the demonstration and the tests.

Anatomy is a list of ellipsoids and elliptic cylinders in patient millimetres (LPS; z = 0 at mid-thigh, 900 at the
vertex). PET is the uptake of these shapes after a Gaussian resolution blur, Poisson noise of the stated number of
counts and a Gaussian post-filter: there is no attenuation, scatter, motion or iterative reconstruction in it, so it
shows whether a chain keeps values and places, not how well a method works on patients.

HU and SUV of the organs are round numbers of the usual order for FDG at one hour (SUV: Wang 2007, Mol Imaging Biol
9:83, cerebellum 8.0 ± 2.2; Liu 2019, Iran J Radiol 16:e84881, liver 1.9 ± 0.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engines.contract import Acquisition, Affine, FloatArray, LabelMap, Quantity, Volume
from engines.simulation.projector import FWHM_PER_SIGMA

PET_FIELD_OF_VIEW_MM = (900.0, 600.0, 600.0)
CT_FIELD_OF_VIEW_MM = (900.0, 500.0, 500.0)
F18_HALF_LIFE_S = 6586.2
AIR_HU = -1000.0

Shape = tuple[int, int, int]
Millimetres = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate.

    seed : decides lesions, noise, weight and dose; the same plan gives the same bytes
    pet_shape, ct_shape : grid (z, y, x); ct_shape None = no CT
    pet_field_of_view_mm, ct_field_of_view_mm : extent (z, y, x) covered by the grids
    bottom_mm : z of the lowest edge of both grids; 0 = mid-thigh
    lesions : how many lesions, 0 … len(SITES)
    counts : expected number of counts in the whole image, None = no noise
    fwhm_mm : resolution of the finished image
    """

    seed: int
    pet_shape: Shape
    ct_shape: Shape | None = None
    pet_field_of_view_mm: Millimetres = PET_FIELD_OF_VIEW_MM
    ct_field_of_view_mm: Millimetres = CT_FIELD_OF_VIEW_MM
    bottom_mm: float = 0.0
    lesions: int = 5
    counts: float | None = 5e7
    fwhm_mm: float = 6.0

    def __post_init__(self) -> None:
        if not 0 <= self.lesions <= len(SITES):
            raise ValueError(f"lesions: expected 0 … {len(SITES)}, got {self.lesions}")
        if min(self.pet_shape) < 1 or (self.ct_shape is not None and min(self.ct_shape) < 1):
            raise ValueError(f"a grid has at least one voxel per axis, got PET {self.pet_shape}, CT {self.ct_shape}")


@dataclass(frozen=True, slots=True)
class Body:
    """An ellipsoid (or, with `cylinder`, an elliptic cylinder along z) of uniform HU and SUV.

    centre_mm, semi_axes_mm : (x, y, z) in LPS
    """

    name: str
    centre_mm: Millimetres
    semi_axes_mm: Millimetres
    hu: float
    suv: float
    cylinder: bool = False


# Painted in this order, later over earlier. +x is the patient's left, +y posterior, +z superior.
ANATOMY: tuple[Body, ...] = (
    Body("subcutaneous fat", (0, 0, 430), (180, 125, 270), -100, 0.3, cylinder=True),
    Body("right thigh", (-92, 5, 80), (85, 85, 82), 50, 0.6, cylinder=True),
    Body("left thigh", (92, 5, 80), (85, 85, 82), 50, 0.6, cylinder=True),
    Body("neck", (0, 15, 720), (55, 60, 60), 50, 0.8, cylinder=True),
    Body("skull", (0, -5, 805), (80, 98, 92), 900, 1.0),
    Body("soft tissue", (0, 0, 430), (165, 110, 268), 50, 0.7, cylinder=True),
    Body("brain", (0, -5, 805), (72, 89, 83), 35, 7.0),
    Body("right lung", (-82, -5, 570), (66, 85, 125), -800, 0.4),
    Body("left lung", (86, -5, 575), (58, 80, 120), -800, 0.4),
    Body("myocardium", (35, -30, 500), (48, 44, 46), 50, 2.6),
    Body("blood in the heart", (35, -30, 500), (34, 30, 32), 40, 1.6),
    Body("liver", (-62, -8, 420), (98, 85, 72), 60, 2.2),
    Body("spleen", (112, 45, 425), (32, 45, 48), 50, 1.8),
    Body("right kidney", (-72, 62, 335), (27, 26, 52), 35, 3.2),
    Body("left kidney", (74, 62, 352), (26, 26, 54), 35, 3.2),
    Body("bladder", (0, -35, 205), (42, 36, 34), 8, 12.0),
    Body("spine", (0, 78, 440), (22, 20, 260), 250, 1.4, cylinder=True),
    Body("right femur", (-92, 5, 80), (15, 15, 82), 700, 0.5, cylinder=True),
    Body("left femur", (92, 5, 80), (15, 15, 82), 700, 0.5, cylinder=True),
)

# Far from organs of high uptake and from each other, and without mirror image: a swapped side or end is noticed.
SITES: tuple[tuple[str, Millimetres], ...] = (
    ("left supraclavicular node", (62, 30, 672)),
    ("right upper lobe", (-92, 0, 610)),
    ("left lower lobe", (100, 40, 540)),
    ("right inguinal node", (-78, -62, 190)),
    ("para-aortic node", (25, 28, 300)),
    ("left iliac bone", (118, 20, 250)),
    ("liver", (-95, -20, 415)),
    ("mediastinal node", (-8, -35, 590)),
)


def simulate(plan: Plan, anatomy: tuple[Body, ...] = ANATOMY) -> Acquisition:
    """The examination of a plan: PET in SUVbw, CT in HU, and the truth on the PET grid (label k = k-th lesion).

    anatomy : what the lesions are put into, painted in this order
    A voxel belongs to a lesion when its centre lies in the lesion's ellipsoid, before blur and noise.
    """
    rng = np.random.default_rng(plan.seed)
    weight_kg = round(float(rng.uniform(55.0, 95.0)), 1)
    dose_bq = float(round(float(rng.uniform(3.0e6, 4.0e6)) * weight_kg))
    pet_affine = grid_affine(plan.pet_shape, plan.pet_field_of_view_mm, plan.bottom_mm)
    lesions = _lesions(plan.lesions, np.linalg.norm(pet_affine[:3, :3], axis=0), rng)
    bodies = (*anatomy, *lesions)
    activity = render(bodies, plan.pet_shape, pet_affine, "suv", background=0.0)
    return Acquisition(
        pet=Volume(_image(activity, pet_affine, plan, rng), pet_affine, Quantity.SUVBW),
        ct=None if plan.ct_shape is None else _ct(bodies, plan, rng),
        tracer="FDG",
        radionuclide="F-18",
        half_life_s=F18_HALF_LIFE_S,
        dose_bq=dose_bq,
        weight_kg=weight_kg,
        height_m=round(float(rng.uniform(1.55, 1.95)), 2),
        sex=str(rng.choice(["F", "M"])),
        uptake_s=float(rng.integers(3300, 4200)),
        frame_duration_s=180.0,
        seed=plan.seed,
        truth=_truth(lesions, plan.pet_shape, pet_affine),
    )


def grid_affine(shape: Shape, field_of_view_mm: Millimetres, bottom_mm: float = 0.0) -> Affine:
    """Affine (4, 4) of an axial grid (z, y, x) filling the field of view, centred in x and y, up from `bottom_mm`."""
    dz, dy, dx = (extent / n for extent, n in zip(field_of_view_mm, shape, strict=True))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = dz, dy, dx
    affine[:, 3] = (-dx * (shape[2] - 1) / 2, -dy * (shape[1] - 1) / 2, bottom_mm + dz / 2, 1.0)
    return affine


def render(bodies: Iterable[Body], shape: Shape, affine: Affine, what: str, *, background: float) -> FloatArray:
    """Paint the bodies' `what` ("suv" or "hu") on an axial grid, in order; float32 (z, y, x)."""
    image = np.full(shape, background, dtype=np.float32)
    for body in bodies:
        window, inside = footprint(body, shape, affine)
        image[window][inside] = getattr(body, what)
    return image


def footprint(body: Body, shape: Shape, affine: Affine) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """The box of an axial grid that holds a body, and which voxel centres in that box lie inside it."""
    windows, squares = [], []
    for axis, n in enumerate(shape):
        world = 2 - axis  # array axis 0, 1, 2 runs along z, y, x
        step, first = affine[world, axis], affine[world, 3]
        offset = (first + step * np.arange(n) - body.centre_mm[world]) / body.semi_axes_mm[world]
        touched = np.flatnonzero(np.abs(offset) <= 1.0)
        window = slice(touched[0], touched[-1] + 1) if touched.size else slice(0, 0)
        windows.append(window)
        squares.append(offset[window] ** 2)
    if body.cylinder:
        squares[0] = np.zeros_like(squares[0])
    z, y, x = squares
    return (windows[0], windows[1], windows[2]), z[:, None, None] + y[None, :, None] + x[None, None, :] <= 1.0


def _lesions(count: int, spacing_mm: NDArray[np.float64], rng: np.random.Generator) -> list[Body]:
    """Ellipsoids of 8 to 18 mm at sites drawn without replacement; on coarse grids at least 1.2 voxels each way."""
    lesions = []
    for site in sorted(int(i) for i in rng.permutation(len(SITES))[:count]):
        name, centre = SITES[site]
        radius = rng.uniform(8.0, 18.0)
        semi_axes = np.maximum(radius * rng.uniform(0.8, 1.2, size=3), 1.2 * spacing_mm[::-1])
        x, y, z = (float(c) for c in np.asarray(centre) + rng.uniform(-6.0, 6.0, size=3))
        a, b, c = (float(s) for s in semi_axes)
        lesions.append(Body(name, (x, y, z), (a, b, c), 45.0, float(rng.uniform(6.0, 14.0))))
    return lesions


def _truth(lesions: Iterable[Body], shape: Shape, affine: Affine) -> LabelMap:
    labels = np.zeros(shape, dtype=np.uint16)
    names = {}
    for label, lesion in enumerate(lesions, start=1):
        window, inside = footprint(lesion, shape, affine)
        labels[window][inside] = label
        names[label] = lesion.name
    return LabelMap(labels, affine, names)


def _image(activity: FloatArray, affine: Affine, plan: Plan, rng: np.random.Generator) -> FloatArray:
    """Half of the blur's variance before the noise (the scanner), half after it (the post-filter)."""
    sigma = plan.fwhm_mm / FWHM_PER_SIGMA / np.sqrt(2.0) / np.linalg.norm(affine[:3, :3], axis=0)
    blurred = gaussian_filter(activity, sigma, mode="nearest")
    total = float(blurred.sum(dtype=np.float64))
    if plan.counts is not None and total > 0.0:
        counts_per_suv = plan.counts / total
        blurred = (rng.poisson(blurred * counts_per_suv) / counts_per_suv).astype(np.float32)
    image: FloatArray = gaussian_filter(blurred, sigma, mode="nearest")
    return image


def _ct(bodies: Iterable[Body], plan: Plan, rng: np.random.Generator) -> Volume:
    """CT with 12 HU of white noise, whole HU, in the range a scanner stores (−1024 … 3071)."""
    shape = plan.ct_shape or plan.pet_shape
    affine = grid_affine(shape, plan.ct_field_of_view_mm, plan.bottom_mm)
    hu = render(bodies, shape, affine, "hu", background=AIR_HU)
    hu += rng.standard_normal(shape, dtype=np.float32) * np.float32(12.0)
    return Volume(np.clip(np.rint(hu), -1024.0, 3071.0), affine, Quantity.HU)
