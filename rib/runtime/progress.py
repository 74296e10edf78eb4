"""Progress of long tasks: a bar in a terminal, a line every 30 seconds in a log file, or a JSON file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rib.errors import RibError
from rib.runtime.console import rank
from rib.runtime.files import write_atomically
from rib.schemas.files import ProgressInfo

SECONDS_BETWEEN_LINES = 30.0

_report: Path | None = None
"""JSON file that progress is written to instead of stderr; None for stderr."""


def report_to(file: Path) -> None:
    """Write progress of this process to a JSON file instead of stderr from now on, at most once a second.

    Args:
        file: Path of the file; `rib.schemas.files.ProgressInfo` describes its content.
    """
    global _report
    _report = file


Advance = Callable[[int, str], object]
"""Function to call with the number of units done since the last call and a short note, which may be empty."""


@contextmanager
def progress(what: str, total: int, unit: str = "images", begun_at: int = 0) -> Iterator[Advance]:
    """Show the progress of a task within a block, on rank zero only.

    Args:
        what: Title of the task, "fine-tuning on ImageNet-R".
        total: Number of units in the whole task.
        unit: Name of the units.
        begun_at: Units done before a resume; they count as done, but not for the speed.

    Yields:
        Function ``advance(done, note)`` to call as work gets done.
    """
    if rank() > 0:
        yield lambda done, note: None
    elif _report is not None:
        yield _json_reporter(_report, what, total, unit, begun_at)
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, completed=begun_at, note="")
            yield lambda done, note: bar.update(task, advance=done, note=note)
    else:
        yield _line_printer(what, total, unit, begun_at)


def _line_printer(what: str, total: int, unit: str, begun_at: int = 0) -> Advance:
    """Return an ``advance(done, note)`` that prints progress every 30 seconds and when a task of over a second ends."""
    begun = last = time.monotonic()
    count = begun_at

    def advance(done: int, note: str = "") -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        complete = count - done < total <= count  # reached with this call: a task that overshoots prints one last line
        if now - last > SECONDS_BETWEEN_LINES or (complete and now - begun > 1):
            last = now
            rate = (count - begun_at) / max(now - begun, 1e-9)
            speed = f"{rate:.0f}/s" if rate > 2 else f"{60 * rate:.0f}/min"
            # flush: a log file would otherwise show nothing for minutes.
            print(f"{what}: {count}/{total} {unit}, {speed} {note}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _json_reporter(file: Path, what: str, total: int, unit: str, begun_at: int = 0) -> Advance:
    """Return an ``advance(done, note)`` that writes progress to a JSON file (`rib.schemas.files.ProgressInfo`)."""
    begun, last, count = time.monotonic(), 0.0, begun_at

    def advance(done: int, note: str = "") -> None:
        nonlocal last, count
        count += done
        now = time.monotonic()
        if now - last > 1:
            last = now
            rate = (count - begun_at) / max(now - begun, 1e-9)
            report: ProgressInfo = {
                "what": what,
                "done": count,
                "total": total,
                "unit": unit,
                "note": note,
                "rate": rate,
                "seconds_left": (total - count) / rate if rate else None,
            }
            with suppress(RibError):  # a full disk must not end the task
                write_atomically(file, json.dumps(report).encode())

    return advance
