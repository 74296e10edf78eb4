"""Equal weight of every image of a step, for any batches and processes: against a plain PyTorch loop."""

from __future__ import annotations

import math

import lightning.pytorch as L
import pandas
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from rib.data.sampler import EpochBatches
from rib.data.transform import Transform
from rib.errors import RibError
from rib.methods.base import Method
from rib.methods.ema import EMA
from rib.methods.ewc import EWC
from rib.methods.ftp import FTP
from rib.methods.l2sp import L2SP
from rib.methods.ldifs import LDIFS
from rib.methods.lwf import LwF
from rib.methods.spd import SPD
from rib.models.classifier import Classifier
from rib.training.callbacks import total_steps
from tests.support.fitting import LR, MOMENTUM, SPACE, fit, furthest
from tests.support.nets import HALF, OUTPUTS, SIDE, random_images, small_convnet, small_vit

EPOCHS = 2
IMAGES, LABELS = random_images(40, 7), torch.arange(40) * 7 % len(SPACE)


class Source(Dataset):
    """The first images of 40, as `rib.data.dataset.Images` hands them over."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitems__(self, indices):
        places = torch.tensor([index % self.num_images for index in indices])
        return IMAGES[places], LABELS[places], places


class Ordered(L.LightningDataModule):
    """Batches in rib's own order."""

    def __init__(self, batch_size: int, num_images: int = 40) -> None:
        super().__init__()
        self.batch_size, self.num_images = batch_size, num_images
        self.transform, self.image_backend = Transform(SIDE, 1.0, "bicubic", HALF, HALF), "torchvision"

    def train_dataloader(self):
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        order = EpochBatches(self.num_images, self.batch_size, 0, rank, world)
        return DataLoader(Source(self.num_images), batch_sampler=order, collate_fn=lambda batch: batch)

    def source_images(self, count, seed, rank=0, world=1):
        places = torch.arange(16)[rank::world]
        return [(IMAGES[places], LABELS[places], places)], 16


class Own(Method):
    """A user's: one penalty that is a mean over images and one on weights, and nothing about steps or processes."""

    def penalty(self, module, step):
        return 0.3 * step.outputs.square().mean() + 0.5 * module.model.backbone.head.weight.square().sum()


METHODS = {
    "finetune": list,
    "ewc": lambda: [EWC(2.0, fisher="identity")],
    "l2sp": lambda: [L2SP(3.0)],
    "lwf": lambda: [LwF(2.0)],
    "own": lambda: [Own()],
    "ewc diagonal": lambda: [EWC(2.0, samples=16)],
    "ewc proximal": lambda: [EWC(2.0, fisher="identity", form="proximal")],
    "ldifs": lambda: [LDIFS(10.0)],
    "lwf augmented": lambda: [LwF(2.0, inputs="augmented")],
    "spd": lambda: [SPD(1.0)],
    "ftp": lambda: [FTP()],
    "ema": lambda: [EMA(0.6)],
}
BY_HAND = ("finetune", "ewc", "l2sp", "lwf", "own")


def trained(method: str, batch_size: int, accumulate: int, num_images: int = 40, two: bool = False):
    model = small_vit()
    data = Ordered(batch_size, num_images)
    return fit(model, *METHODS[method](), epochs=EPOCHS, accumulate=accumulate, data=data, two=two).state_dict()


def penalty_by_hand(method: str, model, start, images):
    moved = [(p - p0.detach()).square().sum() for p, p0 in zip(model.parameters(), start.parameters(), strict=True)]
    if method in ("ewc", "l2sp"):
        return {"ewc": 2.0, "l2sp": 3.0}[method] / 2 * sum(moved)
    outputs = model(images)
    if method == "own":
        return 0.3 * outputs.square().mean() + 0.5 * model.backbone.head.weight.square().sum()
    with torch.no_grad():
        p0 = (start(images) / 2).softmax(1)
    return 2 * (p0 * (p0.log() - (outputs / 2).log_softmax(1))).sum(1).mean()


