"""From metrics.json to what a person reads: one run's table, and the comparison of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog
from rib.files import write_atomically
from rib.schema import BatchNorm

if TYPE_CHECKING:
    from rib.store import Run


def catalog_of(kind: str) -> Catalog:
    """The world that metrics.json calls ``mini`` or ``user``."""
    return mini.catalog() if kind == "mini" else catalogs.real()


def title_of(dataset: str, kind: str = "user") -> str:
    """A dataset's name for people."""
    specs = catalog_of(kind).specs
    return specs[dataset].title if dataset in specs else dataset


def points(value: float) -> str:
    """Percentage points with their sign; no change has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def with_interval(value: Mapping[str, float]) -> str:
    """``+1.23 [+0.40, +2.05]``."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def before_after(before: float, after: float) -> str:
    """``34.6 > 62.5`` percent; a dataset that no suite scores has no number."""
    return "not scored" if isnan(after) else f"{before:.1f} > {after:.1f}"


def world(metrics: Mapping[str, Any]) -> str:
    """Which data the numbers are about; every output says so."""
    kind = "the built-in mini data" if metrics["data"]["kind"] == "mini" else "user data"
    limit = metrics["protocol"]["limit"]
    return kind + (f", at most {limit} images a dataset: a quick look, not a result" if limit else "")


def run_table(metrics: Mapping[str, Any]) -> Table:
    """One run: each dataset before and after, then RI."""
    kind, source = metrics["data"]["kind"], metrics["source"]
    heading = f"{metrics['model']}, {metrics['method']}"
    if source != "none":
        heading += f" on {title_of(source, kind)}, seed {metrics['seed']}"
    table = Table(title=f"{heading} ({world(metrics)}, suite {metrics['suite']})", title_justify="left")
    table.add_column("dataset")
    for column in ("images", "before %", "after %", "change in points [95 %, images only]"):
        table.add_column(column, justify="right")
    improvement = metrics["robustness_improvement"] or {"targets": []}
    for name, entry in metrics["accuracy"].items():
        role = " (source)" if name == source else "" if name in improvement["targets"] else " (not in RI)"
        table.add_row(
            title_of(name, kind) + role,
            f"{entry['num_images']:,}",
            f"{100 * entry['before']:.2f}",
            f"{100 * entry['after']:.2f}",
            with_interval(entry["change"]),
        )
    table.add_section()
    for label, value in (
        ("RI", improvement),
        ("RI without the source's own images", improvement.get("without_derived")),
    ):
        if value and value["targets"]:
            table.add_row(f"{label}, {len(value['targets'])} targets", "", "", "", with_interval(value), style="bold")
    return table


