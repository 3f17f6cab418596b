"""The rule grammar: conditions and their answers, patterns that are safe to search, and the faults of rules."""

import json
import math
import re
import time
from typing import Any

import pytest

from config.conditions import (
    FACTS,
    Answer,
    AnyOf,
    Between,
    Condition,
    Equals,
    FactType,
    Matches,
    Not,
    answer,
    as_document,
    phrase,
    read_condition,
    read_pattern,
)
from config.faults import Expected
from config.load import ConfigError, parse_rules
from config.rules import Rule, rules_text

NO, UNKNOWN, YES = Answer.NO, Answer.UNKNOWN, Answer.YES
RULE: dict[str, Any] = {"name": "r", "engine": "e", "inputs": {"pet": {"modality": "PT"}}}
TEST: dict[str, Any] = {"name": "t", "series": [], "expect": "no"}


def faults_of(changes: dict[str, Any]) -> list[str]:
    """The faults of one rule, without its place."""
    with pytest.raises(ConfigError) as raised:
        parse_rules(_json([{**RULE, **changes}]), destinations=["pacs"])
    return [re.sub(r"^rules\.0\.| \(line \d+\)$", "", fault) for fault in raised.value.faults]


def rule_of(changes: dict[str, Any]) -> Rule:
    (rule,) = parse_rules(_json([{**RULE, **changes}]), destinations=["pacs"])
    return rule


def _json(document: object) -> str:
    return json.dumps(document)


def test_answers_are_ordered() -> None:
    assert NO < UNKNOWN < YES
    assert min(YES, UNKNOWN) is UNKNOWN and max(NO, UNKNOWN) is UNKNOWN
    assert str(UNKNOWN) == "unknown"


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (Equals("FDG"), "FDG", YES),
        (Equals("FDG"), " fdg ", YES),
        (Equals("FDG"), "FDG-6", NO),
        (Equals("FDG"), None, UNKNOWN),
        (Equals("FDG"), "  ", UNKNOWN),
        (Equals("FDG"), 5, UNKNOWN),
        (Equals("FDG"), True, UNKNOWN),
        (Equals(True), True, YES),
        (Equals(True), False, NO),
        (Equals(False), False, YES),
        (Equals(True), 1, UNKNOWN),
        (Equals(True), None, UNKNOWN),
        (Equals(1), True, UNKNOWN),
        (Equals(3), 3.0, YES),
        (Equals(3), 4, NO),
        (Equals(3), "3", UNKNOWN),
        (Equals("PRIMARY"), ["ORIGINAL", "PRIMARY"], YES),
        (Equals("DERIVED"), ["ORIGINAL", "PRIMARY"], NO),
        (Equals("DERIVED"), ["ORIGINAL", None], UNKNOWN),
        (Equals("DERIVED"), [], UNKNOWN),
        (Between(30, 200), 30, YES),
        (Between(30, 200), 200.0, YES),
        (Between(30, 200), 29.999, NO),
        (Between(30, None), 1e9, YES),
        (Between(None, 30), 31, NO),
        (Between(30, 200), None, UNKNOWN),
        (Between(30, 200), math.nan, UNKNOWN),
        (Between(30, 200), math.inf, UNKNOWN),
        (Between(0, 2), True, UNKNOWN),
        (Between(30, 200), "70", UNKNOWN),
        (Matches(re.compile("(?i)wb|whole")), "PET WB AC", YES),
        (Matches(re.compile("(?i)wb|whole")), "brain", NO),
        (Matches(re.compile("^PET")), "my PET", NO),
        (Matches(re.compile("x")), "", UNKNOWN),
        (Matches(re.compile("x")), None, UNKNOWN),
        (Matches(re.compile("x")), "x" * 128, YES),
        (Matches(re.compile("x")), "x" * 129, UNKNOWN),
        (AnyOf((Equals("a"), Equals("b"))), "B", YES),
        (AnyOf((Equals("a"), Equals("b"))), "c", NO),
        (AnyOf((Equals("a"), Equals("b"))), None, UNKNOWN),
        (Not(Equals("a")), "a", NO),
        (Not(Equals("a")), "b", YES),
        (Not(Equals("a")), None, UNKNOWN),
        (Not(Equals("DERIVED")), ["ORIGINAL", "DERIVED"], NO),
        (Not(AnyOf((Equals("a"), Equals("b")))), "c", YES),
    ],
)  # fmt: skip
def test_answers(condition: Condition, value: object, expected: Answer) -> None:
    assert answer(condition, value) is expected


