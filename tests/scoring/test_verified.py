"""``verified`` against plain float32, image by image, also where margins are as small as float32's steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from rib.data.labels import LabelSpace
from rib.scoring import verified
from rib.scoring.score import score, score_all
from tests.support.nets import NETS, OUTPUTS, random_images, small_convnet, small_vit

SPACE = LabelSpace(tuple((i,) for i in range(OUTPUTS)))
COUNT = 300


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    monkeypatch.setattr(verified, "SAMPLE", 40)


def read(groups):
    images = random_images(COUNT)
    for group in groups:
        at = torch.tensor(group)
        yield images[at], at % OUTPUTS, at


def batches(rank: int = 0, world: int = 1, size: int = 64):
    return read([part.tolist() for part in torch.arange(COUNT)[rank::world].split(size)])


def both_ways(models, space=SPACE, **options):
    plain = score_all(models, batches(), space, COUNT, **options)
    found = score_all(models, batches(), space, COUNT, precision="verified", read=read, **options)
    assert plain is not None
    assert found is not None
    return list(zip(plain, found, strict=True))


def nearly_tied(model):
    """Give every two outputs the same weights but for one float32 step, so that top-1 is decided by rounding alone."""
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight[1::2] = torch.nextafter(head.weight[::2], torch.tensor(9.0))
        head.bias[1::2] = head.bias[::2]
    return model


@pytest.mark.parametrize("change", [lambda model: model, nearly_tied], ids=["as it is", "nearly tied"])
@pytest.mark.parametrize("net", NETS)
def test_top_1_is_that_of_float32_for_every_image(net, change):
    [(plain, found)] = both_ways([change(NETS[net]())])
    assert np.array_equal(plain.top5[:, 0], found.top5[:, 0])
    assert np.allclose(plain.log_prob, found.log_prob, atol=0.05)
    assert found.verified is not None
    assert found.verified["sample"] == 40
    assert 40 / COUNT <= found.verified["rescored"] <= 1


def test_the_first_pass_alone_would_be_wrong(monkeypatch):
    monkeypatch.setattr(verified.Verifying, "_rescore", lambda *_: None)
    monkeypatch.setattr(verified.Verifying, "_settle_ties", lambda *_: None)
    [(plain, found)] = both_ways([nearly_tied(small_vit())])
    assert not np.array_equal(plain.top5[:, 0], found.top5[:, 0])


def test_models_in_one_pass_have_bands_of_their_own():
    steep = small_vit()
    steep.backbone.head.weight.data *= 50
    pairs = both_ways([small_vit(), steep, small_convnet()], keep_logits=True)
    assert all(np.array_equal(plain.top5[:, 0], found.top5[:, 0]) for plain, found in pairs)
    bands = [found.verified["band"] for _, found in pairs]
    assert bands[1] > 10 * bands[0]
    [(_, alone)] = both_ways([small_vit()])
    assert alone.verified == pairs[0][1].verified
    plain, found = pairs[0]
    again = (plain.logits == found.logits).all(1)
    # Images that were not scored again keep the first pass's logits; with those of the sample alone it were 40.
    assert again.mean() < 1
    assert np.array_equal(found.log_prob, torch.from_numpy(found.logits).log_softmax(1)[range(COUNT), found.label])


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_few_classes_and_an_ensemble(classes):
    space = LabelSpace(tuple((i, i + 1) for i in range(classes)))

    def few(groups):
        return ((images, labels % classes, at) for images, labels, at in read(groups))

    def ways(precision):
        groups = [part.tolist() for part in torch.arange(COUNT).split(64)]
        models = [small_vit(), small_vit(1)]
        [found] = score_all(
            models, few(groups), space, COUNT, precision=precision, read=few, combine=lambda both: both[0] + both[1]
        )
        return found

    assert np.array_equal(ways("32-true").top5[:, 0], ways("verified").top5[:, 0])


def test_a_small_dataset_is_scored_in_float32_bit_for_bit(monkeypatch):
    monkeypatch.setattr(verified, "SAMPLE", COUNT)
    [(plain, found)] = both_ways([nearly_tied(small_vit())], keep_logits=True)
    assert all(np.array_equal(column, found.columns[name]) for name, column in plain.columns.items())
    assert found.verified["rescored"] == 1
    assert found.verified["flips"] > 0


class Overflowing(nn.Module):
    """Overflows in fp16 on dark images, as a network with large activations does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small_vit()

    def forward(self, images):
        logits = self.model(images)
        dark = (images[:, 0, 0, 0] < 128) & torch.is_autocast_enabled("cpu")
        return torch.where(dark[:, None], torch.inf, logits)


def test_what_overflows_in_fp16_is_computed_in_tf32():
    [(plain, found)] = both_ways([Overflowing()])
    assert found.verified["not_finite"] == (random_images(COUNT)[:, 0, 0, 0] < 128).sum()
    assert np.array_equal(plain.top5[:, 0], found.top5[:, 0])
    assert np.isfinite(found.log_prob).all()


def test_a_flip_in_the_upper_half_doubles_the_band(monkeypatch):
    monkeypatch.setattr(verified, "_worst_error", lambda half, exact: 1e-6)
    model = small_vit()
    with torch.no_grad():
        model.backbone.head.weight[1:] = model.backbone.head.weight[:1] + 1e-3 * model.backbone.head.weight[1:]
    [(plain, found)] = both_ways([model])
    assert found.verified["band"] > 4e-6
    assert np.array_equal(plain.top5[:, 0], found.top5[:, 0])


def _score_share(precision: str):
    rank, world = dist.get_rank(), dist.get_world_size()
    verified.SAMPLE = 40
    return score(nearly_tied(small_vit()), batches(rank, world), SPACE, COUNT, precision=precision, read=read)


@pytest.mark.slow
def test_two_processes_agree_on_the_band(gloo_pool):
    plain, found = gloo_pool.run(_score_share, "32-true"), gloo_pool.run(_score_share, "verified")
    assert found[1] is None
    assert np.array_equal(plain[0].top5[:, 0], found[0].top5[:, 0])
    assert found[0].verified["sample"] == 40


def test_what_was_verified_is_kept_with_the_predictions(tmp_path):
    [(_, found)] = both_ways([small_vit()])
    found.save(tmp_path / "a.npz")
    assert type(found).load(tmp_path / "a.npz").verified == found.verified
