"""Score any torch module in memory, without a run or a file: the function `score` of the Python interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rib.config
from rib.config.schema import Config
from rib.data.damage import report_damage
from rib.data.datamodule import RIBDataModule
from rib.data.labels import LabelSpace
from rib.data.loader import batch_loader, chunks
from rib.data.own_transform import TransformedImages
from rib.data.transform import Transform
from rib.data.tree import ImageTree
from rib.data.worlds import cache_dir
from rib.errors import RibError
from rib.metrics.robustness import targets_of
from rib.models.evaluation_transform import EvaluationTransform, recorded_transform
from rib.runs.predictions import Predictions
from rib.runs.resolve import scored_images
from rib.runs.run import Run
from rib.runs.spec import suite_label
from rib.runtime.memory import cores
from rib.runtime.progress import Advance, progress
from rib.scoring.baseline import Baseline, measured, stored_baseline
from rib.scoring.logits import CheckedLogits
from rib.scoring.report import Score
from rib.scoring.score import score_all
from rib.scoring.untouched import device_of, untouched

SECTIONS = ("data", "evaluation", "suite", "paths")
"""Config sections that override strings of `score` may set; nothing is trained."""


def score(
    model: nn.Module,
    *overrides: str,
    before: nn.Module | Score | Run | Path | str | Any = None,
    data: str | Path | None = None,
    transform: EvaluationTransform | None = None,
    suite: str = "seven",
    datasets: Sequence[str] | None = None,
    source: str = "none",
    limit: int | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "32-true",
) -> Score:
    """Score a model in memory on the datasets of a suite, and compare it with another model.

    The model is left as it was (mode, device, gradients), and so are all random states. With the same weights the
    numbers are those of ``rib.train`` and ``rib.evaluate``: ``rib.score(model, before=start, source="imagenet_r")``.

    Args:
        model: Any module from images (B, 3, H, W) to the logits (B, 1000) of ImageNet-1K.
        *overrides: Further options as on the command line: ``"data.label_rule=first"``, ``"data.workers=4"``.
        before: The model that it is compared with: a module, another `Score`, or a finished run or its folder, whose
            stored predictions are used. None: report accuracies only.
        data: Folder with the datasets, or ``mini`` for the built-in toy data. None: as on the command line, RIB_DATA,
            or toy data where that is not set.
        transform: Function from a PIL image to a tensor (3, H, W), such as a torchvision transform, or a `Transform`;
            for ``before`` too. None: what timm or open_clip recorded in each model.
        suite: Name of the suite, ``seven`` or ``paper``.
        datasets: Names of the datasets to score in place of the suite's.
        source: The dataset that the model was fine-tuned on, which does not count towards RI.
        limit: Largest number of images scored per dataset.
        batch_size: Images per batch.
        device: Device to score on; None: the model's own.
        precision: ``32-true`` (float32 without TF32), ``bf16-mixed`` or ``16-mixed``.

    Raises:
        RibError: If the outputs are no such logits, the transform is not known, a dataset is missing, or the run given
            as ``before`` was scored on other images.
    """
    _check_models(model, before)
    config = _config(overrides, data, suite, datasets, limit, batch_size, precision)
    return _score(
        model, before, transform, source, config, device_of(model) if device is None else torch.device(device)
    )


def _check_models(model: object, before: object) -> None:
    if not isinstance(model, nn.Module):
        raise RibError(f"model: expected a torch.nn.Module, got a {type(model).__name__}; rib.load(RUN) opens a run")
    if before is model:
        raise RibError("before: it is the same module as model; keep the start with copy.deepcopy before training")


def _score(
    model: nn.Module,
    before: Any,
    transform: EvaluationTransform | None,
    source: str,
    config: Config,
    device: torch.device,
) -> Score:
    """Score as `score`, with a config of the datasets and of scoring."""
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
    predictions = _predict(models, transform, images, len(catalog.wnids), config, device)
    if isinstance(before, nn.Module):
        baseline = Baseline(predictions["before"], f"the {type(before).__name__} given as before")
    accuracy, improvement = measured(predictions["model"], baseline, images, source, config.suite.targets, catalog)
    return Score(
        accuracy,
        improvement,
        suite_label(config.suite),
        source,
        targets_of(source, config.suite.targets),
        "" if baseline is None else baseline.description,
        catalog.kind,
        config.data.limit,
        predictions["model"],
        images,
    )


def _config(
    overrides: Sequence[str],
    data: str | Path | None,
    suite: str,
    datasets: Sequence[str] | None,
    limit: int | None,
    batch_size: int,
    precision: str,
) -> Config:
    """Return the config of the datasets and of scoring, from the arguments of `score`."""
    for override in overrides:
        if override.lstrip("+").partition("=")[0].partition(".")[0] not in SECTIONS:
            raise RibError(f"{override}: expected an option of {', '.join(SECTIONS)}, since nothing is trained")
    config = rib.config.compose("model=mini_tiny", f"suite={suite}", *overrides)
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
    root = config.data.root if data is None else None if str(data) == "mini" else str(data)
    return replace(
        config,
        suite=chosen,
        data=replace(config.data, root=root, limit=limit if limit is not None else config.data.limit),
        evaluation=replace(config.evaluation, batch_size=batch_size, precision=precision),
    )


def _records(config: Config) -> Path:
    """Return the folder with saved listings and digests of images: the run store's, or the cache's without a store."""
    store = Path(config.paths.runs) / "datasets"
    return store if store.is_dir() else cache_dir(config.paths.cache) / "datasets"


def _predict(
    models: Mapping[str, nn.Module],
    transform: EvaluationTransform | None,
    images: Mapping[str, ImageTree],
    outputs: int,
    config: Config,
    device: torch.device,
) -> dict[str, dict[str, Predictions]]:
    """Return the predictions of each model for each dataset; models with one transform share the pass over images."""
    passes: list[tuple[EvaluationTransform, dict[str, nn.Module]]] = []
    for name, model in models.items():
        own = transform if transform is not None else _transform_of(model, name)
        same = next((members for other, members in passes if other is own or other == own), None)
        if same is None:
            passes.append((own, {name: model}))
        else:
            same[name] = model
    found: dict[str, dict[str, Predictions]] = {name: {} for name in models}
    total = len(passes) * sum(map(len, images.values()))
    words = f"scoring {len(models)} model{'s' * (len(models) > 1)}"
    with untouched(list(models.values()), device), progress(words, total) as advance:
        for own, members in passes:
            checked = [CheckedLogits(model, own, outputs, name).to(device) for name, model in members.items()]
            for dataset, tree in images.items():
                scored = _score_dataset(checked, own, dataset, images, config, device, advance)
                for model, predictions in zip(checked, scored, strict=True):
                    model.check_numbers(predictions.log_prob, tree.spec.title)
                    found[model.name][dataset] = predictions
    return found


def _score_dataset(
    models: Sequence[CheckedLogits],
    transform: EvaluationTransform,
    dataset: str,
    images: Mapping[str, ImageTree],
    config: Config,
    device: torch.device,
    advance: Advance,
) -> list[Predictions]:
    """Return the predictions of models with the same transform for one dataset."""
    tree, data, size = images[dataset], config.data, config.evaluation.batch_size
    loader: Any
    if isinstance(transform, Transform):
        loader = RIBDataModule(
            None,
            images,
            transform,
            evaluation_batch_size=size,
            workers=data.workers,
            image_backend=str(data.image_backend),
            cache=cache_dir(config.paths.cache) / "crops",
        ).evaluation_loader(dataset)
    else:
        # The toy images are small, and starting processes takes longer than reading them.
        workers = data.workers if data.workers is not None else 0 if tree.identity == "pixels" else min(8, cores())
        loader = batch_loader(TransformedImages(tree, transform), chunks(range(len(tree)), size), workers)
    found = score_all(
        models,
        loader,
        LabelSpace(tree.spec.groups),
        len(tree),
        device=device,
        precision=config.evaluation.precision,
        gather=False,
        advance=advance,
    )
    assert found is not None, "without gathering every process has its predictions"
    return found


def _transform_of(model: nn.Module, name: str) -> EvaluationTransform:
    found = recorded_transform(model)
    if found is None:
        raise RibError(
            f"{name}: this {type(model).__name__} does not record the transform of its images, as models of timm and "
            "open_clip do; give transform=FUNCTION, from a PIL image to a tensor (3, H, W)"
        )
    return found
