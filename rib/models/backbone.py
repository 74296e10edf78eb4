"""Build the network of a pretrained model, before its weights are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.models.checkpoints import num_outputs

if TYPE_CHECKING:
    from torch import nn

    from rib.models.start import Start


def build_backbone(start: Start, pretrained: bool = False) -> nn.Module:
    """The network alone, with whatever weights the library gives it before a checkpoint is loaded.

    Args:
        start: From `find_start`.
        pretrained: Have timm load what it thinks it should; `rib.models.convert` watches it.
    """
    if start.library == "mini":
        from rib.models.mini import build_mini

        return build_mini()
    if start.library == "open_clip":
        from rib.models.zero_shot import build_zero_shot

        return build_zero_shot(start.architecture, num_outputs(), start.built_for)
    from rib.models.size import build_timm

    return build_timm(start.architecture, num_outputs(), start.built_for, pretrained=pretrained)
