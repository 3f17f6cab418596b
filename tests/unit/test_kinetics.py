"""Rb-82 over time: equations, blood, the left ventricle's segments, frames, and the truth that comes with them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad, trapezoid
from scipy.optimize import curve_fit

from engines.simulation import anatomy
from engines.simulation.anatomy import Body, Grid, Person
from engines.simulation.circulation import HALF_LIFE_S, MYOCARDIUM, ORGANS, Bolus, Circulation
from engines.simulation.compartments import (
    SCHEDULE,
    Frame,
    exponential,
    frame_values,
    k1_of_flow,
    sample_times,
    schedule,
    tissue,
    transit,
)
from engines.simulation.dynamic import cardiac, chest_grid, expected_frames, measured_frames, reconstruct_frames
from engines.simulation.heart import SEGMENTS, TERRITORIES, LeftVentricle, places, venous
from engines.simulation.kinetics import Course, Patient, activity_frames, course, maps, truth
from engines.simulation.measurement import Scanner, Timing, expected
from engines.simulation.perfusion import Defect, Perfusion
from engines.simulation.projector import Geometry
from engines.simulation.reconstruction import Method
from engines.simulation.tissues import Tissue

T = Tissue
LAMBDA = np.log(2.0) / 76.38
AXIS = np.array([0.6, -0.64, -0.48])  # unit: 0.36 + 0.4096 + 0.2304 = 1
TO_SEPTUM = np.array([-0.8, -0.48, -0.36])  # unit, at right angles: −0.48 + 0.3072 + 0.1728 = 0
WALL, ROOM = (33.0, 58.0), (23.0, 48.0)
PERSON = Person("M", 1.75, 75.0, True, 1.0, 15.0)


def heart_of_revolution(step_mm: float = 3.0, side: int = 48) -> Body:
    """A left ventricle that is a half ellipsoid about AXIS, open 20 mm behind its middle, and a ball beside it."""
    grid = Grid((side, side, side), (step_mm, step_mm, step_mm), -side * step_mm / 2)
    z, y, x = np.meshgrid(*grid.axes, indexing="ij")
    where = np.stack([x, y, z], axis=-1)
    along = where @ AXIS
    across = np.sqrt(np.maximum((where**2).sum(axis=-1) - along**2, 0.0))
    labels = np.full(grid.shape, T.FAT, np.uint8)
    labels[np.linalg.norm(where - 45.0 * TO_SEPTUM, axis=-1) < 16.0] = T.RIGHT_VENTRICLE
    for (short, long), name in ((WALL, T.MYOCARDIUM), (ROOM, T.LEFT_VENTRICLE)):
        labels[((across / short) ** 2 + (along / long) ** 2 < 1.0) & (along > -20.0)] = name
    return Body(PERSON, grid, labels, (1.0, 1.0, 1.0))


def patient(**changes: object) -> Patient:
    plain = Patient(Perfusion({"rest": 0.9, "stress": 2.6}), Circulation(5600.0), Bolus(8e8, 20.0, 4.0))
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def simple() -> Body:
    return heart_of_revolution()


@pytest.fixture(scope="module")
def rest(simple: Body) -> Course:
    return course(simple, patient(), "rest", np.random.default_rng(3))


@pytest.fixture(scope="module", params=[1, 2, 7])
def adult(request: pytest.FixtureRequest) -> Body:
    rng = np.random.default_rng(request.param)
    person = Person.draw(rng)
    grid = Grid((44, 96, 96), (5.0, 5.5, 5.5), 497.0 * person.scale[2] - 110.0)
    return anatomy.build(person, grid, rng)


# --- equations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "k1"),
    # e^(−0.63/F): 0.5325918, 0.8105842, 0.2836540; K1 = F·(1 − 0.77·that)
    [(1.0, 0.5899043), (3.0, 1.1275505), (0.5, 0.3907932), (0.0, 0.0)],
)
def test_k1_of_a_flow_is_that_of_lortie(flow: float, k1: float) -> None:
    assert float(k1_of_flow(np.array(flow))) == pytest.approx(k1, abs=1e-6)


def test_k1_with_other_extraction_parameters() -> None:
    # a = 0.77, b = 0.39 at F = 2: 2·(1 − 0.77·e^−0.195) = 2·(1 − 0.77·0.8228347) = 0.7328346
    assert float(k1_of_flow(np.array(2.0), b=0.39)) == pytest.approx(0.7328346, abs=1e-6)


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.02, 0.8])
def test_the_convolution_of_a_ramp_is_exact(rate: float) -> None:
    t = sample_times(60.0)
    # ∫ s·e^(−k(t−s)) ds = t/k − (1 − e^(−kt))/k²; its series where k is small
    analytic = t**2 / 2 - rate * t**3 / 6 if rate < 1e-3 else t / rate - (1.0 - np.exp(-rate * t)) / rate**2
    np.testing.assert_allclose(exponential(t, rate), analytic, rtol=1e-4 if rate < 1e-3 else 1e-9, atol=1e-9)


def test_a_curve_that_begins_above_zero_has_not_yet_been_taken_up() -> None:
    t = sample_times(20.0)
    np.testing.assert_allclose(exponential(np.ones_like(t), 0.1), (1.0 - np.exp(-0.1 * t)) / 0.1, rtol=1e-9, atol=1e-12)


def test_a_transit_keeps_the_area_and_delays_by_its_mean() -> None:
    t = sample_times(200.0)
    into = ((t > 5.0) & (t < 15.0)).astype(float)
    out = transit(into, 7.0, 3)
    assert trapezoid(out, t) == pytest.approx(trapezoid(into, t), rel=1e-6)
    assert trapezoid(out * t, t) / trapezoid(out, t) == pytest.approx(10.0 + 7.0, abs=1e-3)
    # variance of a chain of n: mean²/n, and of a rectangle: width²/12
    spread = trapezoid(out * (t - 17.0) ** 2, t) / trapezoid(out, t)
    assert spread == pytest.approx(49.0 / 3 + 9.9**2 / 12, rel=5e-3)


def test_tissue_is_the_convolution_done_by_quadrature() -> None:
    t = sample_times(300.0)
    blood = t * np.exp(-t / 15.0) + 20.0 * (1.0 - np.exp(-t / 40.0))

    def analytic(s: float) -> float:
        return float(s * np.exp(-s / 15.0) + 20.0 * (1.0 - np.exp(-s / 40.0)))

    curve = tissue(0.6, 0.25, blood)
    for when in (7.0, 42.0, 130.0, 300.0):
        area, _ = quad(lambda s, end=when: analytic(s) * np.exp(-0.25 / 60 * (end - s)), 0.0, when, epsrel=1e-10)
        assert np.interp(when, t, curve) == pytest.approx(0.6 / 60 * area, rel=5e-5)


def test_the_usual_schedule() -> None:
    assert len(SCHEDULE) == 27
    assert [frame.duration_s for frame in SCHEDULE] == [5] * 14 + [10] * 6 + [20] * 3 + [30] * 3 + [90]
    assert [SCHEDULE[n].start_s for n in (0, 1, 14, 20, 23, 26)] == [0, 5, 70, 130, 190, 280]
    assert SCHEDULE[-1].end_s == 370.0
    assert schedule([(2, 3.0), (1, 4.0)]) == (Frame(0.0, 3.0), Frame(3.0, 3.0), Frame(6.0, 4.0))


def test_a_frame_holds_the_decays_it_saw() -> None:
    t = sample_times(200.0)
    frames = (Frame(0.0, 5.0), Frame(10.0, 90.0))
    growing = np.exp(0.01 * t)
    seen = frame_values(growing, frames, 76.38)
    for value, frame in zip(seen, frames, strict=True):
        a, b, rate = frame.start_s, frame.end_s, 0.01 - LAMBDA
        decays = (np.exp(rate * b) - np.exp(rate * a)) / rate
        without_change = (np.exp(-LAMBDA * a) - np.exp(-LAMBDA * b)) / LAMBDA
        assert value == pytest.approx(decays / without_change, rel=1e-6)
    mean = (np.exp(1.0) - np.exp(0.1)) / 0.01 / 90.0
    assert frame_values(growing, frames, None)[1] == pytest.approx(mean, rel=1e-6)
    assert frame_values(np.full_like(t, 3.0), frames, 76.38) == pytest.approx([3.0, 3.0])


def test_a_frame_after_the_end_of_a_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="ends after 60 s, a frame after 90 s"):
        frame_values(np.zeros(601), (Frame(0.0, 90.0),), None)


# --- blood -----------------------------------------------------------------------------------------------------------


def test_the_first_pass_has_the_area_dose_over_output() -> None:
    once = Circulation(6000.0, systemic_s=1e7)  # what leaves the left heart does not come back in time
    blood = once.blood(Bolus(9e8, 25.0), 370.0)
    for curve in (blood.right, blood.lung, blood.left):
        assert trapezoid(curve, dx=0.1) == pytest.approx(9e8 / 100.0, rel=1e-3)  # 6000 mL/min = 100 mL/s


def test_the_bolus_passes_right_heart_lungs_left_heart() -> None:
    blood = Circulation(5600.0).blood(Bolus(8e8, 15.0), 370.0)
    half = [np.argmax(curve > curve.max() / 2) * 0.1 for curve in (blood.right, blood.lung, blood.left)]
    assert half[0] + 1.0 < half[1] < half[2] - 1.0
    assert blood.left.min() >= 0.0
    late = blood.left[3000]
    assert 0.03 < late / blood.left.max() < 0.12  # blood has cleared, but recirculates


def test_no_activity_is_made_or_lost() -> None:
    flow = Circulation(5600.0)
    blood = flow.blood(Bolus(8e8, 20.0), 370.0)
    held = sum(o.reference_ml * tissue(o.k1, o.k1 / o.volume, blood.left) for o in (MYOCARDIUM, *ORGANS.values()))
    per_s = 5600.0 / 60.0
    vessels = per_s * (flow.right_s * blood.right + (flow.lung_s + flow.left_s) * blood.left)
    exchanged = sum(
        o.reference_ml * o.k1 / 60.0 * (tissue(o.k1, o.k1 / o.volume, blood.left) / o.volume - blood.left)
        for o in (MYOCARDIUM, *ORGANS.values())
    )
    leaving = per_s * blood.left + exchanged
    # late, all is slow: what is on its way back is the flow times the time of the way
    total = (held + vessels + flow.systemic_s * leaving)[-1]
    assert total == pytest.approx(8e8, rel=0.01)
    assert 0.8 < held[-1] / 8e8 < 0.95


def test_under_stress_the_bolus_is_faster_and_thinner() -> None:
    calm = Circulation(5600.0)
    first, second = (c.blood(Bolus(8e8, 10.0), 370.0).left for c in (calm, calm.under_stress()))
    assert second.argmax() < first.argmax()
    assert second.max() < first.max()


def test_the_dose_is_that_of_the_beginning_of_the_infusion() -> None:
    # 76.38 s after the start of the scan half is left
    assert Bolus(8e8, 20.0, 76.38).dose_bq == pytest.approx(4e8)


# --- the left ventricle ----------------------------------------------------------------------------------------------


def test_the_axes_of_a_known_ventricle_are_found(simple: Body) -> None:
    ventricle = LeftVentricle.of(simple)
    assert ventricle.axis @ AXIS > np.cos(np.radians(2.0))
    assert ventricle.septum @ TO_SEPTUM > np.cos(np.radians(2.0))
    assert ventricle.length_mm == pytest.approx(20.0 + 48.0, abs=4.0)
    assert np.linalg.norm(ventricle.base + 20.0 * AXIS) < 5.0
    frame = np.stack([ventricle.axis, ventricle.septum, ventricle.anterior])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize(
    ("along", "towards", "segment"),
    [
        (-10, "front", 1), (-10, "septum front", 2), (-10, "septum below", 3), (-10, "below", 4),
        (-10, "side below", 5), (-10, "side front", 6), (14, "front", 7), (14, "septum front", 8),
        (14, "septum below", 9), (14, "below", 10), (14, "side below", 11), (14, "side front", 12),
        (36, "front", 13), (36, "septum", 14), (36, "below", 15), (36, "side", 16), (53, "front", 17),
    ],
)  # fmt: skip
def test_segments_lie_where_the_heart_association_puts_them(
    simple: Body, along: float, towards: str, segment: int
) -> None:
    front = np.cross(TO_SEPTUM, AXIS)
    assert front @ (0.0, -1.0, 1.0) > 0.0  # towards the breast bone and the head
    ways = {"front": front, "below": -front, "septum": TO_SEPTUM, "side": -TO_SEPTUM}
    # in the rings of six, "septum front" is 30° from the septum
    weights = [np.cos(np.radians(30)), np.sin(np.radians(30))]
    direction = sum(w * ways[name] for w, name in zip(weights, towards.split(), strict=False))
    place = along * AXIS + 28.0 * direction / np.linalg.norm(direction) * (1.0 if along < 50 else 0.2)
    assert LeftVentricle.of(simple).segments(place[None])[0] == segment


def test_equal_parts_of_a_ring_have_equal_mass(rest: Course) -> None:
    mass = {n: entry["mass_g"] for n, entry in ((int(k), v) for k, v in truth(rest)["segments"].items())}
    for ring in (range(1, 7), range(7, 13), range(13, 17)):
        parts = np.array([mass[n] for n in ring])
        assert parts == pytest.approx(parts.mean(), rel=0.12)
    # half ellipsoids cut at −20 mm: π·a²·(z − z³/3c²) from −20 to c, of wall less that of the cavity
    volumes = [np.pi * a * a * (2 * c / 3 + 20 - 20**3 / (3 * c * c)) / 1000 for a, c in (WALL, ROOM)]
    assert sum(mass.values()) == pytest.approx(1.04 * (volumes[0] - volumes[1]), rel=0.02)


def test_each_segment_has_one_artery() -> None:
    assert sorted(number for segments in TERRITORIES.values() for number in segments) == list(range(1, 18))
    assert {SEGMENTS[n].split()[-1] for n in TERRITORIES["LCX"]} == {"inferolateral", "anterolateral", "lateral"}
    assert 17 in TERRITORIES["LAD"] and 10 in TERRITORIES["RCA"]


def test_the_heart_of_an_adult(adult: Body) -> None:
    ventricle = LeftVentricle.of(adult)
    assert ventricle.axis[0] > 0.35 and ventricle.axis[1] < -0.1 and ventricle.axis[2] < -0.1  # left, front, down
    assert ventricle.septum[0] < -0.3  # to the right
    wall = places(adult, T.MYOCARDIUM)
    labels = ventricle.segments(wall)
    apex, base = wall[labels == 17].mean(axis=0), wall[labels < 7].mean(axis=0)
    assert apex[0] > base[0] and apex[1] < base[1]
    septal, lateral = (wall[np.isin(labels, n)].mean(axis=0) for n in ((8, 9), (11, 12)))
    assert septal[0] < lateral[0]
    front, below = (wall[labels == n].mean(axis=0) for n in (7, 10))
    assert front[2] > below[2]
    share = np.bincount(labels, minlength=18)[1:] / len(labels)
    assert share.min() > 0.01 and share.max() < 0.16
    assert 80.0 < len(wall) * adult.voxel_ml * 1.04 < 210.0  # grams; upper normal limits of men reach 200


def test_veins_and_arteries_of_an_adult(adult: Body) -> None:
    blood, blue = places(adult, T.BLOOD), venous(adult)[adult.tissue == T.BLOOD]
    wide = adult.person.scale[0]
    behind = (blood[:, 1] > 38 * wide) & (blood[:, 0] > 8 * wide) & (blood[:, 0] < 40 * wide)
    assert behind.sum() > 20
    assert not blue[behind].any()  # the descending aorta
    chest = places(adult, T.RIGHT_VENTRICLE)[:, 2].mean()
    atrium = (blood[:, 0] < -30 * wide) & (np.abs(blood[:, 2] - chest) < 15) & (blood[:, 1] < 0)
    assert atrium.sum() > 10
    assert blue[atrium].mean() > 0.9
    assert 0.2 < blue.mean() < 0.8


def test_a_body_without_a_heart_is_refused() -> None:
    empty = heart_of_revolution(3.0, 8)
    with pytest.raises(ValueError, match="no heart"):
        course(empty, patient(), "rest", np.random.default_rng(1))


# --- perfusion -------------------------------------------------------------------------------------------------------


def flow_of(perfusion: Perfusion, body: Body, state: str) -> tuple[np.ndarray, np.ndarray]:
    wall = places(body, T.MYOCARDIUM)
    labels = LeftVentricle.of(body).segments(wall)
    return perfusion.flow(wall, labels, state), labels


def test_without_defects_a_segment_has_its_own_flow(simple: Body) -> None:
    factors = tuple(1.0 + 0.01 * n for n in range(17))
    flow, labels = flow_of(Perfusion({"rest": 0.8, "stress": 2.4}, factors), simple, "stress")
    assert flow == pytest.approx(2.4 * (1.0 + 0.01 * (labels - 1.0)))


def test_a_defect_takes_flow_from_its_surroundings_alone(simple: Body) -> None:
    reversible = Perfusion({"rest": 0.8, "stress": 2.4}, defects=(Defect(12, 20.0, 1.0, 0.4),))
    calm, labels = flow_of(reversible, simple, "rest")
    assert calm == pytest.approx(0.8)
    stressed, _ = flow_of(reversible, simple, "stress")
    middle = places(simple, T.MYOCARDIUM)[labels == 12].mean(axis=0)
    away = np.linalg.norm(places(simple, T.MYOCARDIUM) - middle, axis=1)
    assert stressed[away < 8.0] == pytest.approx(0.96, rel=0.02)  # 2.4 · 0.4
    assert stressed[np.abs(away - 20.0) < 0.3] == pytest.approx(2.4 * 0.7, rel=0.06)  # half of the loss
    assert stressed[away > 35.0] == pytest.approx(2.4, rel=0.01)
    assert reversible.defects[0].territory == "LCX"


def test_patients_are_within_the_ranges_and_differ() -> None:
    drawn = [Perfusion.draw(np.random.default_rng(seed)) for seed in range(400)]
    rest, stress = (np.array([p.mbf[state] for p in drawn]) for state in ("rest", "stress"))
    assert 0.6 <= rest.min() < 0.7 and 1.1 < rest.max() <= 1.2
    assert 1.8 <= stress.min() < 1.95 and 3.6 < stress.max() <= 4.0
    counts = np.bincount([len(p.defects) for p in drawn]) / 400
    assert counts == pytest.approx([0.4, 0.4, 0.2], abs=0.08)
    defects = [d for p in drawn for d in p.defects]
    assert all(d.stress < 1.0 and d.stress <= d.rest for d in defects)
    assert np.mean([d.rest == 1.0 for d in defects]) == pytest.approx(0.5, abs=0.1)
    assert {d.territory for d in defects} == {"LAD", "RCA", "LCX"}
    assert all(len({d.territory for d in p.defects}) == len(p.defects) for p in drawn)


# --- the course of a scan --------------------------------------------------------------------------------------------


def own_frames(curve: np.ndarray, frames: tuple[Frame, ...]) -> np.ndarray:
    """Decay-weighted frame means, by sums over a grid of 0.1 s."""
    t = np.arange(len(curve)) * 0.1
    means = []
    for frame in frames:
        inside = slice(round(frame.start_s * 10), round(frame.end_s * 10) + 1)
        weight = np.exp(-LAMBDA * t[inside])
        means.append(trapezoid(curve[inside] * weight) / trapezoid(weight))
    return np.array(means)


def own_model(blood: np.ndarray, k1: float, k2: float, share: float) -> np.ndarray:
    """(1 − V_b)·K1·e^(−k2·t) ⊗ C_a + V_b·C_a [per minute], by direct convolution."""
    t = np.arange(len(blood)) * 0.1
    response = np.convolve(np.exp(-k2 / 60.0 * t), blood)[: len(blood)] - 0.5 * (
        blood + blood[0] * np.exp(-k2 / 60.0 * t)
    )
    return (1.0 - share) * k1 / 60.0 * 0.1 * response + share * blood


def test_a_voxel_of_myocardium_follows_the_convolution(rest: Course) -> None:
    place = tuple(np.argwhere(rest.segments == 7)[5])
    seen = np.array([activity[place] for _, activity in activity_frames(rest)])
    # F = 0.9: K1 = 0.9·(1 − 0.77·e^−0.7) = 0.9·(1 − 0.77·0.4965853) = 0.5558664; per mL · 1.04; k2 = K1 / 2.6
    model = own_model(rest.blood.left, 0.5558664 * 1.04, 0.5558664 / 2.6, 0.12)
    np.testing.assert_allclose(seen, own_frames(model, SCHEDULE), rtol=2e-4, atol=1.0)


def test_the_parameters_are_fitted_back(simple: Body) -> None:
    stress = course(simple, patient(), "stress", np.random.default_rng(3))
    place = tuple(np.argwhere(stress.segments == 4)[0])
    seen = np.array([activity[place] for _, activity in activity_frames(stress)], float)

    def model(_: np.ndarray, k1: float, k2: float, share: float) -> np.ndarray:
        return own_frames(own_model(stress.blood.left, k1, k2, share), SCHEDULE)

    (k1, k2, share), _ = curve_fit(model, np.arange(27.0), seen, p0=(0.5, 0.1, 0.1))
    # F = 2.6: K1 = 2.6·(1 − 0.77·e^−0.2423077) = 2.6·(1 − 0.77·0.7848146) = 1.0288012
    assert k1 / 1.04 == pytest.approx(1.0288, rel=3e-3)
    assert k2 == pytest.approx(1.0288 / 2.6, rel=3e-3)
    assert share == pytest.approx(0.12, abs=2e-3)


def test_cavities_hold_the_blood_of_their_side(rest: Course) -> None:
    frames = list(activity_frames(rest))
    for name, curve in ((T.LEFT_VENTRICLE, rest.blood.left), (T.RIGHT_VENTRICLE, rest.blood.right)):
        inside = rest.body.tissue == name
        seen = np.array([activity[inside].mean() for _, activity in frames])
        np.testing.assert_allclose(seen, own_frames(curve, SCHEDULE), rtol=1e-4, atol=1.0)
        assert all(np.ptp(activity[inside]) == 0.0 for _, activity in frames)
    fat = rest.body.tissue == T.FAT
    assert np.std(frames[-1][1][fat]) / np.mean(frames[-1][1][fat]) == pytest.approx(0.08, abs=0.04)


def test_another_schedule(rest: Course) -> None:
    frames = schedule([(1, 60.0), (1, 120.0)])
    assert [frame for frame, _ in activity_frames(rest, frames)] == list(frames)


def test_the_same_seed_gives_the_same_bytes(simple: Body, rest: Course) -> None:
    one, two = (Patient.draw(PERSON, np.random.default_rng(9)) for _ in range(2))
    assert one == two
    assert one != Patient.draw(PERSON, np.random.default_rng(10))
    again = course(simple, patient(), "rest", np.random.default_rng(3))
    for (_, first), (_, second) in zip(activity_frames(rest), activity_frames(again), strict=True):
        assert first.tobytes() == second.tobytes()


def test_the_truth_is_the_mean_of_the_parameter(simple: Body) -> None:
    sick = Perfusion({"rest": 0.9, "stress": 2.6}, defects=(Defect(8, 22.0, 0.5, 0.3),))
    scan = course(simple, patient(perfusion=sick), "stress", np.random.default_rng(3))
    told = json.loads(json.dumps(truth(scan), allow_nan=False))
    segments, territories = told["segments"], told["territories"]
    for name, numbers in TERRITORIES.items():
        parts = [segments[str(n)] for n in numbers]
        mass = sum(part["mass_g"] for part in parts)
        for key in ("mbf_tissue", "k1_tissue", "k2_tissue"):
            mean = sum(part[key] * part["mass_g"] for part in parts) / mass
            assert territories[name][key] == pytest.approx(mean, rel=1e-4)
        assert territories[name]["mass_g"] == pytest.approx(mass, rel=1e-4)
    assert told["global_mbf"] == told["global"]["mbf_tissue"]
    assert territories["LAD"]["mbf_tissue"] < 0.85 * territories["LCX"]["mbf_tissue"]
    # the mean of K1 is not the K1 of the mean flow where the flow is uneven (K1 bends down)
    flow = territories["LAD"]["mbf_tissue"]
    assert territories["LAD"]["k1_tissue"] < flow * (1 - 0.77 * np.exp(-0.63 / flow)) - 0.002
    assert territories["LAD"]["k2_tissue"] == pytest.approx(territories["LAD"]["k1_tissue"] / 2.6, abs=1e-5)
    # voxels at the border of the wall hold other tissue
    assert all(0.6 < part["mbf"] / part["mbf_tissue"] < 1.0 for part in (*territories.values(), told["global"]))
    assert told["defects"] == [{"territory": "LAD", "segment": 8, "radius_mm": 22.0, "rest": 0.5, "stress": 0.3}]


def test_maps_keep_the_sum_and_say_which_segment(rest: Course) -> None:
    found = maps(rest)
    assert found.k1.shape == tuple(n // 2 for n in rest.regions.shape)
    wall = int((rest.segments > 0).sum())
    # every fine voxel has 0.9 mL/min/g, eight make one of the map's
    assert found.mbf.sum(dtype=float) * 8 == pytest.approx(0.9 * wall, rel=1e-5)
    assert found.k1.sum(dtype=float) * 8 == pytest.approx(0.5558664 * wall, rel=1e-5)
    assert found.k2[found.k2 > 0] == pytest.approx(0.5558664 / 2.6, rel=1e-5)
    assert set(np.unique(found.segments)) == set(range(18))
    assert (found.mbf[found.segments > 0] >= 0.45 - 1e-6).all()
    for z, y, x in np.argwhere(maps(rest).mbf > 0.0)[::17]:
        eight = rest.segments[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()
        counts = np.bincount(eight, minlength=18)[1:]
        if counts.sum() >= 4:
            assert counts[found.segments[z, y, x] - 1] == counts.max()
        else:
            assert found.segments[z, y, x] == 0


# --- frames on a scanner ---------------------------------------------------------------------------------------------

SMALL_SCANNER = Scanner(Geometry(24, 6.0, 32, 4.5, 24, 4), slice_mm=6.0, scatter_fraction=0.0, randoms_fraction=0.0)


def test_counts_follow_the_decays_of_the_activity(rest: Course) -> None:
    nothing = np.zeros(rest.regions.shape, np.float32)
    seen = cardiac(SMALL_SCANNER)
    inside = np.zeros(rest.regions.shape, bool)
    inside[8:-8, 10:-10, 10:-10] = True  # all of it well inside the circle and the slices
    scan = replace(rest, texture=np.where(inside, rest.texture, 0.0).astype(np.float32))
    weights = np.bincount(rest.regions.ravel(), weights=scan.texture.ravel(), minlength=len(rest.curves))
    total = weights @ rest.curves * 0.027  # Bq, voxels of 3 mm
    left = np.exp(-LAMBDA * np.arange(total.size) * 0.1)
    frames = list(expected_frames(scan, nothing, seen))
    assert [frame for frame, _ in frames] == list(SCHEDULE)
    for number in (1, 4, 9, 20, 26):
        frame, counts = frames[number]
        part = slice(round(frame.start_s * 10), round(frame.end_s * 10) + 1)
        decays = trapezoid((total * left)[part], dx=0.1)
        assert counts.counts == pytest.approx(0.06 * decays, rel=5e-3)


def test_combined_line_integrals_are_those_of_the_frame(rest: Course) -> None:
    scanner = replace(SMALL_SCANNER, scatter_fraction=0.3, randoms_fraction=0.3)
    water = np.full(rest.regions.shape, 0.0096, np.float32)
    combined = list(expected_frames(rest, water, scanner))
    for number, (frame, activity) in enumerate(activity_frames(rest)):
        if number in (0, 2, 6, 15, 26):
            alone = expected(activity, water, scanner, Timing(frame.duration_s, frame.start_s, HALF_LIFE_S))
            brightest = max(float(part.max()) for part in alone.prompts)
            for one, other in zip(combined[number][1].prompts, alone.prompts, strict=True):
                np.testing.assert_allclose(one, other, atol=max(1e-4 * brightest, 1e-6))


def test_a_reconstructed_frame_has_the_blood_of_its_cavity(simple: Body) -> None:
    """In Bq/mL at the start of the scan, four half-lives before the last frame."""
    strong = patient(bolus=Bolus(8e11, 20.0, 4.0))
    scan = course(simple, strong, "rest", np.random.default_rng(3))
    inside = np.zeros(scan.regions.shape, bool)
    inside[4:-4, 9:-9, 9:-9] = True  # what the circle of view holds for certain
    scan = replace(scan, texture=np.where(inside, scan.texture, 0.0).astype(np.float32))
    scanner = replace(SMALL_SCANNER, fwhm_mm=3.0)
    frames = schedule([(1, 30.0), (1, 15.0), (1, 240.0), (1, 60.0)])
    nothing = np.zeros(scan.regions.shape, np.float32)
    measured = measured_frames(scan, nothing, scanner, np.random.default_rng(8), frames=frames)
    told: list[float] = []
    images = reconstruct_frames(measured, scanner, Method(iterations=8, filter_fwhm_mm=0.0), told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert images.shape == (4, 24, 24, 24)
    total = np.bincount(scan.regions.ravel(), weights=scan.texture.ravel(), minlength=len(scan.curves)) @ scan.curves
    # voxels of 216 and of 27 mm³
    assert images.sum(axis=(1, 2, 3)) * 0.216 == pytest.approx(own_frames(total * 0.027, frames), rel=0.02)
    cavity = (simple.tissue == T.LEFT_VENTRICLE).reshape(24, 2, 24, 2, 24, 2).all(axis=(1, 3, 5))
    middle = cavity & np.roll(cavity, 1, 0) & np.roll(cavity, -1, 0) & np.roll(cavity, 1, 2) & np.roll(cavity, -1, 2)
    assert images[1][middle].mean() == pytest.approx(own_frames(scan.blood.left, frames)[1], rel=0.08)


def test_the_grid_of_the_chest_is_one_bed_about_the_heart() -> None:
    scanner = replace(SMALL_SCANNER, bed_slices=30)
    grid = chest_grid(PERSON, scanner)
    assert grid.shape == (60, 48, 48) and grid.step_mm == (3.0, 3.0, 3.0)
    assert grid.bottom_mm + 90.0 == pytest.approx(497.0 * PERSON.scale[2])
    assert cardiac(scanner).fwhm_mm == pytest.approx(np.sqrt(4.5**2 + 3.0**2))
