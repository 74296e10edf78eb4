"""RI by source with a line per source, for suites of more sources than the paper's table has room for as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.data.worlds import describe_kind, short_title
from rib.reporting.formatting import points
from rib.reporting.layout import FittedTable
from rib.reporting.markup import escape_latex, tabular

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable

MOST_COLUMNS = 12
"""Most sources that are columns of the paper's table; more of them are lines of a table of their own."""


def needs_lines(table: PaperTable) -> bool:
    """Return True if a table has too many sources for a column each."""
    return len(table.sources) > MOST_COLUMNS


def headings(table: PaperTable) -> list[str]:
    """Return the headings of the table of sources: one per row of the paper's table, with the model if there are two.

    Args:
        table: The paper's table.
    """
    several = len({row.model for row in table.rows}) > 1
    return ["source", *(f"{row.model} {table.label(row)}" if several else table.label(row) for row in table.rows)]


def lines(table: PaperTable) -> list[list[str]]:
    """Return the entries of the table of sources, RI in percentage points; empty where a row has no run on a source."""
    return [
        [
            short_title(name, table.kind),
            *(points(row.improvement[name]) if name in row.improvement else "" for row in table.rows),
        ]
        for name in table.sources
    ]


def source_table(table: PaperTable) -> FittedTable:
    """Return RI by source for the terminal, a line per source."""
    names = headings(table)
    found = FittedTable(
        f"RI by source, points ({describe_kind(table.kind)})",
        words=tuple(names[:1]),
        numbers=tuple(names[1:]),
        file="summary.csv",
    )
    for line in lines(table):
        found.add_row(*line)
    return found


def source_tabular(table: PaperTable) -> list[str]:
    """Return RI by source as the lines of a LaTeX table."""
    rows = [" & ".join(map(escape_latex, line)) + r" \\" for line in (headings(table), *lines(table))]
    return tabular("l" + "r" * len(table.rows), [rows[0], r"\midrule", *rows[1:]])
