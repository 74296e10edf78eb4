"""Outputs of a frozen network for every source image, computed once, before the first step.

Where each epoch shows the same pixels, the outputs of LwF's teacher and what enters the head of a linear probe are
constants. One pass over the source, in path order and in batches of one size, makes them independent of the order of
training, of the number of processes and of a resume: a killed fit computes the same bits again. They differ from what
the network gives for a training batch in the last bits alone, by which a kernel may depend on the batch's size.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
import torch.distributed as dist
from rich.filesize import decimal
from torch import Tensor, nn

from rib.methods.base import Tuned
from rib.methods.fisher import rank_and_world
from rib.models.randomness import uses_batch_statistics
from rib.runtime.console import say
from rib.runtime.memory import available_memory
from rib.runtime.progress import track

SHARE = 0.1
"""Share of the free memory of the device that the outputs may take."""

TRIED = 2
"""Images of the first batch that are passed twice, to see whether the network is random."""


def outputs_of_source(
    module: Tuned, network: nn.Module, outputs: Callable[[Tensor], Tensor | None], title: str
) -> Tensor | None:
    """Return a frozen network's outputs for all N source images, by their position.

    Args:
        module: The fine-tuning that is about to begin.
        network: The frozen network, in eval mode, on the training's device.
        outputs: Function of images (B, 3, H, W) that returns what the network makes of them, (B, D), or None if that
            cannot be told.
        title: What the outputs are, for the user.

    Returns:
        Shape (N, D), on the device, in the dtype of the training's precision. None if they are no constants (augmented
        or unknown images, a random network), are used only once, or do not fit into memory, which is said.
    """
    rank, world = rank_and_world()
    fixed = module.fixed_images(rank, world)
    if fixed is None or any(layer.training or uses_batch_statistics(layer, False) for layer in network.modules()):
        return None
    batches, number = fixed
    device, broadcast = module.trainer.strategy.root_device, module.trainer.strategy.broadcast
    with torch.no_grad(), module.trainer.precision_plugin.forward_context():
        left = iter(track(batches, f"computing the {title}", number, lambda batch: world * len(batch[0])))
        first = next(left, None)  # a process may have no batch; rank zero has one, and decides for all
        row = broadcast(None if first is None else _row(first[0].to(device), outputs, number, title, world))
        if row is None:
            return None
        table = row.to(device).new_zeros(number, *row.shape[1:])
        for images, _, places in chain([] if first is None else [first], left):
            found = outputs(images.to(device))
            assert found is not None, "the first images had outputs"
            table[places.to(device)] = found
    if world > 1:
        dist.all_reduce(table)  # each row is zero but in one process
    return table


def _row(
    images: Tensor, outputs: Callable[[Tensor], Tensor | None], number: int, title: str, world: int
) -> Tensor | None:
    """Return the outputs of no image, (0, D); None if those of an image are random or unknown, or N do not fit."""
    one, other = outputs(images[:TRIED]), outputs(images[:TRIED])
    if one is None or other is None or not torch.allclose(one, other, rtol=1e-3, atol=1e-3):
        return None
    size = number * one[0].numel() * one.element_size()
    free = torch.cuda.mem_get_info(images.device)[0] if images.is_cuda else available_memory() // world
    if size > SHARE * free:
        say(
            f"the {title} for {number:,} images take {decimal(size)}, more than a tenth of the free memory; they are "
            "computed anew at each step"
        )
        return None
    return one[:0].cpu()
