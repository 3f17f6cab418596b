"""Answers of the node as text for people. Values from peers are shown without what could steer a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.terminal import plain

if TYPE_CHECKING:
    from daemon.doctor import Finding

WIDTH_WHEN_PIPED = 160
"""Columns where nobody says how many there are: a pipe or a file should not cut words."""


def console() -> Console:
    """Standard output as people read it."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH_WHEN_PIPED)


def moment(text: str | None) -> str:
    """An ISO moment as local time."""
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """Rows under plain headings; the last column takes the room that is left."""
    drawn = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=any(columns),
    )
    for number, column in enumerate(columns):
        drawn.add_column(column, header_style="bold", overflow="fold", no_wrap=number < len(columns) - 1)
    for row in rows:
        drawn.add_row(*(plain(value) for value in row))
    return drawn


def show_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """`jobs list`."""
    if not jobs:
        console().print("No jobs.")
        return
    rows = [
        (job["id"], job["study"], job["rule"], job["state"], job["attempts"], moment(job["created"]), job["reason"])
        for job in jobs
    ]
    console().print(table(("job", "study", "rule", "state", "tries", "created", "reason"), rows))


def show_job(job: Mapping[str, Any]) -> None:
    """`jobs show`: the reason first, then what went in, what came out, and everything that happened."""
    out = console()
    out.print(Text(f"Job {job['id']}: {plain(job['state'])}", style="bold"))
    if job["reason"]:
        out.print(f"{plain(job['reason'])} [{plain(job['reason_code'])}]")
    seconds = job["seconds"] or {}
    facts = [
        ("study", job["study"]),
        ("rule", job["rule"]),
        ("engine", f"{job['engine']} {job['engine_version']}"),
        ("created", moment(job["created"])),
        ("finished", moment(job["finished"])),
        ("replaces job", job["supersedes"]),
        ("rerun", job["rerun"] or None),
        ("SUV reference", job["suv_reference"]),
        ("seconds", ", ".join(f"{step} {value:g}" for step, value in seconds.items())),
    ]
    out.print(table(("", ""), [fact for fact in facts if fact[1] not in {None, ""}]))
    parts = (_inputs, _findings, _warnings, _results, _attempts, _deliveries, _history)
    for part in parts:
        drawn = part(job)
        if drawn is not None:
            out.print()
            out.print(drawn)


def _inputs(job: Mapping[str, Any]) -> Table:
    rows = [(slot, wanted["series"], wanted["instances"]) for slot, wanted in job["inputs"].items()]
    return table(("input", "series", "instances"), rows, title="Inputs")


def _findings(job: Mapping[str, Any]) -> Table | None:
    findings = job["findings"]
    if not findings:
        return None
    rows = [(one["name"], one["value"], one["unit"]) for one in findings["measurements"]]
    rows += [("lesions", len(findings["lesions"]), "")]
    return table(("", "", ""), rows, title="Findings")


def _warnings(job: Mapping[str, Any]) -> Table | None:
    return table(("",), [(text,) for text in job["warnings"]], title="Warnings") if job["warnings"] else None


def _results(job: Mapping[str, Any]) -> Table | None:
    rows = [(one["instance"], one["modality"], one["path"]) for one in job["outputs"]]
    return table(("instance", "kind", "file below the data folder"), rows, title="Results") if rows else None


def _attempts(job: Mapping[str, Any]) -> Table | None:
    rows = [(one["n"], one["worker"], one["outcome"] or "running", one["detail"]) for one in job["tries"]]
    return table(("try", "worker", "outcome", "detail"), rows, title="Attempts") if rows else None


def _deliveries(job: Mapping[str, Any]) -> Table | None:
    rows = [
        (
            one["instance"],
            one["destination"],
            one["state"] if one["proven"] else f"{one['state']}, {one['proof']} wanted",
            " ".join(filter(None, (one["status"], one["warning"]))),
            one["tries"],
            moment(one["next"]),
            one["reason"],
        )
        for one in job["deliveries"]
    ]
    columns = ("instance", "destination", "state", "status", "tries", "next try", "reason")
    return table(columns, rows, title="Deliveries") if rows else None


def _history(job: Mapping[str, Any]) -> Table:
    rows = [(moment(one["at"]), one["actor"], one["to"], one["reason"]) for one in job["history"]]
    return table(("at", "by", "became", "because"), rows, title="History")


def show_conflicts(conflicts: Sequence[Mapping[str, Any]]) -> None:
    """`conflicts list`."""
    if not conflicts:
        console().print("No conflicting copies.")
        return
    rows = [
        (one["series"], one["study"], one["modality"], one["copies"], ", ".join(one["differing"])) for one in conflicts
    ]
    console().print(table(("series", "study", "modality", "copies", "differ in"), rows))


def show_destinations(destinations: Sequence[Mapping[str, Any]]) -> None:
    """`destinations list`."""
    if not destinations:
        console().print("No destinations are configured.")
        return
    rows = [
        (
            one["name"],
            one["address"],
            one["ae_title"] or "",
            one["proof"],
            f"paused by {one['by']} since {moment(one['since'])}: {one['because']}" if one["paused"] else "",
            _counts(one["deliveries"]),
        )
        for one in destinations
    ]
    console().print(table(("destination", "address", "AE title", "proof", "", "deliveries"), rows))


