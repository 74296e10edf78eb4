"""Make cells of the built-in grid one after another, forked as a grid forks them, with the rib on PYTHONPATH.

    python benchmarks/cells.py MODEL METHOD...

`benchmarks.mini_grid` runs it with two versions of rib, so it uses only what both have. The last line is what
`benchmarks.side_by_side` reads: seconds and CPU seconds of all cells, and by method.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from rib.sweeps import cell
from rib.sweeps.executors import IMPORTED_ONCE


def forked(work: str, *words: object) -> tuple[float, float]:
    """Run a function of this file in a forked process, and return its seconds and CPU seconds."""
    begun, before = time.perf_counter(), os.times()
    if (child := os.fork()) == 0:
        os._exit(globals()[work](*words))
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{work} failed: {words}")
    used = os.times()
    cpu = used.children_user + used.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, cpu


def prepare(folder: Path, store: str, model: str, method: str) -> int:
    """Write a cell's config: plain fine-tuning is the config without a method."""
    import rib.config

    words = [f"model={model}", "dataset=imagenet_r", f"paths.runs={store}", "data.workers=0"]
    config = rib.config.compose(*words, *([] if method == "finetune" else [f"+method={method}"]))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(rib.config.to_yaml(config))
    return 0


def make(folder: Path) -> int:
    """Make a cell with one thread, its output in a file as in a grid."""
    import torch

    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.set_num_threads(1)
    return cell.attempt(folder)


def main() -> None:
    """Make the cells, and print what each took."""
    model, *methods = sys.argv[1:]
    for module in IMPORTED_ONCE:
        import_module(module)
    taken = {}
    with tempfile.TemporaryDirectory() as store:
        for method in methods:
            folder = Path(store) / "cells" / method
            forked("prepare", folder, store, model, method)
            taken[method] = forked("make", folder)
    wall, cpu = (sum(times) for times in zip(*taken.values(), strict=True))
    print(json.dumps({"wall": wall, "cpu": cpu, "found": {method: cpu for method, (_, cpu) in taken.items()}}))


if __name__ == "__main__":
    main()
