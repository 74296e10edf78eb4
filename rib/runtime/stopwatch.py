"""Stopwatch for the phases of a run; it measures only with ``profile=true``.

Phases may be nested: a phase's seconds are those in which no inner phase runs, so that all phases together are the
whole time. Only the thread that began the measurement counts. What other threads and processes do meanwhile, such as
decoding images, is counted apart (`Beside`).
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside:
    """Seconds that several threads and processes spend on one kind of work, in all of them together."""

    def __init__(self) -> None:
        self._total = multiprocessing.Value("d", 0.0)  # shared with processes that are started with it

    @property
    def seconds(self) -> float:
        """Seconds up to now."""
        return float(self._total.value)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a block."""
        begun = time.perf_counter()
        yield
        with self._total.get_lock():
            self._total.value += time.perf_counter() - begun


class Stopwatch:
    """Seconds of each phase, up to now.

    Args:
        phase: Phase of the time in which no other one runs.

    Attributes:
        seconds: Seconds by phase, in the order in which phases first began.
        beside: Work of other threads and processes, by its name; its seconds are no part of the whole time.
    """

    def __init__(self, phase: str) -> None:
        self.seconds: dict[str, float] = {phase: 0.0}
        self.beside: dict[str, Beside] = {}
        self._running = [phase]
        self._since = time.perf_counter()
        self._thread = threading.get_ident()

    def start(self, phase: str) -> None:
        """Begin a phase inside the one that runs."""
        if self._is_mine():
            self._count()
            self.seconds.setdefault(phase, 0.0)
            self._running.append(phase)

    def stop(self) -> None:
        """End the innermost phase."""
        if self._is_mine():
            self._count()
            self._running.pop()

    def _is_mine(self) -> bool:
        return threading.get_ident() == self._thread

    def _count(self) -> None:
        """Add the time since the last call to the innermost phase, after waiting for the work queued on a GPU."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


_watch: Stopwatch | None = None
"""The measurement in progress."""


def running() -> Stopwatch | None:
    """Return the measurement in progress, or None."""
    return _watch


@contextmanager
def measured(phase: str) -> Iterator[Stopwatch]:
    """Measure all phases within a block.

    Args:
        phase: Phase of the time in which no other one runs.
    """
    global _watch
    _watch = watch = Stopwatch(phase)
    try:
        yield watch
    finally:
        watch.stop()
        _watch = None


def counted_beside(work: str) -> Beside | None:
    """Return the counter of a kind of work of other threads and processes, or None if nothing is measured.

    Args:
        work: Its name.
    """
    return None if _watch is None else _watch.beside.setdefault(work, Beside())


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Count a block as a phase, if anything is measured."""
    watch = _watch
    if watch is None:
        yield
        return
    watch.start(phase)
    try:
        yield
    finally:
        watch.stop()


@dataclass(frozen=True)
class TimedItems(Generic[T]):
    """Items, the wait for each of which counts as a phase, if anything is measured.

    Attributes:
        items: The items, such as a loader's batches.
        phase: The phase.
    """

    items: Iterable[T]
    phase: str

    def __iter__(self) -> Iterator[T]:
        iterator = iter(self.items)
        while True:
            with timed(self.phase):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
