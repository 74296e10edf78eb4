"""What every study is: from finished cells to a table, and from the table to a paragraph and figures.

A paragraph states effects with intervals and n, never an opinion; figures show the table's rows and nothing else, so
that all of it can be made again from table.csv. Each interval is 95 % for itself; how many of many gain is counted
after Holm. Nothing is called the best by mRI, which is of targets: what is best is so on the source, or on what was
held out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rib.errors import RibError
from rib.reporting.style import save
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.runtime.files import write_atomically
from rib.schemas.metrics import Metrics
from rib.sweeps.plan import Cell


@dataclass(frozen=True)
class Made:
    """A finished cell of a study.

    Attributes:
        cell: As planned, with what the axes say.
        run: Its run.
        metrics: What metrics.json says to exactly this question.
    """

    cell: Cell
    run: Run
    metrics: Metrics

    @property
    def result(self) -> Result:
        """As `rib.reporting.summary` takes it."""
        return self.run, self.metrics


class Study(ABC):
    """A question put to a grid."""

    def check(self, cells: Sequence[Cell]) -> None:
        """See, before anything is made, that the study can be drawn from these cells.

        Args:
            cells: Of the grid, those that can be asked.

        Raises:
            RibError: If it cannot, with what is missing.
        """
        if not any(cell.spec and cell.spec.source is not None for cell in cells):
            raise RibError("methods: a study needs cells that are fine-tuned, got none")

    @abstractmethod
    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """The numbers, of as many cells as are finished: at least one."""

    @abstractmethod
    def paragraph(self, table: pd.DataFrame) -> str:
        """What they say."""

    @abstractmethod
    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """What they look like, by file name."""


def write_study(study: Study, made: Sequence[Made], store: RunStore, out: Path) -> tuple[str, list[Path]]:
    """Write table.csv, summary.md and the figures.

    Args:
        study: What to draw.
        made: Finished cells, at least one.
        store: Where their runs are.
        out: ``<paths.runs>/studies/NAME``.

    Returns:
        The paragraph, and the files.
    """
    table = study.table(made, store)
    text = study.paragraph(table)
    files = [out / "table.csv", out / "summary.md"]
    write_atomically(files[0], table.to_csv(index=False).encode())
    write_atomically(files[1], f"{text}\n".encode())
    for stale in out.glob("*.png"):
        stale.unlink()
    return text, files + [save(figure, out / f"{name}.png") for name, figure in study.figures(table).items()]


def need_axis(cells: Sequence[Cell], option: str, study: str) -> None:
    """Refuse a grid of which some cells have no such axis."""
    if without := next((cell for cell in cells if option not in cell.axes), None):
        raise RibError(f"axes: {study} is drawn over {option}, which {without.label} has no values of")
