"""Seeded selection of images from a user's DataLoader, without a change to any random state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from rib.errors import RibError

BATCH = 64
"""Number of images in a batch of a selection."""

WHOLE = (SequentialSampler, RandomSampler, WeightedRandomSampler, DistributedSampler)
"""Samplers that serve the whole dataset, in any order."""


def select_images(
    loader: object, count: int, seed: int, rank: int = 0, world: int = 1, *, any_iterable: bool = False
) -> tuple[Iterator[Any], int]:
    """Select images of a loader's dataset by a seed; the loader's order and global random states do not change.

    A loader with a dataset that can be indexed is not iterated: the chosen items are read by a loader beside it, with
    its ``collate_fn`` and workers. While the batches are read, the random states of torch, NumPy and Python start from
    ``seed``, so that random augmentations of the dataset are the same each time, and they are restored afterwards. A
    dataset's own generator is not covered.

    Args:
        loader: A `DataLoader`, or with ``any_iterable`` anything that can be iterated over batches.
        count: Number of images; all, if there are fewer.
        seed: Seed of the choice.
        rank: This process takes every ``world``-th image of the selection, beginning here.
        world: Number of processes.
        any_iterable: Take the first ``count`` images of a loader whose dataset cannot be indexed, by iterating it.

    Returns:
        Batches as the loader's ``collate_fn`` makes them, each with the images' positions in the selection (shape (B,),
        int64), to be iterated to their end; and the number of images in the whole selection.

    Raises:
        RibError: If the loader's images cannot be known without iterating it, and ``any_iterable`` is false.
    """
    indices = _indices(loader)
    if indices is None:
        if not any_iterable or not isinstance(loader, Iterable):
            raise RibError(
                f"expected a DataLoader with a standard sampler and a dataset with a length, got {_describe(loader)}"
                "; pass the images, as in EWC(images=DataLoader(dataset, batch_size=64))"
            )
        batches = _first(loader, count, seed)
        mine = [(_rows(batch, keep), places[keep]) for batch, places, keep in _shares(batches, rank, world)]
        return iter(mine), sum(len(places) for _, places in batches)
    assert isinstance(loader, DataLoader)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(indices), generator=generator)[:count].sort().values
    places = torch.arange(len(chosen))[rank::world]
    items = [indices[i] for i in chosen[rank::world].tolist()]
    beside = DataLoader(
        loader.dataset,
        batch_sampler=[items[i : i + BATCH] for i in range(0, len(items), BATCH)],
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    return _seeded(beside, torch.split(places, BATCH), seed), len(chosen)


def _indices(loader: object) -> Sequence[int] | None:
    """Return the dataset indices that a loader iterates over; None if only iterating it would tell."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if type(loader.batch_sampler) is not BatchSampler or not hasattr(loader.dataset, "__len__"):
        return None
    if isinstance(loader.sampler, SubsetRandomSampler):
        return list(loader.sampler.indices)
    if type(loader.sampler) in WHOLE:
        return range(len(loader.dataset))
    return None


def _describe(loader: object) -> str:
    if not isinstance(loader, DataLoader):
        return f"a {type(loader).__name__}"
    if isinstance(loader.dataset, IterableDataset):
        return "one over an IterableDataset"
    return f"one with a {type(loader.batch_sampler).__name__} and a {type(loader.sampler).__name__}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the context, and restore their random states afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  datasets draw from the global state
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


def _seeded(loader: Iterable[Any], places: Sequence[Tensor], seed: int) -> Iterator[tuple[Any, Tensor]]:
    with seeded(seed):  # a loader draws from torch's state as soon as it is iterated
        yield from zip(loader, places, strict=True)


def _first(loader: Iterable[Any], count: int, seed: int) -> list[tuple[Any, Tensor]]:
    """Return the first ``count`` images of a loader in batches, each with the images' positions."""
    found: list[tuple[Any, Tensor]] = []
    seen = 0
    with seeded(seed):
        for batch in loader:
            size = min(len(batch[0]), count - seen)
            found.append((_rows(batch, torch.arange(size)), torch.arange(seen, seen + size)))
            seen += size
            if seen >= count:
                break
    return found


def _rows(batch: Any, rows: Tensor) -> list[Any]:
    """Return the images and labels of a batch at the given row indices."""
    return [tensor[rows] for tensor in batch[:2]]


def _shares(batches: Iterable[tuple[Any, Tensor]], rank: int, world: int) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Yield each batch with its images' positions in the selection and the indices of the rows this process takes."""
    for batch, places in batches:
        keep = torch.nonzero(places % world == rank)[:, 0]
        if len(keep):
            yield batch, places, keep
