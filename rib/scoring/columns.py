"""From logits to the columns of `Predictions`: of a batch, of a process, and of all processes joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Columns = dict[str, Any]
"""Arrays by name, all of the same length: ``index`` (positions in the dataset) and those of `Predictions`."""


def columns_of(logits: Tensor, labels: Tensor, keep_logits: bool) -> dict[str, Tensor]:
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


def concatenate(batches: Sequence[dict[str, Tensor]]) -> Columns:
    """Return arrays by name, concatenated over all batches of this process."""
    return {name: torch.cat([batch[name].cpu() for batch in batches]).numpy() for name in batches[0]}


def gather_columns(mine: list[Columns]) -> list[list[Columns]] | None:
    """Gather the columns of all processes: one entry per rank on rank zero, None on other ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    shares: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, shares, dst=0)
    return shares


def in_order(shares: Sequence[Columns], num_images: int) -> Columns:
    """Return one model's columns in the dataset's order, without ``index``, joined from those of all processes.

    Raises:
        RuntimeError: If an image came twice or not at all.
    """
    columns = {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
    order = np.argsort(columns["index"], kind="stable")
    if not np.array_equal(columns.pop("index")[order], np.arange(num_images)):
        raise RuntimeError(f"expected each of {num_images} images exactly once, got {len(order)}")
    return {name: column[order] for name, column in columns.items()}
