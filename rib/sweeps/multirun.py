"""Hydra multiruns (``-m``): a record of each job, one table of all jobs, and jobs that use several processes.

Each job writes ``SWEEP/job.<n>.json`` when it starts and when it ends, in any process and on any machine. The command
that began the sweep reads these files at the end, so that every failed job is shown with its reason (Hydra raises only
the first job's error).

A job whose Trainer starts processes is run as a command of its own. Lightning starts the other ranks by repeating the
command, which would be the whole sweep; and when a rank dies, it kills the first process with SIGKILL, which would be
the sweep's.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rib.config.conf_comments import options_of
from rib.config.launch import Stop, is_interrupt
from rib.config.schema import Config, data_root
from rib.data.worlds import kind_of
from rib.errors import RibError
from rib.reporting.formatting import cost_of
from rib.runs.metrics_file import MetricsKey, write
from rib.runs.run import Run
from rib.runs.spec import suite_label
from rib.runtime.console import be_brief, rank, say
from rib.runtime.counting import plural
from rib.runtime.processes import processes_exist, several_processes
from rib.runtime.tasks import describe_interrupt
from rib.schemas.files import Job
from rib.sweeps.job_process import begin_sweep, in_sweeps_process, report_elsewhere
from rib.sweeps.jobs_table import read_jobs, show_jobs
from rib.sweeps.jobs_view import JobsView, log_file, record

RECORD = "RIB_JOB_RECORD"
"""Environment variable that gives a job's own process the file of its record."""


class Jobs(Callback):
    """Hydra callback that prints a table of all jobs, and exits with code 1 if one failed (``conf/train.yaml``)."""

    def __reduce__(self) -> tuple[type[Jobs], tuple[()]]:
        """Pickle without attributes: launchers send this object to the processes of jobs, which show nothing."""
        return Jobs, ()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Begin to show the jobs.

        Raises:
            SystemExit: If the launcher is SLURM's and this machine has no ``srun``.
        """
        if "SlurmLauncher" in config.hydra.launcher["_target_"] and shutil.which("srun") is None:
            sys.exit(
                "rib: hydra/launcher: expected SLURM's srun on this machine, found none; run the command on a login "
                "node, or use hydra/launcher=submitit_local"
            )
        if rank() > 0:
            return
        sweep = Path(config.hydra.sweep.dir)
        counts = _count_values(config)
        view = JobsView(sweep, prod(counts.values()), {name for name, count in counts.items() if count > 1})
        begin_sweep()
        be_brief()
        view.start()
        _views.append(view)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table of the jobs.

        Raises:
            SystemExit: If a job failed.
        """
        if rank() > 0:
            return
        jobs = read_jobs(Path(config.hydra.sweep.dir))
        failed = sum("folder" not in job for job in jobs)
        try:
            _show()
        finally:  # SystemExit, since Hydra turns any other exception of a callback into a warning
            if failed:
                sys.exit(f"rib: {failed} of {plural(len(jobs), 'job')} failed; {_advise(jobs)}")


def _advise(jobs: Sequence[Job]) -> str:
    """Say what to do about failed jobs: the same command cannot mend an error that names an option first."""
    options = options_of("train")
    errors = [job.get("error", "") for job in jobs if "folder" not in job]
    of_option = [error for error in errors if re.split(r"[=:] ?", error.lstrip("+"))[0] in options]
    if not of_option:
        return "run the same command to retry " + ("it" if len(errors) == 1 else "them")
    mend = "mend the option that its message names" if len(errors) == 1 else "mend the options that the messages name"
    return mend if len(of_option) == len(errors) else f"{mend}, and run the command to retry the others"


_views: list[JobsView] = []
"""Display of the sweep that this process runs, until its table is printed."""


def _show(interrupted: bool = False) -> None:
    """End the display, and print the table of all jobs that have begun."""
    view = _views.pop()
    view.close()
    show_jobs(view.sweep, view.total, interrupted)


