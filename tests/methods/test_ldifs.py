"""LDIFS against the authors' formula, the layers it reads, and other passes through the model."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from rib.errors import RibError
from rib.methods.ldifs import LDIFS
from rib.methods.lwf import LwF
from rib.models.classifier import Classifier
from tests.support.fitting import batch, fit, same
from tests.support.nets import HALF, OUTPUTS, SIDE, small_vit

TWELVE = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 12, "num_heads": 2, "num_classes": OUTPUTS}


def deep_vit(pre_norm=True):
    torch.manual_seed(0)
    return Classifier(timm.models.VisionTransformer(**TWELVE, pre_norm=pre_norm), HALF, HALF).eval()


def slices(net, images):
    """Features as omegafragger/ldifs_code's ``get_features`` takes them: after ln_pre and blocks 3, 6, 9, 12."""
    vit = net.backbone
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed((images / 255 - 0.5) / 0.5)))
    found = [tokens]
    for number, block in enumerate(vit.blocks, start=1):
        tokens = block(tokens)
        if number % 3 == 0:
            found.append(tokens)
    return found


def authors(net, start, images):
    """``LDIFSFinetune.forward``: unit over dim 1 (tokens), squares averaged over channels, tokens, slices, images."""
    each = []
    for one, two in zip(slices(net, images), slices(start, images), strict=True):
        unit = [f / (f.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for f in (one, two)]
        each.append((unit[0] - unit[1]).square().mean(dim=-1).mean(dim=-1))
    return torch.stack(each, dim=1).mean(dim=-1).mean(dim=0)


class Moved(LDIFS):
    """Its penalty for a network whose weights noise has moved."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        with torch.no_grad():
            for n, p in enumerate(pl_module.model.parameters()):
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))

    def penalty(self, module, step):
        self.found = super().penalty(module, step)
        return self.found


def moved_penalty(make, scaling):
    """The penalty at strength 1, the moved network, and the start."""
    method = Moved(1.0, scaling=scaling)
    net = fit(make(), method, steps=1, lr=0.0)
    return float(method.found.detach()), net, make()


@pytest.mark.parametrize("pre_norm", [True, False])
def test_it_is_the_authors_distance_at_their_five_slices(pre_norm):
    found, net, start = moved_penalty(lambda: deep_vit(pre_norm), "official")
    with torch.no_grad():
        assert found == pytest.approx(float(authors(net, start, batch(0)[0])), rel=1e-4)
    assert found > 1e-4


def test_flattened_is_many_times_as_strong():
    """Why ``strength`` means nothing without ``scaling``: one vector of N C entries against C of N, averaged."""
    official, *_ = moved_penalty(deep_vit, "official")
    flattened, *_ = moved_penalty(deep_vit, "flattened")
    tokens = (SIDE // 8) ** 2 + 1
    assert flattened / official > tokens / 2


def test_maps_of_pixels_are_positions_wherever_their_channels_are():
    first, last = torch.randn(2, 7, 3, 5), torch.randn(2, 7, 3, 5)
    there, here = (LDIFS(scaling="official") for _ in range(2))
    here._channels_last = True
    expected = there._distance(first.flatten(2).mT, last.flatten(2).mT)
    assert there._distance(first, last) == pytest.approx(float(expected), rel=1e-5)
    assert here._distance(first.movedim(1, -1), last.movedim(1, -1)) == pytest.approx(float(expected), rel=1e-5)


def test_swins_channels_are_known_to_come_last():
    options = {"img_size": 16, "window_size": 2, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
    swin = timm.models.SwinTransformer(**options, patch_size=4, num_classes=OUTPUTS)
    method = LDIFS()
    fit(Classifier(swin, HALF, HALF), method, steps=1)
    assert method._channels_last
    fit(small_vit(), method, steps=1)
    assert not method._channels_last


def test_a_channel_that_is_zero_everywhere_has_a_gradient():
    """A dead ReLU; the derivative of sqrt(sum of squares) at 0 is no number."""
    now = torch.zeros(2, 5, 3, requires_grad=True)
    LDIFS()._distance(now, torch.zeros(2, 5, 3)).backward()
    assert now.grad.isfinite().all()


def test_a_network_without_numbered_blocks_is_one_sentence():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.head = nn.Flatten(), nn.Linear(3 * SIDE * SIDE, OUTPUTS)

        def forward(self, images):
            return self.head(self.flat(images))

    with pytest.raises(RibError, match="expected a network with numbered blocks"):
        fit(Classifier(Plain(), HALF, HALF), LDIFS(), steps=1)


def test_another_scaling_is_one_sentence():
    with pytest.raises(RibError, match=r"method\.ldifs\.scaling: expected official or flattened, got 'l2'"):
        LDIFS(scaling="l2")


@pytest.mark.parametrize("scaling", ["official", "flattened"])
def test_it_asks_about_the_batch_whatever_else_the_model_is_shown(scaling):
    alone = fit(small_vit(), LDIFS(10.0, scaling=scaling)).state_dict()
    other = LwF(0.0, inputs="augmented")
    for stack in ([LDIFS(10.0, scaling=scaling), other], [other, LDIFS(10.0, scaling=scaling)]):
        assert same(fit(small_vit(), *stack).state_dict(), alone)
