"""Tables of a README come from result files and from nowhere else: between two marks, rewritten by the benchmark."""

from collections.abc import Iterable, Sequence
from pathlib import Path

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
