"""What a grid will cost, before it runs: from cells measured in this store, or from a calibration.

Time is seconds of training (or merging) and scoring of one cell, imports apart; disk is bytes that its run keeps.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rib.errors import RibError
from rib.runs.metrics_file import read
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.files import digest_of, write_atomically
from rib.sweeps.plan import Cell

FLOAT_BYTES = 4

IMAGE_BYTES = 20
"""A stored prediction (`rib.runs.predictions`)."""

CALIBRATION_IMAGES = 32
"""In a batch that is timed, or the batch itself where it is smaller."""


@dataclass(frozen=True)
class Measured:
    """Seconds of an image, in training and in scoring."""

    train: float
    score: float


@dataclass(frozen=True)
class RunCost:
    """What a finished run took.

    Attributes:
        fit: Seconds of training.
        evaluate: Seconds of scoring.
        shown: Images that training saw, each as often as it saw it; None for what is not trained, or not known.
    """

    fit: float
    evaluate: float
    shown: int | None

    def seconds(self, shown: int | None) -> float:
        """Of a run like it that sees so many images."""
        more = shown / self.shown if shown is not None and self.shown else 1.0
        return more * self.fit + self.evaluate


class Costs:
    """Expected seconds and bytes of cells.

    Args:
        store: Whose finished runs tell.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._taken: defaultdict[tuple[Any, ...], list[RunCost]] = defaultdict(list)
        for run in store.finished():
            if (m := run.metrics()) is not None:
                epochs, trained = m["protocol"]["epochs"], m.get("trained_on")
                shown = epochs * trained["num_images"] if epochs is not None and trained else None
                taken = RunCost(m["seconds"]["fit"], m["seconds"]["evaluate"], shown)
                for key in _keys(m["model"], m["method"], m["source"], shown):
                    self._taken[key].append(taken)

    def seconds(self, spec: RunSpec) -> float | None:
        """Of one cell: what such cells took here, else what a calibration says; None where nothing is known."""
        shown = _shown(spec)
        for key in _keys(spec.start.name, spec.method, spec.source_name, shown):
            if taken := self._taken.get(key):
                return fmean(one.seconds(shown) for one in taken)
        measured = _read(self._file(spec))
        return None if measured is None else _estimate(spec, measured)

    def num_bytes(self, spec: RunSpec) -> int:
        """Of one cell's run: its weights and an entry an image."""
        images = sum(len(tree) for tree in spec.scored.values())
        weights = FLOAT_BYTES * num_parameters(spec)
        logits = sum(len(tree) * len(tree.spec.groups) for tree in spec.scored.values())
        return weights + IMAGE_BYTES * images + (FLOAT_BYTES * logits if spec.config.predictions.logits else 0)

    def calibrate(self, cells: Iterable[Cell]) -> None:
        """Time one model of each kind that nothing is known of, with random weights; nothing is downloaded."""
        for cell in cells:
            if cell.spec is not None and self.seconds(cell.spec) is None:
                file = self._file(cell.spec)
                if _read(file) is None:
                    write_atomically(file, json.dumps(vars(_time(cell.spec))).encode())

    def _file(self, spec: RunSpec) -> Path:
        trainer = {k: v for k, v in spec.config.trainer.items() if k in ("accelerator", "devices")}
        facts = [spec.start.library, spec.start.architecture, spec.start.transform.size, trainer]
        return self.store.root / "calibration" / f"{digest_of([*facts, spec.config.precision])}.json"


def num_parameters(spec: RunSpec) -> int:
    """About how many weights a model has, told by its file, which may hold halves (mini's, most of the hub's)."""
    halves = spec.start.library == "mini"
    return spec.start.num_bytes // (2 if halves else FLOAT_BYTES)


def total(seconds: Sequence[float | None], jobs: int) -> float | None:
    """Seconds of several cells side by side; None where nothing is known of one."""
    known = [s for s in seconds if s is not None]
    return sum(known) / max(1, jobs) if len(known) == len(seconds) else None


def _keys(model: str, method: str, source: str, shown: int | None) -> tuple[tuple[Any, ...], ...]:
    """What a cell is like, the most alike first."""
    return (model, method, source, shown), (model, method, source), (model, method)


def _shown(spec: RunSpec) -> int | None:
    if not spec.trains or spec.source is None or spec.recipe is None:
        return None
    return spec.recipe.epochs * len(spec.source)


def _estimate(spec: RunSpec, measured: Measured) -> float:
    scored = sum(len(tree) for tree in spec.scored.values()) * measured.score
    return scored + (_shown(spec) or 0) * measured.train


def _read(file: Path) -> Measured | None:
    """What a calibration says; None where it was not made, or its file is damaged."""
    try:
        found = read(file)
        return Measured(float(found["train"]), float(found["score"]))
    except (OSError, RibError, KeyError, TypeError, ValueError):
        return None


def _time(spec: RunSpec) -> Measured:
    """Two batches, after one that warms up, forward and backward and forward alone."""
    import torch

    from rib.models.backbone import build_backbone
    from rib.models.classifier import Classifier
    from rib.runtime.processes import has_gpu

    start = spec.start
    device = torch.device("cuda" if has_gpu(str(spec.config.trainer.get("accelerator", "auto"))) else "cpu")
    model = Classifier(build_backbone(start), start.transform.mean, start.transform.std).to(device)
    size = min(CALIBRATION_IMAGES, spec.config.batch_size)
    images = torch.zeros(size, 3, start.transform.size, start.transform.size, dtype=torch.uint8, device=device)

    def timed(step: Callable[[], object]) -> float:
        step()
        begun = time.perf_counter()
        for _ in range(2):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / (2 * size)

    with torch.no_grad():
        score = timed(lambda: model.eval()(images))
    return Measured(timed(lambda: model.train()(images).square().mean().backward()), score)