@pytest.mark.parametrize(
    ("fact", "document", "words"),
    [
        ("tracer", "FDG", "= FDG"),
        ("attenuation_corrected", True, "= yes"),
        ("attenuation_corrected", False, "= no"),
        ("weight_kg", 70, "= 70"),
        ("weight_kg", {"min": 30, "max": 200.5}, "≥ 30 and ≤ 200.5"),
        ("weight_kg", {"min": 30}, "≥ 30"),
        ("weight_kg", {"max": 200}, "≤ 200"),
        ("weight_kg", [70, {"min": 80}], "= 70 or ≥ 80"),
        ("tracer", ["FDG", {"matches": "^PSMA"}], "= FDG or matches ^PSMA"),
        ("tracer", {"not": "FDG"}, "not (= FDG)"),
        ("kind", {"not": ["static", "GATED"]}, "not (= static or = GATED)"),
        ("weight_kg", {"not": {"min": 30}}, "not (≥ 30)"),
    ],
)
def test_conditions_read_and_write(fact: str, document: Any, words: str) -> None:
    condition = read_condition(FACTS[fact], document)
    assert phrase(condition) == words
    assert as_document(condition) == document


@pytest.mark.parametrize(
    ("fact", "document", "expected"),
    [
        ("tracer", 5, "text (put it in quotes), got 5"),
        ("tracer", True, "text (put it in quotes), got yes (a yes/no value)"),
        ("tracer", None, "text (put it in quotes), got nothing"),
        ("tracer", " ", "text (put it in quotes), got ' '"),
        ("tracer", [], "a list of 1 to 50 entries, got a list of 0"),
        ("tracer", [["FDG"]], "text (put it in quotes), a list of them, {matches: REGEX} or {not: …}, got a list of 1"),
        ("tracer", {"min": 1}, "text (put it in quotes), a list of them, {matches: REGEX} or {not: …}, got {min: 1}"),
        ("tracer", {"not": {"not": "FDG"}}, "text (put it in quotes), a list of them, {matches: REGEX} or {not: …}"),
        ("tracer", {"matches": 5}, "a regular expression of 1 to 200 characters, got {matches: 5}"),
        ("kind", "statc", "one of static, dynamic, gated, other, got 'statc'"),
        ("kind", {"matches": "s"}, "one of static, dynamic, gated, other, a list of them or {not: …}"),
        ("sex", "male", "one of M, F, O, got 'male'"),
        ("attenuation_corrected", "yes", "yes or no (without quotes), got 'yes'"),
        ("attenuation_corrected", 1, "yes or no (without quotes), got 1"),
        ("weight_kg", "70", "a number, got '70'"),
        ("weight_kg", {"min": "30"}, "numbers at min: and max:, got {min: '30'}"),
        ("weight_kg", {"min": 200, "max": 30}, "min not above max (min is 200, max is 30), got {min: 200, max: 30}"),
        ("weight_kg", {}, "a number, a list of them, {min: …, max: …} or {not: …}, got a mapping"),
        ("weight_kg", {"min": None}, "a number at min: or max:, got {min: nothing}"),
        ("weight_kg", {"minimum": 5}, "a number, a list of them, {min: …, max: …} or {not: …}, got {minimum: 5}"),
        ("weight_kg", {"matches": "7"}, "a number, a list of them, {min: …, max: …} or {not: …}, got {matches: '7'}"),
    ],
)
def test_faults_of_conditions(fact: str, document: Any, expected: str) -> None:
    (fault,) = faults_of({"when": {fact: document}})
    assert fault.startswith(f"when.{fact}: expected {expected}")
    (fault,) = faults_of({"inputs": {"pet": {fact: document}}})
    assert fault.startswith(f"inputs.pet.{fact}: expected {expected}")


