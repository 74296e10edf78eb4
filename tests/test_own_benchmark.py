"""A benchmark of the user's own: its numbers are those of a script without rib, for each kind of head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import rib
from tests.support import independent_benchmark as independent
from tests.support.suites import CLASSES, DOMAINS, make_photo_suite

LR, BATCH = 0.05, 8
HALF = (0.5, 0.5, 0.5)
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.", "one {}")
WORDS = ("brown bear", "bottle", "camel", "acoustic guitar", "hammer", "coffee mug", "zebra")
OUTPUTS = ((294, 295, 296), (440, 898), (354,), (402, 546), (587,), (504,), (340, 339))
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
TIMM = "test_vit.r160_in1k"
TOLERANCE = {"before": 1e-4, "after": 2e-3}
"""Largest difference between logits: float32 sums in other orders, which seven steps of training enlarge."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """The file of four domains x seven classes x eight photographs."""
    file = make_photo_suite(tmp_path_factory.mktemp("photos"), per_class=8, templates=list(TEMPLATES))
    named = zip(CLASSES, WORDS, OUTPUTS, strict=True)
    classes = {name: {"name": words, "imagenet": [*ids]} for name, words, ids in named}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"classes": classes}, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Weights of a CLIP model of two layers, which open_clip knows as rib-own-clip."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "rib-own-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "rib-own-clip.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("rib-own-clip").state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """Weights of a timm network with ImageNet's 1000 outputs."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


@pytest.fixture(scope="module")
def finetune(suite, tmp_path_factory, cache):
    """One epoch of rib on the domain photo; all images through PIL, as the script reads them."""
    store = tmp_path_factory.mktemp("runs")

    def run(*overrides: str):
        fixed = ("epochs=1", f"batch_size={BATCH}", f"optimizer.lr={LR}", "predictions.logits=true", "trainer=cpu")
        files = {"runs": store, "data.image_backend": "pil", "paths.cache": store / "cache"}
        return rib.finetune(None, *fixed, *overrides, suite=suite, dataset="photo", **files)

    return run


def domains(suite: Path, size: int, crop_pct: float, mean=HALF, std=HALF) -> dict[str, independent.Domain]:
    transform = independent.evaluation_transform(size, crop_pct, mean, std)
    return {name: independent.read(suite.parent / name, CLASSES, transform) for name in DOMAINS}


def compare(run, network, data, train=None):
    """Compare a run's logits, accuracies and RI with those of the script's network, which it then trains.

    Args:
        run: The run of rib.
        network: The script's network before training.
        data: Its domains.
        train: Positions of the source's images that train; None for all.
    """
    targets = {name: data[name] for name in run.metrics["robustness_improvement"]["targets"]}
    before = independent.score(network, targets)
    _, images, labels = data["photo"]
    kept = slice(None) if train is None else train
    independent.train_an_epoch(network, images[kept], labels[kept], LR, BATCH)
    after = independent.score(network, targets)
    flips = 0.0
    for when, theirs, ours in (("before", before, run.before), ("after", after, run)):
        accuracy = independent.accuracies(theirs, targets)
        for name, logits in theirs.items():
            predicted = ours.predictions(name)
            tolerance = TOLERANCE[when] * max(1, float(logits.abs().max()))
            assert np.allclose(predicted.logits, logits, rtol=0, atol=tolerance), (when, name)
            assert predicted.label.tolist() == targets[name][2].tolist()
            # Only where the two largest logits are nearly equal may the accuracy differ, by those images.
            first, second = logits.topk(2).values.T
            close = float((first - second <= 2 * tolerance).double().mean())
            assert run.metrics["accuracy"][name][when] == pytest.approx(accuracy[name], abs=close + 1e-9)
            flips += 100 * close / len(theirs)
    ri = independent.improvement(
        independent.accuracies(before, targets), independent.accuracies(after, targets), "photo"
    )
    assert run.ri.value == pytest.approx(ri, abs=flips + 1e-9)
    assert flips < 2, "the comparison would say little"
    moved = max(float((after[name] - before[name]).abs().max()) for name in targets)
    assert moved > 0.1, "the epoch changes the outputs"


def test_zero_shot(suite, clip, finetune):
    run = finetune("model=open_clip", "model.name=rib-own-clip", f"model.weights={clip}", "head=zero_shot")
    state = load_file(clip)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    network = independent.ZeroShot("rib-own-clip", state, WORDS, TEMPLATES)
    compare(run, network, domains(suite, 32, 1.0, mean, std))
    assert run.metrics["protocol"]["head"] == "zero_shot"


def test_subset(suite, vit, finetune):
    run = finetune("model=timm", f"model.name={TIMM}", f"model.weights={vit}", "head=subset")
    compare(run, independent.Subset("test_vit", load_file(vit), OUTPUTS), domains(suite, 160, 0.95))
    assert run.metrics["protocol"]["head"] == "subset"


def probe_of(run, data, vit: Path, domain: str, paths=None):
    """The script's probe on images of a domain, all or those of some paths, at the penalty that rib chose."""
    own, images, labels = data[domain]
    rows = [own.index(path) for path in (own if paths is None else paths)]
    fitted = json.loads((run.before.folder / "fit.json").read_text())
    return independent.probe("test_vit", load_file(vit), images[rows], labels[rows], fitted["notes"]["probe.l2"])


def test_a_probe_with_a_reference(suite, vit, finetune):
    run = finetune("model=timm", f"model.name={TIMM}", f"model.weights={vit}", "head=probe", "head.reference=toy")
    data = domains(suite, 160, 0.95)
    compare(run, probe_of(run, data, vit, "toy"), data)
    assert run.metrics["robustness_improvement"]["targets"] == ["sketch", "paint"]
    assert run.metrics["protocol"]["head"] == "reference:toy"


def test_a_probe_on_a_part_of_the_source(suite, vit, finetune):
    run = finetune("model=timm", f"model.name={TIMM}", f"model.weights={vit}", "head=probe")
    data = domains(suite, 160, 0.95)
    paths = data["photo"][0]
    ...
