"""Output and progress of a sweep's job that runs in a process of its own: on a cluster, or as a worker of joblib."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from rib.runtime.progress import report_to
from rib.sweeps.jobs_view import log_file, progress_file

SWEEP = "RIB_SWEEP"
"""Environment variable that tells a sweep's jobs the process of its command, and the stderr of that."""

_redirected: list[Path] = []
"""Log files that this process has written its output to."""


def begin_sweep() -> None:
    """Let the processes of this sweep's jobs, which inherit the environment, know this process."""
    os.environ[SWEEP] = f"{_this_process()} {_stderr()}"


def in_sweeps_process() -> bool:
    """Return True if this job runs in the process of the sweep's command itself."""
    return os.environ.get(SWEEP, "").partition(" ")[0] == _this_process()


def report_elsewhere(file: Path) -> None:
    """In a job's own process, report progress to a file; if it shares the sweep's stderr, write output to a log too."""
    if in_sweeps_process():
        return
    sweep, number = file.parent, int(file.name.split(".")[1])
    report_to(progress_file(sweep, number))
    log = log_file(sweep, number)
    # Processes of joblib make one job after another: from the second on, stderr is the log of the one before.
    if os.environ.get(SWEEP, "").partition(" ")[2] != _stderr() and not _redirected:
        return
    _redirected.append(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _stderr() -> str:
    """Identify the file, pipe or terminal behind stderr."""
    try:
        status = os.fstat(2)
    except OSError:  # closed
        return ""
    return f"{status.st_dev}:{status.st_ino}"
