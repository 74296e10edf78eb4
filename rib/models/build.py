"""Build a pretrained model: its network with the checkpoint's weights loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.models.backbone import build_backbone

if TYPE_CHECKING:
    from rib.models.classifier import Classifier
    from rib.models.start import Start


def build(start: Start) -> Classifier:
    """Build a model with its pretrained weights, in float32 and eval mode.

    Args:
        start: The pretrained model, from `find_start`. If it is ``headless``, its head is zeros.

    Raises:
        RibError: If the weights do not fit the network, or have another number of outputs than ``start``.
    """
    from rib.models.adapters import PROMPT
    from rib.models.classifier import Classifier
    from rib.models.convert import fit_to_network
    from rib.models.evaluation_transform import record_transform
    from rib.models.state import check_finite, read_weights
    from rib.models.zero_shot import ZeroShot

    backbone = build_backbone(start)
    stored = read_weights(start.weights)
    if isinstance(backbone, ZeroShot) and not start.headless:
        backbone.match_head(stored)
    prompt = {PROMPT: stored.pop(PROMPT).float()} if PROMPT in stored else {}
    check_finite(prompt, start.weights)  # fit_to_network checks the other weights
    state = fit_to_network(start, stored, backbone)
    record_transform(backbone, start.transform)  # for whoever gets the plain network, without its Start
    model = Classifier(backbone, start.transform.mean, start.transform.std)
    model.load_stored({**state, **prompt})
    return model.eval()
