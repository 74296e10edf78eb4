"""Intervals over images by paired bootstrap.

What varies is the choice of images, so an *original* is drawn with everything that shows it: before and after (the
pairing), every transform of it (imagenet_val, Cartoon, Drawing, the cells of ImageNet-C) and, for mRI, every source's
model. Drawing each set alone makes intervals 1.1 to 2.2 times too narrow, because one hard photograph is hard in all of
them.

Fast because a bootstrap sample is a multinomial over *distinct patterns of change*. RI is linear in the changes, so all
that an original does to it, over every target and source with the same images, is one number out of a few: a model
gains, keeps or loses the image, seven or so times. A draw of 50,000 images becomes a draw of a dozen counts. Where the
members of a family lack some of its originals (a subset, an incomplete set) their means are ratios of two random sums,
and the pattern holds both.

Percentile intervals, each family's deviations widened by sqrt(n / (n - 1)) since a sample varies that much less than
what it was drawn from. Simulated coverage is 94 to 96 % from 50 images a set (tests/metrics/test_coverage.py), so
nothing finer is applied. One set alone with about seven changed images covers only 88 %, as steps of 1/n are then
coarse and zero counts frequent; if no image changed the interval is [0, 0].

Images are resampled, and not classes: other images of the same classes vary, other classes do not. And images are taken
as independent: near-duplicates (one picture found twice on the web, frames of one video) count as two. Where every
image has a second file that a model takes for the same, 95 % intervals cover 83 %; with four files, 67 % (same test).
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
"""Resamples; at this many the ends move by about 1.5 % of the half width between seeds."""

_CHUNK = 4_000_000
"""Numbers held at a time while drawing, 32 MB."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What fine-tuning did to each image of one set.

    Attributes:
        dataset: The target, ``imagenet_r``.
        change: After minus before, each 1 if the model is right and 0 if not: -1, 0 or 1, shape (N,).
        originals: The photograph that each image shows, shape (N,), integers or strings (`originals_of`). None for a
            set that shares its photographs with no other, whose images then are in the same order for every source.
        family: Sets of the same family with the same id show the same photograph (`robustness.family_of`); empty for
            the dataset's own name.
        cell: ``corruption/severity`` for a cell of ImageNet-C, else empty.

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
            raise ValueError(f"expected one original an image of {self.unit}, got {ids.shape}, not {self.change.shape}")
        object.__setattr__(self, "family", self.family or self.dataset)
        object.__setattr__(self, "_ids", ids)

    @property
    def unit(self) -> str:
        """The set's name among the targets: ``imagenet_r``, ``imagenet_c/fog/3``."""
        return f"{self.dataset}/{self.cell}" if self.cell else self.dataset


def originals_of(paths: Iterable[str]) -> NDArray[np.str_]:
    """The photographs that files show: transforms of imagenet_val keep the file's name, its ending aside.

    Args:
        paths: Paths of a dataset's images, in its order.
    """
    return np.array([splitext(basename(path))[0] for path in paths])


