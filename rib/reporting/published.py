"""Is this set-up right? A pretrained model's accuracies here beside its published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from rib.data import catalog as catalogs
from rib.data.worlds import title_of
from rib.reporting.formatting import world
from rib.schemas.metrics import Metrics

TOLERANCE = 0.5
"""Percentage points that decoders, resizing and half precision explain; a wrong transform or label order costs more."""


@dataclass(frozen=True)
class PublishedComparison:
    """One dataset's accuracy, in percent.

    Attributes:
        dataset: Its name.
        num_images: Scored here.
        measured: Here.
        published: Elsewhere.
        allowed: Largest difference that is no surprise; three standard errors wider where only some images count.
    """

    dataset: str
    num_images: int
    measured: float
    published: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is no surprise."""
        return abs(self.measured - self.published) <= self.allowed


def compare(metrics: Metrics, published: Mapping[str, float]) -> list[PublishedComparison]:
    """Each dataset that was scored and has a published accuracy; none for mini, whose images are not the real ones.

    Args:
        metrics: Of any run: its accuracies before fine-tuning are taken.
        published: Percent, by dataset.
    """
    if metrics["data"]["kind"] == "mini":
        return []
    found = []
    for name, value in published.items():
        if (entry := metrics["accuracy"].get(name)) is None:
            continue
        n = entry["num_images"]
        some = n < (catalogs.real()[name].num_images or 0)
        error = 100 * math.sqrt(value / 100 * (1 - value / 100) / n) if some else 0.0
        found.append(PublishedComparison(name, n, 100 * entry["before"], value, TOLERANCE + 3 * error))
    return found


def published_table(metrics: Metrics, rows: list[PublishedComparison]) -> Table:
    """Measured and published accuracies side by side, with a verdict below."""
    table = Table(title=f"{metrics['model']} here and as published ({world(metrics)})", title_justify="left")
    table.add_column("dataset")
    for column in ("images", "measured %", "published %", "difference in points", "allowed"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            title_of(row.dataset, metrics["data"]["kind"]),
            f"{row.num_images:,}",
            f"{row.measured:.2f}",
            f"{row.published:.2f}",
            f"{row.measured - row.published:+.2f}",
            f"{row.allowed:.2f}",
            "agrees" if row.agrees else "differs",
        )
    wrong = [title_of(row.dataset, metrics["data"]["kind"]) for row in rows if not row.agrees]
    table.caption_justify = "left"
    table.caption = (
        f"{', '.join(wrong)}: not the published accuracy. Look at the images (python -m rib.data action=check), the "
        "weights and model.transform."
        if wrong
        else "This set-up gives the published accuracies."
    )
    return table


def show_published(metrics: Metrics, published: Mapping[str, float]) -> None:
    """Print the comparison, where there is anything to compare."""
    if rows := compare(metrics, published):
        Console(width=None if Console().is_terminal else 120).print(published_table(metrics, rows))
