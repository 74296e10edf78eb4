"""Features of a linear probe and outputs of LwF's teacher, computed once: the same as without, and never when wrong."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist
from torch import nn

from rib.data.datamodule import RIBDataModule
from rib.data.scan import scan
from rib.data.transform import Transform
from rib.methods.base import Method
from rib.methods.ema import EMA
from rib.methods.ewc import EWC
from rib.methods.ldifs import LDIFS
from rib.methods.linear_probe import LinearProbe
from rib.methods.lwf import LwF
from rib.models.classifier import Classifier
from rib.training.module import FineTuner
from tests.data.trees import few, fill, photograph
from tests.support.fitting import fit, furthest, same
from tests.support.nets import HALF, NETS, OUTPUTS, SIDE, small_convnet

CLASSES, EACH = 3, 7
LARGE = 45
"""Images a class with which the pass has three batches, so that two processes have different numbers of them."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root, spec = tmp_path_factory.mktemp("source"), few("imagenet_sketch", CLASSES, EACH)
    fill(root / "sketch", spec.classes, EACH, ".png", photograph)
    return scan(spec, root)


@pytest.fixture
def data(tree):
    def make(augment="none", **options):
        transform = Transform(SIDE, 1.0, "bicubic", HALF, HALF)
        return RIBDataModule(tree, {}, transform, batch_size=8, workers=0, augment=augment, **options)

    return make


@pytest.fixture
def plainly(monkeypatch):
    """Switches the constants off, which gives the simple way that they are compared with."""

    def off():
        monkeypatch.setattr(FineTuner, "fixed_images", lambda *_: None)

    return off


@pytest.fixture
def passes(monkeypatch):
    """Batches that went through each network as a whole: their numbers of images."""
    seen = []
    forward = Classifier.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", counted)
    return seen


def trained(net, *methods, data, epochs=2, lr=0.5, **options):
    return fit(NETS[net](), *methods, data=data, epochs=epochs, lr=lr, **options).state_dict()


