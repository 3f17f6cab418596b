"""Rb-82 in a body over time: which curve every voxel follows, what each frame holds, and the truth that comes with it.

A body is cut into regions of one curve each: tissues, venous and arterial blood, and the myocardium of the left
ventricle in steps of flow. The activity of a frame is then one table look-up. In the myocardium

    C(t) = (1 − V_b) · ρ·K1·e^(−k2·t) ⊗ C_a(t) + V_b · C_a(t),   K1 = F·(1 − a·e^(−b/F)),   k2 = K1 / V_d

with C_a the blood of the left ventricle (Lortie 2007, Eur J Nucl Med Mol Imaging 34:1765), K1 and F (MBF) in mL/min/g,
V_d in mL/g, ρ = 1.04 g/mL and C in Bq/mL. What spills over between blood and wall does so by the scanner's resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.contract import Json
from engines.simulation.anatomy import Body
from engines.simulation.circulation import HALF_LIFE_S, ORGANS, Blood, Bolus, Circulation
from engines.simulation.compartments import SCHEDULE, Array, Frame, frame_values, k1_of_flow, tissue
from engines.simulation.heart import SEGMENTS, TERRITORIES, LeftVentricle, places, venous
from engines.simulation.perfusion import Perfusion, State
from engines.simulation.person import Person
from engines.simulation.shapes import Field, FloatArray
from engines.simulation.tissues import Tissue

T = Tissue
DENSITY_G_ML = 1.04
FLOW_STEP = 0.02
"""mL/min/g: flow of the myocardium is rounded to this; the truth is what was rounded."""
VENOUS = len(Tissue)
FIRST_FLOW = VENOUS + 1
"""Regions: a Tissue's own number, venous blood, then the steps of flow."""
UNEVENNESS, UNEVEN_MM = 0.08, 18.0
"""Within all tissues but heart and blood, whose curves are known exactly: relative, and over which length."""
EVEN = (T.MYOCARDIUM, T.LEFT_VENTRICLE, T.RIGHT_VENTRICLE, T.BLOOD)


@dataclass(frozen=True)
class Patient:
    """What a body does with Rb-82; the same at rest and under stress but for flow and output.

    volume_ml_g : of distribution in the myocardium (V_d); blood : V_b; bolus : the same for both scans
    """

    perfusion: Perfusion
    circulation: Circulation
    bolus: Bolus
    volume_ml_g: float = 2.6
    blood: float = 0.12

    @classmethod
    def draw(cls, person: Person, rng: np.random.Generator) -> Patient:
        """A random patient: 10 MBq/kg, at most 1.5 GBq, infused in 15 to 30 s."""
        activity_bq = min(10e6 * person.weight_kg, 1.5e9) * float(rng.normal(1.0, 0.05))
        bolus = Bolus(activity_bq, float(rng.uniform(15.0, 30.0)), float(rng.uniform(1.0, 6.0)))
        return cls(
            Perfusion.draw(rng),
            Circulation.draw(person, rng),
            bolus,
            volume_ml_g=float(np.clip(rng.normal(2.6, 0.25), 2.0, 3.2)),
            blood=float(np.clip(rng.normal(0.12, 0.02), 0.07, 0.17)),
        )

    def blood_curves(self, state: State, last_s: float) -> Blood:
        """From the start of the scan."""
        pace = self.circulation if state == "rest" else self.circulation.under_stress()
        return pace.blood(self.bolus, last_s)

    def myocardium(self, mbf: float, blood: Blood) -> Array:
        """The curve of myocardium with this flow [mL/min/g]: Bq/mL at every sample."""
        k1 = float(k1_of_flow(np.asarray(mbf)))
        taken_up = tissue(DENSITY_G_ML * k1, k1 / self.volume_ml_g, blood.left)
        return (1.0 - self.blood) * taken_up + self.blood * blood.left


