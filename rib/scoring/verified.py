"""Scoring with ``evaluation.precision=verified``: float32's top-1 at less than its price.

1. All images are scored in fp16, in TF32 those whose logits are not finite in fp16.
2. `SAMPLE` images, drawn with a fixed seed, are scored in float32 as well (all of a smaller dataset). The worst error
   of top-1's logit minus each of the ten next, times two, is the *band*.
3. Every image whose margin (top-1's logit minus the next one's) lies in the band is scored again in float32. If this
   changes the top-1 of an image whose margin lies in the upper half of the band, the band is doubled, and so on.
4. float32 itself depends on the batch in the last bits, which decides where two logits are as good as equal. Images
   whose float32 margin is that small are scored once more, in the batches in which the plain float32 run has them.

Top-1 is thereby verified by experiment, not proven: an image that is not in the sample could have an error beyond the
band. Of an image that was not scored again, the other four of the five most likely classes, confidence and
log-probability are the first pass's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from rib.data.loader import chunks
from rib.runtime.precision import computing_in
from rib.runtime.progress import Advance
from rib.schemas.verified import Verified
from rib.scoring.columns import Columns, columns_of, concatenate
from rib.scoring.slices import Slices

VERIFIED = "verified"
"""Name of this way in evaluation.precision."""

SAMPLE = 512
"""Number of images of a dataset that are scored both ways to find the band."""

NEXT = 10
"""Number of classes, next to top-1, whose errors make the band."""

TIE = 2**-10
"""Part of the band within which float32 may decide by its own rounding. fp16's errors are some 2000 times as large."""

ROUNDING = 2**-18
"""Least such tie, in units of the largest logit of the sample: 64 times float32's rounding of one number."""

Batch = tuple[Tensor, Tensor, Tensor]
Batches = Iterable[Batch]
"""Images (B, 3, H, W), labels (B,) and positions in the dataset (B,)."""

Read = Callable[[Sequence[Sequence[int]]], Batches]
"""Reads batches of images, each given as the positions of its images."""

Scorer = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to the logits (B, C) of a dataset's classes."""


def stamp(columns: Columns, band: float, num_images: int) -> Verified:
    """Return what metrics.json says of one dataset, and take the columns away that only this needs."""
    again, first, replaced = (columns.pop(name) for name in ("again", "first", "replaced"))
    return {
        "band": band,
        "rescored": float(again.mean()),
        "sample": min(SAMPLE, num_images),
        "flips": int((first != columns["top5"][:, 0]).sum()),
        "not_finite": int(replaced.sum()),
    }


@dataclass
class _Found:
    """Predictions of one scorer for the n images of this process, in the making.

    Attributes:
        columns: Of `Predictions`, with ``index``, ``replaced`` (not finite in fp16), ``first`` (top-1 of the first
            pass) and ``again`` (scored in float32).
        margin: Of the first pass, shape (n,).
        exact: Margin in float32 where scored again, else infinite.
    """

    columns: Columns
    margin: NDArray[np.float32]
    exact: NDArray[np.float32]

    @classmethod
    def of(cls, batches: Sequence[dict[str, Tensor]]) -> _Found:
        columns = concatenate(batches)
        margin = columns.pop("margin")
        columns |= {"again": np.zeros(len(margin), bool), "first": columns["top5"][:, 0].copy()}
        return cls(columns, margin, np.full_like(margin, np.inf))

    @property
    def again(self) -> NDArray[np.bool_]:
        """Images that were scored in float32."""
        return cast("NDArray[np.bool_]", self.columns["again"])

    def replace(self, rows: NDArray[np.intp], exact: dict[str, Tensor]) -> None:
        """Put float32's predictions in the place of earlier ones."""
        self.exact[rows] = exact.pop("margin").cpu().numpy()
        self.columns["again"][rows] = True
        for name, column in exact.items():
            self.columns[name][rows] = column.cpu().numpy()

    def worst_flip(self) -> float:
        """Return the largest margin at which float32 has another top-1; 0 without a flip."""
        flipped = self.columns["first"] != self.columns["top5"][:, 0]
        return float(np.max(np.nan_to_num(self.margin[flipped], nan=0.0), initial=0.0))


