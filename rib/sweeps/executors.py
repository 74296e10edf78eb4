"""Who makes cells: processes of this machine, or jobs of a cluster; both are started, looked at, and stopped alike."""

from __future__ import annotations

import multiprocessing as mp
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rib.errors import RibError
from rib.runtime.memory import cores
from rib.runtime.processes import has_gpu
from rib.sweeps import cell

IMPORTED_ONCE = [
    "rib.pipeline",
    "rib.training.merge",
    "rib.data.datamodule",
    "rib.training.callbacks",
    "lightning.fabric",
    "timm",
]
"""Modules that the server has before cells are forked from it: on two cores they would cost more than a mini cell."""

SECONDS_TO_END = 30.0
"""What a cell has to end after it was told to, before it is killed."""


@dataclass(frozen=True)
class Worker:
    """One cell under way.

    Attributes:
        exit_code: Of its process; None while it runs, below zero the signal that killed it.
        end: Tell it to end.
        kill: End it.
    """

    exit_code: Callable[[], int | None]
    end: Callable[[], object]
    kill: Callable[[], object]


class Workers(Protocol):
    """Makes cells."""

    at_once: int

    def start(self, folder: Path) -> Worker:
        """Begin a cell; its folder has its config.yaml."""


class LocalExecutor:
    """Processes of this machine, one a cell, forked from a server that has imported torch once.

    A cell on several devices is a command of its own instead, since Lightning starts its other processes by it.

    Args:
        trainer: Of the grid's config: the kind and number of devices of a cell.
        jobs: Cells side by side; None: one a GPU, or as many as the cores have threads for.
        threads: CPU threads of a cell.

    Raises:
        RibError: If a number is below 1, or the machine has fewer GPUs than one cell takes.
    """

    def __init__(self, trainer: Mapping[str, Any], jobs: int | None, threads: int) -> None:
        self.threads = threads
        self.per_cell = int(trainer.get("devices", 1)) if str(trainer.get("devices", 1)).isdecimal() else 1
        self._free = _gpus() if has_gpu(str(trainer.get("accelerator", "auto"))) else None
        room = cores() // (threads * self.per_cell) if self._free is None else len(self._free) // self.per_cell
        if self._free is not None and room < 1:
            raise RibError(f"trainer.devices: a cell takes {self.per_cell} GPUs, this machine has {len(self._free)}")
        for name, value in (("jobs", jobs), ("threads", threads)):
            if value is not None and value < 1:
                raise RibError(f"{name}: expected 1 or more, got {value}")
        self.at_once = max(1, room) if jobs is None else jobs
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload(IMPORTED_ONCE)

    def start(self, folder: Path) -> Worker:
        """Begin a cell, on GPUs of its own where there are any."""
        devices = self._take()
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        if self.per_cell > 1:
            return self._command(folder, environment, devices)
        # No daemon: data loaders have processes of their own.
        process = self._context.Process(target=cell.work, args=(folder, self.threads, environment))
        process.start()
        return self._worker(lambda: process.exitcode, process, devices)

    def _command(self, folder: Path, environment: Mapping[str, str], devices: tuple[str, ...]) -> Worker:
        log = (folder / cell.LOG).open("ab")
        line = [sys.executable, "-m", "rib.sweeps.cell", str(folder)]
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        with log:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **threads, **environment}
            )
        return self._worker(process.poll, process, devices)

    def _worker(self, ended: Callable[[], int | None], process: Any, devices: tuple[str, ...]) -> Worker:
        """A process whose GPUs are free again when it has ended."""

        def exit_code() -> int | None:
            code = ended()
            if code is not None:
                self._give_back(devices)
            return code

        return Worker(exit_code, process.terminate, process.kill)

    def _take(self) -> tuple[str, ...]:
        if self._free is None:
            return ()
        taken = self._free[: self.per_cell]
        self._free = [device for device in self._free if device not in taken]
        return tuple(taken)

    def _give_back(self, devices: tuple[str, ...]) -> None:
        if self._free is not None:
            self._free = sorted({*self._free, *devices})


class SlurmExecutor:
    """Jobs of a cluster through submitit, with the resources that ``hydra/launcher`` names.

    A job that is preempted or out of time is queued again by submitit, and goes on from its last checkpoint.

    Args:
        launcher: Hydra's node: ``_target_`` tells the kind of cluster, the rest is submitit's.
        folder: Where submitit keeps what it sends.
        jobs: Cells queued at once; None: all that are ready.

    Raises:
        RibError: If submitit or its Hydra plugin is not installed.
    """

    def __init__(self, launcher: Mapping[str, Any], folder: Path, jobs: int | None) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise RibError("hydra/launcher needs submitit: pip install 'rib[slurm]'") from error
        self.at_once = jobs or 1000
        kind = "local" if "Local" in launcher["_target_"] else "slurm"
        settings = {k: v for k, v in launcher.items() if k not in ("_target_", "submitit_folder") and v is not None}
        timeouts = settings.pop("max_num_timeout", None)
        first = {f"{kind}_max_num_timeout": timeouts} if timeouts is not None else {}
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "%j", cluster=kind, **first)
        except RuntimeError as error:
            raise RibError(f"hydra/launcher: {error}; give the command on a login node of the cluster") from error
        shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
        shared |= {"stderr_to_stdout"}
        self._executor.update_parameters(**{k if k in shared else f"{kind}_{k}": v for k, v in settings.items()})

    def start(self, folder: Path) -> Worker:
        """Queue a cell."""
        job = self._executor.submit(CellJob(), str(folder.resolve()))

        def exit_code() -> int | None:
            if not job.done():
                return None
            failed = job.exception()
            if failed is not None:
                cell.record_failure(folder, str(failed).strip().splitlines()[-1])
                return 1
            return int(job.result())

        return Worker(exit_code, job.cancel, job.cancel)


class CellJob:
    """A cell as submitit sends it."""

    def __call__(self, folder: str) -> int:
        """Make the cell; its output is in the job's own log as well as named in failed.json."""
        return cell.attempt(Path(folder))

    def checkpoint(self, folder: str) -> Any:
        """What to queue again when the cluster takes the machine away: the same cell, which goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, folder)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
