"""Expected time and disk space of a grid, from finished runs of the store or short calibration runs.

Time is the seconds that one cell trains (or merges) and scores, without imports; disk is the bytes that its run keeps.
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
"""Bytes of one stored prediction (`rib.runs.predictions`)."""

CALIBRATION_IMAGES = 32
"""Largest batch that a calibration times."""


@dataclass(frozen=True)
class Calibration:
    """Time that a model takes per image, measured with random weights.

    Attributes:
        train: Seconds of a forward and backward pass.
        score: Seconds of a forward pass.
    """

    train: float
    score: float


@dataclass(frozen=True)
class RunCost:
    """Time that a finished run took.

    Attributes:
        fit: Seconds of training.
        evaluate: Seconds of scoring.
        images_seen: Training images times epochs; None if the run did not train, or if it is not known.
    """

    fit: float
    evaluate: float
    images_seen: int | None

    def seconds(self, images_seen: int | None) -> float:
        """Return the expected seconds of a similar run that trains on a given number of images."""
        factor = images_seen / self.images_seen if images_seen is not None and self.images_seen else 1.0
        return factor * self.fit + self.evaluate


class Costs:
    """Estimator of the time and disk space of a grid's cells (its single runs).

    Args:
        store: Its finished runs are what the estimates are based on.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._known: defaultdict[tuple[Any, ...], list[RunCost]] = defaultdict(list)
        for run in store.finished():
            if (m := run.metrics()) is not None:
                epochs, trained = m["protocol"]["epochs"], m.get("trained_on")
                seen = epochs * trained["num_images"] if epochs is not None and trained else None
                cost = RunCost(m["seconds"]["fit"], m["seconds"]["evaluate"], seen)
                for key in _keys(m["model"], m["method"], m["source"], seen):
                    self._known[key].append(cost)

    def seconds(self, spec: RunSpec) -> float | None:
        """Return the expected seconds of one cell.

        The estimate is the mean of the most similar finished runs, else comes from the calibration of its model. None
        if there is neither.
        """
        seen = _images_seen(spec)
        for key in _keys(spec.start.name, spec.method, spec.source_name, seen):
            if costs := self._known.get(key):
                return fmean(cost.seconds(seen) for cost in costs)
        calibration = _read(self._file(spec))
        return None if calibration is None else _estimate(spec, calibration)

    def num_bytes(self, spec: RunSpec) -> int:
        """Return the expected bytes of one cell's run: its weights and its predictions."""
        images = sum(len(tree) for tree in spec.scored.values())
        weights = FLOAT_BYTES * num_parameters(spec)
        logits = sum(len(tree) * len(tree.spec.groups) for tree in spec.scored.values())
        return weights + IMAGE_BYTES * images + (FLOAT_BYTES * logits if spec.config.predictions.logits else 0)

    def calibrate(self, cells: Iterable[Cell]) -> None:
        """Time every model whose cost is unknown, with random weights, and keep the result in the store.

        Random weights cost the same time as trained ones, and need no download.
        """
        for cell in cells:
            if cell.spec is not None and self.seconds(cell.spec) is None:
                file = self._file(cell.spec)
                if _read(file) is None:
                    write_atomically(file, json.dumps(vars(_time_model(cell.spec))).encode())

    def _file(self, spec: RunSpec) -> Path:
        # What time per image depends on: the network, the image size, the device and the precision.
        trainer = {k: v for k, v in spec.config.trainer.items() if k in ("accelerator", "devices")}
        key_fields = [spec.start.library, spec.start.architecture, spec.start.transform.size, trainer]
        return self.store.root / "calibration" / f"{digest_of([*key_fields, spec.config.precision])}.json"


def num_parameters(spec: RunSpec) -> int:
    """Estimate a model's number of parameters from the size of its weights file.

    The files of mini's models hold 16-bit numbers, others are assumed to hold 32-bit ones. A 16-bit file of another
    model is therefore taken for half as many parameters.
    """
    is_half_precision = spec.start.library == "mini"
    return spec.start.num_bytes // (2 if is_half_precision else FLOAT_BYTES)


def total(seconds: Sequence[float | None], jobs: int) -> float | None:
    """Return the expected seconds of several cells run in parallel; None if the time of any is unknown.

    Args:
        seconds: Of each cell; None where it is unknown.
        jobs: Number of cells that run at the same time.
    """
    known = [s for s in seconds if s is not None]
    return sum(known) / max(1, jobs) if len(known) == len(seconds) else None


def _keys(model: str, method: str, source: str, images_seen: int | None) -> tuple[tuple[Any, ...], ...]:
    """Return keys under which the costs of a run and of similar runs are filed, from most to least similar."""
    return (model, method, source, images_seen), (model, method, source), (model, method)


def _images_seen(spec: RunSpec) -> int | None:
    # A merge trains nothing: its ingredients are cells of their own, with a cost of their own.
    if not spec.trains or spec.source is None or spec.recipe is None:
        return None
    return spec.recipe.epochs * len(spec.source)


def _estimate(spec: RunSpec, calibration: Calibration) -> float:
    scoring = sum(len(tree) for tree in spec.scored.values()) * calibration.score
    return scoring + (_images_seen(spec) or 0) * calibration.train


def _read(file: Path) -> Calibration | None:
    """Read a calibration; None if there is none, or if its file is damaged."""
    try:
        content = read(file)
        return Calibration(float(content["train"]), float(content["score"]))
    except (OSError, RibError, KeyError, TypeError, ValueError):
        return None


def _time_model(spec: RunSpec) -> Calibration:
    """Measure a model's seconds per image, forward and backward, and forward alone, on two batches after a warm-up."""
    import torch

    from rib.models.backbone import build_backbone
    from rib.models.classifier import Classifier
    from rib.runtime.processes import has_gpu

    start = spec.start
    device = torch.device("cuda" if has_gpu(str(spec.config.trainer.get("accelerator", "auto"))) else "cpu")
    model = Classifier(build_backbone(start), start.transform.mean, start.transform.std).to(device)
    size = min(CALIBRATION_IMAGES, spec.config.batch_size)
    images = torch.zeros(size, 3, start.transform.size, start.transform.size, dtype=torch.uint8, device=device)

    def time_per_image(step: Callable[[], object]) -> float:
        step()
        begun = time.perf_counter()
        for _ in range(2):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()  # kernels are only queued so far
        return (time.perf_counter() - begun) / (2 * size)

    with torch.no_grad():
        score = time_per_image(lambda: model.eval()(images))
    return Calibration(time_per_image(lambda: model.train()(images).square().mean().backward()), score)
