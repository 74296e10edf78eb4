"""The paper's table: one row per model and method, robustness improvement (RI) by source, then its mean (mRI).

    table = paper_table(results, store)
    table.rich(), table.markdown(), table.latex(), table.frame()

The caller chooses the runs; `paper_table` raises a RibError if they cannot share a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rib.data.worlds import catalog_of, describe_kind, logged_name, short_title
from rib.errors import RibError
from rib.reporting.apart import explain_groups
from rib.reporting.axes import setting_axes, value_of
from rib.reporting.bold import best_rows
from rib.reporting.comparability import group_comparable
from rib.reporting.formatting import before_after, in_distribution_heading, points, with_interval, world_and_suite
from rib.reporting.heads import note_on_heads
from rib.reporting.layout import FittedTable
from rib.reporting.markup import escape_latex, markdown_table, tabular
from rib.reporting.shared_options import describe_shared, shared_options
from rib.reporting.sorting import Order
from rib.reporting.source_table import headings, lines, needs_lines, source_table, source_tabular
from rib.reporting.summary import Summary, label_with_options, summarise
from rib.reporting.table_notes import SCORING_ONLY, by_sources, notes_of
from rib.runs.measure import interval_dict
from rib.runs.run import Result
from rib.runs.store import RunStore
from rib.runtime.counting import plural
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from pandas import DataFrame

COST = ("images trained per run", "scored", "seconds", "device")
"""Headings of the columns that say what one run costs, the mean over seeds and sources."""

VALUES: Mapping[str, Callable[[Summary], float | str]] = {
    "mRI": lambda row: row.over_images.value,
    "source": lambda row: row.source_after,
    "val": lambda row: row.val_after,
    "seconds": lambda row: row.seconds,
    "model": lambda row: row.model,
    "method": lambda row: label_with_options(row.method, row.options),
}
"""Value of each column that rows can be sorted by."""

TRIAL = " (search trial)"
"""Suffix of the method in rows whose runs were made to choose a setting."""


@dataclass(frozen=True)
class PaperTable:
    """A table of comparable runs, rendered for the terminal, Markdown, LaTeX or pandas.

    Attributes:
        rows: One per model, method and settings, the best of each model and set of sources first.
        axes: Settings that differ between rows and get a column each.
        common: Options that all rows share; they are named once, below the table.
        sources: Sources with a run, in the catalog's order; one column each if there are several.
        asked: Sources that the table was requested for, with or without a run.
        kind: Kind of data, ``mini``, ``user`` or the name of a suite.
        suite: Name of the suite.
        about: Description of data, suite and switches.
        num_runs: Number of runs behind the rows.
        selection: Sentence that says which runs were left out by filters; empty if none was.
        heads: Sentence on the heads of models without outputs of their own (`rib.reporting.heads`); empty if none is.
    """

    rows: Sequence[Summary]
    axes: tuple[str, ...]
    common: Mapping[str, Any]
    sources: tuple[str, ...]
    asked: tuple[str, ...]
    kind: str
    suite: str
    about: str
    num_runs: int
    selection: str = ""
    heads: str = ""

    @property
    def title(self) -> str:
        """Title of the table: data, suite, number of runs and their sources."""
        count = plural(self.num_runs, "run")
        names = f"{len(self.sources)} sources" if needs_lines(self) else ", ".join(map(self._short, self.sources))
        return f"Robustness improvement on {self.about}: {count} on {names}"

    @property
    def metadata(self) -> dict[str, Any]:
        """Description of the table for a dashboard: its data, rows, columns and notes."""
        return {
            "data": self.kind,
            "suite": self.suite,
            "about": self.about,
            "models": sorted({row.model for row in self.rows}),
            "methods": sorted({self.label(row) for row in self.rows}),
            "sources": [logged_name(name, self.kind) for name in self.sources],
            "asked": [logged_name(name, self.kind) for name in self.asked],
            "common": dict(self.common),
            "notes": self.notes,
        }

    @property
    def numbers(self) -> dict[str, float]:
        """Each row's mRI and interval over images, percentage points, by name: ``mRI/mini_small/ewc/low``."""
        return {
            f"mRI/{row.model}/{self.label(row)}/{name}": getattr(row.over_images, name)
            for row in self.rows
            for name in ("value", "low", "high")
        }

    @property
    def shared(self) -> str:
        """Text that names the options of all rows, ``All with epochs=1, data.limit=60``; empty if there is none."""
        return describe_shared(self.common, [(row.options, row.is_external) for row in self.rows])

    @property
    def best(self) -> set[int]:
        """Indices of the rows printed in bold (`rib.reporting.bold`)."""
        return best_rows(self.rows, len(self.sources))

    @property
    def notes(self) -> list[str]:
        """Notes printed below the table, such as the meaning of its intervals and of bold type."""
        return notes_of(self)

    @property
    def columns(self) -> list[str]:
        """Column headings of the main table (RI by source, if there are several, and mRI), in the order of `cells`."""
        return [
            "model",
            "method",
            *(axis.removeprefix("method.") for axis in self.axes),
            *map(self._short, self._columns_of_sources),
            "mRI [images]",
            "[seeds]",
            "sources",
            *self._columns_of_val,
        ]

    @property
    def _columns_of_sources(self) -> tuple[str, ...]:
        """The sources with a column; none if there is one source alone, since RI on it is mRI, or too many of them."""
        return self.sources if len(self.sources) > 1 and not needs_lines(self) else ()

    @property
    def _columns_of_val(self) -> tuple[str, ...]:
        """Heading of the accuracy in distribution; none if the suite has no such dataset."""
        heading = in_distribution_heading(self.kind)
        return () if heading is None else (heading,)

    def label(self, row: Summary) -> str:
        """Return a row's name: its method with the options that not all rows share, ``ewc strength=10``."""
        label = label_with_options(row.method, {k: v for k, v in row.options.items() if k not in self.common})
        return label + TRIAL * row.is_trial

    def cells(self, row: Summary) -> list[str]:
        """Return the entries of a row in the main table (RI by source, and mRI) as text, one per column."""
        seeds = f"[{points(row.over_seeds.low)}, {points(row.over_seeds.high)}]" if row.over_seeds else _no_seeds(row)
        options = {k: v for k, v in row.options.items() if k not in {*self.axes, *self.common}}
        return [
            row.model,
            label_with_options(row.method, options) + TRIAL * row.is_trial,
            *(value_of(row, axis) for axis in self.axes),
            *(points(row.improvement[name]) if name in row.improvement else "" for name in self._columns_of_sources),
            with_interval(interval_dict(row.over_images)) + ("*" if row.is_significant else ""),
            seeds + (f" ({len(row.seeds)})" if row.over_seeds else ""),
            f"{len(row.improvement)} of {len(self.asked)}",
            *(before_after(100 * row.val_before, 100 * row.val_after) for _ in self._columns_of_val),
        ]

    def cost_cells(self, row: Summary) -> list[str]:
        """Return the entries of a row in the cost table as text: accuracy on sources, images, time, merged runs."""
        return [
            *self.cells(row)[: 2 + len(self.axes)],
            before_after(100 * row.source_before, 100 * row.source_after),
            "unknown" if row.is_external else f"{row.images_trained:,.0f}",
            f"{row.images_scored:,.0f}",
            f"{row.seconds:.1f}",
            ", ".join(row.devices),
            plural(row.made_from, "run") if row.made_from else "",
        ]

    @property
    def cost_columns(self) -> list[str]:
        """Column headings of the cost table, in the order of `cost_cells`."""
        return [*self.columns[: 2 + len(self.axes)], "on the source %", *COST, "made from"]

    def rich(self) -> tuple[FittedTable, ...]:
        """Return the main table (mRI) and the cost table (accuracy on the sources, time) for the terminal.

        Of many sources, RI by source is a table of its own between the two.
        """
        best = self.best
        world = describe_kind(self.kind)
        tables = (
            FittedTable(
                self.title,
                words=tuple(self.columns[:2]),
                numbers=tuple(self.columns[2:]),
                notes=tuple(self.notes),
                optional=(
                    ("[seeds]",),
                    self._columns_of_val,
                    tuple(map(self._short, self._columns_of_sources)),
                    ("sources",),
                ),
                file="summary.csv",
            ),
            FittedTable(
                f"Cost, and accuracy on the sources ({world})",
                words=tuple(self.cost_columns[:2]),
                numbers=tuple(self.cost_columns[2:-2]),
                prose=tuple(self.cost_columns[-2:]),
                optional=(*((name,) for name in ("made from", "scored", "device", COST[0])),),
                file="summary.csv",
                notes=(SCORING_ONLY,) * any(row.is_external for row in self.rows),
            ),
        )
        for table, cells in zip(tables, (self.cells, self.cost_cells), strict=True):
            for i, row in enumerate(self.rows):
                last = i + 1 == len(self.rows) or _part(self.rows[i + 1]) != _part(row)
                table.add_row(*cells(row), style="bold" if i in best else "", end_section=last)
        return (tables[0], source_table(self), tables[1]) if needs_lines(self) else tables

    def markdown(self) -> str:
        """Return the main table, its notes and the cost table as Markdown."""
        best, column = self.best, self.columns.index("mRI [images]")
        rows = [self.cells(row) for row in self.rows]
        for i, row in enumerate(rows):
            value, mark = row[column].removesuffix("*"), "\\*" if self.rows[i].is_significant else ""
            row[column] = (f"**{value}**" if i in best else value) + mark
        # Two spaces end a line in Markdown; a bare asterisk would start italics.
        notes = "\n".join(f"{line}  " for line in self.notes).replace("* differs", "\\* differs")
        cost = markdown_table(self.cost_columns, [self.cost_cells(row) for row in self.rows])
        by_source = f"{markdown_table(headings(self), lines(self))}\n\n" if needs_lines(self) else ""
        return f"**{self.title}**\n\n{markdown_table(self.columns, rows)}\n{notes}\n\n{by_source}{cost}"

    def latex(self) -> str:
        r"""Return the main table as LaTeX, to ``\input`` in a paper that uses the package booktabs."""
        best, column = self.best, self.columns.index("mRI [images]")
        rows = [" & ".join(map(escape_latex, self.columns)) + r" \\", r"\midrule"]
        for i, row in enumerate(self.rows):
            cells = [escape_latex(cell) for cell in self.cells(row)]
            value, mark = cells[column].removesuffix("*"), r"\textsuperscript{*}" if row.is_significant else ""
            cells[column] = (rf"\textbf{{{value}}}" if i in best else value) + mark
            if i and _part(self.rows[i - 1]) != _part(row):
                rows.append(r"\midrule")
            rows.append(" & ".join(cells) + r" \\")
        notes = [r"\par\smallskip\footnotesize " + r"\\ ".join(map(escape_latex, [f"{self.title}.", *self.notes]))]
        body = tabular("ll" + "r" * (len(self.columns) - 2), rows)
        if needs_lines(self):
            body += [r"\par\medskip", *source_tabular(self)]
        return "\n".join(["% needs booktabs", *body, *notes]) + "\n"

    def frame(self) -> DataFrame:
        """Return the unrounded numbers of the main and cost tables; mRI in percentage points, accuracies in percent."""
        from rib.reporting.paper_frame import frame_of

        return frame_of(self)

    def _short(self, name: str) -> str:
        return short_title(name, self.kind)