@dataclass(frozen=True, eq=False)
class Course:
    """Rb-82 in one body during one scan.

    segments : uint8 (z, y, x), AHA segment of the left ventricle's wall, 0 elsewhere
    regions : uint16 (z, y, x), row of `curves`; curves : float64 (regions, samples) Bq/mL, decay-corrected to the start
    flows : float64 (steps,) MBF of the last regions [mL/min/g], FIRST_FLOW on
    texture : float32 (z, y, x), factor of the activity
    """

    body: Body
    patient: Patient
    state: State
    segments: NDArray[np.uint8]
    regions: NDArray[np.uint16]
    curves: Array
    flows: Array
    texture: FloatArray
    blood: Blood

    def values(self, frames: tuple[Frame, ...]) -> Array:
        """Bq/mL (regions, frames) as a decay-corrected series holds them, without texture."""
        return np.stack([frame_values(curve, frames, HALF_LIFE_S) for curve in self.curves])

    @property
    def mbf(self) -> FloatArray:
        """MBF [mL/min/g], float32 (z, y, x), 0 outside the left ventricle's wall."""
        table = np.concatenate([np.zeros(FIRST_FLOW), self.flows]).astype(np.float32)
        return np.asarray(table[self.regions])


def course(body: Body, patient: Patient, state: State, rng: np.random.Generator, *, last_s: float = 370.0) -> Course:
    """What happens in a body that holds the heart, from 0 to last_s.

    Raises
    ------
    ValueError
        No heart on the body's grid.
    """
    wall = places(body, T.MYOCARDIUM)
    labels = LeftVentricle.of(body).segments(wall)
    steps = np.rint(patient.perfusion.flow(wall, labels, state) / FLOW_STEP).astype(np.int64)
    found, number = np.unique(steps, return_inverse=True)
    flows = np.asarray(found * FLOW_STEP, np.float64)
    regions = body.tissue.astype(np.uint16)
    regions[venous(body)] = VENOUS
    heart = body.tissue == T.MYOCARDIUM
    regions[heart] = FIRST_FLOW + number
    segments = np.zeros(body.tissue.shape, np.uint8)
    segments[heart] = labels
    blood = patient.blood_curves(state, last_s)
    curves = [*_surroundings(patient, blood), *(patient.myocardium(float(flow), blood) for flow in flows)]
    return Course(body, patient, state, segments, regions, np.stack(curves), flows, _texture(body, rng), blood)


def _surroundings(patient: Patient, blood: Blood) -> list[Array]:
    """Curves of all tissues in their order, then of venous blood; what Rb-82 does not reach stays at 0."""
    curves = [np.zeros_like(blood.left) for _ in Tissue]
    for name, organ in ORGANS.items():
        k1 = patient.circulation.uptake * organ.k1
        inside = blood.lung if name is T.LUNG else blood.left
        curves[name] = (1.0 - organ.blood) * tissue(k1, k1 / organ.volume, blood.left) + organ.blood * inside
    curves[T.BLOOD] = curves[T.LEFT_VENTRICLE] = blood.left
    curves[T.RIGHT_VENTRICLE] = blood.right
    curves[T.LUNG_VESSEL] = 0.3 * (blood.right + blood.left)  # thin: as much lung as vessel
    return [*curves, blood.right]


def _texture(body: Body, rng: np.random.Generator) -> FloatArray:
    """Unevenness that the reconstruction's grid does not know of."""
    z, y, x = body.grid.axes
    field = Field.draw(body.grid.box, UNEVEN_MM, rng).at(z, y, x)
    return np.where(np.isin(body.tissue, EVEN), 1.0, np.clip(1.0 + UNEVENNESS * field, 0.5, 1.5)).astype(np.float32)


def activity_frames(course: Course, frames: tuple[Frame, ...] = SCHEDULE) -> Iterator[tuple[Frame, FloatArray]]:
    """Every frame and its activity, float32 (z, y, x) Bq/mL on the body's grid, at the start of the scan.

    It is the activity of which the frame sees all decays: times exp(−λt), integrated over the frame, it gives them
    exactly, however it changed meanwhile.
    """
    for frame, values in zip(frames, course.values(frames).T.astype(np.float32), strict=True):
        yield frame, values[course.regions] * course.texture


