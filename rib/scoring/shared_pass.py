"""Predictions of models in memory: one pass over the images for all models that transform them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.data.evaluation import EvaluationImages
from rib.data.labels import LabelSpace
from rib.data.loader import batch_loader, chunks
from rib.data.own_transform import TransformedImages
from rib.data.transform import Transform
from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.models.evaluation_transform import EvaluationTransform, marked, recorded_transform
from rib.runs.images import loading_options
from rib.runs.predictions import Predictions
from rib.runtime.counting import plural
from rib.runtime.progress import Advance, progress
from rib.scoring.logits import CheckedLogits
from rib.scoring.score import score_all
from rib.scoring.untouched import untouched


def predict(
    models: Mapping[str, nn.Module],
    transform: EvaluationTransform | None,
    images: Mapping[str, ImageTree],
    catalog: Catalog,
    config: Config,
    device: torch.device,
) -> dict[str, dict[str, Predictions]]:
    """Return the predictions of models for datasets; models with one transform share the pass over the images.

    Args:
        models: Models by name, ``model`` and ``before``; they are left as they were.
        transform: Transform of the images; None: the one that each model records.
        images: Images by dataset.
        catalog: Of the datasets, whose classes the models' outputs stand for.
        config: Its ``data``, ``evaluation`` and ``paths`` are read.
        device: Device to score on.

    Returns:
        Predictions by model and dataset.

    Raises:
        RibError: If a model's transform is not known, or its outputs are no logits (B, K).
    """
    passes: list[tuple[EvaluationTransform, dict[str, nn.Module]]] = []
    for name, model in models.items():
        own = marked(transform) if transform is not None else _transform_of(model, name)
        same = next((members for other, members in passes if other is own or other == own), None)
        if same is None:
            passes.append((own, {name: model}))
        else:
            same[name] = model
    found: dict[str, dict[str, Predictions]] = {name: {} for name in models}
    total = len(passes) * sum(map(len, images.values()))
    title = f"scoring {plural(len(models), 'model')}"
    with untouched(list(models.values()), device), progress(title, total) as advance:
        for own, members in passes:
            checked = [
                CheckedLogits(model, own, len(catalog.outputs), catalog.outputs_in_words, name).to(device)
                for name, model in members.items()
            ]
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
    read: Any
    if isinstance(transform, Transform):
        served = EvaluationImages(images, transform, **loading_options(config))
        loader, read = served.evaluation_loader(dataset), partial(served.batches_of, tree)
    else:
        # The toy images are small, and starting processes takes longer than reading them.
        workers = 0 if data.workers is None and tree.identity == "pixels" else data.workers
        read = partial(batch_loader, TransformedImages(tree, transform), workers=workers)
        loader = read(chunks(range(len(tree)), size))
    found = score_all(
        models,
        loader,
        LabelSpace(tree.spec.groups),
        len(tree),
        device=device,
        precision=config.evaluation.precision,
        gather=False,
        read=read,
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
