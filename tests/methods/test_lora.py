"""LoRA against loops that compose the weights by hand, and the weights that it leaves."""

from __future__ import annotations

import math

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.lora import LoRA
from rib.models.classifier import Classifier
from rib.training.module import FineTuner
from tests.support.fitting import LR, MOMENTUM, SPACE, Data, batch, fit, fit_in_pool, furthest, same
from tests.support.nets import HALF, OUTPUTS, SIDE, random_images, small_convnet, small_vit

RANK, ALPHA = 2, 6.0


def small_tower():
    """A ViT whose attention is `nn.MultiheadAttention`, with open_clip's names."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(image_size=SIDE, patch_size=8, width=24, layers=2, heads=2, mlp_ratio=2.0, output_dim=12)
    backbone = nn.Module()
    backbone.visual, backbone.head = tower, nn.Linear(12, OUTPUTS)
    backbone.forward = lambda images: backbone.head(backbone.visual(images))
    return Classifier(backbone, HALF, HALF).eval()


def wider_convnet():
    """With 1x1 convolutions, one of them in groups, and a linear layer before the head."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.Conv2d(6, 6, 1, groups=2),
    ]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, OUTPUTS)]
    return Classifier(nn.Sequential(*layers), HALF, HALF).eval()


# What is adapted: the weight, its rows.
CASES = {
    "vit": (
        small_vit,
        ["q", "v"],
        [(f"blocks.{b}.attn.qkv.weight", rows) for rows in ((0, 24), (48, 72)) for b in (0, 1)],
    ),
    "vit, other targets": (
        small_vit,
        ["k", "proj", "mlp"],
        [
            *[(f"blocks.{b}.attn.qkv.weight", (24, 48)) for b in (0, 1)],
            *[(f"blocks.{b}.attn.proj.weight", (0, 24)) for b in (0, 1)],
            *[(f"blocks.{b}.mlp.{fc}.weight", (0, n)) for b in (0, 1) for fc, n in (("fc1", 96), ("fc2", 24))],
        ],
    ),
    "tower": (
        small_tower,
        ["q", "v", "proj", "mlp"],
        [
            *[
                (f"visual.transformer.resblocks.{b}.attn.in_proj_weight", rows)
                for rows in ((0, 24), (48, 72))
                for b in (0, 1)
            ],
            *[(f"visual.transformer.resblocks.{b}.attn.out_proj.weight", (0, 24)) for b in (0, 1)],
            *[
                (f"visual.transformer.resblocks.{b}.mlp.{fc}.weight", (0, n))
                for b in (0, 1)
                for fc, n in (("c_fc", 48), ("c_proj", 24))
            ],
        ],
    ),
    "convnet": (wider_convnet, ["conv1x1", "linear"], [("3.weight", (0, 6)), ("7.weight", (0, 10))]),
}


def adapters(targets, **options):
    return LoRA(RANK, ALPHA, targets, **options)


def lora():
    return [LoRA(RANK, ALPHA)]


def wide_in_pool():
    return fit(wider_convnet(), adapters(["conv1x1", "linear"]), two=True).state_dict()


def loop(model, where, steps=3):
    """W = W0 + alpha/rank B A composed by hand, A and B trained by plain SGD."""
    start = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    trained = []
    for name, (first, last) in where:
        inputs = start[name][0].numel()
        a = torch.empty(RANK, inputs).uniform_(-1 / inputs**0.5, 1 / inputs**0.5, generator=generator)
        trained.append((name, first, last, a.requires_grad_(), torch.zeros(last - first, RANK, requires_grad=True)))

    def weights():
        composed = dict(start)
        for name, first, last, a, b in trained:
            rows = composed[name].flatten(1)
            added = rows[first:last] + ALPHA / RANK * b @ a
            composed[name] = torch.cat([rows[:first], added, rows[last:]]).view_as(start[name])
        return composed

    optimizer = torch.optim.SGD([t for site in trained for t in site[3:]], lr=LR, momentum=MOMENTUM)
    for step in range(steps):
        images, labels, _ = batch(step)
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        outputs = functional_call(model.backbone, weights(), model.normalise(images))
        F.cross_entropy(SPACE.project(outputs), labels).backward()
        optimizer.step()
    return {f"backbone.{name}": t.detach() for name, t in weights().items()}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_formula_and_leaves_plain_weights(case):
    make, targets, where = CASES[case]
    start = make().state_dict()
    found = fit(make(), adapters(targets)).state_dict()
    assert list(found) == list(start)
    assert furthest(found, loop(make(), where)) < 1e-5
    rows = {name: torch.zeros(len(start[f"backbone.{name}"]), dtype=torch.bool) for name, _ in where}
    for name, (first, last) in where:
        rows[name][first:last] = True
        change = (found[f"backbone.{name}"] - start[f"backbone.{name}"])[first:last].flatten(1).double()
        assert torch.linalg.matrix_rank(change, rtol=1e-3) == RANK, torch.linalg.svdvals(change)[:4]
    for name, before in start.items():
        moved = (found[name] != before).flatten(1).any(1) if before.ndim > 1 else found[name] != before
        allowed = rows.get(name.removeprefix("backbone."))
        assert moved.any() == (allowed is not None), name
        assert allowed is None or not moved[~allowed].any(), name  # a dead unit's row may stay


