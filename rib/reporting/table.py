"""The paper's table: rows are models and methods, columns sources, then mRI with its intervals.

    table = paper_table(results, store)
    table.rich(), table.markdown(), table.latex(), table.frame()

Which runs go in is the caller's choice; that they may stand side by side is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rib.config.shipped import shipped_nodes
from rib.data.worlds import catalog_of, title_of
from rib.errors import RibError
from rib.reporting.comparability import comparable, what_differs
from rib.reporting.formatting import before_after, points, with_interval, world
from rib.reporting.summary import LEVEL, Summary, labelled, summarise
from rib.runs.measure import interval_dict
from rib.runs.run import Result
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from pandas import DataFrame

TEST = (
    f"differs from plain fine-tuning of the same model: two-sided paired z-test of the difference in mRI over the "
    f"sources and seeds that both have, photographs resampled (closed form), Holm over {{comparisons}} comparisons at "
    f"{100 * LEVEL:.0f} %; about other images, not about training again"
)

TRIAL = " (search trial)"
"""Behind the method of a row that was made to choose a setting."""


@dataclass(frozen=True)
class PaperTable:
    """A table's rows and what is said below it.

    Attributes:
        rows: One a model and method, the best of each model first.
        axes: Settings that are columns, since they differ between rows.
        common: Options that all rows share, which no row repeats.
        sources: Columns, in the catalog's order: every source with a run.
        asked: Sources that were asked for, those without a run among them.
        kind: ``mini`` or ``user``.
        suite: Its name.
        about: Data, suite and switches, in words.
    """

    rows: Sequence[Summary]
    axes: tuple[str, ...]
    common: Mapping[str, Any]
    sources: tuple[str, ...]
    asked: tuple[str, ...]
    kind: str
    suite: str
    about: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the table is of, for a dashboard."""
        return {
            "data": self.kind,
            "suite": self.suite,
            "about": self.about,
            "models": sorted({row.model for row in self.rows}),
            "methods": sorted({self.label(row) for row in self.rows}),
            "sources": list(self.sources),
            "asked": list(self.asked),
            "common": dict(self.common),
            "notes": self.notes,
        }

    @property
    def numbers(self) -> dict[str, float]:
        """MRI and its interval over images, in points: ``mRI/mini_small/ewc strength=10/value``."""
        return {
            f"mRI/{row.model}/{self.label(row)}/{name}": getattr(row.over_images, name)
            for row in self.rows
            for name in ("value", "low", "high")
        }

    @property
    def shared(self) -> str:
        """``All with epochs=1, data.limit=60``; empty where nothing but defaults is shared."""
        return "All with " + ", ".join(f"{k}={v}" for k, v in self.common.items()) if self.common else ""

    @property
    def best(self) -> set[int]:
        """Rows with the best mRI of their model, of those that have every source and that no target has chosen.

        mRI is of targets, so that the best of several settings of one method would be chosen on them: of these the
        default counts, if it is there, and no trial of a search does.
        """
        whole = [i for i, row in enumerate(self.rows) if len(row.improvement) == len(self.sources) and self._alone(row)]
        tops = {self.rows[i].model: self.rows[i].over_images.value for i in reversed(whole)}
        return {i for i in whole if self.rows[i].over_images.value == tops[self.rows[i].model]}

    def _alone(self, row: Summary) -> bool:
        """Whether a row is its method's only setting, or its default one, and none that was tried to find a better."""
        settings = sum((other.model, other.method) == (row.model, row.method) for other in self.rows)
        return not row.is_trial and (settings == 1 or self.label(row) == row.method)

    @property
    def notes(self) -> list[str]:
        """Sentences below the table."""
        missing = [self._short(name) for name in self.asked if name not in self.sources]
        compared = sum(row.against_plain is not None for row in self.rows)
        said = [
            "RI and mRI (its mean over sources) in percentage points; 95 % intervals over images, then over seeds; "
            f"ImageNet val in percent, before > after; {self.about}.",
            f"No run on {', '.join(missing)}: mRI is over the sources that are there." if missing else "",
            self.shared and f"{self.shared}.",
            self._bold,
            f"* {TEST.format(comparisons=compared)}." if compared else "",
        ]
        return [line for line in said if line]

    @property
    def _bold(self) -> str:
        said = "Bold: best mRI of a model" if self.best else "Nothing is bold"
        if all(map(self._alone, self.rows)):
            return f"{said}." if self.best else ""
        why = "the best of several settings or of a search's trials would be chosen on targets"
        return f"{said}; {why}, so that of a method in several settings only its default can be it."

    @property
    def columns(self) -> list[str]:
        """Headings, as in `cells`."""
        return [
            "model",
            "method",
            *(axis.removeprefix("method.") for axis in self.axes),
            *map(self._short, self.sources),
            "mRI [images]",
            "[seeds]",
            "over",
            "val %",
        ]

    def label(self, row: Summary) -> str:
        """A row's method with the options that not all rows share, ``ewc strength=10``."""
        label = labelled(row.method, {k: v for k, v in row.options.items() if k not in self.common})
        return label + TRIAL * row.is_trial

    def cells(self, row: Summary) -> list[str]:
        """What a row says, one a column."""
        seeds = f"[{points(row.over_seeds.low)}, {points(row.over_seeds.high)}]" if row.over_seeds else _no_seeds(row)
        return [
            row.model,
            labelled(row.method, {k: v for k, v in row.options.items() if k not in {*self.axes, *self.common}})
            + TRIAL * row.is_trial,
            *(value_of(row, axis) for axis in self.axes),
            *(points(row.improvement[name]) if name in row.improvement else "" for name in self.sources),
            with_interval(interval_dict(row.over_images)) + ("*" if row.stands else ""),
            seeds + (f" ({len(row.seeds)})" if row.over_seeds else ""),
            f"{len(row.improvement)} of {len(self.asked)}",
            before_after(100 * row.val_before, 100 * row.val_after),
        ]

    def cost_cells(self, row: Summary) -> list[str]:
        """The second table's: accuracy on the sources, and what a run took."""
        return [
            *self.cells(row)[: 2 + len(self.axes)],
            before_after(100 * row.source_before, 100 * row.source_after),
            f"{row.seconds:.1f}",
            f"{row.made_from} run{'s' * (row.made_from > 1)}" if row.made_from else "",
        ]

    @property
    def cost_columns(self) -> list[str]:
        """Headings, as in `cost_cells`."""
        return [*self.columns[: 2 + len(self.axes)], "on the source %", "s a run", "made from"]

    def rich(self) -> tuple[Table, Table]:
        """For a terminal: the table, and accuracy on the sources with cost."""
        best = self.best
        bold = ["bold" if i in best else "" for i in range(len(self.rows))]
        table, cost = Table(caption="\n".join(self.notes), caption_justify="left"), Table()
        for made, columns, cells in (
            (table, self.columns, self.cells),
            (cost, self.cost_columns, self.cost_cells),
        ):
            for number, column in enumerate(columns):
                made.add_column(Text(column), justify="left" if number < 2 else "right")
            for i, row in enumerate(self.rows):
                last = i + 1 == len(self.rows) or self.rows[i + 1].model != row.model
                made.add_row(*map(Text, cells(row)), style=bold[i], end_section=last)
        return table, cost

    def markdown(self) -> str:
        """The same for a README."""
        best, place = self.best, self.columns.index("mRI [images]")
        rows = [self.cells(row) for row in self.rows]
        for i, row in enumerate(rows):
            value, mark = row[place].removesuffix("*"), "\\*" if self.rows[i].stands else ""
            row[place] = (f"**{value}**" if i in best else value) + mark
        notes = "\n".join(f"{line}  " for line in self.notes).replace("* differs", "\\* differs")
        cost = _markdown(self.cost_columns, [self.cost_cells(row) for row in self.rows])
        return f"{_markdown(self.columns, rows)}\n{notes}\n\n{cost}"

    def latex(self) -> str:
        r"""For a paper: ``\usepackage{booktabs}``, then ``\input`` this file."""
        best, place = self.best, self.columns.index("mRI [images]")
        lines = [" & ".join(map(_tex, self.columns)) + r" \\", r"\midrule"]
        for i, row in enumerate(self.rows):
            cells = [_tex(cell) for cell in self.cells(row)]
            value, mark = cells[place].removesuffix("*"), r"\textsuperscript{*}" if row.stands else ""
            cells[place] = (rf"\textbf{{{value}}}" if i in best else value) + mark
            if i and self.rows[i - 1].model != row.model:
                lines.append(r"\midrule")
            lines.append(" & ".join(cells) + r" \\")
        layout = "ll" + "r" * (len(self.columns) - 2)
        notes = [r"\par\smallskip\footnotesize " + r"\\ ".join(map(_tex, self.notes))]
        body = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
        return "\n".join(["% needs booktabs", *body, *notes]) + "\n"

    def frame(self) -> DataFrame:
        """Every number, unrounded: one row a model and method; points and percent."""
        import pandas as pd

        return pd.DataFrame([self._numbers(row) for row in self.rows])

    def _numbers(self, row: Summary) -> dict[str, Any]:
        seeds, against, nan = row.over_seeds, row.against_plain, float("nan")
        return {
            "model": row.model,
            "method": row.method,
            **{axis.removeprefix("method."): value_of(row, axis) for axis in self.axes},
            "options": ", ".join(f"{k}={v}" for k, v in row.options.items()),
            **{f"ri.{name}": row.improvement.get(name, nan) for name in self.sources},
            "num_sources": len(row.improvement),
            "mri": row.over_images.value,
            "mri_low": row.over_images.low,
            "mri_high": row.over_images.high,
            "mri_seeds_low": seeds.low if seeds else nan,
            "mri_seeds_high": seeds.high if seeds else nan,
            "num_seeds": len(row.seeds),
            "against_finetune": against.difference if against else nan,
            "against_finetune_error": against.error if against else nan,
            "p": against.p if against else nan,
            "p_holm": row.p_adjusted,
            "val_before": 100 * row.val_before,
            "val_after": 100 * row.val_after,
            "source_before": 100 * row.source_before,
            "source_after": 100 * row.source_after,
            "seconds": row.seconds,
            "made_from": row.made_from,
            "is_trial": row.is_trial,
        }

    def _short(self, name: str) -> str:
        return title_of(name, self.kind).removeprefix("ImageNet-")


