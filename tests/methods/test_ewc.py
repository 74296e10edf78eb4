"""Elastic weight consolidation: labels for the Fisher, its standard error, both forms, one process and two."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rib.errors import DivergedError, RibError
from rib.methods.ewc import EWC
from rib.methods.fisher import dataset_labels, sample_labels, squared_gradients
from rib.methods.l2sp import L2SP
from rib.methods.quadratic_penalty import quadratic, stability_bound
from rib.runtime.artifacts import ArtifactCache
from rib.training.schedule import warmup_cosine
from tests.support.fitting import LR, MOMENTUM, SPACE, batch, fit, fit_in_pool, furthest, plain, same
from tests.support.nets import NETS, small_vit


def ewc():
    return [EWC(5.0, samples=16)]


def proximal():
    return [EWC(5.0, samples=16, form="proximal", labels="dataset", normalise="tensor")]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("form", ["penalty", "proximal"])
def test_strength_zero_is_plain_fine_tuning(net, form):
    assert same(fit(NETS[net](), EWC(0.0, fisher="identity", form=form)).state_dict(), plain(net))


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("make", [ewc, proximal])
def test_two_processes_are_one(net, make, gloo_pool):
    one = fit(NETS[net](), *make()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, make, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5  # gradients are summed in another order
    assert not same(one, plain(net))


@pytest.mark.parametrize("net", NETS)
def test_the_proximal_form_is_its_formula(net):
    found = fit(NETS[net](), EWC(7.0, fisher="identity", form="proximal")).state_dict()
    model = NETS[net]().eval()
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    for step in range(3):
        lr = optimizer.param_groups[0]["lr"] = LR * warmup_cosine(step, 0, 3)
        images, labels, _ = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(SPACE.project(model(images)), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for p, p0 in zip(model.parameters(), start, strict=True):
                p.copy_(p0 + (p - p0) / (1 + lr / (1 - MOMENTUM) * 7.0))
    assert furthest(found, model.state_dict()) < 1e-6


@pytest.mark.parametrize("form", ["penalty", "proximal"])
def test_on_a_quadratic_both_forms_rest_at_the_closed_form(form):
    """argmin a/2 (t - b)^2 + s F/2 (t - t0)^2 = (a b + s F t0) / (a + s F)."""
    a, b, t0, s, f, lr = 1.0, 3.0, 1.0, 2.0, 0.5, 0.01
    p = nn.Parameter(torch.tensor([t0]))
    optimizer = torch.optim.SGD([p], lr=lr, momentum=0.9)
    method = EWC(s, fisher="identity", form=form)
    method._anchor, method._root = [torch.tensor([t0])], [torch.tensor([s * f]).sqrt()]

    class Module:
        model = nn.ParameterList([p])
        trainer = type("T", (), {"optimizers": [optimizer]})()

    step = type("S", (), {"logits": torch.zeros(1)})()
    for _ in range(3000):
        loss = a / 2 * (p - b).square().sum()
        penalty = method.penalty(Module, step)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        method.after_step(Module)
    assert p.item() == pytest.approx((a * b + s * f * t0) / (a + s * f), rel=0.02)


def test_the_proximal_form_stands_any_strength():
    found = fit(small_vit(), EWC(1e30, samples=16, form="proximal")).state_dict()
    start = small_vit().state_dict()
    assert all(t.isfinite().all() for t in found.values())
    assert furthest(found, start) < furthest(plain("vit"), start) / 100


def test_dataset_labels_are_the_likeliest_output_of_the_class():
    model = nn.Linear(4, 20)
    images = torch.randn(6, 4)
    found = dataset_labels(model, images, torch.arange(6), SPACE)
    logits = model(images).tolist()
    assert found.tolist() == [max(group, key=logits[i].__getitem__) for i, group in enumerate(SPACE.groups)]


def fitted(**options):
    method = EWC(1.0, samples=16, **options)
    fit(small_vit(), method, steps=1)
    return method


def test_each_choice_of_labels_is_another_fisher():
    sampled, dataset, expected = (fitted(labels=labels) for labels in ("sampled", "dataset", "expected"))
    for one, other in ((sampled, dataset), (sampled, expected), (dataset, expected)):
        assert any(not torch.allclose(a, b) for a, b in zip(one._root, other._root, strict=True))


def test_normalised_within_each_tensor_every_mean_is_one():
    for root in fitted(normalise="tensor", form="proximal")._root:
        mean = float((root**2).mean())
        assert mean == pytest.approx(1, rel=1e-4) or mean == 0


def test_the_error_is_that_of_the_per_image_means(tmp_path):
    method = fitted()
    model = small_vit()
    images = torch.cat([batch(0)[0], batch(1)[0]])
    uniforms = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = sample_labels(model, images, uniforms)
    each = []
    for i in range(16):
        loss = F.cross_entropy(model(images[i : i + 1]), ids[i : i + 1])
        each.append(sum(float(g.double().square().sum()) for g in torch.autograd.grad(loss, list(model.parameters()))))
    each = torch.tensor(each, dtype=torch.float64)
    expected = float(each.std() / math.sqrt(16) / each.mean())
    assert method.report()["ewc.fisher_error"] == pytest.approx(expected, rel=1e-3)
    mean = float(each.mean()) / sum(p.numel() for p in model.parameters())
    assert method.report()["ewc.fisher_mean"] == pytest.approx(mean, rel=1e-3)
    # The same from the store.
    memo = ArtifactCache(tmp_path, {"start": "vit"})
    reports = []
    for _ in range(2):
        again = EWC(1.0, samples=16)
        fit(small_vit(), again, steps=1, memo=memo)
        reports.append(again.report())
    assert len(list(tmp_path.iterdir())) == 1
    assert reports[0] == reports[1] == method.report()


def test_lambda_is_what_multiplies_the_fisher_as_it_was():
    """strength/2 sum F/mean d^2 = lambda/2 sum F d^2 for any displacement, where nothing is capped."""
    method = EWC(0.01, samples=16, form="proximal")
    fit(small_vit(), method, steps=1)
    model = small_vit()
    images = torch.cat([batch(0)[0], batch(1)[0]])
    uniforms = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, _ = squared_gradients(model, images, sample_labels(model, images, uniforms))
    told = method.report()["ewc.lambda"]
    for root, (name, square) in zip(method._root, total.items(), strict=True):
        assert torch.allclose(root**2, told * square / 16, rtol=1e-3, atol=1e-9), name
    assert "ewc.lambda" not in fitted(normalise="tensor").report()
    assert "ewc.lambda" not in fitted(fisher="identity").report()


def test_one_image_leaves_no_error_to_estimate():
    method = EWC(1.0, samples=1)
    fit(small_vit(), method, steps=1)
    assert method.report().keys() == {"ewc.capped_share", "ewc.fisher_mean", "ewc.lambda"}


SGDS = {
    "plain": ({}, 2.0),
    "momentum": ({"momentum": 0.9}, 3.8),
    "nesterov": ({"momentum": 0.9, "nesterov": True}, 3.8 / 2.8),
    "nesterov, nearly all kept": ({"momentum": 0.99, "nesterov": True}, 3.98 / 2.98),
}


def swing(optimizer, curvature, steps):
    """Return the path of a weight that starts at 1 and is pulled to 0 with a curvature."""
    p = nn.Parameter(torch.ones(1, dtype=torch.float64))
    stepper, places = optimizer([p]), []
    for _ in range(steps):
        stepper.zero_grad()
        quadratic([p], [torch.zeros(1, dtype=torch.float64)], [torch.full((1,), curvature).double().sqrt()]).backward()
        stepper.step()
        places.append(abs(p.item()))
    return places


@pytest.mark.parametrize("name", SGDS)
def test_the_bound_is_where_sgd_stops_coming_to_rest_and_the_cap_is_below_it(name):
    options, factor = SGDS[name]
    make = partial(torch.optim.SGD, lr=0.01, **options)
    bound = stability_bound(make([nn.Parameter(torch.ones(1))]))
    assert bound == pytest.approx(factor / 0.01)
    assert swing(make, 0.98 * bound, 3000)[-1] < 1e-3
    assert swing(make, 1.02 * bound, 3000)[-1] > 1e3
    cap = 1 / 0.01
    assert cap < 0.76 * bound
    for weight_decay in (0.0, 0.1):
        at_the_cap = swing(partial(make, weight_decay=weight_decay), cap, 2000)
        assert max(at_the_cap) < 1
        assert at_the_cap[-1] < 1e-3


def test_one_step_undoes_a_capped_displacement_without_momentum_two_with_nesterovs_and_none_with_plain():
    plain_sgd, heavy, nesterov = (
        swing(partial(torch.optim.SGD, lr=0.01, **SGDS[name][0]), 100.0, 40)
        for name in ("plain", "momentum", "nesterov")
    )
    assert plain_sgd[0] < 1e-9
    assert nesterov[1] < 1e-9
    assert heavy[1] == pytest.approx(0.9)  # it swings through, and dies out by sqrt(.9) a step
    assert max(heavy[30:]) < 0.9**15


def test_adamw_needs_no_cap():
    """Its step is about lr whatever the curvature, capped or a thousand times that."""
    make = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
    assert stability_bound(make([nn.Parameter(torch.ones(1))])) == float("inf")
    for curvature in (100.0, 1e5):
        places = swing(make, curvature, 600)
        assert max(places) < 1
        assert places[-1] < 0.01


@pytest.mark.parametrize(("factor", "refused"), [(0.9, False), (1.0, True), (30.0, True)])
def test_l2sp_refuses_a_pull_that_sgd_cannot_bear(factor, refused):
    bound = 2 * (1 + MOMENTUM) / LR
    if not refused:
        found = fit(small_vit(), L2SP(factor * bound)).state_dict()
        assert all(t.isfinite().all() for t in found.values())
        return
    with pytest.raises(DivergedError, match=rf"method\.l2sp\.strength: expected less than {bound:.4g}, .* got "):
        fit(small_vit(), L2SP(factor * bound))


def test_l2sp_under_adamw_stands_any_strength():
    found = fit(small_vit(), L2SP(1e6), optimizer=torch.optim.AdamW, lr=1e-3).state_dict()
    assert all(t.isfinite().all() for t in found.values())


WRONG = [
    (lambda: EWC(-1.0), r"method\.ewc\.strength: expected a finite number of 0 or more, got -1"),
    (lambda: EWC(fisher="full"), r"method\.ewc\.fisher: expected diagonal or identity"),
    (lambda: EWC(samples=0), r"method\.ewc\.samples"),
    (lambda: EWC(labels="true"), r"method\.ewc\.labels: expected sampled, dataset, expected, got 'true'"),
    (lambda: EWC(normalise="none"), r"method\.ewc\.normalise"),
    (lambda: EWC(form="prox"), r"method\.ewc\.form: expected penalty or proximal, got 'prox'"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_misuse_is_one_sentence(wrong, sentence):
    with pytest.raises(RibError, match=sentence):
        wrong()


@pytest.mark.parametrize("form", ["penalty", "proximal"])
def test_ewc_accumulates_and_stands_half_precision(form):
    method = EWC(3.0, samples=16, form=form)
    found = fit(small_vit(), method, steps=4, accumulate=2).state_dict()
    assert furthest(found, plain("vit", steps=4, accumulate=2)) > 1e-6
    half = fit(small_vit(), EWC(3.0, samples=16, form=form), precision="bf16-mixed").state_dict()
    assert all(t.isfinite().all() for t in half.values())