def show_jobs_after(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a Hydra main function so that a sweep ends with its table even if its launcher fails or the user interrupts.

    Args:
        main: Function decorated with ``hydra.main``.

    Returns:
        The function to give to `launch`. An interrupt of a sweep says how many jobs are done.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except BaseException as stop:
            if not _views:
                raise
            view, interrupted = _views[-1], is_interrupt(stop)
            _show(interrupted)
            if not interrupted:
                raise
            jobs = read_jobs(view.sweep)
            done, failed = (sum(end in job for job in jobs) for end in ("folder", "error"))
            words = describe_interrupt("jobs", view.total, done, failed, len(jobs) - done - failed)
            raise KeyboardInterrupt(words) from None

    return run


def record_job(task: Callable[[DictConfig], Run]) -> Callable[[DictConfig], None]:
    """Wrap a job so that its outcome is recorded, and an error ends the job but not the sweep.

    Args:
        task: Makes the run of a config. Outside a sweep it is called without a record.

    Returns:
        The function to give to Hydra.
    """

    @functools.wraps(task)
    def run(cfg: DictConfig) -> None:
        file, in_sweep = _record_file(), in_multirun()
        if file is None:
            task(cfg)
            return
        job, begun = _describe_job(cfg), time.time()
        write(file, job)
        report_elsewhere(file)
        try:
            result = task(cfg)
        except (Exception, Stop) as error:
            write(file, {**job, "error": _describe_error(error)})
            if not in_sweep:
                raise
            if not isinstance(error, RibError):
                traceback.print_exc()
            if not in_sweeps_process():  # the log of a job's own process; the sweep's command says it by itself
                say(f"rib: job {HydraConfig.get().job.num + 1} failed: {_describe_error(error)}")
        except SystemExit as stop:
            _requeue(stop)
            raise
        else:
            write(file, _describe_result(result, cfg, begun))

    return run


def in_multirun() -> bool:
    """Return True if this process runs a job of a Hydra multirun."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def is_job() -> bool:
    """Return True if this process runs a job of a Hydra multirun, or was started for one."""
    return in_multirun() or RECORD in os.environ


def print_folder(run: Run) -> None:
    """Print a run's folder to stdout, for other programs; in a sweep not to a terminal, where a table shows it."""
    if not is_job() or not sys.stdout.isatty():
        print(run.folder.resolve())


def needs_own_process(config: Config) -> bool:
    """Return True if this is a job of a Hydra multirun whose Trainer would start further processes."""
    return in_multirun() and several_processes(config) and not processes_exist()


def run_in_own_process() -> Run:
    """Run this job as ``python -m rib.train`` without ``-m``, and wait for it.

    Returns:
        The finished run.

    Raises:
        RibError: If the job failed, with its message, or was killed.
    """
    file = _record_file()
    assert file is not None, "a job of a sweep has a record"
    hydra = HydraConfig.get()
    command = [sys.executable, "-m", "rib.train", *_arguments(), *hydra.overrides.task]
    environment = {**os.environ, RECORD: str(file.resolve())}
    log = log_file(Path(hydra.sweep.dir), hydra.job.num)
    log.parent.mkdir(parents=True, exist_ok=True)
    # A session of its own, so that `_stop` can signal the job with all its ranks at once.
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, env=environment, cwd=hydra.runtime.cwd, stdout=output, stderr=output, start_new_session=True
        ) as child,
    ):
        try:
            code = child.wait()
        except BaseException:  # Ctrl-C and SIGTERM too: ranks without a parent would train on
            _stop(child)
            raise
    job: Job | dict[str, str] = record(file) or {}
    if "folder" in job:
        return Run(Path(job["folder"]))
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
    raise RibError(job.get("error") or f"its process {how}; its output is in {log}")


def _record_file() -> Path | None:
    """Return the file of this job's record; None for a run outside a sweep, and on ranks above zero."""
    if rank() > 0:
        return None
    if RECORD in os.environ:
        return Path(os.environ[RECORD])
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir) / f"job.{hydra.job.num}.json" if in_multirun() else None


def _describe_job(cfg: DictConfig) -> Job:
    """Return the record of a job that has just started, before its config is checked: a value may be of any type."""

    def value(name: str) -> Any:
        try:
            return OmegaConf.select(cfg, name)
        except OmegaConfBaseException:  # an interpolation that leads nowhere
            return None

    seed, methods = value("seed"), value("method")
    return {
        "overrides": " ".join(HydraConfig.get().overrides.task),
        "kind": kind_of(data_root(value("data.root")), value("data.suite")),
        "model": str(value("model.name")),
        "source": str(value("dataset.name")),
        "method": ("+".join(map(str, methods)) if isinstance(methods, DictConfig) else "") or "finetune",
        "seed": seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
    }


def _describe_result(run: Run, cfg: DictConfig, begun: float) -> Job:
    """Return the record of a job that has finished its run, after it began at a time of this machine's clock."""
    # A reference trains the probe alone: `rib.runs.heads` has taken it out of the run's suite.
    targets, reported = (sorted({*names} - {cfg.head.reference}) for names in (cfg.suite.targets, cfg.suite.reported))
    metrics = run.metrics(MetricsKey(suite_label(cfg.suite), targets, reported, cfg.experiment, scores=None))
    assert metrics is not None, "a job that succeeded has scored its suite"
    return {
        "overrides": " ".join(HydraConfig.get().overrides.task),
        "kind": metrics["data"]["kind"],
        "model": metrics["model"],
        "source": metrics["source"],
        "method": metrics["method"],
        "seed": metrics["seed"],
        "robustness_improvement": metrics["robustness_improvement"],
        "folder": str(run.folder.resolve()),
        "seconds": metrics["seconds"]["fit"] + metrics["seconds"]["evaluate"],
        "cost": cost_of(metrics),
        "in_store": max(file.stat().st_mtime for file in run.metrics_files()) < begun,
    }


def _describe_error(error: BaseException) -> str:
    """Describe an error in one line; for an unexpected error, with its type and where the traceback is."""
    error = (error.__cause__ or error) if isinstance(error, Stop) else error
    text = " ".join(str(error).split())
    return text if isinstance(error, RibError) else f"{type(error).__name__}: {text} (traceback in the log)"


def _count_values(config: DictConfig) -> dict[str, int]:
    """Count the values that a sweep gives each option; empty if Hydra's sweeper is one that makes its own jobs."""
    sweeper = config.hydra.sweeper
    if not sweeper["_target_"].endswith("BasicSweeper"):
        return {}
    given = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task])
    return {
        o.get_key_element().lstrip("+~"): len(list(o.sweep_string_iterator())) if o.is_discrete_sweep() else 1
        for o in overrides
    }


def _arguments() -> list[str]:
    """Return the command-line arguments that say where configs are (``--config-dir``, ``hydra.searchpath``).

    A process of a job's own needs them, and Hydra does not count them among the job's overrides.
    """
    hydra = HydraConfig.get()
    folders = [f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return [*folders, *(o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath="))]


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a job's processes, with SIGTERM first and SIGKILL 10 s later; they can resume from last.ckpt."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)


def _requeue(stop: SystemExit) -> None:
    """Put a job that SLURM ends with SIGTERM back into the queue, by sending this process submitit's own signal.

    Lightning ends the fit at SIGTERM, which SLURM sends first. Submitit waits for the signal that comes next, when the
    process is gone already.
    """
    if type(stop).__name__ == "SIGTERMException" and "SUBMITIT_EXECUTOR" in os.environ:
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        signal.raise_signal(signal.Signals[f"SIG{name}"])
