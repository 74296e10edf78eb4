"""Fault-injection test of a small grid: kills, a full disk and damaged files must not change any number.

    python -m benchmarks.faults [kills]        # 30 kills: about 10 minutes on two idle cores

A grid of 24 cells is first started with files limited to 200 kB (as on a full disk). Then it is started and killed with
``kill -9`` at random moments: the command, one of its processes, or all. Then a metrics.json is truncated, one bit of a
run's weights is flipped, and the run made from those weights is removed. After the command is repeated, all numbers,
all weights and the number of runs are compared with those of an undisturbed grid.
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
    """Damage the grid; print what was done, how long it took and what differs. Exit with code 1 if anything does."""
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
        if there == runs:  # all are finished: remove some, so that there is something to kill
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