def test_every_fact_of_the_grammar_can_be_asked() -> None:
    named = """tracer tracer_confidence radionuclide modality kind attenuation_corrected scatter_corrected
        decay_corrected randoms_corrected whole_body primary beds relative_counts
        calling_ae called_ae manufacturer station model
        protocol series_description study_description body_part units image_type produced_by weight_kg dose_bq
        uptake_min frame_duration_s frames slices slice_thickness_mm patient_age_y sex"""
    assert set(FACTS) == set(named.split())
    example = {FactType.TEXT: "x", FactType.NUMBER: 1, FactType.YES_NO: True}
    when = {name: fact.words[0] if fact.words else example[fact.type] for name, fact in FACTS.items()}
    assert set(rule_of({"when": when}).when) == set(FACTS)


@pytest.mark.parametrize(
    "text",
    ["(?i)wb|whole", "^PET.*AC$", r"\(a\)+", "[+*?{(]+", "a{2,3}", "(?:GA|CU)-?6[48]", "(a|b)?", "[]a]*", r"[^\]]*"],
)
def test_patterns(text: str) -> None:
    assert read_pattern(text).pattern == text


@pytest.mark.parametrize(
    "text",
    [
        "", "x" * 201, "(", "a{99999999999}", "[[a]", "(?P<n>a", None, 5,
        "(a+)+", "(a*)*b", "(a|aa)*", "(ab){3}", "((a)b)+", "(?:a?)*", r"([a)]+)+", r"(\))+", "(?=a)*", "(?x)(a+) +",
        ".*.*.*.*", "a+b+c+d+", "a{1,9}b{1,9}c{1,9}d{1,9}", "a?b?c?d?e?f?g?",
    ],
)  # fmt: skip
def test_dangerous_patterns_are_refused(text: object) -> None:
    with pytest.raises(Expected):
        read_pattern(text)


@pytest.mark.parametrize(
    "text", [".*.*.*x", "a*a*a*b", "a?a?a?a?a?a?a*a*a*b", "(?i)(a*)?(a*)?(a*)?b", "[a-z]+[a-z]+[a-z]+5"]
)
def test_accepted_patterns_end_soon_on_hostile_text(text: str) -> None:
    pattern = Matches(read_pattern(text))
    started = time.process_time()
    assert answer(pattern, "a" * 128) is NO
    assert time.process_time() - started < 5


