"""Figures of one run: accuracy before and after fine-tuning, the curve of an interpolation, the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rib.config.schema import FiguresConfig
from rib.data.worlds import title_of
from rib.reporting.captions import OVER_IMAGES, command_of_figures, images_of
from rib.reporting.formatting import points, with_interval, world
from rib.reporting.run_view import curve_rows
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, name_rows, tidy
from rib.reporting.style import GAIN, LINES, LOSS, NEUTRAL, SERIES, remove, save
from rib.runtime.counting import plural
from rib.schemas.metrics import DatasetAccuracy, Metrics


def draw_run(metrics: Metrics, folder: Path, figures: FiguresConfig) -> list[Path]:
    """Write a run's figures: change, curve if it has an interpolation curve, loss if it was trained.

    Args:
        metrics: Of the run.
        folder: The run's folder; the figures go into its ``figures/``.
        figures: Formats and width.

    Returns:
        The files written.
    """
    out, width = folder / "figures", figures.width
    drawn = {"change": change_figure(metrics, width)}
    if "curve" in metrics:
        drawn["curve"] = curve_figure(metrics, width)
    if logs := training_logs(folder):
        drawn["loss"] = loss_figure(logs, metrics, width)
    for name in {"curve", "loss"} - drawn.keys():
        remove(out / name)
    command = command_of_figures(metrics, figures)
    return [file for name, figure in drawn.items() for file in save(figure, out / name, figures, command)]


def training_logs(folder: Path) -> list[Path]:
    """Return the files of a run's training log, one per attempt, oldest first; empty if it was not trained."""
    # Sorted by number, as version_10 would come before version_2 by name.
    return sorted(
        (folder / "log").glob("*/metrics.csv"), key=lambda file: int(file.parent.name.removeprefix("version_"))
    )


