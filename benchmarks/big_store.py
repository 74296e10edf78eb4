"""CPU time of a store with many runs: listing it, its table, and looking a run up by its key.

    python -m benchmarks.big_store [RUNS]

The store has RUNS (10,000) copies of a run on the built-in data, with keys, models and seeds of their own, and without
weights and predictions. Each way is timed once, in this process; what is asked for is one second of each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rib
from benchmarks.side_by_side import SMALL, machine
from rib.runs.store import RunStore

ASKED = 1.0
"""CPU seconds that each may take."""


def fill(store: Path, count: int) -> str:
    """Write the copies of one run, and return the key of the last."""
    first = rib.finetune(model="mini_tiny", dataset="imagenet_r", steps=1, runs=store / "made")
    metrics = json.loads((first.folder / "metrics.json").read_text())
    key = ""
    for number in range(count):
        key = f"{number * 7919:016x}"
        model = f"model_{number % 50}"
        folder = store / "many" / "mini" / model / "imagenet_r" / "finetune" / key
        folder.mkdir(parents=True)
        copy = metrics | {"fingerprint": key, "model": model, "seed": number // 50}
        (folder / "metrics.json").write_text(json.dumps(copy, indent=1))
    return key


def timed(what: str, work: Callable[[], object]) -> None:
    """Print the CPU seconds of some work, and whether it is within what is asked for."""
    begun = time.process_time()
    work()
    seconds = time.process_time() - begun
    print(
        f"| {what} | {seconds:.2f} | {'held' if seconds <= ASKED else f'{seconds / ASKED:.1f} times it'} |", flush=True
    )


def main() -> None:
    """Fill a store, and time the ways to read it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100 if SMALL else 10_000
    with tempfile.TemporaryDirectory() as folder:
        key = fill(Path(folder), count)
        store = Path(folder) / "many"
        print(f"A store of {count:,} runs; {machine()}\n\n| | CPU s | asked for: {ASKED:g} |\n|---|---|---|")
        timed("listing", lambda: RunStore(store).finished())
        timed("table", lambda: rib.find_runs(runs=str(store)).table())
        timed("lookup by key", lambda: rib.load(key, runs=str(store)))


if __name__ == "__main__":
    main()