def paper_table(results: Iterable[Result], store: RunStore, asked: Sequence[str] = ()) -> PaperTable:
    """The table of runs that were fine-tuned, whatever chose them.

    Args:
        results: Finished runs, each with its metrics; pretrained ones are passed over.
        store: Where they and their `pretrained` runs are.
        asked: Sources that the table is meant to be about; what was refused or failed is then said to be missing.

    Raises:
        RibError: If there is none, if they may not share a table (it says what differs), or if the `pretrained` run
            behind one is gone.
    """
    groups = comparable((run, m) for run, m in results if m["source"] != "none" and m["robustness_improvement"])
    if not groups:
        raise RibError("expected fine-tuned runs for a table, got none")
    if len(groups) > 1:
        raise RibError("these runs may not share a table: " + "; ".join(what_differs(groups)))
    metrics = [m for _, m in groups[0].results]
    kind = metrics[0]["data"]["kind"]
    catalog = catalog_of(kind)
    rows = summarise(groups[0].results, store, catalog)
    there = {source for row in rows for source in row.improvement}
    sources = tuple(name for name in catalog.specs if name in there)
    axes = _axes(rows)
    general = {k: v for k, v in rows[0].options.items() if not k.startswith("method.")}
    common = {k: v for k, v in general.items() if all(row.options.get(k) == v for row in rows)}
    wanted = tuple(name for name in catalog.specs if name in {*asked, *sources})
    return PaperTable(rows, axes, common, sources, wanted, kind, metrics[0]["suite"], _about(metrics))


