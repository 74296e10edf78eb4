"""All methods on the built-in data: the table, the figure and the short lists of docs/which_method.md.

    python -m benchmarks.which_method            # from docs/measured/methods.csv, a few seconds
    python -m benchmarks.which_method RUNS       # from the store RUNS; writes methods.csv first

The store holds what the page's own commands make (45 minutes on two CPU cores): every method on two models, three
sources and three seeds. Everything between the page's markers is generated.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from matplotlib.lines import Line2D

from rib.config.schema import FiguresConfig
from rib.reporting import style
from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, fold, name_rows, tidy
from rib.reporting.style import GAIN, LOSS, NEUTRAL

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "measured"
PAGE = ROOT / "docs" / "which_method.md"
BEGIN, END = "<!-- written by benchmarks/which_method.py -->", "<!-- end of what benchmarks/which_method.py writes -->"
MODELS = ("mini_small", "mini_large")
SOURCES = "[imagenet_r,imagenet_sketch,imagenet_v2]"


@dataclass(frozen=True)
class Row:
    """One method on one model.

    Attributes:
        mri: Mean RI over the sources, percentage points, with its 95 % intervals over images and over seeds
            (NaN where seeds share runs).
        before: Accuracy on the source before fine-tuning, percent; `after` likewise.
        seconds: Mean of a run without its ingredients; NaN where it was not timed beside the others.
        val_before: Accuracy on ImageNet val before fine-tuning, percent; `val_after` likewise; NaN if not recorded.
    """

    method: str
    model: str
    mri: float
    mri_low: float
    mri_high: float
    seeds_low: float
    seeds_high: float
    before: float
    after: float
    seconds: float
    val_before: float = math.nan
    val_after: float = math.nan

    @property
    def gain(self) -> float:
        """Accuracy gained on the source, percentage points."""
        return self.after - self.before


def from_store(runs: str) -> list[Row]:
    """Tabulate a store with rib.report and read the table.

    Args:
        runs: Folder of the store.
    """
    subprocess.run(
        [sys.executable, "-m", "rib.report", f"paths.runs={runs}", f"sources={SOURCES}"], check=True, timeout=600
    )
    names = [
        "mri",
        "mri_low",
        "mri_high",
        "mri_seeds_low",
        "mri_seeds_high",
        "source_before",
        "source_after",
        "seconds",
        "val_before",
        "val_after",
    ]
    with (Path(runs) / "report" / "summary.csv").open() as file:
        return [
            Row(row["method"], row["model"], *(float(row[name] or "nan") for name in names))
            for row in csv.DictReader(file)
            if row["model"] in MODELS and not row["options"]
        ]


def save(rows: list[Row]) -> None:
    """Write methods.csv with one decimal, as the page shows it."""
    with (MEASURED / "methods.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        for row in rows:
            writer.writerow("" if v != v else f"{v:.1f}" if isinstance(v, float) else v for v in astuple(row))


def read() -> list[Row]:
    """Read methods.csv."""
    with (MEASURED / "methods.csv").open() as file:
        return [
            Row(method, model, *(float(number or "nan") for number in numbers))
            for method, model, *numbers in list(csv.reader(file))[1:]
        ]


def best_compromises(rows: list[Row]) -> list[Row]:
    """Return the rows of one model that no other row beats in both mRI and gain on the source, most robust first."""
    front = [
        row
        for row in rows
        if not any(o.mri >= row.mri and o.gain >= row.gain and (o.mri, o.gain) != (row.mri, row.gain) for o in rows)
    ]
    return sorted(front, key=lambda row: -row.mri)


def format_row(row: Row) -> tuple[str, str, str]:
    """Return mRI with both intervals, accuracy on the source, and seconds."""
    seeds = "seeds share runs" if math.isnan(row.seeds_low) else f"[{row.seeds_low:+.1f}, {row.seeds_high:+.1f}]"
    return (
        f"{row.mri:+.1f} [{row.mri_low:+.1f}, {row.mri_high:+.1f}] {seeds}",
        f"{row.before:.1f} > {row.after:.1f}",
        "not timed" if math.isnan(row.seconds) else f"{row.seconds:.1f}",
    )


def table(rows: list[Row]) -> str:
    """Format the page's table: one row for each method, sorted by the mean of mRI over both models."""
    by_method = {row.method: {} for row in rows}
    for row in rows:
        by_method[row.method][row.model] = row
    order = sorted(by_method, key=lambda name: -sum(row.mri for row in by_method[name].values()))
    header = "| method |" + "".join(f" {model}: mRI [images] [seeds] | source % | s |" for model in MODELS)
    lines = [header, "|---" * (1 + 3 * len(MODELS)) + "|"]
    for name in order:
        cells = [text for model in MODELS for text in format_row(by_method[name][model])]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(rows: list[Row], width: float | None = None) -> SizedFigure:
    """Plot mRI and the gain on the source by method, in one order for both models; the best compromises are filled."""
    order = sorted({row.method for row in rows}, key=lambda name: sum(row.mri for row in rows if row.method == name))
    drawn = SizedFigure(6.8, width)
    # Tables that were made before they had accuracy on ImageNet val have no panel of it.
    values = {"mRI, points": lambda row: row.mri, "source, points": lambda row: row.gain}
    if not all(math.isnan(row.val_after) for row in rows):
        values["ImageNet val, points"] = lambda row: row.val_after - row.val_before
    grid = drawn.subplots(1, len(values) * len(MODELS))
    for number, model in enumerate(MODELS):
        front = best_compromises([row for row in rows if row.model == model])
        panels = grid[len(values) * number : len(values) * (number + 1)]
        for row in (row for row in rows if row.model == model):
            y, plain = order.index(row.method), row.method == "finetune"
            colour = GAIN if row in front else LOSS if plain else NEUTRAL
            look = {"color": colour, "marker": "s" if plain else "o", "ms": 3.5}
            face = colour if row in front else "white"
            ends = [row.mri_low, row.mri_high]
            panels[0].plot(ends, [y, y], color=colour, lw=4, alpha=0.35, solid_capstyle="butt")
            for axes, value in zip(panels, values.values(), strict=True):
                axes.plot(value(row), y, mfc=face, **look)
        panels[0].set_title(model, fontsize=LABEL, loc="left")
        for axes, label in zip(panels, values, strict=True):
            height = name_rows(axes, order, 0.2 * drawn.inches)
            tidy(axes, "x")
            axes.axvline(0, color="black", lw=0.8)
            axes.set_xlabel(fold(label, 0.15 * drawn.inches, TICK), fontsize=TICK)
            axes.tick_params(labelleft=axes is grid[0])
    drawn.headline("mRI and accuracy gained on the source; mean of 3 sources and 3 seeds, toy data (mini)")
    looks = {"best compromise": (GAIN, GAIN, "o"), "beaten by another": (NEUTRAL, "white", "o")}
    looks["finetune"] = (LOSS, "white", "s")
    handles = [Line2D([], [], ls="none", color=c, mfc=face, marker=m, ms=4) for c, face, m in looks.values()]
    drawn.legend_below([*handles, Line2D([], [], color="black", lw=4, alpha=0.35)], [*looks, "95 % over images"])
    drawn.caption = (
        f"mRI and accuracy gained on the source, percentage points, of {len(order)} methods on {' and '.join(MODELS)}: "
        "means over mini R, mini Sketch and mini V2 of the toy data as sources and three seeds. Methods are in one "
        "order, by mRI averaged over both models. Bars: 95 % intervals over images. Filled: no other method is better "
        "in both."
    )
    return drawn.fit(height * len(order))


def section(rows: list[Row]) -> str:
    """Return the text between the page's markers."""
    lists = []
    for model in MODELS:
        front = best_compromises([row for row in rows if row.model == model])
        steps = ", ".join(f"`{row.method}` (mRI {row.mri:+.1f}, source {row.gain:+.1f})" for row in front)
        lists.append(f"- {model}: {steps}.")
    gains = [f"`{row.method}` on {row.model}" for row in rows if min(row.mri_low, row.seeds_low) > 0]
    improving = ", ".join(gains) if gains else "none"
    return "\n\n".join(
        [
            "![mRI and the accuracy gained on the source, by method](measured/methods.png)",
            "By value, no other method is better both in mRI and in accuracy on the source (points):",
            "\n".join(lists),
            f"Methods that improve robustness (both 95 % intervals above zero): {improving}.",
            table(rows),
        ]
    )


def main() -> None:
    """Write the figure and the page's generated part."""
    if sys.argv[1:]:
        save(from_store(sys.argv[1]))
    rows = read()
    style.save(figure(rows), MEASURED / "methods", FiguresConfig(["png"]), "python -m benchmarks.which_method")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{section(rows)}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
