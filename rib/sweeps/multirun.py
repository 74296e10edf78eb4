"""Hydra multiruns (``-m``): what became of each job, one table of all, and jobs of several processes.

Each job writes ``SWEEP/job.<n>.json`` as it starts and as it ends, in whatever process and on whatever machine its
launcher runs it. The command that began the sweep reads them at the end, so that every failed job has its sentence
(Hydra raises the first job's error and leaves the others unsaid).

A job whose Trainer starts processes is a command of its own. Lightning starts the other ranks by giving the command
again, which would be the whole sweep; and where one rank dies it kills the first with -9, which would be the sweep.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from rib.config.launch import Stop
from rib.config.schema import Config
from rib.errors import RibError
from rib.reporting.formatting import with_interval
from rib.runs.metrics_file import MetricsKey, read, write
from rib.runs.run import Run
from rib.runs.spec import suite_label
from rib.runtime.console import rank, say
from rib.runtime.processes import processes_exist, several_processes
from rib.schemas.files import Job

RECORD = "RIB_JOB_RECORD"
"""Tells a job's own process where its record goes."""


class Jobs(Callback):
    """Shows all jobs of a sweep at its end, and ends with exit code 1 if one failed (``conf/train.yaml``)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """See to it that the jobs are shown even if the launcher fails or the user interrupts.

        Raises:
            SystemExit: If they are to go to SLURM, and there is none.
        """
        if "SlurmLauncher" in config.hydra.launcher["_target_"] and shutil.which("srun") is None:
            sys.exit(
                "rib: hydra/launcher: expected SLURM's srun on this machine, found none; give the command on a login "
                "node, or say hydra/launcher=submitit_local"
            )
        self._show = functools.partial(_show, Path(config.hydra.sweep.dir))
        if rank() == 0:
            atexit.register(self._show)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Show the jobs.

        Raises:
            SystemExit: If one failed.
        """
        if rank() > 0:
            return
        atexit.unregister(self._show)
        jobs = _records(Path(config.hydra.sweep.dir))
        failed = sum("folder" not in job for job in jobs)
        try:
            self._show()
        finally:  # Hydra turns whatever else leaves a callback into a warning
            if failed:
                sys.exit(f"rib: {failed} of {len(jobs)} jobs failed; the same command tries them again")


def record_job(task: Callable[[DictConfig], Run]) -> Callable[[DictConfig], None]:
    """Keep what becomes of a job of a sweep; an error ends the job and not the sweep."""

    @functools.wraps(task)
    def run(cfg: DictConfig) -> None:
        file, in_sweep = _record_file(), in_multirun()
        if file is None:
            task(cfg)
            return
        facts = _facts(cfg)
        write(file, facts)
        try:
            made = task(cfg)
        except (Exception, Stop) as error:
            write(file, {**facts, "error": _sentence(error)})
            if not in_sweep:
                raise
            if not isinstance(error, RibError):
                traceback.print_exc()
            say(f"rib: job {HydraConfig.get().job.num} failed: {_sentence(error)}")
        except SystemExit as stop:
            _requeue(stop)
            raise
        else:
            write(file, _outcome(made, cfg))

    return run


def in_multirun() -> bool:
    """Whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def needs_own_process(config: Config) -> bool:
    """Whether this is a job of a sweep whose Trainer would start processes."""
    return in_multirun() and several_processes(config) and not processes_exist()


def in_own_process() -> Run:
    """Give this job to ``python -m rib.train`` without ``-m``, and wait.

    Raises:
        RibError: If it failed, with its sentence, or was killed.
    """
    file = _record_file()
    assert file is not None, "a job of a sweep has a record"
    hydra = HydraConfig.get()
    command = [sys.executable, "-m", "rib.train", *_arguments(), *hydra.overrides.task]
    environment = {**os.environ, RECORD: str(file.resolve())}
    with subprocess.Popen(command, env=environment, cwd=hydra.runtime.cwd, start_new_session=True) as child:
        try:
            code = child.wait()
        except BaseException:
            _stop(child)
            raise
    job = _record(file)
    if "folder" in job:
        return Run(Path(job["folder"]))
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
    raise RibError(job.get("error") or f"its process {how}; what it said last is above")


def _records(sweep: Path) -> list[Job]:
    """What became of a sweep's jobs, in order."""
    files = [file for file in sweep.glob("job.*.json") if file.name.split(".")[1].isdecimal()]
    return [_record(file) for file in sorted(files, key=lambda file: int(file.name.split(".")[1]))]


