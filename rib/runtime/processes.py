"""The processes of a multi-process run (DDP): start them, count them, and broadcast rank zero's decisions."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rib.errors import RibError
from rib.runtime.counting import plural
from rib.runtime.memory import keep_memory
from rib.runtime.one_process import Processes, one_process
from rib.runtime.progress import activity

if TYPE_CHECKING:
    from rib.config.schema import Config

T = TypeVar("T")

NOT_FOR_USERS = (
    ".*does not have many workers.*",  # cached crops need none
    ".*It is recommended to use .*sync_dist=True.*",  # the logged values are sums that are reduced already
    ".*in eval mode at the start of training.*",  # frozen BatchNorm is in eval mode on purpose
    ".*your dataloader is not resumable.*",  # it is, through the sampler (rib.data.sampler)
    ".*decoding and encoding capabilities of TorchVision are deprecated.*",  # rib falls back to PIL without them
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 on torch 2.15
)
"""Warnings of libraries, as regular expressions, that the user can do nothing about."""


NO_GPU = (
    "; this machine has no GPU that torch can use: leave trainer= out, which trains on the CPU here, or install a CUDA "
    "build of torch"
)
"""End of the message where a GPU was asked for."""


def launch_processes(config: Config) -> Processes:
    """Start the processes that the options ``trainer`` ask for, and return them as this process sees them.

    Lightning's Trainer, built later, joins the same processes.

    Args:
        config: Its ``trainer`` gives accelerator, devices, nodes and strategy.

    Raises:
        RibError: If Lightning refuses these values, or the launcher has started another number of processes.
    """
    for message in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message=message)
    with activity("loading PyTorch"):
        alone = one_process(config.trainer)
    processes = alone or _launch(config)
    started = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) if processes_exist() else 1
    if processes.world_size < started:
        raise RibError(
            f"trainer: expected {processes.world_size} processes (trainer.devices x trainer.num_nodes), got {started}; "
            "use trainer=ddp with trainer.devices=N (processes per node), or start a single process"
        )
    if config.keep_memory and processes.device.type == "cpu":
        keep_memory(processes.world_size)
    return processes


def _launch(config: Config) -> Processes:
    """Start processes with Lightning's Fabric.

    Raises:
        RibError: If Lightning refuses the options.
    """
    load_lightning()
    from lightning.fabric import Fabric

    names = ("accelerator", "devices", "num_nodes", "strategy")
    try:
        fabric = Fabric(**{name: config.trainer[name] for name in names if name in config.trainer})
        fabric.launch()
    except Exception as error:
        wants_gpu = config.trainer.get("accelerator") in ("gpu", "cuda")
        hint = NO_GPU if wants_gpu and not has_gpu("gpu") else ""
        raise RibError(f"trainer: {' '.join(str(error).split()).rstrip('.!')}{hint}") from error
    return fabric


def load_lightning() -> None:
    """Import Lightning, which takes seconds, and let it log warnings only."""
    with activity("loading PyTorch and Lightning"):
        import lightning.pytorch  # noqa: F401 - importing it later would reset the levels of its loggers

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def several_processes(config: Config) -> bool:
    """Return True if ``trainer`` asks for more than one process, or for all devices."""
    return config.trainer.get("devices", 1) not in (1, "1") or config.trainer.get("num_nodes", 1) != 1


def num_processes(config: Config) -> int:
    """Return the number of processes on all nodes that ``trainer`` asks for; "all devices" means this machine's."""
    if not several_processes(config):
        return 1
    devices = config.trainer.get("devices", 1)
    if isinstance(devices, list):
        each = len(devices)
    elif isinstance(devices, str) and "," in devices:
        each = len([index for index in devices.split(",") if index.strip()])
    else:
        each = -1 if devices == "auto" else int(devices)
    if each < 0:
        import torch

        on_cpu = config.trainer.get("accelerator", "auto") == "cpu"
        each = 1 if on_cpu else max(1, torch.cuda.device_count())
    return each * int(config.trainer.get("num_nodes", 1))


