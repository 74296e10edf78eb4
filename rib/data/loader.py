"""Data loaders over datasets that return whole batches: rib's images and a user's own.

A batch of images that are all in the cache takes a few milliseconds, most of them in system calls without Python's
lock: threads read batches ahead, into pinned memory on a GPU machine, and no process has to be started or sent to.
Decoding takes hundreds of milliseconds a batch with Python's lock held in between, and needs processes. How many is
found while the first batches arrive (`Demand`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from rib.data.dataset import Batch, Images
from rib.errors import RibError
from rib.runtime.memory import cores

THREADS = 4
"""Most batches that are read from the cache at a time; at 0.2 ms of CPU an image of 224 px two give 8,000 a second."""

PATIENCE = 0.05
"""Share of the time between two batches that may be spent waiting before another worker is worth its start."""


class Demand:
    """Number of loader processes that a consumer of batches keeps busy, found by measuring how long it waits.

    With w processes a batch arrives every (wait + work) seconds, and is needed every (work) seconds, where work is the
    time that the consumer takes for itself: it takes w (wait + work) / work processes. The number only grows, up to one
    for each core of this process's share, and begins at one where the consumer computes on the same cores. The next
    loader of the same consumer begins with the number found.
    """

    def __init__(self) -> None:
        self.most = max(1, cores() // _processes_here())
        self.workers = min(self.most, 4 if torch.cuda.is_available() else 1)

    def raised(self, waits: Sequence[float], works: Sequence[float]) -> bool:
        """Raise the number of processes if the consumer waits; return True if it is higher now.

        Args:
            waits: Seconds that the consumer waited for each of the last batches.
            works: Seconds that it then took for it.
        """
        wait, work = sum(waits), sum(works)
        if wait <= PATIENCE * (wait + work):
            return False
        before = self.workers
        self.workers = min(self.most, max(before, round(before * (wait + work) / max(work, 1e-9) + 0.5)))
        return self.workers > before


def batch_loader(
    dataset: Dataset[Any], batches: Any, workers: int | None, demand: Demand | None = None
) -> DataLoader[Batch]:
    """Return a loader whose batches are what ``dataset.__getitems__`` returns.

    Args:
        dataset: Returns a whole batch for a list of indices (``__getitems__``).
        batches: Lists of indices, or a batch sampler.
        workers: Number of processes that decode images; 0 decodes in this one, None finds the number.
        demand: Number found by earlier loaders of the same consumer, if ``workers`` is None.

    Raises:
        RibError: While it is iterated, if the dataset raises one; also from a worker it is one sentence.
    """
    return _Loader(dataset, batches, workers, demand or Demand())


def chunks(indices: Sequence[int], size: int) -> list[list[int]]:
    """Split indices into consecutive lists of at most ``size``."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]


class _Loader(DataLoader[Batch]):
    """DataLoader that reads cached images by threads, and chooses its number of processes for all others."""

    def __init__(self, dataset: Dataset[Any], batches: Any, workers: int | None, demand: Demand) -> None:
        super().__init__(dataset, batch_sampler=batches, num_workers=0, collate_fn=_keep_batch, pin_memory=_pins())
        self.workers = workers
        self.demand = demand

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # torch's loaders draw a seed for their processes from the global generator; what is drawn after it, such as
        # dropout, must not depend on how many loaders an epoch takes.
        torch.empty((), dtype=torch.int64).random_()
        try:
            for batch in self._batches():
                yield batch
                if isinstance(self.dataset, Images):
                    self.dataset.say_trouble()
            return
        except RibError as error:
            # torch re-raises a worker's error with its traceback as text and the message at the end. The traceback
            # object holds the loader's processes in a reference cycle, on which garbage collection would wait for five
            # seconds per worker: drop it.
            message = str(error).rpartition("RibError: ")[2].strip()
            error.__traceback__ = None
        raise RibError(message)

    def _batches(self) -> Iterator[Batch]:
        if isinstance(self.dataset, Images) and self.dataset.in_memory:
            return iter(self._processes(self.batch_sampler, 0))
        if isinstance(self.dataset, Images) and self.dataset.kept():
            return self._read_ahead()
        if self.workers is None:
            return self._decode()
        return iter(self._processes(self.batch_sampler, self.workers))

    def _read_ahead(self) -> Iterator[Batch]:
        """Yield the batches, the next few of which are being read by threads."""
        images: Any = self.dataset
        threads = min(THREADS, cores())
        ahead: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(threads, "images")
        try:
            for indices in self._lists():
                ahead.append(pool.submit(images.__getitems__, indices))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _lists(self) -> Iterable[list[int]]:
        """Return the lists of indices that are the batches."""
        return cast("Iterable[list[int]]", self.batch_sampler)

    def _decode(self) -> Iterator[Batch]:
        """Yield the batches, decoded by as many processes as the consumer keeps busy."""
        remaining = _Remaining(iter(self._lists()))
        while not remaining.ended:
            remaining.open, settled = True, self.demand.workers == self.demand.most
            waits: list[float] = []
            works: list[float] = []
            begun = perf_counter()
            for number, batch in enumerate(self._processes(remaining, self.demand.workers)):
                waits.append(perf_counter() - begun)
                begun = perf_counter()
                yield batch
                works.append(perf_counter() - begun)
                begun = perf_counter()
                # The first batches of each process arrive late, while the consumer finds its own pace.
                first, window = self.demand.workers, 2 * self.demand.workers + 2
                if not settled and number + 1 == first + window:
                    settled = True
                    if self.demand.raised(waits[first:], works[first:]):
                        remaining.open = False  # these processes finish what they have; more of them go on

    def _processes(self, batches: Any, workers: int) -> DataLoader[Batch]:
        return DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_keep_batch,
            pin_memory=_pins(),
            generator=torch.Generator(),
        )


class _Remaining:
    """Batch sampler over the rest of an epoch, which ends early when it is closed, and can then be gone on with."""

    def __init__(self, batches: Iterator[list[int]]) -> None:
        self.batches = batches
        self.open = True
        self.ended = False

    def __iter__(self) -> Iterator[list[int]]:
        while self.open:
            try:
                batch = next(self.batches)
            except StopIteration:
                self.ended = True
                return
            yield batch


def _pins() -> bool:
    return torch.cuda.is_available()  # torch warns of pinning without a GPU


def _processes_here() -> int:
    """Return the number of processes of this run that share this machine's cores, as far as it can be told."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    return min(world, torch.cuda.device_count()) if torch.cuda.is_available() else world


def _keep_batch(batch: Any) -> Any:
    """Collate function that returns a batch unchanged, since the dataset returns whole batches already."""
    return batch
