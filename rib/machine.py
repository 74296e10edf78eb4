"""The machine that a run happens on: its processes, what they agree on, and what env.json says of it."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.allocator import keep_memory
from rib.errors import RibError
from rib.schema import Config

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NOT_FOR_USERS = (
    ".*does not have many workers.*",  # cached crops need none
    ".*in eval mode at the start of training.*",  # frozen BatchNorm is meant to be
    ".*your dataloader is not resumable.*",  # it is, through the sampler (rib.data.sampler)
    ".*decoding and encoding capabilities of TorchVision are deprecated.*",  # PIL takes over where they are gone
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 on torch 2.15
)
"""Warnings of libraries about what is so on purpose, or theirs to mend."""


def launch_processes(config: Config) -> Fabric:
    """The devices and, for several, their processes: those of the Trainer, which joins them later."""
    import lightning.pytorch  # noqa: F401 - its loggers must exist before they are quieted
    from lightning.fabric import Fabric

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    given = {k: config.trainer[k] for k in ("accelerator", "devices", "num_nodes", "strategy") if k in config.trainer}
    try:
        fabric = Fabric(**given)
    except Exception as error:
        raise RibError(f"trainer: {' '.join(str(error).split())}") from error
    fabric.launch()
    if config.keep_memory and fabric.device.type == "cpu":
        keep_memory()
    return fabric


def agreed(config: Config, look: Callable[[], bool]) -> bool:
    """What rank zero sees in the store: the processes of one run must never decide for themselves."""
    trainer = config.trainer
    alone = trainer.get("devices", 1) in (1, "1") and trainer.get("num_nodes", 1) == 1
    if alone and not {"WORLD_SIZE", "SLURM_NTASKS"} & set(os.environ):
        return look()
    return launch_processes(config).broadcast(look())


def environment() -> dict[str, Any]:
    """What env.json lists: versions and the kind of machine, no name and no path."""
    import torch

    packages = ("rib", "torch", "torchvision", "lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core")
    cuda = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def available_memory() -> int:
    """Bytes that this process can still take: what Linux calls available, and within a container's own limit."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = _lines("/proc/meminfo")
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), pages)
    limit = next(iter(_lines("/sys/fs/cgroup/memory.max")), "max")
    used = next(iter(_lines("/sys/fs/cgroup/memory.current")), "0")
    return free if limit == "max" else min(free, int(limit) - int(used))


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:  # not Linux
        return []
