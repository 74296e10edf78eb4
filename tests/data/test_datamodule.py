"""The data module: every image once, for any batch size, number of workers and processes."""

from __future__ import annotations

import itertools
import threading

import lightning.pytorch as L
import pytest
import torch

from rib.data import crop_cache, crop_file, loader
from rib.data.datamodule import RIBDataModule
from rib.data.transform import Transform
from rib.errors import RibError
from rib.runtime.console import say_once
from tests.data.trees import pictures

T = Transform(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def tree(tmp_path):
    return pictures(tmp_path / "images", 11)


def module(tree, **options) -> RIBDataModule:
    return RIBDataModule(
        tree, {} if tree is None else {"target": tree}, T, **{"batch_size": 4, "workers": 0, **options}
    )


def everything(loaders):
    """Images, labels and places of all, by place."""
    parts = [batch for loader in loaders for batch in loader]
    images, labels, places = (torch.cat(column) for column in zip(*parts, strict=True))
    order = places.argsort()
    return images[order], labels[order], places[order]


@pytest.fixture
def reference(tree):
    return everything([module(tree).evaluation_loader("target")])


def test_evaluation_is_in_path_order(tree, reference):
    assert reference[0].dtype == torch.uint8
    assert reference[0].shape == (11, 3, 16, 16)
    assert reference[1].tolist() == tree.labels.tolist()
    assert torch.cat([b[2] for b in module(tree).evaluation_loader("target")]).tolist() == list(range(11))


@pytest.mark.parametrize("options", [{"evaluation_batch_size": 3}, {"evaluation_batch_size": 100}, {"workers": 2}])
@pytest.mark.parametrize("cached", ["no", "in memory", "on disk"])
def test_evaluation_depends_on_no_batch_size_worker_or_cache(tree, reference, tmp_path, monkeypatch, options, cached):
    if cached == "on disk":
        monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    data = module(tree, cache=None if cached == "no" else tmp_path / "cache", **options)
    for _ in range(2):
        found = everything([data.evaluation_loader("target")])
        assert all(torch.equal(one, other) for one, other in zip(found, reference, strict=True))


@pytest.mark.parametrize("world", [2, 3, 13])
def test_processes_score_each_image_once(tree, reference, world):
    found = everything([module(tree).evaluation_loader("target", rank, world) for rank in range(world)])
    assert all(torch.equal(one, other) for one, other in zip(found, reference, strict=True))


@pytest.mark.parametrize("augment", ["none", "flip", "random_resized_crop"])
def test_training_depends_on_no_worker(tree, augment):
    def epochs(workers):
        loader = module(tree, augment=augment, workers=workers).train_dataloader()
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            yield from loader

    for one, other in zip(epochs(0), epochs(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def train_places(folder, batch_size):
    """This rank's batches (runs in the gloo pool)."""
    tree = pictures(folder / str(torch.distributed.get_rank()), 11)
    return [batch[2].tolist() for batch in module(tree, batch_size=batch_size).train_dataloader()]


@pytest.mark.slow
def test_two_processes_train_on_the_batches_of_one(tree, tmp_path, gloo_pool):
    whole = [batch[2].tolist() for batch in module(tree).train_dataloader()]
    first, second = gloo_pool.run(train_places, tmp_path, 4)
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in whole]
    with pytest.raises(RuntimeError, match="batch_size: expected a batch size that 2 processes can share evenly"):
        gloo_pool.run(train_places, tmp_path / "odd", 5)


def test_a_selection_of_the_source(tree, reference):
    data = module(tree)
    parts, count = data.source_images(6, seed=1)
    images, labels, places = (torch.cat(column) for column in zip(*parts, strict=True))
    assert count == 6
    assert places.tolist() == list(range(6))
    chosen = [next(i for i in range(11) if torch.equal(image, reference[0][i])) for image in images]
    assert chosen == sorted(set(chosen))
    assert labels.tolist() == tree.labels[chosen].tolist()
    shares = [place for rank in range(2) for _, _, p in data.source_images(6, 1, rank, 2)[0] for place in p.tolist()]
    assert sorted(shares) == list(range(6))
    assert data.source_images(99, seed=1)[1] == 11


def test_augmented_training_leaves_the_selection_plain(tree, reference):
    parts, _ = module(tree, augment="random_resized_crop").source_images(11, seed=0)
    assert torch.equal(torch.cat([images for images, _, _ in parts]), reference[0])


def test_where_it_resumes(tree):
    data = module(tree)
    whole = [batch[2].tolist() for batch in data.train_dataloader()]
    data.load_state_dict({"epoch": 0, "batches_done": 2})
    assert [batch[2].tolist() for batch in data.train_dataloader()] == whole[2:]
    assert [batch[2].tolist() for batch in data.train_dataloader()] == whole  # another fit begins at the beginning
    data.load_state_dict({"epoch": 0, "batches_done": 3})  # a finished epoch
    loader = data.train_dataloader()
    assert loader.batch_sampler.epoch == 1
    assert len([*loader]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_one_sentence_with_its_path(tree, workers):
    (tree.folder / tree.paths[5]).write_bytes(b"no image")
    with pytest.raises(RibError, match=r"005\.jpg cannot be read as an image") as caught:
        list(module(tree, workers=workers).evaluation_loader("target"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fit_that_meets_a_corrupt_image_ends_with_its_sentence(tree, workers):
    class Toy(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def training_step(self, batch, batch_idx):
            return self.weight * batch[0].float().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    (tree.folder / tree.paths[5]).write_bytes(b"no image")
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with pytest.raises(
        RibError, match=r"^\S+005\.jpg cannot be read as an image \(unknown image format\); replace it .+$"
    ):
        trainer.fit(Toy(), datamodule=module(tree, workers=workers))


@pytest.fixture
def started(monkeypatch):
    """Numbers of processes of the loaders that were made since."""
    found, make = [], loader._Loader._processes
    monkeypatch.setattr(
        loader._Loader, "_processes", lambda self, b, count: found.append(count) or make(self, b, count)
    )
    return found


def test_no_processes_for_what_is_in_memory_or_cached(tree, reference, tmp_path, monkeypatch, started):
    data = module(tree, workers=None, cache=tmp_path)
    assert torch.equal(everything([data.evaluation_loader("target")])[0], reference[0])
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    monkeypatch.setattr(loader, "cores", lambda: 1)
    data = module(tree, workers=None, cache=tmp_path / "other")
    training = data.train_dataloader()
    for epoch in range(3):
        training.batch_sampler.set_epoch(epoch)
        assert torch.equal(everything([training])[0], reference[0])
    assert torch.equal(everything([data.evaluation_loader("target")])[0], reference[0])
    assert started == [0, 1]


@pytest.mark.parametrize("workers", [0, 2, None])
def test_training_draws_the_same_from_the_cache(tree, tmp_path, monkeypatch, workers):
    """Nor does it matter to what is drawn beside it, such as dropout."""
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)

    def epochs(**options):
        torch.manual_seed(0)
        training = module(tree, augment="flip", **options).train_dataloader()
        for epoch in range(3):
            training.batch_sampler.set_epoch(epoch)
            yield from training
            yield (torch.rand(1),)

    for one, other in zip([*epochs()], [*epochs(workers=workers, cache=tmp_path)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_processes_are_added_while_the_consumer_waits(tree, reference, monkeypatch, started):
    monkeypatch.setattr(loader, "cores", lambda: 2)
    times = itertools.cycle([0.0, 1.0, 1.0, 1.0])  # a second for each batch, and none to use it
    monkeypatch.setattr(loader, "perf_counter", lambda: next(times))
    data = module(tree, workers=None, evaluation_batch_size=1)
    for _ in range(2):
        assert torch.equal(everything([data.evaluation_loader("target")])[0], reference[0])
    assert started == [1, 2, 2]


def test_how_many_processes_a_consumer_keeps_busy(monkeypatch):
    monkeypatch.setattr(loader, "cores", lambda: 16)
    for wait, work, expected in (
        (0.0, 1.0, 1),
        (0.04, 1.0, 1),
        (0.2, 1.0, 2),
        (5.0, 1.0, 6),
        (99.0, 1.0, 16),
        (1.0, 0.0, 16),
    ):
        demand = loader.Demand()
        assert demand.raised([wait] * 3, [work] * 3) == (expected > 1)
        assert demand.workers == expected


def test_a_reader_of_cached_images_may_stop_early(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)
    data = module(tree, cache=tmp_path, evaluation_batch_size=1)
    list(data.evaluation_loader("target"))

    def readers():
        return [thread for thread in threading.enumerate() if thread.name.startswith("images")]

    batches = iter(data.evaluation_loader("target"))
    assert next(batches)[2].tolist() == [0]
    assert readers()
    del batches
    assert not readers()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_told_by_the_process_that_trains(tree, reference, tmp_path, monkeypatch, capfd, workers):
    say_once.cache_clear()
    monkeypatch.setattr(crop_cache, "IN_MEMORY", 0)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(crop_file, "_write_at", full)
    data = module(tree, workers=workers, cache=tmp_path)
    assert torch.equal(everything([data.evaluation_loader("target")])[0], reference[0])
    said = f"no more decoded images are kept in {tmp_path} (No space left on device); the run goes on\n"
    assert capfd.readouterr().err.count(said) == 1


def test_nothing_to_train_on():
    with pytest.raises(RibError, match="expected a source to fine-tune on, got none"):
        module(None).train_dataloader()
