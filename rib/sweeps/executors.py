"""Executors that run a grid's cells (its single runs) as processes of this machine or as jobs of a SLURM cluster."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Protocol

from rib.errors import RibError
from rib.runtime.memory import cores
from rib.runtime.processes import has_gpu
from rib.sweeps import cell

IMPORTED_ONCE = ["rib.sweeps.preload"]
"""Modules that the server imports before it forks cells; on two cores their import costs more than a mini cell."""

SECONDS_TO_END = 30.0
"""Seconds that a cell may take to end after it was asked to, before it is killed."""


def cell_processes() -> ForkServerContext:
    """Return the context whose processes are forked from a server with the imports of a cell."""
    # A plain fork would copy the locks of this process's threads and its CUDA state; a spawned process would import
    # torch again for each cell.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    return context


def start_guarded(process: ForkServerProcess) -> None:
    """Start a process of `cell_processes`; Ctrl-C meanwhile ends this process and not the server."""
    # The fork server inherits that Ctrl-C is ignored: amid its imports it would print a traceback. Only its start is
    # guarded, since `Process.start` waits for these imports, and Ctrl-C must end the grid meanwhile.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)
    process.start()


@dataclass(frozen=True)
class Worker:
    """Handle of one running cell.

    Attributes:
        exit_code: Returns the exit code of its process: None while it runs, minus the signal's number if one killed it.
        end: Asks the process to end.
        kill: Ends the process at once.
    """

    exit_code: Callable[[], int | None]
    end: Callable[[], object]
    kill: Callable[[], object]


class Executor(Protocol):
    """Interface of an executor, which runs cells.

    Attributes:
        at_once: Largest number of cells that it runs at the same time.
        kind: Name for what a cell's start-up time depends on: ``fork``, ``command`` or ``cluster``.
    """

    at_once: int
    kind: str

    def start(self, folder: Path) -> Worker:
        """Start the cell whose config.yaml is in a folder."""


class LocalExecutor:
    """Executor that runs each cell in a process of this machine, forked from a server that has imported torch.

    A cell on several devices is run as a command instead, because Lightning repeats the command to start its other
    processes.

    Args:
        trainer: The grid's config section ``trainer``: accelerator and number of devices of each cell.
        jobs: Number of cells to run in parallel; None for one per GPU, or for as many as there are CPU cores for.
        threads: Number of CPU threads per cell.

    Raises:
        RibError: If a number is below 1, or the machine has fewer GPUs than one cell needs.
    """

    def __init__(self, trainer: Mapping[str, Any], jobs: int | None, threads: int) -> None:
        self.threads = threads
        self.per_cell = int(trainer.get("devices", 1)) if str(trainer.get("devices", 1)).isdecimal() else 1
        self.kind = "command" if self.per_cell > 1 else "fork"
        self._free = _gpus() if has_gpu(str(trainer.get("accelerator", "auto"))) else None
        room = cores() // (threads * self.per_cell) if self._free is None else len(self._free) // self.per_cell
        if self._free is not None and room < 1:
            raise RibError(
                f"trainer.devices: a cell needs {self.per_cell} GPUs, this machine has {len(self._free)}; give fewer"
            )
        for name, value in (("jobs", jobs), ("threads", threads)):
            if value is not None and value < 1:
                raise RibError(f"{name}: expected 1 or more, got {value}")
        self.at_once = max(1, room) if jobs is None else jobs
        self._context = cell_processes()

    def start(self, folder: Path) -> Worker:
        """Start a cell, on GPUs of its own if there are any."""
        devices = self._take_devices()
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        if self.per_cell > 1:
            return self._start_command(folder, environment, devices)
        # Not a daemon: daemons may have no children, and data loaders start processes.
        process = self._context.Process(target=cell.run_cell, args=(folder, self.threads, environment))
        start_guarded(process)
        return self._make_worker(lambda: process.exitcode, process, devices)

    def _start_command(self, folder: Path, environment: Mapping[str, str], devices: tuple[str, ...]) -> Worker:
        """Start a cell (a run of the grid) as a command, with its output in the cell's log, and return its handle."""
        log = (folder / cell.LOG).open("ab")
        command = [sys.executable, "-m", "rib.sweeps.cell", str(folder)]
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        with log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **threads, **environment}
            )
        return self._make_worker(process.poll, process, devices)

    def _make_worker(self, poll: Callable[[], int | None], process: Any, devices: tuple[str, ...]) -> Worker:
        """Return the handle of a process; polling it frees the process's GPUs once it has ended."""

        def exit_code() -> int | None:
            code = poll()
            if code is not None:
                self._free_devices(devices)
            return code

        return Worker(exit_code, process.terminate, process.kill)

    def _take_devices(self) -> tuple[str, ...]:
        if self._free is None:
            return ()
        devices = self._free[: self.per_cell]
        self._free = [device for device in self._free if device not in devices]
        return tuple(devices)

    def _free_devices(self, devices: tuple[str, ...]) -> None:
        if self._free is not None:
            self._free = sorted({*self._free, *devices})


class SlurmExecutor:
    """Executor that runs each cell as a cluster job through submitit, with the resources of ``hydra/launcher``.

    Submitit queues a job again when it is preempted or reaches its time limit; it then resumes from its last
    checkpoint.

    Args:
        launcher: Hydra's config ``hydra/launcher``: ``_target_`` gives the kind of cluster, the rest goes to submitit.
        folder: Folder for submitit's files.
        jobs: Largest number of jobs in the queue; None for 1000.

    Raises:
        RibError: If submitit is not installed, or the machine is not part of a cluster.
    """

    def __init__(self, launcher: Mapping[str, Any], folder: Path, jobs: int | None) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise RibError("hydra/launcher needs submitit: pip install 'rib[slurm]'") from error
        self.at_once, self.kind = jobs or 1000, "cluster"
        kind = "local" if "Local" in launcher["_target_"] else "slurm"
        settings = {k: v for k, v in launcher.items() if k not in ("_target_", "submitit_folder") and v is not None}
        timeouts = settings.pop("max_num_timeout", None)
        # Submitit takes this parameter in the constructor, and all others in update_parameters.
        first = {f"{kind}_max_num_timeout": timeouts} if timeouts is not None else {}
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "%j", cluster=kind, **first)
        except RuntimeError as error:
            raise RibError(f"hydra/launcher: {error}; run the command on a login node of the cluster") from error
        # These names are submitit's own for every kind of cluster; any other parameter needs the kind as its prefix.
        shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
        shared |= {"stderr_to_stdout"}
        self._executor.update_parameters(**{k if k in shared else f"{kind}_{k}": v for k, v in settings.items()})

    def start(self, folder: Path) -> Worker:
        """Put a cell into the cluster's queue."""
        job = self._executor.submit(CellJob(), str(folder.resolve()))

        def exit_code() -> int | None:
            if not job.done():
                return None
            error = job.exception()
            if error is not None:
                cell.record_failure(folder, str(error).strip().splitlines()[-1])
                return 1
            return int(job.result())

        return Worker(exit_code, job.cancel, job.cancel)


class CellJob:
    """Callable that submitit pickles and runs for a cell; submitit calls `checkpoint` on preemption."""

    def __call__(self, folder: str) -> int:
        """Make the cell and return its exit code; the output goes to submitit's log."""
        return cell.attempt(Path(folder))

    def checkpoint(self, folder: str) -> Any:
        """Return the job to queue when this one is preempted: the same cell, which resumes from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, folder)


def _gpus() -> list[str]:
    """List the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    # A cluster or the user may have assigned some of the machine's GPUs; the others are not ours to use.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
