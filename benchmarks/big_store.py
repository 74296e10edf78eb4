"""CPU time of a store with many runs: listing it, its table, and looking a run up by its key.

    python -m benchmarks.big_store [RUNS]

The store has RUNS (10,000) copies of a run on the built-in data, with keys, models, seeds and numbers of their own, and
without weights and predictions. Each way is timed once, in this process, after a first listing has made the store's
index (`rib.runs.index`); what is asked for is one second of each. Grouping the runs for a report is timed as well.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rib
from benchmarks.side_by_side import SMALL, machine
from rib.reporting.comparability import group_comparable
from rib.runs.store import RunStore
from rib.runtime.content import RACY_NS

ASKED = 1.0
"""CPU seconds that each may take."""


def fill(store: Path, count: int) -> str:
    """Write the copies of one run, and return the key of the last."""
    first = rib.finetune(model="mini_tiny", dataset="imagenet_r", steps=1, runs=store / "made")
    metrics = json.loads((first.folder / "metrics.json").read_text())
    key, rng = "", random.Random(0)
    for number in range(count):
        key = f"{number * 7919:016x}"
        model = f"model_{number % 50}"
        folder = store / "many" / "mini" / model / "imagenet_r" / "finetune" / key
        folder.mkdir(parents=True)
        own = {name: shifted(metrics[name], rng) for name in ("accuracy", "robustness_improvement", "seconds", "notes")}
        copy = metrics | own | {"fingerprint": key, "model": model, "seed": number // 50}
        (folder / "metrics.json").write_text(json.dumps(copy, indent=1))
    return key


def shifted(value: object, rng: random.Random) -> object:
    """Return JSON with every fraction in it changed, so that no two runs share one."""
    if isinstance(value, dict):
        return {name: shifted(entry, rng) for name, entry in value.items()}
    return value + rng.random() if isinstance(value, float) else value


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
        time.sleep(2 * RACY_NS / 1e9)  # files changed within a clock tick of being read are not trusted
        print(f"A store of {count:,} runs; {machine()}\n\n| | CPU s | asked for: {ASKED:g} |\n|---|---|---|")
        timed("first listing, which reads all files", lambda: RunStore(store).finished())
        timed("listing", lambda: RunStore(store).finished())
        timed("table", lambda: rib.find_runs(runs=str(store)).table())
        timed("lookup by key", lambda: rib.load(key, runs=str(store)))
        results = [(run, metrics) for run in RunStore(store).finished() for metrics in run.all_metrics()]
        timed("grouping of all runs for a report", lambda: group_comparable(results))


if __name__ == "__main__":
    main()
