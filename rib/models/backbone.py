"""Build the network of a pretrained model without its checkpoint's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from rib.models.start import Start


def build_backbone(start: Start, pretrained: bool = False) -> nn.Module:
    """Build the network of a pretrained model with random initial weights, as its library initialises them.

    Args:
        start: The pretrained model, from `find_start`.
        pretrained: Let timm load weights; only `rib.models.convert` does so, to intercept them.
    """
    if start.library == "mini":
        from rib.models.mini import build_mini

        return build_mini(start.outputs)
    if start.library == "open_clip":
        from rib.models.zero_shot import build_zero_shot

        return build_zero_shot(start.architecture, start.outputs, start.built_for, bias=start.headless)
    from rib.models.size import build_timm

    return build_timm(start.architecture, start.outputs, start.built_for, pretrained=pretrained)
