"""Pictures of results: what changed on each dataset, how the loss went, how methods compare.

Colours are Okabe & Ito's, which stay apart for colour-blind readers; a gain is blue and a loss is vermilion in every
figure. Sizes are in inches at which text is 8 to 9 points, one column to a page wide.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rib.files import write_atomically
from rib.summary import PLAIN, Summary, method_label
from rib.tables import curve_rows, title_of, with_interval, world

if TYPE_CHECKING:
    from rib.paper_table import PaperTable

GAIN, LOSS, NEUTRAL = "#0072B2", "#D55E00", "#7F7F7F"
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = "os^Dv<>"
CHARACTERS = 14
"""Of text at 8 points that an inch holds."""


def style(number: int) -> dict[str, str]:
    """Colour and marker of a figure's n-th line: 49 lines before two look alike."""
    return {"color": SERIES[number % 7], "marker": MARKERS[(number + number // 7) % 7]}


def draw_run(metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """A run's own figures, in its ``figures/``: change.png, and loss.png where it trained."""
    out = folder / "figures"
    out.mkdir(exist_ok=True)
    drawn = [save(change_figure(metrics), out / "change.png")]
    if "curve" in metrics:
        drawn.append(save(curve_figure(metrics), out / "curve.png"))
    logs = sorted(
        (folder / "log").glob("*/metrics.csv"), key=lambda file: int(file.parent.name.removeprefix("version_"))
    )
    if logs:
        drawn.append(save(loss_figure(logs, metrics), out / "loss.png"))
    return drawn


def change_figure(metrics: Mapping[str, Any]) -> Figure:
    """A dumbbell a dataset: accuracy before (open) and after (filled, with the 95 % interval of the change)."""
    kind, improvement = metrics["data"]["kind"], metrics["robustness_improvement"]
    counted = improvement["targets"] if improvement else []
    names = sorted(metrics["accuracy"], key=lambda n: (n in counted, metrics["accuracy"][n]["change"]["value"]))
    figure = Figure(figsize=(6.4, 1.5 + 0.34 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(names):
        entry = metrics["accuracy"][name]
        change, before, after = entry["change"], 100 * entry["before"], 100 * entry["after"]
        colour = NEUTRAL if change["value"] == 0 else GAIN if change["value"] > 0 else LOSS
        axes.plot([before, after], [row, row], color=colour, lw=2, alpha=0.55, zorder=1)
        axes.plot(
            [before + change["low"], before + change["high"]], [row, row], color=colour, lw=5, alpha=0.25, zorder=1
        )
        axes.plot(before, row, "o", mfc="white", mec=colour, ms=6, zorder=2)
        axes.plot(after, row, "o", color=colour, ms=6, zorder=3)
        text = with_interval(change) if metrics["source"] != "none" else f"{before:.1f}"
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=colour)
    roles = {name: "" if name in counted else " (not in RI)" for name in names} | {metrics["source"]: " (source)"}
    labels = [title_of(name, kind) + roles[name] for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=9)
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"top-1 accuracy, %; open: before, filled: after; {world(metrics)}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", lw=0.4, alpha=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if metrics["source"] == "none":
        heading = f"{metrics['model']}, pretrained"
    else:
        heading = f"{metrics['model']}, {metrics['method']} on {title_of(metrics['source'], kind)}"
        if improvement:
            heading += f"\nRI {with_interval(improvement)} points, {len(counted)} targets, 95 % over images only"
    axes.set_title(heading, fontsize=10, loc="left")
    return figure


def curve_figure(metrics: Mapping[str, Any]) -> Figure:
    """Accuracy on the source against the mean over targets, from the start to the ingredient."""
    kind, rows = metrics["data"]["kind"], curve_rows(metrics)
    figure = Figure(figsize=(5.0, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([r["source"] for r in rows], [r["targets"] for r in rows], "-o", color=GAIN, ms=4, lw=1.2)
    for row in rows:
        text = f"{row['alpha']:g}" + (" chosen" if row["chosen"] else "")
        axes.annotate(text, (row["source"], row["targets"]), (4, 4), textcoords="offset points", fontsize=7)
        if row["chosen"] or row["alpha"] == 0.5:
            axes.plot(row["source"], row["targets"], "o", mfc="none", mec=LOSS if row["chosen"] else NEUTRAL, ms=10)
    axes.set_xlabel(f"{title_of(metrics['source'], kind)} (source), top-1 %; {world(metrics)}", fontsize=8)
    axes.set_ylabel("mean of targets, top-1 %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{metrics['model']}, {metrics['method']}: alpha from start to end", fontsize=9, loc="left")
    return figure


def loss_figure(logs: Sequence[Path], metrics: Mapping[str, Any]) -> Figure:
    """Training loss by step, penalties apart; a run that was killed and went on has several logs, some still empty."""
    import pandas as pd

    frame = pd.concat([pd.read_csv(log) for log in logs if log.stat().st_size]).dropna(subset="loss")
    frame = frame.drop_duplicates("step", keep="last").sort_values("step")
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    drawn = [c for c in frame.columns if c == "loss" or c.startswith("penalty/")]
    for colour, column in zip(SERIES, drawn, strict=False):
        label = "cross-entropy" if column == "loss" else column.removeprefix("penalty/") + " penalty"
        curve = frame[["step", column]].dropna()
        axes.plot(curve["step"] + 1, curve[column], color=colour, lw=1.2, label=label)
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("nats an image", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    source = title_of(metrics["source"], metrics["data"]["kind"])
    axes.set_title(f"{metrics['model']}, {metrics['method']} on {source}", fontsize=9, loc="left")
    return figure


def comparison_figure(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Change on each target by method, a panel a model and source, with RI at the top; each seed is drawn.

    Args:
        runs: Metrics of fine-tuned runs, of at most as many methods as there are colours (`SERIES`).
    """
    trained = [m for m in runs if m["source"] != "none" and m["robustness_improvement"]]
    panels = sorted({(m["source"], m["model"]) for m in trained})
    methods = list(dict.fromkeys(method_label(m) for m in trained))
    colours = dict(zip(methods, SERIES, strict=False))
    kind = trained[0]["data"]["kind"]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.6 + 3.0 * columns, 0.9 + 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (source, model) in zip(grid.flat, panels, strict=False):
        here = [m for m in trained if (m["source"], m["model"]) == (source, model)]
        _panel(axes, here, colours, methods)
        axes.set_title(f"{model} on {title_of(source, kind)}", fontsize=9, loc="left")
    for axes in grid[:, 1:].flat:
        if {m["source"] for m in trained} == {trained[0]["source"]}:
            axes.tick_params(labelleft=False)
    handles = [Line2D([], [], color=colours[m], marker="o", lw=1.5, label=m) for m in methods]
    fitting = int(CHARACTERS * figure.get_figwidth() / (8 + max(map(len, methods))))
    ncols = max(1, min(2 * columns, fitting))
    figure.legend(handles=handles, loc="outside upper left", ncols=ncols, fontsize=8, frameon=False)
    seeds = len({m["seed"] for m in trained})
    each = f", a line a seed ({seeds})" if seeds > 1 else ""
    about = f"change in percentage points, 95 % over images only{each}; {world(trained[0])}"
    figure.supxlabel(textwrap.fill(about, int(CHARACTERS * figure.get_figwidth())), fontsize=8)
    return figure


def summary_figure(table: PaperTable) -> Figure:
    """Draw mRI by method, a panel a model, best first: the thick bar is over images, the thin one over seeds.

    A filled marker differs from plain fine-tuning after Holm, an open one does not; plain fine-tuning is a square.
    """
    models = list(dict.fromkeys(row.model for row in table.rows))
    most = max(sum(row.model == model for row in table.rows) for model in models)
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(1.0 + 4.4 * columns, 1.0 + (0.5 + 0.2 * most) * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(models) :]:
        axes.set_visible(False)
    for axes, model in zip(grid.flat, models, strict=False):
        here = [row for row in reversed(table.rows) if row.model == model]
        for place, row in enumerate(here):
            _mri(axes, place, row)
        sources = _span([len(row.improvement) for row in here])
        seeds = _span([len(row.seeds) for row in here])
        n = f"{sources} of {len(table.asked)} sources, {seeds} seed{'s' * (seeds != '1')}"
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(here)), [table.label(row) for row in here], fontsize=8)
        axes.set_ylim(-0.7, len(here) - 0.3)
        axes.tick_params(axis="x", labelsize=8, labelbottom=True)
        axes.grid(axis="x", lw=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{model}: {n}", fontsize=9, loc="left")
    about = [
        "mRI, percentage points; thick: 95 % over images, thin: over seeds; filled: differs from plain fine-tuning "
        "(square) after Holm",
        "; ".join(filter(None, (table.about, table.shared))),
    ]
    width = int(CHARACTERS * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in about), fontsize=8)
    return figure


def _mri(axes: Axes, place: int, row: Summary) -> None:
    """One row's value with both intervals."""
    plain = row.method == PLAIN
    colour = NEUTRAL if plain else GAIN if row.over_images.value > 0 else LOSS
    if row.over_seeds is not None:
        axes.plot([row.over_seeds.low, row.over_seeds.high], [place, place], color=colour, lw=0.9)
    axes.plot(
        [row.over_images.low, row.over_images.high],
        [place, place],
        color=colour,
        lw=5,
        alpha=0.35,
        solid_capstyle="butt",
    )
    face = colour if plain or row.stands else "white"
    axes.plot(row.over_images.value, place, "s" if plain else "o", mec=colour, mfc=face, ms=4)


def _span(numbers: Collection[int]) -> str:
    """``3``, or ``1 to 3``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def search_figure(rows: Sequence[Mapping[str, Any]], options: Sequence[str], about: str) -> Figure:
    """Accuracy on held-out images against the first searched option, coloured by the second if there is one.

    Args:
        rows: One a trial, best first (`rib.tuning.rows_of`); those that diverged are crosses at the bottom.
        options: Names of what was searched.
        about: Model, method, source and world.
    """
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    done = [row for row in rows if "held_out" in row]
    x, y = [row[options[0]] for row in done], [100 * row["held_out"] for row in done]
    if len(options) > 1:
        shown = axes.scatter(x, y, s=28, c=[row[options[1]] for row in done], norm="log", cmap="viridis", zorder=2)
        figure.colorbar(shown, ax=axes).set_label(options[1], fontsize=8)
    else:
        axes.scatter(x, y, s=28, color=GAIN, zorder=2)
    axes.plot(x[0], y[0], "o", mfc="none", mec=LOSS, ms=12, label="best")
    if lost := [row[options[0]] for row in rows if "held_out" not in row]:
        axes.plot(lost, [0.03] * len(lost), "x", color=LOSS, transform=axes.get_xaxis_transform(), label="diverged")
    axes.axhline(100 * done[0]["before"], color=NEUTRAL, lw=0.8, ls="--", label="before training")
    axes.set_xscale("log")
    axes.set_xlabel(options[0], fontsize=8)
    axes.set_ylabel(f"top-1 on {done[0]['num_images']} held-out images, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(about, fontsize=9, loc="left")
    return figure


def _panel(axes: Axes, runs: Sequence[Mapping[str, Any]], colours: Mapping[str, str], methods: Sequence[str]) -> None:
    kind = runs[0]["data"]["kind"]
    targets = [n for n in runs[0]["accuracy"] if n in runs[0]["robustness_improvement"]["targets"]]
    for m in runs:
        seeds = sorted({other["seed"] for other in runs}, key=str)  # weights from elsewhere have none
        place = methods.index(method_label(m)) + (seeds.index(m["seed"]) + 0.5) / len(seeds)
        shift = 0.7 * (place / len(methods) - 0.5)
        values = [m["accuracy"][n]["change"] for n in reversed(targets)] + [m["robustness_improvement"]]
        for row, value in enumerate(values):
            colour = colours[method_label(m)]
            axes.plot([value["low"], value["high"]], [row - shift] * 2, color=colour, lw=1.2)
            axes.plot(value["value"], row - shift, "D" if row == len(targets) else "o", color=colour, ms=3)
    axes.axvline(0, color="black", lw=0.8)
    axes.axhline(len(targets) - 0.5, color=NEUTRAL, lw=0.6)
    axes.set_yticks(range(len(targets) + 1), [title_of(n, kind) for n in reversed(targets)] + ["RI"], fontsize=8)
    axes.tick_params(axis="x", labelsize=8, labelbottom=True)
    axes.grid(axis="x", lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, file: Path) -> Path:
    """Write a figure as PNG, whole or not at all, making its folder."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    write_atomically(file, picture.getvalue())
    return file
