"""Score models on a dataset: each image exactly once, for any batch size and number of workers and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from rib.data.labels import LabelSpace
from rib.errors import RibError
from rib.runs.predictions import Predictions
from rib.runtime.precision import COMPUTED, computing_in
from rib.runtime.progress import Advance
from rib.scoring.columns import Columns, columns_of, concatenate, gather_columns, in_order
from rib.scoring.slices import Slices
from rib.scoring.verified import VERIFIED, Batches, Read, Scorer, Verifying, stamp

PRECISIONS = (*COMPUTED, VERIFIED)
"""Names of evaluation.precision."""


def score(model: nn.Module, *arguments: Any, **options: Any) -> Predictions | None:
    """Return the predictions of a single model; arguments are those of `score_all`."""
    predictions = score_all([model], *arguments, **options)
    return None if predictions is None else predictions[0]


def score_all(
    models: Sequence[nn.Module],
    batches: Batches,
    space: LabelSpace,
    num_images: int,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    keep_logits: bool = False,
    combine: Callable[[Sequence[Tensor]], Tensor] | None = None,
    gather: bool = True,
    read: Read | None = None,
    advance: Advance = lambda done, note: None,
) -> list[Predictions] | None:
    """Return the predictions of models for all images of a dataset, in one pass over the images.

    Args:
        models: Models from images, uint8 (B, 3, H, W), to logits (B, K); they are put into eval mode.
        batches: This process's share: images (B, 3, H, W), labels (B,) and positions in the dataset (B,).
        space: The dataset's C classes in terms of the K outputs.
        num_images: Number N of images in the whole dataset.
        device: Device of the models.
        precision: One of `PRECISIONS`.
        keep_logits: Keep the logits (N, C) as well.
        combine: Combines the models' logits, (B, C) each, to those of one ensemble, (B, C); None to score each model
            on its own.
        gather: Join the predictions of all processes; False where each process has all images itself.
        read: Returns batches of the images at given positions, which ``verified`` reads again.
        advance: Progress callback, called with the number of images in each finished batch.

    Returns:
        On rank zero the predictions for the whole dataset, one entry per model (or one for the ensemble); None on
        other ranks.

    Raises:
        RibError: If the precision is unknown.
        RuntimeError: If an image came twice or not at all.
    """
    if precision not in PRECISIONS:
        raise RibError(f"evaluation.precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    for model in models:
        model.eval()
    device, slices = torch.device(device), Slices(torch.device(device))
    scorers = _scorers(models, space, combine, slices)
    # Not inference_mode, which is no faster here: tensors that a user's network keeps (position embeddings, say) could
    # not be trained with afterwards.
    with torch.no_grad():
        if precision == VERIFIED:
            assert read is not None, "verified reads some images again"
            verifying = Verifying(scorers, slices, read, num_images, device, keep_logits, gather)
            mine, bands = verifying.run(batches, advance)
        else:
            mine, bands = _one_pass(scorers, batches, device, precision, keep_logits, advance), []
    shares = gather_columns(mine) if gather else [mine]
    if shares is None:
        return None
    # A rank without images (more processes than images) has an empty share.
    joined = [in_order(of_model, num_images) for of_model in zip(*(s for s in shares if s), strict=True)]
    stamps = [stamp(columns, band, num_images) for columns, band in zip(joined, bands, strict=True)] if bands else []
    return [Predictions(**columns, verified=found) for columns, found in zip_longest(joined, stamps)]


def _scorers(
    models: Sequence[nn.Module],
    space: LabelSpace,
    combine: Callable[[Sequence[Tensor]], Tensor] | None,
    slices: Slices,
) -> list[Scorer]:
    """Return functions from images (B, 3, H, W) to logits (B, C): one a model, or one for the ensemble."""

    # float32 before the softmax: under autocast logits come in half precision.
    def alone(model: nn.Module) -> Scorer:
        return lambda images: torch.cat([space.project(model(part)).float() for part in slices.of(images)])

    each = [alone(model) for model in models]
    return each if combine is None else [lambda images: combine([scorer(images) for scorer in each])]


def _one_pass(
    scorers: Sequence[Scorer],
    batches: Batches,
    device: torch.device,
    precision: str,
    keep_logits: bool,
    advance: Advance,
) -> list[Columns]:
    """Return the columns of each scorer for this process's images, all computed in one precision."""
    found: list[list[dict[str, Tensor]]] = []
    with computing_in(precision, device.type):
        for images, labels, index in batches:
            images, labels = images.to(device, non_blocking=True), labels.to(device)
            found.append([{"index": index, **columns_of(scorer(images), labels, keep_logits)} for scorer in scorers])
            advance(len(index), "")
    return [concatenate(columns) for columns in zip(*found, strict=True)]
