"""The conformance statement as a reader takes it: tables out of Markdown, by their heads."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
DIMSE = ("DIMSE service", "SOP class UID", "SCU", "SCP")
CLASSES = ("SOP class", "UID", "SCU", "SCP")
SYNTAXES = ("preference", "transfer syntax", "UID", "also for Verification and Storage Commitment")
HEARD = ("status", "meaning", "what we do")
GIVEN = ("status", "Error Comment (0000,0902)", "when")


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1])


def tables(text: str, *heads: str) -> list[list[tuple[str, ...]]]:
    """The rows of every table with these heads, in their order."""
    found: list[list[tuple[str, ...]]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("|") and cells(line) == heads:
            assert set(next(lines)) <= set("|-")
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
                assert len(rows[-1]) == len(heads), row
            found.append(rows)
    assert found, f"no table {heads}"
    return found


def rows(text: str, *heads: str) -> list[tuple[str, ...]]:
    """The rows of the only table with these heads."""
    (only,) = tables(text, *heads)
    return only


def codes(cell: str) -> tuple[int, ...]:
    """First and last status of a row: "A700–A7FF", "0000"."""
    return tuple(int(code, 16) for code in cell.split("–"))