class _Sample:
    """The sampled images of this process, scored in float32 a batch at a time, and the first pass's logits for them.

    Args:
        scorers: From images to logits.
        exactly: Scores images in float32: from (scorer, images) to logits.
    """

    def __init__(self, scorers: Sequence[Scorer], exactly: Callable[[Scorer, Tensor], Tensor]) -> None:
        self.scorers = scorers
        self.exactly = exactly
        self.waiting: list[Tensor] = []
        self.half: list[list[Tensor]] = [[] for _ in scorers]
        self.exact: list[list[Tensor]] = [[] for _ in scorers]
        self.labels: list[Tensor] = []
        self.index: list[Tensor] = []

    def add(self, images: Tensor, labels: Tensor, index: Tensor, half: Sequence[Tensor], at_least: int) -> None:
        """Add images with the first pass's logits, and score what waits if these are enough."""
        self.waiting.append(images)
        self.labels.append(labels)
        self.index.append(index)
        for logits, mine in zip(half, self.half, strict=True):
            mine.append(logits)
        if sum(map(len, self.waiting)) >= at_least:
            self.flush()

    def flush(self) -> None:
        """Score the images that wait."""
        if sum(map(len, self.waiting)):
            images = torch.cat(self.waiting)
            for scorer, mine in zip(self.scorers, self.exact, strict=True):
                mine.append(self.exactly(scorer, images))
        self.waiting = []

    def logits(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Return one scorer's logits (S, C) of the first pass and in float32; None without images."""
        return (torch.cat(self.half[number]), torch.cat(self.exact[number])) if self.exact[number] else None


class Verifying:
    """One process's share of scoring a dataset in this way.

    Args:
        scorers: From images to logits, each with a band of its own.
        slices: How batches are split on their way through the networks.
        read: Reads images again.
        num_images: Number of images of the whole dataset.
        device: The networks' device.
        keep_logits: Keep all logits.
        together: True if other processes have the other images; the band is then agreed on among all.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        slices: Slices,
        read: Read,
        num_images: int,
        device: torch.device,
        keep_logits: bool,
        together: bool,
    ) -> None:
        self.scorers = scorers
        self.slices = slices
        self.read = read
        self.device = device
        self.keep_logits = keep_logits
        self.together = together and dist.is_initialized() and dist.get_world_size() > 1
        self.whole = num_images <= SAMPLE
        order = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
        self.sampled = torch.zeros(num_images, dtype=torch.bool)
        self.sampled[order[:SAMPLE]] = True
        self.row = np.zeros(num_images, np.intp)  # by position in the dataset
        self.size = 1
        self.plain: list[list[int]] = []  # what goes through the networks at once in a plain float32 run

    def run(self, batches: Batches, advance: Advance) -> tuple[list[Columns], list[float]]:
        """Return the columns of each scorer for this process's images, and each scorer's band."""
        found, sample = self._first_pass(batches, advance)
        pairs = [sample.logits(number) for number in range(len(self.scorers))]
        bands = self._largest([2 * _worst_error(*pair) if pair else 0.0 for pair in pairs])
        largest = self._largest([_largest_number(pair[1]) if pair else 0.0 for pair in pairs])
        while True:
            if found:
                self._rescore(found, [~(f.margin > band) & ~f.again for f, band in zip(found, bands, strict=True)])
            flips = self._largest([f.worst_flip() for f in found] or [0.0] * len(bands))
            wider = [2 * max(band, flip) if flip > band / 2 else band for band, flip in zip(bands, flips, strict=True)]
            if wider == bands:
                break
            bands = wider
        if not self.whole and found:
            self._settle_ties(
                found, [max(TIE * band, ROUNDING * most) for band, most in zip(bands, largest, strict=True)]
            )
        return [f.columns for f in found], bands

    def _first_pass(self, batches: Batches, advance: Advance) -> tuple[list[_Found], _Sample]:
        """Score all images in fp16, and the sample in float32 as well."""
        first: list[list[dict[str, Tensor]]] = []
        sample = _Sample(self.scorers, self._exactly)
        with computing_in("16-mixed", self.device.type):
            for images, labels, index in batches:
                images, labels = images.to(self.device, non_blocking=True), labels.to(self.device)
                picked = self.sampled[index]
                on = picked.to(self.device)
                outputs = [self._finite(scorer, images) for scorer in self.scorers]
                first.append([{"index": index, "replaced": bad, **self._columns(out, labels)} for out, bad in outputs])
                self.size = max(self.size, len(index))
                self.plain += [part.tolist() for part in self.slices.of(index)]
                # A small dataset is scored in its own batches: its predictions are then those of plain float32.
                at_least = 0 if self.whole else self.size
                sample.add(images[on], labels[on], index[picked], [out[on] for out, _ in outputs], at_least)
                advance(len(index), "")
        sample.flush()
        found = [_Found.of(batches) for batches in zip(*first, strict=True)]
        for number, f in enumerate(found):
            self.row[f.columns["index"]] = np.arange(len(f.margin))
            if pair := sample.logits(number):
                exact = self._columns(pair[1], torch.cat(sample.labels))
                f.replace(self.row[torch.cat(sample.index).numpy()], exact)
        return found, sample

    def _columns(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        best = logits.topk(min(2, logits.shape[1]), dim=1).values
        margin = best[:, 0] - best[:, 1] if best.shape[1] == 2 else torch.full_like(best[:, 0], torch.inf)
        return {"margin": margin, **columns_of(logits, labels, self.keep_logits)}

    def _exactly(self, scorer: Scorer, images: Tensor) -> Tensor:
        with computing_in("32-true", self.device.type):
            return scorer(images)

    def _finite(self, scorer: Scorer, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C), and a mask (B,) of the images whose logits come from TF32 since fp16 overflowed."""
        logits = scorer(images)
        bad = ~logits.isfinite().all(dim=1)
        if bad.any():
            with computing_in("tf32", self.device.type):
                logits[bad] = scorer(images[bad])
        return logits, bad

    def _rescore(self, found: Sequence[_Found], wanted: Sequence[NDArray[np.bool_]]) -> None:
        """Score the wanted images of each scorer in float32; an image that several want is read once."""
        rows = np.flatnonzero(np.logical_or.reduce(wanted))
        for images, labels, index in self.read(chunks(found[0].columns["index"][rows].tolist(), self.size)):
            mine = self.row[index.numpy()]
            for scorer, f, want in zip(self.scorers, found, wanted, strict=True):
                if (on := want[mine]).any():
                    logits = self._exactly(scorer, images[on].to(self.device))
                    f.replace(mine[on], self._columns(logits, labels[on].to(self.device)))

    def _settle_ties(self, found: Sequence[_Found], ties: Sequence[float]) -> None:
        """Score images whose float32 margin lies within a tie once more, in the slices of a plain float32 run."""
        settled = [np.zeros_like(f.again) for f in found]
        ties = list(ties)
        while True:
            close = [f.again & ~(f.exact > tie) & ~done for f, tie, done in zip(found, ties, settled, strict=True)]
            if not any(map(np.any, close)):
                return
            some = np.logical_or.reduce(close)
            for images, labels, index in self.read([part for part in self.plain if some[self.row[part]].any()]):
                mine = self.row[index.numpy()]
                for number, (scorer, f) in enumerate(zip(self.scorers, found, strict=True)):
                    if not (on := close[number][mine]).any():
                        continue
                    logits = self._exactly(scorer, images.to(self.device))[on]
                    before = f.exact[mine[on]], f.columns["top5"][mine[on], 0]
                    f.replace(mine[on], self._columns(logits, labels[on].to(self.device)))
                    same = before[1] == f.columns["top5"][mine[on], 0]
                    moved = np.abs(f.exact[mine[on]] - np.where(same, 1, -1) * before[0])
                    # The same experiment as with the band: an error beyond half of it makes it wider.
                    worst = float(np.max(np.nan_to_num(moved, nan=0.0, posinf=0.0), initial=0.0))
                    ties[number] = max(ties[number], 2 * worst)
            for done, now in zip(settled, close, strict=True):
                done |= now

    def _largest(self, mine: list[float]) -> list[float]:
        """Return the largest of all processes' values."""
        if not self.together:
            return mine
        all_of_them: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(all_of_them, mine)
        return [max(values) for values in zip(*all_of_them, strict=True)]


def _worst_error(half: Tensor, exact: Tensor) -> float:
    """Return the worst error of top-1 minus each of the ten next, from logits (S, C) of the first pass and float32's.

    An image without finite logits has none.
    """
    best = half.topk(min(NEXT + 1, half.shape[1]), dim=1).indices
    gaps = [logits.gather(1, best[:, :1]) - logits.gather(1, best[:, 1:]) for logits in (half, exact)]
    errors = (gaps[0] - gaps[1]).abs()
    return float(errors[errors.isfinite()].max()) if errors.isfinite().any() else 0.0


def _largest_number(logits: Tensor) -> float:
    """Return the largest size of a finite logit."""
    return float(logits.nan_to_num(0.0, 0.0, 0.0).abs().max())
