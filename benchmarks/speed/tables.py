"""The tables a person reads; the result file has every round."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.readme import markdown


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result of `benchmarks.speed.receive`."""
    machine = result["machine"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['file_system']}; medians of {result['rounds']} rounds; "
        f"other programs took {result['others_cores']} cores"
    )
    for name, what in result["receivers"].items():
        console.print(f"  {name}: {what}")
    names, cases = list(result["receivers"]), result["cases"]
    _print(
        console,
        "instances per second (time relative to ours; more is slower than we are)",
        ["", *names],
        [[case["case"], *map(_speed, case["receivers"].values())] for case in cases],
    )
    _print(
        console,
        "CPU of the receiver per instance in ms: user + system",
        ["", *names],
        [[case["case"], *map(_cpu, case["receivers"].values())] for case in cases],
    )
    traced = {each["receiver"]: each["calls"] for each in result["system_calls"]}
    kinds = sorted({kind for calls in traced.values() for kind in calls})
    _print(
        console,
        f"system calls for {result['instances']} PT instances, 1 association, under strace: count (ms per instance)",
        ["", *traced],
        [[kind, *(_call(calls.get(kind)) for calls in traced.values())] for kind in kinds],
    )
    _print(
        console,
        "1 association, through a recording proxy: where the median instance spends its time, in ms",
        ["", "receiver", "request on the wire", "receiver answers", "sender prepares the next"],
        [[row["modality"], row["receiver"], *map(_ms, list(row.values())[2:])] for row in result["wire"]],
    )
    _print(
        console,
        "our spool alone, one writer, no network: the median instance, in ms",
        ["", "create and write", "flush file, rename, flush folder", "instances per second"],
        [
            [row["modality"], _ms(row["write_ms"]), _ms(row["commit_ms"]), f"{row['instances_per_s']:.0f}"]
            for row in result["spool_alone"]
        ],
    )


def for_readme(result: dict[str, Any]) -> str:
    """The Markdown table of instances per second, with time relative to ours in brackets."""
    rows = [[case["case"], *map(_speed, case["receivers"].values())] for case in result["cases"]]
    return markdown(["instances/s (time relative to ours)", *result["receivers"]], rows)


def _print(console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _speed(of: dict[str, Any]) -> str:
    return f"{of['instances_per_s']:.0f} ({of['time_relative_to_ours']:.2f})"


def _cpu(of: dict[str, Any]) -> str:
    return f"{of['receiver_user_ms']:.2f} + {of['receiver_system_ms']:.2f}"


def _call(call: dict[str, Any] | None) -> str:
    return f"{call['count']} ({call['ms_per_instance']:.3f})" if call else "–"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}"
