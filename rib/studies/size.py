"""Study of mRI and accuracy against the size of the fine-tuning set, from a few images per class upwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, inf, log, nan
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.data.worlds import catalog_of, in_distribution_of
from rib.errors import RibError
from rib.metrics import mean_robustness_interval, seed_interval
from rib.reporting.captions import OVER_IMAGES
from rib.reporting.formatting import before_after, in_distribution_heading
from rib.reporting.image_changes import changes_of
from rib.reporting.sized_figure import LABEL
from rib.reporting.summary import select_balanced
from rib.runs.store import RunStore
from rib.studies.plots import BANDS, curves_figure, height_of, val_of
from rib.studies.rows import Row, describe_subset, format_effect, is_missing, n_of, name_curves, per_class, rows
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis

SIZE = "data.images_per_class"


class Size(Study):
    """Study of mRI against the number of images per class, on nested, class-balanced, seeded subsets of one source.

    Args:
        threshold: mRI in percentage points; the study estimates the size below which a model loses more than this.
    """

    def __init__(self, threshold: float = -1.0) -> None:
        self.threshold = threshold

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that every cell (run of the grid) sets the images per class, and that the threshold is a number."""
        super().check(cells)
        if not isinstance(self.threshold, int | float):
            raise RibError(f"draw.threshold: expected a number of percentage points, got {self.threshold!r}")
        need_axis(cells, SIZE, "this study")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per curve and subset size, with the subsets' digests and accuracy change in distribution."""
        grouped = rows(made, store)
        name_curves(grouped, [SIZE])
        table = pd.DataFrame([{**row.columns, **describe_subset(row), **_on_val(row, store)} for row in grouped])
        return table.sort_values(["curve", "a_class"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe each curve: its smallest and largest subset, and the size at which mRI crosses the threshold."""
        lines = [
            "mRI against images per class, in percentage points with 95 % intervals over images only; "
            f"{n_of(table, named=True)}."
        ]
        for label, curve in table.groupby("curve"):
            records = curve.to_dict("records")
            first, last = records[0], records[-1]
            ends = [f"{format_effect(row)} with {per_class(row['a_class'])}{_val(row)}" for row in (first, last)]
            lines.append(f"{label}: {', '.join(dict.fromkeys(ends))}; {self._crossing(records)}.")
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot mRI against images per class, and below it accuracy on the source and in distribution."""
        figure, axes = curves_figure(table, "a_class", self.width)
        axes[0].axhline(self.threshold, color="black", lw=0.8, ls=":")
        axes[-1].set_xlabel("fine-tuning images per class", fontsize=LABEL)
        figure.headline(f"mRI against the size of the fine-tuning set; {n_of(table)}{self.note}")
        figure.caption = (
            "Mean robustness improvement (mRI, percentage points) and top-1 accuracy against the number of fine-tuning "
            f"images per class, on nested subsets; {n_of(table, named=True)}{self.note}. {BANDS}. {OVER_IMAGES}. The "
            f"dotted line at {self.threshold:g} points is the threshold that the text speaks of"
            f"{f'; the band on {val_of(table)} is the interval of its change' if val_of(table) else ''}."
        )
        return {"size": figure.fit(height_of(figure, axes))}

    def _crossing(self, records: Sequence[Mapping[Any, Any]]) -> str:
        """Describe the size below which mRI is worse than the threshold, by log-linear interpolation between sizes.

        The interval around it ends where the ends of mRI's interval cross the threshold: inside it, mRI does not differ
        significantly from the threshold.
        """
        worse = [row["mri"] < self.threshold for row in records]
        than = f"worse than {self.threshold:g} points"
        if not any(worse):
            return f"estimated mRI is {than} at no size"
        if all(worse):
            return f"estimated mRI is {than} at every size"
        if worse != sorted(worse, reverse=True):
            return f"estimated mRI is {than} at {sum(worse)} of {len(worse)} sizes, not only at the smallest"
        bracket = f"{self._bracket(records)} over images only"
        if not any(is_missing(row["seeds_low"]) for row in records):
            bracket = f"{self._bracket(records)} over images, {self._bracket(records, 'seeds_')} over seeds"
        crossing = self._last_below(records, "mri")
        return f"estimated mRI is {than} below {crossing:.3g} images per class {bracket}"

    def _bracket(self, records: Sequence[Mapping[Any, Any]], of: str = "") -> str:
        """Format the interval of the subset size at which mRI crosses the threshold: ``[4.1, above the largest]``."""
        low, high = (self._last_below(records, of + name) for name in ("low", "high"))
        ends = "below the smallest" if high is None else f"{high:.3g}"
        return f"[{ends}, {'above the largest' if low == inf else f'{low:.3g}'}]"

    def _last_below(self, records: Sequence[Mapping[Any, Any]], name: str) -> float | None:
        """Return the subset size (images per class) at which a curve rises above the threshold for the last time.

        Returns:
            Images per class; None if the curve is never below the threshold, inf if it ends below.
        """
        below = [i for i, row in enumerate(records) if row[name] < self.threshold]
        if not below:
            return None
        last = below[-1]
        if last + 1 == len(records):
            return inf
        one, two = records[last], records[last + 1]
        # Linear in the logarithm of the size, as the axis is drawn.
        share = (self.threshold - one[name]) / (two[name] - one[name])
        return exp(log(one["a_class"]) + share * (log(two["a_class"]) - log(one["a_class"])))


def _on_val(row: Row, store: RunStore) -> dict[str, float]:
    """Return the accuracy change in distribution in points, with intervals over images and seeds; NaN if not scored."""
    columns = dict.fromkeys(("val_change", "val_low", "val_high", "val_seeds_low", "val_seeds_high"), nan)
    results = select_balanced([one.result for one in row.made])
    kind = results[0][1]["data"]["kind"]
    shown = in_distribution_of(kind)
    if shown is None or any(shown not in m["scores"] for _, m in results):
        return columns
    images = mean_robustness_interval(changes_of(results, store, catalog_of(kind), [shown]))
    columns |= {"val_change": images.value, "val_low": images.low, "val_high": images.high}
    by_seed: dict[int | None, list[float]] = {}
    for _, m in results:
        by_seed.setdefault(m["seed"], []).append(m["accuracy"][shown]["change"]["value"])
    if (seeds := seed_interval([fmean(values) for values in by_seed.values()])) is not None:
        columns |= {"val_seeds_low": seeds.low, "val_seeds_high": seeds.high}
    return columns


def _val(row: Mapping[Any, Any]) -> str:
    """Format accuracy in distribution in parentheses; empty if the suite has no such dataset."""
    heading = in_distribution_heading(str(row.get("kind", "user")))
    if heading is None:
        return ""
    name = heading.removesuffix(" %")
    if is_missing(row["val_change"]):
        return f" ({name} not scored)"
    change = f"{row['val_change']:+.2f} [{row['val_low']:+.2f}, {row['val_high']:+.2f}]"
    return f" ({name} {before_after(row['val_before'], row['val_after'])} %, {change})"