def show_run(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print one run's table, notes, and where to look."""
    console = Console(width=None if Console().is_terminal else 120)
    console.print(run_table(metrics))
    for name, value in metrics["notes"].items():
        console.print(f"{name}: {value:.4g}", highlight=False)
    if held := metrics.get("held_out"):
        accuracy = f"{100 * held['before']:.2f} % before, {100 * held['after']:.2f} % after"
        console.print(f"held out of the source, {held['num_images']} images: {accuracy}", highlight=False)
    if len(metrics.get("ingredients", [])) > 1:
        console.print(best_ingredient_table(metrics))
    if "curve" in metrics:
        console.print(curve_table(metrics))
        console.print(f"curve: {folder.resolve() / 'curve.csv'}", soft_wrap=True, highlight=False)
    console.print(f"figure: {folder.resolve() / 'figures' / 'change.png'}", soft_wrap=True, highlight=False)


def comparison_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a run that trained: what it was, RI with its interval, source and in-distribution accuracy, cost."""
    rows = []
    for m in runs:
        if m["source"] == "none" or m["robustness_improvement"] is None:
            continue
        improvement = m["robustness_improvement"]
        in_distribution = m["accuracy"].get("imagenet_val")
        rows.append(
            {
                "model": m["model"],
                "source": m["source"],
                "method": m["method"],
                "options": ", ".join(f"{k}={v}" for k, v in m["options"].items()),
                "seed": m["seed"],
                "ri": improvement["value"],
                "ri_low": improvement["low"],
                "ri_high": improvement["high"],
                "num_targets": len(improvement["targets"]),
                "source_before": _percent(m["accuracy"].get(m["source"]), "before"),
                "source_after": _percent(m["accuracy"].get(m["source"]), "after"),
                "val_before": _percent(in_distribution, "before"),
                "val_after": _percent(in_distribution, "after"),
                "seconds": m["seconds"]["fit"] + m["seconds"]["evaluate"],
            }
        )
    return sorted(rows, key=lambda row: [str(row[k]) for k in ("source", "model", "method", "options", "seed")])


def comparison_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of `comparison_rows` for a person."""
    kind = runs[0]["data"]["kind"]
    table = Table(title=f"Fine-tuned runs ({world(runs[0])}, suite {runs[0]['suite']})", title_justify="left")
    for column in ("source", "model", "method"):
        table.add_column(column)
    for column in ("seed", "RI, points [95 %, images only]", "source %", "ImageNet val %", "s"):
        table.add_column(column, justify="right")
    for row in comparison_rows(runs):
        table.add_row(
            title_of(row["source"], kind),
            row["model"],
            row["method"] + (f" ({row['options']})" if row["options"] else ""),
            str(row["seed"]),
            with_interval({"value": row["ri"], "low": row["ri_low"], "high": row["ri_high"]}),
            before_after(row["source_before"], row["source_after"]),
            before_after(row["val_before"], row["val_after"]),
            f"{row['seconds']:.1f}",
        )
    return table


def missing_controls(results: Sequence[tuple[Run, Mapping[str, Any]]]) -> list[str]:
    """What a comparison on BatchNorm models lacks: plain fine-tuning with frozen statistics, a line a model and source.

    Moving statistics alone can cost more than fine-tuning does; a method that freezes them would look better for it.
    """
    from rib.commands import command_of

    trained = [(run, m) for run, m in results if m["source"] != "none"]
    there = {
        (m["model"], m["source"])
        for _, m in trained
        if m["method"] == "finetune" and m["protocol"]["batch_norm"] == "frozen"
    }
    needed: dict[tuple[str, str], tuple[Run, Mapping[str, Any]]] = {}
    for run, m in trained:
        if m["notes"].get("batch_norm.layers"):
            needed.setdefault((m["model"], m["source"]), (run, m))
    return [
        f"{of[0]} has BatchNorm, whose moving statistics can cost more than fine-tuning does; this table needs the "
        f"control: {command_of(run, m, method={}, batch_norm=BatchNorm.frozen)}"
        for of, (run, m) in needed.items()
        if of not in there
    ]


def curve_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a model on a curve: accuracy in percent (source, mean of targets, val, each set) and RI in points."""
    rows = []
    chosen = metrics["notes"].get("wise_ft.chosen_alpha")
    for point in metrics["curve"]:
        improvement, accuracy = point["robustness_improvement"], point["accuracy"]
        targets = improvement["targets"] if improvement else []
        rows.append(
            {
                "alpha": float(point["label"]),
                "source": _percent(accuracy.get(metrics["source"]), "after"),
                "targets": sum(_percent(accuracy[name], "after") for name in targets) / max(1, len(targets)),
                "imagenet_val": _percent(accuracy.get("imagenet_val"), "after"),
                "ri": improvement["value"] if improvement else float("nan"),
                "ri_low": improvement["low"] if improvement else float("nan"),
                "ri_high": improvement["high"] if improvement else float("nan"),
                "chosen": float(point["label"]) == chosen,
                **{f"accuracy.{name}": 100 * entry["after"] for name, entry in accuracy.items()},
            }
        )
    return rows


def write_curve(metrics: Mapping[str, Any], file: Path) -> None:
    """The rows of `curve_rows` as csv."""
    import pandas as pd

    write_atomically(file, pd.DataFrame(curve_rows(metrics)).to_csv(index=False).encode())


def curve_table(metrics: Mapping[str, Any]) -> Table:
    """A curve for a person; the fixed alpha and the chosen one are marked."""
    table = Table(title="The curve from the start (0) to the ingredient (1)", title_justify="left")
    for column in ("alpha", "source %", "mean of targets %", "ImageNet val %", "RI, points [95 %, images only]"):
        table.add_column(column, justify="right")
    for row in curve_rows(metrics):
        marks = (" chosen" if row["chosen"] else "") + (" fixed" if row["alpha"] == 0.5 else "")
        improvement = {"value": row["ri"], "low": row["ri_low"], "high": row["ri_high"]}
        cells = [f"{row[name]:.2f}" for name in ("source", "targets", "imagenet_val")]
        table.add_row(f"{row['alpha']:g}{marks}", *cells, with_interval(improvement))
    return table


def best_ingredient_table(metrics: Mapping[str, Any]) -> Table:
    """Merged against the best of its parts that were not fine-tuned on a dataset: best there, as nobody could know."""
    title = "Against the ingredient that is best on the dataset itself, with hindsight, of those that have not seen it"
    table = Table(title=title, title_justify="left")
    table.add_column("dataset")
    table.add_column("best ingredient")
    for column in ("its accuracy %", "merged %", "gain, points"):
        table.add_column(column, justify="right")
    for name, best in metrics["best_ingredient"].items():
        after = 100 * metrics["accuracy"][name]["after"]
        numbers = (f"{100 * best['accuracy']:.2f}", f"{after:.2f}", points(best["gain"]))
        table.add_row(title_of(name, metrics["data"]["kind"]), best["label"], *numbers)
    return table


def _percent(entry: Mapping[str, float] | None, when: str) -> float:
    return 100 * entry[when] if entry else float("nan")
