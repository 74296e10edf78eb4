"""The diagonal of the Fisher information of a classifier, from per-sample gradients.

F_i = E_x E_{y ~ p(y|x)} [ (d log p(y|x) / d theta_i)^2 ] (Kirkpatrick et al. 2017, arXiv 1612.00796; Martens 2020,
arXiv 1412.1193, section 9.2): the gradient of each image is squared *before* averaging. Squaring the gradient of a
batch's mean, as several libraries do, shrinks F by about the batch size, so that the penalty's strength would depend
on it. The labels y are (option ``labels``):

- ``sampled``: one label per image, drawn from the model's own softmax; unbiased.
- ``expected``: every label, weighted by p(y|x): exact for these images, in K backward passes each.
- ``dataset``: the image's own label, which is the "empirical" Fisher and not an estimate of F (section 11 there): it
  vanishes where the model is right and confident.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from rib.methods.base import Space
from rib.methods.chunks import Chunks

Way = Literal["loop", "vmap"]
Labels = Literal["sampled", "dataset", "expected"]


def rank_and_world() -> tuple[int, int]:
    """Return this process's distributed rank and the number of processes; (0, 1) without distribution."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sample_labels(model: nn.Module, images: Tensor, uniforms: Tensor) -> Tensor:
    """Sample a label for each image from the model's softmax over all outputs, by inverting its cumulative sum.

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


def dataset_labels(model: nn.Module, images: Tensor, labels: Tensor, space: Space) -> Tensor:
    """Return the output index of each image's true class; of a class with several outputs, the likeliest.

    Args:
        model: In eval mode.
        images: Shape (B, 3, H, W).
        labels: Classes of the space, shape (B,).
        space: The source's classes in terms of the model's outputs.

    Returns:
        Shape (B,), on the images' device.
    """
    with torch.no_grad():
        return space.likeliest_outputs(model(images), labels)


def squared_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, way: Way = "loop", weights: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute squared per-image gradients of the cross-entropy: their sum over images, and each image's over weights.

    Args:
        model: In eval mode (no BatchNorm batch statistics, no dropout).
        images: Shape (B, 3, H, W).
        labels: Output ids, shape (B,).
        way: ``loop``, one backward pass per image (as fast as any way on a CPU), or ``vmap``, all at once in B times
            the memory of the gradients (for GPUs).
        weights: Weight of each image's squares, shape (B,); None for 1.

    Returns:
        The sum over images, a tensor for each trainable parameter, by name, of its shape; and the sum over all weights
        for each image, shape (B,), in float64.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    each = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    if way == "loop":
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            loss = F.cross_entropy(model(image[None]).float(), label[None])
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for value, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    square = gradient.square() if weights is None else gradient.square() * weights[i]
                    value += square
                    each[i] += square.sum(dtype=torch.float64)
        return total, each

    def loss_of(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        outputs = functional_call(model, weights, (image[None],))
        return F.cross_entropy(outputs.float(), label[None])

    detached = {name: p.detach() for name, p in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batching rule
        gradients_of = vmap(grad(loss_of), in_dims=(None, 0, 0))(detached, images, labels)
    total = {}
    for name in detached:
        square = gradients_of.pop(name).square()  # not in place: gradients may share their memory
        if weights is not None:
            square *= weights.view(-1, *[1] * (square.ndim - 1))
        total[name] = square.sum(dim=0)
        each += square.reshape(len(images), -1).sum(dim=1, dtype=torch.float64)
    return total, each


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    way: Way = "loop",
    labels: Labels = "sampled",
    chunks: Chunks | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Accumulate squared per-sample gradients over batches: the unnormalised diagonal of the Fisher information.

    Args:
        model: In eval mode, on the device to compute on.
        batches: Images of shape (B, 3, H, W) on that device, each with its uniform number (``sampled``) or output id
            (``dataset``), shape (B,); for ``expected`` with anything.
        way: See `squared_gradients`.
        labels: The source of the labels; see the module's docstring.
        chunks: How to split batches so that ``vmap`` has the memory; None: not at all.

    Returns:
        The sum over images by parameter name; divided by their number it is the Fisher's diagonal. And the sum over
        all weights for each of the N images, shape (N,), in float64, on the CPU.
    """
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    each = [torch.zeros(0, dtype=torch.float64)]
    for images, given in batches:
        of_images = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for ids, weights in _label_draws(model, images, given, labels):
            for part in [slice(None)] if chunks is None else chunks.parts(model, images):
                own = None if weights is None else weights[part]
                over_images, over_weights = squared_gradients(model, images[part], ids[part], way, own)
                of_images[part] += over_weights
                for name in total:
                    total[name] += over_images.pop(name)
        each.append(of_images.cpu())
    return total, torch.cat(each)


def _label_draws(
    model: nn.Module, images: Tensor, given: Tensor, labels: Labels
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield pairs of labels (B,) and weights (B,) or None (all 1): one pair, or with ``expected`` one per output."""
    if labels == "sampled":
        yield sample_labels(model, images, given), None
    elif labels == "dataset":
        yield given, None
    else:
        with torch.no_grad():
            probabilities = model(images).softmax(dim=1)
        for output, weights in enumerate(probabilities.T):
            yield torch.full((len(images),), output, device=images.device), weights


def moments(each: Tensor) -> Tensor:
    """Return the count, sum and sum of squares of the given values, shape (3,); such tensors add up over processes."""
    return torch.stack([each.new_tensor(len(each)), each.sum(), each.square().sum()])


def relative_error(moments: Tensor) -> float:
    """Return the relative standard error of a mean, sd / sqrt(N) / mean, from the output of `moments`.

    NaN for fewer than two values or a mean of 0.
    """
    count, total, squares = moments.tolist()
    if count < 2 or not total > 0:
        return math.nan
    variance = max(0.0, squares - total**2 / count) / (count - 1)
    return math.sqrt(variance * count) / float(total)


def normalise(fisher: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide a Fisher by its mean over all weights, so that a penalty strength means the same for all models.

    Raises:
        ValueError: If it is zero everywhere or not finite, so that it says nothing about any weight.
    """
    mean = sum(float(f.double().sum()) for f in fisher.values()) / sum(f.numel() for f in fisher.values())
    if not 0 < mean < float("inf"):
        raise ValueError(f"expected a Fisher with a finite mean above 0, got mean {mean}")
    return {name: f / mean for name, f in fisher.items()}


def normalise_tensors(fisher: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide each tensor of a Fisher by its own mean, so that all tensors have mean 1; a tensor of zeros stays zero."""
    means = {name: float(f.double().mean()) for name, f in fisher.items()}
    return {name: f / means[name] if means[name] > 0 else f for name, f in fisher.items()}
