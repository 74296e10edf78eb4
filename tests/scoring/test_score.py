"""Scoring: each image once, for any batch size and number of processes; columns against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist

from rib.data.labels import LabelSpace
from rib.errors import RibError
from rib.scoring.score import score
from tests.support.gloo import GlooPool
from tests.support.nets import NETS, OUTPUTS, random_images, small_vit

SPACE = LabelSpace(((3,), (1, 5, 7), (0,), (9, 2), (11,), (12,)))


def batches(count: int, size: int, rank: int = 0, world: int = 1):
    images = random_images(count)
    labels = torch.arange(count) % len(SPACE)
    index = torch.arange(count)[rank::world]
    return [(images[i], labels[i], i) for i in index.split(size)]


def test_columns_against_plain_formulas():
    model = small_vit()
    found = score(model, batches(31, 7), SPACE, 31, keep_logits=True)
    with torch.no_grad():
        outputs = model(random_images(31))
    logits = torch.stack([outputs[:, list(g)].max(1).values for g in SPACE.groups], 1)
    assert found is not None
    assert found.logits is not None
    assert np.allclose(found.logits, logits, atol=1e-5)
    assert np.array_equal(found.top5, logits.argsort(1, descending=True)[:, :5])
    assert np.array_equal(found.label, np.arange(31) % len(SPACE))
    p = logits.softmax(1)
    assert np.allclose(found.confidence, p.max(1).values, atol=1e-6)
    assert np.allclose(found.log_prob, p[range(31), np.arange(31) % len(SPACE)].log(), atol=1e-5)
    assert found.accuracy == int((logits.argmax(1) == torch.arange(31) % len(SPACE)).sum()) / 31


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_changes_nothing(net, size):
    model = NETS[net]()
    one, other = (score(model, batches(70, s), SPACE, 70) for s in (70, size))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.top5[:, 0], other.top5[:, 0])
    assert np.allclose(one.log_prob, other.log_prob, atol=1e-4)


def _score_share(count: int):
    rank, world = dist.get_rank(), dist.get_world_size()
    return score(small_vit(), batches(count, 4, rank, world), SPACE, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", [11, 12, 1])
def test_two_processes_score_each_image_once(gloo_pool, count):
    shares = gloo_pool.run(_score_share, count)
    alone = score(small_vit(), batches(count, 4), SPACE, count)
    assert alone is not None
    assert shares[1] is None
    assert np.array_equal(shares[0].top5[:, 0], alone.top5[:, 0])
    assert np.array_equal(shares[0].label, alone.label)
    assert np.allclose(shares[0].log_prob, alone.log_prob, atol=1e-4)


@pytest.mark.slow
def test_four_processes_score_three_images_once():
    pool = GlooPool(4)
    try:
        shares = pool.run(_score_share, 3)
    finally:
        pool.close()
    alone = score(small_vit(), batches(3, 4), SPACE, 3)
    assert alone is not None
    assert np.array_equal(shares[0].top5[:, 0], alone.top5[:, 0])
    assert np.allclose(shares[0].log_prob, alone.log_prob, atol=1e-4)


def test_an_image_that_comes_twice_or_never_is_an_error():
    repeated = [*batches(8, 4), *batches(8, 4)[:1]]
    with pytest.raises(RuntimeError, match="exactly once, got 12"):
        score(small_vit(), repeated, SPACE, 8)
    with pytest.raises(RuntimeError, match="exactly once, got 8"):
        score(small_vit(), batches(8, 4), SPACE, 9)


def test_fewer_than_five_classes_leave_places_empty():
    found = score(
        small_vit(), [(random_images(3), torch.zeros(3).long(), torch.arange(3))], LabelSpace.of_ids([4, 2]), 3
    )
    assert found is not None
    assert (found.top5[:, 2:] == -1).all()
    assert (found.top5[:, :2] >= 0).all()


def test_an_unknown_precision_is_one_sentence():
    with pytest.raises(RibError, match=r"evaluation\.precision: expected one of"):
        score(small_vit(), [], SPACE, 0, precision="half")


def test_a_space_beyond_the_models_outputs_is_refused():
    with pytest.raises(ValueError, match=f"K > {OUTPUTS}"):
        LabelSpace.of_ids([OUTPUTS]).project(torch.zeros(2, OUTPUTS))
