"""CKA of all pairs of layers of two models, from one pass of images through both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rib.errors import RibError
from rib.metrics.cka import Estimate, MinibatchCKA, biased_hsic, gram, group_jackknife, is_constant
from rib.models.classifier import Classifier
from rib.models.features import feature_hooks, feature_layers
from rib.runtime.memory import available_memory
from rib.runtime.precision import exact_float32
from rib.runtime.progress import Advance

Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches of the same images under the transforms of two models, uint8 tensors of shape (B, 3, H, W)."""

CONSTANT, UNUSED = "constant", "unused"
"""Notes on layers without CKA; written to cka.csv."""


@dataclass(frozen=True)
class ModelPair:
    """CKA between the layers of two models.

    Attributes:
        one: Names of the first model's N layers, from input to output.
        other: Names of the second model's M layers.
        cka: CKA of all pairs, shape (N, M); 0 where it is not defined.
        defined: True where both layers of a pair vary over the images, shape (N, M).
        tokens: Kind of token that represented an image in each model (`rib.models.features.TOKENS`).
        layers: By name of each layer that both have: its estimate, and a note (empty, ``constant`` or ``unused``).
    """

    one: list[str]
    other: list[str]
    cka: NDArray[np.float64]
    defined: NDArray[np.bool_]
    tokens: tuple[str, ...]
    layers: dict[str, tuple[Estimate | None, str]]


@dataclass
class _Side:
    """One of the two compared models, with its features for the current batch of images.

    Attributes:
        model: The model.
        tokens: Kind of token that represents an image.
        names: Names of its layers, from input to output.
        features: By layer, what `observe` kept of the current batch.
        used: Layers that were called for any batch.
        spread: By layer, the sum of squares of the centred features, over all batches.
        size: By layer, the sum of squares of the features, over all batches.
    """

    model: Classifier
    tokens: str
    names: list[str] = field(default_factory=list)
    features: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    spread: dict[str, Tensor] = field(default_factory=dict)
    size: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = list(feature_layers(self.model.backbone))

    def observe(self, images: Tensor, keep: Callable[[Tensor], Tensor]) -> None:
        """Pass a batch through the model, and store ``keep(features)`` for the features (B, D) of each layer."""

        def store(name: str, features: Tensor) -> None:
            self.features[name] = keep(features)

        self.features.clear()
        with feature_hooks(self.model.backbone, self.tokens, store):
            self.model(images)
        # A layer is never called if, for example, the forward of its parent module is replaced.
        self.used |= self.features.keys()

    def grams(self, images: Tensor) -> Tensor:
        """Compute the Gram matrices of all L layers for a batch of n images, (L, n, n); zeros for an unused layer."""

        def keep(features: Tensor) -> Tensor:
            computed = gram(features)
            spreads.append(computed.spread)
            sizes.append(computed.size)
            return computed.matrix

        spreads: list[Tensor] = []
        sizes: list[Tensor] = []
        self.observe(images, keep)
        for name, spread, size in zip(self.features, spreads, sizes, strict=True):
            self.add(name, spread, size)
        zeros = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
        return torch.stack([self.features.get(name, zeros) for name in self.names])

    def add(self, name: str, spread: Tensor, size: Tensor) -> None:
        """Add one layer's sums of squares over a batch to the totals that tell if the layer is constant."""
        self.spread[name] = self.spread.get(name, 0.0) + spread
        self.size[name] = self.size.get(name, 0.0) + size

    def note(self, name: str) -> str:
        """Return the reason why a layer has no CKA (it is unused or constant); an empty string if it has one."""
        if name not in self.used:
            return UNUSED
        return CONSTANT if bool(is_constant(self.spread[name], self.size[name])) else ""


