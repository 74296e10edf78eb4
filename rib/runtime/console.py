"""Print messages for the user, on rank zero only."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable


def rank() -> int:
    """Return this process's global rank, or a positive number if it is not the first one of its run.

    Read from the variables of the launcher (torchrun, Lightning, SLURM), so that it is known before torch is imported.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    # Before SLURM's variables, which are those of the surrounding shell where Lightning starts a node's processes
    # itself. The sum is not the exact rank, but is zero only for the first process of the first node.
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:
        return int(os.environ.get("NODE_RANK", 0)) + int(os.environ.get("LOCAL_RANK", 0))
    return int(os.environ.get("SLURM_PROCID", 0))


_printer: Callable[[str], object] | None = None
"""Function that prints lines above a live display on stderr; None without one."""


def print_with(printer: Callable[[str], object] | None) -> None:
    """Let a live display print the lines of `say`, so that they appear above it; None when it has ended."""
    global _printer
    _printer = printer


def say(text: str = "") -> None:
    """Print a line to stderr, on rank zero only; stdout is kept for results."""
    if rank() > 0:
        return
    if _printer is not None:
        _printer(text)
    else:
        print(text, file=sys.stderr, flush=True)


_brief = False
"""True within a sweep's command, which prints one line for each job."""


def be_brief(brief: bool = True) -> None:
    """Leave the lines of `say_detail` out from now on, or print them again."""
    global _brief
    _brief = brief


def say_detail(text: str) -> None:
    """Print a line like `say`, but not within a sweep, where each job has one line and a second would be too many."""
    if not _brief:
        say(text)


@functools.cache
def say_once(text: str) -> None:
    """Print a line like `say`, but each text only once per process."""
    say(text)
