"""Cells of the built-in data's grid, on another commit of rib and on this one, side by side.

    python -m benchmarks.mini_grid [COMMIT]

``make benchmark`` has two models, seven sources, seven methods and three seeds, 296 runs in all. The slice made here
has one model, one source, one seed and all methods; each cell is forked from a process with a grid's imports, one
after another, and its CPU seconds are counted (`benchmarks/cells.py`). Without COMMIT it is
the last one before the work on speed; it is checked out in a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.side_by_side import SMALL, Taken, command, compare, heading

START = "5368e257f82ed9fdd2c46b561339f9d4c17ad1ae"
"""Last commit before the work on speed."""

MODEL = "mini_tiny" if SMALL else "mini_small"
METHODS = ("pretrained", "finetune") if SMALL else ("pretrained", "finetune", "linear_probe", "lp_ft", "ewc", "lwf")
METHODS += () if SMALL else ("wise_ft", "soup")

REMOVABLE = 0.27
"""Share of a cell's time that a profile of that commit shows as the same in every cell, or as not needed.

The default options (11 %: Hydra and PyYAML), versions of all installed packages (6), the files of ``conf/`` (4),
imports of pandas, fontTools and matplotlib's writers (5 or more), and a garbage collection of all modules' objects. Not
counted: passes through the network, and drawing each run's figures (16 to 23 %), which every run keeps.
"""


def main() -> None:
    """Check the other commit out, and compare."""
    commit, here = (sys.argv[1:] or [START])[0], Path(__file__).resolve().parents[1]
    heading("Cells of the grid on the built-in data, on the commit before and on this one")
    cpu: list[tuple[Taken, Taken]] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "rib"
        git = ["git", "-C", str(here), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), commit], check=True)
        script = here / "benchmarks" / "cells.py"
        try:
            made = compare(
                f"{len(METHODS)} cells, {MODEL} on mini R",
                (f"commit {commit[:7]}", command(script, MODEL, *METHODS, PYTHONPATH=str(tree))),
                ("this one", command(script, MODEL, *METHODS, PYTHONPATH=str(here))),
                at_least=1 / (1 - REMOVABLE / 2),
                usual_rounds=2,
                check=lambda before, after: cpu.append((before, after)),
            )
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    print("\n| CPU s of a cell | before | now |\n|---|---|---|")
    for method in METHODS:
        before, after = (min(pair[side].found[method] for pair in cpu) for side in (0, 1))
        print(f"| {method} | {before:.2f} | {after:.2f} |")
    gone = 1 - 1 / made.cpu_ratio[0]
    print(f"\n{100 * gone:.0f} % of the cells' CPU time is gone; {100 * REMOVABLE:.0f} % was removable.")


if __name__ == "__main__":
    main()
