"""How many images fine-tuning needs before it stops costing robustness: mRI and accuracy against a subset's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.figures import SERIES
from rib.metrics import IN_DISTRIBUTION, mean_robustness_interval, seed_interval
from rib.store import RunStore
from rib.studies.base import Made, is_of, log_ticks, n_of, rows, said, tidy
from rib.summary import changes_of
from rib.tables import catalog_of


def drawn(row: Mapping[str, Any], made: Sequence[Made]) -> dict[str, Any]:
    """The subsets behind a row: ``images`` in all, ``a_class`` of them, and a digest for each draw."""
    cells = [one for one in made if is_of(one, row)]
    trees = [one.cell.question.source for one in cells if one.cell.question and one.cell.question.source is not None]
    images = len(trees[0])
    return {
        "images": images,
        "a_class": images / len(set(trees[0].labels.tolist())),
        "digests": " ".join(dict.fromkeys(tree.digest for tree in trees)),
    }


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
            row |= {**drawn(row, made), **_on_val(row, made, store)}
            row["length"] = " ".join(f"{k}={row[k]}" for k in ("epochs", "steps") if row.get(k) is not None)
        return pd.DataFrame(found).sort_values(["model", "method", "images"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """For each model: the smallest and the largest subset, and where mRI crosses the threshold."""
        lines = [f"mRI against images a class, points with 95 % intervals over images; {n_of(table)}."]
        for (model, method, length), curve in table.groupby(["model", "method", "length"]):
            records = curve.to_dict("records")
            first, last = records[0], records[-1]
            lines.append(
                f"{model}, {method} {length}: {said(first)} with {first['a_class']:g} a class ({_val(first)}), "
                f"{said(last)} with {last['a_class']:.5g} ({_val(last)}); {self._crossing(records)}."
            )
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """MRI, and the change on ImageNet val under it, over the size."""
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        curves = list(table.groupby(["model", "method", "length"]))
        methods, lengths = set(table["method"]), set(table["length"])
        for number, ((model, method, length), curve) in enumerate(curves):
            colour, marker = SERIES[number % len(SERIES)], "os^Dv<>"[number % 7]
            told = [str(model), str(method) * (len(methods) > 1), str(length) * (len(lengths) > 1)]
            label = " ".join(filter(None, told))
            x = curve["a_class"]
            for axes, value, of in ((above, "mri", ""), (below, "val_change", "val_")):
                axes.fill_between(x, curve[f"{of}low"], curve[f"{of}high"], color=colour, alpha=0.2, lw=0)
                axes.plot(x, curve[value], color=colour, marker=marker, ms=4, lw=1.4, label=label)
                if (curve["num_seeds"] > 1).all():
                    axes.vlines(x, curve[f"{of}seeds_low"], curve[f"{of}seeds_high"], color=colour, lw=0.9)
        above.axhline(0, color="black", lw=0.8)
        above.axhline(self.threshold, color="black", lw=0.8, ls=":")
        above.set_ylabel("mRI, percentage points\n95 %; band: images, bar: seeds", fontsize=8)
        below.axhline(0, color="black", lw=0.8)
        below.set_ylabel("change on ImageNet val,\npercentage points", fontsize=8)
        log_ticks(below, table["a_class"])
        below.set_xlabel(f"images a class fine-tuned on; {n_of(table)}", fontsize=8)
        for axes in (above, below):
            tidy(axes)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
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
        return exp(log(one["a_class"]) + share * (log(two["a_class"]) - log(one["a_class"])))


def _on_val(row: Mapping[str, Any], made: Sequence[Made], store: RunStore) -> dict[str, float]:
    """The change of accuracy on ImageNet val, percentage points, with both intervals."""
    cells = [one for one in made if is_of(one, row)]
    catalog = catalog_of(cells[0].metrics["data"]["kind"])
    changes = changes_of([(one.run, one.metrics) for one in cells], store, catalog, [IN_DISTRIBUTION])
    images = mean_robustness_interval(changes)
    by_seed: dict[int, list[float]] = {}
    for one in cells:
        by_seed.setdefault(one.metrics["seed"], []).append(one.metrics["accuracy"][IN_DISTRIBUTION]["change"]["value"])
    seeds = seed_interval([fmean(values) for values in by_seed.values()])
    ends = (float("nan"),) * 2 if seeds is None else (seeds.low, seeds.high)
    return {
        "val_change": images.value,
        "val_low": images.low,
        "val_high": images.high,
        "val_seeds_low": ends[0],
        "val_seeds_high": ends[1],
    }


def _val(row: Mapping[Any, Any]) -> str:
    return (
        f"val {row['val_before']:.1f} > {row['val_after']:.1f} %, "
        f"{row['val_change']:+.2f} [{row['val_low']:+.2f}, {row['val_high']:+.2f}]"
    )
