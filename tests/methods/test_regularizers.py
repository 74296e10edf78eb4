"""L2-SP, LwF, LDIFS, SPD and EMA against plain loops and closed forms; neutral settings, processes, accumulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.ema import EMA
from rib.methods.ftp import FTP
from rib.methods.l2sp import L2SP
from rib.methods.layer_decay import LayerDecay
from rib.methods.ldifs import LDIFS
from rib.methods.lwf import LwF
from rib.methods.spd import SPD
from rib.methods.surgical import Surgical
from rib.models.layers import blocks
from rib.training.schedule import warmup_cosine
from tests.support.fitting import LR, MOMENTUM, SPACE, batch, fit, fit_in_pool, furthest, plain, same
from tests.support.nets import NETS, SIDE, small_convnet, small_vit

STEPS = 3


def loop(net, penalty=None, after=None, steps=STEPS, rate_of=None):
    """A plain PyTorch loop: SGD, cosine, BatchNorm frozen; ``penalty(model, start, images, outputs)``, ``after``."""
    model, start = NETS[net]().eval(), NETS[net]().eval()
    names = [name for name, _ in model.named_parameters()]
    groups = [{"params": [p], "lr": LR * (1 if rate_of is None else rate_of(n))} for n, p in model.named_parameters()]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * warmup_cosine(step, 0, steps)
        images, labels, _ = batch(step)
        outputs = model(images)
        loss = F.cross_entropy(SPACE.project(outputs), labels)
        if penalty is not None:
            loss = loss + penalty(model, start, images, outputs)
        optimizer.zero_grad()
        loss.backward()
        old = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
        if after is not None:
            with torch.no_grad():
                for name, p, p0, was in zip(names, model.parameters(), start.parameters(), old, strict=True):
                    after(name, p, p0, was)
    return model.state_dict()


def l2(model, start, images, outputs):
    return 1.5 * sum((p - p0).square().sum() for p, p0 in zip(model.parameters(), start.parameters(), strict=True))


def kl(model, start, images, outputs):
    with torch.no_grad():
        p0 = (start(images) / 3).softmax(1)
    return 0.7 * 9 * (p0 * (p0.log() - (outputs / 3).log_softmax(1))).sum(1).mean()


def restricted_kl(model, start, images, outputs):
    with torch.no_grad():
        p0 = (SPACE.project(start(images)) / 2).softmax(1)
    return (p0 * (p0.log() - (SPACE.project(outputs) / 2).log_softmax(1))).sum(1).mean()


def outputs_of_blocks(images, *models):
    """Output of each block, and the input of the first, by model."""
    taken = []
    for each in models:
        found = []
        modules = list(blocks(each.backbone).values())
        hooks = [modules[0].register_forward_pre_hook(lambda _m, given, found=found: found.append(given[0]))]
        hooks += [b.register_forward_hook(lambda _m, _i, out, found=found: found.append(out)) for b in modules]
        each(images)
        taken.append(found)
        for hook in hooks:
            hook.remove()
    return taken


def unit_channels(model, start, images, outputs):
    """Two blocks: their ends and, where something trains before them, what enters; the ConvNet's are maps."""
    now, before = outputs_of_blocks(images, model, start)
    first = int(images.shape == now[0].shape)  # the image itself is no feature
    total = 0.0
    for a, b in zip(now[first:], before[first:], strict=True):
        if a.ndim == 4:
            a, b = a.flatten(2).mT, b.flatten(2).mT
        difference = a / (a.norm(dim=1, keepdim=True) + 1e-10) - (b / (b.norm(dim=1, keepdim=True) + 1e-10)).detach()
        total = total + difference.square().flatten(1).mean(dim=1).mean() / (len(now) - first)
    return 1000 * total


def features(model, start, images, outputs):
    taken = [[f.flatten(1) for f in found[1:]] for found in outputs_of_blocks(images, model, start)]
    distances = [
        (a / a.norm(dim=1, keepdim=True) - b.detach() / b.detach().norm(dim=1, keepdim=True)).square().sum(1).mean()
        for a, b in zip(*taken, strict=True)
    ]
    return 10 * sum(distances) / len(distances)


def project_spd(name, p, p0, was):
    moved, now = was - p0, p - p0
    if float((p.grad * moved).sum()) > 0:  # -<g, d> < 0
        ratio = max(0.0, float((now.norm() - moved.norm()) / now.norm()))
        p -= 0.8 * ratio * now