def paper_table(
    results: Iterable[Result],
    store: RunStore,
    asked: Sequence[str] = (),
    order: Order | None = None,
    selection: str = "",
) -> PaperTable:
    """Build the paper's table from fine-tuned runs that are comparable.

    Args:
        results: Finished runs, each with its metrics; pretrained ones are skipped.
        store: The store that holds them and their `pretrained` runs.
        asked: Sources that the table is meant to cover; a note names those without a run.
        order: Order of the rows of one model and set of sources; None for the best first.
        selection: Sentence that says which runs were left out by filters, for the notes.

    Raises:
        RibError: If there is no fine-tuned run, if the runs cannot share a table (the message says what differs), or
            if the `pretrained` run behind one is gone.
        DamagedError: If predictions cannot be read.
    """
    groups = group_comparable((run, m) for run, m in results if m["source"] != "none" and m["robustness_improvement"])
    if not groups:
        raise RibError("expected fine-tuned runs for a table, got none")
    if len(groups) > 1:
        raise RibError("these runs cannot share a table: " + "; ".join(explain_groups(groups)))
    metrics = [m for _, m in groups[0].results]
    # A group has one kind of data. The names of its suites may differ if their datasets agree: the first one is shown.
    kind = metrics[0]["data"]["kind"]
    catalog = catalog_of(kind)
    rows = summarise(groups[0].results, store, catalog)
    with_runs = {source for row in rows for source in row.improvement}
    sources = tuple(name for name in catalog.specs if name in with_runs)
    rows = by_sources(rows if order is None else order.sort(rows, VALUES), sources)
    axes = setting_axes(rows)
    # Options of external weights are those of their scoring: they have no say in what the other rows share.
    shared = shared_options([(row.options, row.is_external) for row in rows])
    common = {k: v for k, v in shared.items() if not k.startswith("method.")}
    # A source that has runs counts as asked for.
    wanted = tuple(name for name in catalog.specs if name in {*asked, *sources})
    suite, about = metrics[0]["suite"], _about(metrics)
    heads = note_on_heads(metrics)
    return PaperTable(rows, axes, common, sources, wanted, kind, suite, about, len(metrics), selection, heads)


def _part(row: Summary) -> tuple[str, frozenset[str]]:
    """Return what rows that are compared with one another share: the model, and the sources that mRI is over."""
    return row.model, frozenset(row.improvement)


def _no_seeds(row: Summary) -> str:
    """Return the text shown in place of an interval over seeds, which says why a row has none."""
    if row.is_external:
        return "no seed"
    return "one seed" if len(row.seeds) < 2 else "seeds share runs"


def _about(metrics: Sequence[Metrics]) -> str:
    """Describe a table's data, suite and experiment, and the protocol switches that are on in any of its runs."""
    first = metrics[0]
    items = [world_and_suite(first)]
    if first["protocol"]["experiment"]:
        items.append(f"experiment {first['protocol']['experiment']}")
    switches = {k: v for m in metrics for k, v in m["protocol"]["switches"].items()}
    if incomplete := switches.pop("incomplete", None):
        items.append(f"incomplete: {', '.join(incomplete)}")
    return ", ".join([*items, *(f"{k}={v}" for k, v in sorted(switches.items()))])
