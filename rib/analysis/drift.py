"""How far the weights of each layer moved, in units of their own length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rib.analysis.cache import copy_as_latest, get_or_compute, read_table, write_table
from rib.analysis.subject import Subject, labels
from rib.config.command_schema import AnalyzeConfig
from rib.errors import RibError

EMBEDDING, HEAD = "embedding", "head"


def layer_drift(config: AnalyzeConfig) -> Path:
    """||theta - theta0|| and its ratio to ||theta0|| over each layer's parameters, theta0 of the start or ``against``.

    What comes before the first numbered layer is ``embedding``, what comes after the last ``head``. BatchNorm's
    running statistics are no parameters and are left out.

    Returns:
        ``RUN/analysis/drift.csv``: columns layer, drift (the ratio; empty where theta0 is zero), distance, parameters.

    Raises:
        RibError: For whatever the user can mend.
    """
    from rib.analysis.figures import drift_figure
    from rib.analysis.report import exhibit_of, say_where
    from rib.loggers.base import show_page

    one = Subject.of(config.run, config)
    other = Subject.of(config.against or one.before, config, "against")
    subjects = {"run": one, "against": other}
    facts = {name: [subject.metrics["fingerprint"], subject.weights_digest] for name, subject in subjects.items()}

    def make(folder: Path) -> dict[str, Any]:
        table = drift_table(one, other)
        write_table(table, folder / "drift.csv")
        about = labels(one, other)
        drift_figure(table, about, folder / "drift.png")
        return about

    folder, made = get_or_compute(one.run, "drift", facts, make, config.force)
    front = [copy_as_latest(folder, name, name) for name in ("drift.csv", "drift.png")]
    table = read_table(front[0])
    far = table.iloc[int(table["drift"].fillna(0.0).to_numpy().argmax())]
    print(f"most moved: {far['layer']}, {far['drift']:.3g} of its start's length")
    say_where(front)
    if made:
        summary = {f"drift/{layer}": value for layer, value in zip(table["layer"], table["drift"], strict=True)}
        show_page(config.logger, exhibit_of(config, one.run, "drift", {"drift": table}, front, summary))
    return front[0]


def drift_table(one: Subject, other: Subject) -> pd.DataFrame:
    """Distance of two runs' weights by layer, from input to output.

    Raises:
        RibError: If they are of two architectures.
    """
    from rib.models.layers import depths, head_names, layer_of
    from rib.models.weights import StoredWeights, distance

    backbone = one.model().backbone
    names = [name for name, _ in backbone.named_parameters()]
    end, start = StoredWeights(one.run.weights_file), StoredWeights(other.run.weights_file)
    if strange := next((n for n in names if n not in start or start[n].shape != end[n].shape), None):
        raise RibError(f"against: expected a run of the same architecture, {strange} is another there")
    depth = depths(names, head_names(backbone))
    rows = []
    for level in sorted(set(depth.values())):
        here = [name for name in names if depth[name] == level]
        label = EMBEDDING if level == 0 else HEAD if level == max(depth.values()) else layer_of(here[0])
        before, after = ({n: state[n] for n in here} for state in (start, end))
        length = distance(before, {n: t * 0 for n, t in before.items()})
        moved = distance(before, after)
        rows.append((label, moved / length if length else None, moved, sum(t.numel() for t in before.values())))
    return pd.DataFrame(rows, columns=["layer", "drift", "distance", "parameters"])
