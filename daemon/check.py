"""What only the engines and this version know to be wrong with a configuration that is sound by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from config.conditions import Answer, answer, phrase
from config.faults import did_you_mean, spell
from config.load import ConfigError, load, readable_rules
from config.rules import Input, Rule
from config.settings import Settings
from daemon.route import run_tests
from engines.contract import Engine, Slot
from engines.registry import engine, names


def sound_settings(config: Path) -> Settings:
    """The settings of a configuration without any fault.

    Raises
    ------
    config.load.ConfigError
        With every fault that can be told at once.
    """
    try:
        settings = load(config)
    except ConfigError as error:
        raise ConfigError([*error.faults, *faults_of_rules(readable_rules(config))]) from error
    if found := faults(settings):
        raise ConfigError(found)
    return settings


def faults(settings: Settings) -> list[str]:
    """Every fault of the rules, one sentence each with its place; empty when the node can start."""
    return [*faults_of_rules(dict(enumerate(settings.rules))), *run_tests(settings.rules)]


def faults_of_rules(rules: Mapping[int, Rule]) -> list[str]:
    """Faults of rules in the eyes of their engines; `rules` by position in the file."""
    return [f"rules.{number}.{fault}" for number, rule in rules.items() for fault in rule_faults(rule)]


def rule_faults(rule: Rule) -> Iterator[str]:
    """Faults of one rule in the eyes of its engine."""
    if rule.engine not in names():
        near = did_you_mean(rule.engine, names())
        yield f"engine: expected one of {', '.join(names())}, got {spell(rule.engine)}{near}"
        return
    method = engine(rule.engine)
    yield from (f"parameters.{fault}" for fault in method.check(rule.parameters))
    yield from (f"inputs{fault}" for fault in input_faults(rule, method))


def input_faults(rule: Rule, method: Engine) -> Iterator[str]:
    """Inputs the engine does not know, needs or could never take."""
    known = ", ".join(method.inputs)
    for name, wanted in rule.inputs.items():
        if name not in method.inputs:
            near = did_you_mean(name, method.inputs)
            yield f".{name}: expected one of {known} (the inputs of {method.name}), got {spell(name)}{near}"
            continue
        yield from (f".{name}{fault}" for fault in slot_faults(wanted, method.inputs[name], method.name))
    for name, slot in method.inputs.items():
        if not slot.optional and name not in rule.inputs:
            yield f": expected {name}, which {method.name} needs, got {', '.join(rule.inputs)}"
    first = next(iter(method.inputs))
    if first in rule.inputs and rule.primary != first:
        yield f": expected {first} first (what {method.name} draws its results on), got {rule.primary} first"


def slot_faults(wanted: Input, slot: Slot, name: str) -> Iterator[str]:
    """Conditions that no series the engine takes can fulfil, and a needed input that is called optional."""
    if wanted.optional and not slot.optional:
        yield f".optional: expected no, {name} needs it, got yes"
    for fact, taken in (("modality", [slot.modality]), ("kind", sorted(slot.kinds))):
        condition = wanted.conditions.get(fact)
        if condition is not None and all(answer(condition, value) is Answer.NO for value in taken):
            fitting = f"a condition that {' or '.join(taken)} fulfils ({name} takes no other)"
            yield f".{fact}: expected {fitting}, got {phrase(condition)}"
