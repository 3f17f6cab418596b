"""The threshold engine: its methods on images whose answer is known, its refusals, its parameters."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.accuracy import threshold_sarcoma
from benchmarks.machine import RESULTS
from engines.contract import Acquisition, Case, LabelMap, Measurement, Products, Quantity, Volume
from engines.errors import BadParameters, CannotProcess, Stopped, UnknownEngine
from engines.registry import ENGINES, engine
from engines.simulation import phantom
from engines.simulation.phantom import Body, Plan
from engines.threshold_segmentation.evaluate import evaluate
from engines.threshold_segmentation.liver import find_liver

AXIAL_4MM = np.array([[0, 0, 4.0, 0], [0, 4.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
PERCIST_HALF_BODY = {"pet_field_of_view_mm": (300.0, 600.0, 600.0), "ct_field_of_view_mm": (300.0, 500.0, 500.0)}


def never() -> bool:
    return False


def pet_of(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.float32), AXIAL_4MM, Quantity.SUVBW)


def row(*suv: float) -> Volume:
    """One row of voxels in a cold body, far enough from the edges for the peak sphere."""
    array = np.zeros((7, 7, len(suv) + 4))
    array[3, 3, 2:-2] = suv
    return pet_of(array)


def segment(pet: Volume, ct: Volume | None = None, **parameters: object) -> Products:
    volumes = {"pet": pet} if ct is None else {"pet": pet, "ct": ct}
    return engine("threshold_segmentation")(volumes, {"min_volume_ml": 0.0, **parameters}, never)


def labels_of_row(products: Products) -> list[int]:
    assert products.label_map is not None
    return products.label_map.array[3, 3, 2:-2].tolist()


def measured(products: Products, name: str) -> float:
    return next(measurement.value for measurement in products.measurements if measurement.name == name)


BODY = Plan(3, (113, 100, 100), (113, 128, 128))


@cache
def body(plan: Plan = BODY) -> Acquisition:
    return phantom.simulate(plan)


# --- fixed -----------------------------------------------------------------------------------------------------------


def test_fixed_includes_the_threshold_itself() -> None:
    products = segment(row(3.9, 4.0, 4.1, 0, 0, 9.0), threshold_suv=4.0)
    assert labels_of_row(products) == [0, 1, 1, 0, 0, 2]
    assert products.label_map is not None
    assert products.label_map.names == {1: "Lesion 1", 2: "Lesion 2"}
    assert [lesion.suv_max for lesion in products.lesions] == pytest.approx([4.1, 9.0])


def test_regions_below_the_smallest_volume_are_dropped() -> None:
    # 0.5 mL are 7.8 voxels of 0.064 mL: eight stay, seven go.
    suv = [9.0] * 8 + [0.0] + [9.0] * 7
    assert labels_of_row(segment(row(*suv), min_volume_ml=0.5)) == [1] * 8 + [0] * 8


def test_nothing_above_the_threshold_is_a_result_without_label_map() -> None:
    products = segment(row(1.0, 2.0))
    assert products.label_map is None
    assert products.lesions == ()
    assert (measured(products, "MTV"), measured(products, "TLG")) == (0.0, 0.0)


def test_every_result_warns_of_physiological_uptake_and_names_its_method() -> None:
    for pet in (row(9.0), row(1.0)):
        products = segment(pet, threshold_suv=2.5, connectivity=18)
        assert any("Physiological uptake" in warning for warning in products.warnings)
        assert products.method == "SUV ≥ 2.5; 18-connected, at least 0 mL"
        assert Measurement("threshold", 2.5, "g/ml{SUVbw}") in products.measurements


# --- percent of the own maximum --------------------------------------------------------------------------------------


def test_percent_uses_each_hot_spots_own_maximum() -> None:
    # 41 % of 20 = 8.2; of 10 = 4.1. A common threshold of 8.2 would lose most of the second.
    products = segment(row(3, 8, 9, 20, 8.3, 3, 0, 4, 4.2, 10, 5, 3), method="percent")
    assert labels_of_row(products) == [0, 0, 1, 1, 1, 0, 0, 0, 2, 2, 2, 0]


def test_percent_finds_a_weak_lesion_beside_a_hot_organ_of_the_same_component() -> None:
    # All ≥ 2.5. Bladder 40: threshold 16.4. Node 10: threshold 4.1, the valley of 3 lies below it.
    products = segment(row(3, 20, 40, 20, 3, 5, 10, 5, 3), method="percent")
    assert labels_of_row(products) == [0, 1, 1, 1, 0, 2, 2, 2, 0]


def test_percent_keeps_the_part_of_one_uptake_that_reaches_the_threshold_of_its_maximum() -> None:
    # 10 has threshold 4.1 and the valley 3.9 is below. 9 has threshold 3.69, which the valley exceeds: it belongs to
    # the same uptake and is cut at 4.1. The shoulder of 4 beside it has no part above 4.1.
    products = segment(row(10, 5, 3.9, 9, 5, 3.9, 4, 3.9), method="percent")
    assert labels_of_row(products) == [1, 1, 0, 2, 2, 0, 0, 0]


def test_percent_takes_no_rim_of_a_hot_spot_for_a_lesion() -> None:
    # Noise on the slope: 5 is a local maximum below 8.2, connected to 20 above its own 41 %.
    assert labels_of_row(segment(row(3, 5, 4.5, 9, 20, 9), method="percent")) == [0, 0, 0, 1, 1, 1]


def test_percent_never_goes_below_its_seed() -> None:
    # 41 % of 4 = 1.64: the neighbours of 2 would be taken without the floor of 2.5.
    assert labels_of_row(segment(row(2, 2.6, 4, 2.6, 2), method="percent")) == [0, 1, 1, 1, 0]


def test_percent_stops_when_asked() -> None:
    with pytest.raises(Stopped):
        engine("threshold_segmentation")({"pet": row(9.0)}, {"method": "percent"}, lambda: True)


# --- PERCIST ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_ct", [True, False])
def test_percist_takes_its_threshold_from_the_liver(with_ct: bool) -> None:
    scan = body()
    assert scan.pet is not None
    products = segment(scan.pet, scan.ct if with_ct else None, method="percist")
    mean, sd = measured(products, "liver mean"), measured(products, "liver SD")
    assert mean == pytest.approx(2.2, abs=0.1)  # the phantom's liver
    assert measured(products, "threshold") == pytest.approx(1.5 * mean + 2.0 * sd)
    assert any(("PET alone" in warning) is not with_ct for warning in products.warnings if "Liver" in warning)
    assert products.label_map is not None
    assert scan.truth is not None
    found = products.label_map.array > 0
    for label in scan.truth.names:
        assert found[scan.truth.array == label].mean() > 0.6, "a lesion of SUV 6 or more was missed"


def test_the_liver_is_found_where_the_phantom_has_it_and_away_from_a_metastasis() -> None:
    liver = next(part for part in phantom.ANATOMY if part.name == "liver")
    for seed in (0, 1, 2):
        scan = body(Plan(seed, (113, 100, 100), (113, 128, 128), lesions=8))
        assert scan.pet is not None
        voi = find_liver(scan.pet, scan.ct)
        offset = (np.array(voi.centre_mm) - liver.centre_mm) / (np.array(liver.semi_axes_mm) - 15.0)
        assert (offset**2).sum() <= 1.0, "the sphere leaves the liver"
        assert voi.centre_mm[0] < 0.0, "the right lobe lies at negative x"
        assert voi.mean_suv == pytest.approx(2.2, abs=0.1)


def test_the_liver_does_not_depend_on_the_direction_of_the_axes() -> None:
    scan = body()
    assert scan.pet is not None
    pet = scan.pet
    affine = pet.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (pet.array.shape[0] - 1) + affine[:3, 2] * (pet.array.shape[2] - 1)
    affine[:3, [0, 2]] *= -1.0
    turned = Volume(np.ascontiguousarray(pet.array[::-1, :, ::-1]), affine, pet.quantity)
    assert find_liver(turned, scan.ct).centre_mm == pytest.approx(find_liver(pet, scan.ct).centre_mm, abs=1e-6)


def changed(name: str, **fields: object) -> tuple[Body, ...]:
    return tuple(replace(part, **fields) if part.name == name else part for part in phantom.ANATOMY)


MASS = Body("even mass in the right thigh", (-80, 0, 80), (80, 80, 80), 45.0, 2.2)
MIRRORED = tuple(replace(part, centre_mm=(-part.centre_mm[0], *part.centre_mm[1:])) for part in phantom.ANATOMY)
HALF = Plan(1, (75, 100, 100), (75, 128, 128), **PERCIST_HALF_BODY)
NO_LIVER = {
    "legs only": (HALF, phantom.ANATOMY),
    "legs with an even tumour": (HALF, (*phantom.ANATOMY, MASS)),
    "thorax and head": (replace(HALF, bottom_mm=580.0), phantom.ANATOMY),
    "no uptake in the liver": (Plan(1, (113, 100, 100), (113, 128, 128)), changed("liver", suv=0.3)),
    "liver full of disease": (Plan(1, (113, 100, 100), (113, 128, 128)), changed("liver", suv=8.0)),
    "situs inversus": (Plan(1, (113, 100, 100), (113, 128, 128)), MIRRORED),
    "too few counts": (Plan(1, (113, 100, 100), (113, 128, 128), counts=5e4), phantom.ANATOMY),
    "too coarse": (Plan(1, (30, 32, 32), (30, 64, 64)), phantom.ANATOMY),
}


@pytest.mark.parametrize("with_ct", [True, False])
@pytest.mark.parametrize("case", NO_LIVER)
def test_percist_refuses_without_a_trustworthy_liver(case: str, with_ct: bool) -> None:
    plan, anatomy = NO_LIVER[case]
    scan = phantom.simulate(plan, anatomy)
    assert scan.pet is not None
    with pytest.raises(CannotProcess, match="PERCIST needs a reference in the liver") as refusal:
        segment(scan.pet, scan.ct if with_ct else None, method="percist")
    assert refusal.value.code == "no-liver"
    assert "fixed or percent" in refusal.value.hint


def test_a_tumour_as_even_as_liver_is_told_apart_by_the_missing_lung() -> None:
    scan = phantom.simulate(*NO_LIVER["legs with an even tumour"])
    assert scan.pet is not None
    with pytest.raises(CannotProcess, match="no lung above"):
        find_liver(scan.pet, scan.ct)


def test_a_body_cut_off_at_the_side_has_no_midline_and_no_liver() -> None:
    scan = body()
    assert scan.pet is not None
    affine = scan.pet.affine.copy()
    affine[:3, 3] += 32 * affine[:3, 2]  # from x = −105 mm: the liver up to its lateral third is in view
    cut = Volume(np.ascontiguousarray(scan.pet.array[:, :, 32:]), affine, Quantity.SUVBW)
    for ct in (scan.ct, None):
        with pytest.raises(CannotProcess, match="right of a midline"):
            find_liver(cut, ct)


def test_percist_drops_what_is_too_small_to_reach_the_threshold_with_its_peak() -> None:
    scan = body()
    assert scan.pet is not None
    array = scan.pet.array.copy()
    array[5, 3, 3] = 9.0  # one hot voxel in the air: maximum above, 1 mL mean below the threshold
    fixed = segment(Volume(array, scan.pet.affine, scan.pet.quantity), threshold_suv=4.0)
    percist = segment(Volume(array, scan.pet.affine, scan.pet.quantity), scan.ct, method="percist")
    assert any(lesion.voxels == 1 and lesion.suv_max == 9.0 for lesion in fixed.lesions)
    assert not any(lesion.suv_max == 9.0 and lesion.voxels == 1 for lesion in percist.lesions)
    threshold = measured(percist, "threshold")
    assert all(lesion.suv_peak is None or lesion.suv_peak >= threshold for lesion in percist.lesions)


def test_a_liver_outside_the_expected_range_is_pointed_out() -> None:
    scan = phantom.simulate(Plan(1, (113, 100, 100), (113, 128, 128)), changed("liver", suv=3.6))
    assert scan.pet is not None
    products = segment(scan.pet, scan.ct, method="percist")
    assert any("outside 1.3 to 3" in warning for warning in products.warnings)


# --- inputs and parameters -------------------------------------------------------------------------------------------


def test_inputs_that_are_not_what_the_slot_says_are_refused() -> None:
    good = row(9.0)
    hu = Volume(good.array, good.affine, Quantity.HU)
    nan = pet_of(np.full((3, 3, 3), np.nan))
    for volumes, code in (
        ({}, "missing-input"),
        ({"pet": hu}, "wrong-quantity"),
        ({"pet": good, "ct": good}, "wrong-quantity"),
        ({"pet": nan}, "not-finite"),
    ):
        with pytest.raises(CannotProcess) as refusal:
            engine("threshold_segmentation")(volumes, {}, never)
        assert refusal.value.code == code


def test_check_names_every_fault_at_once() -> None:
    faults = engine("threshold_segmentation").check(
        {
            "method": "otsu",
            "threshold_suv": -1,
            "percent": "41",
            "seed_suv": float("nan"),
            "min_volume_ml": True,
            "connectivity": 6,
            "max_lesions": 70000,
            "treshold": 4,
        }
    )
    named = [fault.partition(":")[0] for fault in faults]
    assert sorted(named) == sorted(
        ["method", "threshold_suv", "percent", "seed_suv", "min_volume_ml", "connectivity", "max_lesions", "treshold"]
    )
    assert all("expected" in fault for fault in faults)
    assert "method: expected one of fixed, percent, percist, got 'otsu'" in faults


@pytest.mark.parametrize("good", [{}, {"method": "percent", "percent": 50}, {"max_lesions": 1}, {"min_volume_ml": 0}])
def test_check_accepts_what_can_be_used(good: dict) -> None:
    assert engine("threshold_segmentation").check(good) == []


@pytest.mark.parametrize("value", [[18], {"a": 1}, None, 2.5, True])
def test_check_survives_any_json(value: object) -> None:
    tool = engine("threshold_segmentation")
    for name in tool.defaults:
        assert isinstance(tool.check({name: value}), list)
    assert tool.check({"connectivity": value})
    assert tool.check({"method": value})


def test_the_defaults_pass_their_own_check() -> None:
    tool = engine("threshold_segmentation")
    assert tool.check(tool.defaults) == []


def test_bad_parameters_stop_the_call_too() -> None:
    with pytest.raises(BadParameters, match="percent: expected a number from 1 to 99, got 100"):
        segment(row(9.0), percent=100)


def test_an_unknown_engine_is_answered_with_the_names_and_the_nearest() -> None:
    with pytest.raises(UnknownEngine, match=r"threshold_segmentation; did you mean threshold_segmentation\?"):
        engine("treshold_segmentation")
    with pytest.raises(UnknownEngine, match=r"expected one of .*threshold_segmentation$"):
        engine("xyz")


def test_engines_carry_the_name_they_are_listed_under() -> None:
    assert all(make().name == name for name, make in ENGINES.items())


def test_checking_a_rule_imports_no_scipy() -> None:
    script = (
        "import sys; from engines.registry import engine; e = engine('threshold_segmentation');"
        "e.check({'method': 'x'}); e.inputs; print('scipy' in sys.modules, 'skimage' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluate_scores_everything_found_and_the_chosen_lesion() -> None:
    pet = row(9, 9, 9, 0, 8, 8)
    truth = np.zeros(pet.array.shape, dtype=np.uint16)
    truth[3, 3, 2:4] = 1
    case = Case({"pet": pet}, LabelMap(truth, pet.affine, {1: "GTV"}), "P1")
    (score,) = evaluate(engine("threshold_segmentation"), [case], {"min_volume_ml": 0.0}, never)
    assert score.dice == pytest.approx(4 / 7)  # 2·2 / (5 + 2)
    assert score.dice_chosen == pytest.approx(4 / 5)  # 2·2 / (3 + 2)
    assert score.false_positive_ml == pytest.approx(0.128)
    assert score.false_negative_ml == 0.0
    assert score.mtv is not None
    assert score.mtv.absolute_ml == pytest.approx(0.192)  # 5 − 2 voxels
    assert score.refusal is None


def test_evaluate_scores_zero_where_nothing_overlaps_and_counts_refusals() -> None:
    pet = row(9, 0, 0, 0, 0, 1)
    truth = np.zeros(pet.array.shape, dtype=np.uint16)
    truth[3, 3, 7] = 1
    case = Case({"pet": pet}, LabelMap(truth, pet.affine, {1: "GTV"}), "P1")
    tool = engine("threshold_segmentation")
    (missed,) = evaluate(tool, [case], {"min_volume_ml": 0.0}, never)
    (empty,) = evaluate(tool, [case], {"threshold_suv": 50}, never)
    (refused,) = evaluate(tool, [case], {"method": "percist"}, never)
    assert (missed.dice, missed.dice_chosen, missed.false_negative_ml) == (0.0, 0.0, pytest.approx(0.064))
    assert (empty.dice, empty.dice_chosen) == (0.0, 0.0)
    assert (refused.refusal, refused.dice, refused.mtv) == ("no-liver", None, None)


def test_evaluate_needs_a_truth() -> None:
    with pytest.raises(ValueError, match="expected a truth"):
        list(evaluate(engine("threshold_segmentation"), [Case({"pet": row(9)}, None, "P1")], {}, never))


def test_the_readme_shows_the_measured_numbers() -> None:
    result = json.loads((RESULTS / "threshold_sarcoma.json").read_text())
    assert threshold_sarcoma.table(result) in threshold_sarcoma.README.read_text()


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fixed", "percent", "percist"])
def test_a_whole_body_takes_less_than_two_seconds_of_one_core(method: str) -> None:
    scan = body(Plan(1, (300, 200, 200), counts=None))
    assert scan.pet is not None
    before = time.process_time()
    products = engine("threshold_segmentation")({"pet": scan.pet}, {"method": method}, never)
    assert time.process_time() - before < 2.0
    assert len(products.lesions) >= 5
