"""Slices of a batch that go through a network at once, by speed and by free memory.

On a CPU a batch of 256 goes in slices of 32, which stay in the processor's caches: EfficientNet-lite0 then takes 39 ms
of CPU an image in place of 51, and 1.7 GB in place of 6.5 (one thread, one run each).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from rich.filesize import decimal
from torch import Tensor

from rib.runtime.console import say_once
from rib.runtime.memory import available_memory

CPU_SLICE = 32
"""Images at once on a CPU; on one with more cores, one for each."""

NEEDED = 64
"""Memory of one image in a network, in units of its float32 pixels: EfficientNet-lite0 takes 38, ViT-tiny 10."""


class Slices:
    """Splits batches into what goes through a network at once; the size is chosen at the first batch.

    Args:
        device: The networks' device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size = 0

    def of(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return a batch of images (B, C, H, W), or later anything of one entry an image, in slices."""
        if not self._size:
            self._size = images_at_once(batch.shape[1:], len(batch), self._device)
        return torch.split(batch, self._size)


def images_at_once(image: torch.Size, batch: int, device: torch.device) -> int:
    """Return how many images of a batch to give a network at once, and say so if short memory decides it.

    Args:
        image: Shape of one image, (C, H, W).
        batch: Number of images in a batch.
        device: The network's device.
    """
    fast = batch if device.type != "cpu" else min(batch, max(CPU_SLICE, torch.get_num_threads()))
    free = _free(device)
    # Half of what is free: other work on the machine, or on the GPU, takes some as well.
    fits = max(1, free // 2 // (NEEDED * 4 * image.numel()))
    if fits < fast:
        say_once(f"only {decimal(free)} of memory free: images are scored {fits} at a time in place of {fast}")
    return min(fits, fast)


def _free(device: torch.device) -> int:
    """Return the bytes of free memory on a device, those included that torch holds without using them."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return available_memory() // (dist.get_world_size() if dist.is_initialized() else 1)
