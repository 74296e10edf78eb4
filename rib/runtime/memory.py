"""Memory and CPU cores available to this process, and a malloc setting that keeps freed memory.

On a CPU, page faults take half of a ConvNet's time: glibc returns large blocks to the kernel as soon as they are freed,
every layer's output is such a block, and the next layer faults the same pages in again. `keep_memory` switches this
off; it changes no number. ``benchmarks/allocator.py`` measures the gain: on two cores, idle to very busy, batch size
32, EfficientNet-lite0 is 2.6 to 3.6 times as fast in evaluation and 1.7 to 2.3 times in training, ViT-tiny 1.1 to 1.2
times in both. At most 256 MB at the heap's end are kept free: a training step of an EfficientNet-lite0 at batch size
64, channels last, takes 6.3 GB and 110 ms of CPU an image, 5.9 GB and 243 ms without it, 6.7 GB and 144 ms where no
memory is ever returned (one run each, on a busy machine).
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameter numbers of mallopt(3), from glibc's malloc.h."""


def keep_memory() -> bool:
    """Make glibc's malloc keep freed memory in this process; return True on success (Linux with glibc only)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No block by mmap; the heap's free top is returned beyond 256 MB, and the heap grows by 64 MB at a time.
    results = [mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**28), mallopt(M_TOP_PAD, 2**26)]
    return all(results)


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