PENALTIES = {
    "l2sp": (lambda: [L2SP(3.0)], l2, None),
    "lwf": (lambda: [LwF(0.7, temperature=3.0, t_squared=True)], kl, None),
    "lwf restricted": (lambda: [LwF(logits="restricted")], restricted_kl, None),
    "ldifs flattened": (lambda: [LDIFS(10.0, scaling="flattened")], features, None),
    "ldifs": (lambda: [LDIFS(1000.0)], unit_channels, None),
    "spd": (lambda: [SPD(0.8)], None, project_spd),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", PENALTIES)
def test_it_is_the_plain_loop_with_its_formula(net, name):
    make, penalty, after = PENALTIES[name]
    found = fit(NETS[net](), *make(), steps=STEPS).state_dict()
    assert furthest(found, loop(net, penalty, after)) < 2e-6
    assert furthest(found, plain(net, steps=STEPS)) > 1e-5


def test_spd_does_something_where_momentum_overshoots():
    """Large steps: the loop above must have projected, or it tests nothing."""
    projected = []

    def count(name, p, p0, was):
        before = p.clone()
        project_spd(name, p, p0, was)
        projected.append(not torch.equal(before, p))

    loop("vit", after=count, steps=STEPS)
    assert any(projected)


def test_spd_at_strength_1_takes_back_exactly_the_distance_that_was_added():
    """One weight, d = 1, gradient +0.1 (descent points back), momentum drives it out to 1.5: back to 1."""
    module = small_vit()
    method = SPD(1.0)
    p = nn.Parameter(torch.tensor([1.5]))
    fake = type("M", (), {"model": type("B", (), {"parameters": lambda self: iter([p])})()})()
    method._anchor = [torch.tensor([0.0])]
    method._inward, method._distance = torch.tensor([True]), torch.tensor([1.0])
    method.after_step(fake)
    assert p.item() == pytest.approx(1.0)
    method._inward, method._distance = (
        torch.tensor([False]),
        torch.tensor([0.5]),
    )  # the gradient wants it out: nothing is taken back
    method.after_step(fake)
    assert p.item() == pytest.approx(1.0)
    del module


def test_l2sp_on_a_quadratic_rests_at_its_closed_form():
    """argmin a/2 (t - b)^2 + s/2 (t - t0)^2 = (a b + s t0) / (a + s), by gradient descent on its own penalty."""
    a, b, t0, s = 2.0, 5.0, 1.0, 3.0
    p = nn.Parameter(torch.tensor([t0]))
    method = L2SP(s)
    method._anchor = [torch.tensor([t0])]
    module = type("M", (), {"model": type("B", (), {"parameters": lambda self: iter([p])})()})()
    step = type("S", (), {"logits": torch.zeros(1)})()
    for _ in range(200):
        loss = a / 2 * (p - b).square().sum() + method.penalty(module, step)
        (g,) = torch.autograd.grad(loss, p)
        with torch.no_grad():
            p -= 0.1 * g
    assert p.item() == pytest.approx((a * b + s * t0) / (a + s), rel=1e-5)


NEUTRAL = {
    "l2sp": lambda: L2SP(0.0),
    "lwf": lambda: LwF(0.0),
    "lwf augmented": lambda: LwF(0.0, inputs="augmented"),
    "ldifs": lambda: LDIFS(0.0),
    "spd": lambda: SPD(0.0),
    "ftp": lambda: FTP(float("inf")),
    "ema": lambda: EMA(0.0),
    "layer_decay": lambda: LayerDecay(1.0),
    "surgical": lambda: Surgical(power=0.0),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_are_plain_fine_tuning_bit_for_bit(net, name):
    assert same(fit(NETS[net](), NEUTRAL[name]()).state_dict(), plain(net))


def pooled_l2sp():
    return [L2SP(3.0)]


def pooled_lwf():
    return [LwF(2.0)]


def pooled_ldifs():
    return [LDIFS()]


def pooled_spd():
    return [SPD()]


def pooled_ftp():
    return [FTP()]


def pooled_ema():
    return [EMA(0.5)]


def pooled_layer_decay():
    return [LayerDecay()]


def pooled_surgical():
    return [Surgical(samples=16)]


POOLED = (
    pooled_l2sp,
    pooled_lwf,
    pooled_ldifs,
    pooled_spd,
    pooled_ftp,
    pooled_ema,
    pooled_layer_decay,
    pooled_surgical,
)


@pytest.mark.slow
@pytest.mark.parametrize("make", POOLED)
@pytest.mark.parametrize("net", NETS)
def test_two_processes_are_one(net, make, gloo_pool):
    one = fit(NETS[net](), *make()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, make, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5  # gradients are summed in another order
    assert furthest(one, plain(net)) > 1e-6


@pytest.mark.parametrize("make", POOLED)
def test_accumulation_and_half_precision(make):
    """Two batches of 8 are one of 16 as far as a method is concerned: its moments come once a step."""
    found = fit(small_vit(), *make(), steps=4, accumulate=2).state_dict()
    assert furthest(found, plain("vit", steps=4, accumulate=2)) > 1e-6
    half = fit(small_vit(), *make(), precision="bf16-mixed").state_dict()
    assert all(t.isfinite().all() for t in half.values())


def test_penalties_scale_with_accumulation_as_the_loss_does():
    """LwF's mean over images: two accumulated batches of 8 give the step of their 16 images together."""
    accumulated = fit(small_vit(), LwF(2.0), steps=2, accumulate=2, lr=LR).state_dict()
    model, start = small_vit().eval(), small_vit().eval()
    images, labels, _ = (torch.cat(parts) for parts in zip(batch(0), batch(1), strict=True))
    outputs = model(images)
    with torch.no_grad():
        p0 = (start(images) / 2).softmax(1)
    loss = F.cross_entropy(SPACE.project(outputs), labels)
    (loss + 2 * (p0 * (p0.log() - (outputs / 2).log_softmax(1))).sum(1).mean()).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= LR * p.grad
    assert furthest(accumulated, model.state_dict()) < 1e-6


def test_the_teacher_of_lwf_is_in_eval_mode():
    """The student's BatchNorm takes the batch's statistics, its teacher the stored ones: their KL, by hand."""
    seen = []

    class Watch(Method):
        def penalty(self, module, step):
            seen.append(lwf.penalty(module, step).detach())

    lwf = LwF(1.0)
    fit(small_convnet(), lwf, Watch(), steps=1, lr=0.0, freeze_batch_norm=False)
    images = batch(0)[0]
    with torch.no_grad():
        p0, p = (m(images).div(2).softmax(1) for m in (small_convnet().eval(), small_convnet().train()))
    assert float(seen[0]) == pytest.approx(float((p0 * (p0 / p).log()).sum(1).mean()), rel=1e-4)
    assert float(seen[0]) > 1e-4


def test_ema_is_the_running_mean_of_the_weights():
    ends = [fit(small_convnet(), Upto(k), steps=3).state_dict() for k in (1, 2, 3)]
    expected = {}
    for name, tensor in ends[0].items():
        mean = tensor.clone()
        for end in ends[1:]:
            mean = mean * 0.6 + end[name] * 0.4 if tensor.is_floating_point() else end[name]
        expected[name] = mean
    found = fit(small_convnet(), EMA(0.6), steps=3).state_dict()
    floats = {n: t for n, t in expected.items() if t.is_floating_point()}
    assert furthest(floats, {n: found[n] for n in floats}) < 1e-6


class Upto(L2SP):
    """Plain fine-tuning that stands still after k steps."""

    def __init__(self, k):
        super().__init__(0.0)
        self.k, self.steps = k, 0

    def after_step(self, module):
        self.steps += 1
        if self.steps == self.k:
            self.kept = [p.detach().clone() for p in module.model.parameters()]
        if self.steps > self.k:
            with torch.no_grad():
                for p, kept in zip(module.model.parameters(), self.kept, strict=True):
                    p.copy_(kept)


def test_lwf_on_other_inputs_leaves_batch_norm_alone_and_differs(tmp_path):
    from torchvision.io import write_png

    for i in range(5):
        write_png(batch(9)[0][i], str(tmp_path / f"{i}.png"))
    source, augmented = (
        fit(small_convnet(), LwF(2.0, inputs=i), freeze_batch_norm=False).state_dict() for i in ("source", "augmented")
    )
    alone = plain("convnet", freeze_batch_norm=False)
    assert furthest(source, augmented) > 1e-6
    statistics = [n for n in alone if "running" in n]
    first_step = fit(small_convnet(), LwF(2.0, inputs="augmented"), freeze_batch_norm=False, steps=1).state_dict()
    first_alone = plain("convnet", freeze_batch_norm=False, steps=1)
    assert all(torch.equal(first_step[n], first_alone[n]) for n in statistics)
    method = LwF(2.0, inputs=str(tmp_path))
    assert len(method._files) == 5


WRONG = [
    (lambda: L2SP(-1.0), r"method\.l2sp\.strength: expected a finite number of 0 or more, got -1"),
    (lambda: LwF(float("nan")), r"method\.lwf\.strength: .* got nan"),
    (lambda: LwF(temperature=0.0), r"method\.lwf\.temperature: expected a finite number above 0, got 0"),
    (lambda: LwF(logits="some"), r"method\.lwf\.logits: expected all or restricted, got 'some'"),
    (lambda: LwF(inputs="/nowhere"), r"method\.lwf\.inputs: expected source, augmented, or a folder with images"),
    (lambda: LDIFS(float("inf")), r"method\.ldifs\.strength"),
    (lambda: SPD(-0.1), r"method\.spd\.strength"),
    (lambda: EMA(1.0), r"method\.ema\.decay: expected a number from 0 to below 1, got 1"),
    (lambda: LayerDecay(0.0), r"method\.layer_decay\.decay"),
    (lambda: Surgical(samples=0), r"method\.surgical\.samples"),
    (lambda: Surgical(power=-1.0), r"method\.surgical\.power"),
    (lambda: FTP(-1.0), r"method\.ftp\.radius"),
    (lambda: FTP(anneal=2.0), r"method\.ftp\.anneal"),
    (lambda: FTP(rate=-1.0), r"method\.ftp\.rate"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_misuse_is_one_sentence(wrong, sentence):
    with pytest.raises(RibError, match=sentence) as error:
        wrong()
    assert "\n" not in str(error.value)


def test_hooks_and_teachers_are_gone_afterwards():
    model, method, lwf = small_vit(), LDIFS(), LwF()
    fit(model, method, lwf)
    assert all(not block._forward_hooks for block in blocks(model.backbone).values())
    assert method._teacher is None and lwf._teacher is None
    assert model(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)).shape == (1, 20)
