"""Checkpoints: training that was killed and resumed sees the same images and ends at the same weights."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from PIL import Image

from rib.data.datamodule import RIBDataModule
from rib.data.scan import scan
from rib.data.transform import Transform
from rib.data.tree import ImageTree
from rib.training import resume
from rib.training.callbacks import StopAfter
from rib.training.resume import Resume
from tests.data.trees import few

BATCHES, EPOCHS = 3, 3
STARTS = [("batch", epoch, batch) for epoch in range(EPOCHS) for batch in range(BATCHES)]
LASTS = [("last", epoch, BATCHES - 1) for epoch in range(EPOCHS)]
ENDS = [("epoch", epoch, None) for epoch in range(EPOCHS)]


class Killed(Exception):
    """Stands for kill -9: nothing is tidied up."""


class Toy(L.LightningModule):
    """Remembers each batch it saw, and dies where it is told to."""

    def __init__(self, death: tuple | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.death = death
        self.seen: list[tuple] = []
        self.epochs_begun: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.epochs_begun.append(self.current_epoch)

    def on_train_batch_start(self, batch, batch_idx) -> None:
        if self.death == ("batch", self.current_epoch, batch_idx):
            raise Killed

    def training_step(self, batch, batch_idx):
        places = batch[2]
        self.seen.append((self.current_epoch, batch_idx, self.global_step, tuple(places.tolist())))
        return self.layer(places[:, None] / 10).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        if self.death == ("last", self.current_epoch, batch_idx):
            raise Killed  # between an epoch's last batch and its end

    def on_train_epoch_end(self) -> None:
        if self.death == ("epoch", self.current_epoch, None):
            raise Killed  # callbacks, and with them Resume, come before the module

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0  # asks for the loader early, as FineTuner does
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> ImageTree:
    root, spec = tmp_path_factory.mktemp("toy"), few("imagenet_sketch", classes=2, each=4)
    for name, i in itertools.product(spec.classes, range(4)):
        (root / "sketch" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / "sketch" / name / f"{i}.png")
    return scan(spec, root)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)


def fit(tree, file: Path, death=None, accumulate=1, every_minutes=0.0, workers=0, stop_after=None, shown=()) -> Toy:
    toy = Toy(death)
    data = RIBDataModule(tree, {}, Transform(8, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3), batch_size=3, workers=workers)
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        callbacks=[*([] if stop_after is None else [StopAfter(stop_after)]), Resume(file, every_minutes), *shown],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    resumed = file if file.is_file() else None
    try:
        trainer.fit(toy, datamodule=data, ckpt_path=resumed, weights_only=False if resumed else None)
    except Killed:
        assert death is not None
    return toy


def fit_through(tree, file: Path, deaths, **options) -> tuple[list, Toy, list[int]]:
    """Return the last sight of each batch, the toy that reached the end, and the epochs that began."""
    seen, begun = {}, []
    for death in [*deaths, None]:
        toy = fit(tree, file, death, **options)
        for batch in toy.seen:
            assert seen.setdefault(batch[:2], batch) == batch, "a batch that is seen again is the same batch"
        begun += toy.epochs_begun
    return [seen[key] for key in sorted(seen)], toy, begun


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory):
    kept = {}
    for accumulate in (1, 2):
        toy = fit(tree, tmp_path_factory.mktemp("undisturbed") / "last.ckpt", accumulate=accumulate)
        assert len(toy.seen) == BATCHES * EPOCHS
        kept[accumulate] = toy
    return kept


def assert_same(found, toy, whole) -> None:
    assert found == whole.seen
    assert toy.trainer.global_step == whole.trainer.global_step
    assert toy.trainer.fit_loop.epoch_loop._batches_that_stepped == whole.trainer.global_step  # the loggers' step
    assert all(torch.equal(a, b) for a, b in zip(toy.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("death", STARTS + LASTS + ENDS, ids=str)
def test_killed_once(tree, tmp_path, undisturbed, death, accumulate):
    found, toy, _ = fit_through(tree, tmp_path / "last.ckpt", [death], accumulate=accumulate)
    assert_same(found, toy, undisturbed[accumulate])


@pytest.mark.parametrize(
    "deaths",
    [
        (ENDS[0], STARTS[4]),
        (STARTS[3], STARTS[5]),
        (STARTS[3], ENDS[1]),
        (ENDS[0], ENDS[1]),
        (LASTS[0], STARTS[4]),
        (LASTS[0], LASTS[1]),
    ],
)
def test_killed_again_after_an_epochs_end(tree, tmp_path, undisturbed, deaths):
    found, toy, begun = fit_through(tree, tmp_path / "last.ckpt", deaths)
    assert_same(found, toy, undisturbed[1])
    assert sorted(set(begun)) == list(range(EPOCHS))  # Lightning tells every epoch's start


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 5), (2, 3), (2, 4), (1, 9)])
def test_killed_where_steps_end_it_in_mid_epoch(tree, tmp_path, accumulate, steps):
    options = {"accumulate": accumulate, "stop_after": steps}
    whole = fit(tree, tmp_path / "whole.ckpt", **options)
    assert whole.trainer.global_step == steps
    for number, death in enumerate(STARTS + LASTS + ENDS):
        found, toy, _ = fit_through(tree, tmp_path / f"{number}.ckpt", [death], **options)
        assert_same(found, toy, whole)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_at_any_two_moments(tree, tmp_path, undisturbed, accumulate):
    for number, deaths in enumerate(itertools.combinations(STARTS + LASTS + ENDS, 2)):
        found, toy, _ = fit_through(tree, tmp_path / f"{number}.ckpt", deaths, accumulate=accumulate)
        assert_same(found, toy, undisturbed[accumulate])


def test_loader_processes_that_read_ahead_make_no_difference(tree, tmp_path, undisturbed):
    found, toy, _ = fit_through(tree, tmp_path / "last.ckpt", [STARTS[4]], workers=1)
    assert_same(found, toy, undisturbed[1])


def test_with_time_to_go_it_saves_at_the_ends_of_epochs_only(tree, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(resume, "TIMES_APART", 0)
    file = tmp_path / "last.ckpt"
    fit(tree, file, STARTS[2], every_minutes=60)
    assert not file.exists()
    found, toy, _ = fit_through(tree, file, [STARTS[5]], every_minutes=60)
    assert torch.load(file, weights_only=False)["global_step"] == BATCHES * EPOCHS
    assert_same(found, toy, undisturbed[1])


def test_epochs_that_are_short_beside_a_save_end_without_one(tree, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(resume, "TIMES_APART", 1e9)
    file = tmp_path / "last.ckpt"
    found, toy, begun = fit_through(tree, file, [STARTS[-1]], every_minutes=60)
    assert begun == [0, 1, 2, 1, 2], "the first one tells how long it takes, and is the last"
    assert_same(found, toy, undisturbed[1])


def test_a_save_cut_short_leaves_the_one_before(tree, tmp_path, monkeypatch):
    file = tmp_path / "last.ckpt"
    fit(tree, file, STARTS[2])
    before = file.read_bytes()

    def cut_short(trainer, path, weights_only=None):
        Path(path).write_bytes(before[:100])
        raise Killed

    monkeypatch.setattr(L.Trainer, "save_checkpoint", cut_short)
    fit(tree, file, STARTS[-1])
    assert file.read_bytes() == before
    monkeypatch.undo()
    fit(tree, file)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
