"""The order of training images: a function of seed and epoch, divided over processes, resumable anywhere."""

from __future__ import annotations

from itertools import chain

import pytest

from rib.data.sampler import EpochBatches


def batches(num_images=23, batch_size=4, seed=0, rank=0, world=1, epoch=0, done=0) -> list[list[int]]:
    sampler = EpochBatches(num_images, batch_size, seed, rank, world)
    sampler.start_at(epoch, done)
    return [[index % num_images for index in batch] for batch in sampler]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_image_once_an_epoch(epoch):
    found = batches(epoch=epoch)
    assert [len(batch) for batch in found] == [4, 4, 4, 4, 4, 3]
    assert sorted(chain.from_iterable(found)) == list(range(23))


def test_the_order_is_a_function_of_seed_and_epoch():
    assert batches(seed=1, epoch=2) == batches(seed=1, epoch=2)
    orders = {str(batches(seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("done", range(7))
def test_it_begins_where_it_is_told_to_once(done):
    sampler = EpochBatches(23, 4, seed=0)
    whole = list(sampler)
    sampler.start_at(0, done)
    assert len(sampler) == 6  # Lightning counts the batches of the whole epoch
    assert list(sampler) == whole[done:]
    assert list(sampler) == whole


def test_an_epoch_set_while_another_is_read_does_not_mix_in():
    sampler = EpochBatches(23, 4, seed=0)
    whole = list(sampler)
    reading = iter(sampler)
    first = next(reading)
    sampler.set_epoch(1)
    assert [first, *reading] == whole


@pytest.mark.parametrize(("num_images", "batch_size", "world"), [(24, 4, 2), (23, 4, 2), (22, 8, 4), (21, 4, 4)])
def test_processes_share_the_global_batches_of_one(num_images, batch_size, world):
    whole = batches(num_images, batch_size)
    shares = [batches(num_images, batch_size, rank=rank, world=world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert all(parts)
        if len(batch) >= world:
            assert sorted(chain.from_iterable(parts)) == sorted(batch)
            assert all(part == batch[rank::world] for rank, part in enumerate(parts))
        else:  # every process takes part in every step
            assert [len(part) for part in parts] == [1] * world
            assert set(batch) <= set(chain.from_iterable(parts))


def test_fewer_images_than_processes():
    shares = [batches(1, 4, rank=rank, world=4) for rank in range(4)]
    assert shares == [[[0]]] * 4


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ValueError, match="3 processes can share evenly, got 4"):
        EpochBatches(10, 4, 0, 0, 3)


def test_indices_carry_their_epoch():
    sampler = EpochBatches(5, 2, seed=0)
    sampler.set_epoch(3)
    assert sorted(chain.from_iterable(sampler)) == [15, 16, 17, 18, 19]
