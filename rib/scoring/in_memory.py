"""Score any torch module in memory, without a run or a file, for `rib.api.score`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import rib.config
from rib.config.schema import Config
from rib.data.damage import report_damage
from rib.data.worlds import cache_dir
from rib.errors import RibError
from rib.models.evaluation_transform import EvaluationTransform
from rib.runs.measure import counted
from rib.runs.resolve import scored_images
from rib.runs.run import Run
from rib.runs.spec import suite_label
from rib.scoring.baseline import Baseline, measured, stored_baseline
from rib.scoring.report import Score
from rib.scoring.shared_pass import predict
from rib.scoring.untouched import device_of

SECTIONS = ("data", "evaluation", "suite", "head", "paths")
"""Config sections that override strings may set; nothing is trained."""


def score_module(
    model: nn.Module,
    before: nn.Module | Score | Run | None,
    transform: EvaluationTransform | None,
    source: str,
    config: Config,
    device: torch.device | str | None = None,
) -> Score:
    """Score a model in memory, and compare it with another one; `rib.api.score` explains the arguments.

    Args:
        model: The model; it is left as it was.
        before: The model that it is compared with, or None.
        transform: Transform of the images; None: the one that each model records.
        source: The dataset that the model was fine-tuned on, or ``none``.
        config: The datasets and the way of scoring, from `scoring_config`.
        device: Device to score on; None: the model's own.

    Raises:
        RibError: If a model or its transform does not fit, a dataset is missing, or ``before`` is of other images.
    """
    _check_models(model, before)
    records = _records(config)
    catalog, images = scored_images(config, records)
    if source != "none":
        _ = catalog[source]  # raises, with the nearest name
    if catalog.kind != "mini":
        report_damage(images.values(), records, str(config.data.damaged), config.data.rescan)
    models, baseline = {"model": model}, None
    if isinstance(before, nn.Module):
        models["before"] = before
    elif before is not None:
        baseline = stored_baseline(before, images)  # before the work: it may be of other images
    on = device_of(model) if device is None else torch.device(device)
    predictions = predict(models, transform, images, catalog, config, on)
    if isinstance(before, nn.Module):
        baseline = Baseline(predictions["before"], "the model given as before=")
    accuracy, improvement = measured(predictions["model"], baseline, images, source, config.suite.targets, catalog)
    return Score(
        accuracy,
        improvement,
        suite_label(config.suite),
        source,
        counted(source, config.suite.targets, catalog),
        "" if baseline is None else baseline.description,
        catalog.kind,
        config.data.limit,
        predictions["model"],
        images,
    )


def _check_models(model: object, before: object) -> None:
    if not isinstance(model, nn.Module):
        raise RibError(f"model: expected a torch.nn.Module, got a {type(model).__name__}; rib.load(RUN) opens a run")
    if before is model:
        raise RibError("before: it is the same module as model; keep the start with copy.deepcopy before training")


def scoring_config(
    overrides: Sequence[str],
    data: str | Path | None,
    suite: str | Path,
    datasets: Sequence[str] | None,
    limit: int | None,
    batch_size: int,
    precision: str,
) -> Config:
    """Return the config of the datasets and of scoring, from the arguments of `rib.api.score`.

    Raises:
        RibError: If an argument is invalid, or an override is of no section that scoring reads.
    """
    for override in overrides:
        if override.lstrip("+").partition("=")[0].partition(".")[0] not in SECTIONS:
            raise RibError(f"{override}: expected an option of {', '.join(SECTIONS)}, since nothing is trained")
    given = [*overrides] if data is None else [*overrides, rib.config.spell_override("data.root", str(data))]
    config = rib.config.compose("model=mini_tiny", rib.config.spell_override("suite", str(suite)), *given)
    chosen = config.suite
    if isinstance(datasets, str):
        raise RibError(f"datasets: expected a list of names, got {datasets!r}; write datasets=[{datasets!r}]")
    if datasets is not None:
        wanted = list(dict.fromkeys(datasets))
        if not wanted:
            raise RibError("datasets: expected the names of datasets to score, got none")
        reported = [name for name in chosen.reported if name in wanted]
        chosen = replace(chosen, targets=[name for name in wanted if name not in reported], reported=reported)
    if batch_size < 1:
        raise RibError(f"batch_size: expected 1 or more, got {batch_size}")
    return replace(
        config,
        suite=chosen,
        data=replace(config.data, limit=limit if limit is not None else config.data.limit),
        evaluation=replace(config.evaluation, batch_size=batch_size, precision=precision),
    )


def _records(config: Config) -> Path:
    """Return the folder with saved listings and digests of images: the run store's, or the cache's without a store."""
    store = Path(config.paths.runs) / "datasets"
    return store if store.is_dir() else cache_dir(config.paths.cache) / "datasets"
