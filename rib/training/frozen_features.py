"""Train a head on features that are computed once, where nothing before the head changes.

A linear probe sees the same features of an image in every epoch, if images are not augmented. After one pass over the
source (`rib.methods.constants`) a step is the head alone, and images are not even read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from rib.data.datamodule import RIBDataModule
from rib.data.dataset import Batch
from rib.methods.constants import outputs_of_source
from rib.models.features import head_input
from rib.models.layers import head_names
from rib.training.callbacks import total_batches

if TYPE_CHECKING:
    from rib.training.module import FineTuner


class FrozenFeatures:
    """Features of each source image that enter a network's head, valid while nothing before the head has changed.

    Args:
        model: The network, from images to logits.
        head: Its head, from features (B, D) to logits (B, K).
        table: Features of all source images by position, (N, D).
        data: The data module, which serves no pixels from now on.
    """

    def __init__(self, model: nn.Module, head: nn.Module, table: Tensor, data: RIBDataModule) -> None:
        self.head = head
        self.table = table
        self._data = data
        self._model = model
        self._epoch = -1
        self._layers = [layer for layer in model.modules() if layer is not head]
        self._tensors = list(_before(model, head))
        self._versions = [tensor._version for tensor in self._tensors]
        data.serve_pixels(False)

    def outputs(self, places: Tensor, epoch: int) -> Tensor | None:
        """Return the logits (B, K) of the images at some positions (B,); None if the features are no longer theirs.

        Args:
            places: Positions of the images in the source, on the table's device.
            epoch: The epoch, at whose first batch the network is looked through for layers that were replaced.
        """
        if not self._hold(epoch):
            return None
        logits: Tensor = self.head(self.table[places])
        return logits

    def images(self, places: Tensor) -> Tensor:
        """Return the images at some positions (B,), and serve images again, since the features no longer hold."""
        self._data.serve_pixels(True)
        return self._data.images_at(places).to(places.device)

    def _hold(self, epoch: int) -> bool:
        """Return True if nothing before the head has changed, trains, or is in train mode."""
        if epoch != self._epoch:
            self._epoch = epoch
            now = list(_before(self._model, self.head))
            if len(now) != len(self._tensors) or any(a is not b for a, b in zip(now, self._tensors, strict=True)):
                return False
        # torch counts how often a tensor was changed in place: by an optimizer, `load_state_dict`, BatchNorm.
        same = all(t._version == seen for t, seen in zip(self._tensors, self._versions, strict=True))
        return same and not any(t.requires_grad for t in self._tensors) and not any(x.training for x in self._layers)


def frozen_features(module: FineTuner) -> FrozenFeatures | None:
    """Compute the features of all source images before a fit in which the head alone trains.

    Args:
        module: The fine-tuning that is about to begin.

    Returns:
        None if more trains than the head, a method looks at images or into the network, the head is not the last layer,
        or the features are no constants (`outputs_of_source`).
    """
    model = module.model
    try:
        names = head_names(module.backbone)
    except ValueError:  # no linear layer
        return None
    head = module.backbone.get_submodule(min(names).rpartition(".")[0])
    heads = set(head.parameters())
    if any(p.requires_grad and p not in heads for p in model.parameters()) or _is_watched(model):
        return None
    if isinstance(module.trainer.strategy, FSDPStrategy) or any(method.reads_images() for method in module.methods):
        return None

    def features(images: Tensor) -> Tensor | None:
        taken: list[Tensor] = []
        with head_input(module.backbone, taken.append):
            logits = model(images)
        # Anything behind the head, or a head that is used twice, would be left out.
        if len(taken) != 1 or not torch.equal(head(taken[0]), logits):
            return None
        return taken[0]

    table = outputs_of_source(module, model, features, "features before the head")
    if table is None:
        return None
    return FrozenFeatures(model, head, table, module.trainer.datamodule)  # type: ignore[attr-defined]


def fixed_images(module: FineTuner, rank: int, world: int) -> tuple[Iterable[Batch], int] | None:
    """Return all source images in path order, where training shows the same pixels more than once; else None."""
    trainer: Any = module.trainer
    data: object = trainer.datamodule
    # Code of the user's may change a batch before it comes to the network.
    if not isinstance(data, RIBDataModule) or not all(map(_is_ours, (module, data, *trainer.callbacks))):
        return None
    if not data.repeats_pixels or total_batches(trainer) <= data.batches_an_epoch:
        return None
    return data.every_source_image(rank, world)


def _is_ours(part: object) -> bool:
    """Return True for an object of a class of rib's or Lightning's."""
    return type(part).__module__.partition(".")[0] in ("rib", "lightning")


def _before(model: nn.Module, head: nn.Module) -> Iterator[Tensor]:
    """Yield all parameters and buffers of a network but the head's."""
    own = {id(tensor) for tensor in (*head.parameters(), *head.buffers())}
    yield from (tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in own)


def _is_watched(model: nn.Module) -> bool:
    """Return True if a layer has a hook: something looks at what passes through the network, or changes it."""
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
