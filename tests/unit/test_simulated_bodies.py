"""Simulated bodies: what they are made of, where it lies, what it takes up, where lesions grow."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import label

from engines.simulation import lesions
from engines.simulation.anatomy import Body, Grid, Person, Tissue, build, heart_axis, whole_body
from engines.simulation.shapes import Column, Ellipsoid, Field, Spheroid, Tube
from engines.simulation.uptake import HU, UPTAKE, attenuation, ct_noise, hu_map, suv_map, tissue_values

T = Tissue
STEP, PIXELS = (6.0, 5.0, 5.0), 112
BRAIN = (T.GREY_MATTER, T.WHITE_MATTER, T.CEREBELLUM)
DENSITY = np.full(len(T), 1.05)
"""g/mL, rounded from ICRP publication 89: soft tissue 1.05, adipose 0.93, inflated lung 0.24, bone 1.15 to 1.6."""
for tissue, value in {
    T.AIR: 0.0, T.AIRWAY: 0.0, T.BOWEL_GAS: 0.0, T.LUNG: 0.24, T.FAT: 0.93, T.BREAST: 0.95, T.CORTICAL_BONE: 1.6,
    T.MARROW: 1.15, T.FATTY_MARROW: 1.0,
}.items():  # fmt: skip
    DENSITY[tissue] = value


@cache
def patient(seed: int, sex: str = "M", weight_kg: float = 0.0) -> Body:
    """A body of the reference height and weight of its sex (ICRP publication 89), or of another weight."""
    height, weight = (1.76, 73.0) if sex == "M" else (1.63, 60.0)
    person = Person.of(sex, height, weight_kg or weight)
    return build(person, whole_body(person, STEP, PIXELS, multiple=2), np.random.default_rng(seed))


@cache
def activity(seed: int, tracer: str) -> np.ndarray:
    """Uptake of `patient(seed)` without lesions, SUV."""
    suv = suv_map(patient(seed), tracer, np.random.default_rng(1))
    suv.setflags(write=False)
    return suv


def centre(body: Body, *tissues: Tissue) -> np.ndarray:
    """Mean place (x, y, z) [mm]."""
    z, y, x = np.nonzero(np.isin(body.tissue, tissues))
    axes = body.grid.axes
    return np.asarray([axes[2][x].mean(), axes[1][y].mean(), axes[0][z].mean()])


@pytest.mark.parametrize(
    ("tissues", "male_ml", "female_ml"),
    [
        # ICRP publication 89, table 2.8, masses of the reference adults [g] / density [g/mL]
        ((T.LIVER,), 1800 / 1.05, 1400 / 1.05),
        ((T.SPLEEN,), 150 / 1.06, 130 / 1.06),
        ((T.KIDNEY,), 310 / 1.05, 275 / 1.05),
        (BRAIN, 1450 / 1.04, 1300 / 1.04),
        ((T.LUNG, T.LUNG_VESSEL), 4300.0, 3300.0),  # gas and tissue while breathing quietly
        ((T.MYOCARDIUM,), 145 / 1.05, 115 / 1.05),  # 110 to 170 g
        ((T.LEFT_VENTRICLE,), 105.0, 85.0),  # 70 to 150 mL
        ((T.BOWEL, T.DUODENUM), 1000 / 1.05, 880 / 1.05),  # small bowel with what is in it
        ((T.COLON,), 670 / 1.05, 640 / 1.05),  # with what is in it
        ((T.PANCREAS,), 85.0, 75.0),  # 140 g and 120 g with their fat and vessels; in CT 70 to 90 mL
    ],
)
def test_organs_have_the_volumes_of_reference_adults(tissues, male_ml, female_ml):
    for sex, wanted in (("M", male_ml), ("F", female_ml)):
        volumes = [patient(seed, sex).volume_ml(*tissues) for seed in range(4)]
        assert np.mean(volumes) == pytest.approx(wanted, rel=0.25), (sex, volumes)
        assert max(volumes) < 2.2 * min(volumes), volumes


def test_bladders_are_full_and_empty():
    volumes = [patient(seed, sex).volume_ml(T.BLADDER) for seed in range(4) for sex in "MF"]
    assert min(volumes) > 75  # 100 to 350 mL, a quarter more or less
    assert max(volumes) < 440
    assert max(volumes) > 1.5 * min(volumes)


@pytest.mark.parametrize(("sex", "weight_kg"), [("M", 55), ("M", 73), ("M", 110), ("F", 47), ("F", 60), ("F", 95)])
def test_the_body_weighs_what_the_patient_weighs(sex, weight_kg):
    body = patient(1, sex, weight_kg)
    grams = (np.bincount(body.tissue.ravel(), minlength=len(T)) * DENSITY).sum() * body.voxel_ml
    # de Leva 1996: trunk, head, arms and half of the thighs hold three quarters of the mass
    assert grams / 1000 == pytest.approx(0.75 * weight_kg, rel=0.12)


def test_who_weighs_more_at_the_same_height_has_more_fat():
    fats = [patient(1, "M", weight).volume_ml(T.FAT) for weight in (55, 73, 110)]
    assert fats[1] > 1.5 * fats[0]
    assert fats[2] > 1.5 * fats[1]


@pytest.mark.parametrize("seed", range(4))
def test_left_and_right_are_not_mixed_up(seed):
    body = patient(seed, "MF"[seed % 2])
    spine, axes = centre(body, T.SPINAL_CORD)[0], body.grid.axes
    assert centre(body, T.LIVER)[0] < spine - 30  # x grows to the patient's left
    assert centre(body, T.GALLBLADDER)[0] < spine
    assert centre(body, T.SPLEEN)[0] > spine + 60
    assert centre(body, T.STOMACH)[0] > spine + 15
    apex, base = centre(body, T.MYOCARDIUM), centre(body, T.LEFT_VENTRICLE)
    assert apex[0] > spine + 10
    assert (apex - base) @ np.asarray(heart_axis()) > 2  # the apex is closed, the base is open
    assert centre(body, T.RIGHT_VENTRICLE)[0] < apex[0]
    assert centre(body, T.SPLEEN)[1] > centre(body, T.STOMACH)[1]  # y grows to the back
    slices = np.abs(axes[0] - centre(body, T.LEFT_VENTRICLE)[2] + 10) < 12
    behind = (body.tissue == T.BLOOD) & slices[:, None, None] & (axes[1] > 30)[None, :, None]
    assert axes[2][np.nonzero(behind)[2]].mean() > spine + 5  # the descending aorta runs left of the spine


def test_the_right_lung_is_larger_because_the_heart_lies_left():
    ratios = []
    for seed, sex in ((0, "M"), (1, "F"), (2, "M"), (3, "F"), (1, "M"), (2, "F")):
        body = patient(seed, sex)
        away = body.grid.axes[2][np.nonzero(body.tissue == T.LUNG)[2]] - centre(body, T.SPINAL_CORD)[0]
        ratios.append((away < 0).sum() / (away > 0).sum())
    assert 1.02 < np.mean(ratios) < 1.4, ratios  # 55 % to 45 %


def test_a_chest_is_as_wide_on_the_left_as_on_the_right():
    wider, lungs = [], []
    for seed in range(4):
        for sex in "MF":
            body = patient(seed, sex)
            z = body.grid.axes[0]
            heart = centre(body, T.LEFT_VENTRICLE)[2]
            below_the_arms = body.tissue[(z > heart - 70) & (z < heart + 70)]
            for voxels, ratios in ((below_the_arms != T.AIR, wider), (below_the_arms == T.LUNG, lungs)):
                middle = np.nonzero(below_the_arms == T.SPINAL_CORD)[2].mean()
                places = np.nonzero(voxels)[2]
                ratios.append(np.log((places > middle).sum() / (places < middle).sum()))
    assert abs(np.mean(wider)) < 0.04, wider
    assert np.mean(np.abs(wider)) < 0.06, wider
    assert np.std(lungs) < 0.12, lungs


def test_small_bowel_winds_all_ways_and_jejunum_lies_up_and_left():
    for seed in range(4):
        body = patient(seed, "MF"[seed % 2])
        bowel = np.isin(body.tissue, (T.BOWEL, T.DUODENUM))
        runs = []
        for axis, step in ((0, STEP[0]), (2, STEP[2])):
            begins = np.diff(bowel.astype(np.int8), axis=axis, prepend=0) == 1
            runs.append(step * bowel.sum() / begins.sum())  # mean length of a crossing [mm]
        assert 0.75 < runs[1] / runs[0] < 1.3, runs  # rows that lie across have 1.6
        jejunum, ileum = centre(body, T.DUODENUM), centre(body, T.BOWEL)
        assert jejunum[2] > ileum[2] + 15


def test_organs_lie_in_the_order_of_the_body():
    body = patient(2)
    order = [T.PROSTATE, T.BLADDER, T.BOWEL, T.PANCREAS, T.LIVER, T.LEFT_VENTRICLE, T.THYROID, T.SUBMANDIBULAR]
    heights = [centre(body, tissue)[2] for tissue in [*order, T.PAROTID, T.EYE]]
    assert heights == sorted(heights)
    assert centre(body, T.CEREBELLUM)[1] > centre(body, T.GREY_MATTER)[1]
    assert centre(body, T.EYE)[1] < centre(body, T.GREY_MATTER)[1]


def test_every_tissue_is_present_in_the_sex_it_belongs_to():
    missing = {sex: {t for t in T if not patient(3, sex).volume_ml(t)} for sex in "MF"}
    assert missing["M"] == {T.UTERUS, T.BREAST, T.PROSTHESIS}
    assert missing["F"] == {T.PROSTATE, T.TESTIS, T.PROSTHESIS}


def test_an_artificial_hip_is_metal_on_one_side():
    person = replace(patient(3).person, hip_prosthesis=True)
    body = build(person, Grid((40, PIXELS, PIXELS), STEP, 20.0), np.random.default_rng(3))
    assert body.volume_ml(T.PROSTHESIS) > 30
    assert centre(body, T.PROSTHESIS)[0] > 60
    assert hu_map(body, np.random.default_rng(0))[body.tissue == T.PROSTHESIS].mean() > 2000


def test_bone_is_hard_outside_and_marrow_inside():
    body = patient(1)
    for axis in range(3):
        tissue = np.moveaxis(body.tissue, axis, 0)
        beside = tissue[:-1][np.isin(tissue[1:], (T.MARROW, T.FATTY_MARROW))]
        assert np.isin(beside, (T.MARROW, T.FATTY_MARROW, T.CORTICAL_BONE)).all()


def test_no_organ_touches_the_air_around():
    body = patient(1)
    air = body.tissue == T.AIR
    for axis in (1, 2):
        for beside in (np.roll(body.tissue, step, axis=axis)[air] for step in (1, -1)):
            assert not np.isin(beside, (T.LIVER, T.LUNG, T.BLADDER, T.BLOOD, T.MYOCARDIUM)).any()
            assert np.isin(beside, (T.CORTICAL_BONE, T.MARROW)).sum() < 30  # of a million: bone shows through thin skin


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    person, grid = Person.draw(np.random.default_rng(5)), Grid((60, 90, 90), (6.0, 6.0, 6.0), 380.0)
    first, again, other = (build(person, grid, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert first.tissue.tobytes() == again.tissue.tobytes()
    assert first.tissue.tobytes() != other.tissue.tobytes()
    maps = [suv_map(first, "FDG", np.random.default_rng(1)).tobytes() for _ in range(2)]
    assert maps[0] == maps[1]
    spots = [lesions.place(first, "FDG", np.random.default_rng(2), negative=0.0) for _ in range(2)]
    assert spots[0] == spots[1]


@pytest.mark.parametrize("first", [22, 66], ids=["belly", "chest"])
def test_a_smaller_grid_sees_a_part_of_the_whole_body(first):
    whole = patient(4)
    bottom = whole.grid.bottom_mm + first * STEP[0]
    part = build(whole.person, Grid((36, PIXELS, PIXELS), STEP, bottom), np.random.default_rng(4))
    there = whole.tissue[first : first + 36]
    assert (part.tissue == there).mean() > 0.99
    for tissue in (T.MYOCARDIUM,) if first == 66 else (T.BOWEL, T.COLON):
        assert part.volume_ml(tissue) == pytest.approx((there == tissue).sum() * whole.voxel_ml, rel=0.02)


def test_arms_and_shoulders_fit_into_the_field_of_view():
    for body in (patient(1), patient(1, "M", 110), patient(1, "F", 95)):
        _, y, x = body.grid.axes
        outside = np.hypot(y[:, None], x[None, :]) > 264.0  # the narrowest scanner, 53 cm
        assert (body.tissue[:, outside] != T.AIR).sum() < 0.002 * (body.tissue != T.AIR).sum()


def test_arms_are_beside_the_head_or_beside_the_belly():
    up = patient(1)
    down = build(replace(up.person, arms_up=False), up.grid, np.random.default_rng(1))
    z, _, x = up.grid.axes
    head, waist = np.abs(z - centre(up, T.EYE)[2]) < 20, np.abs(z - centre(up, T.KIDNEY)[2]) < 20
    arms = np.abs(x) > 120
    for body, beside_head in ((up, True), (down, False)):
        assert (body.tissue[head][:, :, arms] > 0).any() == beside_head
    assert (down.tissue[waist][:, :, np.abs(x) > 190] > 0).any()


def test_a_drawn_person_is_an_adult_and_obesity_shifts_the_weight():
    rng = np.random.default_rng(0)
    people = [Person.draw(rng, prostheses=0.5) for _ in range(30)]
    heavy = [Person.draw(rng, obesity=7.0) for _ in range(30)]
    assert {person.sex for person in people} == {"F", "M"}
    assert all(1.4 < person.height_m < 2.0 and 35 < person.weight_kg < 170 for person in people)
    assert 5 <= sum(person.hip_prosthesis for person in people) <= 25
    indices = [np.mean([p.weight_kg / p.height_m**2 for p in group]) for group in (people, heavy)]
    assert indices[1] - indices[0] > 4.0


def test_attenuation_follows_carney():
    # Carney 2006, 120 kVp, per cm: below 47 HU 9.6e-5·(HU + 1000), above 5.10e-5·(HU + 1000) + 4.71e-2
    hu = np.asarray([-1000.0, -800.0, 0.0, 47.0, 48.0, 500.0, 1500.0, -1024.0], np.float32)
    per_cm = [0.0, 0.0192, 0.096, 0.100512, 0.100548, 0.1236, 0.1746, 0.0]
    assert attenuation(hu) * 10.0 == pytest.approx(per_cm, abs=2e-6)


@pytest.mark.parametrize("tracer", sorted(UPTAKE))
def test_uptake_has_the_mean_of_its_table(tracer):
    assert set(UPTAKE[tracer]) == set(T) == set(HU)
    draws = np.asarray([tissue_values(patient(0), tracer, np.random.default_rng(seed)) for seed in range(100)])
    for tissue in (T.LIVER, T.MUSCLE, T.SPLEEN, T.KIDNEY):
        mean, sd = UPTAKE[tracer][tissue]
        assert draws[:, tissue].mean() == pytest.approx(mean, abs=3.5 * sd / 10 + 0.06 * mean), tissue
        assert draws[:, tissue].std() > 0.6 * sd


@pytest.mark.parametrize("tracer", sorted(UPTAKE))
def test_an_activity_map_holds_what_its_tissues_hold(tracer):
    body, suv = patient(1), activity(1, tracer)
    values = tissue_values(body, tracer, np.random.default_rng(1))
    assert suv.dtype == np.float32
    assert suv.min() >= 0.0
    assert not suv[body.tissue == T.AIR].any()
    for tissue in (T.LIVER, T.MUSCLE, T.SPLEEN, T.KIDNEY):
        assert suv[body.tissue == tissue].mean() == pytest.approx(values[tissue], rel=0.06)
    assert suv.sum(dtype=np.float64) == pytest.approx(values[body.tissue].sum(dtype=np.float64), rel=0.05)


@pytest.mark.parametrize(
    ("tracer", "low", "high"),
    [
        ("FDG", 0.72, 0.92),  # after an hour, 10 to 20 % in the urine, of which a part is still in the bladder
        ("PSMA-11", 0.75, 0.92),  # the kidneys have passed on 10 to 20 %
        ("PSMA-1007", 0.82, 0.98),  # goes with the bile: 1 to 2 % in the urine within two hours
    ],
)
def test_what_has_not_left_with_the_urine_lies_in_the_body(tracer, low, high):
    shares = []
    for sex, weight in (("M", 55), ("M", 73), ("M", 110), *((("F", 60), ("F", 95)) if tracer == "FDG" else ())):
        body = patient(1, sex, weight)
        kg = np.bincount(body.tissue.ravel(), minlength=len(T)) * body.voxel_ml / 1000  # SUV counts per g; 1 mL is 1 g
        legs_kg = 0.25 * body.person.weight_kg
        for draw in range(60):
            suv = tissue_values(body, tracer, np.random.default_rng(draw))
            legs = legs_kg * (0.55 * suv[T.MUSCLE] + 0.33 * suv[T.FAT] + 0.12 * suv[T.CORTICAL_BONE])
            shares.append((kg @ suv + legs) / body.person.weight_kg)
    assert low < np.mean(shares) < high, np.mean(shares)
    assert np.percentile(shares, 95) < 1.0


def test_tracers_differ_where_readers_look():
    body = patient(0)
    mean = {tracer: tissue_values(body, tracer, np.random.default_rng(3)) for tracer in UPTAKE}
    assert mean["FDG"][T.GREY_MATTER] > 10 * mean["PSMA-11"][T.GREY_MATTER]
    assert mean["PSMA-11"][T.BLADDER] > 3 * mean["PSMA-1007"][T.BLADDER]
    assert mean["PSMA-1007"][T.LIVER] > 1.4 * mean["PSMA-11"][T.LIVER]
    assert mean["PSMA-11"][T.KIDNEY] > 2 * mean["PSMA-1007"][T.KIDNEY] > 4 * mean["FDG"][T.KIDNEY]


def test_the_fasted_heart_is_dark_and_the_fed_one_bright():
    body = patient(0)
    lean = (body.person.weight_kg / body.person.lean_kg / 1.38) ** 0.8
    values = [tissue_values(body, "FDG", np.random.default_rng(seed))[T.MYOCARDIUM] / lean for seed in range(400)]
    dark = np.asarray(values) < 3.2
    assert dark.mean() == pytest.approx(0.6, abs=0.08)  # three standard errors
    assert min(values) > 1.0
    assert np.median(np.asarray(values)[dark]) == pytest.approx(2.0, abs=0.15)
    assert np.median(np.asarray(values)[~dark]) == pytest.approx(8.0, abs=8.0 * abs(1 / lean - 1) + 1.0)


def test_blood_clears_and_brain_gathers_between_one_and_two_hours():
    body = patient(0)
    hour, two = (
        tissue_values(body, "FDG", np.random.default_rng(1), minutes=minutes).astype(float) for minutes in (60.0, 120.0)
    )
    ratio = two / np.where(hour > 0.0, hour, 1.0)
    assert ratio[T.BLOOD] == pytest.approx(2**-0.45, rel=1e-3)
    assert ratio[T.GREY_MATTER] == pytest.approx(2**0.15, rel=1e-3)
    assert ratio[T.MUSCLE] == pytest.approx(1.0, rel=1e-3)


def test_ct_shows_couch_contrast_and_more_noise_in_thicker_parts():
    body, rng = patient(1), np.random.default_rng(0)
    plain, bare = hu_map(body, np.random.default_rng(1)), hu_map(body, np.random.default_rng(1), couch=False)
    assert plain[body.tissue == T.FAT].mean() == pytest.approx(-100, abs=4)
    assert (bare[body.tissue == T.AIR] == -1000).all()
    y = np.nonzero((plain > -990) & (body.tissue == T.AIR))[1]
    assert y.min() > np.percentile(np.nonzero(body.tissue != T.AIR)[1], 50)  # under the back, never above
    dyed = hu_map(body, np.random.default_rng(1), contrast=True)
    assert (dyed - plain)[body.tissue == T.BLOOD].mean() == pytest.approx(120, abs=1)
    noise = ct_noise(plain, body.grid, rng) - plain
    lung_height, hip_height = centre(body, T.THYROID)[2], centre(body, T.BLADDER)[2]
    sd = [noise[np.abs(body.grid.axes[0] - height) < 15].std() for height in (lung_height + 60, hip_height)]
    assert sd[1] > 1.5 * sd[0]
    assert abs(noise.mean()) < 0.5


def test_spheroid_has_the_volume_of_a_cut_ellipsoid():
    axis = heart_axis()
    z, y, x = np.meshgrid(*[np.arange(-80, 80, 1.0, dtype=np.float32)] * 3, indexing="ij")
    inside = Spheroid((0, 0, 0), axis, 60, 35, 20).depth(x, y, z) < 0
    # π b² (2/3 a + h − h³ / (3 a²)) = π · 1225 · (40 + 20 − 8000 / 10800)
    assert inside.sum() == pytest.approx(np.pi * 1225 * (40 + 20 - 8000 / 10800), rel=0.01)


def test_depth_of_simple_shapes_is_the_distance():
    x, y, z = (np.asarray([v], np.float32) for v in (10.0, 0.0, 0.0))
    assert Ellipsoid((0, 0, 0), (4, 4, 4)).depth(x, y, z) == pytest.approx(6.0)
    assert Tube(((0, 0, -5), (0, 0, 5)), (3, 3)).depth(x, y, z) == pytest.approx(7.0)
    assert Column((-9, 0, 9), ((4, 4),) * 3, ((0, 0),) * 3, 2.0).depth(x, y, z) == pytest.approx(6.0)
    assert Column((-9, 0, 9), ((4, 4),) * 3, ((0, 0),) * 3, 2.0).edge(np.pi / 2, 0.0) == pytest.approx((4, 0, 0))


def test_a_field_has_unit_spread_and_is_the_same_on_every_grid():
    field = Field.draw(((0, 0, 0), (200, 200, 200)), 20.0, np.random.default_rng(0))
    axis = np.arange(5.0, 195.0, 2.0, dtype=np.float32)
    values = field.at(axis, axis, axis)
    assert values.std() == pytest.approx(1.0, abs=0.12)
    assert field.at(axis[10:20], axis[::3], axis) == pytest.approx(values[10:20, ::3], abs=1e-5)


@cache
def placed(tracer: str, seed: int) -> tuple[Body, tuple[lesions.Spot, ...]]:
    body = patient(seed % 3)
    return body, lesions.place(body, tracer, np.random.default_rng(seed), negative=0.0)


@pytest.mark.parametrize("tracer", ["FDG", "PSMA-11"])
@pytest.mark.parametrize("seed", range(5))
def test_lesions_lie_in_the_right_tissue_and_their_table_is_true(tracer, seed):
    body, spots = placed(tracer, seed)
    clean = activity(seed % 3, tracer)  # read-only
    suv, labels = lesions.paint(spots, body, clean)
    assert spots
    assert (suv[labels == 0] == clean[labels == 0]).all()
    assert labels.max() == len(spots)
    for number, spot in enumerate(spots, 1):
        mask = labels == number
        assert mask.sum() * body.voxel_ml == pytest.approx(spot.volume_ml)
        assert label(mask)[1] == 1
        assert set(np.unique(body.tissue[mask])) <= lesions.GROWS_IN[spot.kind]
        assert not np.isin(body.tissue[mask], (T.BLADDER, *BRAIN, T.KIDNEY, T.SKIN, T.LEFT_VENTRICLE)).any()
        alive = suv[mask & (suv > 0.5 * spot.suv)] if spot.necrotic else suv[mask]
        assert alive.mean() == pytest.approx(spot.suv, rel=0.45)
        assert spot.suv > 1.4 * UPTAKE[tracer][T.BLOOD][0]


def test_lesions_are_solid_on_ct():
    body, spots = next(
        (body, spots)
        for body, spots in (placed("FDG", seed) for seed in range(12))
        if any(s.kind == "lung" for s in spots)
    )
    clean = hu_map(body, np.random.default_rng(1))
    _, labels = lesions.paint(spots, body, np.zeros(body.tissue.shape, np.float32))
    hu = lesions.paint_hu(spots, labels, clean)
    number = 1 + [spot.kind for spot in spots].index("lung")
    assert clean[labels == number].mean() < -400
    assert (hu[labels == number] > 0).all()
    assert (hu[labels == 0] == clean[labels == 0]).all()


def test_psma_lesions_are_more_and_smaller_than_those_of_fdg():
    counts, volumes = {}, {}
    for tracer in ("FDG", "PSMA-11"):
        found = [placed(tracer, seed)[1] for seed in range(16)]
        counts[tracer] = np.mean([len(spots) for spots in found])
        volumes[tracer] = np.asarray([spot.volume_ml for spots in found for spot in spots])
    assert counts["PSMA-11"] > 1.3 * counts["FDG"]
    assert 2.5 < np.median(volumes["FDG"]) < 9.0
    assert 0.4 < np.median(volumes["PSMA-11"]) < 1.2
    assert np.percentile(volumes["FDG"], 95) > 15.0


def test_a_quarter_of_patients_has_no_lesion():
    body = patient(0)
    none = [not lesions.place(body, "FDG", np.random.default_rng(seed), mean_count=1.0) for seed in range(80)]
    assert 0.12 < np.mean(none) < 0.38  # 20 ± 4


def test_women_have_no_prostate_to_grow_in():
    body = patient(0, "F")
    kinds = {
        s.kind for seed in range(6) for s in lesions.place(body, "PSMA-11", np.random.default_rng(seed), negative=0.0)
    }
    assert "prostate" not in kinds


def test_lesions_outside_a_small_grid_are_left_out():
    body = patient(0)
    chest = build(body.person, Grid((40, PIXELS, PIXELS), STEP, 420.0), np.random.default_rng(0))
    for seed in range(6):
        for spot in lesions.place(chest, "FDG", np.random.default_rng(seed), negative=0.0):
            assert 420.0 <= spot.centre_mm[2] <= 660.0