def compare(
    one: Classifier,
    other: Classifier,
    batches: Batches,
    *,
    tokens: Sequence[str],
    num_images: int,
    estimator: str = "minibatch",
    device: torch.device | str = "cpu",
    advance: Advance = lambda done, note: None,
) -> ModelPair:
    """Compute CKA between all layers of two models on the same images (`rib.metrics.cka`).

    Args:
        one: The first model; put into eval mode.
        other: The second model, likewise; may have another architecture.
        batches: Batches of at least four images each, in random order.
        tokens: Kind of token that represents an image in each model, one of `rib.models.features.TOKENS`.
        num_images: Number of images in all batches.
        estimator: ``minibatch`` (debiased, bounded memory) or ``exact`` (all features in memory).
        device: Device that features and Gram matrices are computed on.
        advance: Called with the number of images done since its last call.

    Raises:
        RibError: If the exact estimator needs more memory than is free.
    """
    sides = [_Side(model.to(device).eval(), token) for model, token in zip((one, other), tokens, strict=True)]
    shared = [name for name in sides[0].names if name in set(sides[1].names)]
    estimate_all = {"minibatch": _minibatch, "exact": _exact}[estimator]
    # TF32 on a GPU would round Gram matrices to 10 bits of mantissa.
    with torch.inference_mode(), exact_float32():
        matrix, estimates = estimate_all(sides, shared, batches, num_images, torch.device(device), advance)
    notes = [{name: side.note(name) for name in side.names} for side in sides]
    usable = [np.array([not note for note in of_side.values()], dtype=bool) for of_side in notes]
    layers: dict[str, tuple[Estimate | None, str]] = {}
    for name, estimate in zip(shared, estimates, strict=True):
        note = notes[0][name] or notes[1][name]
        layers[name] = (None if note else estimate, note)
    defined = usable[0][:, None] & usable[1][None, :]
    cka = np.where(defined, matrix.cpu().numpy(), 0.0)
    return ModelPair(sides[0].names, sides[1].names, cka, defined, tuple(tokens), layers)


Estimates = tuple[Tensor, list[Estimate]]
"""CKA of all pairs of layers, shape (N, M), and an estimate with interval for each layer that both have by name."""


def _minibatch(
    sides: Sequence[_Side], shared: Sequence[str], batches: Batches, _: int, device: torch.device, advance: Advance
) -> Estimates:
    one, other = sides
    measure = MinibatchCKA([(one.names.index(name), other.names.index(name)) for name in shared])
    for images in batches:
        of_one, of_other = (side.grams(x.to(device)) for side, x in zip(sides, images, strict=True))
        measure.update(of_one, of_other)
        advance(len(images[0]), "")
    return measure.matrix(), measure.intervals()


def _exact(
    sides: Sequence[_Side],
    shared: Sequence[str],
    batches: Batches,
    num_images: int,
    device: torch.device,
    advance: Advance,
) -> Estimates:
    collected: list[dict[str, list[Tensor]]] = [{}, {}]
    for images in batches:
        for side, x, kept in zip(sides, images, collected, strict=True):
            side.observe(x.to(device), lambda features: features.cpu())  # all features would not fit on a GPU
            for name, features in side.features.items():
                kept.setdefault(name, []).append(features)
        if not collected[0] or len(next(iter(collected[0].values()))) == 1:  # after the first batch
            _check_memory(collected, num_images)
        advance(len(images[0]), "")
    for side, kept in zip(sides, collected, strict=True):
        for name, of_batch in kept.items():
            whole = torch.cat(of_batch)
            kept[name] = [whole]
            side.add(name, (whole.double() - whole.double().mean(dim=0)).square().sum(), whole.double().square().sum())
    zeros = torch.zeros(num_images, 1)  # stands for an unused layer: constant, so that its CKA is 0
    layers = [
        {n: kept[n][0] if n in kept else zeros for n in side.names} for side, kept in zip(sides, collected, strict=True)
    ]
    matrix = biased_hsic(list(layers[0].values()), list(layers[1].values())).cka()
    return matrix, [group_jackknife(layers[0][name], layers[1][name]) for name in shared]


def _check_memory(collected: Sequence[dict[str, list[Tensor]]], num_images: int) -> None:
    """Raise a RibError if the features of all images would not fit into the free memory."""
    numbers = sum(of_batch[0].shape[1] for kept in collected for of_batch in kept.values())
    # 12 bytes per number: 4 as float32, and 8 for the float64 copy in `biased_hsic`.
    needed, free = 12 * numbers * num_images, available_memory()
    if needed > free:
        raise RibError(
            f"estimator=exact needs {needed / 1e9:.1f} GB for {numbers:,} features of {num_images:,} images, "
            f"but only {free / 1e9:.1f} GB are free; give fewer images=, or estimator=minibatch"
        )
