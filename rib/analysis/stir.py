"""STIR: similarity through inverted representations, a measure of the invariances that two models share.

Nanda et al. 2022, "Measuring Representational Robustness of Neural Networks Through Shared Invariances", arXiv
2206.11939, eq. 2: STIR(m2 | m1) = S(m2(X), m2(X')), where the images X' have the same representation under m1 as X.
They are found by gradient descent on the pixels, from noise, until m1(X') is close to m1(X). A representation is the
input of the model's head. S is linear CKA in the paper; here it is debiased linear CKA, since the biased one is near 1
for any two sets of 64 images with hundreds of features.

``residual`` is the error of the search: ||m1(X') - m1(X)|| / ||m1(X)||, mean over images. Where it is not small, X' are
not invariances of m1, and STIR means little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rib.analysis.cache import CachedAnalysis, get_or_compute, write_arrays, write_table
from rib.analysis.cka import Pair
from rib.config.command_schema import CKAConfig, InversionConfig
from rib.errors import RibError
from rib.metrics.cka import debiased_cka, group_jackknife
from rib.models.classifier import Classifier
from rib.models.features import head_input
from rib.runtime.progress import Advance, progress


def shared_invariances(config: CKAConfig, dataset: str) -> CachedAnalysis:
    """Return STIR of a run given its pretrained model, and of that model given the run, computing it if needed.

    A run given as ``against`` takes the place of the pretrained model.

    Args:
        config: Options of the analysis; ``config.inversion`` controls the search.
        dataset: Name of the dataset that X is sampled from.

    Returns:
        The analysis, whose folder holds ``stir.csv`` with columns model, given, stir, low, high, cka (debiased, of
        both models on X), residual, images.

    Raises:
        RibError: If the two models take images of different sizes, so that X' of one cannot be shown to the other.
    """
    pair = Pair.of(config)
    sizes = [subject.start.transform.size for subject in (pair.one, pair.other)]
    if sizes[0] != sizes[1]:
        raise RibError(
            f"stir: expected two models with the same image size, got {sizes[0]} and {sizes[1]}; leave out stir=true"
        )
    key_fields = {**pair.key_fields(dataset, config.inversion.images), "inversion": vars(config.inversion)}
    for unused in ("images", "tokens", "estimator", "batch_size"):  # they change CKA, but not STIR
        del key_fields[unused]

    def compute(folder: Path) -> Mapping[str, Any]:
        tree = pair.tree(dataset)
        indices = [tree.sample(config.inversion.images, config.seed)]
        (images,) = pair.loader(pair.one, tree, indices)
        models = [subject.model().to(pair.device).requires_grad_(False) for subject in (pair.one, pair.other)]
        images = images.to(pair.device)
        with progress("searching for shared invariances", 2 * config.inversion.steps, "steps") as advance:
            how, seed = config.inversion, config.seed
            results = [stir(m, given, images, how, seed, advance) for m, given in _both_orders(models)]
        subjects = _both_orders([pair.one, pair.other])
        rows = [(s.label, g.label, *row) for (s, g), (row, _) in zip(subjects, results, strict=True)]
        columns = ["model", "given", "stir", "low", "high", "cka", "residual", "images"]
        write_table(pd.DataFrame(rows, columns=columns), folder / "stir.csv")
        inverted = {name: x.cpu().numpy() for name, (_, x) in zip(("given_other", "given_one"), results, strict=True)}
        write_arrays(folder / "stir.npz", images=images.cpu().numpy(), **inverted)
        return {}

    return get_or_compute(pair.one.run, "stir", key_fields, compute, config.force)


def _both_orders(pair: list[Any]) -> Iterator[tuple[Any, Any]]:
    yield pair[0], pair[1]
    yield pair[1], pair[0]


def stir(
    model: Classifier, given: Classifier, images: Tensor, how: InversionConfig, seed: int, advance: Advance
) -> tuple[tuple[float | None, ...], Tensor]:
    """Compute STIR(model | given): the degree to which one model shares the invariances of another.

    Nanda et al. 2022, arXiv 2206.11939, eq. 2, with debiased CKA.

    Args:
        model: The model whose response to the inverted images is measured, in eval mode.
        given: The model whose invariances are searched for, in eval mode, its weights without gradient.
        images: uint8 images X, shape (B, 3, H, W).
        how: Steps and learning rate of the search.
        seed: Seed of the noise that the search starts from.
        advance: Called with the number of steps done since its last call.

    Returns:
        The row (STIR, its low and high end by a jackknife over groups of images, CKA of the two models on X, residual,
        B), and the images X', uint8 of the shape of X.
    """
    inverted, residual = invert(given, images, how, seed, advance)
    with torch.no_grad():
        real, same, other = represent(model, images), represent(model, inverted), represent(given, images)
    estimate = group_jackknife(real, same, measure=debiased_cka)
    row = (estimate.value, estimate.low, estimate.high, debiased_cka(real, other), residual, len(images))
    return row, inverted.round().to(torch.uint8)


def invert(
    model: Classifier, images: Tensor, how: InversionConfig, seed: int, advance: Advance = lambda done, note: None
) -> tuple[Tensor, float]:
    """Search, from noise, for images that have the same representation under a model as the given ones.

    Adam on the pixels, which are clipped to 0..255 after each step. The loss is the squared distance of the
    representations over the squared norm of the given one.

    Args:
        model: The model, in eval mode, its weights without gradient.
        images: uint8 images, shape (B, 3, H, W).
        how: Steps and learning rate (in units of full brightness).
        seed: Seed of the noise.
        advance: Called with the number of steps done since its last call.

    Returns:
        Pixels in 0..255, float of shape (B, 3, H, W), and the residual: the mean of ||m(x') - m(x)|| / ||m(x)||.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images.shape, generator=generator).to(images.device).requires_grad_(True)
    with torch.no_grad():
        target = represent(model, images)
    length = target.norm(dim=1).clamp(min=1e-12)  # a representation of zeros would divide by 0
    optimizer = torch.optim.Adam([pixels], lr=how.lr)
    for _ in range(how.steps):
        optimizer.zero_grad()
        ratio = (represent(model, 255 * pixels) - target).norm(dim=1) / length
        torch.autograd.backward(ratio.square().sum())
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        advance(1, f"residual {ratio.mean():.3f}")
    with torch.no_grad():
        residual = (represent(model, 255 * pixels) - target).norm(dim=1) / length
    return 255 * pixels.detach(), float(residual.mean())


def represent(model: Classifier, images: Tensor) -> Tensor:
    """Return the input of the model's head, shape (B, D), for images (B, 3, H, W) in 0..255."""
    captured: list[Tensor] = []
    with head_input(model.backbone, captured.append):
        model(images)
    return captured[0]
