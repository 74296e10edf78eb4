"""A benchmark of the user's own: its numbers are those of a script without rib, for each kind of head."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import rib
from rib.config import compose
from rib.runs.resolve import resolve
from tests.support import independent_benchmark as independent
from tests.support.suites import CLASSES, DOMAINS, make_photo_suite

pytestmark = pytest.mark.slow
LR, BATCH = 0.05, 8
L2 = "head.l2=[0.001,0.01,0.1]"
"""Strengths at which two solvers that end within 1e-9 nats of the minimum give the same logits to four digits."""
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
EXACT, FITTED = 2e-5, 5e-4
"""Largest difference between logits: float32 sums in another order; for a probe, two solvers' ends near one minimum."""


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
    """Weights of a CLIP model of two layers, which open_clip knows as rib-own-clip; random, but they see the image."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "rib-own-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "rib-own-clip.json")
    torch.manual_seed(0)
    state = open_clip.create_model("rib-own-clip").state_dict()
    save_file(state | {"visual.conv1.weight": 20 * state["visual.conv1.weight"]}, folder / "clip.safetensors")
    return folder / "clip.safetensors"


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """Weights of a timm network with ImageNet's 1000 outputs."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    state = timm.create_model("test_vit").state_dict()
    save_file(state | {"patch_embed.proj.weight": 20 * state["patch_embed.proj.weight"]}, file)
    return file


@pytest.fixture(scope="module")
def options(suite, tmp_path_factory):
    """One epoch of rib on the domain photo, as overrides; all images through PIL, as the script reads them."""
    store = tmp_path_factory.mktemp("runs")
    files = (f"suite={suite}", f"paths.runs={store}", f"paths.cache={store / 'cache'}", "data.image_backend=pil")
    recipe = ("dataset=photo", "epochs=1", f"batch_size={BATCH}", f"optimizer.lr={LR}")
    return (*files, *recipe, "predictions.logits=true", "figures.format=png", "trainer=cpu")


@cache
def domains(suite: Path, size: int, crop_pct: float, mean=HALF, std=HALF) -> dict[str, independent.Domain]:
    transform = independent.evaluation_transform(size, crop_pct, mean, std)
    return {name: independent.read(suite.parent / name, CLASSES, transform) for name in DOMAINS}


def compare(run, network, data, allowed, train=None):
    """Compare a run's logits, accuracies and RI with those of the script's network, which it then trains.

    Args:
        run: The run of rib.
        network: The script's network before training.
        data: Its domains.
        allowed: Largest difference between logits, as a fraction of the largest logit and at least of 1.
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
            apart = float(np.abs(predicted.logits - logits.numpy()).max())
            assert apart <= allowed * max(1, float(logits.abs().max())), (when, name)
            assert predicted.label.tolist() == targets[name][2].tolist()
            # Only where the two largest logits are nearly equal may the accuracy differ, by those images.
            first, second = logits.topk(2).values.T
            close = float((first - second <= 2 * apart).double().mean())
            assert run.metrics["accuracy"][name][when] == pytest.approx(accuracy[name], abs=close + 1e-9)
            flips += 100 * close / len(theirs)
    ri = independent.improvement(
        independent.accuracies(before, targets), independent.accuracies(after, targets), "photo"
    )
    assert run.ri.value == pytest.approx(ri, abs=flips + 1e-9)
    assert flips < 2, "the comparison would say little"
    moved = max(float((after[name] - before[name]).abs().max()) for name in targets)
    assert moved > 0.1, "the epoch changes the outputs"


def test_zero_shot(suite, clip, options):
    run = rib.finetune(
        None, *options, "model=open_clip", "model.name=rib-own-clip", f"model.weights={clip}", "head=zero_shot"
    )
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    network = independent.ZeroShot("rib-own-clip", load_file(clip), WORDS, TEMPLATES)
    compare(run, network, domains(suite, 32, 1.0, mean, std), EXACT)
    assert run.metrics["protocol"]["head"] == "zero_shot"


def test_subset(suite, vit, options):
    run = rib.finetune(None, *options, *of_timm(vit), "head=subset")
    compare(run, independent.Subset("test_vit", load_file(vit), OUTPUTS), domains(suite, 160, 0.95), EXACT)
    assert run.metrics["protocol"]["head"] == "subset"


def test_a_probe_with_a_reference(suite, vit, options):
    run = rib.finetune(None, *options, *of_timm(vit), "head=probe", "head.reference=toy", L2)
    data = domains(suite, 160, 0.95)
    compare(run, probe_of(run, vit, data["toy"]), data, FITTED)
    assert run.metrics["robustness_improvement"]["targets"] == ["sketch", "paint"]
    assert run.metrics["protocol"]["head"] == "reference:toy"


def test_a_probe_on_a_part_of_the_source(suite, vit, options):
    given = (*options, *of_timm(vit), "head=probe", L2)
    spec, run = resolve(compose(*given)), rib.finetune(None, *given)
    data = domains(suite, 160, 0.95)
    paths, images, labels = data["photo"]
    fitted = torch.tensor([paths.index(path) for path in spec.head_images.paths])
    trained = torch.tensor([path not in spec.head_images.paths for path in paths])
    assert labels[fitted].bincount().tolist() == [round(0.3 * 8)] * len(CLASSES)
    compare(run, probe_of(run, vit, (paths, images[fitted], labels[fitted])), data, FITTED, trained)
    assert run.metrics["robustness_improvement"]["targets"] == ["sketch", "paint", "toy"]
    assert run.metrics["protocol"]["head"] == "probe:photo"


def of_timm(vit: Path) -> tuple[str, ...]:
    return ("model=timm", f"model.name={TIMM}", f"model.weights={vit}")


def probe_of(run, vit: Path, domain: independent.Domain):
    """The script's probe on a domain's images, with the penalty that rib chose."""
    l2 = json.loads((run.before.folder / "fit.json").read_text())["notes"]["probe.l2"]
    return independent.probe("test_vit", load_file(vit), *domain[1:], l2)
