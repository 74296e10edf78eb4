"""Make one cell (one run of a grid) in its own process: ``python -m rib.sweeps.cell FOLDER``, or forked.

A forked process comes from a server that has imported torch already.

The folder (``<store>/cells/<id>``) holds config.yaml, the run to make; log.txt, the output of all attempts;
progress.json while a process works on the cell; and failed.json if the last attempt failed.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, cast

from rib.errors import RibError
from rib.runs.metrics_file import read
from rib.runtime.files import write_atomically
from rib.schemas.files import Failure

CONFIG, LOG, PROGRESS, FAILED = "config.yaml", "log.txt", "progress.json", "failed.json"

LAST_LINES = 12
"""Number of log lines that the record of a failed cell keeps."""


def make_cell(folder: Path) -> None:
    """Make a cell's run, unless it is in the store already.

    Args:
        folder: The cell's, with its config.yaml.

    Raises:
        RibError: If the run cannot be made for a reason that the user can fix.
    """
    import rib.config
    from rib.pipeline import get_or_make
    from rib.runs.resolve import resolve
    from rib.runs.store import RunStore, TakenOverError
    from rib.runtime import progress
    from rib.runtime.console import rank, say

    config = rib.config.load_config(folder / CONFIG)
    progress.report_to(folder / PROGRESS)
    store = RunStore(config.paths.runs)
    spec = resolve(config)
    try:
        get_or_make(spec, store)
    except TakenOverError as error:
        # This process had stalled, so that another took its lock and makes the run: wait for that one's result.
        say(f"{error} (not needed here: this cell waits for it by itself)")
        get_or_make(spec, store)
    # An earlier attempt, or another grid, may have left its failure behind.
    if rank() == 0:
        (folder / PROGRESS).unlink(missing_ok=True)
        (folder / FAILED).unlink(missing_ok=True)


def run_cell(folder: Path, threads: int, environment: Mapping[str, str]) -> None:
    """Make a cell in this process, which was forked for it, and exit; output goes to log.txt, a failure to failed.json.

    Args:
        folder: The cell's.
        threads: Number of CPU threads.
        environment: Variables to set first, such as the GPU to use.
    """
    log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    # The descriptors and not sys.stdout: C libraries and child processes write to them as well.
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= environment
    # Ctrl-C reaches all processes of the terminal. The grid handles it and ends its cells in an orderly way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _exit_with_grid()
    # In a process of a fork server this is "forkserver": the loaders' processes would come from another server, without
    # imports, and each would import torch, which takes 2 s. Loaders of a cell start like those of a command.
    multiprocessing.set_start_method(None, force=True)
    import torch

    torch.set_num_threads(threads)
    sys.exit(attempt(folder))


def attempt(folder: Path) -> int:
    """Make a cell's run and return the exit code; a failure is recorded in failed.json."""
    try:
        make_cell(folder)
    except RibError as error:
        print(f"rib: {error}", file=sys.stderr, flush=True)
        record_failure(folder, str(error))
    except Exception as error:
        traceback.print_exc()
        record_failure(folder, f"{type(error).__name__}: {' '.join(str(error).split())}")
    else:
        return 0
    return 1


def record_failure(folder: Path, error: str) -> None:
    """Write failed.json: the reason why a cell failed, and the last lines of its log."""
    sys.stderr.flush()
    log = folder / LOG
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    failed: Failure = {"error": error, "last_lines": lines}
    with contextlib.suppress(RibError):  # the disk is full, which the log says already
        write_atomically(folder / FAILED, json.dumps(failed, indent=1).encode())


def explain_exit(code: int) -> str:
    """Return a phrase that explains the exit code of a cell's process that recorded no reason for its failure."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), by the system because memory ran out, or by hand"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} and no result"


def failure(folder: Path) -> Failure | None:
    """Return the record of a cell's last failure (error and log lines); None if its last attempt did not fail."""
    try:
        return cast("Failure", read(folder / FAILED))
    except FileNotFoundError:
        return None
    except RibError as error:
        return {"error": str(error), "last_lines": []}


def _exit_with_grid() -> None:
    """Start a thread that exits this process when the grid's process or the server it was forked from is killed.

    Nothing is lost: repeating the grid's command resumes the cell from its last checkpoint.
    """
    grid, server = parent_process(), os.getppid()
    if grid is not None:
        sentinels: Sequence[Any] = [grid.sentinel]

        def wait() -> None:
            # The sentinel tells of the grid; a changed parent tells of the server, whose children are then adopted.
            while not connection.wait(sentinels, timeout=1.0) and os.getppid() == server:
                pass
            os._exit(1)  # sys.exit would only end this thread

        threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(attempt(Path(sys.argv[1])))
