"""Print lines for the user, from rank zero alone."""

from __future__ import annotations

import functools
import os
import sys


def rank() -> int:
    """0 in the one process of a run that writes, more in the others, as its launcher says (Lightning, torchrun, SLURM).

    Where Lightning starts a node's processes itself, SLURM's variables are those of the shell it was started from, and
    the first process of the second node is number zero of its node alone.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:
        return int(os.environ.get("NODE_RANK", 0)) + int(os.environ.get("LOCAL_RANK", 0))
    return int(os.environ.get("SLURM_PROCID", 0))


def say(text: str = "") -> None:
    """A line for the user, on stderr and from rank zero alone; stdout is for results."""
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


@functools.cache
def say_once(text: str) -> None:
    """`say`, once in a process: for what several parts of one command find out."""
    say(text)