def change_figure(metrics: Metrics, width: float | None = None) -> SizedFigure:
    """Plot accuracy before fine-tuning (open) and after (filled, with a 95 % interval of the change), by dataset.

    Args:
        metrics: Of the run.
        width: Inches; None: 6.4.
    """
    kind, improvement, trained = metrics["data"]["kind"], metrics["robustness_improvement"], metrics["source"] != "none"
    counted = improvement["targets"] if improvement else []
    # From bottom to top: datasets outside RI, then the targets, each group by change, then by accuracy.
    accuracy = metrics["accuracy"]
    names = sorted(
        accuracy, key=lambda n: (trained and n in counted, accuracy[n]["change"]["value"], accuracy[n]["after"])
    )
    figure = SizedFigure(6.4, width)
    axes, short = figure.add_subplot(), figure.inches < 4.5
    for row, name in enumerate(names):
        _draw_change(axes, row, accuracy[name], trained, short)
    roles = {name: "" if name in counted else " (not in RI)" for name in names} | {metrics["source"]: " (source)"}
    row_height = name_rows(axes, [title_of(name, kind) + roles[name] for name in names], 0.27 * figure.inches)
    tidy(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1 accuracy, %", fontsize=LABEL)
    heading = metrics["model"] + (f", {metrics['method']} on {title_of(metrics['source'], kind)}" if trained else "")
    heading += f"; {world(metrics)}" if trained else f", pretrained; {world(metrics)}"
    when = " before fine-tuning and after" if trained else ""
    caption = f"Top-1 accuracy by dataset{when}: {heading}; {images_of(metrics)}."
    if trained and improvement:
        mean = f"{with_interval(improvement)} points, mean over {plural(len(counted), 'target')}, 95 % over images"
        heading += f"\nRI {mean}"
        targets = ", ".join(title_of(name, kind) for name in counted)
        caption += (
            f" RI, the mean change over {len(counted)} targets ({targets}), is {with_interval(improvement)} points, "
            "with its 95 % interval over images."
        )
    figure.headline(heading)
    if trained:
        figure.legend_below(*_legend_of_change())
        caption += (
            f" At the right: the change in points{'' if short else ', with its 95 % interval'}. The band around the "
            "accuracy after fine-tuning is the 95 % interval of the change over images, each scored by both models. "
            f"{OVER_IMAGES}."
        )
    figure.caption = caption
    return figure.fit(max(0.6, row_height * len(names)))


def _draw_change(axes: Axes, row: int, entry: DatasetAccuracy, trained: bool, short: bool) -> None:
    """Draw one dataset's accuracy before and after, the interval of its change, and the numbers at the right."""
    change, before, after = entry["change"], 100 * entry["before"], 100 * entry["after"]
    colour = NEUTRAL if change["value"] == 0 else GAIN if change["value"] > 0 else LOSS
    axes.plot([before, after], [row, row], color=colour, lw=1.5, alpha=0.7, zorder=1)
    ends = [before + change["low"], before + change["high"]]
    axes.plot(ends, [row, row], color=colour, lw=6, alpha=0.3, zorder=1, solid_capstyle="butt")
    axes.plot(before, row, "o", mfc="white", mec=colour, ms=5, zorder=2)
    axes.plot(after, row, "o", color=colour, ms=4.5, zorder=3)
    text = f"{before:.1f}" if not trained else points(change["value"]) if short else with_interval(change)
    axes.annotate(
        text, (1.0, row), (3, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=TICK, color=colour
    )


def _legend_of_change() -> tuple[list[Line2D | Patch], list[str]]:
    return [
        Line2D([], [], ls="none", marker="o", mfc="white", mec="black", ms=5),
        Line2D([], [], ls="none", marker="o", color="black", ms=4.5),
        Patch(color="black", alpha=0.3, lw=0),
        Patch(color=GAIN),
        Patch(color=LOSS),
    ], ["before", "after", "95 % interval of the change", "gain", "loss"]


def curve_figure(metrics: Metrics, width: float | None = None) -> SizedFigure:
    """Plot mean target accuracy against source accuracy, for weights between the pretrained and the fine-tuned ones.

    Args:
        metrics: Of a run with a curve; the point at alpha 0.5 and the chosen one are circled.
        width: Inches; None: 5.
    """
    kind, rows = metrics["data"]["kind"], curve_rows(metrics)
    figure = SizedFigure(5.0, width)
    axes = figure.add_subplot()
    axes.plot([r["source"] for r in rows], [r["targets"] for r in rows], "-o", color=GAIN, ms=4, lw=1.2)
    named = []
    ends = (rows[0]["alpha"], rows[-1]["alpha"], 0.5)
    for row in sorted(rows, key=lambda r: not (r["chosen"] or r["alpha"] in ends)):
        text = f"{row['alpha']:g}" + (" chosen" if row["chosen"] else "")
        at = (row["source"], row["targets"])
        named.append(axes.annotate(text, at, (5, 4), textcoords="offset points", fontsize=TICK))
        if row["chosen"] or row["alpha"] == 0.5:
            axes.plot(*at, "o", mfc="none", mec=LOSS if row["chosen"] else NEUTRAL, ms=10)
    axes.margins(0.12)
    axes.set_xlabel(f"{title_of(metrics['source'], kind)} (source), top-1 %", fontsize=LABEL)
    axes.set_ylabel("mean of targets, top-1 %", fontsize=LABEL)
    tidy(axes)
    figure.headline(f"{metrics['model']}, {metrics['method']}: alpha from start to end; {world(metrics)}")
    circles = {"alpha 0.5": NEUTRAL, **({"chosen": LOSS} if any(r["chosen"] for r in rows) else {})}
    figure.legend_below(
        [Line2D([], [], ls="none", marker="o", mfc="none", mec=colour, ms=8) for colour in circles.values()],
        list(circles),
    )
    figure.caption = (
        f"Mean accuracy on the targets against accuracy on the source, {title_of(metrics['source'], kind)}, for "
        f"{len(rows)} weights between the pretrained model (alpha {rows[0]['alpha']:g}) and the fine-tuned one (alpha "
        f"{rows[-1]['alpha']:g}); {metrics['model']}, {metrics['method']}, one run; {world(metrics)}; "
        f"{images_of(metrics)}. Points without intervals; curve.csv has RI with its interval for each."
    )
    figure.fit(2.8 * figure.narrowing)
    figure.hide_overlapping(named)
    return figure


def loss_figure(logs: Sequence[Path], metrics: Metrics, width: float | None = None) -> SizedFigure:
    """Plot a run's cross-entropy loss and the penalties of its methods against the optimizer step.

    Args:
        logs: Files log/version_N/metrics.csv, oldest first; a run that was interrupted and resumed has several.
        metrics: Of the run, for the title.
        width: Inches; None: 5.2.
    """
    import pandas as pd

    # A log may still be empty if the process was killed early; steps after the last checkpoint were trained twice.
    frame = pd.concat([pd.read_csv(log) for log in logs if log.stat().st_size]).dropna(subset="loss")
    frame = frame.drop_duplicates("step", keep="last").sort_values("step")
    figure = SizedFigure(5.2, width)
    axes = figure.add_subplot()
    columns = [c for c in frame.columns if c == "loss" or c.startswith("penalty/")]
    for number, (colour, column) in enumerate(zip(SERIES, columns, strict=False)):
        label = "cross-entropy" if column == "loss" else column.removeprefix("penalty/") + " penalty"
        curve = frame[["step", column]].dropna()
        # Lightning logs the first optimizer step as step 0.
        axes.plot(curve["step"] + 1, curve[column], color=colour, ls=LINES[number % 4], lw=1.2, label=label)
    axes.set_xlabel("optimizer step", fontsize=LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("nats per image", fontsize=LABEL)
    axes.set_ylim(bottom=0)
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend_below(handles, labels)
    source = title_of(metrics["source"], metrics["data"]["kind"])
    about = f"{metrics['model']}, {metrics['method']} on {source}; {world(metrics)}"
    figure.headline(about)
    figure.caption = (
        f"Training loss of {about}: {' and '.join(labels)} against the optimizer step, one run, no interval."
    )
    return figure.fit(2.2 * figure.narrowing)
