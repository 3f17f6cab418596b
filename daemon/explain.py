"""What rules say about a study, clause by clause, and what other rules would say about every stored one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select

from config.load import ConfigError, load_rules
from config.rules import Rule
from config.settings import Settings
from daemon.ask import reading
from daemon.check import rule_faults
from daemon.commands import CannotDo
from daemon.dispatch import study_facts
from daemon.node import Turn
from daemon.offline import Candidate, series_in
from daemon.route import Decision, decide, run_tests
from db.schema import Study


def explain_study(study: str, settings: Settings) -> dict[str, Any]:
    """{"series": {id: words}, "decisions": […]} about a folder of DICOM files or a study of the node.

    Raises
    ------
    CannotDo
        Neither a folder or file, nor the UID of a study the node holds.
    """
    if Path(study).exists():
        facts = facts_of_files(Path(study), settings)
    else:
        with reading(settings) as turn:
            row = turn.session.scalar(select(Study).where(Study.study_uid == study))
            if row is None:
                raise CannotDo("expected a folder of DICOM files or the UID of a study the node holds, got neither")
            facts = study_facts(turn, row)
    decisions = decide(settings.rules, facts)
    return {
        "series": {str(series["id"]): describe(series) for series in facts["series"]},
        "decisions": [as_document(decision) for decision in decisions],
    }


def facts_of_files(path: Path, settings: Settings) -> dict[str, Any]:
    """The facts of a folder's series, as if the node had received them and nothing more were expected."""
    found = series_in(path, ZoneInfo(settings.timezone))
    described = [
        {**series.facts, **sender(series), "complete": complete(series), "id": number, "received": f"{number:06d}"}
        for number, series in enumerate(found, start=1)
    ]
    return {"settled": True, "series": described}


def complete(series: Candidate) -> bool:
    """Whether the node would call the series whole: one without a count is, once nothing more comes."""
    return series.facts["expected"] is None or bool(series.facts["complete"])


def sender(series: Candidate) -> dict[str, str | None]:
    """Who sent a stored file, where its File Meta Information says so."""
    association = series.instances[0].survey.association
    return {"calling_ae": association["calling_ae"], "called_ae": association["called_ae"]}


def describe(facts: Mapping[str, Any]) -> str:
    """A series in a few words: number, modality, description."""
    words = (facts["id"], facts.get("modality"), facts.get("series_description"))
    return " ".join(str(word) for word in words if word)


def as_document(decision: Decision) -> dict[str, Any]:
    """A decision as plain JSON values."""
    return {
        "rule": decision.rule,
        "verdict": str(decision.verdict),
        "pending": decision.pending,
        "reason": decision.reason,
        "clauses": [{**clause, "answer": str(clause["answer"])} for clause in decision.clauses],
        "inputs": [dict(inputs) for inputs in decision.inputs],
    }


def replay_rules(settings: Settings, path: Path) -> list[dict[str, Any]]:
    """Every stored study and rule about which a file of rules says something else than the configuration does.

    Raises
    ------
    config.load.ConfigError
        The file's faults, those that its engines and its own tests find among them.
    """
    new = load_rules(path, destinations=settings.destinations)
    faults = [f"rules.{number}.{fault}" for number, rule in enumerate(new) for fault in rule_faults(rule)]
    if faults := [*faults, *run_tests(new)]:
        raise ConfigError(faults)
    with reading(settings) as turn:
        studies = list(turn.session.scalars(select(Study).order_by(Study.id)))
        return [change for study in studies for change in changes(turn, study, settings.rules, new)]


def changes(turn: Turn, study: Study, old: Sequence[Rule], new: Sequence[Rule]) -> Iterable[dict[str, Any]]:
    """What changes for one study, rule by rule, once nothing more is expected of it."""
    facts = {**study_facts(turn, study), "settled": True}
    before, after = (verdicts(decide(rules, facts)) for rules in (old, new))
    for rule in dict.fromkeys((*before, *after)):
        was, would = before.get(rule, []), after.get(rule, [])
        if [(one.verdict, one.inputs) for one in was] != [(one.verdict, one.inputs) for one in would]:
            yield {
                "study": study.id,
                "rule": rule,
                "before": in_words(was),
                "after": in_words(would),
                "reason": "; ".join(one.reason for one in would if one.reason),
            }


def verdicts(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """Decisions by the name of their rule."""
    by_rule: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_rule.setdefault(decision.rule, []).append(decision)
    return by_rule


def in_words(decisions: Sequence[Decision]) -> str:
    """Verdicts of one rule with the series they fill the inputs with."""
    if not decisions:
        return "no such rule"
    return "; ".join(
        f"{one.verdict}"
        + "".join(f" ({', '.join(f'{slot} {row}' for slot, row in inputs.items())})" for inputs in one.inputs)
        for one in decisions
    )