def value_of(row: Summary, axis: str) -> str:
    """A row's value of a setting; empty where its method has no such option."""
    if axis in row.settings:
        return str(row.settings[axis])
    if not axis.startswith("method."):
        return "default"
    _, method, option = axis.split(".", 2)
    if method not in row.method.split("+"):
        return ""
    default = shipped_nodes("method").get(method, {}).get(option)
    return "default" if default is None else str(default)


def _no_seeds(row: Summary) -> str:
    """Why there is no interval over seeds."""
    return "one seed" if len(row.seeds) < 2 else "seeds share runs"


def _axes(rows: Sequence[Summary]) -> tuple[str, ...]:
    """General settings that differ between any two rows, and a method's own that differ within it."""
    found = []
    for key in dict.fromkeys(key for row in rows for key in row.settings):
        of_method = key.startswith(("method.", "paper."))
        groups = {row.method for row in rows} if of_method else {None}
        values = [{value_of(row, key) for row in rows if method in (None, row.method)} for method in groups]
        if any(len(different) > 1 for different in values):
            found.append(key)
    return tuple(found)


def _about(metrics: Sequence[Metrics]) -> str:
    """Data, suite, protocol, and the switches that are on in any run."""
    first = metrics[0]
    said = [world(first), f"suite {first['suite']}"]
    if first["protocol"]["experiment"]:
        said.append(f"experiment {first['protocol']['experiment']}")
    switches = {k: v for m in metrics for k, v in m["protocol"]["switches"].items()}
    if incomplete := switches.pop("incomplete", None):
        said.append(f"incomplete: {', '.join(incomplete)}")
    return ", ".join([*said, *(f"{k}={v}" for k, v in sorted(switches.items()))])


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _tex(text: str) -> str:
    """Plain text for LaTeX: its special characters escaped, minus signs and ``>`` in mathematics."""
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    escaped = escaped.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped).replace(" > ", r" $\to$ ")
