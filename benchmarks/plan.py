"""The plan's estimate of a grid's time against the time that the grid then took, start-up included.

    python -m benchmarks.plan

Two grids, each on an empty store: one of the built-in data, and one of photographs with EfficientNet-lite0. The
built-in one is then planned and made again with another seed, where the plan knows what runs like these took. The first
seconds of a row are those that ``plan_only=true`` says, the second those of the grid's whole command. The first CPU
seconds are what the plan says for ``jobs=1``, where one cell of one thread follows another: beside other load on the
machine this is the ratio to look at.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks import photographs
from benchmarks.side_by_side import SMALL, Taken, command, comparison, heading, note, rounds

METHODS = ("finetune", "linear_probe") if SMALL else ("finetune", "linear_probe", "ewc", "lwf")
IMAGES = 4 if SMALL else 24
BATCH = 4 if SMALL else 8


def estimated(*grid: str) -> float:
    """Ask for a grid's plan, and return the seconds that it expects."""
    said = command("-m", "rib.benchmark", *grid, "plan_only=true", "format=json")().found["output"]
    seconds: float | None = json.loads(said)["seconds"]
    if seconds is None:
        raise SystemExit(f"expected an estimate of {' '.join(grid)}, got none")
    return seconds


def check(claim: str, *grids: list[str]) -> None:
    """Plan and make grids one after the other, and print a row that compares estimates with times."""
    taken = [
        (Taken(estimated(*grid), estimated(*grid, "jobs=1")), command("-m", "rib.benchmark", *grid)()) for grid in grids
    ]
    note(comparison(claim, ("the plan", "the grid"), taken, at_least=0.8, at_most=1.25))


def main() -> None:
    """Print the table."""
    heading(f"Seconds by the plan and seconds taken; {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        methods = f"methods=[{','.join(METHODS)}]"
        stores = [f"paths.runs={folder}/mini-{number}" for number in range(rounds(1))]
        mini = ["models=[mini_small]", "sources=[imagenet_r,imagenet_sketch]", methods]
        check("mini_small, 2 sources, an empty store", *([*mini, store] for store in stores))
        photos = [
            *("models=[efficientnet_lite0]", "sources=[imagenet_v2,imagenet_r]", methods, "trainer=cpu"),
            *(f"data.root={photographs.build(folder / 'data', IMAGES)}", "data.allow_incomplete=true"),
            *("epochs=2", f"batch_size={BATCH}", "optimizer.warmup_steps=1"),
        ]
        # Each with a cache of its own: the first grid decodes the photographs.
        places = [[f"paths.runs={folder}/{n}/runs", f"paths.cache={folder}/{n}/cache"] for n in range(rounds(1))]
        check("efficientnet_lite0 on photographs, an empty store", *([*photos, *place] for place in places))
        check("mini_small with another seed, from those runs", *([*mini, store, "seeds=[1]"] for store in stores))


if __name__ == "__main__":
    main()
