"""Figures of one run: accuracy before and after fine-tuning, the curve of an interpolation, the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rib.data.worlds import title_of
from rib.reporting.formatting import with_interval, world
from rib.reporting.run_view import curve_rows
from rib.reporting.style import GAIN, LOSS, NEUTRAL, SERIES, save
from rib.schemas.metrics import Metrics


def draw_run(metrics: Metrics, folder: Path) -> list[Path]:
    """Write a run's figures: change.png, curve.png if it has an interpolation curve, loss.png if it was trained.

    Args:
        metrics: Of the run.
        folder: The run's folder; the figures go into its ``figures/``.

    Returns:
        The files written.
    """
    out = folder / "figures"
    out.mkdir(exist_ok=True)
    files = [save(change_figure(metrics), out / "change.png")]
    if "curve" in metrics:
        files.append(save(curve_figure(metrics), out / "curve.png"))
    # Sorted by number, as version_10 would come before version_2 by name.
    logs = sorted(
        (folder / "log").glob("*/metrics.csv"), key=lambda file: int(file.parent.name.removeprefix("version_"))
    )
    if logs:
        files.append(save(loss_figure(logs, metrics), out / "loss.png"))
    return files


def change_figure(metrics: Metrics) -> Figure:
    """Plot accuracy before fine-tuning (open) and after (filled, with a 95 % interval of the change), by dataset."""
    kind, improvement = metrics["data"]["kind"], metrics["robustness_improvement"]
    counted = improvement["targets"] if improvement else []
    # From bottom to top: datasets outside RI, then the targets, each group by change.
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


def curve_figure(metrics: Metrics) -> Figure:
    """Plot mean target accuracy against source accuracy, for weights between the pretrained and the fine-tuned ones.

    Args:
        metrics: Of a run with a curve; the point at alpha 0.5 and the chosen one are circled.
    """
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


def loss_figure(logs: Sequence[Path], metrics: Metrics) -> Figure:
    """Plot a run's cross-entropy loss and the penalties of its methods against the optimizer step.

    Args:
        logs: Files log/version_N/metrics.csv, oldest first; a run that was interrupted and resumed has several.
        metrics: Of the run, for the title.
    """
    import pandas as pd

    # A log may still be empty if the process was killed early; steps after the last checkpoint were trained twice.
    frame = pd.concat([pd.read_csv(log) for log in logs if log.stat().st_size]).dropna(subset="loss")
    frame = frame.drop_duplicates("step", keep="last").sort_values("step")
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    columns = [c for c in frame.columns if c == "loss" or c.startswith("penalty/")]
    for colour, column in zip(SERIES, columns, strict=False):
        label = "cross-entropy" if column == "loss" else column.removeprefix("penalty/") + " penalty"
        curve = frame[["step", column]].dropna()
        # Lightning logs the first optimizer step as step 0.
        axes.plot(curve["step"] + 1, curve[column], color=colour, lw=1.2, label=label)
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("nats per image", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.grid(lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    source = title_of(metrics["source"], metrics["data"]["kind"])
    axes.set_title(f"{metrics['model']}, {metrics['method']} on {source}", fontsize=9, loc="left")
    return figure
