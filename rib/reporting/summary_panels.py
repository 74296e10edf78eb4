"""Figure of mRI by method, with accuracy on the source and in distribution beside it, in one order for all models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rib.data.worlds import in_distribution_of, title_of
from rib.reporting.captions import OVER_IMAGES, counted, methods_in_settings, span, with_seeds
from rib.reporting.folded_text import fold
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, fold_below, height_of_name, tidy
from rib.reporting.style import GAIN, LOSS, NEUTRAL
from rib.reporting.summary import PLAIN, Summary, own_name
from rib.reporting.table_notes import by_sources, differing_sources, full_name, untested
from rib.runtime.counting import plural

if TYPE_CHECKING:
    from rib.reporting.paper_table import PaperTable


def summary_figure(table: PaperTable, width: float | None = None) -> SizedFigure:
    """Plot mRI by method, and accuracy on the source and in distribution (ImageNet val); a row of panels per model.

    All panels have their methods in one order, by mRI averaged over models; each has those of its model, and its height
    follows from them. A line divides rows over different sources, in the order of the table. The thick bar is the
    interval over images, ticks are seeds, and the thin bar is the interval over seeds. Where that one leaves the panel,
    an arrow stands for its end: with two seeds it would be many times wider than all that is measured. A filled marker
    differs from plain fine-tuning after Holm's correction, an open one does not, a cross was not compared; plain
    fine-tuning is a square.

    Args:
        table: Its rows are drawn; its data and shared settings go into the headline and the caption.
        width: Inches; None: 6.8.
    """
    models = list(dict.fromkeys(row.model for row in table.rows))
    methods = _order(table)
    # Panels beside mRI, by the prefix of the fields of `Summary`.
    labels = {"source": "source, %", "val": f"{_in_distribution(table)}, %"}
    beside = [name for name in labels if any(not isnan(getattr(row, f"{name}_after")) for row in table.rows)]
    figure = SizedFigure(6.8, width)
    ratios = [1.7, *(1.0 for _ in beside)]
    grid = figure.subplots(len(models), len(ratios), squeeze=False, sharex="col", gridspec_kw={"width_ratios": ratios})
    low, high = _limits(table.rows)
    heights = []
    not_tested = untested(table.rows)
    for axes, model in zip(grid, models, strict=True):
        own = [row for row in table.rows if row.model == model]
        best_first = sorted(own, key=lambda row: methods.index(full_name(table, row)), reverse=True)
        rows = by_sources(best_first, table.sources)[::-1]
        places, height = _name_rows(axes, rows, [full_name(table, row) for row in rows], 0.26 * figure.inches)
        heights.append(max(0.6, height))
        at = {id(row): place for row, place in zip(rows, places, strict=True)}
        axes[0].set_xlim(low, high)
        for row in rows:
            _draw_mri(axes[0], at[id(row)], row, low, high, row not in not_tested)
            for panel, name in zip(axes[1:], beside, strict=True):
                before, after = (100 * getattr(row, f"{name}_{when}") for when in ("before", "after"))
                draw_accuracy(panel, at[id(row)], before, after)
        axes[0].axvline(0, color="black", lw=0.8)
        seeds = with_seeds(_seeds(rows)).replace(" with", ",")
        n = f"{model}: {_sources(table, rows)}{seeds}"
        axes[0].set_title(fold(n, 0.7 * figure.inches, LABEL), fontsize=LABEL, loc="left")
        for panel, label in zip(axes, ("mRI, points", *(labels[name] for name in beside)), strict=True):
            tidy(panel, "x")
            if model == models[-1]:
                panel.set_xlabel(fold_below(label, figure.inches), fontsize=TICK)
            panel.tick_params(axis="x", labelbottom=True)
        for panel in axes[1:]:
            panel.margins(x=0.1)
    grid[0, 0].get_gridspec().set_height_ratios(heights)
    figure.headline("; ".join(filter(None, (f"mRI by method: {table.about}", table.shared))))
    figure.legend_below(*_legend(table.rows, bool(beside)))
    figure.caption = _caption(table, models, beside)
    return figure.fit(sum(heights))


def _name_rows(
    axes: Sequence[Axes], rows: Sequence[Summary], labels: Sequence[str], inches: float
) -> tuple[list[float], float]:
    """Name the rows of a model's panels, each as high as its own label, at the left one; divide sets of sources.

    Args:
        axes: The panels, whose y axes are then in inches.
        rows: From bottom to top.
        labels: Their names.
        inches: Width that labels may take.

    Returns:
        The heights of the rows' centres, and the height of the panels.
    """
    heights = [height_of_name(label, inches) for label in labels]
    tops = list(accumulate(heights))
    places = [top - height / 2 for top, height in zip(tops, heights, strict=True)]
    dividers = [top for top, (row, above) in zip(tops, pairwise(rows), strict=False) if differing_sources([row, above])]
    for panel in axes:
        named = [fold(label, inches, TICK) if panel is axes[0] else "" for label in labels]
        panel.set_yticks(places, named, fontsize=TICK)
        panel.set_ylim(0, sum(heights))
        for top in dividers:
            panel.axhline(top, color=NEUTRAL, lw=0.6, ls="--")
    return places, sum(heights)


def _order(table: PaperTable) -> list[str]:
    """Return the names of a table's methods from the lowest mRI, averaged over models, to the highest."""
    by_name: dict[str, list[float]] = {}
    for row in table.rows:
        by_name.setdefault(full_name(table, row), []).append(row.over_images.value)
    return sorted(by_name, key=lambda name: fmean(by_name[name]))


