"""The three heads on a suite of drawn photographs: accuracies are those of the plain network on the plain files."""

from __future__ import annotations

import PIL.Image
import pytest
import torch

import rib
from rib.pipeline import finetune
from rib.runs.resolve import resolve
from rib.runs.run import Run
from tests.models.test_zero_shot import NAME, clip, clip_file
from tests.runs.test_heads import with_keys
from tests.support.suites import CLASSES, make_photo_suite

__all__ = ["clip", "clip_file"]

DOMAINS = ("photo", "sketch")
IMAGENET = {name: {"name": name, "imagenet": [100 * i + 3, 7 * i, 850 + i]} for i, name in enumerate(CLASSES)}


def accuracy(run: Run, root, groups) -> dict[str, float]:
    """Of the network that ``rib.load(RUN).model()`` gives, with nothing of rib's scoring."""
    model, transform = rib.load(run.folder).model()
    found = {}
    for domain in DOMAINS:
        files = [(file, label) for label, name in enumerate(CLASSES) for file in (root / domain / name).iterdir()]
        with torch.no_grad():
            logits = model(torch.stack([transform(PIL.Image.open(file)) for file, _ in files]))
        of_class = torch.stack([logits[:, list(group)].amax(dim=1) for group in groups], dim=1)
        right = of_class.argmax(dim=1) == torch.tensor([label for _, label in files])
        found[domain] = float(right.double().mean())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("head", ["probe", "subset", "zero_shot"])
def test_before_and_after_are_the_plain_network_s(head, tmp_path, ask_for, clip, clip_file):
    root = tmp_path / "photos"
    drawn = make_photo_suite(root, DOMAINS, per_class=4, templates=["a photo of a {}.", "a {}"])
    file = with_keys(drawn, tmp_path, classes=IMAGENET)
    roles = f"[{','.join(DOMAINS)}]"
    suite = (f"data.suite={file}", "suite.name=photos", f"suite.sources={roles}", f"suite.targets={roles}")
    model = ("model=mini_tiny",)
    if head == "zero_shot":
        model = ("model=open_clip", f"model.name={NAME}", f"model.weights={clip_file}", "model.activation=gelu")
    words = (*suite, "suite.reported=[]", "dataset.name=photo", *model, f"head={head}", "epochs=2", "batch_size=8")
    config = ask_for(*words, "optimizer.lr=0.02", "head.l2=[0.01,0.1]")
    spec, run = resolve(config), finetune(config)
    metrics = run.metrics()
    assert metrics["protocol"]["head"] == (head if head != "probe" else "probe:photo")
    before = Run(run.folder.parents[2] / "none" / "pretrained" / metrics["before"])
    groups = [entry["imagenet"] for entry in IMAGENET.values()] if head == "subset" else [(i,) for i in range(7)]
    for state, folder in (("before", before), ("after", run)):
        plain = accuracy(folder, root, groups)
        assert {name: metrics["accuracy"][name][state] for name in DOMAINS} == pytest.approx(plain, abs=1e-9)
    (target,) = metrics["robustness_improvement"]["targets"]
    assert target == "sketch" and spec.start.outputs == (1000 if head == "subset" else 7)
    moved = [name for name, tensor in run.weights().items() if not torch.equal(tensor, before.weights()[name])]
    assert moved
