"""Build a pretrained model: its network with the checkpoint's weights loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.errors import RibError
from rib.models.backbone import build_backbone

if TYPE_CHECKING:
    from rib.models.classifier import Classifier
    from rib.models.start import Start


def build(start: Start, outputs: int) -> Classifier:
    """Build a model with its pretrained weights, in float32 and eval mode.

    Args:
        start: The pretrained model, from `find_start`.
        outputs: K, the number of outputs that the data's catalog expects.

    Raises:
        RibError: If the weights do not fit the network, or the network has another number of outputs.
    """
    from rib.models.adapters import PROMPT
    from rib.models.classifier import Classifier
    from rib.models.convert import fit_to_network
    from rib.models.evaluation_transform import record_transform
    from rib.models.state import check_finite, read_weights
    from rib.models.zero_shot import ZeroShot

    backbone = build_backbone(start)
    stored = read_weights(start.weights)
    if isinstance(backbone, ZeroShot):
        backbone.match_head(stored)
    prompt = {PROMPT: stored.pop(PROMPT).float()} if PROMPT in stored else {}
    check_finite(prompt, start.weights)  # fit_to_network checks the other weights
    state = fit_to_network(start, stored, backbone)
    if (num_outputs := int(getattr(backbone, "num_classes", outputs))) != outputs:
        raise RibError(f"model={start.name}: expected {outputs} outputs, the checkpoint has {num_outputs}")
    record_transform(backbone, start.transform)  # for whoever gets the plain network, without its Start
    model = Classifier(backbone, start.transform.mean, start.transform.std)
    model.load_stored({**state, **prompt})
    return model.eval()
