"""The whole chain from a JPEG to top-1 accuracy, with real weights on real photographs."""

from __future__ import annotations

import pytest

from rib.pipeline import finetune
from tests.support.photos import build
from tests.support.real import PHOTOS, needs_photos, needs_weights


@pytest.mark.slow
@needs_photos
@needs_weights
def test_efficientnet_lite0_knows_real_photographs(ask_for, tmp_path):
    root = build(PHOTOS, tmp_path / "data", only={"imagenet_val"})
    config = ask_for(
        "+method=pretrained",
        "model=efficientnet_lite0",
        f"data.root={root}",
        "data.allow_incomplete=true",
        "suite.targets=[]",
        "evaluation.batch_size=32",
        "data.workers=0",
    )
    metrics = finetune(config).metrics()
    val = metrics["accuracy"]["imagenet_val"]
    print(f"top-1 {val['before']:.3f} of {val['num_images']} photographs")
    assert 0.85 <= val["before"] <= 0.93
    counts = {"images": 314, "expected": 50_000, "classes": 314, "expected_classes": 1000}
    assert metrics["protocol"]["switches"]["incomplete"] == {"imagenet_val": counts}


@pytest.mark.slow
@needs_photos
@needs_weights
def test_ewc_keeps_more_than_plain_fine_tuning_with_real_weights(ask_for, tmp_path):
    """The shortest of docs/photographs.md: one source, one target, one epoch."""
    root = build(PHOTOS, tmp_path / "data", only={"imagenet_val", "imagenet_v2", "imagenet_r"})
    options = ("model=efficientnet_lite0", "dataset=imagenet_r", f"data.root={root}", "data.allow_incomplete=true")
    recipe = ("epochs=1", "optimizer.lr=0.001", "batch_norm=frozen", "data.workers=0", "evaluation.batch_size=32")
    suite = ("suite.targets=[imagenet_v2,imagenet_r]", "suite.reported=[]")
    plain, ewc = (
        finetune(ask_for(*options, *recipe, *suite, f"+method={method}")).metrics() for method in ("finetune", "ewc")
    )
    for metrics in (plain, ewc):
        source = metrics["accuracy"]["imagenet_r"]
        assert source["after"] > source["before"] + 0.05
    assert plain["robustness_improvement"]["value"] < ewc["robustness_improvement"]["value"] < 2
