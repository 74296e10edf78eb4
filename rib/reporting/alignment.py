"""Change the config of a run so that its result can share a table with that of another run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rib.config.schema import Config
from rib.config.shipped import shipped_nodes
from rib.reporting.comparability import row_key
from rib.runs import errata
from rib.runs.metrics_file import is_older
from rib.runs.spec import EXTERNAL
from rib.schemas.metrics import Metrics


def align(config: Config, metrics: Metrics, reference: Config, of_reference: Metrics) -> Config:
    """Return a run's config with the settings that all runs of a table share, taken from a run of that table.

    Args:
        config: The run's config.
        metrics: Its metrics.
        reference: Config of a run of the table.
        of_reference: Metrics of that run.
    """
    data = replace(
        config.data,
        root=reference.data.root,
        limit=reference.data.limit,
        label_rule=reference.data.label_rule,
        image_backend=reference.data.image_backend,
        identity=reference.data.identity,
        allow_incomplete=reference.data.allow_incomplete,
    )
    external = EXTERNAL in config.method
    if metrics["protocol"]["experiment"] != of_reference["protocol"]["experiment"] and not external:
        # Everything that an experiment may set is taken from the other run; what was asked for by name stays.
        kept = {name: getattr(config, name) for name in ("model", "dataset", "seed", "paths", "trainer", "logger")}
        moved = replace(reference, **kept, method=_default_method(config), given=_given(config))
        return errata.apply_switches(moved)
    paper = replace(
        config.paper,
        objectnet=reference.paper.objectnet,
        objectnet_loss=reference.paper.objectnet_loss,
        resize_imagenet_c=reference.paper.resize_imagenet_c,
    )
    aligned = replace(
        config,
        data=data,
        suite=reference.suite,
        experiment=reference.experiment,
        evaluation=reference.evaluation,
        paper=paper,
    )
    if external:  # a precision that was given for them is the table's, one that was not stays open
        return replace(aligned, precision=config.precision and of_reference["protocol"]["precision"])
    if metrics["protocol"].get("processes") != of_reference["protocol"].get("processes"):
        aligned = replace(aligned, trainer=reference.trainer)
    if row_and_source(metrics) == row_and_source(of_reference) and "warmup_steps" in config.optimizer:
        rate = {**config.optimizer, "warmup_steps": reference.optimizer.get("warmup_steps")}
        aligned = replace(aligned, optimizer=rate)
    return replace(aligned, precision=reference.precision, gpu_precision=reference.gpu_precision)


def row_and_source(metrics: Metrics) -> tuple[Any, ...]:
    """Return the row and the source of a run, which identify its cell in a table."""
    return (*row_key(metrics), metrics["source"])


def _given(config: Config) -> list[str]:
    return [name for name in config.given if name.startswith("method")]


def _default_method(config: Config) -> dict[str, Any]:
    """Return the methods of a config without what its experiment has set: defaults, and options given by name."""
    methods = {}
    for name, node in config.method.items():
        given = {key: value for key, value in (node or {}).items() if f"method.{name}.{key}" in config.given}
        methods[name] = {**shipped_nodes("method")[name], **given} if name in shipped_nodes("method") else node
    return methods


def needs_only_scoring(config: Config, wanted: Config, metrics: Metrics, of_reference: Metrics) -> bool:
    """Return True if a run's weights are what is wanted, and only its scores are not.

    Args:
        config: The run's config.
        wanted: Its config as it should be, from `align`.
        metrics: Its metrics.
        of_reference: Metrics of a run of the table that it is to join.
    """
    scoring = replace(config, suite=wanted.suite, evaluation=wanted.evaluation)
    images = [{name: score["images"] for name, score in m["scores"].items()} for m in (metrics, of_reference)]
    same_images = all(images[0][name] == images[1][name] for name in images[0].keys() & images[1].keys())
    return scoring == wanted and scoring != config and same_images and not is_older(metrics)