def by_hand(method: str, group: int, num_images: int = 40):
    """A plain loop: a step for each ``group`` images of an epoch, all of them in one batch."""
    model, start = small_vit().eval(), small_vit().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    order = EpochBatches(num_images, 1, 0)
    total, step = EPOCHS * math.ceil(num_images / group), 0
    for epoch in range(EPOCHS):
        order.set_epoch(epoch)
        for places in torch.tensor(order.order()).split(group):
            optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / total))
            loss = F.cross_entropy(SPACE.project(model(IMAGES[places])), LABELS[places])
            if method != "finetune":
                loss = loss + penalty_by_hand(method, model, start, IMAGES[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model.state_dict()


@pytest.mark.parametrize(
    ("batch_size", "accumulate"), [(40, 1), (10, 4), (10, 100), (12, 4), (7, 100), (8, 3), (12, 2)]
)
@pytest.mark.parametrize("method", BY_HAND)
def test_a_step_follows_the_mean_over_its_images(method, batch_size, accumulate):
    expected = by_hand(method, batch_size * accumulate)
    assert furthest(trained(method, batch_size, accumulate), expected) < 2e-6
    assert furthest(small_vit().state_dict(), expected) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "num_images"),
    [
        (40, 1, 40),
        (10, 4, 40),
        (12, 4, 40),
        (14, 100, 40),
        (8, 3, 40),
        (12, 1, 39),  # a last batch of 3: two images in one process, one in the other
        (12, 2, 37),  # a last batch of 1: the other process's image fills up
        (12, 1, 37),
    ],
)
def test_two_processes_step_as_the_plain_loop_does(batch_size, accumulate, num_images, gloo_pool):
    for method in BY_HAND if accumulate != 1 or num_images == 37 else ("finetune", "lwf"):
        arguments = (method, batch_size, accumulate, num_images, True)
        first, second = gloo_pool.run(trained, *arguments)
        assert furthest(first, second) == 0
        assert furthest(first, by_hand(method, batch_size * accumulate, num_images)) < 2e-6, method


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_incomplete_group_is_one_whole_batch_to_every_method(method, gloo_pool):
    whole = trained(method, 24, 1)  # 24 images and 16
    assert furthest(trained(method, 8, 3), whole) < 2e-5
    assert furthest(gloo_pool.run(trained, method, 8, 3, 40, True)[0], whole) < 2e-5
    if method != "finetune":
        assert furthest(trained("finetune", 24, 1), whole) > 1e-5


def test_full_groups_and_single_batches_count_exactly_one():
    assert [EpochBatches(10, 4, 0).weight(n) for n in range(3)] == [1.0, 1.0, 1.0]
    assert [EpochBatches(12, 4, 0, r, 2).weight(n, 3) for n in range(3) for r in range(2)] == [1.0] * 6


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.parametrize("num_images", [1, 2, 24, 25, 29])
def test_weights_of_a_step_sum_to_one_and_count_each_image_once(num_images, accumulate, world):
    orders = [EpochBatches(num_images, 6, 0, rank, world) for rank in range(world)]
    for first in range(0, len(orders[0]), accumulate):
        group = range(first, min(first + accumulate, len(orders[0])))
        each = [(o.weight(n, accumulate) / accumulate / world, o.share(n)) for n in group for o in orders]
        assert sum(weight for weight, _ in each) == pytest.approx(1)
        assert len({round(weight / images, 12) for weight, images in each if images}) == 1
    assert sum(o.share(n) for o in orders for n in range(len(o))) == num_images


class Counts(Method):
    """Counts its moments; notes the rate of each step."""

    def __init__(self):
        self.steps, self.rates = 0, []

    def after_step(self, module):
        self.steps += 1
        self.rates.append(module.trainer.optimizers[0].param_groups[0]["lr"])
        self.trainer = module.trainer


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "stop_after", "steps"),
    [(8, 3, None, 4), (10, 100, None, 2), (7, 4, None, 4), (8, 3, 3, 3), (8, 1, None, 10), (8, 2, 5, 5)],
)
def test_the_schedule_ends_with_the_steps_that_are_taken(batch_size, accumulate, stop_after, steps):
    method = Counts()
    data = Ordered(batch_size)
    fit(small_vit(), method, epochs=2, accumulate=accumulate, data=data, stop_after=stop_after, warmup=1)
    in_an_epoch = math.ceil(math.ceil(40 / batch_size) / accumulate)  # rib.runs.recipe's own count
    assert method.steps == method.trainer.global_step == steps == (stop_after or 2 * in_an_epoch)
    assert total_steps(method.trainer) == steps
    assert method.rates[0] == LR
    assert method.rates[-1] == pytest.approx(LR * 0.5 * (1 + math.cos(math.pi * (steps - 2) / (steps - 1))))


def test_what_is_logged_is_the_mean_over_the_images_of_a_step(tmp_path):
    logged = {}
    for batch_size, accumulate in ((24, 1), (8, 3)):
        logger = CSVLogger(tmp_path, name=f"{batch_size}")
        fit(small_vit(), L2SP(3.0), LwF(2.0), accumulate=accumulate, data=Ordered(batch_size), logger=logger)
        table = pandas.read_csv(logger.experiment.metrics_file_path)[["step", "loss", "penalty/lwf", "penalty/l2sp"]]
        logged[accumulate] = table.dropna().to_numpy().tolist()
    assert len(logged[1]) == 2
    for whole, gathered in zip(logged[1], logged[3], strict=True):
        assert gathered == pytest.approx(whole, abs=1e-6)
    places = EpochBatches(40, 24, 0).order()[:24]
    with torch.no_grad():
        mean = F.cross_entropy(SPACE.project(small_vit()(IMAGES[places])), LABELS[places])
    assert logged[3][0][1] == pytest.approx(float(mean), abs=1e-6)


