"""Progress of long tasks: rows in a terminal, a line now and then in a log file, or a JSON file for a grid.

A thread shows the tasks, not the code that does the work: a log file gets its lines also while one batch takes minutes
or a library is being imported, and never a line a batch.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from rib.errors import RibError
from rib.runtime import console
from rib.runtime.console import rank, say
from rib.runtime.files import write_atomically
from rib.runtime.tasks import Task

if TYPE_CHECKING:
    from rib.runtime.screen import Screen

T = TypeVar("T")

SECONDS_TO_FIRST_LINE = 3.0
"""Age of a task at which a log file gets its first line; shorter tasks get none."""

SECONDS_BETWEEN_LINES = 30.0

SECONDS_TO_LAST_LINE = 10.0
"""Age of a task from which a log file also gets a line when it ends."""

SECONDS_TO_ROW = 0.5
"""Age of a task at which it appears in a terminal; shorter ones would only flicker."""

SECONDS_BETWEEN_LOOKS = 0.25

Advance = Callable[[int, str], object]
"""Function to call with the number of units done since the last call and a short note, which may be empty."""


@contextmanager
def progress(
    what: str,
    total: int,
    unit: str = "images",
    begun_at: int = 0,
    *,
    overall: bool = False,
    details: Callable[[], Sequence[str]] | None = None,
    left: Callable[[], float | None] | None = None,
) -> Iterator[Advance]:
    """Show the progress of a task within a block, on rank zero only.

    Args:
        what: Title of the task, "fine-tuning on ImageNet-R".
        total: Number of units in the whole task.
        unit: Name of the units.
        begun_at: Units done before a resume; they count as done, but not for the speed.
        overall: True for a task made of jobs with tasks of their own: a sweep or a grid.
        details: Returns lines about the parts that are being worked on; None for none.
        left: Returns the expected seconds that are left; None to extrapolate from the units done.

    Yields:
        Function ``advance(done, note)`` to call as work gets done.
    """
    task = Task(what, total, unit, begun_at, overall, details, left)
    with _BOARD.showing(task):
        yield task.advance


@contextmanager
def activity(what: str) -> Iterator[None]:
    """Show within a block that something of unknown length is going on, such as waiting for another process.

    Args:
        what: Title, "loading libraries".
    """
    with _BOARD.showing(Task(what)):
        yield


def track(items: Iterable[T], what: str, total: int, size: Callable[[T], int], unit: str = "images") -> Iterator[T]:
    """Iterate over items, such as batches, and show the progress.

    Args:
        items: The items.
        what: Title of the task.
        total: Number of units in all items.
        size: Returns the number of units in an item; with several processes, those of all of them.
        unit: Name of the units.
    """
    left = total
    with progress(what, total, unit) as advance:
        for item in items:
            yield item
            done = min(left, size(item))  # rank zero may have one image more than its share
            left -= done
            advance(done, "")


def report_to(file: Path, lines: bool = True) -> None:
    """Write progress of this process to a JSON file from now on, once a second.

    Args:
        file: Path of the file; `rib.schemas.files.ProgressInfo` describes its content.
        lines: Show progress on stderr as well.
    """
    _BOARD.report, _BOARD.lines = file, lines


def show_command(name: str) -> None:
    """Let a log file get its lines until this process ends, also while no task is being shown.

    Args:
        name: Name of the command, ``rib.train``.
    """
    _BOARD.command = name
    _BOARD.start()


def shows_parts() -> bool:
    """Return True while a task is shown within another one: what a sweep's job in this process is doing."""
    return len(_BOARD.tasks) > 1


class _Board:
    """All tasks of this process, and the thread that shows them."""

    def __init__(self) -> None:
        self.report: Path | None = None
        self.lines = True
        self.command: str | None = None
        self.tasks: list[Task] = []
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._screen: Screen | None = None
        self._begun = monotonic()
        self._last_line: float | None = None
        self._spoken_of: set[int] = set()
        self._last_report = 0.0

    def start(self) -> None:
        """Start the thread, unless it is running."""
        with self._lock:
            if self._thread is None:
                self._begun = monotonic()
                self._thread = threading.Thread(target=self._keep_showing, daemon=True)
                self._thread.start()
                atexit.register(self._ended.set)  # a thread that printed while Python ends could crash it

    @contextmanager
    def showing(self, task: Task) -> Iterator[None]:
        """Show a task within a block, unless this process is not the first of its run."""
        if rank() > 0:
            yield
            return
        with self._lock:
            self.tasks.append(task)
        self.start()
        try:
            yield
        finally:
            self._end(task)

    def _end(self, task: Task) -> None:
        with self._lock:
            self.tasks.remove(task)
            if self._screen is not None and not self.rows():
                self._screen.stop()
                self._screen = None
            if id(task) in self._spoken_of:
                self._spoken_of.discard(id(task))
                if task.total and task.count >= task.total and task.seconds >= SECONDS_TO_LAST_LINE:
                    self._say(task.line())

    def rows(self) -> list[Task]:
        """Return the tasks that a terminal shows: those with a total, and the innermost one."""
        tasks = list(self.tasks)  # a copy: the screen's thread looks without the lock
        return [t for t in tasks if (t.total or t is tasks[-1]) and t.seconds > SECONDS_TO_ROW]

    def _keep_showing(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            with self._lock:
                if not self.tasks and self.command is None:
                    self._thread = None
                    return
                with suppress(RibError, OSError, ValueError):  # a full disk or a closed stderr must not end the task
                    self._show()

    def _show(self) -> None:
        now = monotonic()
        if self.report is not None and self.tasks and now - self._last_report > 1:
            self._last_report = now
            write_atomically(self.report, json.dumps(self.tasks[-1].info).encode())
        if not self.lines or _is_off():
            return
        if not sys.stderr.isatty():
            self._print_line(now)
        elif self._screen is None and self.rows():
            from rib.runtime.screen import Screen  # rich takes a tenth of a second to import

            self._screen = Screen(self.rows)
            self._screen.start()

    def _print_line(self, now: float) -> None:
        """Print a line if one is due: of the sweep or grid if there is one, with the innermost task, else of that."""
        inner = self.tasks[-1] if self.tasks else Task(f"{self.command} is running", begun=self._begun)
        outer = next((task for task in self.tasks if task.overall), inner)
        if self._last_line is None:
            due = now - self._begun >= SECONDS_TO_FIRST_LINE
        else:
            is_new = bool(self.tasks) and id(outer) not in self._spoken_of and outer.seconds >= SECONDS_TO_FIRST_LINE
            due = is_new or now - self._last_line >= SECONDS_BETWEEN_LINES
        if due and not (outer.overall and outer.count >= outer.total > 0):  # its last line comes when it ends
            self._spoken_of.add(id(outer))
            parts = [
                *([] if inner is outer else [inner.line()]),
                *(outer.details() if outer.details is not None else ()),
            ]
            # In brackets: a part has a count and a time of its own.
            self._say(outer.line() + (f" ({'; '.join(parts)})" if parts else ""))

    def _say(self, line: str) -> None:
        self._last_line = monotonic()
        if not _is_off():
            say(line)


def _is_off() -> bool:
    """Return True if the user wants no progress on stderr, for scripts that read it: ``RIB_PROGRESS=off``."""
    return os.environ.get("RIB_PROGRESS") == "off"


def _forget_parent() -> None:
    """Start anew in a forked process, which has no thread that shows tasks and none of its parent's tasks."""
    global _BOARD
    old, _BOARD = _BOARD, _Board()
    _BOARD.report, _BOARD.lines = old.report, old.lines
    console.print_with(None)


_BOARD = _Board()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
