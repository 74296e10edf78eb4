"""The numbers of the paper's table, unrounded, as a pandas table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rib.reporting.axes import value_of
from rib.reporting.summary import Summary

if TYPE_CHECKING:
    from pandas import DataFrame

    from rib.reporting.paper_table import PaperTable


def frame_of(table: PaperTable) -> DataFrame:
    """Return the unrounded numbers of a table; mRI in percentage points, accuracies in percent.

    ``val_before`` and ``val_after`` are accuracy in distribution (on ImageNet val); NaN if the suite has no such
    dataset.

    Args:
        table: Its ``frame`` is this.
    """
    import pandas as pd

    return pd.DataFrame([_numbers(table, row) for row in table.rows])


def _numbers(table: PaperTable, row: Summary) -> dict[str, Any]:
    seeds, against, nan = row.over_seeds, row.against_plain, float("nan")
    return {
        "model": row.model,
        "method": row.method,
        **{axis.removeprefix("method."): value_of(row, axis) for axis in table.axes},
        "options": ", ".join(f"{k}={v}" for k, v in row.options.items()),
        **{f"ri.{name}": row.improvement.get(name, nan) for name in table.sources},
        "num_sources": len(row.improvement),
        "mri": row.over_images.value,
        "mri_low": row.over_images.low,
        "mri_high": row.over_images.high,
        "mri_seeds_low": seeds.low if seeds else nan,
        "mri_seeds_high": seeds.high if seeds else nan,
        "num_seeds": len(row.seeds),
        "against_finetune": against.difference if against else nan,
        "against_finetune_error": against.error if against else nan,
        "p": against.p if against else nan,
        "p_holm": row.p_adjusted,
        "val_before": 100 * row.val_before,
        "val_after": 100 * row.val_after,
        "source_before": 100 * row.source_before,
        "source_after": 100 * row.source_after,
        "images_trained": row.images_trained,
        "images_scored": row.images_scored,
        "seconds": row.seconds,
        "device": ", ".join(row.devices),
        "made_from": row.made_from,
        "is_trial": row.is_trial,
    }
