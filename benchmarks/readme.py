"""Tables of a README come from result files and from nowhere else: between two marks, rewritten by the benchmark."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import BUSY_CORES, REPOSITORY, write_result

ENDS = "<!-- end of table -->"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def rewrite(readme: Path, result: str, table: str) -> None:
    """Put a table between the marks of a result, named by its path in the repository."""
    begins = f"<!-- table of {result} -->"
    before, _, rest = readme.read_text().partition(begins)
    _, ends, after = rest.partition(ENDS)
    if not ends:
        raise SystemExit(f"{readme}: expected the lines {begins} and {ENDS}")
    readme.write_text(f"{before}{begins}\n{table}\n{ENDS}{after}")


def keep(
    console: Console,
    readme: Path | None,
    name: str,
    result: Mapping[str, Any],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Write a result, show its table, say whether the machine was busy; into a README too, if one is given."""
    path = write_result(name, result)
    text = table(json.loads(path.read_text()))
    console.print(text)
    if result["others_cores"] > BUSY_CORES:
        console.print("This machine was busy with other work: do not keep these numbers.", style="bold red")
    if readme is not None:
        rewrite(readme, f"benchmarks/results/{name}.json", text)
    console.print(f"written: {path.relative_to(REPOSITORY)}")