def _limits(rows: Sequence[Summary]) -> tuple[float, float]:
    """Return the ends of the axis of mRI, which holds intervals over images and seeds, not intervals over seeds."""
    values = [0.0]
    for row in rows:
        values += [row.over_images.low, row.over_images.high, *row.by_seed]
    margin = 0.06 * max(max(values) - min(values), 0.5)
    return min(values) - margin, max(values) + margin


def _draw_mri(axes: Axes, height: float, row: Summary, low: float, high: float, is_tested: bool) -> None:
    """Draw the mRI of one table row with its intervals over images (thick) and over seeds (thin), and its seeds."""
    plain = row.method == PLAIN
    colour = NEUTRAL if plain or row.over_images.value == 0 else GAIN if row.over_images.value > 0 else LOSS
    if (seeds := row.over_seeds) is not None:
        axes.plot([max(seeds.low, low), min(seeds.high, high)], [height, height], color=colour, lw=0.9)
        for end, marker, cut in ((low, "<", seeds.low < low), (high, ">", seeds.high > high)):
            if cut:
                axes.plot(end, height, marker, color=colour, ms=4, clip_on=False)
    ends = [row.over_images.low, row.over_images.high]
    axes.plot(ends, [height, height], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    if len(row.by_seed) > 1:
        axes.plot(row.by_seed, [height + 0.06] * len(row.by_seed), "|", color=colour, ms=3.5, mew=0.9)
    marker = "s" if plain else "o" if is_tested else "x"
    face = colour if plain or row.is_significant else "white"
    axes.plot(row.over_images.value, height, marker, mec=colour, mfc=face, ms=4)


def draw_accuracy(axes: Axes, height: float, before: float, after: float) -> None:
    """Draw accuracy before fine-tuning (open) and after (filled), in percent; nothing if it is NaN, not scored."""
    if isnan(after):
        return
    colour = GAIN if after > before else LOSS if after < before else NEUTRAL
    axes.plot([before, after], [height, height], color=colour, lw=1.2)
    axes.plot(before, height, "o", mfc="white", mec=colour, ms=3.5)
    axes.plot(after, height, "o", color=colour, ms=3.5)


def _sources(table: PaperTable, rows: Sequence[Summary]) -> str:
    """Format the number of sources of some rows: ``2 of 7 sources``, or ``2 of 7 sources, 1 per row``."""
    of = [len(row.improvement) for row in rows]
    together = len({source for row in rows for source in row.improvement})
    per_row = f", {span(of)} per row" if min(of) < together else ""
    return f"{together} of {counted([len(table.asked)], 'source')}{per_row}"


def _seeds(rows: Sequence[Summary]) -> list[int]:
    """Return the numbers of seeds of rows, without external weights, which have none."""
    return [len(row.seeds) or 1 for row in rows if not row.is_external]


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


def _caption(table: PaperTable, models: Sequence[str], beside: Sequence[str]) -> str:
    methods = len({own_name(row.method, row.options) for row in table.rows})
    num_settings = len({full_name(table, row) for row in table.rows})
    sources = ", ".join(title_of(name, table.kind) for name in table.sources)
    shared = (f" {table.shared}." if table.shared else "") + (f" {table.heads}" if table.heads else "")
    one_order = len(models) > 1 and not differing_sources(table.rows)
    order = " Methods are in one order in all panels, by mRI averaged over models." if one_order else ""
    over_seeds = ""
    if any(len(row.by_seed) > 1 for row in table.rows):
        over_seeds += " Ticks: mRI of each seed."
    if any(row.over_seeds is not None for row in table.rows):
        over_seeds += " Thin: 95 % interval over seeds (Student's t), which ends in an arrow where it leaves the panel."
    compared = sum(row.against_plain is not None for row in table.rows)
    test = (
        f" Filled: mRI differs from that of plain fine-tuning (square) of the same model by a paired test over images, "
        f"p < 0.05 after Holm over {plural(compared, 'comparison')}; open: it does not."
        if compared
        else ""
    )
    if missing := untested(table.rows):
        names = ", ".join(dict.fromkeys(full_name(table, row) for row in missing))
        settings = "for want of a run with the same settings, source and seed"
        test += f" Cross: not compared with {PLAIN}, {settings} ({names})."
    if differing_sources(table.rows):
        test += " A dashed line divides rows over different sources: compare only those over the same ones."
    return (
        f"Mean robustness improvement (mRI, in percentage points) of {methods_in_settings(methods, num_settings)} "
        f"on {', '.join(models)}: {counted([table.num_runs], 'run')} fine-tuned on {len(table.sources)} of "
        f"{counted([len(table.asked)], 'source')} ({sources}){with_seeds(_seeds(table.rows))}; {table.about}.{shared}"
        f"{order} Thick bar: 95 % interval over images. {OVER_IMAGES}.{over_seeds}{test}{_beside(table, beside)}"
    )


def _in_distribution(table: PaperTable) -> str:
    """Return the title of the in-distribution dataset; empty if the suite has none, whose accuracy is then NaN."""
    name = in_distribution_of(table.kind)
    return "" if name is None else title_of(name, table.kind)


def _beside(table: PaperTable, beside: Sequence[str]) -> str:
    """Describe the panels beside mRI, if there are any."""
    names = {"source": "the source", "val": _in_distribution(table)}
    if not beside:
        return ""
    return (
        f" Right: mean accuracy on {' and on '.join(names[name] for name in beside)} before fine-tuning (open) and "
        "after (filled), point estimates."
    )
