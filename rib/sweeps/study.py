"""Base class of studies: a table from finished cells, and a paragraph and figures from the table.

A paragraph states effects with intervals and n, never an opinion. Figures show only the rows of the table, so that both
can be made again from table.csv. Each interval has 95 % coverage by itself; "k of n gain" is counted after Holm's
correction. No setting is called the best by its mRI, which is computed on the targets: the best one is chosen on the
source, or on images held out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rib.config.schema import FiguresConfig
from rib.errors import RibError
from rib.reporting.captions import running_command
from rib.reporting.formatting import world, world_of
from rib.reporting.style import remove_others, save
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Metrics
from rib.sweeps.plan import Cell


@dataclass(frozen=True)
class Made:
    """A finished cell (a run of the grid) that a study uses, with its metrics.

    Attributes:
        cell: The cell of the plan, with its values of the axes.
        run: Its run.
        metrics: Metrics of the run under the cell's spec.
    """

    cell: Cell
    run: Run
    metrics: Metrics

    @property
    def result(self) -> Result:
        """Run and metrics as a pair, the form that `rib.reporting` takes."""
        return self.run, self.metrics


class Study(ABC):
    """A research question that the cells of a grid answer.

    Attributes:
        width: Width of the figures in inches, which `figures` may pass to `SizedFigure`; None: their own. A figure of
            another width is resized when it is written.
        note: End of a figure's headline that warns of a limited number of images; mostly empty.
    """

    width: float | None = None
    note: str = ""

    def check(self, cells: Sequence[Cell]) -> None:
        """Check, before any run is made, that a grid has the cells that the study needs.

        Args:
            cells: The resolved cells of the grid.

        Raises:
            RibError: If it cannot; the message says what is missing.
        """
        if not any(cell.spec and cell.spec.source is not None for cell in cells):
            raise RibError("methods: a study needs fine-tuned cells, got none; add a method that trains")

    @abstractmethod
    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return the study's table, made from finished cells.

        Args:
            made: The cells that are finished so far, at least one.
            store: The store that holds their runs.
        """

    @abstractmethod
    def paragraph(self, table: pd.DataFrame) -> str:
        """Return a paragraph that states the study's results, using only its table."""

    @abstractmethod
    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Return the study's figures, made from the table alone, by file name without extension."""


def write_study(
    study: Study, made: Sequence[Made], store: RunStore, out: Path, figures: FiguresConfig | None = None
) -> tuple[str, list[Path]]:
    """Write a study's table.csv, summary.md and figures.

    Args:
        study: The study.
        made: Finished cells, at least one.
        store: The store that holds their runs.
        out: Folder to write into, ``<paths.runs>/studies/NAME``.
        figures: Formats and width of the figures; None: png and pdf, at their own widths.

    Returns:
        The paragraph, and the files.
    """
    table = study.table(made, store)
    text = study.paragraph(table)
    files = [out / "table.csv", out / "summary.md"]
    write_atomically(files[0], table.to_csv(index=False).encode())
    write_atomically(files[1], f"{text}\n".encode())
    figures = figures or FiguresConfig()
    study.width, study.note = figures.width, world(made[0].metrics).removeprefix(world_of(_kind(made), None))
    drawn = study.figures(table)
    remove_others(out, drawn.keys())  # with fewer cells a figure may not be drawn any more
    command = running_command("")
    return text, files + [file for name, figure in drawn.items() for file in save(figure, out / name, figures, command)]


def _kind(made: Sequence[Made]) -> str:
    return made[0].metrics["data"]["kind"]


def need_axis(cells: Sequence[Cell], option: str, study: str) -> None:
    """Check that every cell of a grid has a value of the option that a study varies.

    Args:
        cells: The resolved cells of the grid.
        option: Name of the axis.
        study: Subject of the message, ``this study``.

    Raises:
        RibError: If a cell has none.
    """
    if without := next((cell for cell in cells if option not in cell.axes), None):
        raise RibError(f"axes: {study} needs values of {option}, but {without.label} has none; add it to axes")
