"""Methods in a user's own Trainer and LightningModule: their effect, and what is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

import rib.methods
from rib.errors import RibError
from rib.methods.base import Method, tuned
from rib.methods.ema import EMA
from rib.methods.ewc import EWC
from rib.methods.fisher import sample_labels, squared_gradients
from rib.methods.fisher_merge import FisherMerge
from rib.methods.ftp import FTP
from rib.methods.l2sp import L2SP
from rib.methods.layer_decay import LayerDecay
from rib.methods.ldifs import LDIFS
from rib.methods.lora import LoRA
from rib.methods.lp_ft import LPFT
from rib.methods.lwf import LwF
from rib.methods.model_stock import ModelStock
from rib.methods.output_ensemble import OutputEnsemble
from rib.methods.rib_soup import RibSoup
from rib.methods.selection import select_images
from rib.methods.soup import Soup
from rib.methods.spd import SPD
from rib.methods.surgical import Surgical
from rib.methods.visual_prompt import VisualPrompt
from rib.methods.wise_ft import WiseFT
from tests.support.fitting import batch, furthest, same
from tests.support.foreign import IMAGES, LABELS, Own, fit, fit_in_pool, in_rib, shuffled
from tests.support.nets import NETS, small_vit

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def ewc():
    return [EWC(5.0, fisher="identity")]


def ewc_diagonal():
    return [EWC(5.0, samples=16, images=[batch(0), batch(1)])]


def ewc_dataset_labels():
    return [EWC(5.0, samples=16, labels="dataset", images=[batch(0), batch(1)])]


def ewc_proximal():
    return [EWC(5.0, fisher="identity", form="proximal")]


def l2sp():
    return [L2SP(3.0)]


def lwf():
    return [LwF(2.0)]


def lwf_restricted():
    return [LwF(2.0, logits="restricted")]


def ldifs():
    return [LDIFS(100.0)]


def spd():
    return [SPD(1.0)]


def ftp():
    return [FTP()]


def ema():
    return [EMA(0.5)]


def wise_ft():
    return [WiseFT(0.5)]


def lora():
    return [LoRA(2, 6.0)]


def stack():
    return [EMA(0.5), EWC(5.0, fisher="identity"), LwF(2.0), SPD(1.0), WiseFT(0.5)]


ALL = (ewc, ewc_diagonal, ewc_dataset_labels, ewc_proximal, l2sp, lwf, lwf_restricted, ldifs, spd, ftp, ema, wise_ft)
CASES = [(net, make) for net in NETS for make in ALL] + [("vit", lora), ("convnet", stack)]
SOME = [("convnet", ewc_diagonal), ("vit", ftp), ("vit", lora), ("convnet", stack), ("vit", ldifs)]


def of(cases, quick=None):
    """Parameters of a test; those that are not quick run with the slow ones."""
    slow = [() if quick is None or case in quick else pytest.mark.slow for case in cases]
    named = [f"{net}-{make.__name__}" for net, make in cases]
    found = [pytest.param(*case, marks=mark, id=name) for case, mark, name in zip(cases, slow, named, strict=True)]
    return pytest.mark.parametrize(("net", "make"), found)


@of(CASES, quick=[case for case in CASES if case[0] == "vit"] + SOME)
def test_it_trains_as_ribs_own_module_does_bit_for_bit(net, make):
    found = fit(Own(net), *make())
    assert same(found, in_rib(net, *make()))
    assert furthest(found, fit(Own(net))) > 1e-6


@of(SOME)
def test_accumulated_batches_are_as_in_ribs_own_module(net, make):
    found = fit(Own(net), *make(), steps=4, accumulate=2)
    assert same(found, in_rib(net, *make(), steps=4, accumulate=2))
    assert furthest(found, fit(Own(net), *make(), steps=4)) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("make", [*ALL, lora, stack])
def test_two_processes_are_one(make, gloo_pool):
    """On a ViT: a ConvNet's BatchNorm has the statistics of each process, in plain training too."""
    one = fit(Own("vit"), *make())
    first, second = gloo_pool.run(fit_in_pool, "vit", make)
    assert same(first, second)
    assert furthest(one, first) < 1e-5  # gradients are summed in another order


