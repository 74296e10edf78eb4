"""Chunks of images whose gradients, one for each image, fit into the memory that a plain training step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.models.recompute import checkpoint_gradients

ALLOWANCE = 1.1
"""Most memory, as a multiple of a plain training step's peak."""


class Chunks:
    """Chunk sizes on a GPU, by measurement: the peaks with one image and with two tell what another image takes.

    ViT-B/16 in float32 on an H200: 1.6 GiB and 0.6 GiB an image, so that 64 at once took 40 GiB where training in bf16
    takes 5.3; within 1.1 times that there are 7.

    Args:
        device: The GPU.
        batch: Images in a training step on this device.
        precision: Makes the context of a training step's forward pass, such as autocast; None for none.
    """

    def __init__(
        self, device: torch.device, batch: int, precision: Callable[[], AbstractContextManager[object]] | None = None
    ) -> None:
        self.device = device
        self.batch = batch
        self.precision = precision or nullcontext
        self._budget: int | None = None
        self._peaks: dict[int, int] = {}

    def parts(self, model: nn.Module, images: Tensor) -> Iterator[slice]:
        """Split a batch into chunks; the peak between one and the next is that of the caller's work on the first.

        Args:
            model: In eval mode, on the device; its gradients are deleted, and gradient checkpointing is off afterwards.
            images: Shape (B, 3, H, W), on the device.
        """
        if self._budget is None:
            self._budget = min(int(ALLOWANCE * self._training_peak(model, images[: self.batch])), self._usable())
            checkpoint_gradients(model, enable=False)  # torch.func cannot follow it
        first = 0
        while first < len(images):
            size = min(self._size(self._budget), len(images) - first)
            self._reset()
            yield slice(first, first + size)
            self._peaks.setdefault(size, self._peak())
            first += size

    def _size(self, budget: int) -> int:
        return next((size for size in (1, 2) if size not in self._peaks), None) or most_images(self._peaks, budget)

    def _training_peak(self, model: nn.Module, images: Tensor) -> int:
        """Return the bytes that training takes at its peak: weights, momentum, gradients and activations."""
        self._reset()
        before = self._peak()
        with suppress(torch.OutOfMemoryError):  # then training will not fit either, and says so itself
            with self.precision():
                outputs = model(images)
                loss = F.cross_entropy(outputs.float(), outputs.argmax(dim=1))
            torch.autograd.backward(loss)
        model.zero_grad(set_to_none=True)
        weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        momentum = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        return self._peak() - before + weights + momentum

    def _usable(self) -> int:
        """Return the bytes that this process has on the GPU or could still get."""
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device)

    def _reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)


def most_images(peaks: dict[int, int], budget: int) -> int:
    """Return how many images fit at once, at least 1, if each takes as much memory as the second one.

    Args:
        peaks: Peak memory in bytes with 1 image and with 2.
        budget: Bytes that may be in use.
    """
    each = max(1, peaks[2] - peaks[1])
    return max(1, 1 + (budget - peaks[1]) // each)