def dataset_change_interval(
    changes: Changes | Sequence[Changes], draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Interval:
    """The change in accuracy on one dataset, in percentage points.

    Args:
        changes: The dataset, or all of its cells.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Of the resampling; the same seed gives the same interval.
    """
    return robustness_interval([changes] if isinstance(changes, Changes) else changes, draws, level, seed)


def robustness_interval(changes: Sequence[Changes], draws: int = DRAWS, level: float = 0.95, seed: int = 0) -> Interval:
    """RI of one fine-tuned model, in percentage points.

    Args:
        changes: One entry a target; one entry a cell for ImageNet-C.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: If there is no target or one comes twice.
    """
    return mean_robustness_interval({"": changes}, draws, level, seed)


def mean_robustness_interval(
    changes: Mapping[Any, Sequence[Changes]], draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean RI over several fine-tuned models, all scored on the same draw of images, in percentage points.

    Args:
        changes: The targets' changes by source. For the mean over seeds as well, the keys may be pairs of source and
            seed, or anything else: each key counts the same.
        draws: Number of resamples.
        level: Nominal coverage, 0 to 1.
        seed: Of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: If there is no source, a source has no target, or one of its targets comes twice.
    """
    families = weighted_by_family(changes)
    generator = np.random.default_rng(seed)
    value, variance, resampled = 0.0, 0.0, np.zeros(draws)
    for family in sorted(families):
        patterns = Patterns.of(families[family])
        mean = patterns.mean
        value += mean
        variance += patterns.variance
        resampled += mean + patterns.widening * (patterns.resample(draws, generator) - mean)
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(100 * value, 100 * float(low), 100 * float(high), "images only", level, 100 * sqrt(variance))


def weighted_by_family(changes: Mapping[Any, Sequence[Changes]]) -> dict[str, list[tuple[float, Changes]]]:
    """Every set with its weight in mRI, by family; families are independent of one another.

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
    """The distinct things that an original of one family can do to the statistic.

    A *layer* is all the sets, under any source, that show the same originals: they share their denominator.

    Attributes:
        frequencies: How many originals have each pattern, shape (P,).
        gains: What such an original adds to each layer's weighted sum of changes, shape (P, L).
        images: How many images of each layer show it, shape (P, L).
    """

    frequencies: Floats
    gains: Floats
    images: Floats

    @classmethod
    def of(cls, members: Sequence[tuple[float, Changes]]) -> Patterns:
        """Counts the patterns of a family's sets, each with its weight in the statistic, below 0 to subtract it."""
        places, num_originals = _join([target._ids for _, target in members])
        layers: dict[bytes, defaultdict[float, Floats]] = {}
        images: dict[bytes, Floats] = {}
        keys: dict[int, bytes] = {}
        for (weight, target), place in zip(members, places, strict=True):
            if id(place) not in keys:
                counts = np.bincount(place, minlength=num_originals)
                key = keys[id(place)] = counts.tobytes()
                images[key] = counts.astype(np.float64)
                layers.setdefault(key, defaultdict(lambda: np.zeros(num_originals)))
            # Sums of whole numbers for each weight: equal patterns then give equal floats, bit for bit.
            totals = np.bincount(place, target.change, num_originals)
            layers[keys[id(place)]][abs(weight)] += totals if weight > 0 else -totals
        gains = [np.sum([w * total for w, total in sorted(sums.items())], axis=0) for sums in layers.values()]
        table = np.stack([*gains, *(images[key] for key in layers)], axis=1)
        rows, frequencies = _distinct(table)
        return cls(frequencies.astype(np.float64), rows[:, : len(layers)], rows[:, len(layers) :])

    @property
    def widening(self) -> float:
        """What makes the bootstrap's variance of a mean the unbiased one; 1 for a single original."""
        size = float(self.frequencies.sum())
        return sqrt(size / max(size - 1, 1))

    @property
    def mean(self) -> float:
        """The family's part of the statistic in the images that there are, a fraction."""
        return float(self.means(self.frequencies[None, :])[0])

    @property
    def variance(self) -> float:
        """Of that part, over other originals of the same kind: what the bootstrap's variance tends to, in closed form.

        Infinitesimal jackknife (Efron 1982): squared influences of the originals, where that on a ratio G / M is
        (g - G / M m) / M, times n / (n - 1), which makes it unbiased for a mean. Infinite for a single original.
        """
        size = float(self.frequencies.sum())
        if size < 2:
            return inf
        images = self.frequencies @ self.images
        ratios = self.frequencies @ self.gains / images
        influence = ((self.gains - ratios * self.images) / images).sum(axis=1)
        return float(size / (size - 1) * (self.frequencies @ influence**2))

    def means(self, counts: Floats) -> Floats:
        """The family's part of the statistic in samples that hold each pattern so many times.

        Args:
            counts: Shape (R, P).

        Returns:
            Shape (R,), fractions; nan where a sample has no image of some layer.
        """
        gains, images = counts @ self.gains, counts @ self.images
        ratios: Floats = np.divide(gains, images, out=np.full_like(gains, np.nan), where=images > 0)
        parts: Floats = ratios.sum(axis=1)
        return parts

    def resample(self, draws: int, generator: np.random.Generator) -> Floats:
        """The family's part of the statistic in bootstrap samples, shape (draws,)."""
        size = int(self.frequencies.sum())
        rows = max(1, _CHUNK // len(self.frequencies))
        parts = []
        for start in range(0, draws, rows):
            shape = min(rows, draws - start)
            parts.append(self.means(generator.multinomial(size, self.frequencies / size, shape).astype(np.float64)))
        return np.concatenate(parts)


def _join(ids: Sequence[NDArray[Any]]) -> tuple[list[NDArray[np.intp]], int]:
    """Places of each set's images among all originals of the family, and how many originals there are.

    Sets with the same ids in the same order (one dataset under seven sources, 75 cells) share one array of places, so
    that each is looked at once.
    """
    kinds: list[NDArray[Any]] = []
    kind_of: list[int] = []
    for array in ids:
        same = (i for i, kind in enumerate(kinds) if kind is array or np.array_equal(kind, array))
        kind_of.append(next(same, len(kinds)))
        if kind_of[-1] == len(kinds):
            kinds.append(array)
    originals, inverse = np.unique(np.concatenate(kinds), return_inverse=True)
    places = np.split(inverse, np.cumsum([len(kind) for kind in kinds])[:-1])
    return [places[kind] for kind in kind_of], len(originals)


def _distinct(table: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Distinct rows of a table (N, M) and how often each occurs; a column at a time, which beats ``unique(axis=0)``."""
    codes = np.zeros(len(table), dtype=np.int64)
    for column in table.T:
        levels, level = np.unique(column, return_inverse=True)
        if len(levels) > 1:
            codes = np.unique(codes * len(levels) + level, return_inverse=True)[1]
    _, first, frequencies = np.unique(codes, return_index=True, return_counts=True)
    return table[first], frequencies
