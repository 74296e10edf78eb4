"""A run with ``evaluation.precision=verified`` has the top-1 of a plain run: on mini, and on photographs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rib.pipeline import finetune
from rib.scoring import verified
from tests.support.real import PHOTOS, needs_photos, needs_weights


def both_ways(ask_for, runs: Path, *overrides):
    """(dataset, plain predictions, verified ones) of every dataset."""
    found = []
    for precision in ("32-true", "verified"):
        run = finetune(ask_for(*overrides, f"evaluation.precision={precision}", f"paths.runs={runs / precision}"))
        found.append({name: run.predictions(name) for name in run.metrics()["scores"]})
    plain, exact = found
    assert plain.keys() == exact.keys()
    return [(name, plain[name], exact[name]) for name in plain]


def check(pairs) -> None:
    for name, plain, found in pairs:
        assert plain.verified is None
        assert np.array_equal(plain.top5[:, 0], found.top5[:, 0]), name
        assert np.allclose(plain.log_prob, found.log_prob, atol=0.5), name


@pytest.mark.slow
def test_every_image_of_mini(ask_for, tmp_path, monkeypatch):
    monkeypatch.setattr(verified, "SAMPLE", 64)  # mini has no more than 512 images a dataset
    pairs = both_ways(
        ask_for, tmp_path / "runs", "model=mini_tiny", "dataset=imagenet_r", "+method=finetune", "epochs=1"
    )
    check(pairs)
    assert len(pairs) == 8
    assert all(0 < found.verified["rescored"] < 1 for _, _, found in pairs)


@pytest.mark.slow
@needs_photos
@needs_weights
def test_photographs_on_real_weights(ask_for, tmp_path, monkeypatch):
    """At 96 px, and 200 of them: fp16 is emulated on a CPU, and slow."""
    monkeypatch.setattr(verified, "SAMPLE", 50)
    for photo in islice(sorted(PHOTOS.glob("*/*")), 200):
        place = tmp_path / "root/imagenet/val" / photo.parent.name
        place.mkdir(parents=True)
        (place / photo.name).symlink_to(photo)
    data = (f"data.root={tmp_path}/root", "data.allow_incomplete=true", f"paths.cache={tmp_path}/cache")
    model = ("model=efficientnet_lite0", "model.transform.size=96")
    pairs = both_ways(ask_for, tmp_path / "runs", "+method=pretrained", *model, *data)
    check(pairs)
    [(_, _, found)] = pairs
    assert 0.25 <= found.verified["rescored"] < 0.9
