"""Notes below the paper's table: its units, rows on other sources, rows without a test, and what bold type means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rib.data.worlds import in_distribution_of, short_title, title_of
from rib.reporting.axes import value_of
from rib.reporting.bold import note_on_bold
from rib.reporting.summary import LEVEL, PLAIN, Summary
from rib.runtime.counting import plural

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable

SCORING_ONLY = "Seconds of external weights are those of scoring alone."

TEST = (
    "differs from plain fine-tuning of the same model: paired z-test of mRI, on the sources and seeds that both "
    f"have, over new samples of images (not another training), Holm over {{comparisons}} at {100 * LEVEL:.0f} %"
)


def notes_of(table: PaperTable) -> list[str]:
    """Return the notes of a table, a line each.

    Args:
        table: Its ``notes`` are these.
    """
    compared = sum(row.against_plain is not None for row in table.rows)
    comparisons, shown = plural(compared, "comparison"), in_distribution_of(table.kind)
    lines = [
        "RI, and mRI, its mean over sources, in percentage points; 95 % intervals over images, then over seeds"
        f"{'' if shown is None else f'; {title_of(shown, table.kind)} in percent, before > after'}.",
        _on_sources(table),
        table.heads,
        table.shared and f"{table.shared}.",
        note_on_bold(table.rows, table.best),
        f"* {TEST.format(comparisons=comparisons)}." if compared else "",
        note_on_untested(table),
        table.selection and f"{table.selection}.",
    ]
    return [line for line in lines if line]


def untested(rows: Sequence[Summary]) -> list[Summary]:
    """Return the rows without a test against plain fine-tuning; none for a table that has no plain fine-tuning."""
    if not any(row.method == PLAIN for row in rows):
        return []
    return [row for row in rows if row.against_plain is None and row.method != PLAIN]


def full_name(table: PaperTable, row: Summary) -> str:
    """Return a row's label with every setting that tells rows of its method apart, defaults too: ``lwf epochs=5``.

    It is for readers; a dashboard's numbers go by `PaperTable.label`, which does not depend on the other rows.

    Args:
        table: The table.
        row: One of its rows.
    """
    if row.is_external:
        return table.label(row)
    own = [other for other in table.rows if other.method == row.method]
    apart = {axis: value_of(row, axis) for axis in table.axes if len({value_of(other, axis) for other in own}) > 1}
    return table.label(replace(row, options={**apart, **row.options}))


def note_on_untested(table: PaperTable) -> str:
    """Return a sentence that names the rows without a test, whose missing star says nothing; empty without any."""
    if not (rows := untested(table.rows)):
        return ""
    models = len({row.model for row in table.rows}) > 1
    names = [f"{row.model} {full_name(table, row)}" if models else full_name(table, row) for row in rows]
    return f"Not compared with {PLAIN}, which has no run with their settings, source and seed: {', '.join(names)}."


def differing_sources(rows: Sequence[Summary]) -> bool:
    """Return True if the mRI of some rows is over other sources than that of others."""
    return len({frozenset(row.improvement) for row in rows}) > 1


def by_sources(rows: Sequence[Summary], sources: Sequence[str]) -> list[Summary]:
    """Return rows with those of one model and set of sources together, the largest set of each model first.

    Args:
        rows: In the order that those of one set keep.
        sources: All sources, in the order of the table's columns.
    """
    models = list(dict.fromkeys(row.model for row in rows))

    def place(row: Summary) -> tuple[int, int, list[int]]:
        own = sorted(map(sources.index, row.improvement))
        return models.index(row.model), -len(own), own

    return sorted(rows, key=place)


def _on_sources(table: PaperTable) -> str:
    """Return the note that says over which sources mRI is, where these are not all that were asked for."""
    titles = {name: short_title(name, table.kind) for name in table.asked}
    missing = [titles[name] for name in table.asked if name not in table.sources]
    none = f"No run on {', '.join(missing)}" if missing else ""
    if len(table.sources) == 1:
        return f"{none}{'; one' if none else 'One'} source, {titles[table.sources[0]]}: mRI is the RI on it."
    if differing_sources(table.rows):
        compare = "compare only rows with the same ones, which stand together"
        return f"{none}{'. ' * bool(none)}The mRI of a row is over the sources that it has an RI of; {compare}."
    return f"{none}: mRI is over the other sources." if none else ""
