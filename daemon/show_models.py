"""Models, trainings and evaluations as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from daemon.show import console, moment, table
from daemon.terminal import plain

DIGEST_SHOWN = 12


def show_models(found: Sequence[Mapping[str, Any]]) -> None:
    """`models list`."""
    if not found:
        console().print("No models: every engine uses the weights it is shipped with.")
        return
    rows = [
        (
            one["engine"],
            one["sha256"][:DIGEST_SHOWN],
            one["state"],
            one["architecture"],
            moment(one["created"]),
            one["data"],
        )
        for one in found
    ]
    console().print(table(("engine", "sha256", "state", "network", "created", "trained on"), rows))


def show_model(found: Mapping[str, Any]) -> None:
    """`models show`: what it is, what its card says, and what became of it."""
    out = console()
    out.print(
        Text(f"Model {found['sha256'][:DIGEST_SHOWN]} of {plain(found['engine'])}: {found['state']}", style="bold")
    )
    out.print(table(("", ""), [("sha256", found["sha256"]), ("file", found["path"]), *_card_rows(found["card"])]))
    rows = [(moment(one["at"]), one["actor"], one["to"], one["reason"]) for one in found["history"]]
    out.print()
    out.print(table(("at", "by", "became", "because"), rows, title="History"))


def show_imported(done: Mapping[str, Any]) -> None:
    """`models import --out`."""
    out = console()
    out.print(f"{plain(done['path'])} and its card")
    out.print(table(("", ""), [("sha256", done["sha256"]), *_card_rows(done["card"])]))


def _card_rows(card: Mapping[str, Any]) -> list[tuple[str, object]]:
    network = card["architecture"]
    told = ", ".join(f"{key} {value}" for key, value in network["arguments"].items())
    measured = [(f"measured {name}", value) for name, value in card["metrics"].items()]
    return [
        ("network", f"{network['name']} {told}"),
        ("trained on", card["data"]),
        ("seed", card["seed"]),
        ("by", card["commit"]),
        ("created", moment(card["created"])),
        ("intended use", card["intended_use"]),
        *measured,
    ]


def show_training(done: Mapping[str, Any]) -> None:
    """`train`."""
    out = console()
    out.print(
        Text(f"Trained {plain(done['engine'])}, preset {plain(done['preset'])}, seed {done['seed']}", style="bold")
    )
    measured = [(f"measured {name}", value) for name, value in done["metrics"].items()]
    rows = [
        ("weights", done["weights"]),
        ("sha256", done["sha256"]),
        ("cases", done["learned_from"]),
        ("chosen by", done["chosen_by"]),
        *measured,
        ("take it in", f"tracerd models import {done['weights']}"),
    ]
    out.print(table(("", ""), rows))


def show_evaluation(done: Mapping[str, Any]) -> None:
    """`evaluate`: every number with its interval and how many studies it is of."""
    out, summary = console(), done["summary"]
    used = done["weights_sha256"]
    title = f"{plain(done['engine'])}, weights {used[:DIGEST_SHOWN] if used else 'none'}: {summary['studies']} studies"
    out.print(Text(title, style="bold"))
    rows = [
        (name, each["n"], each["mean"], f"{each['low']:.4g} to {each['high']:.4g}", each["median"])
        for name, each in summary.items()
        if isinstance(each, Mapping) and each.get("n")
    ]
    out.print(table(("", "n", "mean", "95 % interval", "median"), rows))
    for code, count in summary["refused"].items():
        out.print(f"{count} refused: {plain(code)}")
    if done["without_truth"]:
        out.print(f"{done['without_truth']} left out: nobody drew a truth")
