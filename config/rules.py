"""The rule grammar: which series go to which engine, with which parameters, and where the results go.

A rule names the inputs of its engine. The first input is what the job is about; `when` adds conditions on it, the
other inputs may have to pair with it in space. `daemon.route` judges rules; engines are known to it, not here.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from config.conditions import (
    CONDITION_READERS,
    FACTS,
    Condition,
    Fact,
    as_document,
    is_number,
    read_conditions,
    read_table,
    read_value,
)
from config.faults import Expected, Fault, refuse
from config.values import STRICT, Name, SlotName, WholeNumber, read_flag, read_name, read_slot


def _write_conditions(conditions: Mapping[str, Condition]) -> dict[str, Any]:
    return {fact: as_document(condition) for fact, condition in conditions.items()}


Conditions = Annotated[Mapping[str, Condition], PlainValidator(read_conditions), PlainSerializer(_write_conditions)]


@dataclass(frozen=True, slots=True)
class Input:
    """What a series must be to fill one input of the engine.

    conditions : by fact
    pairs_with : the first input, whose frame of reference the series must share and whose slices it must cover
    optional : the job runs without it where nothing fits
    """

    conditions: Mapping[str, Condition]
    pairs_with: str | None = None
    optional: bool = False


_INPUT_READERS: Mapping[str, Callable[[object], Any]] = {
    **CONDITION_READERS,
    "pairs_with": read_slot,
    "optional": read_flag,
}


def read_input(document: object) -> Input:
    """Compile one input: facts and their conditions stand beside `pairs_with` and `optional`."""
    values = read_table(document, _INPUT_READERS)
    return Input(pairs_with=values.pop("pairs_with", None), optional=values.pop("optional", False), conditions=values)


def _write_input(slot: Input) -> dict[str, Any]:
    relation = {"pairs_with": slot.pairs_with} if slot.pairs_with is not None else {}
    return {**_write_conditions(slot.conditions), **relation, "optional": slot.optional}


def _check_pairs(inputs: dict[str, Input]) -> dict[str, Input]:
    """Everything pairs with the first input: which series fills one slot then depends on that series alone."""
    primary, *others = inputs
    faults = [
        Fault((name, "pairs_with"), f"expected {primary!r}, the first input, got {inputs[name].pairs_with!r}")
        for name in others
        if inputs[name].pairs_with not in {None, primary}
    ]
    if inputs[primary].pairs_with is not None:
        faults.append(Fault((primary, "pairs_with"), "expected it on later inputs only, got it on the first"))
    if inputs[primary].optional:
        faults.append(Fault((primary, "optional"), "expected no for the first input, got yes"))
    refuse(faults)
    return inputs


Inputs = Annotated[
    dict[SlotName, Annotated[Input, PlainValidator(read_input), PlainSerializer(_write_input)]],
    Field(min_length=1, max_length=8),
    AfterValidator(_check_pairs),
]


def _check_repeated(names: tuple[str, ...]) -> tuple[str, ...]:
    refuse(
        Fault((i,), f"expected every destination once, got {name!r} again")
        for i, name in enumerate(names)
        if name in names[:i]
    )
    return names


def _read_test_value(fact: Fact, value: object) -> Any:
    """A fact in a rule's test: nothing means unknown, a list is a fact of several values."""
    if isinstance(value, list):
        return [read_value(fact, each) for each in value]
    return None if value is None else read_value(fact, value)


def _read_numbers(count: int, value: object) -> list[float]:
    numbers = [float(each) for each in value if is_number(each)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) != count or len(numbers) != count:
        raise Expected(f"a list of {count} numbers [mm]")
    return numbers


_TEST_READERS: Mapping[str, Callable[[object], Any]] = {
    **{name: functools.partial(_read_test_value, fact) for name, fact in FACTS.items()},
    "complete": read_flag,
    "frame_of_reference_uid": read_name,
    "z_range_mm": functools.partial(_read_numbers, 2),
    "spacing_mm": functools.partial(_read_numbers, 3),
    "received": read_name,
}


def read_test_series(document: object) -> Mapping[str, Any]:
    """The facts of one series in a rule's test; what pairing and choosing look at may stand beside them."""
    return read_table(document, _TEST_READERS)


def _read_expected(value: object) -> object:
    """YAML 1.1 reads the words yes and no as booleans."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class RuleTest(BaseModel):
    """A study in a few facts and what the rule has to say about it. Runs before a rule set becomes active."""

    model_config = STRICT

    name: Name
    """What the test shows, in words."""
    series: Annotated[tuple[Annotated[Mapping[str, Any], PlainValidator(read_test_series)], ...], Field(max_length=50)]
    """The series of a study of which nothing more is expected; a fact that is not given is unknown.

    A series is complete unless it says `complete: no`, and newer than the ones above it unless it says `received`.
    """
    expect: Annotated[Literal["yes", "no", "unknown"], BeforeValidator(_read_expected)]
    """The rule's verdict."""


def _read_parameters(parameters: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters are part of a job's key: they must have one spelling as JSON."""
    try:
        json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise Expected("finite numbers and readable text only") from error
    return parameters


class Rule(BaseModel):
    """When which engine runs on what, and who gets the results."""

    model_config = STRICT

    name: Name
    """What people call the rule."""
    engine: Name
    """Name of an engine; `tracerd check` lists them."""
    when: Conditions = {}
    """Conditions on the series of the first input, besides the input's own."""
    inputs: Inputs
    """The engine's inputs by name; the first is what the job is about."""
    choose: Literal["all", "newest", "largest"] = "newest"
    """Which series of the first input get a job where several fit; for the other inputs the newest or largest is taken.

    The default gives one result per study: the last reconstruction a person sent.
    """
    parameters: Annotated[dict[str, JsonValue], AfterValidator(_read_parameters)] = {}
    """Parameters of the engine; what is not given has the engine's default."""
    send_to: Annotated[tuple[Name, ...], Field(max_length=16), AfterValidator(_check_repeated)] = ()
    """Names of destinations; none: results stay on the node."""
    forward: Literal["originals"] | None = None
    """`originals` passes the received objects on to the same destinations."""
    priority: WholeNumber = Field(default=0, ge=-1000, le=1000)
    """Higher runs first."""
    mode: Literal["clinical", "shadow", "canary", "training"] = "clinical"
    """What becomes of the results; only clinical and canary ones leave the node."""
    incomplete: Literal["run", "hold", "drop"] = "hold"
    """What to do with a series that never became whole; the default asks a person."""
    tests: Annotated[tuple[RuleTest, ...], Field(max_length=100)] = ()
    """Examples that must come out as written."""

    @property
    def primary(self) -> str:
        """The first input: what the job is about."""
        return next(iter(self.inputs))

    @model_validator(mode="after")
    def _can_forward(self) -> Self:
        if self.forward is not None and not self.send_to:
            refuse([Fault(("forward",), "expected a destination in send_to, got none")])
        return self


Rules = Annotated[tuple[Rule, ...], Field(max_length=200)]


class RuleFile(BaseModel):
    """A rule set on its own."""

    model_config = STRICT

    rules: Rules
    """The rules of the set."""


_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON allows between quotes, and YAML forbids or takes for the end of a line."""


def rules_text(rules: Sequence[Rule]) -> str:
    """The rules in one canonical spelling, every default written out: what is kept of an active rule set.

    Returns
    -------
    JSON, which `config.load.parse_rules` reads back to equal rules; comments and layout of the file are gone.
    """
    text = json.dumps([rule.model_dump(mode="json") for rule in rules], ensure_ascii=False, indent=1)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
