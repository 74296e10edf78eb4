"""Figure of mRI by method, with accuracy on the source and on ImageNet val beside it, in one order for all models."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rib.data.worlds import title_of
from rib.metrics import IN_DISTRIBUTION
from rib.reporting.captions import OVER_IMAGES, counted
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, fold, name_rows, tidy
from rib.reporting.style import GAIN, LOSS, NEUTRAL
from rib.reporting.summary import PLAIN, Summary
from rib.reporting.table_notes import differing_sources, untested
from rib.runtime.counting import plural

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable


def summary_figure(table: PaperTable, width: float | None = None) -> SizedFigure:
    """Plot mRI by method, and accuracy on the source and on ImageNet val; a row of panels per model.

    All panels have the methods in one order, by mRI averaged over models. The thick bar is the interval over images,
    ticks are seeds, and the thin bar is the interval over seeds. Where that one leaves the panel, an arrow stands for
    its end: with two seeds it would be many times wider than all that is measured. A filled marker differs from plain
    fine-tuning after Holm's correction, an open one does not, a cross was not compared; plain fine-tuning is a square.

    Args:
        table: Its rows are drawn; its data and shared settings go into the headline and the caption.
        width: Inches; None: 6.8.
    """
    models = list(dict.fromkeys(row.model for row in table.rows))
    methods = _order(table)
    # Panels beside mRI, by the prefix of the fields of `Summary`.
    labels = {"source": "source, %", "val": f"{title_of(IN_DISTRIBUTION, table.kind)}, %"}
    beside = [name for name in labels if any(not isnan(getattr(row, f"{name}_after")) for row in table.rows)]
    figure = SizedFigure(6.8, width)
    ratios = [1.7, *(1.0 for _ in beside)]
    grid = figure.subplots(len(models), len(ratios), squeeze=False, sharex="col", gridspec_kw={"width_ratios": ratios})
    low, high = _limits(table.rows)
    not_tested = untested(table.rows)
    row_height = 0.2
    for axes, model in zip(grid, models, strict=True):
        rows = [row for row in table.rows if row.model == model]
        at = {id(row): methods.index(table.label(row)) for row in rows}
        row_height = max(row_height, name_rows(axes[0], methods, 0.26 * figure.inches))
        axes[0].set_xlim(low, high)
        for row in rows:
            _draw_mri(axes[0], at[id(row)], row, low, high, row not in not_tested)
            for panel, name in zip(axes[1:], beside, strict=True):
                before, after = (100 * getattr(row, f"{name}_{when}") for when in ("before", "after"))
                draw_accuracy(panel, at[id(row)], before, after)
        axes[0].axvline(0, color="black", lw=0.8)
        n = f"{model}: {_sources(table, rows)}, {counted([len(row.seeds) or 1 for row in rows], 'seed')}"
        axes[0].set_title(fold(n, 0.7 * figure.inches, LABEL), fontsize=LABEL, loc="left")
        for panel, label in zip(axes, ("mRI, points", *(labels[name] for name in beside)), strict=True):
            tidy(panel, "x")
            panel.set_xlabel(fold(label, max(0.5, 0.14 * figure.inches), TICK), fontsize=TICK)
            panel.set_ylim(-0.6, len(methods) - 0.4)
            panel.tick_params(axis="x", labelbottom=True)
        for panel in axes[1:]:
            panel.set_yticks(range(len(methods)), [""] * len(methods))
            panel.margins(x=0.1)
    figure.headline("; ".join(filter(None, (f"mRI by method: {table.about}", table.shared))))
    figure.legend_below(*_legend(table.rows, bool(beside)))
    figure.caption = _caption(table, models)
    return figure.fit(max(0.6, row_height * len(methods)) * len(models))


def _order(table: PaperTable) -> list[str]:
    """Return the labels of a table's methods from the lowest mRI, averaged over models, to the highest.

    Methods over more sources come after (above) those over fewer, since only mRI over the same ones is comparable.
    """
    by_label: dict[str, list[float]] = {}
    sources: dict[str, int] = {}
    for row in table.rows:
        label = table.label(row)
        by_label.setdefault(label, []).append(row.over_images.value)
        sources[label] = max(sources.get(label, 0), len(row.improvement))
    return sorted(by_label, key=lambda label: (sources[label], fmean(by_label[label])))


def _limits(rows: Sequence[Summary]) -> tuple[float, float]:
    """Return the ends of the axis of mRI, which holds intervals over images and seeds, not intervals over seeds."""
    values = [0.0]
    for row in rows:
        values += [row.over_images.low, row.over_images.high, *row.by_seed]
    margin = 0.06 * max(max(values) - min(values), 0.5)
    return min(values) - margin, max(values) + margin


def _draw_mri(axes: Axes, height: int, row: Summary, low: float, high: float, is_tested: bool) -> None:
    """Draw the mRI of one table row with its intervals over images (thick) and over seeds (thin), and its seeds."""
    plain = row.method == PLAIN
    colour = NEUTRAL if plain else GAIN if row.over_images.value > 0 else LOSS
    if (seeds := row.over_seeds) is not None:
        axes.plot([max(seeds.low, low), min(seeds.high, high)], [height, height], color=colour, lw=0.9)
        for end, marker, cut in ((low, "<", seeds.low < low), (high, ">", seeds.high > high)):
            if cut:
                axes.plot(end, height, marker, color=colour, ms=4, clip_on=False)
    ends = [row.over_images.low, row.over_images.high]
    axes.plot(ends, [height, height], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    if len(row.by_seed) > 1:
        axes.plot(row.by_seed, [height + 0.3] * len(row.by_seed), "|", color=colour, ms=3.5, mew=0.9)
    marker = "s" if plain else "o" if is_tested else "x"
    face = colour if plain or row.is_significant else "white"
    axes.plot(row.over_images.value, height, marker, mec=colour, mfc=face, ms=4)


def draw_accuracy(axes: Axes, height: int, before: float, after: float) -> None:
    """Draw accuracy before fine-tuning (open) and after (filled), in percent; nothing if it is NaN, not scored."""
    if isnan(after):
        return
    colour = GAIN if after > before else LOSS if after < before else NEUTRAL
    axes.plot([before, after], [height, height], color=colour, lw=1.2)
    axes.plot(before, height, "o", mfc="white", mec=colour, ms=3.5)
    axes.plot(after, height, "o", color=colour, ms=3.5)


def _sources(table: PaperTable, rows: Sequence[Summary]) -> str:
    """Format the number of sources of some rows: ``2 of 3 sources``."""
    of = [len(row.improvement) for row in rows]
    return f"{min(of)}{f' to {max(of)}' if min(of) < max(of) else ''} of {counted([len(table.asked)], 'source')}"


def _legend(rows: Sequence[Summary], accuracies: bool) -> tuple[list[Line2D], list[str]]:
    """Return the handles and labels of what a figure of these rows shows."""
    entries: dict[str, dict[str, object]] = {"95 % over images": {"lw": 5, "alpha": 0.35}}
    if any(row.over_seeds is not None for row in rows):
        entries["95 % over seeds (arrow: goes on)"] = {"lw": 0.9}
    if any(len(row.by_seed) > 1 for row in rows):
        entries["one seed"] = {"marker": "|", "ls": "none", "ms": 5}
    if any(row.against_plain is not None for row in rows):
        entries["differs from finetune (Holm)"] = {"marker": "o", "ls": "none", "ms": 4}
        entries["does not differ"] = {"marker": "o", "ls": "none", "ms": 4, "mfc": "white"}
    if untested(rows):
        entries["not compared with finetune"] = {"marker": "x", "ls": "none", "ms": 4}
    if any(row.method == PLAIN for row in rows):
        entries["finetune"] = {"marker": "s", "ls": "none", "ms": 4, "color": NEUTRAL}
    if accuracies:
        entries["accuracy before (open) and after"] = {"marker": "o", "lw": 1.2, "ms": 3.5, "markevery": [1]}
    return [Line2D([0, 1], [0, 0], **{"color": "black", **look}) for look in entries.values()], list(entries)  # type: ignore[arg-type]


def _caption(table: PaperTable, models: Sequence[str]) -> str:
    seeds = counted([len(row.seeds) or 1 for row in table.rows], "seed")
    compared = sum(row.against_plain is not None for row in table.rows)
    test = (
        f" Filled: mRI differs from that of plain fine-tuning (square) of the same model by a paired test over images, "
        f"p < 0.05 after Holm over {plural(compared, 'comparison')}; open: it does not."
        if compared
        else ""
    )
    if missing := untested(table.rows):
        names = ", ".join(dict.fromkeys(table.label(row) for row in missing))
        settings = "for want of a run with the same settings, source and seed"
        test += f" Cross: not compared with {PLAIN}, {settings} ({names})."
    if differing_sources(table.rows):
        test += " Rows are over different sources; compare only those over the same ones."
    return (
        f"Mean robustness improvement (mRI, percentage points) of {counted([len(table.rows)], 'row')} on "
        f"{', '.join(models)}, "
        f"n = {counted([table.num_runs], 'run')} over {len(table.sources)} of {counted([len(table.asked)], 'source')} "
        f"({', '.join(table.sources)}) and {seeds}; "
        f"{'; '.join(filter(None, (table.about, table.shared)))}. Methods are in one order in all panels, by mRI "
        f"averaged over models. Thick bar: 95 % interval over images. {OVER_IMAGES}. Ticks: mRI of each seed. Thin: "
        f"95 % interval over seeds (Student's t), which ends in an arrow where it leaves the panel.{test} Right: mean "
        f"accuracy on the source and on {title_of(IN_DISTRIBUTION, table.kind)} before fine-tuning (open) and after "
        "(filled), point estimates."
    )
