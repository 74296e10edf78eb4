"""What a method gives up for what it gains: mRI against accuracy on the source, a line a family of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rib.errors import RibError
from rib.models.weights import StoredWeights, distance
from rib.reporting.formatting import before_after
from rib.reporting.style import style
from rib.reporting.summary import PLAIN
from rib.runs.method_stack import NO_WEIGHTS
from rib.runs.store import RunStore
from rib.studies.plots import tidy
from rib.studies.rows import format_effect, n_of, name_curves, rows, unknown
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Tradeoff(Study):
    """Curves of methods whose strength or alpha is varied, with plain fine-tuning as a point.

    Args:
        strength: By method, the option that runs along its curve: ``{ewc: method.ewc.strength}``.
        notes: Of a run's notes, those that the table shows, ``[ewc.capped_share]``.
    """

    def __init__(self, strength: Mapping[str, str], notes: Sequence[str] = ()) -> None:
        self.strength, self.notes = strength, notes

    def check(self, cells: Sequence[Cell]) -> None:
        """Every method but plain fine-tuning has a curve to be on, and weights whose distance can be told."""
        super().check(cells)
        methods = {cell.spec.method: cell for cell in cells if cell.spec is not None}
        if PLAIN not in methods:
            raise RibError(f"methods: this study compares with {PLAIN}, which is not among {', '.join(methods)}")
        for method, cell in methods.items():
            if lacking := next((part for part in method.split("+") if part in NO_WEIGHTS), None):
                raise RibError(f"methods: how far {lacking} moved cannot be told: {NO_WEIGHTS[lacking]}")
            if method != PLAIN and method not in self.strength:
                known = ", ".join(self.strength)
                raise RibError(f"methods: {cell.label} has no curve; draw.strength names that of {known}")
        for method, option in self.strength.items():
            own = [cell for cell in cells if cell.spec is not None and cell.spec.method == method]
            need_axis(own, option, f"the curve of {method}")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """One row a setting: its curve, its place on it, distance moved, notes, accuracy on the source, mRI."""
        found = rows(made, store)
        name_curves(found, list(self.strength.values()), ("method",))
        table = []
        for row in found:
            along = self.strength.get(row.facts["method"])
            notes = {note: [m.metrics["notes"].get(note, float("nan")) for m in row.made] for note in self.notes}
            place = {
                "strength": row.facts[along] if along else float("nan"),
                "distance": fmean(_moved(m, store) for m in row.made),
                **{note: fmean(values) for note, values in notes.items()},
            }
            table.append({**row.facts, **place})
        return pd.DataFrame(table).sort_values(["model", "curve", "strength"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Plain fine-tuning, and of each curve the point nearest the start that is as good on the source.

        Strengths are compared at what they reach on the source: taking the best mRI would choose on targets.
        """
        lines = [
            f"Accuracy on the source (by value) against mRI, points, 95 % over images only; {n_of(table, named=True)}."
        ]
        for model, of_model in table.groupby("model"):
            records = of_model.to_dict("records")
            plain = next((row for row in records if row["method"] == PLAIN), None)
            if plain is None:
                lines.append(f"{model}: plain fine-tuning is not finished, so that there is nothing to compare with.")
                continue
            lines.append(f"{model}: plain fine-tuning {_point(plain)}.")
            for curve in dict.fromkeys(row["curve"] for row in records if row["method"] != PLAIN):
                here = [row for row in records if row["curve"] == curve]
                moved = self._moved(here)
                as_good = [row for row in here if row["source_after"] >= plain["source_after"]]
                if unknown(plain["source_after"]):
                    lines.append(f"  {curve}: accuracy on the source is not scored; {moved}.")
                elif as_good:
                    best = min(as_good, key=lambda row: row["distance"])
                    lines.append(f"  {curve}: as good on the source at {best['strength']:g}, {_point(best)}; {moved}.")
                else:
                    best = max(here, key=lambda row: row["source_after"])
                    point = f"{best['strength']:g}, {_point(best)}"
                    lines.append(f"  {curve}: never as good on the source; nearest {point}; {moved}.")
        return "\n".join(lines)

    def _moved(self, curve: Sequence[Mapping[Any, Any]]) -> str:
        """``from 0.1 to 1000: distance moved 0.75 to 0.053, ewc.capped_share 0 to 0.42``."""
        shown = {"distance moved": "distance", **{note: note for note in self.notes}}
        ends = curve[0], curve[-1]
        told = [
            f"{name} {ends[0][column]:.2g} to {ends[1][column]:.2g}"
            for name, column in shown.items()
            if not any(isnan(end[column]) for end in ends)
        ]
        return f"from {ends[0]['strength']:g} to {ends[1]['strength']:g}: {', '.join(told)}"

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """A panel a model."""
        models = list(dict.fromkeys(table["model"]))
        figure = Figure(figsize=(4.8, 0.9 + 3.0 * len(models)), layout="constrained")
        curves = list(dict.fromkeys(table[table["method"] != PLAIN]["curve"]))
        for axes, model in zip(figure.subplots(len(models), 1, squeeze=False).flat, models, strict=True):
            of_model = table[table["model"] == model]
            for number, curve in enumerate(curves):
                here = of_model[of_model["curve"] == curve]
                if here.empty:
                    continue
                colour, marker = style(number).values()
                first, last = here.iloc[0], here.iloc[-1]
                label = f"{curve}, {first['strength']:g} to {last['strength']:g}"
                axes.plot(here["source_after"], here["mri"], color=colour, marker=marker, ms=4, lw=1.2, label=label)
                axes.plot(first["source_after"], first["mri"], marker, mfc="white", mec=colour, ms=6)
            plain = of_model[of_model["method"] == PLAIN]
            axes.plot(plain["source_after"], plain["mri"], "*", color="black", ms=10, label="finetune")
            axes.plot(plain["source_before"], [0] * len(plain), "+", color="black", ms=9, label="pretrained")
            axes.set_title(f"{model}; {n_of(table)}", fontsize=9, loc="left")
            axes.set_ylabel("mRI, percentage points", fontsize=8)
            tidy(axes)
        axes.set_xlabel("accuracy on the source, %; open: the first strength", fontsize=8)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
        return {"tradeoff": figure}


def _moved(one: Made, store: RunStore) -> float:
    """Euclidean distance from the start."""
    spec = one.cell.spec
    assert spec is not None, "a finished cell was asked"
    before = store.run_of(spec.of_pretrained())
    return distance(StoredWeights(before.weights_file), StoredWeights(one.run.weights_file))


def _point(row: Mapping[Any, Any]) -> str:
    return f"source {before_after(row['source_before'], row['source_after'])} %, mRI {format_effect(row)}"
