"""Laws of routing and of the configuration, on random rules, studies and documents."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import settings as models
from config.conditions import FACTS, Answer, AnyOf, Not, answer, as_document, read_condition
from config.document import NotYaml, read_yaml
from config.load import ConfigError, load, parse, parse_rules
from config.rules import Rule, rules_text
from config.settings import Settings
from daemon.route import Decision, covers, decide

EXAMPLE = yaml.safe_load(Path(models.__file__).with_name("node.example.yaml").read_text())
NO, UNKNOWN, YES = Answer.NO, Answer.UNKNOWN, Answer.YES

# Few values, so that rules and series meet often.
VALUES: dict[str, list[Any]] = {
    "modality": ["PT", "CT"],
    "tracer": ["FDG", "PSMA-11"],
    "kind": ["static", "dynamic"],
    "attenuation_corrected": [True, False],
    "weight_kg": [40, 70.5, 100],
    "produced_by": ["nobody", "engine"],
}
ERASABLE = [*VALUES, "frame_of_reference_uid", "spacing_mm", "slices", "grid"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(max_size=10)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


def conditions(name: str) -> st.SearchStrategy[Any]:
    value = st.sampled_from(VALUES[name])
    simple = value
    if name == "weight_kg":
        simple |= st.sampled_from([{"min": 50}, {"max": 70.5}, {"min": 50, "max": 90}])
    if name == "tracer":
        simple |= st.sampled_from([{"matches": "^F"}, {"matches": "(?i)psma|x"}])
    choice = simple | st.lists(simple, min_size=1, max_size=2)
    return choice | st.builds(lambda inner: {"not": inner}, choice)


def some_conditions() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: conditions(name) for name in VALUES})


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    inputs = {"pet": draw(some_conditions())}
    for slot in ["ct", "other"][: draw(st.integers(0, 2))]:
        relation = {"pairs_with": "pet"} if draw(st.booleans()) else {}
        inputs[slot] = {**draw(some_conditions()), **relation, "optional": draw(st.booleans())}
    document = {
        "name": "r",
        "engine": "e",
        "when": draw(some_conditions()),
        "inputs": inputs,
        "choose": draw(st.sampled_from(["all", "newest", "largest"])),
        "incomplete": draw(st.sampled_from(["run", "hold", "drop"])),
    }
    return Rule.model_validate(document)


def affine(direction: float) -> list[list[float]]:
    return [[0, 0, 1, 0], [0, 1, 0, 0], [direction, 0, 0, 0], [0, 0, 0, 1]]


@st.composite
def series(draw: st.DrawFn) -> dict[str, Any]:
    facts = {name: draw(st.sampled_from(VALUES[name])) for name in VALUES if name != "produced_by"}
    low = draw(st.sampled_from([-100.0, 0.0, 1.0]))
    return {
        **facts,
        "produced_by": draw(st.sampled_from([None, None, "engine"])),
        "frame_of_reference_uid": draw(st.sampled_from(["1.2", "1.3"])),
        "z_range_mm": [low, low + draw(st.sampled_from([50.0, 200.0]))],
        "spacing_mm": [draw(st.sampled_from([1.0, 3.0])), 1.0, 1.0],
        "affine": draw(st.sampled_from([affine(1), affine(-1)])),
        "slices": draw(st.integers(1, 3)),
        "received": draw(st.sampled_from(["2026-03-02T09:00:00+00:00", "2026-03-02T10:00:00+00:00"])),
        "complete": draw(st.sampled_from([True, True, False])),
    }


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    many = draw(st.lists(series(), max_size=5))
    return {"series": [{**facts, "id": i} for i, facts in enumerate(many)], "settled": draw(st.booleans())}


@st.composite
def erased(draw: st.DrawFn, study: dict[str, Any]) -> dict[str, Any]:
    """The same study with some facts not known."""
    poorer = copy.deepcopy(study)
    for facts in poorer["series"]:
        for name in draw(st.sets(st.sampled_from(ERASABLE), max_size=3)):
            # Two absences are knowledge: who made a series (None: nobody), and a range (None: no regular grid).
            if name == "grid":
                del facts["z_range_mm"], facts["affine"]
            elif name != "produced_by":
                facts[name] = None
    return poorer


def verdict(decisions: list[Decision]) -> Answer:
    return max(decision.verdict for decision in decisions)


@settings(max_examples=150, deadline=None)
@given(rules(), studies(), st.randoms(use_true_random=False))
def test_the_order_of_series_has_no_influence(rule: Rule, study: dict[str, Any], random: Any) -> None:
    shuffled = list(study["series"])
    random.shuffle(shuffled)
    assert decide([rule], study) == decide([rule], {**study, "series": shuffled})


@settings(max_examples=300, deadline=None)
@given(rules(), studies(), st.data())
def test_knowing_more_never_turns_a_definite_verdict(rule: Rule, study: dict[str, Any], data: st.DataObject) -> None:
    before = verdict(decide([rule], data.draw(erased(study))))
    after = verdict(decide([rule], study))
    assert before is UNKNOWN or before is after


@settings(max_examples=150, deadline=None)
@given(rules(), studies())
def test_settling_never_turns_a_yes(rule: Rule, study: dict[str, Any]) -> None:
    unsettled = decide([rule], {**study, "settled": False})
    assert all(decision.verdict is not NO for decision in unsettled)
    if verdict(unsettled) is YES:
        assert verdict(decide([rule], {**study, "settled": True})) is YES


@settings(max_examples=300, deadline=None)
@given(rules(), studies(), st.data())
def test_the_verdict_is_what_brute_force_finds(rule: Rule, study: dict[str, Any], data: st.DataObject) -> None:
    study = {**data.draw(erased(study)), "settled": True}
    assert verdict(decide([rule], study)) is by_brute_force(rule, study["series"])


def by_brute_force(rule: Rule, many: list[dict[str, Any]]) -> Answer:
    """Of a settled study: or over the series of the first slot, and over the slots, or over the series of each."""
    policy = {"run": YES, "hold": UNKNOWN, "drop": NO}[rule.incomplete]
    first, *others = rule.inputs

    def fits(slot: str, facts: dict[str, Any]) -> Answer:
        asked = [*rule.inputs[slot].conditions.items(), *(rule.when.items() if slot == first else ())]
        maker = facts["produced_by"] or "nobody"
        said = [answer(condition, maker if name == "produced_by" else facts[name]) for name, condition in asked]
        if "produced_by" not in dict(asked):
            said.append(YES if maker == "nobody" else NO)
        return min([*said, YES if facts["complete"] else policy])

    def pairs(slot: str, facts: dict[str, Any], primary: dict[str, Any]) -> Answer:
        if rule.inputs[slot].pairs_with is None:
            return YES
        frames = (facts["frame_of_reference_uid"], primary["frame_of_reference_uid"])
        same = UNKNOWN if None in frames else YES if frames[0] == frames[1] else NO
        return min(same, covers(facts, primary))

    def filled(slot: str, primary: dict[str, Any]) -> Answer:
        if rule.inputs[slot].optional:
            return YES
        best = max(
            [min(fits(slot, facts), pairs(slot, facts, primary)) for facts in many if facts is not primary], default=NO
        )
        return UNKNOWN if best is NO and rule.incomplete != "drop" else best

    return max([min([fits(first, facts), *(filled(slot, facts) for slot in others)]) for facts in many], default=NO)


@settings(max_examples=150, deadline=None)
@given(rules(), studies(), st.data())
def test_decisions_are_sound(rule: Rule, study: dict[str, Any], data: st.DataObject) -> None:
    study = data.draw(erased(study))
    decisions = decide([rule], study)
    assert len(decisions) == 1 or (
        rule.choose == "all" and [decision.verdict for decision in decisions] == [YES, UNKNOWN]
    )
    for decision in decisions:
        assert decision.pending == (decision.verdict is UNKNOWN and not study["settled"])
        assert bool(decision.reason) == (decision.verdict is not YES)
        assert len(decision.inputs) <= (len(study["series"]) if rule.choose == "all" else 1)
        assert decision.verdict is not NO or decision.inputs == ()
        for inputs in decision.inputs:
            check_job(rule, decision, inputs, study["series"])


def check_job(rule: Rule, decision: Decision, inputs: dict[str, Any], many: list[dict[str, Any]]) -> None:
    assert rule.primary in inputs
    assert all(inputs[slot] != inputs[rule.primary] for slot in inputs if slot != rule.primary)
    required = {slot for slot, asked in rule.inputs.items() if not asked.optional}
    assert decision.verdict is UNKNOWN or required <= set(inputs) <= set(rule.inputs)
    for slot, identifier in inputs.items():
        facts = many[identifier]
        for name, condition in rule.inputs[slot].conditions.items():
            value = facts[name] or "nobody" if name == "produced_by" else facts[name]
            assert answer(condition, value) >= decision.verdict
        if rule.incomplete != "run":
            assert decision.verdict is UNKNOWN or facts["complete"] is True


@settings(max_examples=200, deadline=None)
@given(rules(), studies())
def test_a_series_that_fits_nowhere_changes_nothing(rule: Rule, study: dict[str, Any]) -> None:
    alien = {"id": 99, "received": "2026-03-02T12:00:00+00:00", "produced_by": "another engine", "complete": True}
    with_alien = {**study, "series": [*study["series"], alien]}
    asks_of_maker = (
        any("produced_by" in asked.conditions for asked in rule.inputs.values()) or "produced_by" in rule.when
    )
    if not asks_of_maker:
        before, after = decide([rule], study), decide([rule], with_alien)
        assert [(each.verdict, each.inputs) for each in before] == [(each.verdict, each.inputs) for each in after]


@given(st.sampled_from(list(VALUES)), st.data())
def test_kleene(name: str, data: st.DataObject) -> None:
    first, second = (read_condition(FACTS[name], data.draw(conditions(name))) for _ in range(2))
    value = data.draw(st.sampled_from([*VALUES[name], None]))
    if not isinstance(first, Not | AnyOf) and not isinstance(second, Not | AnyOf):
        either = answer(AnyOf((first, second)), value)
        assert either is max(answer(first, value), answer(second, value))
        # De Morgan
        assert answer(Not(AnyOf((first, second))), value) is min(answer(Not(first), value), answer(Not(second), value))
    if isinstance(first, Not):
        assert {answer(first, value), answer(first.inner, value)} in ({YES, NO}, {UNKNOWN})
    assert (answer(first, value) is UNKNOWN) == (value is None)


@given(st.sampled_from(list(VALUES)), st.data())
def test_conditions_survive_writing(name: str, data: st.DataObject) -> None:
    document = data.draw(conditions(name))
    condition = read_condition(FACTS[name], document)
    assert as_document(condition) == document
    assert read_condition(FACTS[name], as_document(condition)) == condition


@settings(max_examples=150, deadline=None)
@given(rules(), st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_rule_sets_survive_writing(rule: Rule, parameters: dict[str, Any]) -> None:
    many = [Rule.model_validate({**rule.model_dump(mode="json"), "parameters": parameters})]
    text = rules_text(many)
    assert parse_rules(text, destinations=[]) == tuple(many)
    assert rules_text(parse_rules(text, destinations=[])) == text


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=5)
    | st.sampled_from(["(a+)+", "10 s", "8 GiB", "\ud800", "A" * 1000, -1, 65536, "10.0.0.0/8", "/", "\0"])
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=20,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below the top."""
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in entries for place in ((*path, key), *places(value, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The example with some values replaced, removed or joined by others."""
    document = copy.deepcopy(EXAMPLE)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(document)))
        owner = document
        for step in path:
            owner = owner[step]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            owner[last] = draw(DOCUMENTS)
        elif action == "remove":
            del owner[last]
        elif isinstance(owner, dict):
            owner[draw(st.text(max_size=8) | st.sampled_from(places(EXAMPLE)).map(lambda place: str(place[-1])))] = (
                draw(DOCUMENTS)
            )
        else:
            owner.append(draw(DOCUMENTS))
        if not document:
            break
    return document


def refusal(read: Callable[[], Settings]) -> ConfigError | None:
    """The fault that reading raised, None where the configuration is good."""
    try:
        checked = read()
    except ConfigError as error:
        return error
    assert isinstance(checked, Settings)
    return None


def check_refusal(error: ConfigError | None) -> None:
    assert error is None or error.faults
    for fault in [] if error is None else error.faults:
        assert ": expected " in fault and len(fault) < 2000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS | damaged())
def test_parse_raises_nothing_but_config_errors(document: Any) -> None:
    check_refusal(refusal(lambda: parse(document)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configurations")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS | damaged())
def test_load_raises_nothing_but_config_errors(folder: Path, document: Any) -> None:
    text = yaml.safe_dump(document)
    (folder / "node.yaml").write_bytes(text.encode(errors="surrogatepass"))
    check_refusal(refusal(lambda: load(folder / "node.yaml")))


PIECES = [
    "a",
    "b",
    ":",
    " ",
    "\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "&x",
    "*x",
    "!",
    "!!str ",
    "|",
    ">",
    "#",
    "%",
    "---",
    "...",
    "?",
    "\t",
    "\\",
    "\ufeff",
    "\x00",
    "é",
    "\U0001f600",
    "yes",
    "1e9",
    "<<",
]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map(lambda pieces: "".join(pieces).encode())
)
def test_any_bytes_are_read_or_refused(folder: Path, data: bytes) -> None:
    with contextlib.suppress(NotYaml):
        json.dumps(read_yaml(data).content)
    (folder / "node.yaml").write_bytes(data)
    with pytest.raises(ConfigError):
        load(folder / "node.yaml")
