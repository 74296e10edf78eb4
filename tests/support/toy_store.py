"""A store with a few small runs, made through `rib.finetune` once a session, for tests of the Python interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rib
from rib.results.finished_run import FinishedRun


@dataclass
class ToyStore:
    """The store's folder, and its runs."""

    root: Path
    options: dict[str, Any]
    plain: FinishedRun
    ewc: FinishedRun
    other_model: FinishedRun
    other_images: FinishedRun


def make_toy_store(root: Path, cache: Path) -> ToyStore:
    """Fine-tune for a few steps on a few images."""
    data = {"limit": 40, "root": None}
    options = {
        "model": "mini_tiny",
        "dataset": "imagenet_a",
        "steps": 4,
        "optimizer": {"lr": 0.05},
        "data": data,
        "trainer": "cpu",
        "paths": {"cache": cache},
        "runs": root,
    }
    return ToyStore(
        root,
        options,
        plain=rib.finetune(**options),
        ewc=rib.finetune("ewc", **options),
        other_model=rib.finetune(**{**options, "model": "mini_small"}),
        other_images=rib.finetune("pretrained", **{**options, "data": {**data, "limit": 30}}),
    )
