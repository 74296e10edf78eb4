"""Memory and CPU cores available to this process, and a malloc setting that keeps freed memory.

On a CPU, page faults take half of a ConvNet's time: glibc returns large blocks to the kernel as soon as they are freed,
every layer's output is such a block, and the next layer faults the same pages in again. `keep_memory` switches this
off; it changes no number. ``benchmarks/allocator.py`` measures what it gains and costs: on two cores of an AMD EPYC
EfficientNet-lite0 is scored 2.8 times as fast (32 images at once, 1.21 times the memory) and trained 2.2 times as fast
(64 at once, 1.20 times). A whole run with batches of 64 takes 8.0 GB at its peak and 6.7 without it; with EWC 7.4 and
6.5 (one run each, on another machine).
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rib.runtime.console import say_once

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Parameter numbers of mallopt(3), from glibc's malloc.h."""

LARGE = 2**25
"""Bytes of a large block: the largest threshold that glibc takes."""

APART = 4
"""Large blocks of a training step that are kept apart from the others (`training_memory`)."""

SHORT = 8 * 10**9
"""Free memory in bytes below which none is kept: EfficientNet-lite0 takes as much to train with batches of 64."""

_keeping = False
"""True after `keep_memory` has changed malloc's settings."""


@functools.cache
def keep_memory(processes: int = 1) -> bool:
    """Make glibc's malloc keep freed memory (Linux with glibc only); if memory is short, say so instead.

    Args:
        processes: Number of processes of this run, which share what is free.

    Returns:
        True if memory is kept from now on.
    """
    global _keeping
    if platform.libc_ver()[0] != "glibc":
        return False
    if (free := available_memory() // processes) < SHORT:
        from rich.filesize import decimal

        say_once(
            f"only {decimal(free)} of memory free: freed memory is returned at once, as with keep_memory=false, which "
            "takes less but is slower"
        )
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No block by mmap, no trimming of the heap's top, and the heap grows by 512 MB at a time. A lower bound of trimming
    # leaves the peak as it is, and costs time at each step, whose memory is all freed at its end.
    settings = {M_MMAP_MAX: 0, M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**29}
    _keeping = 0 not in [mallopt(number, value) for number, value in settings.items()]  # 0: it was refused
    return _keeping


@contextmanager
def training_memory() -> Iterator[None]:
    """Keep less memory within a block that trains, where memory is kept (`keep_memory`).

    A training step holds all its layers' outputs, of which the first are the largest. The first `APART` of them get
    pages of their own, which the kernel takes back and gives anew in each step; without these, the others leave fewer
    gaps in the heap: EfficientNet-lite0 with batches of 64 peaks at 6.8 to 7.6 GB in place of 7.4 to 8.0. Scoring holds
    few outputs at a time, and would get nearly all its pages anew.
    """
    if not _keeping:
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, APART)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, 0)


def release_memory() -> None:
    """Return memory that `keep_memory` kept to the system, as at the end of training: scoring takes much less."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def cores() -> int:
    """Return the number of CPU cores that this process may use; a cluster's job often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(processes: Processes) -> int:
    """Return the bytes of free memory on this process's GPU; on a CPU, its share of the machine's free memory."""
    import torch

    if processes.device.type == "cuda":
        return torch.cuda.mem_get_info(processes.device)[0]
    return available_memory() // processes.world_size


def available_memory() -> int:
    """Return the bytes of main memory that this process can still use, within its container's limit if there is one."""
    import psutil

    # psutil reports the whole machine; the limit of a container (cgroup v2) is lower.
    free = int(psutil.virtual_memory().available)
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    return free if limit is None or used is None else min(free, limit - used)


def _number(file: str) -> int | None:
    """Read a number from a cgroup file; None if there is no such file or it says "max" (no limit)."""
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):
        return None
