"""How far long work is: a bar in a terminal, a line now and then in a log file."""

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
"""File that says how far this process is, for whoever watches it from outside."""


def report_to(file: Path) -> None:
    """Let all progress from here on be written to a file as well, at most once a second."""
    global _report
    _report = file


Advance = Callable[[int, str], object]
"""Told the units done since the last call and a short note (may be empty)."""


@contextmanager
def progress(what: str, total: int, unit: str = "images", begun_at: int = 0) -> Iterator[Advance]:
    """Show progress on stderr, from rank zero alone.

    Args:
        what: "fine-tuning on ImageNet-R".
        total: Units of the whole.
        unit: Their name.
        begun_at: Units done before, which count as done but not as speed.

    Yields:
        What to call as work gets done.
    """
    if rank() > 0:
        yield lambda done, note: None
    elif _report is not None:
        yield _reports(_report, what, total, unit, begun_at)
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
        yield _lines(what, total, unit, begun_at)


def _lines(what: str, total: int, unit: str, begun_at: int = 0) -> Advance:
    """Progress for a log file: a line every 30 seconds, and one at the end of what took more than a second."""
    begun = last = time.monotonic()
    count = begun_at

    def advance(done: int, note: str = "") -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        complete = count - done < total <= count
        if now - last > SECONDS_BETWEEN_LINES or (complete and now - begun > 1):
            last = now
            rate = (count - begun_at) / max(now - begun, 1e-9)
            speed = f"{rate:.0f}/s" if rate > 2 else f"{60 * rate:.0f}/min"
            print(f"{what}: {count}/{total} {unit}, {speed} {note}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _reports(file: Path, what: str, total: int, unit: str, begun_at: int = 0) -> Advance:
    """Progress as JSON: what, done, total, unit, note, rate a second and seconds left."""
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
            with suppress(RibError):  # a full disk must not end what it tells of
                write_atomically(file, json.dumps(report).encode())

    return advance
