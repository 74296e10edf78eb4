"""FineTuner and RIBDataModule with a user's own network and dataset, in a Trainer of the user's."""

from __future__ import annotations

import copy
from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rib.data.datamodule import RIBDataModule
from rib.data.labelled_images import LabelledImages
from rib.errors import RibError
from rib.methods.ema import EMA
from rib.methods.ewc import EWC
from rib.methods.ftp import FTP
from rib.methods.l2sp import L2SP
from rib.methods.ldifs import LDIFS
from rib.methods.linear_probe import LinearProbe
from rib.methods.lora import LoRA
from rib.methods.lwf import LwF
from rib.methods.soup import Soup
from rib.methods.spd import SPD
from rib.methods.wise_ft import WiseFT
from rib.training.contract import ImageClassifier
from rib.training.module import FineTuner

CLASSES = 5


def images(count: int = 48, seed: int = 0) -> TensorDataset:
    """Images whose class is the place of a bright patch."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randn(count, 3, 8, 8, generator=generator)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[:, label : label + 2, label : label + 2] += 4
    return TensorDataset(pixels, labels)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


class Losses(L.Callback):
    """Keeps what is logged at the end of each epoch."""

    def __init__(self):
        self.logged: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(*methods, epochs: int = 3, data=None, model=None, lr: float = 0.05, **options) -> tuple[nn.Module, list]:
    """Train as the docs say, and return the network and what was logged."""
    model = network() if model is None else model
    losses = Losses()
    module = FineTuner(model, lr=lr, **options)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*methods, losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, data if data is not None else RIBDataModule(train=images(), val=images(20, 1), batch_size=16))
    return model, losses.logged


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_it_learns_and_validates():
    model, logged = fit(epochs=8, lr=0.1)
    assert len(logged) == 8
    assert logged[-1]["val_loss"] < 0.7 * logged[0]["val_loss"]
    assert logged[-1]["val_accuracy"] > logged[0]["val_accuracy"]
    pixels, labels = images(20, 1).tensors
    with torch.no_grad():
        outputs = model.eval()(pixels)
    assert logged[-1]["val_accuracy"] == pytest.approx(float((outputs.argmax(1) == labels).float().mean()))
    assert logged[-1]["val_loss"] == pytest.approx(float(F.cross_entropy(outputs, labels)), rel=1e-5)


def test_it_trains_as_a_plain_loop_does():
    start = network()
    found, _ = fit(model=copy.deepcopy(start), epochs=1, optimizer=partial(torch.optim.SGD, lr=0.05))
    data = RIBDataModule(train=images(), batch_size=16)
    optimizer = torch.optim.SGD(start.parameters(), lr=0.05)
    loader = data.train_dataloader()
    for step, (pixels, labels, places) in enumerate(loader):
        assert torch.equal(pixels, images().tensors[0][places])
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + np.cos(np.pi * step / 3))
        optimizer.zero_grad()
        F.cross_entropy(start(pixels), labels).backward()
        optimizer.step()
    for name, tensor in start.state_dict().items():
        assert torch.allclose(tensor.float(), found.state_dict()[name].float(), atol=1e-6), name


@pytest.mark.parametrize("freeze", [False, True])
def test_a_network_in_eval_mode_is_trained_in_training_mode(freeze):
    found, _ = fit(model=network().eval(), freeze_batch_norm=freeze, epochs=1)
    expected, _ = fit(model=network().train(), freeze_batch_norm=freeze, epochs=1)
    assert same(found, expected)
    assert torch.equal(found[1].running_mean, network()[1].running_mean) == freeze


def test_linear_probe_keeps_a_network_in_eval_mode():
    found, _ = fit(LinearProbe(), model=network().eval(), epochs=1)
    assert torch.equal(found[1].running_mean, network()[1].running_mean)


NEUTRAL = {"ewc": lambda: EWC(strength=0), "l2sp": lambda: L2SP(strength=0), "lwf": lambda: LwF(strength=0)}


@pytest.mark.parametrize("name", NEUTRAL)
def test_strength_0_is_plain_fine_tuning_bit_for_bit(name):
    plain, logged = fit()
    found, also = fit(NEUTRAL[name]())
    assert same(plain, found)
    assert [entry["loss"] for entry in logged] == [entry["loss"] for entry in also]


METHODS = {
    "ewc": lambda: EWC(strength=10),
    "l2sp": lambda: L2SP(strength=1),
    "lwf": lambda: LwF(strength=1),
    "ldifs": LDIFS,
    "spd": SPD,
    "ftp": FTP,
    "ema": EMA,
    "lora": lambda: LoRA(targets=["linear"]),
    "wise_ft": lambda: WiseFT(alpha=0.5),
    "linear_probe": LinearProbe,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_work_on_it(name):
    plain, _ = fit(epochs=2)
    found, logged = fit(METHODS[name](), epochs=2)
    assert found.state_dict().keys() == plain.state_dict().keys()
    assert not same(plain, found)
    assert np.isfinite(logged[-1]["loss"])
    if name == "wise_ft":
        middle = (network()[5].weight + plain[5].weight) / 2
        assert torch.allclose(found[5].weight, middle, atol=1e-6)
    if name == "linear_probe":
        assert torch.equal(found[0].weight, network()[0].weight)


def test_ewc_stays_nearer_to_the_start_than_plain_fine_tuning():
    def distance(model):
        return float(
            sum((p - q).detach().pow(2).sum() for p, q in zip(model.parameters(), network().parameters(), strict=True))
        )

    assert distance(fit(EWC(strength=1000))[0]) < 0.9 * distance(fit()[0])


def test_a_loader_of_the_users_own_serves_a_fisher_too():
    loader = DataLoader(images(), batch_size=16)
    plain, _ = fit(data=loader, epochs=1)
    held, _ = fit(EWC(strength=1000), data=loader, epochs=1)
    assert not same(plain, held)
    assert same(plain, fit(EWC(strength=0), data=loader, epochs=1)[0])


def test_the_order_and_the_augmentation_are_of_seed_and_epoch_alone():
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.rand(()), label

    def epoch(number: int, workers: int = 0, seed: int = 0):
        data = RIBDataModule(train=Augmented(*images().tensors), batch_size=16, workers=workers, seed=seed)
        loader = data.train_dataloader()
        loader.batch_sampler.set_epoch(number)
        return torch.cat([batch[0] for batch in loader])

    torch.manual_seed(0)
    first = epoch(1)
    torch.manual_seed(1)
    assert torch.equal(first, epoch(1))
    assert torch.equal(first, epoch(1, workers=1))
    assert not torch.equal(first, epoch(2))
    assert not torch.equal(first, epoch(1, seed=1))


def test_the_interfaces_can_be_asked_at_runtime():
    assert isinstance(images(), LabelledImages)
    assert isinstance([(torch.rand(3, 8, 8), 0)], LabelledImages)
    assert not isinstance(iter([]), LabelledImages)
    assert isinstance(network(), ImageClassifier)
    assert not isinstance(lambda images: images, ImageClassifier)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.rand(3, 8, 8), 0)])


PIXELS = torch.rand(3, 8, 8)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([PIXELS], r"train\[0\]: expected a pair \(image, label\), got a Tensor"),
        ([{"image": PIXELS, "label": 0}], "expected a pair .* got a dict"),
        ([(PIXELS, 0, 1)], "got a tuple of 3"),
        ([("cat.jpg", 0)], "expected an image as a float tensor .* got a str; end"),
        ([((255 * PIXELS).byte(), 0)], "expected an image as a float tensor, got torch.uint8; convert"),
        ([(PIXELS[0], 0)], r"expected an image \(channels, height, width\), got shape \(8, 8\)"),
        ([(PIXELS.permute(1, 2, 0), 0)], r"use image.permute\(2, 0, 1\)"),
        ([(PIXELS, 0), (torch.rand(3, 8, 9), 0)], "expected images of one shape"),
        ([(PIXELS, 0.0)], "expected a label as an int from 0 to C - 1, got a float"),
        ([(PIXELS, torch.tensor(0, dtype=torch.int32))], "got torch.int32 of shape"),
        ([(PIXELS, torch.tensor([0]))], r"got torch.int64 of shape \(1,\)"),
        ([(PIXELS, -1)], "expected a label from 0 to C - 1, got -1"),
        ([(PIXELS, CLASSES)], r"train\[0\]: label 5: expected labels from 0 to 4, since the model has 5 outputs"),
        ([], "train: expected at least one image"),
        (Stream(), "expected a dataset with __len__ and __getitem__, .* got a Stream"),
        (3, "got a int"),
    ],
)
def test_a_wrong_item_is_one_sentence(train, words):
    with pytest.raises(RibError, match=words) as error:
        fit(data=RIBDataModule(train=train, batch_size=2), model=nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)))
    assert "\n" not in str(error.value)


class Returns(nn.Linear):
    """A network with an output of its own."""

    def __init__(self, change):
        super().__init__(192, CLASSES)
        self.change = change

    def forward(self, images: Tensor):
        return self.change(super().forward(images.flatten(1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: out[:, :, None], r"expected logits of shape \(16, K\) for 16 images, got shape \(16, 5, 1\)"),
        (lambda out: out[:3], r"got shape \(3, 5\)"),
        (lambda out: (out, out), "got a tuple"),
        (lambda out: out.argmax(1, keepdim=True), "expected logits as floating-point numbers, got torch.int64"),
    ],
)
def test_a_wrong_output_is_one_sentence(change, words):
    with pytest.raises(RibError, match=words):
        fit(model=Returns(change))


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Flatten(), nn.Linear(10, CLASSES)), nn.Conv2d(1, CLASSES, 3), timm.create_model("test_vit")],
    ids=["linear", "convolution", "timm"],
)
def test_images_that_the_network_cannot_take_are_one_sentence(model):
    sentence = r"model: \w+ cannot take images \(B, C, H, W\) of shape \(16, 3, 8, 8\) \(.+\); resize them"
    with pytest.raises(RibError, match=sentence) as error:
        fit(model=model)
    assert "\n" not in str(error.value)


def test_another_error_of_the_network_is_left_alone():
    def fails(_):
        raise RuntimeError("of the network")

    with pytest.raises(RuntimeError, match=r"^of the network$"):
        fit(model=Returns(fails))


def test_a_wrong_label_is_named_by_its_item():
    pixels, labels = images(20).tensors
    labels[7] = CLASSES
    wrong = TensorDataset(pixels, labels)
    with pytest.raises(RibError, match=r"train\[7\]: label 5: expected"):
        fit(data=RIBDataModule(train=wrong, batch_size=4))
    with pytest.raises(RibError, match=r"val\[7\]: label 5: expected"):
        fit(data=RIBDataModule(train=images(), val=wrong, batch_size=4))
    with pytest.raises(RibError, match="item 7 of a batch: label 5: expected"):
        fit(data=DataLoader(wrong, batch_size=20))


def of_batches(*batches):
    return DataLoader(list(batches), batch_size=None)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.rand(4, 3, 8, 8), r"expected a pair of tensors \(images, labels\), got a Tensor"),
        ([torch.rand(4, 3, 8, 8)], "got a list of 1"),
        ({"image": torch.rand(4, 3, 8, 8)}, "got a dict"),
        ((torch.rand(4, 3, 8, 8), torch.zeros(4)), r"expected labels as int64 .* use labels.long\(\)"),
        ((torch.rand(4, 3, 8, 8), torch.zeros(3).long()), r"got torch.int64 of shape \(3,\)"),
        ((torch.rand(4), torch.zeros(4).long()), r"expected images \(B, C, H, W\), got shape \(4,\)"),
    ],
)
def test_a_wrong_batch_of_the_users_loader_is_one_sentence(batch, words):
    with pytest.raises(RibError, match=words):
        fit(data=of_batches(batch))


def test_what_cannot_train_is_refused():
    with pytest.raises(RibError, match=r"expected a torch.nn.Module from images to logits, got a function"):
        FineTuner(lambda images: images)
    with pytest.raises(RibError, match="parameters that require gradients, Sequential has none"):
        FineTuner(network().requires_grad_(False))
    with pytest.raises(RibError, match=r"functools.partial\(torch.optim.AdamW, .*\), got an AdamW object"):
        FineTuner(network(), optimizer=torch.optim.AdamW(network().parameters()))
    with pytest.raises(RibError, match=r"optimizer: expected a function .* got 'adamw'"):
        FineTuner(network(), optimizer="adamw")
    for rate in ("0.1", None, float("nan"), -1):
        with pytest.raises(RibError, match=r"lr: expected a number such as 0\.01, got"):
            FineTuner(network(), lr=rate)
    for size in (0, 2.5):
        with pytest.raises(RibError, match="batch_size: expected a whole number of images, 1 or more, got"):
            RIBDataModule(train=images(), batch_size=size)
    with pytest.raises(RibError, match="expected rib's images, got a TensorDataset; give train=DATASET"):
        RIBDataModule(images())
    with pytest.raises(RibError, match="give train=DATASET"):
        fit(data=RIBDataModule(val=images()))
    with pytest.raises(RibError, match="it combines several finished runs"):
        fit(Soup())
    with pytest.raises(RibError, match="expected ewc before wise_ft"):
        fit(WiseFT(alpha=0.5), EWC())
    with pytest.raises(RibError, match="expected no source and no augment"):
        RIBDataModule(train=images(), augment="flip")
