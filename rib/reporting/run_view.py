"""Print one run's results, and write its interpolation curve as CSV."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from rib.config.schema import FIGURE_FORMATS
from rib.data.worlds import in_distribution_of, title_of
from rib.reporting.data_warning import warning_after
from rib.reporting.formatting import (
    cost_line,
    in_distribution_heading,
    percent,
    points,
    with_interval,
    world,
    world_and_suite,
)
from rib.reporting.heads import note_on_heads
from rib.reporting.layout import FittedTable, output
from rib.reporting.notes import describe_alpha, describe_notes
from rib.reporting.summary import EXTERNAL_NAME, label_with_options
from rib.runs.spec import PRETRAINED
from rib.runtime.console import say
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Improvement, IntervalInPoints, Metrics

UNITS = "Changes in percentage points, with 95 % intervals over images only."
"""Said once below a table, so that its headings can be short."""

UNRELATED = "Unrelated targets are not made of the source's own images."


def run_table(metrics: Metrics) -> FittedTable:
    """Return a terminal table of one run: accuracy before and after on each dataset, then RI."""
    kind, source = metrics["data"]["kind"], metrics["source"]
    named = {k: v for k, v in metrics["options"].items() if k == EXTERNAL_NAME}
    heading = f"{metrics['model']}, {label_with_options(metrics['method'], named)}"
    if source != "none":
        heading += f" on {title_of(source, kind)}" + ("" if metrics["seed"] is None else f", seed {metrics['seed']}")
    title = f"{heading} ({world_and_suite(metrics)})"
    if metrics["method"] == PRETRAINED:
        return _accuracy_table(title, metrics)
    improvements = _improvements(metrics)
    table = FittedTable(
        title,
        words=("dataset",),
        numbers=("images", "before %", "after %", "change, points"),
        notes=(UNITS, *([UNRELATED] if len(improvements) > 1 else []), *filter(None, [note_on_heads([metrics])])),
    )
    improvement = metrics["robustness_improvement"]
    counted = improvement["targets"] if improvement else []
    for name, entry in metrics["accuracy"].items():
        role = " (source)" if name == source else "" if name in counted else " (not in RI)"
        table.add_row(
            title_of(name, kind) + role,
            f"{entry['num_images']:,}",
            f"{100 * entry['before']:.2f}",
            f"{100 * entry['after']:.2f}",
            with_interval(entry["change"]),
        )
    for label, value in improvements:
        table.add_row(f"RI, {len(value['targets'])} {label}", "", "", "", with_interval(value), style="bold")
    return table


def _accuracy_table(title: str, metrics: Metrics) -> FittedTable:
    """Return a table of accuracies alone, for a pretrained model, which is compared with nothing."""
    notes = tuple(filter(None, [note_on_heads([metrics])]))
    table = FittedTable(title, words=("dataset",), numbers=("images", "top-1 %"), notes=notes)
    for name, entry in metrics["accuracy"].items():
        cells = (f"{entry['num_images']:,}", f"{100 * entry['after']:.2f}")
        table.add_row(title_of(name, metrics["data"]["kind"]), *cells)
    return table


def _improvements(metrics: Metrics) -> list[tuple[str, Improvement]]:
    """Return RI and, where it differs, RI without the targets that were made of the source's own images."""
    improvement = metrics["robustness_improvement"]
    if not improvement:
        return []
    rest = improvement.get("without_derived")
    others = [("unrelated targets", rest)] if rest and rest["targets"] != improvement["targets"] else []
    return [("targets", improvement), *others]


def say_if_stored(file: Path, begun: float) -> None:
    """Say since when a run is in the store, if its metrics are older than the command that asked for it.

    Args:
        file: The run's metrics.
        begun: Time at which the command began, seconds since the epoch.
    """
    if (written := file.stat().st_mtime) < begun:
        say(f"in the store since {datetime.fromtimestamp(written):%Y-%m-%d %H:%M}; nothing was trained or scored")


