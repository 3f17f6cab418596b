"""The nouns every layer shares: volumes in, products out. numpy only, no torch, no DICOM.

Conventions, stated once: arrays are ``(z, y, x)``; an affine is float64 ``(4, 4)`` and maps the column vector
``(z, y, x, 1)`` of array indices (centres of voxels) to world millimetres in DICOM's patient frame (LPS), the
convention of ``highdicom.Volume``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Affine = NDArray[np.float64]
Json = Any
"""A value that JSON can carry: None, bool, int, float, str, list or dict of these."""


class Quantity(StrEnum):
    """What the numbers of a volume mean."""

    SUVBW = "suvbw"
    """Standardised uptake value by body weight [g/mL]."""
    ACTIVITY_BQML = "activity_bqml"
    """Activity concentration [Bq/mL], decay-corrected as the series says."""
    HU = "hu"
    """Hounsfield units."""
    K1 = "k1"
    """Rate constant of the transport from plasma into tissue [mL/min/g]."""
    K2 = "k2"
    """Rate constant of the transport from tissue back into plasma [1/min]."""
    MBF = "mbf"
    """Myocardial blood flow [mL/min/g]."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One scalar image on a regular grid.

    array : float32 (z, y, x)
    affine : float64 (4, 4), (z, y, x, 1) → LPS mm
    quantity : what the numbers mean, with its unit
    """

    array: FloatArray
    affine: Affine
    quantity: Quantity

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a Volume is 3-D (z, y, x), got shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), got {self.affine.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x) [mm]."""
        z, y, x = (float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0))
        return z, y, x

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel [mL]."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


@dataclass(frozen=True, slots=True)
class DynamicVolume:
    """One scalar image at several times, or in several gates, on a regular grid.

    array : float32 (t, z, y, x)
    affine : float64 (4, 4), (z, y, x, 1) → LPS mm, the same at every time
    quantity : what the numbers mean, with its unit
    frame_start_s : float64 (t,), after the start of the first frame [s]; NaN where gated or not known
    frame_duration_s : float64 (t,) [s]; NaN where not known
    """

    array: FloatArray
    affine: Affine
    quantity: Quantity
    frame_start_s: NDArray[np.float64]
    frame_duration_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"a DynamicVolume is 4-D (t, z, y, x), got shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), got {self.affine.shape}")
        if not self.frame_start_s.shape == self.frame_duration_s.shape == self.array.shape[:1]:
            shapes = f"{self.frame_start_s.shape} and {self.frame_duration_s.shape}"
            raise ValueError(f"expected a start and a duration for each of {len(self.array)} frames, got {shapes}")

    def frame(self, index: int) -> Volume:
        """The image at one time; shares its memory."""
        return Volume(self.array[index], self.affine, self.quantity)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """One integer label per voxel; 0 is background.

    array : uint16 (z, y, x)
    affine : as in Volume
    names : label → short name shown to people ("Lesion 1")
    """

    array: NDArray[np.uint16]
    affine: Affine
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected region and its PET measures.

    centroid_mm is in LPS; suv_peak is the highest mean of a 1 mL sphere centred within the lesion
    (PERCIST 1.0, Wahl 2009), None where the sphere does not fit the image.
    """

    label: int
    voxels: int
    volume_ml: float
    suv_max: float
    suv_mean: float
    suv_peak: float | None
    tlg_g: float
    centroid_mm: tuple[float, float, float]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time of one region (time–activity curve)."""

    name: str
    times_s: NDArray[np.float64]
    values: NDArray[np.float64]
    unit: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of the whole study: MTV [ml], TLG [g], a threshold [g/ml{SUVbw}] … ; unit is UCUM.

    region : of which part of the body, such as the territory "LAD"; empty where it is of the whole image
    """

    name: str
    value: float
    unit: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class Products:
    """What an engine found; writers turn it into DICOM objects.

    label_map is None where nothing was found; `method` is one sentence that names the method and its parameters.
    `volumes` are images by the name people read in a viewer's list, on the grid of the first input; one over time has
    the frames of that input.
    """

    method: str
    label_map: LabelMap | None = None
    lesions: tuple[Lesion, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    volumes: Mapping[str, Volume | DynamicVolume] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One input an engine asks for; a rule's `inputs` fills it with a series."""

    modality: str
    quantity: Quantity
    kinds: frozenset[str] = frozenset({"static"})
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One training or evaluation example: volumes by slot, truth on the grid of the first slot."""

    volumes: Mapping[str, Volume]
    truth: LabelMap | None
    group: str


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A simulated examination before it is written as DICOM by dicom_io/write/scanner.py.

    pet, ct and dynamic are None where that part was not made. Times are seconds after injection; the first frame of
    `dynamic` begins at uptake_s, which is negative where the scanner runs before the injection.
    """

    pet: Volume | None
    ct: Volume | None
    tracer: str
    radionuclide: str
    half_life_s: float
    dose_bq: float
    weight_kg: float
    height_m: float
    sex: str
    uptake_s: float
    frame_duration_s: float
    seed: int
    attenuation_corrected: bool = True
    truth: LabelMap | None = None
    dynamic: DynamicVolume | None = None


class Engine(Protocol):
    """A pure function of volumes.

    name and version identify the method, weights_sha256 the learned part (None for classical engines),
    inputs the slots a rule must fill, defaults every parameter with its default value.
    """

    name: str
    version: str
    inputs: Mapping[str, Slot]
    defaults: Mapping[str, Json]

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the learned part."""
        ...

    def check(self, parameters: Mapping[str, Json]) -> list[str]:
        """Every fault of the parameters in words; an empty list when they can be used."""
        ...

    def __call__(
        self, volumes: Mapping[str, Volume], parameters: Mapping[str, Json], should_stop: Callable[[], bool]
    ) -> Products:
        """Compute the products.

        Raises
        ------
        engines.errors.EngineError
            A typed reason why there is no result (`CannotProcess`), or that `should_stop` asked to end (`Stopped`).
        """
        ...