class Outputs(Method):
    """Outputs with the adapters still beside the weights, and the start's."""

    order = 1

    def on_train_start(self, trainer, module):
        self.start = module.model.eval()(random_images(4)).detach()
        module.model.train()

    def on_train_end(self, trainer, module):
        self.end = module.model.eval()(random_images(4)).detach()


@pytest.mark.parametrize("case", CASES)
def test_merging_changes_no_output(case):
    make, targets, _ = CASES[case]
    seen = Outputs()
    model = fit(make(), adapters(targets), seen)
    assert torch.equal(seen.start, make()(random_images(4)))
    assert torch.allclose(seen.end, model(random_images(4)), atol=1e-5)
    assert not torch.allclose(seen.end, seen.start, atol=1e-3)


class Keep(L.Callback):
    """Saves a checkpoint after the first epoch."""

    def __init__(self, file):
        self.file = file

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.file)


def test_a_checkpoint_in_mid_fit_is_restored(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = FineTuner(small_vit(), SPACE, lambda groups: torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM), lr=LR)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=[*lora(), *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module.train(), datamodule=Data(2), ckpt_path=ckpt_path, weights_only=False if ckpt_path else None)
        return module.model.state_dict()

    whole = run(Keep(tmp_path / "half.ckpt"))
    kept = torch.load(tmp_path / "half.ckpt", weights_only=False)["state_dict"]
    assert "model.backbone.blocks.0.attn.qkv.parametrizations.weight.0.b" in kept
    assert same(whole, run(ckpt_path=tmp_path / "half.ckpt"))


def test_what_trains_beside_the_adapters():
    start = small_vit().state_dict()
    found = fit(small_vit(), adapters(["q"], train=["head", "tokens", "norms"])).state_dict()
    moved = {name.removeprefix("backbone.") for name in start if not torch.equal(start[name], found[name])}
    qkv = {f"blocks.{b}.attn.qkv.weight" for b in (0, 1)}
    assert moved == {"cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias"} | qkv


def test_the_seed_draws_a():
    found = [fit(small_vit(), adapters(["q"], seed=seed)).state_dict() for seed in (0, 0, 1)]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


@pytest.mark.slow
def test_two_processes_are_one(gloo_pool):
    one = fit(small_vit(), *lora()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, "vit", lora, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5
    one = fit(wider_convnet(), adapters(["conv1x1", "linear"])).state_dict()
    first, second = gloo_pool.run(wide_in_pool)
    assert same(first, second)
    assert furthest(one, first) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_in_bfloat16_weights_stay_finite(case):
    make, targets, where = CASES[case]
    found = fit(make(), adapters(targets), precision="bf16-mixed").state_dict()
    assert all(t.isfinite().all() and t.dtype != torch.bfloat16 for t in found.values())
    assert 0 < furthest(found, loop(make(), where)) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "method.lora.rank: expected 1 or more, got 0"),
        ({"alpha": 0.0}, "method.lora.alpha: expected a finite number above 0, got 0.0"),
        ({"alpha": float("nan")}, "method.lora.alpha: expected a finite number above 0, got nan"),
        ({"targets": []}, r"method.lora.targets: expected a list like \[q, v\], got \[\]"),
        ({"targets": "q"}, r"method.lora.targets: expected a list like \[q, v\], got 'q'"),
        ({"train": ["bias"]}, r"method.lora.train: expected a list of any of head, tokens, norms, got \['bias'\]"),
    ],
)
def test_a_wrong_option_has_its_sentence(options, message):
    with pytest.raises(RibError, match=message):
        LoRA(**options)


def test_a_target_that_the_model_lacks_names_those_it_has():
    with pytest.raises(RibError, match="this model has no conv1x1; targets that it has: linear, q, k, v, proj, mlp"):
        fit(small_vit(), LoRA(targets=["q", "conv1x1"]))
    with pytest.raises(RibError, match="this model has no q; targets that it has: conv1x1, linear"):
        fit(wider_convnet(), LoRA())
    with pytest.raises(RibError, match="this model has no q; targets that it has: none"):
        fit(small_convnet(), LoRA())
