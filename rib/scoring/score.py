"""Score models on a dataset: each image exactly once, for any batch size and number of workers and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rib.data.labels import LabelSpace
from rib.errors import RibError
from rib.runs.predictions import Predictions
from rib.runtime.precision import exact_float32
from rib.runtime.progress import Advance

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Evaluation precisions with the dtype of autocast; ``32-true`` is float32 without TF32."""


def score(model: nn.Module, *arguments: Any, **options: Any) -> Predictions | None:
    """Return the predictions of a single model; arguments are those of `score_all`."""
    predictions = score_all([model], *arguments, **options)
    return None if predictions is None else predictions[0]


def score_all(
    models: Sequence[nn.Module],
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    space: LabelSpace,
    num_images: int,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    keep_logits: bool = False,
    combine: Callable[[Sequence[Tensor]], Tensor] | None = None,
    gather: bool = True,
    advance: Advance = lambda done, note: None,
) -> list[Predictions] | None:
    """Return the predictions of models for all images of a dataset, in one pass over the images.

    Args:
        models: Models from images, uint8 (B, 3, H, W), to logits (B, K); they are put into eval mode.
        batches: This process's share: images (B, 3, H, W), labels (B,) and positions in the dataset (B,).
        space: The dataset's C classes in terms of the K outputs.
        num_images: Number N of images in the whole dataset.
        device: Device of the models.
        precision: One of `AUTOCAST`.
        keep_logits: Keep the logits (N, C) as well.
        combine: Combines the models' logits, (B, C) each, to those of one ensemble, (B, C); None to score each model
            on its own.
        gather: Join the predictions of all processes; False where each process has all images itself.
        advance: Progress callback, called with the number of images in each finished batch.

    Returns:
        On rank zero the predictions for the whole dataset, one entry per model (or one for the ensemble); None on
        other ranks.

    Raises:
        RibError: If the precision is unknown.
        RuntimeError: If an image came twice or not at all.
    """
    if precision not in AUTOCAST:
        raise RibError(f"evaluation.precision: expected one of {', '.join(AUTOCAST)}, got {precision!r}")
    for model in models:
        model.eval()
    device = torch.device(device)
    batch_columns: list[list[dict[str, Tensor]]] = []
    # Not inference_mode, which is no faster here: tensors that a user's network keeps (position embeddings, say) could
    # not be trained with afterwards.
    with torch.no_grad(), exact_float32(), _autocast(device, precision):
        for images, labels, index in batches:
            images, labels = images.to(device, non_blocking=True), labels.to(device)
            # float32 before the softmax: under autocast logits come in half precision.
            outputs = [space.project(model(images)).float() for model in models]
            combined = outputs if combine is None else [combine(outputs)]
            batch_columns.append([{"index": index, **_columns(logits, labels, keep_logits)} for logits in combined])
            advance(len(index), "")
    mine = [_concatenate(columns) for columns in zip(*batch_columns, strict=True)]
    shares = _gather(mine) if gather else [mine]
    if shares is None:
        return None
    # A rank without images (more processes than images) has an empty share.
    return [_merge_shares(of_model, num_images) for of_model in zip(*(s for s in shares if s), strict=True)]


def _concatenate(batches: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Return one model's prediction arrays by name, concatenated over all batches of this process."""
    return {name: torch.cat([batch[name].cpu() for batch in batches]).numpy() for name in batches[0]}


def _merge_shares(shares: Sequence[dict[str, Any]], num_images: int) -> Predictions:
    """Return one model's predictions in the dataset's order, joined from the arrays of all processes.

    Raises:
        RuntimeError: If an image came twice or not at all.
    """
    columns = {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
    order = np.argsort(columns["index"], kind="stable")
    if not np.array_equal(columns.pop("index")[order], np.arange(num_images)):
        raise RuntimeError(f"expected each of {num_images} images exactly once, got {len(order)}")
    return Predictions(**{name: column[order] for name, column in columns.items()})


def _columns(logits: Tensor, labels: Tensor, keep_logits: bool) -> dict[str, Tensor]:
    """Return the arrays of `Predictions` by name for one batch, from logits (B, C) and labels (B,)."""
    log_probs = logits.log_softmax(dim=1)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    # int16 is enough for class numbers, and predictions of a million images stay at 20 MB.
    top5 = torch.full((len(labels), 5), -1, dtype=torch.int16, device=logits.device)
    top5[:, : best.shape[1]] = best.to(torch.int16)
    columns = {
        "label": labels.to(torch.int16),
        "top5": top5,
        "confidence": log_probs.gather(1, best[:, :1])[:, 0].exp(),
        "log_prob": log_probs.gather(1, labels[:, None])[:, 0],
    }
    return {**columns, "logits": logits} if keep_logits else columns


def _gather(mine: list[dict[str, Any]]) -> list[list[dict[str, Any]]] | None:
    """Gather the prediction arrays of all processes: one entry per rank on rank zero, None on other ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    shares: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, shares, dst=0)
    return shares


def _autocast(device: torch.device, precision: str) -> Any:
    dtype = AUTOCAST[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
