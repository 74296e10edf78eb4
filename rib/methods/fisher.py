"""The diagonal of the Fisher information of a classifier, from per-sample gradients.

F_i = E_x E_{y ~ p(y|x)} [ (d log p(y|x) / d theta_i)^2 ] (Kirkpatrick et al. 2017, arXiv 1612.00796; Martens 2020,
arXiv 1412.1193, section 9.2): one label is drawn from the model's own softmax for each image, and the gradient of
each image is squared *before* averaging. Squaring the gradient of a batch's mean, as several libraries do, shrinks
F by about the batch size, so that the penalty's strength would depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Way = Literal["loop", "vmap"]


def sample_labels(model: nn.Module, images: Tensor, uniforms: Tensor) -> Tensor:
    """One output id for each image, drawn from the model's full softmax by inverting its cumulative sum.

    Args:
        model: In eval mode.
        images: Shape (B, 3, H, W).
        uniforms: A number in [0, 1) for each image, shape (B,): the draw belongs to the image, so that batches,
            devices and processes do not change it.

    Returns:
        Shape (B,), on the images' device.
    """
    with torch.no_grad():
        cumulative = model(images).double().softmax(dim=1).cumsum(dim=1)
    drawn = torch.searchsorted(cumulative, uniforms.to(cumulative)[:, None], right=True)[:, 0]
    return drawn.clamp(max=cumulative.shape[1] - 1)


def squared_gradients(model: nn.Module, images: Tensor, labels: Tensor, way: Way = "loop") -> dict[str, Tensor]:
    """Sum over images of squared per-sample gradients of the cross-entropy.

    Args:
        model: In eval mode (no BatchNorm batch statistics, no dropout).
        images: Shape (B, 3, H, W).
        labels: Output ids, shape (B,).
        way: ``loop``, a backward pass an image (as fast as any way on a CPU), or ``vmap``, all at once in B times the
            memory of the gradients (for GPUs).

    Returns:
        A tensor for each trainable parameter, by name, of its shape.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if way == "loop":
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for image, label in zip(images, labels, strict=True):
            loss = F.cross_entropy(model(image[None]).float(), label[None])
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for value, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    value += gradient.square()
        return total

    def loss_of(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        outputs = functional_call(model, weights, (image[None],))
        return F.cross_entropy(outputs.float(), label[None])

    detached = {name: p.detach() for name, p in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batching rule
        each = vmap(grad(loss_of), in_dims=(None, 0, 0))(detached, images, labels)
    return {name: value.square().sum(dim=0) for name, value in each.items()}


def fisher_diagonal(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], way: Way = "loop") -> dict[str, Tensor]:
    """Sum of squared per-sample gradients with labels drawn from the model.

    Args:
        model: In eval mode, on the device to compute on.
        batches: Images of shape (B, 3, H, W) on that device, each with its uniform number, shape (B,).
        way: See `squared_gradients`.

    Returns:
        The sum over images by parameter name; divided by their number it is the Fisher's diagonal.
    """
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for images, uniforms in batches:
        labels = sample_labels(model, images, uniforms)
        for name, value in squared_gradients(model, images, labels, way).items():
            total[name] += value
    return total


def normalised(fisher: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same divided by its mean over all weights, so that a strength means the same for every model.

    Raises:
        ValueError: If it is zero everywhere or not finite, so that it says nothing about any weight.
    """
    mean = sum(float(f.double().sum()) for f in fisher.values()) / sum(f.numel() for f in fisher.values())
    if not 0 < mean < float("inf"):
        raise ValueError(f"expected a Fisher with a finite mean above 0, got mean {mean}")
    return {name: f / mean for name, f in fisher.items()}
