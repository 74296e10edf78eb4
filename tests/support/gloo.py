"""Two processes joined by gloo, started once and shared by every test that needs them.

Starting a process that imports torch takes seconds; a step in one that runs takes milliseconds. Tests therefore hand
small top-level functions to one persistent pool: `pool.run(function, *arguments)` calls it in both processes, with the
default process group in place and torch seeded, and returns what each rank returned.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_START_S = 120.0
_COLLECTIVE_S = 30.0


class GlooPool:
    """A fixed number of processes in one gloo group; they start with the first call.

    Args:
        size: Number of processes.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self._processes: list[mp.process.BaseProcess] = []
        self._pipes: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, function: Callable[..., T], *arguments: object, timeout_s: float = 60.0) -> list[T]:
        """Calls a function in every process at once.

        Args:
            function: Defined at the top of a module, as pickling needs.
            *arguments: Given to every rank; anything that pickles. The rank is `torch.distributed.get_rank()`.
            timeout_s: Seconds that all ranks together have.

        Returns:
            What each rank returned, by rank.

        Raises:
            RuntimeError: If a rank raised or died; its traceback is the message. The pool then starts afresh.
            TimeoutError: If a rank did not answer in time; likewise.
        """
        if not self._processes:
            self._start()
        call = (list(sys.path), pickle.dumps((function, arguments)))
        deadline = time.monotonic() + timeout_s
        for pipe in self._pipes:
            with suppress(OSError):  # A process that died between calls is reported where answers are gathered.
                pipe.send(call)
        return self._gather(deadline, getattr(function, "__name__", repr(function)))

    def close(self) -> None:
        """Ends the processes: asked first, then made to."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._processes, self._pipes, self._folder = [], [], None

    def _start(self) -> None:
        """Starts the processes and waits until each has joined the group."""
        context = mp.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="rib-gloo-")
        store = (Path(self._folder.name) / "store").as_uri()
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.size, store, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        self._gather(time.monotonic() + _START_S, "joining the process group")

    def _gather(self, deadline: float, what: str) -> list[Any]:
        """One answer from each rank. After the first failure the others are not waited for: they may be stuck in a
        collective that the failed rank never joined.
        """
        answers: dict[int, Any] = {}
        while len(answers) < self.size:
            for rank in set(range(self.size)) - set(answers):
                try:
                    if not self._pipes[rank].poll(0.02):
                        continue
                    fine, answer = self._pipes[rank].recv()
                except (EOFError, OSError):
                    self._processes[rank].join(1)
                    fine, answer = False, f"the process died with exit code {self._processes[rank].exitcode}"
                if not fine:
                    self._kill()
                    raise RuntimeError(f"{what} failed on rank {rank}:\n{answer}")
                answers[rank] = answer
            if time.monotonic() > deadline and len(answers) < self.size:
                self._kill()
                silent = sorted(set(range(self.size)) - set(answers))
                raise TimeoutError(f"{what}: no answer in time from rank {silent}")
        return [answers[rank] for rank in range(self.size)]

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        self.close()


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    """Run one process: join, then call what it is sent until it is sent nothing."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.platform == "linux":
        # Containers often cannot resolve their own host name, which is gloo's default way to find an interface.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=_COLLECTIVE_S)
    )
    pipe.send((True, None))
    with suppress(EOFError, KeyboardInterrupt):
        while (call := pipe.recv()) is not None:
            sys.path[:] = call[0]
            try:
                torch.manual_seed(0)
                function, arguments = pickle.loads(call[1])
                pipe.send((True, function(*arguments)))
            except Exception:
                pipe.send((False, traceback.format_exc()))
    distributed.destroy_process_group()


@pytest.fixture(scope="session")
def gloo_pool() -> Iterator[GlooPool]:
    """The session's two processes."""
    pool = GlooPool()
    yield pool
    pool.close()
