"""One pass of images through two models, from which CKA of all pairs of layers comes out."""

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
"""The same images as each of two models wants them, uint8 (B, 3, H, W)."""

CONSTANT, UNUSED = "constant", "unused"


@dataclass(frozen=True)
class ModelPair:
    """CKA between the layers of two models.

    Attributes:
        one: Names of the first model's N layers, from input to output.
        other: Of the second's M.
        cka: Of all pairs, (N, M); 0 where it is not defined.
        defined: Whether both layers of a pair vary over the images, (N, M).
        tokens: What represented an image in each.
        layers: Estimate and note (empty, ``constant`` or ``unused``) of each layer that both have by name.
    """

    one: list[str]
    other: list[str]
    cka: NDArray[np.float64]
    defined: NDArray[np.bool_]
    tokens: tuple[str, ...]
    layers: dict[str, tuple[Estimate | None, str]]


@dataclass
class _Side:
    """One model, what its layers say to a batch, and whether they say anything."""

    model: Classifier
    tokens: str
    names: list[str] = field(default_factory=list)
    heard: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    spread: dict[str, Tensor] = field(default_factory=dict)
    size: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = list(feature_layers(self.model.backbone))

    def show(self, images: Tensor, keep: Callable[[Tensor], Tensor]) -> None:
        """Pass a batch through; of each layer's features (B, D), what ``keep`` makes of them stays."""

        def take(name: str, features: Tensor) -> None:
            self.heard[name] = keep(features)

        self.heard.clear()
        with feature_hooks(self.model.backbone, self.tokens, take):
            self.model(images)
        self.used |= self.heard.keys()

    def grams(self, images: Tensor) -> Tensor:
        """Gram matrices of all layers, (L, n, n); zeros for one that was not used."""

        def keep(features: Tensor) -> Tensor:
            found = gram(features)
            spreads.append(found.spread)
            sizes.append(found.size)
            return found.matrix

        spreads: list[Tensor] = []
        sizes: list[Tensor] = []
        self.show(images, keep)
        for name, spread, size in zip(self.heard, spreads, sizes, strict=True):
            self.add(name, spread, size)
        nothing = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
        return torch.stack([self.heard.get(name, nothing) for name in self.names])

    def add(self, name: str, spread: Tensor, size: Tensor) -> None:
        """Count what a layer's features vary by."""
        self.spread[name] = self.spread.get(name, 0.0) + spread
        self.size[name] = self.size.get(name, 0.0) + size

    def note(self, name: str) -> str:
        """Why a layer has no CKA; empty if it has."""
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
    """CKA between all layers of two models on the same images.

    Args:
        one: Put into eval mode.
        other: Likewise; may be of another architecture.
        batches: At least four images each, in an order that means nothing.
        tokens: What represents an image in each model, of `rib.models.features.TOKENS`.
        num_images: N.
        estimator: ``minibatch`` (debiased, bounded memory) or ``exact`` (all features in memory).
        device: Where features and Gram matrices are computed.
        advance: Told how many images are done.

    Raises:
        RibError: If the exact estimator needs more memory than there is.
    """
    sides = [_Side(model.to(device).eval(), token) for model, token in zip((one, other), tokens, strict=True)]
    shared = [name for name in sides[0].names if name in set(sides[1].names)]
    run = {"minibatch": _minibatch, "exact": _exact}[estimator]
    with torch.inference_mode(), exact_float32():
        matrix, estimates = run(sides, shared, batches, num_images, torch.device(device), advance)
    notes = [{name: side.note(name) for name in side.names} for side in sides]
    fine = [np.array([not note for note in of_side.values()], dtype=bool) for of_side in notes]
    layers: dict[str, tuple[Estimate | None, str]] = {}
    for name, estimate in zip(shared, estimates, strict=True):
        note = notes[0][name] or notes[1][name]
        layers[name] = (None if note else estimate, note)
    defined = fine[0][:, None] & fine[1][None, :]
    cka = np.where(defined, matrix.cpu().numpy(), 0.0)
    return ModelPair(sides[0].names, sides[1].names, cka, defined, tuple(tokens), layers)


Found = tuple[Tensor, list[Estimate]]


def _minibatch(
    sides: Sequence[_Side], shared: Sequence[str], batches: Batches, _: int, device: torch.device, advance: Advance
) -> Found:
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
) -> Found:
    parts: list[dict[str, list[Tensor]]] = [{}, {}]
    for images in batches:
        for side, x, kept in zip(sides, images, parts, strict=True):
            side.show(x.to(device), lambda features: features.cpu())
            for name, features in side.heard.items():
                kept.setdefault(name, []).append(features)
        if not parts[0] or len(next(iter(parts[0].values()))) == 1:
            _check_memory(parts, num_images)
        advance(len(images[0]), "")
    for side, kept in zip(sides, parts, strict=True):
        for name, of_batch in kept.items():
            whole = torch.cat(of_batch)
            kept[name] = [whole]
            side.add(name, (whole.double() - whole.double().mean(dim=0)).square().sum(), whole.double().square().sum())
    nothing = torch.zeros(num_images, 1)
    every = [
        {n: kept[n][0] if n in kept else nothing for n in side.names} for side, kept in zip(sides, parts, strict=True)
    ]
    matrix = biased_hsic(list(every[0].values()), list(every[1].values())).cka()
    return matrix, [group_jackknife(every[0][name], every[1][name]) for name in shared]


def _check_memory(parts: Sequence[dict[str, list[Tensor]]], num_images: int) -> None:
    """Refuse before memory runs out: float32 features of both models, and once more as float64."""
    numbers = sum(of_batch[0].shape[1] for kept in parts for of_batch in kept.values())
    needed, there = 12 * numbers * num_images, available_memory()
    if needed > there:
        raise RibError(
            f"estimator=exact needs {needed / 1e9:.1f} GB for {numbers:,} features of {num_images:,} images, "
            f"{there / 1e9:.1f} GB are free; give fewer images=, or estimator=minibatch"
        )
