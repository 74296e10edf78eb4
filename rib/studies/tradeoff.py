"""Study of the trade-off between mRI and accuracy on the source, with a line per method along its strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.errors import RibError
from rib.models.weights import StoredWeights, distance
from rib.reporting.folded_text import fold
from rib.reporting.formatting import before_after
from rib.reporting.sized_figure import LABEL, SizedFigure, tidy
from rib.reporting.style import style
from rib.reporting.summary import PLAIN
from rib.runs.method_stack import NO_WEIGHTS
from rib.runs.store import RunStore
from rib.studies.plots import accuracies, val_of
from rib.studies.rows import format_effect, is_missing, n_of, name_curves, rows
from rib.sweeps.plan import Cell
from rib.sweeps.study import Made, Study, need_axis


class Tradeoff(Study):
    """Study of mRI against accuracy on the source, for methods of varied strength and for plain fine-tuning.

    Args:
        strength: By method, the option that varies along its curve: ``{ewc: method.ewc.strength}``.
        notes: Notes of a run (in metrics.json) that the table and the text show, ``[ewc.capped_share]``.
    """

    def __init__(self, strength: Mapping[str, str], notes: Sequence[str] = ()) -> None:
        self.strength, self.notes = strength, notes

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that ``strength`` has an option for every method but plain fine-tuning, and that all have weights."""
        super().check(cells)
        methods = {cell.spec.method: cell for cell in cells if cell.spec is not None}
        if PLAIN not in methods:
            raise RibError(f"methods: this study compares with {PLAIN}, which is not among {', '.join(methods)}")
        for method, cell in methods.items():
            if weightless := next((name for name in method.split("+") if name in NO_WEIGHTS), None):
                raise RibError(f"methods: the weight drift of {weightless} is undefined: {NO_WEIGHTS[weightless]}")
            if method != PLAIN and method not in self.strength:
                known = ", ".join(self.strength)
                raise RibError(
                    f"methods: {cell.label} has no curve: draw.strength names an option to vary only for {known}"
                )
        for method, option in self.strength.items():
            own = [cell for cell in cells if cell.spec is not None and cell.spec.method == method]
            need_axis(own, option, f"the curve of {method}")

    def table(self, made: Sequence[Made], store: RunStore) -> pd.DataFrame:
        """Return one row per method and strength: curve, distance from pretrained weights, notes, accuracies, mRI."""
        grouped = rows(made, store)
        name_curves(grouped, list(self.strength.values()), ("method",))
        table = []
        for row in grouped:
            along = self.strength.get(row.columns["method"])
            notes = {note: [m.metrics["notes"].get(note, float("nan")) for m in row.made] for note in self.notes}
            setting = {
                "strength": row.columns[along] if along else float("nan"),
                "distance": fmean(_distance(m, store) for m in row.made),
                **{note: fmean(values) for note, values in notes.items()},
            }
            table.append({**row.columns, **setting})
        return pd.DataFrame(table).sort_values(["model", "curve", "strength"], ignore_index=True)

    def paragraph(self, table: pd.DataFrame) -> str:
        """Describe plain fine-tuning, and the point of each method's curve that is at least as accurate on the source.

        Of such points, the one nearest to the pretrained weights is taken: taking the best mRI would choose on targets.
        """
        lines = [
            "Accuracy on the source (point estimates) and mRI in percentage points with 95 % intervals over images "
            f"only; {n_of(table, named=True)}."
        ]
        for model, of_model in table.groupby("model"):
            records = of_model.to_dict("records")
            plain = next((row for row in records if row["method"] == PLAIN), None)
            if plain is None:
                lines.append(f"{model}: plain fine-tuning is not finished, so there is nothing to compare with.")
                continue
            lines.append(f"{model}: plain fine-tuning {_point(plain)}.")
            for curve in dict.fromkeys(row["curve"] for row in records if row["method"] != PLAIN):
                points = [row for row in records if row["curve"] == curve]
                lines.append(f"  {curve}: {self._best(points, plain)}.")
        return "\n".join(lines)

    def _best(self, curve: Sequence[Mapping[Any, Any]], plain: Mapping[Any, Any]) -> str:
        """Describe a curve: its point to compare with plain fine-tuning, and how distance and notes vary along it."""
        along = self._along(curve)
        if is_missing(plain["source_after"]):
            return f"accuracy on the source was not scored; {along}"
        if as_good := [row for row in curve if row["source_after"] >= plain["source_after"]]:
            best = min(as_good, key=lambda row: row["distance"])
            return f"as accurate on the source at {best['strength']:g}, {_point(best)}; {along}"
        best = max(curve, key=lambda row: row["source_after"])
        return f"never as accurate on the source; closest at {best['strength']:g}, {_point(best)}; {along}"

    def _along(self, curve: Sequence[Mapping[Any, Any]]) -> str:
        """Format a curve's range of strength, and how distance and notes change over it: ``from 0.1 to 1000: ...``."""
        columns = {"distance moved": "distance", **{note: note for note in self.notes}}
        ends = curve[0], curve[-1]
        changes = [
            f"{name} {ends[0][column]:.2g} to {ends[1][column]:.2g}"
            for name, column in columns.items()
            if not any(isnan(end[column]) for end in ends)
        ]
        return f"from {ends[0]['strength']:g} to {ends[1]['strength']:g}: {', '.join(changes)}"

    def figures(self, table: pd.DataFrame) -> dict[str, Figure]:
        """Plot mRI, and accuracy in distribution, against accuracy on the source; a row of panels per model."""
        models, has_val = list(dict.fromkeys(table["model"])), "val" in accuracies(table)
        figure = SizedFigure(6.6 if has_val else 4.8, self.width)
        beside = has_val and figure.inches >= 4.5
        shape = (len(models), 2) if beside else (len(models) * (1 + has_val), 1)
        values = {
            "mri": "mRI, points",
            **({"val_after": fold(f"{val_of(table)}, top-1 %", 1.6, LABEL)} if has_val else {}),
        }
        panels = [(model, value) for model in models for value in values]
        curves = list(dict.fromkeys(table[table["method"] != PLAIN]["curve"]))
        grid, entries = list(figure.subplots(*shape, squeeze=False).flat), dict[str, Any]()
        for axes, (model, value) in zip(grid, panels, strict=True):
            entries |= _draw_panel(axes, table[table["model"] == model], value, curves)
            if value == "mri":
                room = (0.42 if beside else 0.75) * figure.inches
                axes.set_title(fold(str(model), room, LABEL), fontsize=LABEL, loc="left")
            axes.set_ylabel(values[value], fontsize=LABEL)
            tidy(axes)
        for axes in grid[-shape[1] :]:
            axes.set_xlabel("accuracy on the source, %", fontsize=LABEL)
        figure.headline(f"Trade-off along each method's strength (open: the first); {n_of(table)}{self.note}")
        figure.legend_below(list(entries.values()), list(entries))
        figure.caption = (
            f"Mean robustness improvement (mRI, percentage points) and accuracy on {val_of(table)} against accuracy on "
            f"the source, along the strength of each method; {n_of(table, named=True)}{self.note}. Point estimates; "
            "table.csv has the intervals over images of mRI."
        )
        # Panels of many models are lower, so that the figure still fits on a page.
        return {"tradeoff": figure.fit(shape[0] * max(0.9, min(2.2 if beside else 1.7, 7.0 / shape[0])))}


