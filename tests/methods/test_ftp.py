"""FTP against a plain loop of the authors' code, its projection, and edge cases."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from rib.methods.ftp import FTP
from rib.training.module import FineTuner
from rib.training.schedule import warmup_cosine
from tests.support.fitting import LR, SPACE, batch, fit, furthest, plain
from tests.support.nets import NETS, small_vit

STEPS = 8
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "nesterov with weight decay": partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": torch.optim.AdamW,
}


class Reference:
    """GT-RIPL/FTP's algorithm, one tensor at a time in float64, written anew from reading it (util/FTP.py)."""

    def __init__(self, mu=0.01, k=1.0):
        self.mu, self.k, self.t, self.kept = mu, k, 0, {}

    def project(self, name, new, anchor, gradient):
        """``new`` is the optimizer's proposal, ``gradient`` the one that led to it; returns the projected weights."""
        new, anchor, gradient = (x.detach().double() for x in (new, anchor, gradient))
        c = new - anchor
        # A sum over no dimension is a sum over all: a vector has one norm.
        over = tuple(range(1, c.ndim)) or tuple(range(c.ndim))
        norms = c.abs().sum(dim=over, keepdim=True) + 1e-8
        if name not in self.kept:
            gamma, m, v = 1e-8, 0.0, 0.0
        else:
            gamma, m, v, c_before, norms_before = self.kept[name]
            slope = float(((gradient * c_before).sum(dim=over, keepdim=True) / norms_before).sum())
            slope *= self.k if slope > 0 else 1.0
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            gamma -= self.mu * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)) ** 0.5 + 1e-8)
            gamma = min(max(gamma, 1e-8), float(norms.max()))
        self.kept[name] = (gamma, m, v, c, norms)
        return anchor + (gamma / norms).clamp(0, 1) * c

    def radius(self, name):
        return self.kept[name][0]


def by_the_reference(net, optimizer, lr, **options):
    """A plain PyTorch loop with cosine, and the radii after each step."""
    model, start = NETS[net]().eval(), dict(NETS[net]().named_parameters())
    free = {"vit": "backbone.head", "convnet": "backbone.5"}[net]
    stepper, reference, radii = optimizer(model.parameters(), lr=lr), Reference(**options), []
    for step in range(STEPS):
        stepper.param_groups[0]["lr"] = lr * warmup_cosine(step, 0, STEPS)
        images, labels, _ = batch(step)
        stepper.zero_grad()
        F.cross_entropy(SPACE.project(model(images)), labels).backward()
        stepper.step()
        reference.t += 1
        held = {n: p for n, p in model.named_parameters() if not n.startswith(free)}
        with torch.no_grad():
            for name, p in held.items():
                p.copy_(reference.project(name, p, start[name], p.grad))
        radii.append([reference.radius(name) for name in held])
    return model.state_dict(), torch.tensor(radii)


class Watch(FTP):
    """Keeps the radii of every step."""

    seen: list[torch.Tensor]

    def after_step(self, module):
        super().after_step(module)
        self.seen = [*getattr(self, "seen", []), self._state[:, 0].clone()]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("anneal", [1.0, 0.2])
def test_every_step_is_that_of_the_authors_code(net, name, anneal):
    optimizer, lr = OPTIMIZERS[name], 0.003 if name == "adamw" else LR
    method = Watch(anneal=anneal)
    model = NETS[net]()
    found = fit(model, method, steps=STEPS, lr=lr, optimizer=optimizer).state_dict()
    expected, radii = by_the_reference(net, optimizer, lr, k=anneal)
    assert torch.allclose(torch.stack(method.seen), radii.float(), rtol=2e-2, atol=1e-5)
    # float32 sums in another order: at most 4e-6 on one CPU, 1.03e-5 on another.
    assert furthest(found, expected) < 3e-5
    assert furthest(found, plain(net, steps=STEPS, lr=lr, optimizer=optimizer)) > 1e-3


def test_a_bias_is_one_ball_and_its_radius_is_used_up():
    """Element by element the radius of a vector would hold nothing: no element moves that far."""
    method = FTP(rate=0.001)
    found = fit(small_vit(), method, steps=6).backbone.state_dict()
    free, start = plain("vit", steps=6), small_vit().backbone.state_dict()
    vectors = [n for n in method._names if start[n].ndim == 1]
    assert vectors
    held = 0
    for name in vectors:
        radius = float(method._state[method._names.index(name), 0])
        moved, freely = (w - start[name] for w in (found[name], free[f"backbone.{name}"]))
        assert moved.abs().sum() <= radius + 1e-6
        held += bool(freely.abs().sum() > 2 * moved.abs().sum())
    assert held > len(vectors) / 2


def test_no_radius_exceeds_the_largest_row():
    """At a rate far too large, radii unclipped would reach hundreds and hold nothing ever after."""
    method = Watch(rate=1e3)
    fit(small_vit(), method, steps=5)
    free, start = plain("vit", steps=5), small_vit().state_dict()
    largest = max(float((free[n] - start[n]).abs().sum()) for n in start)
    for radii in method.seen[1:]:
        assert float(radii.min()) > 0.99e-8
        assert 0.01 < float(radii.max()) < 2 * largest < 700


def test_a_fixed_radius_projects_each_row_onto_its_ball():
    radius = 1e-3
    found = fit(small_vit(), FTP(radius)).backbone.state_dict()
    start = small_vit().backbone.state_dict()
    for name, tensor in found.items():
        moved = (tensor - start[name]).reshape(len(tensor) if tensor.ndim > 1 else 1, -1)
        norms = moved.abs().sum(1)
        if name.startswith("head"):
            assert norms.max() > radius
        else:
            assert norms.max() <= radius * (1 + 1e-3) + 1e-7
    one_step = fit(small_vit(), FTP(radius, exclude_head=False), steps=1).backbone.state_dict()
    free = fit(small_vit(), steps=1).backbone.state_dict()
    name = "blocks.0.mlp.fc1.weight"
    d = free[name] - start[name]
    expected = start[name] + d * (radius / d.abs().sum(1, keepdim=True)).clamp(max=1)
    assert torch.allclose(one_step[name], expected, atol=1e-8)


def test_what_it_has_learned_is_kept_in_checkpoints():
    method, again = FTP(), FTP()
    fit(small_vit(), method, steps=2)
    again._state = torch.zeros_like(method._state)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(again._state, method._state)
    assert again._steps == 2
    assert all(torch.equal(a, b) for a, b in zip(again._directions, method._directions, strict=True))
    assert method.report()["ftp.largest_radius"] == pytest.approx(float(method._state[:, 0].max()))


def test_a_step_that_float16_skips_leaves_no_trace():
    """The radii's Adam would be nan ever after, and FTP silently plain fine-tuning."""
    module = FineTuner(small_vit(), SPACE, partial(torch.optim.SGD, lr=LR), lr=LR)
    method, optimizer = FTP(), torch.optim.SGD(module.parameters(), lr=LR)
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu"))
    method.setup(module.trainer, module, "fit")
    for number in range(4):
        images, labels, _ = batch(number)
        optimizer.zero_grad()
        F.cross_entropy(SPACE.project(module.model(images)), labels).backward()
        skipped = number == 1
        if skipped:
            for p in module.parameters():
                p.grad.fill_(float("inf"))
        method.on_before_optimizer_step(None, module, optimizer)
        if not skipped:
            optimizer.step()
            method.after_step(module)
    assert method._state.isfinite().all()
    assert 0 < method._state[:, 0].max() <= 2 * 0.01 + 1e-6
    assert method._steps == 3
