"""Tasks whose progress is shown, and the text that shows them, in a log file and in a terminal of any width."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rib.schemas.files import ProgressInfo

BAR, SHORTEST_BAR = 30, 8
"""Columns of a bar at most; a bar that would get fewer than the second number is left out."""


@dataclass
class Task:
    """A task in progress.

    Attributes:
        what: Title, "fine-tuning on ImageNet-R".
        total: Units of the whole task; 0 if unknown.
        unit: Name of the units.
        begun_at: Units done before a resume; they count as done, but not for the speed.
        overall: True for a task made of jobs with tasks of their own: a sweep or a grid.
        details: Returns lines about the parts that are being worked on, shown below the task; None for none.
        left: Returns the expected seconds that are left; None to extrapolate from the units done.
        count: Units done.
        note: Short remark, such as the loss.
        begun: Time of `time.monotonic` at which it began.
        moved: Time at which units were last done.
    """

    what: str
    total: int = 0
    unit: str = ""
    begun_at: int = 0
    overall: bool = False
    details: Callable[[], Sequence[str]] | None = None
    left: Callable[[], float | None] | None = None
    count: int = 0
    note: str = ""
    begun: float = field(default_factory=lambda: time.monotonic())
    moved: float = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.moved = self.begun_at, self.begun

    def advance(self, done: int, note: str = "") -> None:
        """Count units as done.

        Args:
            done: Their number.
            note: Short remark; may be empty.
        """
        self.count += done
        self.note = note
        self.moved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.begun

    @property
    def rate(self) -> float:
        """Units per second since it began or was resumed."""
        return (self.count - self.begun_at) / max(self.moved - self.begun, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds that are left; None while there is nothing to tell them from."""
        if self.left is not None:
            return self.left()
        if not self.total or not self.rate:
            return None
        # Without the time since the last unit, so that a long unit does not make the estimate grow.
        left = (self.total - self.count) / self.rate - (time.monotonic() - self.moved)
        return left if left > 0 else None

    @property
    def counter(self) -> str:
        """Units done and in all, ``120/480 batches``; empty if the total is unknown."""
        total = max(self.total, self.count)
        return f"{self.count:>{len(str(total))}}/{total} {self.unit}" if self.total else ""

    @property
    def remaining(self) -> str:
        """Expected time that is left, ``35 s left``; empty if it is unknown or nothing is left."""
        left = self.seconds_left if self.count < self.total else None
        return "" if left is None else f"{clock(max(1.0, left))} left"

    @property
    def info(self) -> ProgressInfo:
        """The task as other processes read it."""
        return {
            "what": self.what,
            "done": self.count,
            "total": max(self.total, self.count),
            "unit": self.unit,
            "note": self.note,
            "rate": self.rate,
            "seconds_left": self.seconds_left,
        }

    def line(self) -> str:
        """Return the line for a log file: ``title: 120/480 batches, 20/s, 18 s left, epoch 2, loss 3.685``."""
        if not self.total:
            return f"{self.what}, {clock(self.seconds)} so far"
        rate = self.rate
        speed = "" if self.overall or not rate else f"{rate:.0f}/s" if rate > 2 else f"{60 * rate:.0f}/min"
        done = f"in {clock(self.seconds)}" if self.count >= self.total else ""
        return f"{self.what}: " + ", ".join(
            part for part in (self.counter.strip(), speed, self.remaining, done, self.note) if part
        )


def describe(doing: ProgressInfo) -> str:
    """Describe the task of another process: ``ewc on ImageNet-R, 120/480 batches, 35 s left, epoch 2``."""
    done = f"{doing['done']}/{doing['total']} {doing['unit']}" if doing["total"] else ""
    left = f"{clock(max(1.0, doing['seconds_left']))} left" if doing["seconds_left"] else ""
    what = doing["what"].rpartition(": ")[2]  # without the model, which the cell or job is named by
    return ", ".join(part for part in (what, done, left, doing["note"]) if part)


def describe_interrupt(unit: str, total: int, done: int, failed: int, begun: int) -> str:
    """Describe how far a sweep or grid came: ``2 of 4 jobs done, 1 begun, 1 not started; the same command continues``.

    Args:
        unit: Name of its parts, ``jobs``.
        total: Number of parts; 0 if unknown.
        done: Number of parts with a result.
        failed: Number of failed parts.
        begun: Number of parts that were being made.
    """
    counts = {"failed": failed, "begun": begun, "not started": total - done - failed - begun}
    parts = [
        f"{done}{f' of {total}' if total else ''} {unit} done",
        *(f"{n} {how}" for how, n in counts.items() if n > 0),
    ]
    return f"{', '.join(parts)}; the same command continues"


def clock(seconds: float) -> str:
    """Format a rough duration: ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def row(task: Task, width: int) -> tuple[str, int, int, str]:
    """Lay a task out as one row of a terminal: title, bar, numbers and, where there is room, the note.

    Args:
        task: The task.
        width: Columns of the terminal.

    Returns:
        Text before the bar, its filled and its empty columns (both 0 for no bar), and the text behind it; together at
        most ``width`` columns.
    """
    if not task.total:
        return shorten(f"{task.what}, {clock(task.seconds)} so far", width), 0, 0, ""
    numbers = ", ".join(part for part in (task.counter, task.remaining) if part)
    title = shorten(task.what, max(8, width - len(numbers) - 2))
    room = width - len(title) - len(numbers) - 2
    if room < 0:
        return shorten(f"{title} {numbers}", width), 0, 0, ""
    room -= max(0, len(", 00 min left") - len(task.remaining) - 2)  # so that the bar does not change with the time left
    if task.note and len(task.note) + 2 + SHORTEST_BAR < room:
        numbers += f"  {task.note}"
        room -= len(task.note) + 2
    bar = min(BAR, room - 1) if room > SHORTEST_BAR else 0
    filled = round(bar * min(1.0, task.count / task.total))
    return title, filled, bar - filled, numbers


def shorten(text: str, width: int) -> str:
    """Cut a text to a number of columns; an ellipsis shows that it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