STACKS = {
    "probe": lambda: [LinearProbe()],
    "probe and others": lambda: [LinearProbe(), EWC(samples=4), LwF(), EMA(decay=0.5)],
    "lwf": lambda: [LwF(5.0)],
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("stack", STACKS)
def test_weights_are_those_of_the_simple_way(data, plainly, passes, net, stack, precision):
    found = trained(net, *STACKS[stack](), data=data(), epochs=3, precision=precision)
    with_constants = sum(passes)
    passes.clear()
    plainly()
    expected = trained(net, *STACKS[stack](), data=data(), epochs=3, precision=precision)
    largest = max(float(w.abs().max()) for w in expected.values())
    assert furthest(found, expected) < (1e-5 if precision == "32-true" else 2e-2) * largest
    assert furthest(found, NETS[net]().state_dict()) > 1e-2
    assert sum(passes) - with_constants >= 2 * CLASSES * EACH - 4, "one pass in place of three"


def test_without_strength_lwf_is_plain_fine_tuning_bit_for_bit(data):
    assert same(trained("vit", LwF(0), data=data()), trained("vit", data=data()))


def test_a_probe_reads_no_image_in_its_epochs(data, monkeypatch):
    source, shapes = data(), []
    step = FineTuner.training_step

    def seen(self, batch, number):
        shapes.append(tuple(batch[0].shape[1:]))
        return step(self, batch, number)

    monkeypatch.setattr(FineTuner, "training_step", seen)
    trained("vit", LinearProbe(), data=source)
    assert set(shapes) == {(0,)}
    shapes.clear()
    trained("vit", LinearProbe(), LDIFS(), data=data())
    assert set(shapes) == {(3, SIDE, SIDE)}


class Unfreezes(L.Callback):
    """Lets a layer train from the second epoch on, as callbacks of Lightning's do."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            layer = next(iter(module.backbone.children()))
            layer.requires_grad_(True)
            trainer.optimizers[0].add_param_group({"params": list(layer.parameters()), "lr": 0.1, "initial_lr": 0.1})
            trainer.lr_scheduler_configs.clear()


class Moves(L.Callback):
    """Changes a frozen weight in place."""

    @torch.no_grad()
    def on_train_batch_start(self, trainer, module, batch, number):
        if trainer.current_epoch == 1:
            next(module.backbone.parameters()).mul_(1.1)


class Replaces(L.Callback):
    """Puts another layer in the place of one."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            name, layer = next(iter(module.backbone.named_children()))
            torch.manual_seed(5)
            new = type(layer)(3, 8, 3, stride=2) if isinstance(layer, nn.Conv2d) else nn.Identity()
            setattr(module.backbone, name, new.requires_grad_(False).eval())


class TrainMode(L.Callback):
    """Puts the network into train mode behind the probe's back."""

    def on_train_batch_start(self, trainer, module, batch, number):
        module.model.train(trainer.current_epoch >= 1)


class Tilts(Method):
    """A user's method that changes the backbone after each step."""

    @torch.no_grad()
    def after_step(self, module):
        next(module.backbone.parameters()).mul_(1.01)


class Darkens(L.Callback):
    """A user's callback that changes the images of a batch in place."""

    def on_train_batch_start(self, trainer, module, batch, number):
        batch[0].div_(2, rounding_mode="floor")


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("fool", [Unfreezes, Moves, Replaces, TrainMode, Tilts], ids=lambda fool: fool.__name__)
def test_a_network_that_changes_is_looked_at_again(data, plainly, monkeypatch, fool, trusted):
    """Code of the user's switches the features off; were it trusted, they would be dropped when the network changes."""
    if trusted:
        monkeypatch.setattr("rib.training.frozen_features._is_ours", lambda _: True)
    options = {"freeze_batch_norm": False}
    found = trained("convnet", LinearProbe(), fool(), data=data(), **options)
    plainly()
    expected = trained("convnet", LinearProbe(), fool(), data=data(), **options)
    assert furthest(found, expected) < 1e-5
    assert furthest(expected, trained("convnet", LinearProbe(), data=data(), **options)) > 1e-4


@pytest.mark.parametrize("make", [lambda: [LinearProbe()], lambda: [LwF(5.0)]], ids=["probe", "lwf"])
@pytest.mark.parametrize("case", ["flip", "darkens", "once"])
def test_outputs_that_are_no_constants_are_computed_at_each_step(data, plainly, passes, case, make):
    def fitted():
        methods = [*make(), *([Darkens()] if case == "darkens" else [])]
        source, epochs = data("flip" if case == "flip" else "none"), 1 if case == "once" else 2
        return trained("vit", *methods, data=source, epochs=epochs), list(passes)

    found, seen = fitted()
    passes.clear()
    plainly()
    expected, plain = fitted()
    assert same(found, expected)
    assert seen == plain


def test_features_are_not_kept_where_more_than_the_head_trains(data, passes):
    trained("vit", LinearProbe("unfrozen_norms"), data=data())
    assert sum(passes) == 2 * CLASSES * EACH


class Noisy(nn.Module):
    """A layer that is random in eval mode too."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class Scaled(nn.Module):
    """Something behind the head."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images) * 0.5


@pytest.mark.parametrize("kind", ["random", "behind the head", "statistics of the batch"])
def test_a_network_whose_features_cannot_be_kept_trains_without(data, plainly, kind):
    def fitted(method):
        model = small_convnet()
        if kind == "random":
            model.backbone[2] = nn.Sequential(nn.ReLU(), Noisy())
        elif kind == "behind the head":
            model = Classifier(Scaled(model.backbone), HALF, HALF).eval()
        else:
            model.backbone[1] = nn.BatchNorm2d(8, track_running_stats=False)
        return fit(model, method(), data=data(), epochs=2, lr=0.5).state_dict()

    methods = [LinearProbe] if kind == "behind the head" else [LinearProbe, LwF]
    found = [fitted(method) for method in methods]
    plainly()
    for one, method in zip(found, methods, strict=True):
        assert same(one, fitted(method))


def test_outputs_that_do_not_fit_into_memory_are_computed_at_each_step(data, plainly, monkeypatch, capsys):
    monkeypatch.setattr("rib.methods.constants.available_memory", lambda: CLASSES * EACH * OUTPUTS * 4)
    found = trained("vit", LwF(5.0), data=data())
    assert "outputs of the start model for 21 images take 1.7 kB, more than a tenth of the free memory" in "".join(
        capsys.readouterr()
    )
    plainly()
    assert same(found, trained("vit", LwF(5.0), data=data()))


def test_batches_of_the_pass_are_the_same_for_any_number_of_processes(data):
    batches, count = data().every_source_image()
    assert count == CLASSES * EACH
    assert torch.cat([places for *_, places in batches]).tolist() == list(range(count))
    assert len(list(data().every_source_image(1, 2)[0])) == 0


def fit_a_share(folder, stack):
    """Train in one process of the pool, on its share of the images."""
    spec = few("imagenet_sketch", CLASSES, LARGE)
    source = RIBDataModule(scan(spec, folder), {}, Transform(SIDE, 1.0, "bicubic", HALF, HALF), batch_size=8, workers=0)
    return trained("vit", *STACKS[stack](), data=source, lr=0.05, two=dist.is_initialized())


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["probe", "lwf"])
def test_two_processes_are_one(tmp_path, gloo_pool, stack):
    fill(tmp_path / "sketch", few("imagenet_sketch", CLASSES, LARGE).classes, LARGE, ".png", photograph)
    first, second = gloo_pool.run(fit_a_share, tmp_path, stack)
    assert same(first, second)
    assert furthest(fit_a_share(tmp_path, stack), first) < 1e-5