@dataclass(frozen=True, eq=False)
class Maps:
    """The truth on the scanner's grid, half as fine as the body's.

    k1, mbf : float32 (z, y, x) [mL/min/g], means over the voxel with 0 outside the myocardium
    k2 : float32 (z, y, x) [1/min], mean of the myocardium in the voxel
    segments : uint8 (z, y, x), AHA segment where at least half of the voxel is myocardium, else 0
    """

    k1: FloatArray
    k2: FloatArray
    mbf: FloatArray
    segments: NDArray[np.uint8]


def maps(course: Course) -> Maps:
    """Kinetic parameters as maps."""
    z, y, x = np.nonzero(course.segments)
    labels, flow = course.segments[z, y, x], course.mbf[z, y, x]
    fine = course.segments.shape
    shape = (fine[0] // 2, fine[1] // 2, fine[2] // 2)
    voxel = np.ravel_multi_index((z // 2, y // 2, x // 2), shape)

    def mean(values: NDArray[np.floating]) -> Array:
        return np.bincount(voxel, values, minlength=int(np.prod(shape))).reshape(shape) / 8.0

    k1, share = mean(k1_of_flow(flow)), mean(np.ones(len(voxel)))
    k2 = np.divide(k1 / course.patient.volume_ml_g, share, out=np.zeros(shape), where=share > 0.0)
    counts = np.zeros((len(SEGMENTS) + 1, *shape), np.uint8)
    np.add.at(counts.reshape(len(counts), -1), (labels, voxel), 1)
    segments = np.where(share >= 0.5, counts.argmax(axis=0), 0).astype(np.uint8)
    return Maps(k1.astype(np.float32), k2.astype(np.float32), mean(flow).astype(np.float32), segments)


def truth(course: Course) -> dict[str, Json]:
    """All numbers of a scan, ready for JSON.

    Of the whole wall ("global_…"), every territory and every segment: mbf and k1 [mL/min/g] and k2 [1/min], averaged
    over its voxels of `maps`, which hold other tissue too at their borders; `…_tissue`: of the pure myocardium; mass.
    None where a segment has no voxel of `maps`.
    """
    on_grid, patient, wall = maps(course), course.patient, course.segments > 0
    labels, flow = course.segments[wall], course.mbf[wall].astype(np.float64)
    voxel_g = course.body.voxel_ml * DENSITY_G_ML

    def average(*segments: int) -> dict[str, Json]:
        pure = flow[np.isin(labels, segments)]
        return _average(on_grid, segments, pure, patient.volume_ml_g) | {"mass_g": round(len(pure) * voxel_g, 3)}

    whole = average(*SEGMENTS)
    return {
        "state": course.state,
        "global_mbf": whole["mbf_tissue"],
        "global": whole,
        "territories": {name: average(*segments) for name, segments in TERRITORIES.items()},
        "segments": {str(number): {"name": name, **average(number)} for number, name in SEGMENTS.items()},
        "defects": [
            {
                "territory": defect.territory,
                "segment": defect.segment,
                "radius_mm": defect.radius_mm,
                "rest": defect.rest,
                "stress": defect.stress,
            }
            for defect in patient.perfusion.defects
        ],
        "volume_of_distribution_ml_g": patient.volume_ml_g,
        "blood_fraction": patient.blood,
        "density_g_ml": DENSITY_G_ML,
        "cardiac_output_ml_min": patient.circulation.output_ml_min,
        "activity_bq": patient.bolus.activity_bq,
        "infusion_s": patient.bolus.infusion_s,
    }


def _average(on_grid: Maps, segments: tuple[int, ...], flow: Array, volume_ml_g: float) -> dict[str, Json]:
    """Means over voxels of the maps, and over pure myocardium with these flows."""
    seen, k1 = np.isin(on_grid.segments, segments), k1_of_flow(flow)
    numbers = {
        "mbf": _mean(on_grid.mbf[seen]),
        "k1": _mean(on_grid.k1[seen]),
        "k2": _mean(on_grid.k2[seen]),
        "mbf_tissue": _mean(flow),
        "k1_tissue": _mean(k1),
        "k2_tissue": _mean(k1) / volume_ml_g,
    }
    return {name: round(number, 5) if np.isfinite(number) else None for name, number in numbers.items()}


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
