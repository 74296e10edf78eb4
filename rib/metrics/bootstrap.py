"""Confidence intervals of RI and mRI over images, by paired bootstrap.

The unit of resampling is the *original* photograph, drawn with everything derived from it: the predictions before and
after (the pairing), every transform of it (imagenet_val, Cartoon, Drawing, the cells of ImageNet-C) and, for mRI, the
models of all sources. Resampling each set on its own makes intervals 1.1 to 2.2 times too narrow, because a hard
photograph is hard in all of its variants.

It is fast because a bootstrap sample is a multinomial over *distinct patterns of change*. RI is linear in the changes,
so the effect of an original, over all targets and sources with the same images, is one of a few numbers: each model
gains, keeps or loses the image, and there are about seven models. Instead of 50,000 images, a dozen counts are drawn.
Where some sets of a family lack some of its originals (a subset, an incomplete download), their means are ratios of two
random sums, and the pattern holds both.

The intervals are percentile intervals, with the deviations of each family widened by sqrt(n / (n - 1)), because a
bootstrap sample varies that much less than the population. Simulated coverage is 94 to 96 % from 50 images per set
(tests/metrics/test_coverage.py), so no finer correction is applied. For a single set with about seven changed images
coverage is only 88 %, since steps of 1/n are then coarse and counts of zero frequent; if no image changed, the interval
is [0, 0].

Limits. Images are resampled, classes are not: the interval is about new images of the same classes. Images are taken as
independent, so near-duplicates (the same picture found twice on the web, frames of one video) count as two. If every
image has a second file that models treat the same, 95 % intervals cover 83 %; with four files, 67 % (same test).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from posixpath import basename, splitext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rib.metrics.intervals import Interval
from rib.metrics.robustness import target_shares

Floats = NDArray[np.float64]

DRAWS = 10_000
"""Number of resamples; with 10,000 the ends vary by about 1.5 % of the half width between seeds."""

_CHUNK = 4_000_000
"""Numbers in memory at a time while resampling, 32 MB."""


@dataclass(frozen=True, eq=False)
class Changes:
    """Change in correctness of each image of one set through fine-tuning.

    Attributes:
        dataset: Name of the target, ``imagenet_r``.
        change: Correct after (1 or 0) minus correct before: -1, 0 or 1, shape (N,).
        originals: Id of the photograph that each image shows, integers or strings (`originals_of`), shape (N,). None
            for a set that shares its photographs with no other; its images must then be in the same order for every
            source.
        family: Name of the group of sets within which equal ids mean the same photograph (`robustness.family_of`);
            empty: the dataset's own name.
        cell: ``corruption/severity`` of ImageNet-C, else empty.

    Raises:
        ValueError: If the lengths differ, there is no image, or a shared family comes without originals.
    """

    dataset: str
    change: NDArray[np.integer[Any]]
    originals: NDArray[Any] | None = None
    family: str = ""
    cell: str = ""
    _ids: NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.change.ndim != 1 or not len(self.change):
            raise ValueError(f"expected a change for each image of {self.unit}, got shape {self.change.shape}")
        if self.originals is None and (self.cell or self.family not in ("", self.dataset)):
            raise ValueError(f"expected the originals of {self.unit}, whose images other sets share, got none")
        ids = np.arange(len(self.change)) if self.originals is None else self.originals
        if ids.shape != self.change.shape:
            raise ValueError(
                f"expected an original for each image of {self.unit}, got {ids.shape} for {self.change.shape} changes"
            )
        object.__setattr__(self, "family", self.family or self.dataset)
        object.__setattr__(self, "_ids", ids)

    @property
    def unit(self) -> str:
        """Name of the set: ``imagenet_r``; for a corruption and severity of ImageNet-C, ``imagenet_c/fog/3``."""
        return f"{self.dataset}/{self.cell}" if self.cell else self.dataset


def originals_of(paths: Iterable[str], labels: NDArray[np.integer[Any]] | None = None) -> NDArray[np.str_]:
    """Return ids that tell which files show the same photograph: their names without folder and extension.

    Transforms of imagenet_val (Cartoon, Drawing, ImageNet-C) keep the file's name and may change the extension.

    Args:
        paths: Paths of a dataset's images, in its order.
        labels: Their classes, shape (N,), where files of different classes may have the same name; None: names differ.

    Returns:
        Ids, shape (N,).
    """
    names = [splitext(basename(path))[0] for path in paths]
    if labels is not None:
        names = [f"{label}/{name}" for label, name in zip(labels.tolist(), names, strict=True)]
    return np.array(names)


def dataset_change_interval(
    changes: Changes | Sequence[Changes], draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the accuracy change on one dataset with its confidence interval over images, in percentage points.

    Args:
        changes: The dataset, or all corruption cells of ImageNet-C.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Seed of the resampling; the same seed gives the same interval.
    """
    return robustness_interval([changes] if isinstance(changes, Changes) else changes, draws, level, seed)


