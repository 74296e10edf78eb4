"""Rows of the tasks in progress at the bottom of a terminal, redrawn four times a second with rich."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rib.runtime import console
from rib.runtime.tasks import Task, row, shorten

MOST_DETAILS = 8
"""Most parts of a task that are listed below it; a cluster may work on a thousand."""


class Screen:
    """Live display of tasks on stderr; what is printed meanwhile appears above it.

    Args:
        tasks: Returns the tasks to show, the outermost first.
    """

    def __init__(self, tasks: Callable[[], Sequence[Task]]) -> None:
        self._tasks = tasks
        self._console = Console(stderr=True)
        # A stdout that goes to a file must not be sent through the console, which writes to stderr.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            vertical_overflow="crop",
        )

    def start(self) -> None:
        """Begin to show the tasks."""
        self._live.start(refresh=True)
        console.print_with(self._print)

    def stop(self) -> None:
        """Remove the display."""
        console.print_with(None)
        self._live.stop()

    def _print(self, text: str) -> None:
        # Neither wrapped nor interpreted: a message may hold a path or brackets.
        self._console.print(Text(text), soft_wrap=True)

    def _render(self) -> Group:
        width = self._console.width - 3  # a full row, or one behind which Ctrl-C puts "^C", would wrap and stay
        rows: list[Text] = []
        for task in self._tasks():
            title, filled, empty, numbers = row(task, width)
            line = Text(title, no_wrap=True)
            if filled + empty:
                bar, back = ("━", "━") if "utf" in self._console.encoding else ("#", "-")
                line.append(" ").append(bar * filled, "green").append(back * empty, "bright_black")
            rows.append(line.append(f" {numbers}" if numbers else ""))
            details = list(task.details()) if task.details is not None else []
            if len(details) > MOST_DETAILS:
                details[MOST_DETAILS - 1 :] = [f"and {len(details) - MOST_DETAILS + 1} more"]
            rows += [Text(shorten(f"  {detail}", width), style="dim", no_wrap=True) for detail in details]
        return Group(*rows)
