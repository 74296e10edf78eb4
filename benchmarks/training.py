"""Training a linear probe, with LwF, and plainly: rib against the protocol without it, for a ConvNet and a ViT.

    python -m benchmarks.training                # EfficientNet-lite0 and ViT-tiny, 10 epochs

Every fit runs in a process of its own; imports are not timed, but the first reading of the images and everything that a
method does before its first step are. rib begins with an empty cache each time.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import photographs
from benchmarks.problem import MODELS, model_options, resolved, write_problem
from benchmarks.side_by_side import SMALL, Taken, clocks, command, compare, half_precision, heading, say_taken

EPOCHS, BATCH = (2, 8) if SMALL else (10, 16)
CLAIMS = (
    ("linear_probe", "ConvNet", 192, 8.0),
    ("lwf", "ConvNet", 32, 1.6),
    ("lwf", "ViT", 48, 1.2),
    ("finetune", "ConvNet", 32, 1.4),
    ("finetune", "ViT", 48, 1.0),
)
"""Method, network, photographs of an epoch, and the ratio that is asked for.

The real sets are hundreds of times as large: here as many as keep a fit's fixed costs, such as a checkpoint after each
epoch, below a tenth of its time.
"""

FORWARDS = {"linear_probe": 1, "finetune": 3 * EPOCHS, "lwf": 3 * EPOCHS + 1}
"""Forward passes over the source whose operations a method needs at least; a training step counts as three."""


def fit_alone(options: list[str]) -> None:
    """Train as rib's command does, without scoring, and print how long it took."""
    import torchvision.transforms.v2  # noqa: F401 - imports are not timed

    import rib.training.module  # noqa: F401
    from rib.runs.store import RunStore
    from rib.runtime.processes import launch_processes
    from rib.training.fit import fit

    spec = resolved(*options)
    launch_processes(spec.config)
    store = RunStore(spec.config.paths.runs)
    run = store.run_of(spec)
    run.folder.mkdir(parents=True)
    begun = clocks()
    fit(spec, run, store)
    say_taken(begun)


def options_of(method: str, network: str, images: int, folder: Path, root: Path) -> list[str]:
    """Return the options of one method on one network, with a number of photographs in an epoch."""
    return [
        *(*model_options(MODELS[network], folder), f"data.root={root}", "data.allow_incomplete=true", "trainer=cpu"),
        *("dataset=imagenet_v2", "suite.targets=[imagenet_v2]", f"epochs={EPOCHS}", f"batch_size={BATCH}"),
        *("optimizer.warmup_steps=2", f"+method={method}", f"data.limit={images}"),
        *(f"paths.cache={folder}/cache", f"paths.runs={folder}/runs"),
    ]


def fit_of(options: list[str], folder: Path) -> Callable[[], Taken]:
    """Return rib's way, which begins with an empty cache each time."""

    def empty() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        shutil.rmtree(folder / "runs", ignore_errors=True)

    return command("-m", "benchmarks.training", "fit", *options, before=empty)


def compare_fits(method: str, network: str, images: int, at_least: float, folder: Path, root: Path) -> None:
    """Compare one method on one network, with a number of photographs in an epoch."""
    options = options_of(method, network, images, folder, root)
    spec = resolved(*options)
    problem = write_problem(spec, folder, source="imagenet_v2", method=method)

    def limit(taken: Taken) -> str:
        from benchmarks.limits import limit_of_passes

        return limit_of_passes(spec, FORWARDS[method] * images, taken.wall)

    compare(
        f"{method}, {network}, {images} photographs",
        ("without rib", command("-m", "benchmarks.problem", "naive", problem)),
        ("rib", fit_of(options, folder)),
        at_least=at_least,
        usual_rounds=2,
        limit=limit,
    )


def compare_precisions(network: str, images: int, folder: Path, root: Path) -> None:
    """Compare rib's fine-tuning in bf16 with its own in float32, for a processor that computes in bf16."""
    options = options_of("finetune", network, images, folder, root)
    compare(
        f"finetune, {network}, {images} photographs, both by rib",
        ("float32", fit_of(options, folder)),
        ("bf16", fit_of([*options, "precision=bf16-mixed"], folder)),
        usual_rounds=2,
    )


def main() -> None:
    """Print the table."""
    heading(f"Training, {EPOCHS} epochs in batches of {BATCH}: without rib, rib")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claims = [(method, network, 8 if SMALL else images, ratio) for method, network, images, ratio in CLAIMS]
        most = max(images for _, _, images, _ in claims)
        root = photographs.build(folder / "data", most, ("imagenet_val", "imagenet_v2"))
        for method, network, images, at_least in claims:
            compare_fits(method, network, images, at_least, folder, root)
        if half_precision():
            for _, network, images, _ in claims[-2:]:
                compare_precisions(network, images, folder, root)


if __name__ == "__main__":
    fit_alone(sys.argv[2:]) if sys.argv[1:2] == ["fit"] else main()
