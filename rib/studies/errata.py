"""Study of the effect on mRI of each error in the ImageNet-RIB authors' code: the same runs with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rib.data.worlds import catalog_of, is_suite
from rib.errors import RibError
from rib.metrics import mean_robustness_improvement
from rib.metrics.comparison import holm, mean_robustness_difference
from rib.reporting.captions import OVER_IMAGES
from rib.reporting.image_changes import changes_of
from rib.reporting.sized_figure import LABEL, SizedFigure, name_rows, tidy
from rib.reporting.style import GAIN, LOSS
from rib.reporting.summary import select_balanced
from rib.runs.metrics_file import improvement_of
from rib.runs.store import RunStore
from rib.studies.rows import n_of
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study


class Errata(Study):
    """Paired comparisons of runs that differ only in one ``paper.*`` switch (described in `rib.runs.errata`).

    The side where the switch is off (null or false) is called right, the side with the error wrong.
    """

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that the data are those of the authors' code, and that each cell sets one ``paper.*`` switch."""
        super().check(cells)
        kind = next(cell.spec.catalog.kind for cell in cells if cell.spec is not None)
        if is_suite(kind):
            raise RibError(
                f"study=paper_errata: expected data that the authors' code is about (data.root=DIR with ImageNet's "
                f"datasets, or mini), got the suite {kind}"
            )
        for cell in cells:
            if len(switches := [axis for axis in cell.axes if axis.startswith("paper.")]) != 1:
                names = ", ".join(switches) or "none"
                raise RibError(f"axes: this study needs one paper.* switch in each cell, {cell.label} has {names}")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return a row per model, method and switch: mRI without and with the error, the difference, its Holm p-value.

        Raises:
            RibError: If no switch has finished cells on both sides.
        """
        pairs: dict[tuple[str, str, str], list[list[Made]]] = {}
        for one in made:
            (switch,) = (key for key in one.cell.axes if key.startswith("paper."))
            sides = pairs.setdefault((one.metrics["model"], one.metrics["method"], switch), [[], []])
            sides[bool(one.cell.axes[switch])].append(one)  # null and false are the right side
        records = []
        for key, sides in pairs.items():
            right, wrong = _match(*sides)
            if right:
                records.append(self._row(*key, right, wrong, store))
        if not records:
            raise RibError("no paper.* switch has finished runs with and without its error; there is nothing to plot")
        adjusted = holm([row["p"] for row in records])
        return pd.DataFrame([{**row, "p_holm": p} for row, p in zip(records, adjusted, strict=True)])

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe the effect of each error on mRI, one line per row of the table."""
        lines = [
            "Effect of each error of the authors' code on mRI (wrong minus right) in percentage points, with 95 % "
            f"intervals, each on its own, and p-values after Holm over {len(table)} pairs. Both are over images only; "
            f"the two sides are scored on the same images; {n_of(table)}."
        ]
        lines += [
            f"{row['switch']}={row['value']}, {row['method']}, {row['model']}: {row['right']:+.2f} right, "
            f"{row['wrong']:+.2f} wrong, {row['difference']:+.2f} "
            f"[{row['difference_low']:+.2f}, {row['difference_high']:+.2f}], p {row['p_holm']:.2g}."
            for row in table.to_dict("records")
        ]
        return "\n".join(lines)

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot the effect of each error, mRI with the error minus mRI without it, with its interval."""
        figure = SizedFigure(6.0, self.width)
        axes = figure.add_subplot()
        records = table.iloc[::-1].to_dict("records")
        for y, row in enumerate(records):
            colour = GAIN if row["difference"] > 0 else LOSS
            axes.plot([row["difference_low"], row["difference_high"]], [y, y], color=colour, lw=2)
            filled = row["p_holm"] < 0.05
            axes.plot(row["difference"], y, "o", mec=colour, mfc=colour if filled else "white", ms=4.5)
        names = [f"{r['switch'].removeprefix('paper.')}: {r['method']}, {r['model']}" for r in records]
        row_height = name_rows(axes, names, 0.42 * figure.inches)
        axes.axvline(0, color="black", lw=0.8)
        tidy(axes, "x")
        axes.set_xlabel("mRI, wrong minus right, points", fontsize=LABEL)
        figure.headline(f"Effect of each error of the authors' code; {n_of(table)}{self.note}")
        handles = [Line2D([], [], color="black", marker="o", mfc=face, ms=4.5, lw=2) for face in ("black", "white")]
        figure.legend_below(handles, ["95 % over images; p < 0.05 after Holm", "not significant"])
        figure.caption = (
            f"Effect of each error of the ImageNet-RIB authors' code on mRI, in percentage points, for {len(table)} "
            f"pairs of settings; {n_of(table, named=True)}{self.note}. Lines: 95 % intervals over images. "
            f"{OVER_IMAGES}. Filled: p < 0.05 after Holm over all pairs."
        )
        return {"errata": figure.fit(max(0.6, row_height * len(table)))}

    def _row(
        self, model: str, method: str, switch: str, right: list[Made], wrong: list[Made], store: RunStore
    ) -> dict[str, Any]:
        kind = right[0].metrics["data"]["kind"]
        catalog = catalog_of(kind)
        changes = [changes_of([one.result for one in side], store, catalog) for side in (wrong, right)]
        test = mean_robustness_difference(*changes)
        half = 1.96 * test.error
        return {
            "switch": switch,
            "value": wrong[0].cell.axes[switch],
            "model": model,
            "method": method,
            "right": _mri(right),
            "wrong": _mri(wrong),
            "difference": test.difference,
            "difference_low": test.difference - half,
            "difference_high": test.difference + half,
            "p": test.p,
            "kind": kind,
            "num_sources": len({one.metrics["source"] for one in right}),
            "sources": " ".join(sorted({one.metrics["source"] for one in right})),
            "num_seeds": len({one.metrics["seed"] for one in right}),
        }


def _match(right: Sequence[Made], wrong: Sequence[Made]) -> tuple[list[Made], list[Made]]:
    """Keep the cells whose source and seed are finished both with and without the error, so that pairs can be compared.

    Of these, `select_balanced` keeps the seeds that all sources have, else the first seed of each source.
    """
    done = [{(one.metrics["source"], one.metrics["seed"]) for one in side} for side in (right, wrong)]
    both = [one for one in right if (one.metrics["source"], one.metrics["seed"]) in done[0] & done[1]]
    kept = {(m["source"], m["seed"]) for _, m in select_balanced([one.result for one in both])}
    matched = [[one for one in side if (one.metrics["source"], one.metrics["seed"]) in kept] for side in (right, wrong)]
    return matched[0], matched[1]


def _mri(side: Sequence[Made]) -> float:
    """Return the mRI of some runs: RI averaged over seeds, then over sources, in percentage points."""
    by_source: dict[str, list[float]] = {}
    for one in side:
        by_source.setdefault(one.metrics["source"], []).append(improvement_of(one.metrics)["value"])
    return mean_robustness_improvement({source: fmean(values) for source, values in by_source.items()})
