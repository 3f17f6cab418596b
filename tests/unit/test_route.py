"""Routing: what the rules say about studies, slot by slot and answer by answer."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import pytest

from config import settings
from config.conditions import Answer
from config.load import load, parse_rules
from config.rules import Rule
from daemon.route import SERIES_MAX, Decision, covers, decide, run_tests

PET: dict[str, Any] = {
    "id": 1,
    "received": "2026-03-02T09:40:00+00:00",
    "modality": "PT",
    "kind": "static",
    "tracer": "FDG",
    "attenuation_corrected": True,
    "weight_kg": 70.0,
    "complete": True,
    "frame_of_reference_uid": "1.2.3",
    "z_range_mm": [0.0, 900.0],
    "spacing_mm": [3.0, 4.0, 4.0],
    "slices": 301,
}
CT: dict[str, Any] = {
    "id": 2,
    "received": "2026-03-02T09:30:00+00:00",
    "modality": "CT",
    "kind": "static",
    "complete": True,
    "frame_of_reference_uid": "1.2.3",
    "z_range_mm": [-5.0, 905.0],
    "spacing_mm": [2.0, 1.0, 1.0],
    "slices": 456,
}
RULE: dict[str, Any] = {
    "name": "fdg",
    "engine": "e",
    "when": {"tracer": "FDG"},
    "inputs": {
        "pet": {"modality": "PT", "kind": "static", "attenuation_corrected": True},
        "ct": {"modality": "CT", "pairs_with": "pet"},
    },
}
PET_ONLY = {"pet": {"modality": "PT", "kind": "static", "attenuation_corrected": True}}
OPTIONAL_CT = {**PET_ONLY, "ct": {"modality": "CT", "pairs_with": "pet", "optional": True}}


def rule_of(**changes: Any) -> Rule:
    (rule,) = parse_rules(json.dumps([{**RULE, **changes}]), destinations=[])
    return rule


def judge(*series: dict[str, Any], settled: bool = True, **changes: Any) -> Decision:
    (decision,) = decide([rule_of(**changes)], {"series": list(series), "settled": settled})
    return decision


def said(decision: Decision) -> tuple[str, bool, list[dict[str, Any]]]:
    return decision.verdict.value, decision.pending, list(decision.inputs)


def clause(decision: Decision, text: str, series: int | None) -> tuple[Any, str]:
    (found,) = [each for each in decision.clauses if each["clause"] == text and each["series"] == series]
    return found["got"], found["answer"].value


class TestConditions:
    def test_yes(self) -> None:
        decision = judge(PET, CT)
        assert said(decision) == ("yes", False, [{"pet": 1, "ct": 2}])
        assert decision.reason == ""
        assert decision.rule == "fdg"

    def test_one_definite_no_is_no(self) -> None:
        decision = judge({**PET, "tracer": None, "attenuation_corrected": False}, CT)
        assert said(decision) == ("no", False, [])
        assert decision.reason == "no series fits pet"

    @pytest.mark.parametrize("fact", ["tracer", "attenuation_corrected", "kind", "modality"])
    @pytest.mark.parametrize("missing", [True, False])
    def test_a_missing_fact_is_unknown(self, fact: str, missing: bool) -> None:
        pet = {key: value for key, value in PET.items() if key != fact} if missing else {**PET, fact: None}
        decision = judge(pet, CT)
        assert said(decision) == ("unknown", False, [{"pet": 1, "ct": 2}])
        assert decision.reason.startswith(f"unknown: pet.{fact} = ")

    def test_every_clause_is_answered_even_after_a_no(self) -> None:
        decision = judge({**PET, "tracer": "PSMA-11", "kind": None}, CT)
        assert clause(decision, "pet.tracer = FDG", 1) == ("PSMA-11", "no")
        assert clause(decision, "pet.kind = static", 1) == (None, "unknown")
        assert clause(decision, "pet.attenuation_corrected = yes", 1) == (True, "yes")
        assert clause(decision, "pet.modality = PT", 2) == ("CT", "no")
        assert clause(decision, "ct.modality = CT", 1) == ("PT", "no")
        assert clause(decision, "pet.produced_by = nobody", 1) == ("nobody", "yes")
        assert clause(decision, "pet is complete, else hold", 1) == (True, "yes")

    def test_decisions_are_json(self) -> None:
        decision = judge(PET, CT)
        stored = json.loads(json.dumps([list(decision.clauses), list(decision.inputs), decision.verdict]))
        assert stored == [list(decision.clauses), list(decision.inputs), "yes"]

    def test_long_facts_are_cut_in_clauses(self) -> None:
        decision = judge({**PET, "tracer": "x" * 5000}, CT)
        assert clause(decision, "pet.tracer = FDG", 1) == ("x" * 128, "no")

    def test_no_uid_is_repeated(self) -> None:
        series = [{**PET, "series_uid": "1.2.840.1", "frame_of_reference_uid": "1.2.840.2"}, CT]
        assert "1.2.840" not in repr(judge(*series))

    def test_rules_are_judged_one_by_one(self) -> None:
        rules = [rule_of(name="b", when={"tracer": "PSMA-11"}), rule_of(name="a")]
        decisions = decide(rules, {"series": [PET, CT], "settled": True})
        assert [(each.rule, each.verdict.value) for each in decisions] == [("b", "no"), ("a", "yes")]

    def test_a_study_without_series(self) -> None:
        assert said(judge()) == ("no", False, [])
        assert said(judge(settled=False)) == ("unknown", True, [])


class TestOurOwnSeries:
    OURS: ClassVar = {**PET, "id": 9, "produced_by": "lowcount_denoising", "received": "2026-03-02T10:00:00+00:00"}

    def test_are_not_taken(self) -> None:
        decision = judge(self.OURS, PET, CT)
        assert said(decision) == ("yes", False, [{"pet": 1, "ct": 2}])
        assert clause(decision, "pet.produced_by = nobody", 9) == ("lowcount_denoising", "no")
        assert said(judge(self.OURS, CT))[0] == "no"

    def test_are_not_taken_for_other_slots(self) -> None:
        assert said(judge(PET, {**CT, "produced_by": "x"}, incomplete="drop"))[0] == "no"

    @pytest.mark.parametrize("where", ["when", "inputs"])
    def test_are_taken_by_name(self, where: str) -> None:
        asked = {"produced_by": "lowcount_denoising"}
        changes: dict[str, Any] = (
            {"when": asked} if where == "when" else {"inputs": {"pet": {"modality": "PT", **asked}}}
        )
        decision = judge(self.OURS, PET, CT, **{"inputs": PET_ONLY, **changes})
        assert said(decision) == ("yes", False, [{"pet": 9}])
        assert said(judge(PET, CT, **{"inputs": PET_ONLY, **changes}))[0] == "no"

    def test_received_ones_beside_them(self) -> None:
        either = {"pet": {"modality": "PT", "produced_by": ["nobody", "lowcount_denoising"]}}
        assert said(judge(self.OURS, inputs=either))[0] == "yes"
        assert said(judge(PET, inputs=either))[0] == "yes"
        assert said(judge({**self.OURS, "produced_by": "other"}, inputs=either))[0] == "no"


class TestPairing:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "yes"),
            ({"frame_of_reference_uid": "9"}, "no"),
            ({"frame_of_reference_uid": None}, "unknown"),
            ({"frame_of_reference_uid": ""}, "unknown"),
            ({"z_range_mm": None}, "no"),  # no regular grid
            ({"frame_of_reference_uid": "9", "z_range_mm": None}, "no"),
            ({"z_range_mm": [1.5, 898.5]}, "yes"),  # half of a PET slice of 3 mm
            ({"z_range_mm": [1.6, 905.0]}, "no"),
            ({"z_range_mm": [-5.0, 898.4]}, "no"),
            ({"frame_of_reference_uid": None, "z_range_mm": [500.0, 905.0]}, "no"),
        ],
    )
    def test_a_ct_pairs(self, changes: dict[str, Any], expected: str) -> None:
        assert said(judge(PET, {**CT, **changes}, incomplete="drop"))[0] == expected

    def test_no_ct_is_asked_for_another_frame_of_reference(self) -> None:
        decision = judge(PET, {**CT, "frame_of_reference_uid": "9"})
        assert clause(decision, "ct shares the frame of reference of pet", 2) == ("another", "no")
        assert clause(decision, "ct covers pet to half a slice", 2) == ([-5.0, 905.0], "yes")
        assert clause(decision, "ct that pairs with pet, for this pet", 1) == (None, "unknown")

    def test_without_spacing_only_full_cover_is_sure(self) -> None:
        pet = {key: value for key, value in PET.items() if key != "spacing_mm"}
        assert covers(CT, pet) is Answer.YES
        assert covers({**CT, "z_range_mm": [1.0, 905.0]}, pet) is Answer.UNKNOWN

    def test_without_a_range_nothing_is_sure(self) -> None:
        ct, pet = ({key: value for key, value in facts.items() if key != "z_range_mm"} for facts in (CT, PET))
        assert covers(ct, PET) is Answer.UNKNOWN
        assert covers(CT, pet) is Answer.UNKNOWN
        assert covers(CT, {**PET, "z_range_mm": None}) is Answer.UNKNOWN

    def test_a_localizer_is_not_waited_for(self) -> None:
        localizer = {**CT, "id": 8, "z_range_mm": None, "spacing_mm": None, "slices": 1}
        assert said(judge(localizer, PET, CT, settled=False)) == ("yes", False, [{"pet": 1, "ct": 2}])

    def test_slice_normals(self) -> None:
        def facing(x: float, y: float, z: float) -> list[list[float]]:
            return [[x, 0, 1, 0], [y, 1, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1]]

        pet = {**PET, "z_range_mm": [0.0, 100.0], "affine": facing(0, 0, 3)}
        ct = {**CT, "z_range_mm": [-2.0, 120.0]}
        assert covers({**ct, "affine": facing(0, 0, 2)}, pet) is Answer.YES
        # Seen from the feet the same slices lie at −120 … 2 mm.
        assert covers({**ct, "affine": facing(0, 0, -2)}, pet) is Answer.NO
        assert covers({**ct, "z_range_mm": [-120.0, 2.0], "affine": facing(0, 0, -2)}, pet) is Answer.YES
        assert covers({**ct, "affine": facing(0, 1, 2)}, pet) is Answer.UNKNOWN

    def test_each_pet_gets_its_own_ct(self) -> None:
        other_pet = {**PET, "id": 3, "frame_of_reference_uid": "9"}
        other_ct = {**CT, "id": 4, "frame_of_reference_uid": "9"}
        decision = judge(PET, CT, other_pet, other_ct, choose="all")
        assert said(decision) == ("yes", False, [{"pet": 1, "ct": 2}, {"pet": 3, "ct": 4}])

    def test_a_sure_ct_is_preferred_to_a_newer_unsure_one(self) -> None:
        unsure = {**CT, "id": 5, "frame_of_reference_uid": None, "received": "2026-03-02T12:00:00+00:00"}
        assert said(judge(PET, CT, unsure)) == ("yes", False, [{"pet": 1, "ct": 2}])

    def test_inputs_that_need_not_pair(self) -> None:
        inputs = {
            "rest": {"modality": "PT", "kind": "dynamic", "series_description": {"matches": "(?i)rest"}},
            "stress": {"modality": "PT", "kind": "dynamic", "series_description": {"matches": "(?i)stress"}},
        }
        rest = {**PET, "kind": "dynamic", "series_description": "Rb REST", "frame_of_reference_uid": "1"}
        stress = {**rest, "id": 7, "series_description": "Rb STRESS", "frame_of_reference_uid": "2"}
        assert said(judge(rest, stress, when={}, inputs=inputs)) == ("yes", False, [{"rest": 1, "stress": 7}])

    def test_one_series_does_not_fill_two_slots(self) -> None:
        inputs = {"rest": {"modality": "PT"}, "stress": {"modality": "PT"}}
        decision = judge(PET, when={}, inputs=inputs)
        assert said(decision) == ("unknown", False, [{"rest": 1}])
        decision = judge(PET, {**PET, "id": 3}, when={}, inputs=inputs, choose="all")
        assert said(decision) == ("yes", False, [{"rest": 1, "stress": 3}, {"rest": 3, "stress": 1}])


class TestMissingInputs:
    @pytest.mark.parametrize(("incomplete", "verdict"), [("drop", "no"), ("hold", "unknown"), ("run", "unknown")])
    def test_of_a_settled_study(self, incomplete: str, verdict: str) -> None:
        decision = judge(PET, incomplete=incomplete)
        assert (decision.verdict.value, decision.pending) == (verdict, False)
        assert decision.reason == "no ct that pairs with pet arrived"
        assert list(decision.inputs) == ([] if verdict == "no" else [{"pet": 1}])

    def test_before_it_settled(self) -> None:
        decision = judge(PET, settled=False, incomplete="drop")
        assert (decision.verdict.value, decision.pending) == ("unknown", True)
        assert decision.reason == "no ct that pairs with pet has arrived yet"
        decision = judge(CT, settled=False)
        assert (decision.verdict.value, decision.pending) == ("unknown", True)
        assert decision.reason == "no series fits pet yet"

    def test_a_study_is_not_settled_unless_it_says_so(self) -> None:
        (decision,) = decide([rule_of()], {"series": [PET]})
        assert decision.pending

    def test_of_the_first_input_is_no_matter_the_policy(self) -> None:
        for incomplete in ("run", "hold", "drop"):
            assert said(judge(CT, incomplete=incomplete)) == ("no", False, [])

    def test_optional_ones(self) -> None:
        assert said(judge(PET, inputs=OPTIONAL_CT)) == ("yes", False, [{"pet": 1}])
        assert said(judge(PET, CT, inputs=OPTIONAL_CT)) == ("yes", False, [{"pet": 1, "ct": 2}])
        assert said(judge(PET, {**CT, "frame_of_reference_uid": "9"}, inputs=OPTIONAL_CT)) == (
            "yes",
            False,
            [{"pet": 1}],
        )

    def test_an_unsure_optional_one_is_left_out(self) -> None:
        decision = judge(PET, {**CT, "frame_of_reference_uid": None}, inputs=OPTIONAL_CT)
        assert said(decision) == ("yes", False, [{"pet": 1}])
        assert clause(decision, "ct shares the frame of reference of pet", 2) == (None, "unknown")

    def test_optional_ones_are_waited_for(self) -> None:
        assert said(judge(PET, settled=False, inputs=OPTIONAL_CT))[:2] == ("unknown", True)
        assert said(judge(PET, CT, settled=False, inputs=OPTIONAL_CT)) == ("yes", False, [{"pet": 1, "ct": 2}])


class TestIncompleteSeries:
    @pytest.mark.parametrize("complete", [False, None])
    @pytest.mark.parametrize(("incomplete", "verdict"), [("run", "yes"), ("hold", "unknown"), ("drop", "no")])
    def test_of_a_settled_study(self, complete: bool | None, incomplete: str, verdict: str) -> None:
        decision = judge({**PET, "complete": complete}, CT, incomplete=incomplete)
        assert (decision.verdict.value, decision.pending) == (verdict, False)
        assert clause(decision, f"pet is complete, else {incomplete}", 1) == (complete, verdict)
        assert list(decision.inputs) == ([] if verdict == "no" else [{"pet": 1, "ct": 2}])

    @pytest.mark.parametrize("incomplete", ["run", "hold", "drop"])
    def test_are_waited_for(self, incomplete: str) -> None:
        for series in ([{**PET, "complete": False}, CT], [PET, {**CT, "complete": False}]):
            decision = judge(*series, settled=False, incomplete=incomplete)
            assert (decision.verdict.value, decision.pending) == ("unknown", True)

    def test_a_ct_that_is_arriving_may_still_cover(self) -> None:
        half = {**CT, "id": 5, "complete": False, "z_range_mm": [0.0, 400.0], "received": "2026-03-02T12:00:00+00:00"}
        assert said(judge(PET, half, CT, settled=False))[:2] == ("unknown", True)
        assert said(judge(PET, half, CT, settled=True)) == ("yes", False, [{"pet": 1, "ct": 2}])


class TestChoose:
    NEWER_SMALLER: ClassVar = {**PET, "id": 10, "received": "2026-03-02T11:00:00+00:00", "slices": 50}

    @pytest.mark.parametrize(("choose", "ids"), [("newest", [10]), ("largest", [1]), ("all", [1, 10])])
    def test_among_the_first_input(self, choose: str, ids: list[int]) -> None:
        for order in permutations([PET, CT, self.NEWER_SMALLER]):
            decision = judge(*order, choose=choose)
            assert said(decision) == ("yes", False, [{"pet": each, "ct": 2} for each in ids])

    @pytest.mark.parametrize(("choose", "ct"), [("newest", 20), ("largest", 2), ("all", 20)])
    def test_among_the_others(self, choose: str, ct: int) -> None:
        newer = {**CT, "id": 20, "received": "2026-03-02T11:00:00+00:00", "slices": 100}
        assert said(judge(newer, PET, CT, choose=choose)) == ("yes", False, [{"pet": 1, "ct": ct}])

    def test_sure_and_unsure_jobs_are_two_decisions(self) -> None:
        unsure = {**self.NEWER_SMALLER, "tracer": None}
        yes, unknown = decide([rule_of(choose="all")], {"series": [PET, CT, unsure], "settled": True})
        assert said(yes) == ("yes", False, [{"pet": 1, "ct": 2}])
        assert said(unknown) == ("unknown", False, [{"pet": 10, "ct": 2}])
        assert unknown.reason == "unknown: pet.tracer = FDG"

    def test_a_sure_one_is_preferred(self) -> None:
        assert said(judge(PET, CT, {**self.NEWER_SMALLER, "tracer": None})) == ("yes", False, [{"pet": 1, "ct": 2}])

    def test_a_rival_that_is_arriving_is_waited_for(self) -> None:
        arriving = {**self.NEWER_SMALLER, "complete": False}
        assert said(judge(PET, CT, arriving, settled=False, choose="largest"))[:2] == ("unknown", True)
        yes, pending = decide([rule_of(choose="all")], {"series": [PET, CT, arriving], "settled": False})
        assert said(yes) == ("yes", False, [{"pet": 1, "ct": 2}])
        assert pending.pending

    def test_a_series_that_cannot_fit_is_not_waited_for(self) -> None:
        arriving = {**self.NEWER_SMALLER, "complete": False, "attenuation_corrected": False}
        assert said(judge(PET, CT, arriving, settled=False)) == ("yes", False, [{"pet": 1, "ct": 2}])


def test_a_flood_of_series_is_not_judged() -> None:
    decision = judge(*({**PET, "id": i} for i in range(SERIES_MAX + 1)))
    assert said(decision) == ("unknown", False, [])
    assert decision.reason == f"unknown: the study has at most {SERIES_MAX} series"
    assert said(judge(*({**PET, "id": i} for i in range(SERIES_MAX)), inputs=PET_ONLY))[0] == "yes"


class TestRuleTests:
    def test_of_the_example_pass(self) -> None:
        rules = load(Path(settings.__file__).with_name("node.example.yaml")).rules
        assert sum(len(rule.tests) for rule in rules) >= 4
        assert run_tests(rules) == []

    @pytest.mark.parametrize(("written", "verdict"), [("PSMA-11", "no"), (None, "unknown"), ("FDG", "yes")])
    def test_say_what_came_out(self, written: str | None, verdict: str) -> None:
        facts = {"modality": "PT", "kind": "static", "attenuation_corrected": True, "tracer": written}
        for expect in ("yes", "no", "unknown"):
            test = {"name": "one PET", "series": [facts], "expect": expect}
            faults = run_tests([rule_of(inputs=PET_ONLY, tests=[test])])
            assert len(faults) == (expect != verdict)
            for fault in faults:
                assert fault.startswith(f"rule 'fdg', test 'one PET': expected {expect}, got {verdict}")

    def test_name_the_clauses(self) -> None:
        test = {"name": "t", "series": [{"modality": "PT", "tracer": "PSMA-11"}], "expect": "yes"}
        (fault,) = run_tests([rule_of(inputs={"pet": {"modality": "PT"}}, tests=[test])])
        assert fault.endswith("got no; no series fits pet; pet.tracer = FDG (series 0: got PSMA-11)")

    def test_can_speak_of_incomplete_series_and_of_time(self) -> None:
        facts = {"modality": "PT", "kind": "static", "attenuation_corrected": True, "tracer": "FDG"}
        tests = [{"name": "incomplete", "series": [{**facts, "complete": False}], "expect": "unknown"}]
        assert run_tests([rule_of(inputs=PET_ONLY, tests=tests)]) == []
