"""FineTuner against a plain PyTorch loop, its schedule against the formula, and the hooks of methods."""

from __future__ import annotations

import math
from functools import partial

import lightning.pytorch as L
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from rib.data.labels import LabelSpace
from rib.methods.base import Method
from rib.methods.ewc import EWC
from rib.training.module import FineTuner
from rib.training.schedule import warmup_cosine
from tests.support.nets import NETS, random_images, small_convnet, small_vit

SPACE = LabelSpace(((3,), (1, 5), (0,), (9, 2), (11,), (12,)))
BATCHES = [(random_images(8, n), torch.arange(8) % len(SPACE), torch.arange(8)) for n in range(6)]


class Data(L.LightningDataModule):
    """Six batches, in order, and the same images for a Fisher."""

    def train_dataloader(self):
        return DataLoader(BATCHES, batch_size=None)

    def source_images(self, count, seed, rank=0, world=1):
        return [BATCHES[0]], 8


def fit(model, *methods, epochs=2, **options):
    options = {"lr": 0.05, "warmup_steps": 3, **options}
    module = FineTuner(model, SPACE, partial(torch.optim.SGD, lr=options["lr"], momentum=0.9), **options)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(methods),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.train()
    trainer.fit(module, datamodule=Data())
    return model.state_dict()


@pytest.mark.parametrize("net", NETS)
def test_it_trains_as_a_plain_loop_does(net):
    found = fit(NETS[net]())
    model = NETS[net]().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(12):
        images, labels, _ = BATCHES[step % 6]
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))
        optimizer.param_groups[0]["lr"] = 0.05 * factor
        logits = torch.stack([model(images)[:, list(g)].amax(1) for g in SPACE.groups], 1)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    # The loop above runs the model once a class, which moves BatchNorm's statistics six times.
    for name, p in model.named_parameters():
        assert torch.allclose(found[name], p, atol=1e-5), name


def test_the_schedule_is_the_papers():
    factors = [warmup_cosine(step, 196, 1000) for step in range(1000)]
    assert factors[0] == 1 / 196
    assert factors[195] == 1
    assert factors[196] == 1
    assert factors[598] == pytest.approx(0.5)
    assert factors[-1] < 1e-5
    assert warmup_cosine(0, 0, 0) == 1


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_norm_statistics_move_only_when_they_may(freeze):
    start = small_convnet().state_dict()
    end = fit(small_convnet(), freeze_batch_norm=freeze)
    moved = [name for name in start if "running" in name and not torch.equal(start[name], end[name])]
    assert bool(moved) != freeze


def test_at_learning_rate_zero_nothing_moves_with_frozen_statistics():
    for net in NETS.values():
        start, end = net().state_dict(), fit(net(), lr=0.0, freeze_batch_norm=True)
        assert all(torch.equal(start[name], end[name]) for name in start)


class Nothing(Method):
    """Overrides nothing."""


def test_a_method_that_overrides_nothing_is_plain_fine_tuning():
    plain, with_nothing = fit(small_vit()), fit(small_vit(), Nothing())
    assert all(torch.equal(plain[name], with_nothing[name]) for name in plain)


class Everything(Method):
    """Counts its moments, trains the head alone, and pulls it to zero after each step."""

    def __init__(self):
        self.penalties, self.steps = 0, 0

    def parameter_groups(self, module):
        return [{"params": list(module.model.backbone.head.parameters())}]

    def penalty(self, module, step):
        self.penalties += 1
        assert step.outputs.shape == (8, 20)
        assert step.logits.shape == (8, len(SPACE))
        return step.logits.sum() * 0

    def after_step(self, module):
        self.steps += 1
        with torch.no_grad():
            module.model.backbone.head.weight.zero_()


def test_a_method_has_its_moments():
    method = Everything()
    start, end = small_vit().state_dict(), fit(small_vit(), method)
    assert (method.penalties, method.steps) == (12, 12)
    assert {name for name in start if not torch.equal(start[name], end[name])} == {
        "backbone.head.weight",
        "backbone.head.bias",
    }
    assert (end["backbone.head.weight"] == 0).all()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("strength", [0.5, 1e6])
def test_the_first_steps_of_ewc_are_its_formula(net, strength):
    """Two steps without warm-up: the first has no penalty, the second that of one displacement."""
    found = fit(NETS[net](), EWC(strength, fisher="identity"), warmup_steps=0, freeze_batch_norm=True, epochs=1)
    model = NETS[net]().eval()
    anchor = [p.detach().clone() for p in model.parameters()]
    cap = min(1, 1 / (0.05 * strength))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(6):
        images, labels, _ = BATCHES[step]
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 6))
        loss = F.cross_entropy(SPACE.project(model(images)), labels)
        moved = sum(((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchor, strict=True))
        optimizer.zero_grad()
        (loss + strength / 2 * cap * moved).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(found[name], p, atol=1e-5), name


def test_ewc_never_diverges_on_a_batch_norm_net():
    for strength in (1, 1e3, 1e6):
        end = fit(small_convnet(), EWC(strength), epochs=4, freeze_batch_norm=True)
        assert all(t.isfinite().all() for t in end.values())


def test_dropout_is_seeded_by_the_step():
    def with_dropout():
        model = small_vit()
        model.backbone.head_drop = torch.nn.Dropout(0.5)
        return model

    one, again, other = (fit(with_dropout(), seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