def show_settings(facts: Mapping[str, Any]) -> None:
    """`check`: what a sound configuration says."""
    out = console()
    out.print(Text(f"{plain(facts['config'])} is sound", style="bold"))
    rows = [
        ("data folder", facts["data"]),
        ("doors", ", ".join(facts["doors"])),
        ("known peers", facts["peers"]),
        ("destinations", ", ".join(facts["destinations"]) or "none"),
        ("rules", ", ".join(facts["rules"]) or "none: the node only stores"),
        ("rule tests", f"{facts['rule_tests']}, all as expected"),
        ("engines", ", ".join(facts["engines"])),
    ]
    if facts["without_engine"]:
        waiting = f"{', '.join(facts['without_engine'])}: not in this version, their jobs are rejected"
        rows.append(("rules without engine", waiting))
    out.print(table(("", ""), rows))


def show_findings(findings: Sequence[Finding]) -> None:
    """`doctor`."""
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    drawn = table(("", "looked at", "found"), [])
    for one in findings:
        drawn.add_row(Text(one.verdict, style=colours[one.verdict]), plain(one.what), plain(one.words))
    console().print(drawn)


def show_run(outcome: Mapping[str, Any]) -> None:
    """`run`."""
    out = console()
    out.print(Text(f"{plain(outcome['engine'])}: {outcome['seconds']:.1f} s", style="bold"))
    rows = [("input " + slot, words) for slot, words in outcome["inputs"].items()]
    rows += [(one["kind"], one["path"]) for one in outcome["outputs"]]
    rows += [(one["name"], f"{one['value']:.5g} {one['unit']}") for one in outcome["findings"]["measurements"]]
    rows += [("lesions", len(outcome["findings"]["lesions"]))]
    rows += [("warning", words) for words in outcome["warnings"]]
    out.print(table(("", ""), rows))


def show_transfer(outcome: Mapping[str, Any]) -> None:
    """`send`."""
    out = console()
    skipped = f", {outcome['skipped']} skipped (no DICOM)" if outcome["skipped"] else ""
    out.print(f"{outcome['sent']} sent, {outcome['failed']} failed{skipped}.")
    if outcome["failures"]:
        rows = [(one["status"], one["error"], one["file"], one["comment"]) for one in outcome["failures"]]
        out.print(table(("status", "error", "file", "the peer says"), rows))


def show_explanation(explanation: Mapping[str, Any]) -> None:
    """`rules explain`."""
    out = console()
    out.print(table(("series", ""), list(explanation["series"].items())))
    out.print()
    show_decisions(explanation["decisions"])


def show_status(status: Mapping[str, Any]) -> None:
    """`status`."""
    out = console()
    out.print(Text("running" if status["running"] else "not running", style="bold"))
    nouns = ("associations", "studies", "series", "instances", "jobs", "deliveries", "commitments")
    rows = [(noun, _counts(status[noun])) for noun in nouns]
    rows += [("inbox", f"{status['inbox']} objects"), ("conflicts", f"{status['conflicts']} series")]
    if status["suv_self_test"]:
        rows.append(("SUV self-test", plain(status["suv_self_test"]["words"])))
    if status["paused"]:
        rows.append(("paused destinations", ", ".join(plain(name) for name in status["paused"])))
    for one in status["delivery_warnings"]:
        words = f"{one['instances']} accepted by {plain(one['destination'])} with {one['status']} ({one['warning']})"
        rows.append(("warnings", words))
    if status["coerced"]:
        rows.append(("coerced", f"{status['coerced']} copies that differed in identification only"))
    out.print(table(("", ""), rows))
    if status["quarantined"]:
        bad = [(one["calling_ae"] or "unknown", one["code"], one["objects"]) for one in status["quarantined"]]
        out.print()
        out.print(table(("sender", "reason", "objects"), bad, title="Quarantine"))


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {plain(state)}" for state, count in states.items()) or "none"


def show_decisions(decisions: Sequence[Mapping[str, Any]]) -> None:
    """Every rule, its verdict, and each clause with the answer it got."""
    out = console()
    if not decisions:
        out.print("The configuration has no rules.")
    for decision in decisions:
        out.print(Text(f"{plain(decision['rule'])}: {decision['verdict']}", style="bold"))
        out.print(plain(decision["reason"]))
        rows = [(one["answer"], one["series"], one["clause"], _got(one["got"])) for one in decision["clauses"]]
        out.print(table(("answer", "series", "clause", "got"), rows))
        for inputs in decision["inputs"]:
            filled = ", ".join(f"{slot} = series {plain(one)}" for slot, one in inputs.items())
            out.print(f"inputs: {filled}")
        out.print()


def _got(value: object) -> str:
    return ", ".join(plain(each) for each in value) if isinstance(value, list | tuple) else plain(value)


def show_changes(changes: Sequence[Mapping[str, Any]]) -> None:
    """`rules replay`: what the new rules would say differently."""
    if not changes:
        console().print("No stored study would change.")
        return
    rows = [(one["study"], one["rule"], one["before"], one["after"], one["reason"]) for one in changes]
    console().print(table(("study", "rule", "before", "after", "because"), rows))
