"""How many images fine-tuning needs before it stops costing robustness: mRI and accuracy against a subset's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import SERIES
from rib.store import RunStore
from rib.studies.base import Made, is_of, n_of, rows, said, tidy

SIZE = "data.images_per_class"


class Size:
    """Nested, class-balanced, seeded subsets of one source.

    Args:
        threshold: mRI, percentage points; the size is looked for below which a model does worse.
    """

    def __init__(self, threshold: float = -1.0) -> None:
        self.threshold = threshold

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a model, method, other axes and size, with the subsets' digests."""
        found = rows(made, store)
        for row in found:
            row["images"] = next(len(m.cell.question.source or ()) for m in made if m.cell.question and is_of(m, row))
            row["length"] = " ".join(f"{k}={row[k]}" for k in ("epochs", "steps") if row.get(k) is not None)
        return pd.DataFrame(found).sort_values(["model", "method", "images"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """For each model: the smallest and the largest subset, and where mRI crosses the threshold."""
        lines = [f"mRI against images a class, points with 95 % intervals over images; {n_of(table)}."]
        for (model, method, length), curve in table.groupby(["model", "method", "length"]):
            records = curve.to_dict("records")
            first, last = records[0], records[-1]
            lines.append(
                f"{model}, {method} {length}: {said(first)} with {first[SIZE]} a class ({_val(first)}), "
                f"{said(last)} with {last[SIZE]} ({_val(last)}); {self._crossing(records)}."
            )
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """MRI, and accuracy on ImageNet val under it, over the size."""
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        curves = list(table.groupby(["model", "method", "length"]))
        methods, lengths = set(table["method"]), set(table["length"])
        for number, ((model, method, length), curve) in enumerate(curves):
            colour, marker = SERIES[number % len(SERIES)], "os^Dv<>"[number % 7]
            told = [str(model), str(method) * (len(methods) > 1), str(length) * (len(lengths) > 1)]
            label = " ".join(filter(None, told))
            above.fill_between(curve[SIZE], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
            above.plot(curve[SIZE], curve["mri"], color=colour, marker=marker, ms=4, lw=1.4, label=label)
            if (curve["num_seeds"] > 1).all():
                above.vlines(curve[SIZE], curve["seeds_low"], curve["seeds_high"], color=colour, lw=0.9)
            below.plot(curve[SIZE], curve["val_after"] - curve["val_before"], color=colour, marker=marker, ms=4, lw=1.2)
        above.axhline(0, color="black", lw=0.8)
        above.axhline(self.threshold, color="black", lw=0.8, ls=":")
        above.set_ylabel(f"mRI, percentage points\n{n_of(table)}; band: images, bar: seeds", fontsize=8)
        below.axhline(0, color="black", lw=0.8)
        below.set_ylabel("change on ImageNet val,\npercentage points", fontsize=8)
        below.set_xscale("log")
        below.set_xlabel("images a class fine-tuned on", fontsize=8)
        for axes in (above, below):
            tidy(axes)
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
        return {"size": figure}

    def _crossing(self, records: Sequence[Mapping[Any, Any]]) -> str:
        """The size below which mRI is worse than the threshold, log-linear between sizes; its interval is mRI's own."""
        at = {name: self._last_below(records, name) for name in ("low", "mri", "high")}
        if at["mri"] is None:
            return f"no size is worse than {self.threshold:g} points"
        if at["mri"] == float("inf"):
            return f"every size is worse than {self.threshold:g} points"
        ends = "below the smallest" if at["high"] is None else f"{at['high']:.3g}"
        top = "none" if at["low"] is None else "above the largest" if at["low"] == float("inf") else f"{at['low']:.3g}"
        return f"worse than {self.threshold:g} points below {at['mri']:.3g} images a class [{ends}, {top}]"

    def _last_below(self, records: Sequence[Mapping[Any, Any]], name: str) -> float | None:
        """Where a curve last rises above the threshold; None if it is never below, inf if it ends below."""
        below = [i for i, row in enumerate(records) if row[name] < self.threshold]
        if not below:
            return None
        last = below[-1]
        if last + 1 == len(records):
            return float("inf")
        one, two = records[last], records[last + 1]
        share = (self.threshold - one[name]) / (two[name] - one[name])
        return exp(log(one[SIZE]) + share * (log(two[SIZE]) - log(one[SIZE])))


def _val(row: Mapping[Any, Any]) -> str:
    return f"val {row['val_before']:.1f} > {row['val_after']:.1f} %"
