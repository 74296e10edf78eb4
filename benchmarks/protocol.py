"""The whole protocol, 7 sources x 7 methods, training and scoring: rib's command against `benchmarks.naive`.

    python -m benchmarks.protocol [IMAGES]

EfficientNet-lite0, two epochs, IMAGES photographs in each of eight sets (8). Both ways make all 49 fine-tuned models
and the accuracy of each on all sets; rib's command also makes intervals, tables and figures, and starts from nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import photographs
from benchmarks.naive import METHODS
from benchmarks.problem import model_options, resolved, write_problem
from benchmarks.side_by_side import SMALL, Taken, command, compare, heading

EPOCHS, BATCH = (1, 4) if SMALL else (2, 16)


def accuracies_of(runs: Path) -> dict[tuple[str, str], tuple[dict[str, float], float]]:
    """Return accuracies after fine-tuning, and RI, by source and method, of all runs of a store."""
    from rib.runs.store import RunStore

    found = {}
    for run in RunStore(runs).finished():
        metrics: Any = run.metrics()
        if metrics["source"] != "none":
            after = {name: both["after"] for name, both in metrics["accuracy"].items()}
            found[metrics["source"], metrics["method"]] = (after, metrics["robustness_improvement"]["value"])
    return found


def differences(rows: Sequence[dict[str, Any]], runs: Path, images: int) -> str:
    """Say how far accuracies and RI of both ways are from each other."""
    found = accuracies_of(runs)
    images_off, ri_off = [], []
    for row in rows:
        accuracy, ri = found[row["source"], row["method"]]
        images_off += [round(images * abs(accuracy[name] - value)) for name, value in row["accuracy"].items()]
        ri_off.append(abs(ri - row["ri"]))
    return (
        f"of {len(images_off)} accuracies {sum(n > 0 for n in images_off)} differ, by at most {max(images_off)} of "
        f"{images} images (PIL against torchvision); RI by at most {max(ri_off):.2f} points"
    )


def passes(sources: int, methods: int) -> int:
    """Return the forward passes that the protocol needs at least for each image of a set.

    Four methods train; the Fisher is one training step an image, features, teacher and two re-estimations one pass; and
    every model, the pretrained one included, scores eight sets.
    """
    return sources * (4 * 3 * EPOCHS + 3 + 4) + (1 + sources * methods) * len(photographs.SETS)


def main(images: int) -> None:
    """Print the table, and how far the results of both ways are from each other."""
    sources = photographs.SOURCES[:2] if SMALL else photographs.SOURCES
    methods = ("finetune", "linear_probe") if SMALL else METHODS
    heading(
        f"{len(sources)} sources x {len(methods)} methods, {EPOCHS} epochs of {images} photographs: without rib, rib"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = [
            *(f"data.root={photographs.build(folder / 'data', images)}", "data.allow_incomplete=true", "trainer=cpu"),
            *(f"epochs={EPOCHS}", f"batch_size={BATCH}", "optimizer.warmup_steps=1"),
            *("data.objectnet_training=i_have_permission", f"paths.cache={folder}/cache", f"paths.runs={folder}/runs"),
        ]
        spec = resolved(*model_options("efficientnet_lite0", folder), "dataset=imagenet_v2", *options)
        problem = write_problem(spec, folder, sources=sources, methods=methods)
        grid = [
            *("-m", "rib.benchmark", "models=[efficientnet_lite0]", f"sources=[{','.join(sources)}]"),
            f"methods=[{','.join(methods)}]",
        ]
        said: list[str] = []

        def empty() -> None:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            shutil.rmtree(folder / "runs", ignore_errors=True)

        def limit(taken: Taken) -> str:
            from benchmarks.limits import limit_of_passes

            return limit_of_passes(spec, images * passes(len(sources), len(methods)), taken.wall)

        def check(naive: Taken, rib: Taken) -> None:
            said.append(differences(naive.found["rows"], folder / "runs", images))

        compare(
            "training and scoring",
            ("without rib", command("-m", "benchmarks.problem", "naive", problem)),
            ("rib", command(*grid, *options, before=empty)),
            at_least=1.8,
            usual_rounds=1,
            limit=limit,
            check=check,
        )
        print("\n" + "\n".join(said))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4 if SMALL else 8)
