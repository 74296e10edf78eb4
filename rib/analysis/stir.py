"""STIR: does a model also not see what another does not see?

Nanda et al. 2022, "Measuring Representational Robustness of Neural Networks Through Shared Invariances", arXiv
2206.11939, eq. 2: STIR(m2 | m1) = S(m2(X), m2(X')), where X' are images that m1 represents as it does X: found by
gradient descent on the pixels, from noise, until m1(X') is close to m1(X). S is linear CKA. Here S is the debiased
one, since the plain one of 64 images and hundreds of features is near 1 for anything; a representation is what the
head reads. ``residual`` says how well the search went: ||m1(X') - m1(X)|| / ||m1(X)||, mean over images; where it is
not small, X' are not invariances of m1 and STIR says little.
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
    """STIR of the run given its start (or ``against``), and the other way round.

    Returns:
        Its folder has ``stir.csv``: columns model, given, stir, low, high, cka (debiased, of both models on the same
        images), residual, images.

    Raises:
        RibError: If the two models see images of different sizes, which no search can be shared by.
    """
    pair = Pair.of(config)
    if pair.one.start.transform.size != pair.other.start.transform.size:
        raise RibError("stir: expected two models that see images of one size; compare others without stir=true")
    facts = {**pair.facts(dataset, config.inversion.images), "inversion": vars(config.inversion)}
    for unread in ("images", "tokens", "estimator", "batch_size"):
        del facts[unread]

    def make(folder: Path) -> Mapping[str, Any]:
        tree = pair.tree(dataset)
        places = [tree.sample(config.inversion.images, config.seed)]
        (images,) = pair.loader(pair.one, tree, places)
        models = [subject.model().to(pair.device).requires_grad_(False) for subject in (pair.one, pair.other)]
        images = images.to(pair.device)
        with progress("searching for shared invariances", 2 * config.inversion.steps, "steps") as advance:
            found = [stir(m, given, images, config.inversion, config.seed, advance) for m, given in _both(models)]
        rows = [(s.label, g.label, *row) for (s, g), (row, _) in zip(_both([pair.one, pair.other]), found, strict=True)]
        columns = ["model", "given", "stir", "low", "high", "cka", "residual", "images"]
        write_table(pd.DataFrame(rows, columns=columns), folder / "stir.csv")
        inverted = {name: x.cpu().numpy() for name, (_, x) in zip(("given_other", "given_one"), found, strict=True)}
        write_arrays(folder / "stir.npz", images=images.cpu().numpy(), **inverted)
        return {}

    return get_or_compute(pair.one.run, "stir", facts, make, config.force)


def _both(pair: list[Any]) -> Iterator[tuple[Any, Any]]:
    yield pair[0], pair[1]
    yield pair[1], pair[0]


def stir(
    model: Classifier, given: Classifier, images: Tensor, how: InversionConfig, seed: int, advance: Advance
) -> tuple[tuple[float | None, ...], Tensor]:
    """STIR(model | given) on uint8 images (B, 3, H, W).

    Returns:
        STIR, its low and high end (a jackknife over groups of images), CKA of both models on the images, the residual,
        and B; and the images that were found, uint8.
    """
    found, residual = invert(given, images, how, seed, advance)
    with torch.no_grad():
        real, same, other = represent(model, images), represent(model, found), represent(given, images)
    estimate = group_jackknife(real, same, measure=debiased_cka)
    row = (estimate.value, estimate.low, estimate.high, debiased_cka(real, other), residual, len(images))
    return row, found.round().to(torch.uint8)


def invert(
    model: Classifier, images: Tensor, how: InversionConfig, seed: int, advance: Advance = lambda done, note: None
) -> tuple[Tensor, float]:
    """Images, from noise, that a model represents as it does the given ones.

    Adam on pixels, which are held in 0..255 after each step; the loss is the squared distance over the squared length
    of the representation.

    Args:
        model: In eval mode, its weights without gradient.
        images: uint8 (B, 3, H, W).
        how: Steps and learning rate (in units of full brightness).
        seed: Of the noise.
        advance: Told the steps done.

    Returns:
        Pixels (B, 3, H, W) in 0..255, and the mean of ||m(x') - m(x)|| / ||m(x)||.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images.shape, generator=generator).to(images.device).requires_grad_(True)
    with torch.no_grad():
        wanted = represent(model, images)
    length = wanted.norm(dim=1).clamp(min=1e-12)
    optimizer = torch.optim.Adam([pixels], lr=how.lr)
    for _ in range(how.steps):
        optimizer.zero_grad()
        ratio = (represent(model, 255 * pixels) - wanted).norm(dim=1) / length
        torch.autograd.backward(ratio.square().sum())
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        advance(1, f"residual {ratio.mean():.3f}")
    with torch.no_grad():
        residual = (represent(model, 255 * pixels) - wanted).norm(dim=1) / length
    return 255 * pixels.detach(), float(residual.mean())


def represent(model: Classifier, images: Tensor) -> Tensor:
    """What the head reads of images (B, 3, H, W) in 0..255, (B, D)."""
    heard: list[Tensor] = []
    with head_input(model.backbone, heard.append):
        model(images)
    return heard[0]