class Keeps(Method):
    """The source's accuracy as logged."""

    def on_train_epoch_end(self, trainer, pl_module):
        self.metric = pl_module.accuracy
        self.counted = int(self.metric.total)


def images_counted(num_images: int, two: bool) -> int:
    method = Keeps()
    fit(small_vit(), method, data=Ordered(12, num_images), two=two)
    return method.counted


@pytest.mark.slow
def test_the_sources_accuracy_counts_no_image_twice(gloo_pool):
    assert images_counted(37, two=False) == 37
    assert sum(gloo_pool.run(images_counted, 37, True)) == 37


def pooled_net() -> Classifier:
    """BatchNorm behind a global pooling, as in ResNeSt, SKNet or LeViT: one value a channel and image."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, OUTPUTS))
    return Classifier(nn.Sequential(*layers), HALF, HALF)


def refused(num_images: int, batch_size: int, two: bool, frozen: bool = False) -> tuple[str, int]:
    """Return the message of a refused fit, and the steps taken before."""
    method = Counts()
    try:
        fit(pooled_net(), method, data=Ordered(batch_size, num_images), two=two, freeze_batch_norm=frozen)
    except RibError as error:
        return str(error), method.steps
    return "", method.steps


@pytest.mark.slow
def test_a_last_batch_of_one_image_is_said_before_training(gloo_pool):
    said, steps = refused(9, 4, two=False)
    assert steps == 0
    assert "9 images in batches of 4 on 1 process leave a batch of one; set batch_size=3, or batch_norm=frozen" in said
    assert refused(9, 3, two=False) == ("", 3)
    assert refused(9, 4, two=False, frozen=True) == ("", 3)
    assert refused(1, 4, two=False)[0].endswith("leave a batch of one; set batch_norm=frozen")
    both = gloo_pool.run(refused, 11, 4, True)  # 2 and 2, 2 and 2, 2 and 1
    assert both[0] == both[1]
    assert both[0][1] == 0
    assert "11 images in batches of 4 on 2 processes leave a batch of one; set batch_size=6" in both[0][0]
    assert [said for said, _ in gloo_pool.run(refused, 12, 4, True)] == ["", ""]
    assert "on 2 processes leave a batch of one" in gloo_pool.run(refused, 8, 2, True)[0][0]


def test_a_network_that_can_take_one_image_takes_it():
    """BatchNorm that looks at a map; and trying it moves no statistics."""
    method = Counts()
    fit(small_convnet(), method, data=Ordered(4, 9), freeze_batch_norm=False)
    assert method.steps == 3
    one, other = (
        fit(small_convnet(), data=Ordered(4, n), freeze_batch_norm=False, stop_after=1, lr=0.0).state_dict()
        for n in (9, 9)
    )
    assert furthest(one, other) == 0
    model = small_convnet().train()
    model(IMAGES[EpochBatches(9, 4, 0).order()[:4]])
    assert furthest(one, model.state_dict()) < 1e-6


def drawn(batch_size: int, accumulate: int, inputs: str, two: bool) -> dict[tuple[int, int], bytes]:
    """Return the images that LwF shows in the place of each image of each epoch."""
    seen = {}

    class Watched(LwF):
        def _other_images(self, module, step):
            found = super()._other_images(module, step)
            for place, image in zip(step.places.tolist(), found, strict=True):
                seen[module.current_epoch, place] = image.numpy().tobytes()
            return found

    method = Watched(2.0, inputs=inputs)
    fit(small_vit(), method, epochs=2, accumulate=accumulate, data=Ordered(batch_size, 39), two=two)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("folder", [False, True])
def test_lwf_draws_the_same_other_images_in_any_batches_and_processes(folder, tmp_path, gloo_pool):
    from torchvision.io import write_png

    for i in range(20):
        write_png(random_images(1, 100 + i)[0], str(tmp_path / f"{i}.png"))
    inputs = str(tmp_path) if folder else "augmented"
    one = drawn(12, 1, inputs, two=False)
    assert len(one) == 2 * 39
    assert drawn(6, 4, inputs, two=False) == one
    first, second = gloo_pool.run(drawn, 12, 1, inputs, True)
    assert {**first, **second} == one
    assert not first.keys() & second.keys()
    assert len(set(one.values())) > 15
    assert any(one[0, place] != one[1, place] for place in range(39))
