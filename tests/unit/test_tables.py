"""Every table of a README is the one that its result files give."""

import pytest

from benchmarks.machine import REPOSITORY
from benchmarks.tables import TABLES, Table


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.results)
def test_readme_and_results_agree(table: Table) -> None:
    text = table.text()
    assert text is not None, f"{table.results}: nothing was measured"
    assert f"<!-- table of {table.results} -->\n{text}\n" in (REPOSITORY / table.readme).read_text()
