"""Weight drift: the distance that each layer's weights moved, relative to their norm before fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rib.analysis.cache import copy_as_latest, get_or_compute, read_record, read_table, write_table
from rib.analysis.subject import Subject, labels
from rib.config.command_schema import AnalyzeConfig
from rib.data.worlds import suffix_of
from rib.errors import RibError

EMBEDDING, HEAD = "embedding", "head"


def layer_drift(config: AnalyzeConfig) -> Path:
    """Measure, print and plot the weight drift ||theta - theta0|| / ||theta0|| of each layer.

    theta0 are the parameters of the pretrained model, or of the run given as ``against``. Everything before the first
    numbered layer counts as ``embedding``, everything after the last as ``head``. BatchNorm's running statistics are
    not parameters and are left out.

    Args:
        config: Options of the analysis.

    Returns:
        Path of ``RUN/analysis/drift.csv`` with columns layer, drift (the ratio; empty where theta0 is zero), distance
        (Euclidean), parameters (their number).

    Raises:
        RibError: If a run has no weights to analyse, or the two runs have different architectures.
    """
    from rib.analysis.figures import drift_figure
    from rib.analysis.report import dashboard_page, print_figures, save_as_latest
    from rib.loggers.base import show_page

    one = Subject.of(config.run, config)
    other = Subject.of(config.against or one.pretrained, config, "against")
    subjects = {"run": one, "against": other}
    key_fields = {name: [subject.metrics["fingerprint"], subject.weights_digest] for name, subject in subjects.items()}

    def compute(folder: Path) -> dict[str, Any]:
        table = drift_table(one, other)
        write_table(table, folder / "drift.csv")
        return labels(one, other)

    folder, made = get_or_compute(one.run, "drift", key_fields, compute, config.force)
    latest = [copy_as_latest(folder, "drift.csv", "drift.csv")]
    table = read_table(latest[0])
    figure = drift_figure(table, read_record(folder), config.figures.width)
    latest += save_as_latest(figure, folder, "drift", "drift", config.figures)
    largest = table.iloc[int(table["drift"].fillna(0.0).to_numpy().argmax())]
    about = one.label + suffix_of(one.metrics["data"]["kind"])
    print(f"{about}: largest drift {largest['drift']:.3g} of the weights' norm before, in {largest['layer']}")
    print_figures(latest, one.metrics)
    if made:
        summary = {f"drift/{layer}": value for layer, value in zip(table["layer"], table["drift"], strict=True)}
        show_page(config.logger, dashboard_page(config, one.run, "drift", {"drift": table}, latest, summary))
    return latest[0]


def drift_table(one: Subject, other: Subject) -> pd.DataFrame:
    """Return a table of the distance between two runs' weights, one row per layer from input to output.

    Args:
        one: The fine-tuned run.
        other: The run that distances are measured from, relative to the norm of its weights.

    Returns:
        Columns layer, drift, distance, parameters; drift is None where the other run's weights are all zero.

    Raises:
        RibError: If the two runs have different architectures.
    """
    from rib.models.layers import depths, head_names, layer_of
    from rib.models.weights import StoredWeights, distance

    backbone = one.model().backbone
    names = [name for name, _ in backbone.named_parameters()]
    end, start = StoredWeights(one.run.weights_file), StoredWeights(other.run.weights_file)
    if unlike := next((n for n in names if n not in start or start[n].shape != end[n].shape), None):
        raise RibError(f"against: expected a run of the same architecture, but its {unlike} is missing or differs")
    depth = depths(names, head_names(backbone))
    rows = []
    for level in sorted(set(depth.values())):
        here = [name for name in names if depth[name] == level]
        label = EMBEDDING if level == 0 else HEAD if level == max(depth.values()) else layer_of(here[0])
        before, after = ({n: state[n] for n in here} for state in (start, end))
        length = distance(before, {n: t * 0 for n, t in before.items()})  # the norm: distance from zero
        moved = distance(before, after)
        rows.append((label, moved / length if length else None, moved, sum(t.numel() for t in before.values())))
    return pd.DataFrame(rows, columns=["layer", "drift", "distance", "parameters"])
