"""Display of a running sweep: its progress, and one line for each job that has ended, in whatever process it ran.

A job writes ``SWEEP/job.<n>.json`` when it starts and when it ends. A job in a process of its own also writes
``SWEEP/jobs/<n>/progress.json``; the command that began the sweep reads both.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from rib.errors import RibError
from rib.reporting.formatting import duration, with_interval
from rib.runs.metrics_file import read
from rib.runtime.console import say
from rib.runtime.progress import progress, shows_parts
from rib.runtime.tasks import clock, describe
from rib.schemas.files import Job, ProgressInfo
from rib.sweeps.time_left import JobsLeft

SECONDS_BETWEEN_LOOKS = 0.5

SHOWN = {"model": "model", "method": "method", "dataset": "dataset", "dataset.name": "dataset", "seed": "seed"}
"""Overrides that have a place of their own in a job's line, with the name of this place."""


class JobsView:
    """Progress of a sweep on stderr: ``[3/12] mini_small, ewc on imagenet_r, seed 0: RI -2.83 [...], 8.8 s``.

    Args:
        sweep: The sweep's folder.
        total: Number of its jobs; 0 if unknown.
        swept: Names of the options that differ between jobs.
    """

    def __init__(self, sweep: Path, total: int, swept: Collection[str]) -> None:
        self.sweep, self.total, self.swept = sweep, total, swept
        self._ended: set[int] = set()
        self._left = JobsLeft(total)
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def start(self) -> None:
        """Begin to show the progress."""
        self._advance = self._stack.enter_context(
            progress("sweep", self.total, "jobs", overall=True, details=self._describe_running, left=self._left.seconds)
        )
        self._thread.start()

    def close(self) -> None:
        """Show the jobs that have ended since the last look, and end the display."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._look()
            self._stack.close()

    def _keep_looking(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        """Print a line for each job that has ended since the last look."""
        for number, file in sorted(records_of(self.sweep).items()):
            job = record(file)
            if number not in self._ended and job is not None and ("folder" in job or "error" in job):
                self._ended.add(number)
                self._left.end(job)
                self._advance(1, "")
                count = f"{len(self._ended)}/{self.total}" if self.total else str(len(self._ended))
                left = self._left.seconds()
                about = f"; about {clock(max(1.0, left))} left" if left is not None else ""
                say(f"[{count}] {self._label(job)}: {_result(job)}{about}")

    def _label(self, job: Job) -> str:
        """Name a job by what the sweep varies: ``ewc on imagenet_r, optimizer.lr=0.01``; by all, if that is unknown."""
        swept = {SHOWN.get(name, name) for name in self.swept}
        varied = {name for name in SHOWN.values() if name in swept or not swept}
        source = job["source"] if "dataset" in varied and job["source"] != "none" else ""
        on = f"{job['method'] if 'method' in varied else ''} on {source}".strip() if source else ""
        parts = [
            job["model"] if "model" in varied else "",
            on or (job["method"] if "method" in varied else ""),
            f"seed {job['seed']}" if "seed" in varied and job["seed"] is not None else "",
            *other_overrides(job, self.swept),
        ]
        return ", ".join(filter(None, parts))

    def _describe_running(self) -> list[str]:
        """Describe what each job is doing that runs in a process of its own, or in this one and shows nothing yet."""
        lines = []
        for number, file in sorted(records_of(self.sweep).items()):
            if number in self._ended or (job := record(file)) is None:
                continue
            try:
                doing = describe(cast("ProgressInfo", read(progress_file(self.sweep, number))))
            except (RibError, OSError):  # no progress yet, or a job in this process, which shows its own
                if shows_parts():
                    continue
                doing = "starting"
            lines.append(f"{self._label(job)}: {doing}")
        return lines


def other_overrides(job: Job, names: Collection[str] | None = None) -> list[str]:
    """Return a job's overrides besides model, method, source and seed, which have a place of their own.

    Args:
        job: The job.
        names: Options to return; None for all.
    """
    given = [(o, o.lstrip("+").partition("=")[0]) for o in job["overrides"].split()]
    return [o for o, name in given if name not in SHOWN and (not names or name in names)]


def records_of(sweep: Path) -> dict[int, Path]:
    """Return the record files of a sweep's jobs by job number."""
    files = ((file.name.split(".")[1], file) for file in sweep.glob("job.*.json"))
    return {int(number): file for number, file in files if number.isdecimal()}


def record(file: Path) -> Job | None:
    """Read a job's record; None if it is missing or damaged."""
    try:
        return cast("Job", read(file))
    except (FileNotFoundError, RibError):
        return None


def progress_file(sweep: Path, number: int) -> Path:
    """Return the file in which a job in a process of its own reports its progress."""
    return sweep / "jobs" / str(number) / "progress.json"


def log_file(sweep: Path, number: int) -> Path:
    """Return the file for the output of a job in a process of its own."""
    return sweep / "jobs" / str(number) / "log.txt"


def _result(job: Job) -> str:
    """Describe how a job ended: its RI and seconds, or its error."""
    if "folder" not in job:
        return f"failed: {job.get('error')}"
    improvement, seconds = job.get("robustness_improvement"), job.get("seconds")
    value = f"RI {with_interval(improvement)}" if improvement else "scored"
    if seconds is None:
        return value
    return f"{value}, {duration(seconds)}{' (in the store)' if job.get('in_store') else ''}"