@pytest.mark.slow
@pytest.mark.parametrize("make", [ewc_diagonal, l2sp, lwf, ftp, wise_ft])
def test_processes_that_draw_other_weights_hold_on_to_rank_zeros(make, gloo_pool):
    one = fit(Own("vit"), *make())
    first, second = gloo_pool.run(fit_in_pool, "vit", make, (0, 1))
    assert same(first, second)
    assert furthest(one, first) < 1e-5


@of(CASES, quick=SOME)
def test_a_resumed_fit_ends_with_the_same_weights_bit_for_bit(net, make, tmp_path):
    whole = fit(Own(net), *make(), epochs=2, folder=tmp_path)
    resumed = fit(Own(net), *make(), epochs=2, folder=tmp_path, resume=str(tmp_path / "epoch=0.ckpt"))
    assert same(whole, resumed)


def test_the_default_fisher_of_a_resumed_fit_is_that_of_the_start(tmp_path):
    """It is on the Trainer's own loader, with BatchNorm's statistics of the start."""
    data = DataLoader(list(zip(IMAGES, LABELS, strict=True)), batch_size=8)
    first, second = EWC(5.0, samples=20), EWC(5.0, samples=20)
    whole = fit(Own("convnet"), first, epochs=2, data=data, folder=tmp_path)
    resumed = fit(Own("convnet"), second, epochs=2, data=data, folder=tmp_path, resume=str(tmp_path / "epoch=0.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(first._root, second._root, strict=True))
    assert same(whole, resumed)


NEUTRAL = {
    "ewc": lambda: EWC(0.0, samples=16),
    "ewc, images named": lambda: EWC(0.0, samples=16, images=shuffled()),
    "ewc, proximal": lambda: EWC(0.0, samples=16, form="proximal"),
    "ewc, identity": lambda: EWC(0.0, fisher="identity"),
    "l2sp": lambda: L2SP(0.0),
    "lwf": lambda: LwF(0.0),
    "lwf, augmented": lambda: LwF(0.0, inputs="augmented"),
    "ldifs": lambda: LDIFS(0.0),
    "spd": lambda: SPD(0.0),
    "ftp": lambda: FTP(float("inf")),
    "ema": lambda: EMA(0.0),
    "wise_ft": lambda: WiseFT(1.0),
}


@pytest.mark.parametrize("net", ["convnet", pytest.param("vit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_are_plain_training_bit_for_bit(net, name):
    """With a shuffled loader, random augmentation and dropout, all from global random states."""
    found = []
    for callbacks in ([], [NEUTRAL[name]()]):
        module = Own(net, dropout=0.3)
        L.seed_everything(5, verbose=False)
        found.append(fit(module, *callbacks, data=shuffled(), epochs=2))
    assert same(*found)
    assert furthest(found[0], Own(net).state_dict()) > 1e-4


def test_lwf_augments_the_users_own_tensors_and_leaves_statistics_alone():
    plain = fit(Own("convnet"), LwF(0.0, inputs="augmented"))
    found = fit(Own("convnet"), LwF(2.0, inputs="augmented"))
    assert furthest(found, plain) > 1e-5
    again = fit(Own("convnet"), LwF(2.0, inputs="augmented"))
    assert same(found, again)


def test_the_first_steps_are_the_formula():
    """By hand, from nothing of rib: two steps of SGD with L2-SP."""
    found = fit(Own("vit"), EWC(5.0, fisher="identity"), steps=2)
    model = small_vit().train()
    anchor = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(2):
        images, labels, _ = batch(step)
        optimizer.param_groups[0]["lr"] = 0.05 if step == 0 else 0.025
        optimizer.zero_grad()
        moved = sum(((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchor, strict=True))
        (F.cross_entropy(model(images), labels) + 5.0 / 2 * moved).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(found[f"net.{name}"], p, atol=1e-6), name


def test_the_default_fisher_is_of_a_seeded_selection_of_the_trainers_own_images():
    method = EWC(0.5, samples=10, form="proximal", seed=3)
    fit(Own("vit"), method, data=DataLoader(list(zip(IMAGES, LABELS, strict=True)), batch_size=8, shuffle=True))
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:10].sort().values
    model = small_vit()
    uniforms = torch.rand(10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    total, _ = squared_gradients(model, IMAGES[chosen], sample_labels(model, IMAGES[chosen], uniforms))
    mean = sum(float(t.sum()) for t in total.values()) / sum(t.numel() for t in total.values())
    for root, square in zip(method._root, total.values(), strict=True):
        assert torch.allclose(root**2, 0.5 * square / mean, rtol=1e-4, atol=1e-9)


def test_the_default_fisher_does_not_depend_on_the_random_state():
    found = []
    for seed in (1, 2):
        method, module = EWC(5.0, samples=20), Own("vit")
        L.seed_everything(seed, verbose=False)
        fit(module, method, data=shuffled())
        found.append(method._root)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Hooked(Own):
    """Normalises on the device, as many do."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = batch[:2]
        return 255 - images, labels


def test_the_fishers_images_come_as_the_training_steps_do():
    data = DataLoader(list(zip(IMAGES, LABELS, strict=True)), batch_size=8)
    inverted = DataLoader(list(zip(255 - IMAGES, LABELS, strict=True)), batch_size=8)
    one, other, plain = EWC(5.0, samples=20), EWC(5.0, samples=20), EWC(5.0, samples=20)
    assert same(fit(Hooked("vit"), one, data=data), fit(Own("vit"), other, data=inverted))
    assert all(torch.equal(a, b) for a, b in zip(one._root, other._root, strict=True))
    fit(Own("vit"), plain, data=data)
    assert not all(torch.equal(a, b) for a, b in zip(one._root, plain._root, strict=True))


def test_the_cap_goes_by_the_optimizers_peak_rate():
    method = EWC(1e6, fisher="identity")
    fit(Own("vit"), method)
    assert all(torch.allclose(t**2, torch.full_like(t, 1 / 0.05)) for t in method._root)
    assert method.report()["ewc.capped_share"] == 1


# final.ckpt


@pytest.mark.parametrize("make", [wise_ft, lora, lambda: [LoRA(2, 6.0), WiseFT(0.5)], lambda: [EMA(0.5), WiseFT(0.5)]])
def test_the_final_weights_are_written_beside_the_checkpoints(make, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        found = fit(Own("vit"), *make(), folder=tmp_path)
    assert "checkpoints hold the weights as they are trained" in caplog.text
    assert f"wrote the final weights to {tmp_path / 'final.ckpt'}" in caplog.text
    assert caplog.text.count("wrote the final weights") == 1
    final = Own.load_from_checkpoint(tmp_path / "final.ckpt", weights_only=False).state_dict()
    assert same(final, found)
    between = torch.load(tmp_path / "epoch=0.ckpt", weights_only=False)["state_dict"]
    assert between.keys() != found.keys() or not same(between, found)


def test_lora_and_wise_ft_together_are_half_of_loras_change():
    start = Own("vit").state_dict()
    whole, half = fit(Own("vit"), LoRA(2, 6.0)), fit(Own("vit"), LoRA(2, 6.0), WiseFT(0.5))
    assert furthest({n: start[n] + (whole[n] - start[n]) / 2 for n in start}, half) < 1e-6
    assert furthest(whole, half) > 1e-4


def test_without_checkpoints_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(Own("vit"), WiseFT(0.5))
    assert not list(tmp_path.rglob("*"))


def test_the_default_checkpoint_folder_is_used(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[WiseFT(0.5)], default_root_dir=tmp_path, logger=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Own("vit"), DataLoader([batch(0)], batch_size=None))
    assert [file.parent for file in tmp_path.rglob("final.ckpt")] == [Path(trainer.checkpoint_callback.dirpath)]


# The penalty that nobody asks for


@pytest.mark.parametrize("make", [ewc, l2sp, lwf, ldifs])
def test_a_step_that_does_not_ask_for_penalties_is_told_the_line(make):
    line = r"loss = loss \+ rib\.methods\.penalties\(self, images, outputs, labels\)"
    with pytest.raises(RibError, match=line):
        fit(Own("vit", asks=False), *make())


@pytest.mark.parametrize("make", [ewc_proximal, spd, ftp, ema, wise_ft, lora])
def test_a_method_without_a_penalty_needs_no_line(make):
    assert same(fit(Own("vit", asks=False), *make()), fit(Own("vit"), *make()))


def test_penalties_are_zero_without_methods():
    assert same(fit(Own("vit")), fit(Own("vit", asks=False)))


class Silent(Method):
    """A user's method with the hooks of old: its own setup, a name that is a property."""

    def __init__(self):
        self.steps = 0

    @property
    def name(self):
        return "told"

    def setup(self, trainer, pl_module, stage):
        self.start = [p.detach().clone() for p in pl_module.parameters()]

    def penalty(self, module, step):
        pairs = zip(module.model.parameters(), self.start, strict=True)
        return 0.001 * sum((p - p0).abs().sum() for p, p0 in pairs)

    def after_step(self, module):
        self.steps += 1


def test_a_method_of_the_users_runs_there_too():
    method = Silent()
    assert furthest(fit(Own("vit"), method), fit(Own("vit"))) > 1e-6
    assert method.steps == 3
    with pytest.raises(RibError, match="told: training_step did not add"):
        fit(Own("vit", asks=False), Silent())


# Refusals


class Late(L.LightningModule):
    """Builds its network in configure_model."""

    def configure_model(self):
        self.net = nn.Linear(3, 2)

    def training_step(self, batch, batch_idx):
        return self.net(torch.zeros(1, 3)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Lazy(Own):
    def __init__(self):
        super().__init__("vit")
        self.more = nn.LazyLinear(3)


class Loads(Own):
    """Loads its pretrained weights in setup, after the methods."""

    def setup(self, stage):
        self.net.load_state_dict(NETS["vit"](3).state_dict())


class Manual(Own):
    def __init__(self):
        super().__init__("vit")
        self.automatic_optimization = False


class Two(Own):
    def configure_optimizers(self):
        return [torch.optim.SGD(self.net.backbone.head.parameters(), lr=0.1) for _ in range(2)]

    def training_step(self, batch, batch_idx):
        raise AssertionError("not reached")


class Early(Own):
    """Collects its parameters before methods have added theirs."""

    def __init__(self):
        super().__init__("vit")
        self.collected = list(self.parameters())

    def configure_optimizers(self):
        return torch.optim.SGD(self.collected, lr=0.1)


class Weighted(Own):
    def __init__(self):
        super().__init__("vit")
        parametrizations.weight_norm(self.net.backbone.head)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, LABELS, strict=True)


REFUSED = {
    "no network": (Late, ewc, "ewc: expected a module that has its network before setup.*build the network in"),
    "lazy": (Lazy, ewc, "build the network in __init__"),
    "loaded late": (Loads, ewc, "ewc: expected the start weights to be there before setup.*load them in __init__"),
    "manual": (Manual, lwf, "lwf: expected automatic optimization"),
    "collected early": (Early, lora, r"lora: expected an optimizer of all parameters.*self\.parameters\(\)"),
    "parametrized": (Weighted, lora, "lora: expected a network without parametrizations"),
    "clash": (Own, lambda: [LoRA(2), EWC()], "callbacks: ewc and lora cannot be stacked"),
    "order": (Own, lambda: [WiseFT(0.5), EWC()], "callbacks: expected ewc before wise_ft"),
    **{
        make.__name__: (Own, lambda make=make: [make()], r"; run it with python -m rib\.train \+method=\w+")
        for make in (
            Soup, RibSoup, ModelStock, OutputEnsemble, FisherMerge, LPFT, LayerDecay, Surgical, VisualPrompt,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_sentence(name):
    module, make, sentence = REFUSED[name]
    with pytest.raises(RibError, match=sentence) as error:
        fit(module(), *make())
    assert "\n" not in str(error.value)


def test_several_optimizers_are_refused_by_lightning():
    with pytest.raises(RuntimeError, match="multiple optimizers is only supported with manual optimization"):
        fit(Two(), SPD(1.0))


def test_a_folder_of_images_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(RibError, match="lwf: a folder of images works only in rib's commands"):
        fit(Own("vit"), LwF(inputs=str(tmp_path)))


def test_a_fisher_without_images_that_can_be_chosen_is_refused():
    data = DataLoader(Stream(), batch_size=8)
    with pytest.raises(RibError, match=r"one over an IterableDataset; pass the images, as in EWC\(images="):
        fit(Own("vit"), EWC(5.0), data=data, max_steps=2)
    named = fit(Own("vit"), EWC(5.0, samples=16, images=DataLoader(Stream(), batch_size=8)), data=data, max_steps=2)
    assert furthest(named, fit(Own("vit"), data=data, max_steps=2)) > 1e-6


def test_batches_without_labels_are_refused():
    with pytest.raises(RibError, match=r"expected batches \(images, labels, \.\.\.\) of tensors"):
        fit(Own("vit"), EWC(5.0, images=DataLoader([{"x": image} for image in IMAGES[:8]], batch_size=4)))


def test_a_resumed_fit_with_another_start_is_refused(tmp_path):
    fit(Own("vit"), L2SP(3.0), epochs=2, folder=tmp_path)
    checkpoint = str(tmp_path / "epoch=0.ckpt")
    with pytest.raises(RibError, match="l2sp: expected the start weights that the checkpoint's fit began from"):
        fit(Own("vit", seed=1), L2SP(3.0), epochs=2, folder=tmp_path, resume=checkpoint)


def test_a_checkpoint_of_a_fit_without_methods_is_refused(tmp_path):
    fit(Own("vit"), epochs=2, folder=tmp_path)
    with pytest.raises(RibError, match="expected a checkpoint of a fit with this method"):
        fit(Own("vit"), L2SP(3.0), epochs=2, folder=tmp_path, resume=str(tmp_path / "epoch=0.ckpt"))


def test_outputs_that_are_no_logits_are_refused():
    class Flat(Own):
        def training_step(self, batch, batch_idx):
            images, labels = batch[:2]
            return rib.methods.penalties(self, images, self(images).sum(1), labels)

    with pytest.raises(RibError, match=r"expected outputs as logits of shape \(images, classes\), got shape \(8,\)"):
        fit(Flat("vit"), L2SP(3.0))


# What a method sees


def test_the_only_child_with_parameters_is_the_backbone_and_its_last_linear_layer_the_head():
    module = Own("vit")
    assert tuned(module).backbone is module.net
    assert tuned(module).head == {"backbone.head.weight", "backbone.head.bias"}
    module.encoder, module.teacher = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
    assert tuned(module).backbone is module
    assert tuned(module).head == {"encoder.weight", "encoder.bias"}


def test_a_frozen_teacher_inside_stays_and_is_not_held():
    class Taught(Own):
        def __init__(self):
            super().__init__("vit")
            self.teacher = NETS["vit"](1).requires_grad_(False)

    method = EWC(5.0, samples=16)
    found = fit(Taught(), method, data=shuffled())
    assert len(method._anchor) == len(list(small_vit().parameters()))
    teacher = NETS["vit"](1).state_dict()
    assert all(torch.equal(found[f"teacher.{name}"], tensor) for name, tensor in teacher.items())


def test_a_selection_is_the_samplers_images_alone_and_shared_by_processes():
    data = [(torch.full((1,), float(i)), torch.tensor(i)) for i in range(20)]
    loader = DataLoader(data, batch_size=4, sampler=SubsetRandomSampler([3, 5, 7, 9, 11, 13]))
    batches, number = select_images(loader, 4, seed=0)
    labels = torch.cat([labels for (_, labels), _ in batches])
    assert number == 4
    assert set(labels.tolist()) <= {3, 5, 7, 9, 11, 13}
    found = {}
    for rank in (0, 1):
        for (_, share), places in select_images(loader, 4, 0, rank, 2)[0]:
            found |= dict(zip(places.tolist(), share.tolist(), strict=True))
    assert [found[place] for place in range(4)] == labels.tolist()


# Layers


def test_the_package_of_methods_is_light():
    code = "import sys, rib.methods, rib.methods.build, rib.methods.clashes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
