from __future__ import annotations

import torch

from rib.models.memory_format import prefer_channels_last
from tests.support.nets import random_images, small_convnet, small_vit


def test_a_convnet_keeps_its_values_and_a_vit_its_order():
    one, other = small_convnet(), prefer_channels_last(small_convnet())
    weights = [p for p in other.parameters() if p.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert any(not w.is_contiguous() for w in weights)
    state = one.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    with torch.no_grad():
        assert torch.allclose(one.eval()(random_images(4)), other.eval()(random_images(4)), atol=1e-5)
    assert all(p.is_contiguous() for p in prefer_channels_last(small_vit()).parameters())
