"""Compare a pretrained model's measured accuracies with its published ones, to check the set-up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rib.data.worlds import catalog_of, title_of
from rib.reporting.formatting import world
from rib.reporting.layout import FittedTable, output
from rib.schemas.metrics import Metrics

TOLERANCE = 0.5
"""Largest difference in percentage points that decoding, resizing or half precision can explain.

A wrong transform or label order costs more than that.
"""


@dataclass(frozen=True)
class PublishedComparison:
    """Measured and published accuracy of a model on one dataset.

    Attributes:
        dataset: Name of the dataset.
        num_images: Number of images that were scored.
        measured: Top-1 accuracy measured here, percent.
        published: Top-1 accuracy that was published, percent.
        allowed: Largest expected difference, percentage points: `TOLERANCE`, plus three standard errors if only some
            of the dataset's images were scored.
    """

    dataset: str
    num_images: int
    measured: float
    published: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """True if measured and published accuracy differ by at most ``allowed`` percentage points."""
        return abs(self.measured - self.published) <= self.allowed


def compare(metrics: Metrics, published: Mapping[str, float]) -> list[PublishedComparison]:
    """Compare a pretrained model's measured accuracies with published ones, on every dataset that has both.

    Args:
        metrics: Of any run; its accuracies before fine-tuning are compared.
        published: Published top-1 accuracy by dataset, percent.

    Returns:
        One comparison per dataset; none for mini and for a user's suite, whose images are not those of the published
        datasets.
    """
    kind = metrics["data"]["kind"]
    if kind != "user":
        return []
    comparisons = []
    for name, value in published.items():
        if (entry := metrics["accuracy"].get(name)) is None:
            continue
        n = entry["num_images"]
        is_subset = n < (catalog_of(kind)[name].num_images or 0)
        # Binomial standard error; on all images there is none, since the published accuracy is about the same ones.
        error = 100 * math.sqrt(value / 100 * (1 - value / 100) / n) if is_subset else 0.0
        comparisons.append(PublishedComparison(name, n, 100 * entry["before"], value, TOLERANCE + 3 * error))
    return comparisons


def published_table(metrics: Metrics, rows: list[PublishedComparison]) -> FittedTable:
    """Return a terminal table of measured and published accuracies; its last line says if they agree."""
    wrong = [title_of(row.dataset, metrics["data"]["kind"]) for row in rows if not row.agrees]
    verdict = (
        f"{', '.join(wrong)}: the accuracy differs from the published one. Check the images (python -m rib.data "
        "action=check), the weights and model.transform."
        if wrong
        else "This set-up reproduces the published accuracies."
    )
    table = FittedTable(
        f"{metrics['model']}: measured and published ({world(metrics)})",
        words=("dataset",),
        numbers=("images", "measured %", "published %", "difference, points", "allowed"),
        prose=("",),
        notes=(verdict,),
    )
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
    return table


def show_published(metrics: Metrics, published: Mapping[str, float]) -> None:
    """Print a table of measured and published accuracies, if any dataset has both."""
    if rows := compare(metrics, published):
        output().print(published_table(metrics, rows))
