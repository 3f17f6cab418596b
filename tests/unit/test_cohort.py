"""Cohorts: whom they hold, that nothing leaks, that what is kept on disk is what was made, that they stay as frozen.

The hospital of most tests has voxels of 22 mm: a study takes a second.
"""

import json
import shutil
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter

from engines.contract import DynamicVolume, LabelMap, Quantity, Volume
from engines.errors import EngineError
from engines.simulation import cohort as cohorts
from engines.simulation import lesions, packed
from engines.simulation.anatomy import Body, Grid, Tissue, build
from engines.simulation.cohort import COHORTS, FIRST_HOSPITAL, SECOND_HOSPITAL, Cohort, ForEvaluationOnly, UnknownCohort
from engines.simulation.measurement import Scanner
from engines.simulation.packed import Example
from engines.simulation.person import Person
from engines.simulation.projector import Geometry
from engines.simulation.reconstruction import Method
from engines.simulation.source import modules, source_sha256
from engines.simulation.study import Kind, Site
from engines.simulation.uptake import UPTAKE

GEOMETRY = Geometry(pixels=24, pixel_mm=22.0, bins=32, bin_mm=16.5, angles=12, subsets=4)
COARSE = Site(scanner=Scanner(GEOMETRY, slice_mm=20.0), method=Method(iterations=1, filter_fwhm_mm=20.0))
SIMULATION = Path(cohorts.__file__).parent


def coarse(kind: Kind = "fdg", seeds: range = range(3, 5), **more: object) -> Cohort:
    return Cohort("coarse", (kind,), seeds, replace(COARSE, **more))


