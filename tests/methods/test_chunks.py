"""Chunks of per-image gradients within a given memory, on a pretended GPU, and what is kept in the host's memory."""

from __future__ import annotations

import pytest
import torch

from rib.errors import RibError
from rib.methods.chunks import Chunks, most_images
from rib.methods.ewc import EWC
from rib.methods.fisher import fisher_diagonal
from rib.methods.l2sp import L2SP
from rib.models.recompute import checkpoint_gradients
from tests.support.fitting import fit, same
from tests.support.nets import random_images, small_vit


class Pretended(Chunks):
    """A GPU on which the training step peaks at 100, and ``each`` image's gradients take 7 beside 30 for the model."""

    def __init__(self, usable):
        super().__init__(torch.device("cpu"), batch=4)
        self.usable, self.sizes = usable, []

    def parts(self, model, images):
        for part in super().parts(model, images):
            self.sizes.append(len(images[part]))
            yield part

    def _training_peak(self, model, images):
        assert len(images) == self.batch
        return 100

    def _usable(self):
        return self.usable

    def _reset(self):
        pass

    def _peak(self):
        return 30 + 7 * self.sizes[-1]


@pytest.mark.parametrize(("usable", "largest"), [(10**9, 11), (60, 4), (10, 1)])
def test_the_fisher_is_the_same_in_chunks_that_fit(usable, largest):
    model = small_vit()
    checkpoint_gradients(model)  # as in training with gradient_checkpointing, which torch.func cannot follow
    batches = [(random_images(n, n), torch.rand(n, dtype=torch.float64)) for n in (16, 13)]
    chunks = Pretended(usable)
    found, each = fisher_diagonal(model, batches, "vmap", "sampled", chunks)
    whole, each_of_whole = fisher_diagonal(small_vit(), batches)
    assert chunks.sizes[:2] == [1, 2]
    assert max(chunks.sizes[2:]) == largest
    assert sum(chunks.sizes) == 29
    assert all(30 + 7 * size <= min(110, usable) for size in chunks.sizes[2:] if size > 1)
    assert torch.allclose(each, each_of_whole, rtol=1e-4)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-9) for name, value in whole.items())


def test_one_image_is_always_tried():
    assert most_images({1: 50, 2: 60}, 10) == 1
    assert most_images({1: 50, 2: 50}, 60) >= 1


HELD = {
    "penalty": lambda keep_on: [EWC(3.0, samples=16, keep_on=keep_on)],
    "proximal": lambda keep_on: [EWC(3.0, samples=16, form="proximal", keep_on=keep_on)],
    "l2sp": lambda keep_on: [L2SP(3.0, keep_on=keep_on)],
}


@pytest.mark.parametrize("name", HELD)
def test_weights_are_the_same_wherever_the_start_is_kept(name, monkeypatch):
    """With the host's way to stream them, which a CPU has no need of."""
    expected = fit(small_vit(), *HELD[name]("device")).state_dict()
    streamed = []

    def one_by_one(parameters, *others):
        for p, *own in zip(parameters, *others, strict=True):
            streamed.append(p)
            yield [p], *([t] for t in own)

    monkeypatch.setattr("rib.methods.anchor.groups", one_by_one)
    monkeypatch.setattr("rib.methods.ewc.groups", one_by_one)
    found = fit(small_vit(), *HELD[name]("host")).state_dict()
    assert streamed
    assert same(found, expected)


@pytest.mark.parametrize("method", [EWC, L2SP])
def test_no_third_place(method):
    with pytest.raises(RibError, match="keep_on: expected device or host, got 'disk'"):
        method(keep_on="disk")
