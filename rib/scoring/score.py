"""Score a model on a dataset: every image once, whatever the batch size, the workers and the number of processes."""

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
"""Evaluation precisions; the first is float32 without TF32."""


def score(model: nn.Module, *arguments: Any, **options: Any) -> Predictions | None:
    """What one model says about each image of a dataset: `score_all` with one model."""
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
    together: Callable[[Sequence[Tensor]], Tensor] | None = None,
    advance: Advance = lambda done, note: None,
) -> list[Predictions] | None:
    """What models say about each image of a dataset, in one pass over its images.

    Args:
        models: Each from images uint8 (B, 3, H, W) to logits (B, K); put into eval mode.
        batches: Images (B, 3, H, W), labels (B,) and the images' places in the dataset (B,): this process's share.
        space: The dataset's classes.
        num_images: N of the whole dataset.
        device: Where the model is.
        precision: One of `AUTOCAST`.
        keep_logits: Keep (N, C) logits too.
        together: From each model's logits (B, C) to one set of logits, for an ensemble; None: each for itself.
        advance: Told how many images are done.

    Returns:
        On rank zero, and everywhere in a single process, the whole dataset's predictions by each model (or by all
        together, one entry); None on other ranks.

    Raises:
        RibError: If the precision is unknown.
        RuntimeError: If an image came twice or never.
    """
    if precision not in AUTOCAST:
        raise RibError(f"evaluation.precision: expected one of {', '.join(AUTOCAST)}, got {precision!r}")
    for model in models:
        model.eval()
    device = torch.device(device)
    parts: list[list[dict[str, Tensor]]] = []
    with torch.inference_mode(), exact_float32(), _autocast(device, precision):
        for images, labels, index in batches:
            images, labels = images.to(device, non_blocking=True), labels.to(device)
            outputs = [space.project(model(images)).float() for model in models]
            answers = outputs if together is None else [together(outputs)]
            parts.append([{"index": index, **_columns(logits, labels, keep_logits)} for logits in answers])
            advance(len(index), "")
    shares = _gather([_joined(columns) for columns in zip(*parts, strict=True)])
    if shares is None:
        return None
    return [_whole(of_model, num_images) for of_model in zip(*(s for s in shares if s), strict=True)]


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """One model's batches as one."""
    return {name: torch.cat([part[name].cpu() for part in parts]).numpy() for name in parts[0]}


def _whole(filled: Sequence[dict[str, Any]], num_images: int) -> Predictions:
    """One model's shares of all processes in the dataset's order."""
    columns = {name: np.concatenate([share[name] for share in filled]) for name in filled[0]}
    order = np.argsort(columns["index"], kind="stable")
    if not np.array_equal(columns.pop("index")[order], np.arange(num_images)):
        raise RuntimeError(f"expected each of {num_images} images exactly once, got {len(order)}")
    return Predictions(**{name: column[order] for name, column in columns.items()})


def _columns(logits: Tensor, labels: Tensor, keep_logits: bool) -> dict[str, Tensor]:
    log_probs = logits.log_softmax(dim=1)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
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
    """Every rank's columns on rank zero; a rank without images has none."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    shares: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, shares, dst=0)
    return shares


def _autocast(device: torch.device, precision: str) -> Any:
    dtype = AUTOCAST[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
