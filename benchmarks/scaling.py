"""How time and memory grow: with images, models in one pass, loader workers, and processes. Table and figure.

    python -m benchmarks.scaling            # -> docs/howto/speed.md and docs/measured/; 5 minutes on two cores

Every point is a process of its own, which scores EfficientNet-lite0 on photographs with an empty cache (or trains, for
processes, a grid of the built-in data); its imports are not timed. What is claimed: time is a straight line in images
and models, with a slope below one model's own for each further model, since images are read once; memory is flat in
images.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import photographs
from benchmarks.problem import resolved
from benchmarks.side_by_side import SMALL, clocks, command, machine, rounds, say_taken

DOCS = Path(__file__).parents[1] / "docs"
MEASURED, PAGE = DOCS / "measured" / "scaling.csv", DOCS / "howto" / "speed.md"
BEGIN, END = "<!-- written by benchmarks/scaling.py -->", "<!-- end of what benchmarks/scaling.py writes -->"

POINTS: Mapping[str, Sequence[int]] = {
    "images": (8, 16) if SMALL else (64, 128, 256, 512),
    "models": (1, 2) if SMALL else (1, 2, 4, 8),
    "workers": (0, 1) if SMALL else (0, 1, 2, 4),
    "processes": (1, 2),
}
"""By what is varied, its values; the others stay at `USUAL`."""

USUAL = {"images": 8 if SMALL else 128, "models": 1, "workers": 0, "processes": 1}


def score(images: int, models: int, workers: int, options: Sequence[str]) -> None:
    """Score copies of a model on some images, and print how long it took."""
    import torchvision.transforms.v2  # noqa: F401 - imports are not timed

    from rib.data.labels import LabelSpace
    from rib.models.build import build
    from rib.runs.images import data_of
    from rib.runtime.processes import launch_processes
    from rib.scoring.score import score_all

    spec = resolved(*options, f"data.limit={images}", f"data.workers={workers}")
    launch_processes(spec.config)
    (name, tree), *_ = spec.scored.items()
    copies, data = [build(spec.start) for _ in range(models)], data_of(spec)
    begun = clocks()
    score_all(copies, data.evaluation_loader(name), LabelSpace(tree.spec.groups), len(tree))
    say_taken(begun)


def grid_command(processes: int, runs: Path) -> list[str]:
    """Return the command of a small grid of the built-in data, with cells in so many processes."""
    methods = "finetune" if SMALL else "finetune,ewc,lwf,linear_probe"
    return [
        *("-m", "rib.benchmark", "models=[mini_tiny]", "sources=[imagenet_r]", f"methods=[{methods}]"),
        *(f"jobs={processes}", f"paths.runs={runs}", "trainer=cpu", "data.root=null"),
    ]


def measure() -> list[dict[str, Any]]:
    """Measure all points; of several rounds the fastest counts."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = photographs.build(folder / "data", max(POINTS["images"]), ("imagenet_val", "imagenet_v2"))
        options = [
            *("model=efficientnet_lite0", "dataset=imagenet_v2", "suite.targets=[imagenet_v2]", f"data.root={root}"),
            *("data.allow_incomplete=true", "trainer=cpu", "evaluation.batch_size=8"),
        ]
        for varied, values in POINTS.items():
            for value in values:
                at = USUAL | {varied: value}
                tries = []
                for number in range(rounds(2)):
                    empty = f"paths.cache={folder}/cache-{varied}-{value}-{number}"
                    if varied == "processes":
                        way = command(*grid_command(value, folder / f"runs-{value}-{number}"))
                    else:
                        given = (at["images"], at["models"], at["workers"])
                        way = command("-m", "benchmarks.scaling", "score", *given, *options, empty)
                    tries.append(way())
                best = min(tries, key=lambda taken: taken.wall)
                assert best.peak is not None
                found = {"varied": varied, "value": value, "seconds": best.wall, "cpu": best.cpu, "peak_gb": best.peak}
                rows.append({k: f"{v:.2f}" if isinstance(v, float) else v for k, v in found.items()})
                print("| " + " | ".join(str(v) for v in rows[-1].values()) + " |", flush=True)
    return rows


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw seconds over each of the four, and peak memory over images and models."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(8.4, 4.6), layout="constrained")
    panels = [(name, "seconds") for name in POINTS] + [("images", "peak_gb"), ("models", "peak_gb")]
    labels = {"seconds": "time, s", "peak_gb": "peak memory, GB"}
    for axis, (varied, column) in zip(axes.flat, panels, strict=True):
        points = [(int(row["value"]), float(row[column])) for row in rows if row["varied"] == varied]
        axis.plot(*zip(*points, strict=True), marker="o", color="C0" if column == "seconds" else "C1")
        axis.set(xlabel=varied, ylabel=labels[column], ylim=(0, 1.15 * max(y for _, y in points)))
        axis.set_xticks([x for x, _ in points])
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def document(rows: Sequence[Mapping[str, Any]], machine_in_words: str) -> str:
    """Return what stands in the documentation: the table and the figure."""
    lines = ["| varied | value | time, s | CPU seconds | peak memory, GB |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
    figure = "![Time over images, models, workers and processes; peak memory](../measured/scaling.png)"
    return "\n".join([f"Measured on {machine_in_words}:", "", *lines, "", figure, ""])


def main() -> None:
    """Measure, print the table, and put it and its figure into the documentation."""
    print("| varied | value | seconds | CPU seconds | peak GB |\n|---|---|---|---|---|", flush=True)
    rows = measure()
    if SMALL:
        return
    with MEASURED.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, MEASURED.with_suffix(".png"))
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{document(rows, machine())}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["score"]:
        score(*map(int, sys.argv[2:5]), sys.argv[5:])
    else:
        main()