def show_run(metrics: Metrics, folder: Path) -> None:
    """Print a run's results: details of a merge, the run's table, its notes, and the paths of its files.

    Args:
        metrics: Of the run.
        folder: The run's folder.
    """
    console = output()
    # Before the run's own table, which is what the command ends with. With one ingredient (WiSE-FT) there is nothing
    # to choose between; its curve shows more.
    if len(metrics.get("ingredients", [])) > 1:
        console.print(best_ingredient_table(metrics), "")
    if "curve" in metrics:
        console.print(curve_table(metrics), "")
    console.print(run_table(metrics))
    lines = [cost_line(metrics), *describe_notes(metrics["notes"])]
    lines += describe_alpha(metrics["method"], metrics["options"], metrics["notes"])
    if held_out := metrics.get("held_out"):
        accuracy = f"{100 * held_out['before']:.2f} % before, {100 * held_out['after']:.2f} % after"
        lines.append(f"{held_out['num_images']} images held out of the source: {accuracy}")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    if "curve" in metrics:
        console.print(f"curve: {folder.resolve() / 'curve.csv'}", soft_wrap=True, highlight=False)
    drawn = [folder / "figures" / f"change.{ending}" for ending in FIGURE_FORMATS]
    figure = next((file for file in drawn if file.is_file()), drawn[0])
    console.print(f"figure: {figure.resolve()}", soft_wrap=True, highlight=False)
    if warning := warning_after([metrics["model"]], metrics["data"]["kind"]):
        console.print(warning, highlight=False)


def curve_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """Return the points of a run's interpolation curve as table rows, one per alpha.

    Args:
        metrics: Of a run with a curve.

    Returns:
        One row per alpha: accuracy in percent on the source, on the in-distribution dataset (``imagenet_val``, if there
        is one), on each dataset and as the mean over targets; RI with its interval in percentage points; and True under
        ``chosen`` for the alpha that was selected.
    """
    rows = []
    shown = in_distribution_of(metrics["data"]["kind"])
    chosen = metrics["notes"].get("wise_ft.chosen_alpha")
    for point in metrics["curve"]:
        improvement, accuracy = point["robustness_improvement"], point["accuracy"]
        targets = improvement["targets"] if improvement else []
        rows.append(
            {
                "alpha": float(point["label"]),
                "source": percent(accuracy.get(metrics["source"]), "after"),
                "targets": sum(percent(accuracy[name], "after") for name in targets) / max(1, len(targets)),
                **({} if shown is None else {shown: percent(accuracy.get(shown), "after")}),
                "ri": improvement["value"] if improvement else float("nan"),
                "ri_low": improvement["low"] if improvement else float("nan"),
                "ri_high": improvement["high"] if improvement else float("nan"),
                "chosen": float(point["label"]) == chosen,
                **{f"accuracy.{name}": 100 * entry["after"] for name, entry in accuracy.items()},
            }
        )
    return rows


def write_curve(metrics: Metrics, file: Path) -> None:
    """Write a run's interpolation curve (`curve_rows`) to a CSV file."""
    import pandas as pd

    write_atomically(file, pd.DataFrame(curve_rows(metrics)).to_csv(index=False).encode())


def curve_table(metrics: Metrics) -> FittedTable:
    """Return a terminal table of a run's interpolation curve, with alpha 0.5 and the chosen alpha marked."""
    kind = metrics["data"]["kind"]
    shown, heading = in_distribution_of(kind), in_distribution_heading(kind)
    table = FittedTable(
        f"Interpolation from the pretrained model (0) to the ingredient (1): {world(metrics)}",
        words=("alpha",),
        numbers=("source %", "mean of targets %", *filter(None, [heading]), "RI, points"),
    )
    for row in curve_rows(metrics):
        marks = (" chosen" if row["chosen"] else "") + (" fixed" if row["alpha"] == 0.5 else "")
        improvement: IntervalInPoints = {"value": row["ri"], "low": row["ri_low"], "high": row["ri_high"]}
        cells = [f"{row[name]:.2f}" for name in ("source", "targets", *filter(None, [shown]))]
        table.add_row(f"{row['alpha']:g}{marks}", *cells, with_interval(improvement))
    return table


def best_ingredient_table(metrics: Metrics) -> FittedTable:
    """Return a terminal table that compares a merged model with the most accurate run merged into it, by dataset.

    An ingredient that was fine-tuned on a dataset does not compete there. The best one is known only in hindsight.
    """
    table = FittedTable(
        f"Merged model and its best ingredient on each dataset (in hindsight; none was fine-tuned on it): "
        f"{world(metrics)}",
        words=("dataset", "best ingredient"),
        numbers=("its accuracy %", "merged %", "gain, points"),
    )
    for name, best in metrics["best_ingredient"].items():
        after = 100 * metrics["accuracy"][name]["after"]
        numbers = (f"{100 * best['accuracy']:.2f}", f"{after:.2f}", points(best["gain"]))
        table.add_row(title_of(name, metrics["data"]["kind"]), best["label"], *numbers)
    return table
