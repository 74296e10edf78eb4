"""A complete metrics.json for tests of the store, with every field that any version has written."""

from __future__ import annotations

from typing import Any

from rib.runs.keys import NUMERICS


def metrics(**said: Any) -> dict[str, Any]:
    """Metrics of a fine-tuned run, but for what is said."""
    change = {"value": 1.0, "low": 0.5, "high": 1.5}
    protocol = {
        "numerics": NUMERICS,
        "experiment": None,
        "precision": "32-true",
        "evaluation_precision": "32-true",
        "epochs": 1,
        "lr": 0.1,
        "warmup_steps": 0,
        "batch_size": 64,
        "batch_norm": "update",
        "holdout": 0.0,
        "label_rule": "max",
        "image_backend": "torchvision",
        "limit": None,
        "switches": {},
    }
    return {
        "schema": 1,
        "model": "mini_small",
        "source": "imagenet_r",
        "method": "ewc",
        "options": {},
        "seed": 0,
        "suite": "seven",
        "fingerprint": "f" * 16,
        "before": "b" * 16,
        "num_parameters": 9,
        "notes": {},
        "data": {"kind": "mini", "digest": "d" * 16},
        "protocol": protocol,
        "accuracy": {"imagenet_a": {"num_images": 9, "before": 0.5, "after": 0.51, "change": change}},
        "robustness_improvement": {**change, "targets": ["imagenet_a"]},
        "scores": {"imagenet_a": {"key": "k" * 16, "images": "i" * 16}},
        "seconds": {"fit": 1.0, "evaluate": 1.0},
        **said,
    }
