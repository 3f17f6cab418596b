"""Curves over time: one-tissue compartments, flow-dependent extraction, and what a scanner makes of a curve in a frame.

Curves are float64 samples every STEP_S seconds from the start of the scan, corrected for decay to it, so that λ enters
only where a frame is averaged. Between samples they are linear; everything here is exact for such curves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.signal import lfilter

Array = NDArray[np.float64]
STEP_S = 0.1
EXTRACTION_A, EXTRACTION_B = 0.77, 0.63
"""Rb-82 in man, the second in mL/min/g (Lortie 2007, Eur J Nucl Med Mol Imaging 34:1765)."""


@dataclass(frozen=True)
class Frame:
    """When one image of a dynamic series is taken [s after the start of the scan]."""

    start_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        """When it ends."""
        return self.start_s + self.duration_s


def schedule(groups: Iterable[tuple[int, float]]) -> tuple[Frame, ...]:
    """Frames one after the other: (how many, seconds each)."""
    durations = [float(seconds) for count, seconds in groups for _ in range(count)]
    starts = np.cumsum([0.0, *durations])
    return tuple(Frame(float(start), duration) for start, duration in zip(starts, durations, strict=False))


SCHEDULE = schedule(((14, 5), (6, 10), (3, 20), (3, 30), (1, 90)))
"""27 frames, 370 s."""


def sample_times(last_s: float) -> Array:
    """0 to last_s, every STEP_S [s]."""
    return np.asarray(np.arange(round(last_s / STEP_S) + 1) * STEP_S, np.float64)


def exponential(curve: Array, rate_per_s: float) -> Array:
    """∫₀ᵗ e^(−rate·(t−s)) · curve(s) ds, at every sample."""
    if rate_per_s * STEP_S < 1e-9:
        return np.asarray(cumulative_trapezoid(curve, dx=STEP_S, initial=0.0))
    kept = exp(-rate_per_s * STEP_S)
    mean = (1.0 - kept) / (rate_per_s * STEP_S)
    newer, older = (1.0 - mean) / rate_per_s, (mean - kept) / rate_per_s
    # the state starts so that nothing has come in before the first sample
    filtered, _ = lfilter([newer, older], [1.0, -kept], curve, zi=[-newer * curve[0]])
    return np.asarray(filtered)


def transit(curve: Array, mean_s: float, stages: int) -> Array:
    """What leaves a chain of equal mixing chambers: the curve convolved with a gamma density of that mean."""
    rate = stages / mean_s
    for _ in range(stages):
        curve = rate * exponential(curve, rate)
    return curve


def tissue(k1_per_min: float, k2_per_min: float, blood: Array) -> Array:
    """One-tissue compartment, K1·e^(−k2·t) ⊗ C_a: per mL of tissue what `blood` is per mL of blood.

    k1_per_min : mL of blood per minute and mL of tissue; k2_per_min : 1/min
    """
    return k1_per_min / 60.0 * exponential(blood, k2_per_min / 60.0)


def k1_of_flow(flow: NDArray[np.floating], a: float = EXTRACTION_A, b: float = EXTRACTION_B) -> Array:
    """K1 = F·(1 − a·e^(−b/F)), the generalised Renkin–Crone equation; both in mL/min/g."""
    flow = np.asarray(flow, np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(flow * (1.0 - a * np.exp(-b / flow)))


def frame_values(curve: Array, frames: Iterable[Frame], half_life_s: float | None) -> Array:
    """What the frames of a decay-corrected series hold, one value each.

    A scanner counts the decays of a frame and corrects them as if nothing but decay changed the activity meanwhile
    (PS3.3 C.8.9.1.1.5, Decay Factor): ∫ C·e^(−λt) dt / ∫ e^(−λt) dt over the frame. Without a half-life the mean.
    """
    rate = 0.0 if half_life_s is None else log(2.0) / half_life_s
    times = np.arange(len(curve)) * STEP_S
    left = np.exp(-rate * times)
    decays, unit = (cumulative_trapezoid(part, dx=STEP_S, initial=0.0) for part in (curve * left, left))
    edges = np.asarray([(frame.start_s, frame.end_s) for frame in frames]).T
    if edges.size and edges.max() > times[-1] + STEP_S / 2:
        raise ValueError(f"the curve ends after {times[-1]:g} s, a frame after {edges.max():g} s")
    first, last = (np.stack([np.interp(edge, times, part) for part in (decays, unit)]) for edge in edges)
    return np.asarray((last - first)[0] / (last - first)[1])