def robustness_interval(changes: Sequence[Changes], draws: int = DRAWS, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the RI of one fine-tuned model with its confidence interval over images, in percentage points.

    Args:
        changes: One entry per target; for ImageNet-C, one per corruption and severity.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Seed of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: If there is no target or one comes twice.
    """
    return mean_robustness_interval({"": changes}, draws, level, seed)


def mean_robustness_interval(
    changes: Mapping[Any, Sequence[Changes]], draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean RI of several models with its confidence interval over images, in percentage points.

    Each resample of images is applied to all models at once.

    Args:
        changes: Changes of the targets by source. Any keys will do, for example pairs of source and seed to average
            over seeds as well; all keys have the same weight.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Seed of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: If there is no source, a source has no target, or one of its targets comes twice.
    """
    families = weighted_by_family(changes)
    generator = np.random.default_rng(seed)
    value, variance, resampled = 0.0, 0.0, np.zeros(draws)
    # Sorted, so that a seed gives the same interval whatever the order of the mapping.
    for family in sorted(families):
        patterns = Patterns.of(families[family])
        mean = patterns.mean
        value += mean
        variance += patterns.variance
        resampled += mean + patterns.widening * (patterns.resample(draws, generator) - mean)
    # A resample without any image of some set has no mean (NaN); it is left out.
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(100 * value, 100 * float(low), 100 * float(high), "images only", level, 100 * sqrt(variance))


def weighted_by_family(changes: Mapping[Any, Sequence[Changes]]) -> dict[str, list[tuple[float, Changes]]]:
    """Group image sets by family (sets of the same photographs), each with its weight in mRI.

    Different families are statistically independent.

    Args:
        changes: Changes of the targets by source.

    Returns:
        By family, pairs of weight and set; all weights sum to 1.

    Raises:
        ValueError: If there is no source, a source has no target, or one of its targets comes twice.
    """
    if not changes:
        raise ValueError("expected the changes of at least one source, got none: mRI is a mean over sources")
    families: defaultdict[str, list[tuple[float, Changes]]] = defaultdict(list)
    for targets in changes.values():
        shares = target_shares([target.unit for target in targets])
        for target in targets:
            families[target.family].append((shares[target.unit] / len(changes), target))
    return families


@dataclass(frozen=True, eq=False)
class Patterns:
    """Contributions of one family's photographs (originals) to RI or mRI, with equal ones counted together.

    There are P distinct contributions, called patterns.

    A *layer* is a group of sets, under any source, that show the same originals and so share their denominator.

    Attributes:
        frequencies: Number of originals with each pattern, shape (P,).
        gains: What such an original adds to each layer's weighted sum of changes, shape (P, L).
        images: Number of images of each layer that show such an original, shape (P, L).
    """

    frequencies: Floats
    gains: Floats
    images: Floats

    @classmethod
    def of(cls, members: Sequence[tuple[float, Changes]]) -> Patterns:
        """Count how many photographs of a family make each distinct contribution to RI or mRI.

        Args:
            members: The family's sets, each with its weight in the statistic; a negative weight subtracts the set.
        """
        indices, num_originals = _join([target._ids for _, target in members])
        layers: dict[bytes, defaultdict[float, Floats]] = {}
        images: dict[bytes, Floats] = {}
        keys: dict[int, bytes] = {}
        for (weight, target), index in zip(members, indices, strict=True):
            if id(index) not in keys:
                counts = np.bincount(index, minlength=num_originals)
                # Sets that show every original equally often have the same denominators: one layer.
                key = keys[id(index)] = counts.tobytes()
                images[key] = counts.astype(np.float64)
                layers.setdefault(key, defaultdict(lambda: np.zeros(num_originals)))
            # Whole numbers are summed for each weight first: equal patterns then give equal floats, bit for bit.
            totals = np.bincount(index, target.change, num_originals)
            layers[keys[id(index)]][abs(weight)] += totals if weight > 0 else -totals
        gains = [np.sum([w * total for w, total in sorted(sums.items())], axis=0) for sums in layers.values()]
        table = np.stack([*gains, *(images[key] for key in layers)], axis=1)
        rows, frequencies = _distinct(table)
        return cls(frequencies.astype(np.float64), rows[:, : len(layers)], rows[:, len(layers) :])

    @property
    def widening(self) -> float:
        """Factor sqrt(n / (n - 1)) that makes the bootstrap variance of a mean unbiased; 1 for a single original."""
        size = float(self.frequencies.sum())
        return sqrt(size / max(size - 1, 1))

    @property
    def mean(self) -> float:
        """Contribution of the family to RI or mRI on the observed images, a fraction."""
        return float(self.means(self.frequencies[None, :])[0])

    @property
    def variance(self) -> float:
        """Variance of `mean` over random samples of photographs, in closed form: the limit of the bootstrap's.

        Infinitesimal jackknife (Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans"): the sum of
        squared influences of the originals, where the influence on a ratio G / M is (g - G / M m) / M, times
        n / (n - 1), which makes it unbiased for a mean. Infinite for a single original.
        """
        size = float(self.frequencies.sum())
        if size < 2:
            return inf
        images = self.frequencies @ self.images
        ratios = self.frequencies @ self.gains / images
        influence = ((self.gains - ratios * self.images) / images).sum(axis=1)
        return float(size / (size - 1) * (self.frequencies @ influence**2))

    def means(self, counts: Floats) -> Floats:
        """Return the contribution of the family to RI or mRI in each of R resamples.

        Args:
            counts: How often each sample holds each pattern, shape (R, P).

        Returns:
            Fractions, shape (R,); NaN where a sample has no image of some layer.
        """
        gains, images = counts @ self.gains, counts @ self.images
        ratios: Floats = np.divide(gains, images, out=np.full_like(gains, np.nan), where=images > 0)
        statistic: Floats = ratios.sum(axis=1)
        return statistic

    def resample(self, draws: int, generator: np.random.Generator) -> Floats:
        """Return the contribution of the family to RI or mRI in each bootstrap sample, fractions of shape (draws,)."""
        size = int(self.frequencies.sum())
        rows = max(1, _CHUNK // len(self.frequencies))
        chunks = []
        for start in range(0, draws, rows):
            shape = min(rows, draws - start)
            chunks.append(self.means(generator.multinomial(size, self.frequencies / size, shape).astype(np.float64)))
        return np.concatenate(chunks)


def _join(ids: Sequence[NDArray[Any]]) -> tuple[list[NDArray[np.intp]], int]:
    """Number the distinct photographs of a family: return each set's images as these numbers, and their count.

    Sets with the same ids in the same order (one dataset under seven sources, the 75 cells of ImageNet-C) share one
    array of indices, so that each distinct array is processed once.
    """
    kinds: list[NDArray[Any]] = []
    kind_of: list[int] = []
    for array in ids:
        same = (i for i, kind in enumerate(kinds) if kind is array or np.array_equal(kind, array))
        kind_of.append(next(same, len(kinds)))
        if kind_of[-1] == len(kinds):
            kinds.append(array)
    originals, inverse = np.unique(np.concatenate(kinds), return_inverse=True)
    indices = np.split(inverse, np.cumsum([len(kind) for kind in kinds])[:-1])
    return [indices[kind] for kind in kind_of], len(originals)


def _distinct(table: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the distinct rows of a table (N, M) and how often each occurs.

    Columns are encoded one after another, which is faster than ``np.unique(axis=0)``.
    """
    codes = np.zeros(len(table), dtype=np.int64)
    for column in table.T:
        levels, level = np.unique(column, return_inverse=True)
        if len(levels) > 1:
            # Renumbered after each column, so that codes stay below len(table) and never overflow.
            codes = np.unique(codes * len(levels) + level, return_inverse=True)[1]
    _, first, frequencies = np.unique(codes, return_index=True, return_counts=True)
    return table[first], frequencies
