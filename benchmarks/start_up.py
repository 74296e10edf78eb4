"""CPU time until rib answers: importing it, its help pages, and its lists of options.

    python -m benchmarks.start_up

Each command runs five times in a process of its own, and the fastest counts: user and system time of the process and
its children, so that a busy machine changes little. The exit code is 1 if a limit is exceeded. The pages take little
time because neither torch nor Hydra is imported for them.
"""

from __future__ import annotations

import resource
import subprocess
import sys

REPEATS = 5

LIMITS = {
    "import rib": (["-c", "import rib"], 0.3),
    "rib --help": (["-m", "rib", "--help"], 1.0),
    "rib options ewc": (["-m", "rib", "options", "ewc"], 1.0),
    "rib options": (["-m", "rib", "options"], 1.0),
    "rib methods": (["-m", "rib", "methods"], 1.0),
    "rib models": (["-m", "rib", "models"], 1.0),
    "rib version": (["-m", "rib", "version"], 1.0),
    "rib train --help": (["-m", "rib", "train", "--help"], 1.0),
    "rib.train --help": (["-m", "rib.train", "--help"], 1.0),
    "rib.report --help": (["-m", "rib.report", "--help"], 1.0),
    "rib train lr=1 (a slip)": (["-m", "rib", "train", "lr=1"], 1.0),
}
"""By command, the arguments of Python and the limit, CPU seconds."""


def cpu_seconds(arguments: list[str]) -> float:
    """Return the user and system time of ``python ARGUMENTS``, seconds; of several runs the shortest."""
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def main() -> None:
    """Measure all commands and print a table.

    Raises:
        SystemExit: With code 1 if a limit is exceeded.
    """
    print(f"{'command':<26}{'CPU s':>7}{'limit':>7}")
    over = False
    for name, (arguments, limit) in LIMITS.items():
        seconds = cpu_seconds(arguments)
        over |= seconds > limit
        print(f"{name:<26}{seconds:>7.2f}{limit:>7.1f}{'  over' if seconds > limit else ''}", flush=True)
    sys.exit(int(over))


if __name__ == "__main__":
    main()