def _draw_panel(axes: Axes, of_model: pd.DataFrame, value: str, curves: Sequence[str]) -> dict[str, Any]:
    """Draw one model's curves of a column against accuracy on the source; return the legend's handles by label."""
    entries: dict[str, Any] = {}
    for number, curve in enumerate(curves):
        here = of_model[of_model["curve"] == curve]
        if here.empty:
            continue
        colour, marker = style(number).values()
        first, last = here.iloc[0], here.iloc[-1]
        (line,) = axes.plot(here["source_after"], here[value], color=colour, marker=marker, ms=4, lw=1.2)
        entries[f"{curve}, {first['strength']:g} to {last['strength']:g}"] = line
        axes.plot(first["source_after"], first[value], marker, mfc="white", mec=colour, ms=6)
    plain = of_model[of_model["method"] == PLAIN]
    (entries["finetune"],) = axes.plot(plain["source_after"], plain[value], "*", color="black", ms=10)
    start = [0] * len(plain) if value == "mri" else plain["val_before"]
    (entries["pretrained"],) = axes.plot(plain["source_before"], start, "+", color="black", ms=9)
    return entries


def _distance(one: Made, store: RunStore) -> float:
    """Return the Euclidean distance of a run's weights from the pretrained weights."""
    spec = one.cell.spec
    assert spec is not None, "a finished cell has a run spec"
    pretrained = store.run_of(spec.of_pretrained())
    return distance(StoredWeights(pretrained.weights_file), StoredWeights(one.run.weights_file))


def _point(row: Mapping[Any, Any]) -> str:
    return f"source {before_after(row['source_before'], row['source_after'])} %, mRI {format_effect(row)}"
