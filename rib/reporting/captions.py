"""Parts of figures' captions: numbers of images and runs, the meaning of intervals, the command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import rib.config
from rib.config.schema import FiguresConfig
from rib.data.worlds import title_of
from rib.runs.recorded import recorded_command
from rib.runtime.command_line import clean, typed_arguments
from rib.schemas.metrics import Metrics

OVER_IMAGES = "Intervals over images cover another sample of images, not another training run"

_OPTIONS = ("format", "width", "title")

COMPARISON = "Change in top-1 accuracy"
"""Start of the caption of every comparison of runs, by which a report knows its files."""


def images_of(metrics: Metrics, names: Iterable[str] | None = None) -> str:
    """Return the numbers of scored images by dataset: ``n = 1,234 images of ImageNet-R, 300 of ImageNet-A``.

    Args:
        metrics: Of a run.
        names: Datasets to list; None: all.
    """
    kind, accuracy = metrics["data"]["kind"], metrics["accuracy"]
    listed = [f"{accuracy[name]['num_images']:,} {{}}of {title_of(name, kind)}" for name in names or accuracy]
    return f"n = {', '.join(listed)}".replace("{}", "images ", 1).replace("{}", "")


def span(numbers: Sequence[int]) -> str:
    """Format the range of some numbers: ``3`` if all are equal, else ``1 to 3``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def counted(numbers: Sequence[int], noun: str) -> str:
    """Format a range of counts with its noun: ``1 seed``, ``2 to 3 seeds``."""
    return f"{span(numbers)} {noun}{'' if max(numbers) == 1 else 's'}"


def methods_in_settings(methods: int, settings: int) -> str:
    """Format a number of methods with that of their settings: ``4 methods in 6 settings``; ``4 methods`` if equal."""
    return counted([methods], "method") + (f" in {settings} settings" if settings != methods else "")


def with_seeds(numbers: Sequence[int]) -> str:
    """Format numbers of seeds, `` with 1 to 2 seeds``; empty for external weights alone, which have none."""
    return f" with {counted(numbers, 'seed')}" if any(numbers) else ""


def command_of_figures(metrics: Metrics, figures: FiguresConfig) -> str:
    """Return the shell command that makes a run with these figures; repeating it draws them without training."""
    return " ".join([recorded_command(metrics), *options_of(figures)])


def options_of(figures: FiguresConfig) -> list[str]:
    """Return the arguments of a command that set how figures are written, quoted for a shell; none for defaults."""
    default = FiguresConfig()
    return [
        shlex.quote(rib.config.spell_override(f"figures.{name}", getattr(figures, name)))
        for name in _OPTIONS
        if getattr(figures, name) != getattr(default, name)
    ]


def origin(figures: FiguresConfig, command: str) -> str:
    """Return the last lines of a caption file: the command, and the options of figures unless the command has them.

    Args:
        figures: How the figure's files were written.
        command: Shell command that makes the figure; empty if it is not known.
    """
    given = [] if command and all(_is_given(option, command) for option in options_of(figures)) else _options(figures)
    made_by = f"Made by: {command}" if command else ""
    return "\n\n".join(filter(None, (made_by, f"Drawn with {' '.join(given)}" if given else "")))


def _is_given(option: str, command: str) -> bool:
    """Return True if a command sets an option: ``figures.width=3.3``, quoted or not."""
    name = option.strip("'").partition("=")[0]
    return f"{name}=" in command


def _options(figures: FiguresConfig) -> list[str]:
    return [rib.config.spell_override(f"figures.{name}", getattr(figures, name)) for name in _OPTIONS]


def running_command(otherwise: str) -> str:
    """Return the command line of this process, cleaned of secrets and names, if it is one of rib's commands.

    Args:
        otherwise: What to return in a notebook or another program.
    """
    program = Path(sys.argv[0])
    if program.suffix == ".py" and program.parent.name == "rib":
        name = ["python", "-m", "rib" if program.stem == "__main__" else f"rib.{program.stem}"]
    elif program.name == "rib" or program.name.startswith("rib-"):
        name = [program.name]
    else:
        return otherwise
    return clean([*name, *typed_arguments()])
