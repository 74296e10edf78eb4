"""Profile of a run's time (``profile=true``): profile.csv, a figure, and the bottleneck in one sentence.

Phases add up to the whole time. Loaders read and decode images beside them, which costs nothing as long as they keep
up: their seconds are given apart, and what they cost is the wait for images.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rib.config.schema import Config
from rib.reporting.formatting import duration
from rib.reporting.layout import FittedTable
from rib.runtime.console import rank, say
from rib.runtime.files import write_atomically
from rib.runtime.stopwatch import measured

if TYPE_CHECKING:
    from rib.reporting.sized_figure import SizedFigure

FILE = "profile.csv"

REST = "loading and writing files, and all else"

ADVICE = {
    "training: waiting for images": "use more loaders (data.workers), or smaller image files",
    "scoring: waiting for images": "use more loaders (data.workers), or smaller image files",
    "training: forward": "use a faster precision (precision=bf16-mixed on a GPU), compile=true, or fewer steps",
    "training: backward": "use a faster precision (precision=bf16-mixed on a GPU), compile=true, or fewer steps",
    "training: penalty": "this is the method itself; plain fine-tuning does without",
    "training: optimizer": "larger batches have fewer steps (batch_size)",
    "training: checkpoints": "put paths.runs on a faster disk, or write them less often (checkpoint.every_minutes)",
    "training: before the first step (Fisher, features)": "use fewer images (samples, where the method has it)",
    "training: loop, logs and callbacks": "larger batches have fewer steps (batch_size)",
    "scoring: forward": "use a faster precision (evaluation.precision), or fewer images (data.limit)",
    "figures": "draw fewer formats (figures.format=png)",
}
"""What to change where a phase takes most of the time."""


@contextmanager
def profiled(config: Config, folder: Path) -> Iterator[None]:
    """Measure a block that makes a run, if ``profile=true``, and write what took how long into the run's folder.

    Args:
        config: The run's.
        folder: The run's folder.
    """
    if not config.profile or rank() > 0:
        yield
        return
    with measured(REST) as watch:
        yield
    write_profile(watch.seconds, {work: counted.seconds for work, counted in watch.beside.items()}, folder, config)
    say(bottleneck(watch.seconds))


def write_profile(seconds: Mapping[str, float], beside: Mapping[str, float], folder: Path, config: Config) -> None:
    """Write profile.csv and figures/profile in a run's folder.

    Args:
        seconds: Seconds by phase.
        beside: Seconds of what other threads and processes did meanwhile, which are no share of the whole.
        folder: The run's folder.
        config: Formats and width of figures.
    """
    from rib.reporting.style import save

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("phase", "seconds", "percent"))
    rows.writerows((phase, f"{s:.4f}", f"{share:.2f}") for phase, s, share in _sorted(seconds))
    rows.writerows((work, f"{spent:.4f}", "") for work, spent in beside.items())
    write_atomically(folder / FILE, table.getvalue().encode())
    save(_figure(seconds, beside, config.figures.width), folder / "figures" / "profile", config.figures)


def read_profile(folder: Path) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return the seconds of each phase, and of what was done beside them, from a run's profile.csv; None if none."""
    if not (folder / FILE).is_file():
        return None
    rows = list(csv.DictReader((folder / FILE).read_text().splitlines()))
    phases, beside = ([row for row in rows if bool(row["percent"]) is of_whole] for of_whole in (True, False))
    return _seconds(phases), _seconds(beside)


def profile_table(seconds: Mapping[str, float], beside: Mapping[str, float]) -> FittedTable:
    """Return the table of a run's phases, the longest first, with the bottleneck below.

    Args:
        seconds: Seconds by phase.
        beside: Seconds of what other threads and processes did meanwhile.
    """
    meanwhile = tuple(f"meanwhile: {work}: {duration(spent)}" for work, spent in beside.items())
    table = FittedTable("Where the run's time went", ("phase",), ("s", "%"), notes=(*meanwhile, bottleneck(seconds)))
    for phase, spent, share in _sorted(seconds):
        table.add_row(phase, f"{spent:.2f}", f"{share:.1f}")
    return table


def bottleneck(seconds: Mapping[str, float]) -> str:
    """Return a sentence with the phase that takes most of a run's time, and what to change.

    Forward and backward passes are one: nothing changes one without the other.
    """
    total = sum(seconds.values()) or 1.0
    grouped = {phase: spent for phase, spent in seconds.items() if phase not in ("training: backward", REST)}
    if "training: backward" in seconds:
        grouped["training: forward"] = seconds.get("training: forward", 0.0) + seconds["training: backward"]
    phase = max(grouped, key=lambda phase: grouped[phase], default=REST)
    if phase == REST or grouped[phase] < seconds.get(REST, 0.0):
        return f"profile: most of {duration(total)} is start-up and files, not training or scoring; longer runs hide it"
    name = "training: forward and backward passes" if phase == "training: forward" else phase
    return f"profile: {name}: {100 * grouped[phase] / total:.0f} % of {duration(total)}; {_advice(phase)}"


def _advice(phase: str) -> str:
    return ADVICE.get(phase, "nothing to set makes this shorter")


def _seconds(rows: list[dict[str, str]]) -> dict[str, float]:
    return {row["phase"]: float(row["seconds"]) for row in rows}


def _sorted(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return phase, seconds and percent, the longest first."""
    total = sum(seconds.values()) or 1.0
    return [(p, s, 100 * s / total) for p, s in sorted(seconds.items(), key=lambda entry: -entry[1])]


def _figure(seconds: Mapping[str, float], beside: Mapping[str, float], width: float | None) -> SizedFigure:
    """Return a figure with a bar a phase, in seconds, and paler ones of what was done meanwhile."""
    from rib.reporting.sized_figure import LABEL, TICK, SizedFigure, name_rows, tidy
    from rib.reporting.style import GAIN

    bars = [(work, spent, "meanwhile", 0.35) for work, spent in beside.items()]
    bars += [(phase, spent, f"{share:.1f} %", 1.0) for phase, spent, share in _sorted(seconds)[::-1]]
    figure = SizedFigure(6.4, width)
    axes = figure.add_subplot()
    for row, (_, spent, words, alpha) in enumerate(bars):
        axes.barh(row, spent, color=GAIN, height=0.6, alpha=alpha)
        axes.annotate(f" {words}", (spent, row), va="center", fontsize=TICK)
    height = name_rows(axes, [name for name, *_ in bars], 0.35 * figure.inches)
    axes.margins(x=0.15)
    axes.set_xlabel("seconds", fontsize=LABEL)
    tidy(axes, "x")
    figure.headline("Where the run's time went")
    figure.caption = f"Seconds of a run by phase, one run, no interval. {bottleneck(seconds)}."
    return figure.fit(height * len(bars))
