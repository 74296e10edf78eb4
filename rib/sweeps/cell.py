"""One cell of a grid in a process of its own: ``python -m rib.sweeps.cell FOLDER``, or forked from a warm server.

The folder (``<store>/cells/<id>``) holds config.yaml, the question; log.txt, all that the processes that tried it have
said; progress.json while one is at it; and failed.json if the last one failed.
"""

from __future__ import annotations

import contextlib
import json
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
"""How much of its log a failed cell's record holds."""


def answer_cell(folder: Path) -> None:
    """Make a cell's run, or find it made; who makes it says so in the log.

    Raises:
        RibError: For whatever the user can mend.
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
        say(f"{error}; waiting for it")
        get_or_make(spec, store)
    if rank() == 0:
        (folder / PROGRESS).unlink(missing_ok=True)
        (folder / FAILED).unlink(missing_ok=True)


def work(folder: Path, threads: int, environment: Mapping[str, str]) -> None:
    """What a forked process does: `answer_cell` with its output in the log and its failure in failed.json.

    Args:
        folder: The cell's.
        threads: CPU threads to compute with.
        environment: Variables to set first, such as the GPU to use.
    """
    log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grid's, which then ends its cells
    _end_with_the_grid()
    import torch

    torch.set_num_threads(threads)
    sys.exit(attempt(folder))


def attempt(folder: Path) -> int:
    """Try a cell; what fails is kept in failed.json. Returns the exit code."""
    try:
        answer_cell(folder)
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
    """Keep why a cell failed, with the last lines of its log."""
    sys.stderr.flush()
    log = folder / LOG
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    failed: Failure = {"error": error, "last_lines": lines}
    with contextlib.suppress(RibError):  # a full disk: the log has said it
        write_atomically(folder / FAILED, json.dumps(failed, indent=1).encode())


def failure(folder: Path) -> Failure | None:
    """Why a cell failed the last time, or None."""
    try:
        return cast("Failure", read(folder / FAILED))
    except FileNotFoundError:
        return None
    except RibError as error:
        return {"error": str(error), "last_lines": []}


def _end_with_the_grid() -> None:
    """A cell whose grid, or whose server, was killed ends too; the same command goes on from its checkpoint."""
    grid, server = parent_process(), os.getppid()
    if grid is not None:
        watch: Sequence[Any] = [grid.sentinel]

        def wait() -> None:
            while not connection.wait(watch, timeout=1.0) and os.getppid() == server:
                pass
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(attempt(Path(sys.argv[1])))