def count_devices(config: Config) -> dict[str, Any]:
    """Return the ``trainer`` options with "all devices" (-1 or auto) replaced by this machine's number of devices."""
    devices = config.trainer.get("devices", 1)
    if devices not in ("auto", -1, "-1"):
        return config.trainer
    return {**config.trainer, "devices": num_processes(config) // int(config.trainer.get("num_nodes", 1))}


def processes_exist() -> bool:
    """Return True if torchrun, srun or Lightning has already started the processes of this run."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's own rule
    return "LOCAL_RANK" in os.environ or ("SLURM_NTASKS" in os.environ and not interactive)


def agree(config: Config, look: Callable[[], T]) -> T:
    """Call a function and broadcast rank zero's result, so that all ranks take the same branch.

    Each rank looking for itself could see another state of the run store, and ranks that disagree wait for each other
    for ever.

    Args:
        config: Its ``trainer`` says how many processes there are; they are started if need be.
        look: Function to call, such as a look-up in the run store.

    Returns:
        Rank zero's result, on every rank.
    """
    if not processes_exist() and not several_processes(config):
        return look()
    agreed_on: T = launch_processes(config).broadcast(look())
    return agreed_on


def agree_if_finished(config: Config, look: Callable[[], bool]) -> bool:
    """Return rank zero's answer to "is the run finished?", without starting other processes if it is.

    Args:
        config: As for `agree`.
        look: Returns True if nothing is left to do.
    """
    # On several nodes every node runs the command, and one of them may not see the run yet: they have to agree.
    if not processes_exist() and config.trainer.get("num_nodes", 1) == 1 and look():
        return True
    return agree(config, look)


def check_share(batch_size: int, world: int) -> None:
    """Check that a global batch can be split evenly among processes.

    Args:
        batch_size: Images of a global batch.
        world: Number of processes.

    Raises:
        ValueError: If it cannot; the message names both numbers.
    """
    if batch_size % world:
        raise ValueError(f"expected a batch size that {world} processes can share evenly, got {batch_size}")


def check_batch(config: Config) -> None:
    """Check before training that ``batch_size`` can be split evenly among the processes.

    Raises:
        RibError: If it cannot; the message names both numbers.
    """
    try:
        check_share(config.batch_size, launch_processes(config).world_size)
    except ValueError as error:
        raise RibError(f"batch_size: {error}") from error


def trainer_plugins() -> list[Any]:
    """Return plugins for Lightning's Trainer: under SLURM one that switches its automatic requeueing off."""
    # Lightning's signal handler saves in the middle of a step; a run resumed from there ends with other weights.
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def device_name(accelerator: str) -> str:
    """Return the kind of device that this process computes on: ``NVIDIA H100 80GB HBM3``, ``CPU (2 threads)``.

    The number of processes stands in front if there are several, ``4 x NVIDIA H100 80GB HBM3``.

    Args:
        accelerator: ``trainer.accelerator``: ``auto``, ``cpu``, ``gpu``.
    """
    import torch
    import torch.distributed as dist

    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    threads = torch.get_num_threads()
    name = f"CPU ({plural(threads, 'thread')})"
    if has_gpu(accelerator):
        name = torch.cuda.get_device_name()
    elif accelerator != "cpu" and torch.backends.mps.is_available():
        name = "Apple GPU"
    return name if world == 1 else f"{world} x {name}"


def has_gpu(accelerator: str) -> bool:
    """Return True if training will run on a CUDA GPU.

    Args:
        accelerator: ``trainer.accelerator``: ``auto``, ``cpu``, ``gpu``.
    """
    # Without the device file there is no GPU, and torch, which takes seconds to import, is not needed to know it.
    if accelerator == "cpu" or (sys.platform == "linux" and not Path("/dev/nvidiactl").exists()):
        return False
    import torch

    return torch.cuda.is_available()