class TestRules:
    def test_a_whole_rule(self) -> None:
        rule = rule_of(
            {
                "when": {"tracer": ["FDG", "NaF"], "weight_kg": {"min": 30}},
                "inputs": {
                    "pet": {"modality": "PT", "attenuation_corrected": True},
                    "ct": {"modality": "CT", "pairs_with": "pet", "optional": True},
                },
                "choose": "all",
                "parameters": {"method": "fixed", "threshold_suv": 4.0, "list": [1, {"a": None}]},
                "send_to": ["pacs"],
                "forward": "originals",
                "priority": -3,
                "mode": "shadow",
                "incomplete": "drop",
                "tests": [{"name": "t", "series": [{"modality": "PT", "image_type": ["A", "B"]}], "expect": True}],
            }
        )
        assert rule.primary == "pet"
        assert rule.inputs["ct"].conditions == {"modality": Equals("CT")}
        assert (rule.inputs["ct"].pairs_with, rule.inputs["ct"].optional) == ("pet", True)
        assert rule.when["weight_kg"] == Between(30, None)
        assert rule.tests[0].expect == "yes"
        assert parse_rules(rules_text([rule]), destinations=["pacs"]) == (rule,)

    def test_defaults(self) -> None:
        rule = rule_of({})
        assert (rule.choose, rule.mode, rule.incomplete, rule.priority) == ("newest", "clinical", "hold", 0)
        assert (rule.send_to, rule.forward, dict(rule.parameters), dict(rule.when)) == ((), None, {}, {})

    @pytest.mark.parametrize(
        ("written", "expect"), [("yes", "yes"), ("no", "no"), ("unknown", "unknown"), ("'yes'", "yes")]
    )
    def test_yes_and_no_need_no_quotes(self, written: str, expect: str) -> None:
        text = f"[{{name: r, engine: e, inputs: {{pet: {{}}}}, tests: [{{name: t, series: [], expect: {written}}}]}}]"
        assert parse_rules(text, destinations=[])[0].tests[0].expect == expect

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"inputs": {}}, "inputs: expected at least 1 entry, got a mapping"),
            ({"inputs": {"a b": {}}}, "inputs.a b: expected the name of an input: letters, digits and _, got 'a"),
            ({"inputs": {"pet": None}}, "inputs.pet: expected a mapping (lines of `name: value`), got nothing"),
            ({"inputs": {"pet": {"optional": True}}}, "inputs.pet.optional: expected no for the first input, got yes"),
            ({"inputs": {"pet": {"optional": "no"}}}, "inputs.pet.optional: expected yes or no (without quotes), got"),
            ({"inputs": {"pet": {"pairs_with": "pet"}}}, "inputs.pet.pairs_with: expected it on later inputs only"),
            (
                {"inputs": {"pet": {}, "ct": {"pairs_with": "pt"}}},
                "inputs.ct.pairs_with: expected 'pet', the first input, got 'pt'",
            ),
            (
                {"inputs": {"pet": {}, "ct": {"pairs_with": "pet"}, "b": {"pairs_with": "ct"}}},
                "inputs.b.pairs_with: expected 'pet', the first input, got 'ct'",
            ),
            ({"inputs": {"pet": {"tracr": "FDG"}}}, "inputs.pet.tracr: expected one of the known keys, got the unkno"),
            ({"send_to": ["pacs", "pacs"]}, "send_to.1: expected every destination once, got 'pacs' again"),
            ({"send_to": "pacs"}, "send_to: expected a list (lines of `- value`, or [a, b]), got 'pacs'"),
            ({"forward": "originals"}, "forward: expected a destination in send_to, got none"),
            ({"forward": "all"}, "forward: expected one of 'originals', got 'all'"),
            ({"choose": "oldest"}, "choose: expected one of 'all', 'newest' or 'largest', got 'oldest'"),
            ({"mode": "test"}, "mode: expected one of 'clinical', 'shadow', 'canary' or 'training', got 'test'"),
            ({"incomplete": True}, "incomplete: expected one of 'run', 'hold' or 'drop', got yes (a yes/no value)"),
            ({"priority": 1.5}, "priority: expected a whole number, got 1.5"),
            ({"priority": 1001}, "priority: expected at most 1000, got 1001"),
            ({"engine": ""}, "engine: expected a name: text of 1 to 64 characters"),
            ({"name": "a\nb"}, "name: expected a name: text of 1 to 64 characters"),
            ({"name": 5}, "name: expected a name: text of 1 to 64 characters"),
            ({"parameters": []}, "parameters: expected a mapping (lines of `name: value`), got a list of 0"),
            ({"prioritty": 1}, "prioritty: expected one of choose, engine, "),
            ({"tests": [{**TEST, "expect": "maybe"}]}, "tests.0.expect: expected one of 'yes', 'no' or 'unknown'"),
            ({"tests": [{**TEST, "series": [{"wight_kg": 7}]}]}, "tests.0.series.0.wight_kg: expected one of"),
            ({"tests": [{**TEST, "series": [{"weight_kg": "7"}]}]}, "tests.0.series.0.weight_kg: expected a number"),
            ({"tests": [{**TEST, "series": [{"z_range_mm": [1]}]}]}, "tests.0.series.0.z_range_mm: expected a list"),
        ],
    )  # fmt: skip
    def test_faults(self, changes: dict[str, Any], fault: str) -> None:
        (found,) = faults_of(changes)
        assert found.startswith(fault)

    def test_parameters_have_one_spelling(self) -> None:
        with pytest.raises(ConfigError, match="parameters: expected finite numbers and readable text only"):
            parse_rules(r'[{name: r, engine: e, inputs: {pet: {}}, parameters: {x: "\ud800"}}]', destinations=[])

    def test_all_faults_of_a_rule_come_at_once(self) -> None:
        changes = {
            "engine": 5,
            "when": {"tracer": 5, "kind": "x", "nothing": 1},
            "inputs": {"pet": {"modality": 1}, "ct": {"frams": 2}},
            "send_to": ["nowhere"],
            "choose": "x",
        }
        assert len(faults_of(changes)) == 8
