"""CPU time until rib answers: importing it, its help pages, its lists of options, scoring a run, and a report.

    python -m benchmarks.start_up

Each command runs five times in a process of its own, and the fastest counts: user and system time of the process and
its children, so that a busy machine changes little. The exit code is 1 if a limit is exceeded. The pages take little
time because neither torch nor Hydra is imported for them. A report needs no torch, and scoring a finished run no
Lightning; both read a run of ten images per dataset, which is made first.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from tempfile import TemporaryDirectory

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

OF_A_RUN = {
    "rib.report": (["-m", "rib.report", "paths.runs={store}"], 8.0),
    "rib.evaluate (20 images)": (
        ["-m", "rib.evaluate", "runs={run}", "suite.targets=[imagenet_a]", "trainer=cpu", "force=true"],
        20.0,
    ),
}
"""Further commands, about the run in ``{run}`` and its store."""

MAKE = (
    *("-m", "rib.train", "+method=pretrained", "model=mini_tiny", "suite.targets=[imagenet_a]"),
    *("data.limit=10", "data.root=null", "trainer=cpu"),
)
"""Arguments of Python that make the run."""


def cpu_seconds(arguments: list[str]) -> float:
    """Return the user and system time of ``python ARGUMENTS``, seconds; of several runs the shortest."""
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Not checked: the slip is one on purpose.
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
    with TemporaryDirectory() as store:
        line = [sys.executable, *MAKE, f"paths.runs={store}"]
        run = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        for name, (arguments, limit) in (LIMITS | OF_A_RUN).items():
            seconds = cpu_seconds([argument.format(run=run, store=store) for argument in arguments])
            over |= seconds > limit
            print(f"{name:<26}{seconds:>7.2f}{limit:>7.1f}{'  over' if seconds > limit else ''}", flush=True)
    sys.exit(int(over))


if __name__ == "__main__":
    main()