@cache
def made() -> tuple[Example, Example]:
    one, other = coarse().studies()
    return one, other


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds two studies; tests copy it."""
    folder = tmp_path_factory.mktemp("shelf")
    assert len(list(coarse().studies(folder))) == 2
    return folder


def same(one: Example, other: Example) -> None:
    """Every bit of two studies."""
    assert (one.kind, one.seed, one.facts) == (other.kind, other.seed, other.facts)
    for mine, theirs in ((one.volumes, other.volumes), (one.labels, other.labels)):
        assert list(mine) == list(theirs)
        for name in mine:
            assert mine[name].array.dtype == theirs[name].array.dtype
            assert mine[name].array.tobytes() == theirs[name].array.tobytes()
            assert mine[name].affine.tobytes() == theirs[name].affine.tobytes()
    assert {name: each.names for name, each in one.labels.items()} == {n: e.names for n, e in other.labels.items()}


# whom they hold


def test_no_patient_is_in_two_cohorts_of_whatever_tracer():
    for one, other in combinations(COHORTS.values(), 2):
        assert not set(one.seeds) & set(other.seeds), (one.name, other.name)


def test_every_tracer_has_four_cohorts_and_the_first_is_the_largest():
    assert set(COHORTS) == {
        f"{family}-{part}"
        for family in ("fdg", "psma", "lowcount", "nac", "rb82")
        for part in ("train", "tune", "test", "shift")
    }
    for family in ("fdg", "psma", "lowcount", "nac", "rb82"):
        sizes = {part: len(COHORTS[f"{family}-{part}"].seeds) for part in ("train", "tune", "test", "shift")}
        assert sizes["train"] > sizes["test"] > sizes["tune"] > 0
        assert sizes["shift"] > 0
    assert COHORTS["rb82-test"].kinds == ("rb82-rest", "rb82-stress")


def test_the_second_hospital_differs_in_all_that_hospitals_differ_in():
    def traits(site: Site) -> dict[str, object]:
        scanner, method = site.scanner, site.method
        return {
            "resolution": scanner.fwhm_mm,
            "pixel": scanner.geometry.pixel_mm,
            "slice": scanner.slice_mm,
            "time of flight": scanner.geometry.tof_fwhm_ps,
            "iterations": method.iterations,
            "filter": method.filter_fwhm_mm,
            "resolution modelling": method.psf_fwhm_mm,
            "dynamic": site.rb82_method,
            "bed": site.bed_s,
            "uptake": site.uptake_min[0],
            "obesity": site.obesity,
            "prostheses": site.prostheses,
            **site.activity_mbq_kg,
        }

    first, second = traits(FIRST_HOSPITAL), traits(SECOND_HOSPITAL)
    assert [name for name in first if first[name] == second[name]] == []
    for name, each in COHORTS.items():
        assert each.site == (SECOND_HOSPITAL if name.endswith("shift") else FIRST_HOSPITAL)


@pytest.mark.parametrize("name", COHORTS)
def test_test_and_shift_are_read_for_evaluation_only(name):
    chosen = cohorts.cohort(name)
    if name.endswith(("-test", "-shift")):
        with pytest.raises(ForEvaluationOnly, match=name) as refused:
            chosen.studies()  # nothing is made before the refusal
        assert "for_evaluation=True" in refused.value.hint
    chosen.studies(for_evaluation=True)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UnknownCohort, match=r"fdg-train.*got fdg-training"):
        cohorts.cohort("fdg-training")


# what engines get


def test_a_case_has_its_truth_on_the_grid_of_the_pet_and_a_finer_ct():
    example = made()[0]
    case = example.case
    pet, ct = case.volumes["pet"], case.volumes["ct"]
    assert list(case.volumes) == ["pet", "ct"]
    assert case.group == "seed 3"
    assert case.truth.array.shape == pet.array.shape == example.labels["organs"].array.shape
    assert case.truth.affine.tobytes() == pet.affine.tobytes()
    assert ct.array.shape == (len(pet.array), *(2 * n for n in pet.array.shape[1:]))
    assert ct.spacing_mm == pytest.approx((pet.spacing_mm[0], pet.spacing_mm[1] / 2, pet.spacing_mm[2] / 2))
    assert case.truth.array.max() == len(example.facts["lesions"]) > 0
    assert (pet.quantity, ct.quantity) == (Quantity.SUVBW, Quantity.HU)


def test_denoising_and_correction_come_with_the_image_that_should_result():
    (low,) = replace(coarse("lowcount"), share=0.05).studies(patients=1)
    (uncorrected,) = coarse("nac").studies(patients=1)
    full = made()[0]
    assert list(low.case.volumes) == ["pet", "ct", "reference"]
    assert list(uncorrected.case.volumes) == ["pet", "reference"]
    assert low.facts["count_fraction"] == 0.05
    for example in (low, uncorrected):
        assert example.volumes["reference"].array.tobytes() == full.volumes["pet"].array.tobytes()
        assert np.abs(example.volumes["pet"].array - full.volumes["pet"].array).max() > 0.1


def test_a_dynamic_study_is_no_case():
    image = np.zeros((2, 3, 4, 5), np.float32)
    frames = DynamicVolume(image, np.eye(4), Quantity.ACTIVITY_BQML, np.arange(2.0), np.ones(2))
    with pytest.raises(ValueError, match="expected a static study, got rb82-rest"):
        _ = Example("rb82-rest", 1, {"dynamic": frames}, {}, {}).case


# what is kept on disk


def test_a_study_from_disk_is_the_one_that_was_made(shelf: Path):
    kept = list(coarse().studies(shelf))
    assert [each.seed for each in kept] == [3, 4]
    for one, other in zip(made(), kept, strict=True):
        same(one, other)


def test_what_was_broken_off_goes_on_where_it_was(shelf: Path, tmp_path: Path):
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("*4.*"):
        path.unlink()
    first, told = sorted(tmp_path.rglob("*3.*")), list[tuple[str, float]]()
    written = [path.stat().st_mtime_ns for path in first]
    assert [path.suffix for path in first] == [".json", ".npz"]
    one, other = coarse().studies(tmp_path, lambda *what: told.append(what))
    same(one, made()[0])
    same(other, made()[1])
    assert [path.stat().st_mtime_ns for path in first] == written
    assert told == [("fdg 3", 0.0), ("fdg 4", 0.5), ("coarse", 1.0)]
    assert sorted(path.suffix for path in tmp_path.rglob("*4.*")) == [".json", ".npz"]
    assert not list(tmp_path.rglob("*.part"))


def test_nothing_is_made_that_is_not_asked_for(tmp_path: Path):
    assert list(coarse().studies(tmp_path, patients=0)) == []
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97, None])
def test_half_a_study_is_none(shelf: Path, tmp_path: Path, suffix: str, share: float | None):
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.rglob(f"*3{suffix}")
    assert packed.read(path.with_suffix("")) is not None
    content = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(content[: int(share * len(content))])
    assert packed.read(path.with_suffix("")) is None


def test_a_flipped_bit_is_noticed(shelf: Path, tmp_path: Path):
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.rglob("*3.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert packed.read(path.with_suffix("")) is None


def test_a_damaged_study_is_made_again(shelf: Path, tmp_path: Path):
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.rglob("*3.npz")
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    (again,) = coarse().studies(tmp_path, patients=1)
    same(made()[0], again)
    assert len(path.read_bytes()) == len(content)


def test_another_hospital_or_share_lies_in_another_folder():
    one = coarse("lowcount")
    names = [one.sha256, replace(one, share=0.1).sha256, coarse("lowcount", obesity=1.0).sha256]
    scanner = replace(COARSE.scanner, fwhm_mm=4.6)
    assert len({*names, coarse("lowcount", scanner=scanner).sha256, coarse("lowcount", range(3, 6)).sha256}) == 5
    assert coarse("lowcount").sha256 == one.sha256


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        packed.write(tmp_path / "fdg-1", {"pet": np.asarray([{}], object)}, {})
    assert list(tmp_path.iterdir()) == []


def test_no_pickle_is_ever_read(tmp_path: Path):
    np.savez(tmp_path / "fdg-1.npz", pet=np.asarray([{}], object))
    rest = {"kind": "fdg", "seed": 1, "volumes": {"pet": "suvbw"}, "labels": {}, "facts": {}}
    (tmp_path / "fdg-1.json").write_text(json.dumps(rest))
    assert packed.read(tmp_path / "fdg-1") is None


VALUES = st.floats(-1e3, 1e6, width=32)


@given(arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=VALUES))
def test_rounding_costs_at_most_half_a_step_of_the_range(array):
    volume = Volume(array, np.eye(4), Quantity.SUVBW)
    example = Example("fdg", 1, {"pet": volume}, {}, {})
    back = packed.unpacked(*packed.packed(example)).volumes["pet"].array
    span = float(array.max()) - float(array.min())
    assert np.abs(back.astype(np.float64) - array).max() <= span / 131070 + 1e-6 * np.abs(array).max()
    if array.min() == 0.0:
        assert (back[array == 0.0] == 0.0).all()


@given(arrays(np.int16, (3, 4, 5), elements=st.integers(-1024, 3071)))
def test_hounsfield_units_are_kept_exactly(numbers):
    volume = Volume(numbers.astype(np.float32), np.eye(4), Quantity.HU)
    back = packed.unpacked(*packed.packed(Example("fdg", 1, {"ct": volume}, {}, {})))
    assert (back.volumes["ct"].array == numbers).all()


def test_every_frame_has_a_step_of_its_own_and_times_stay():
    frames = np.stack([scale * np.linspace(0.0, 1.0, 60).reshape(3, 4, 5) for scale in (1e6, 1.0)]).astype(np.float32)
    starts, lasting = np.asarray([-3.5, 10.0]), np.asarray([5.0, 90.0])
    volume = DynamicVolume(frames, np.diag([2.0, 3.0, 4.0, 1.0]), Quantity.ACTIVITY_BQML, starts, lasting)
    labels = {"segments": LabelMap(np.full((3, 4, 5), 17, np.uint16), np.eye(4), {17: "apex"})}
    example = Example("rb82-rest", 1, {"dynamic": volume}, labels, {"global_mbf": 0.9})
    parts, rest = packed.packed(example)
    back = packed.unpacked(parts, json.loads(json.dumps(rest)))
    assert np.abs(back.volumes["dynamic"].array - frames).max(axis=(1, 2, 3)) == pytest.approx([0, 0], abs=8.0)
    assert np.abs(back.volumes["dynamic"].array[1] - frames[1]).max() < 1e-5
    assert back.volumes["dynamic"].frame_start_s.tolist() == starts.tolist()
    assert back.volumes["dynamic"].frame_duration_s.tolist() == lasting.tolist()
    assert back.labels["segments"].names == {17: "apex"}


# how hard they are


@cache
def chest() -> Body:
    person = Person.of("M", 1.76, 73.0)
    return build(person, Grid((60, 96, 96), (5.0, 5.0, 5.0), 380.0), np.random.default_rng(1))


@cache
def diseases() -> tuple[tuple[lesions.Spot, ...], ...]:
    """Lesions of the chest, of patients who have several."""
    found = [
        lesions.place(chest(), "FDG", np.random.default_rng(seed), mean_count=8.0, negative=0.0) for seed in range(40)
    ]
    return tuple(spots for spots in found if len(spots) > 2)


def test_lesions_of_a_patient_are_more_alike_than_those_of_two():
    uptake = [np.log([spot.suv for spot in spots]) for spots in diseases()]
    within = np.sqrt(np.mean([each.var(ddof=1) for each in uptake]))
    between = np.std([each.mean() for each in uptake], ddof=1)
    assert between > 1.1 * within
    assert 0.3 < between < 0.7  # 0.5 is drawn, less what the least contrast takes away


def test_the_first_lesion_is_usually_the_largest():
    firsts = np.median([spots[0].volume_ml for spots in diseases()])
    others = np.median([spot.volume_ml for spots in diseases() for spot in spots[1:]])
    assert firsts > 4.0 * others


def test_large_lesions_are_uneven_and_the_mean_of_what_lives_is_in_the_table():
    spreads: dict[bool, list[float]] = {True: [], False: []}
    for spots in diseases():
        suv, labels = lesions.paint(spots, chest(), np.zeros(chest().tissue.shape, np.float32))
        for number, spot in enumerate(spots, 1):
            values = suv[labels == number].astype(np.float64)
            if not spot.necrotic:
                assert values.mean() == pytest.approx(spot.suv, rel=1e-4)
                if len(values) > 30:
                    spreads[spot.volume_ml > 40.0].append(float(np.log(values).std()))
    assert 0.08 < np.mean(spreads[False]) < 0.3
    assert np.mean(spreads[True]) > np.mean(spreads[False]) + 0.07


@pytest.mark.parametrize("volume_ml", [0.1, 0.7, 5.0])
def test_the_middle_of_a_ball_shows_what_a_blurred_ball_shows(volume_ml: float):
    radius, step = (volume_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3), 0.5
    axis = np.arange(-40, 41) * step
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2
    blurred = gaussian_filter(ball.astype(float), lesions.SEEN_FWHM_MM / 2.3548 / step)
    assert lesions.recovery(volume_ml) == pytest.approx(blurred[40, 40, 40], abs=0.01)


@pytest.mark.parametrize("tracer", ["FDG", "PSMA-11"])
def test_every_lesion_would_be_seen(tracer):
    for seed in range(10):
        for spot in lesions.place(chest(), tracer, np.random.default_rng(seed), negative=0.0):
            home = UPTAKE[tracer][Tissue.LIVER if spot.kind == "liver" else Tissue.BLOOD][0]
            wanted_ml = 4.0 / 3.0 * np.pi * spot.radius_mm**3 / 1000.0
            assert spot.suv * lesions.recovery(wanted_ml) > 1.29 * home


# that they stay as frozen


def test_the_simulator_is_the_frozen_one():
    assert cohorts.changes() == [], "\n".join(cohorts.changes())


@pytest.mark.parametrize("name", ["fdg-tune", "rb82-tune"])
def test_a_first_patient_has_the_frozen_numbers(name):
    assert cohorts.deviations(name) == []


def test_other_numbers_of_a_first_patient_are_found(tmp_path: Path):
    kept = cohorts.frozen()
    kept["cohorts"]["rb82-tune"]["first_patient"]["rb82-rest global_mbf"] *= 1.02
    path = tmp_path / "cohorts.json"
    path.write_text(json.dumps(kept))
    assert [line.split(": ")[:2] for line in cohorts.deviations("rb82-tune", path)] == [
        ["rb82-tune, first patient", "rb82-rest global_mbf"]
    ]


def test_a_changed_simulator_or_definition_is_found_and_the_hint_says_what_to_do(tmp_path: Path):
    kept = cohorts.frozen()
    kept["simulator_sha256"] = "0" * 64
    kept["cohorts"]["fdg-tune"]["definition_sha256"] = "0" * 64
    kept["cohorts"]["fdg-old"] = kept["cohorts"].pop("psma-tune")
    path = tmp_path / "cohorts.json"
    path.write_text(json.dumps(kept))
    found = cohorts.changes(path)
    assert len(found) == 4
    assert all("raise VERSION" in line and "--freeze" in line for line in found)
    for said in (
        "simulator is not the frozen one",
        "fdg-old is gone",
        "psma-tune is new",
        "fdg-tune is not defined as",
    ):
        assert any(said in line for line in found)


def test_a_version_is_not_frozen_twice_with_two_simulators(tmp_path: Path):
    path = tmp_path / "cohorts.json"
    path.write_text(json.dumps(cohorts.frozen() | {"simulator_sha256": "0" * 64}))
    before = path.read_bytes()
    with pytest.raises(EngineError, match="version 1 is frozen") as refused:
        cohorts.freeze(lambda _: None, path)
    assert "--amend" in refused.value.hint
    assert path.read_bytes() == before


def test_remarks_and_layout_do_not_make_another_simulator_and_a_number_does(tmp_path: Path):
    copy = shutil.copytree(SIMULATION, tmp_path / "copy")
    module = copy / "lesions.py"
    text, before = module.read_text(), source_sha256(copy)
    remarks = text.replace('"""One lesion.', '"""A lesion!').replace("LEAST_ML = 0.1", "LEAST_ML  =  .10  # or so")
    assert remarks != text
    module.write_text("# a remark\n" + remarks)
    (copy / "phantom.py").write_text("changed = True")
    assert source_sha256(copy) == before
    module.write_text(text.replace("LEAST_ML = 0.1", "LEAST_ML = 0.11"))
    assert source_sha256(copy) != before


def test_the_simulator_is_what_makes_studies_and_no_more():
    names = {path.stem for path in modules(SIMULATION)}
    assert {"study", "truth", "anatomy", "lesions", "uptake", "kinetics", "measurement", "reconstruction"} <= names
    assert not names & {"cohort", "packed", "source", "phantom"}


def test_the_numbers_of_a_first_patient_are_those_of_the_study():
    cohort = coarse()
    facts, numbers = made()[0].facts, cohort.first_patient()
    assert numbers["activity_in_view_bq"] == pytest.approx(facts["activity_in_view_bq"], abs=1.0)
    assert numbers["lesion_ml"] == pytest.approx([row["volume_ml"] for row in facts["lesions"]], abs=1e-3)