def _record(file: Path) -> Job:
    """What a job wrote of itself; one whose record is damaged has failed, and says so."""
    try:
        return cast("Job", read(file))
    except (FileNotFoundError, RibError):
        facts: Job = {"overrides": "", "model": "", "source": "", "method": "", "seed": None}
        return {**facts, "error": f"{file} is damaged"}


def _show(sweep: Path) -> None:
    """Print one table of a sweep's jobs; in a file a row is a line, however long."""
    if jobs := _records(sweep):
        # Brackets are part of overrides and of messages, and no markup.
        console = Console(width=None if Console().is_terminal else 2000, markup=False, emoji=False)
        console.print(_table(jobs, sweep))


def _table(jobs: Sequence[Job], sweep: Path) -> Table:
    """One row a job; of the overrides, those that not all share."""
    shared = set.intersection(*({*job["overrides"].split()} for job in jobs))
    table = Table(title=f"{len(jobs)} jobs of {sweep.resolve()}", title_justify="left")
    for column in ("job", "model", "source", "method", "seed", "overrides", "RI in points [95 %, images only]"):
        table.add_column(column)
    table.add_column("folder, or what failed", overflow="fold")
    for number, job in enumerate(jobs):
        improvement = job.get("robustness_improvement")
        unfinished = f"it began and left no result: it was killed, or still runs; see {sweep / '.submitit'}"
        table.add_row(
            str(number),
            *(job["model"], job["source"], job["method"], "" if job["seed"] is None else str(job["seed"])),
            " ".join(o for o in job["overrides"].split() if o not in shared),
            with_interval(improvement) if improvement else "",
            job.get("folder") or job.get("error") or unfinished,
        )
    return table


def _record_file() -> Path | None:
    """Where this job's record goes; None for a run that is no job of a sweep, and on ranks above zero."""
    if rank() > 0:
        return None
    if RECORD in os.environ:
        return Path(os.environ[RECORD])
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir) / f"job.{hydra.job.num}.json" if in_multirun() else None


def _facts(cfg: DictConfig) -> Job:
    return {
        "overrides": " ".join(HydraConfig.get().overrides.task),
        "model": cfg.model.name,
        "source": cfg.dataset.name,
        "method": "+".join(cfg.method) or "finetune",
        "seed": cfg.seed,
    }


def _outcome(run: Run, cfg: DictConfig) -> Job:
    targets, reported = sorted(cfg.suite.targets), sorted(cfg.suite.reported)
    metrics = run.metrics(MetricsKey(suite_label(cfg.suite), targets, reported, cfg.experiment, scores=None))
    assert metrics is not None, "a job that ended well has scored its suite"
    return {
        "overrides": " ".join(HydraConfig.get().overrides.task),
        "model": metrics["model"],
        "source": metrics["source"],
        "method": metrics["method"],
        "seed": metrics["seed"],
        "robustness_improvement": metrics["robustness_improvement"],
        "folder": str(run.folder.resolve()),
    }


def _sentence(error: BaseException) -> str:
    """What failed; an error that is no user's mistake is named, and its traceback stands in the log."""
    error = (error.__cause__ or error) if isinstance(error, Stop) else error
    text = " ".join(str(error).split())
    return text if isinstance(error, RibError) else f"{type(error).__name__}: {text} (traceback in the log)"


def _arguments() -> list[str]:
    """What a job's command needs beside its overrides: where configs are found."""
    hydra = HydraConfig.get()
    folders = [f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return [*folders, *(o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath="))]


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a job's processes: asked first, then made to; last.ckpt is what they go on from."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)


def _requeue(stop: SystemExit) -> None:
    """Under submitit, SIGTERM (what SLURM sends first) means the same as its own signal: back into the queue.

    Lightning ends the fit at SIGTERM, whereas submitit waits for the signal that comes next, which would be too late.
    """
    if type(stop).__name__ == "SIGTERMException" and "SUBMITIT_EXECUTOR" in os.environ:
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        signal.raise_signal(signal.Signals[f"SIG{name}"])
