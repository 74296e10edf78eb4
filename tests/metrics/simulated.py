"""Simulated changes of images with a known true RI, for tests of coverage.

The change of an image under a source and target comes from thresholds on a normal variable. Part of that variable
belongs to the photograph, and so is common to all sources and to all sets that show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import norm

from rib.metrics.bootstrap import Changes
from rib.metrics.robustness import family_of

DERIVED_FROM = dict.fromkeys(("imagenet_cartoon", "imagenet_drawing", "imagenet_c"), "imagenet_val")
SEVEN = (
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "objectnet",
    "imagenet_cartoon",
    "imagenet_drawing",
)
CELLS = ("blur/1", "blur/3", "blur/5", "noise/1", "noise/5")


@dataclass(frozen=True)
class World:
    """A population of images and what fine-tuning does to it.

    Attributes:
        sources: The datasets fine-tuned on.
        suite: The datasets scored; imagenet_c has the `CELLS`.
        num_images: Images of each set; sets of one family show the same photographs.
        correlation: Between the normal variables of images that show the same photograph; where above 0, half of
            what is missing to 1 is added between one image's variables under two sources.
        present: Fraction of a family's photographs that each of its sets holds.
        copies: Files of each image, near-duplicates that a model takes for the same.
        known: Whether the copies of an image are known to be of one original, or taken as images of their own.
    """

    sources: tuple[str, ...] = ("imagenet_r",)
    suite: tuple[str, ...] = SEVEN
    num_images: int = 500
    correlation: float = 0.0
    present: float = 1.0
    copies: int = 1
    known: bool = False

    def units(self, source: str) -> list[tuple[str, str]]:
        """Targets of a source as pairs of dataset and cell (empty if it has none)."""
        targets = [name for name in self.suite if name != source]
        return [(t, cell) for t in targets for cell in (CELLS if t == "imagenet_c" else ("",))]

    def rates(self, source: str, target: str, cell: str) -> tuple[float, float]:
        """Probabilities that an image is lost and that it is gained, 4 to 12 % and 3 to 9 %.

        No multiples of 1/n: a truth on the grid of possible means would count as covered whenever an end falls on it.
        """
        key = sum(map(ord, source + target + cell))
        return 0.0407 + 0.00193 * (key % 40), 0.0302 + 0.00197 * (key % 31)

    def truth(self) -> float:
        """Mean RI over the sources in the population, in points: means of means, cells of C as the paper says."""
        return float(np.mean([self._improvement(source) for source in self.sources]))

    def _improvement(self, source: str) -> float:
        by_target: dict[str, dict[str, list[float]]] = {}
        for target, cell in self.units(source):
            lost, gained = self.rates(source, target, cell)
            by_target.setdefault(target, {}).setdefault(cell.partition("/")[0], []).append(100 * (gained - lost))
        return float(np.mean([np.mean([np.mean(v) for v in groups.values()]) for groups in by_target.values()]))

    def draw(self, generator: np.random.Generator) -> Mapping[str, list[Changes]]:
        """One sample of images, seen by all sources."""
        n, shared, own = self.num_images, self.correlation, (1 - self.correlation) * 0.5 * (self.correlation > 0)
        families = {family_of(name, DERIVED_FROM) for name in self.suite}
        photographs = {family: generator.standard_normal(n) for family in sorted(families)}
        held = {name: np.flatnonzero(generator.random(n) < self.present) for name in self.suite}
        images: dict[tuple[str, str], np.ndarray] = {}
        changes: dict[str, list[Changes]] = {}
        for source in self.sources:
            changes[source] = []
            for target, cell in self.units(source):
                family = family_of(target, DERIVED_FROM)
                image = images.setdefault((target, cell), generator.standard_normal(n))
                noise = generator.standard_normal(n)
                latent = sqrt(shared) * photographs[family] + sqrt(own) * image + sqrt(1 - shared - own) * noise
                lost, gained = self.rates(source, target, cell)
                change = (latent > norm.isf(gained)).astype(np.int8) - (latent < norm.ppf(lost)).astype(np.int8)
                rows = held[target] if self.present < 1 else np.arange(n)
                originals = np.repeat(rows, self.copies)
                if not self.known:
                    originals = originals * self.copies + np.tile(np.arange(self.copies), len(rows))
                changes[source].append(Changes(target, np.repeat(change[rows], self.copies), originals, family, cell))
        return changes


def separately(changes: Mapping[str, list[Changes]]) -> dict[str, list[Changes]]:
    """The same changes, each set under each source resampled alone: what `rib` does not do."""
    return {
        source: [Changes(c.dataset, c.change, np.arange(len(c.change)), f"{source}/{c.unit}", c.cell) for c in targets]
        for source, targets in changes.items()
    }
