"""The processes of one run: start them, count them, and let them agree on what rank zero finds."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rib.errors import RibError
from rib.runtime.memory import keep_memory

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from rib.config.schema import Config

T = TypeVar("T")

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
        fabric.launch()
    except Exception as error:
        raise RibError(f"trainer: {' '.join(str(error).split())}") from error
    started = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) if processes_exist() else 1
    if fabric.world_size < started:
        raise RibError(
            f"trainer: expected {fabric.world_size} processes (trainer.devices x trainer.num_nodes), {started} were "
            "started; say trainer=ddp with trainer.devices= a node, or start one"
        )
    if config.keep_memory and fabric.device.type == "cpu":
        keep_memory()
    return fabric


def several_processes(config: Config) -> bool:
    """Whether a run's Trainer asks for more than one process (or for as many as there are devices)."""
    return config.trainer.get("devices", 1) not in (1, "1") or config.trainer.get("num_nodes", 1) != 1


def num_processes(config: Config) -> int:
    """Processes that a run's Trainer asks for on all nodes; what says "all devices" is counted here."""
    if not several_processes(config):
        return 1
    devices = config.trainer.get("devices", 1)
    if isinstance(devices, list):
        each = len(devices)
    elif isinstance(devices, str) and "," in devices:
        each = len([place for place in devices.split(",") if place.strip()])
    else:
        each = -1 if devices == "auto" else int(devices)
    if each < 0:
        import torch

        on_cpu = config.trainer.get("accelerator", "auto") == "cpu"
        each = 1 if on_cpu else max(1, torch.cuda.device_count())
    return each * int(config.trainer.get("num_nodes", 1))


def count_devices(config: Config) -> dict[str, Any]:
    """A Trainer's arguments with a number where they say all devices, so that another machine reads the same."""
    devices = config.trainer.get("devices", 1)
    if devices not in ("auto", -1, "-1"):
        return config.trainer
    return {**config.trainer, "devices": num_processes(config) // int(config.trainer.get("num_nodes", 1))}


def processes_exist() -> bool:
    """Whether this run's processes were started already, by torchrun, by srun, or by Lightning."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's own rule
    return "LOCAL_RANK" in os.environ or ("SLURM_NTASKS" in os.environ and not interactive)


def agree(config: Config, look: Callable[[], T]) -> T:
    """What rank zero sees or does in the store: the processes of one run must never decide for themselves."""
    if not processes_exist() and not several_processes(config):
        return look()
    agreed_on: T = launch_processes(config).broadcast(look())
    return agreed_on


def agree_if_finished(config: Config, look: Callable[[], bool]) -> bool:
    """The same for what may make all further work needless: then the other processes are not even started."""
    if not processes_exist() and config.trainer.get("num_nodes", 1) == 1 and look():
        return True
    return agree(config, look)


def check_share(batch_size: int, world: int) -> None:
    """Check that a global batch can be split evenly.

    Raises:
        ValueError: If not, with both numbers.
    """
    if batch_size % world:
        raise ValueError(f"expected a batch size that {world} processes can share evenly, got {batch_size}")


def check_batch(config: Config) -> None:
    """See, before anything is trained, that the processes can share a batch.

    Raises:
        RibError: If not, with both numbers.
    """
    try:
        check_share(config.batch_size, launch_processes(config).world_size)
    except ValueError as error:
        raise RibError(f"batch_size: {error}") from error


def trainer_plugins() -> list[Any]:
    """Under SLURM, no requeueing by Lightning: it saves within a step and goes on from there, with other weights."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def has_gpu(accelerator: str) -> bool:
    """Whether training will run on a CUDA GPU; torch is asked only where there may be one."""
    if accelerator == "cpu" or (sys.platform == "linux" and not Path("/dev/nvidiactl").exists()):
        return False
    import torch

    return torch.cuda.is_available()
