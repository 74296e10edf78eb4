"""The network of a finished run, as timm or open_clip build it, with the transform that its images need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rib.config.schema import ModelConfig
from rib.data.worlds import catalog_of_run
from rib.models.head import Head
from rib.runs.method_stack import NO_WEIGHTS
from rib.runs.run import Run
from rib.runs.usable import check_weights
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from torch import nn
    from torchvision.transforms.v2 import Compose

    from rib.data.transform import Transform


class Network(NamedTuple):
    """A network and the transform of its images; unpacks as ``model, transform``.

    Attributes:
        model: The module, from normalised images (B, 3, S, S) to logits (B, K), in the order of the suite's
            outputs (ImageNet's 1000 classes), in float32 and eval mode on the CPU.
            For timm its own class. For open_clip ``model.visual`` is the image tower, and ``model.head`` the zero-shot
            head on its normalised features. After `visual_prompt`, a Sequential of the prompt and the network.
        transform: From a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W) to a normalised float32 tensor
            (3, S, S): resize, centre crop, mean and std.
    """

    model: nn.Module
    transform: Compose


def load_network(run: Run, metrics: Metrics) -> Network:
    """Build the network of a finished run, with the run's weights.

    Args:
        run: The run.
        metrics: Its metrics.

    Raises:
        RibError: If the run has no weights of its own (`output_ensemble`), or they are missing or damaged.
    """
    import torch
    from torch import nn

    from rib.models.build import build
    from rib.models.start import find_start

    # Unlike in an average of weights, a visual prompt is no obstacle: it comes along.
    refused = {name: reason for name, reason in NO_WEIGHTS.items() if name != "visual_prompt"}
    config = check_weights(run, metrics, "model", run.folder, refused)
    # The run's own weights in place of the pretrained ones, which may be gone and are not needed.
    known = replace(config.model, weights=str(run.weights_file), activation=_activation(config.model))
    start = find_start(known, head=Head(len(catalog_of_run(metrics["data"]).outputs)))
    with torch.random.fork_rng(devices=[]):  # a network begins with random weights, which these replace
        classifier = build(start)
    network = classifier.backbone
    if classifier.prompt is not None:
        network = nn.Sequential(classifier.prompt, network)
    return Network(network.eval(), evaluation_transform(start.transform))


def _activation(model: ModelConfig) -> str | None:
    """Return a model's activation; for timm's own weights it follows from the name, for others the user has said it."""
    if model.library != "timm" or model.activation is not None or model.weights is not None:
        return model.activation
    return "quickgelu" if "_quickgelu" in (model.architecture or model.name) else "gelu"


def evaluation_transform(transform: Transform) -> Compose:
    """Return a checkpoint's evaluation transform as torchvision transforms, as rib applies it.

    Args:
        transform: Size of the crop, interpolation, mean and std.
    """
    import torch
    from torchvision.transforms import v2

    from rib.models.evaluation_transform import mark

    interpolation = v2.InterpolationMode(transform.interpolation)
    return mark(
        v2.Compose(
            [
                v2.RGB(),
                v2.ToImage(),  # before resizing, so that it works on uint8 tensors with antialiasing, as in scoring
                v2.Resize([transform.resized], interpolation, antialias=True),
                v2.CenterCrop([transform.size, transform.size]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(transform.mean), list(transform.std)),
                v2.ToPureTensor(),
            ]
        ),
        transform,
    )
