"""A small grid hurt in every way that a cluster knows, beside one that was left alone: the numbers must be the same.

    python -m benchmarks.faults [kills]        # 30 kills: about 10 minutes on two idle cores

A grid of 24 cells and what they need is started with files limited to 200 kB (a full disk), then started and killed
-9 (itself, one of its processes, or all) at random moments; then a metrics.json is cut short and a bit of a run's
weights turned, and what was made of those weights removed. After going on, every number, every weight and the number of
runs are compared with an undisturbed grid's.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rib.data.worlds import cache_dir
from rib.runs.store import RunStore
from tests.support import grids

CELLS = ("sources=[imagenet_a,imagenet_r]", "methods=[finetune,ewc,lp_ft,wise_ft]", "seeds=[0,1,2]")


def main(kills: int) -> None:
    """Print what was done to the grid, what it cost, and what differs."""
    cache, root = cache_dir(None), Path(tempfile.mkdtemp(prefix="rib-faults-"))
    store, undisturbed = root / "hurt", root / "undisturbed"
    begun = time.monotonic()
    done = grids.run(undisturbed, cache, *CELLS)
    assert done.returncode == 0, done.stderr
    runs = len(RunStore(undisturbed).finished())
    print(f"undisturbed: {runs} runs in {time.monotonic() - begun:.0f} s", flush=True)

    full = grids.run(store, cache, *CELLS, preexec_fn=grids.with_small_files(200_000))
    print(f"files of at most 200 kB: exit code {full.returncode}; {full.stderr.splitlines()[-1].strip()}", flush=True)
    dice, victims = random.Random(0), Counter[str]()
    for number in range(kills):
        grid = grids.start(store, cache, *CELLS, "retry=1")
        moment = dice.uniform(3, 14)
        time.sleep(moment)
        alive = grid.poll() is None
        victim = grids.kill_one_of(dice, grid) if alive else "nothing: it was done"
        grids.end(grid)
        victims[victim] += 1
        there = len(RunStore(store).finished())
        print(f"kill {number + 1} after {moment:.1f} s: {victim}; {there} runs are finished", flush=True)
        if there == runs:  # go on hurting: some are to be made again
            for run in dice.sample(RunStore(store).finished(source="imagenet_a"), 6):
                shutil.rmtree(run.folder)
    done = grids.run(store, cache, *CELLS, "retry=1")
    assert done.returncode == 0, done.stderr
    print(f"killed: {dict(victims)}; gone on, {len(RunStore(store).finished())} runs", flush=True)

    grids.damage_metrics(RunStore(store).one(method="ewc", source="imagenet_a", seed=0))
    grids.damage_weights(RunStore(store).one(method="finetune", source="imagenet_a", seed=0))
    shutil.rmtree(RunStore(store).one(method="wise_ft", source="imagenet_a", seed=0).folder)
    done = grids.run(store, cache, *CELLS, "retry=1")
    assert done.returncode == 0, done.stderr
    wrong, left = grids.differences(store, undisturbed), grids.unfinished(store)
    print(f"damaged and gone on: {len(RunStore(store).finished())} runs; different: {wrong}; left over: {left}")
    shutil.rmtree(root)
    sys.exit(bool(wrong or left))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
