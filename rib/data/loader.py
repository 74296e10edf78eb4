"""Data loaders over datasets that return whole batches: rib's images and a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rib.data.dataset import Batch
from rib.errors import RibError


def batch_loader(dataset: Dataset[Any], batches: Any, workers: int) -> DataLoader[Batch]:
    """Return a loader whose batches are what ``dataset.__getitems__`` returns.

    Args:
        dataset: Returns a whole batch for a list of indices (``__getitems__``).
        batches: Lists of indices, or a batch sampler.
        workers: Number of loader processes; 0 loads in this one.

    Raises:
        RibError: While it is iterated, if the dataset raises one; also from a worker it is one sentence.
    """
    return _Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_keep_batch,
        pin_memory=torch.cuda.is_available(),  # torch warns of pinning without a GPU
    )


def chunks(indices: Sequence[int], size: int) -> list[list[int]]:
    """Split indices into consecutive lists of at most ``size``."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]


class _Loader(DataLoader[Batch]):
    """DataLoader that reports a `RibError` of its dataset in one sentence, without a worker's traceback."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
            return
        except RibError as error:
            # torch re-raises a worker's error with its traceback as text and the message at the end. The traceback
            # object holds the loader's processes in a reference cycle, on which garbage collection would wait for five
            # seconds per worker: drop it.
            message = str(error).rpartition("RibError: ")[2].strip()
            error.__traceback__ = None
        raise RibError(message)


def _keep_batch(batch: Any) -> Any:
    """Collate function that returns a batch unchanged, since the dataset returns whole batches already."""
    return batch
