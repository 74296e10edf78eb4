"""The protocol written without rib gives rib's accuracies, so that its times may be compared with rib's."""

from __future__ import annotations

import pytest
import timm
import torch

from benchmarks.naive import METHODS, Domain, Naive
from benchmarks.problem import domain_of, recipe_of, transform_of
from rib.models.build import build
from rib.pipeline import finish
from rib.runs.resolve import resolve

NETWORK = "test_efficientnet"
"""A ConvNet: BatchNorm moves in training, and WiSE-FT and soup estimate its statistics again."""

OPTIONS = (
    *("data.image_backend=pil", "data.limit=40", "dataset=imagenet_v2", "suite.targets=[imagenet_v2,objectnet]"),
    *("model=timm", "model.name=random", f"model.architecture={NETWORK}", "epochs=2", "optimizer.lr=0.02"),
    *("batch_size=16", "optimizer.warmup_steps=2", "model.transform.size=64"),
)


@pytest.mark.slow
def test_naive_gives_the_accuracies_of_rib(ask_for, tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model(NETWORK).state_dict(), tmp_path / "w.pt")
    options = (*OPTIONS, f"model.weights={tmp_path}/w.pt")
    spec = resolve(ask_for(*options))
    transform = timm.data.create_transform(**transform_of(spec.start.transform), is_training=False)
    naive = Naive(
        lambda: timm.create_model(NETWORK),
        build(spec.start).stored_weights(),
        {name: Domain(transform=transform, **domain_of(tree)) for name, tree in spec.scored.items()},
        **recipe_of(spec),
        workers=0,
    )
    rows = {row["method"]: row for row in naive.run(["imagenet_v2"])}
    assert set(rows) == set(METHODS)
    for method, row in rows.items():
        _, metrics = finish(ask_for(*options, f"+method={method}"))
        assert row["accuracy"] == {name: both["after"] for name, both in metrics["accuracy"].items()}, method
        assert row["before"] == {name: both["before"] for name, both in metrics["accuracy"].items()}
        assert row["ri"] == pytest.approx(metrics["robustness_improvement"]["value"])
    assert len({str(row["accuracy"]) for row in rows.values()}) > 3, "the methods differ"
