"""One task for both ways: a run of rib, resolved, and the same models, images and labels for `benchmarks.naive`.

    python -m benchmarks.problem naive PROBLEM.json     # solve it without rib; prints one line of JSON

rib's side is a `RunSpec`; the problem is a JSON file beside a file with the pretrained weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.side_by_side import clocks, say_taken

if TYPE_CHECKING:
    from benchmarks.naive import Naive
    from rib.data.transform import Transform
    from rib.data.tree import ImageTree
    from rib.runs.spec import RunSpec

MODELS = {"ConvNet": "efficientnet_lite0", "ViT": "vit_tiny"}
"""EfficientNet-lite0 with real weights, ViT-tiny with random ones."""


def model_options(model: str, folder: Path) -> list[str]:
    """Return the command line's options for a model of `MODELS`; random weights are written to a folder once."""
    if model != "vit_tiny":
        return [f"model={model}"]
    import timm
    import torch
    from safetensors.torch import save_file

    file = folder / "vit_tiny.safetensors"
    if not file.exists():
        torch.manual_seed(0)
        save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    return ["model=timm", "model.name=vit_tiny", "model.architecture=vit_tiny_patch16_224", f"model.weights={file}"]


def resolved(*options: str) -> RunSpec:
    """Return the run that a command with these options would make."""
    from rib.config import compose
    from rib.runs.resolve import resolve

    return resolve(compose(*options))


def transform_of(transform: Transform) -> dict[str, Any]:
    """Return the arguments of timm's ``create_transform`` for a model's evaluation transform."""
    return {
        "input_size": transform.size,
        "crop_pct": transform.crop_pct,
        "interpolation": transform.interpolation,
        "mean": transform.mean,
        "std": transform.std,
    }


def domain_of(tree: ImageTree) -> dict[str, Any]:
    """Return the fields of a `naive.Domain` but for its transform."""
    return {
        "files": [str(tree.folder / path) for path in tree.paths],
        "labels": tree.labels.tolist(),
        "groups": [list(group) for group in tree.spec.groups],
        "border": tree.spec.border,
    }


def recipe_of(spec: RunSpec) -> dict[str, Any]:
    """Return the recipe of a run that trains, as `naive.Naive` takes it."""
    recipe = spec.recipe
    assert recipe is not None, "a run that trains has a recipe"
    return {
        "epochs": recipe.epochs,
        "lr": recipe.lr,
        "warmup": recipe.warmup_steps,
        "batch": spec.config.batch_size,
    }


def write_problem(spec: RunSpec, folder: Path, **asked: Any) -> Path:
    """Write a problem and the pretrained weights.

    Args:
        spec: A run that trains, whose model, images and recipe are taken.
        folder: Where to write.
        asked: ``sources`` and ``methods``, or ``source`` and ``method``, or ``scored``: files of weights to score.
    """
    from safetensors.torch import save_file

    from rib.models.build import build

    weights = folder / "pretrained.safetensors"
    save_file({name: t.contiguous() for name, t in build(spec.start).stored_weights().items()}, weights)
    problem = {
        "architecture": spec.start.architecture,
        "weights": str(weights),
        "transform": transform_of(spec.start.transform),
        "domains": {name: domain_of(tree) for name, tree in spec.scored.items()},
        "recipe": recipe_of(spec),
        **asked,
    }
    file = folder / f"problem-{'-'.join(map(str, asked.values()))[:40]}.json".replace("/", "_")
    file.write_text(json.dumps(problem))
    return file


def read_problem(file: Path) -> tuple[Naive, dict[str, Any]]:
    """Return the protocol without rib for a problem, and the problem."""
    import timm
    from safetensors.torch import load_file

    from benchmarks.naive import Domain, Naive

    given = json.loads(file.read_text())
    transform = timm.data.create_transform(**given["transform"], is_training=False)
    domains = {name: Domain(transform=transform, **domain) for name, domain in given["domains"].items()}
    return (
        Naive(
            lambda: timm.create_model(given["architecture"]), load_file(given["weights"]), domains, **given["recipe"]
        ),
        given,
    )


def solve(naive: Naive, given: Mapping[str, Any]) -> Sequence[Any]:
    """Do what a problem asks for, without rib."""
    if "sources" in given:
        return naive.run(given["sources"], given["methods"])
    naive.train(naive.domains[given["source"]], given["method"], {})
    return []


def main() -> None:
    """Solve a problem without rib, and print how long it took."""
    import torchvision.transforms.v2  # noqa: F401 - imports are not timed

    naive, given = read_problem(Path(sys.argv[2]))
    begun = clocks()
    rows = solve(naive, given)
    say_taken(begun, rows=rows)


if __name__ == "__main__":
    main()
