"""Expected time and disk space of a grid, from finished runs of the store or short calibration runs.

The time of one cell is that of training (or merging) and scoring; that of a grid also has the start-up of its cells and
the report (`rib.sweeps.work_ahead`). Disk is the bytes that runs keep.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rib.errors import RibError
from rib.reporting.formatting import cost_of
from rib.runs.metrics_file import read
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.files import digest_of, write_atomically
from rib.runtime.progress import activity
from rib.sweeps.plan import Cell
from rib.sweeps.work_ahead import StartUp, makespan, read_start_up, start_up_file

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
        for _, m in store.briefs():
            seen = cost_of(m)["images_trained"] or None
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

    def start_up(self, kind: str) -> StartUp:
        """Return the start-up times that the last grid on this store measured, or usual ones.

        Args:
            kind: Kind of the executor (`Executor.kind`).
        """
        return read_start_up(start_up_file(self.store.root, kind))

    def grid_seconds(self, cells: Sequence[Cell], jobs: int, kind: str) -> float | None:
        """Return the expected seconds of a grid with start-up, dependencies and report; None if a cell's is unknown.

        Args:
            cells: The cells to make.
            jobs: Number of cells that run at the same time.
            kind: Kind of the executor (`Executor.kind`).
        """
        start_up, spans = self.start_up(kind), {}
        for cell in cells:
            seconds = None if cell.spec is None else self.seconds(cell.spec)
            if seconds is None:
                return None
            spans[cell.id] = (seconds + start_up.cell, cell.needs)
        return start_up.once + makespan(spans, jobs) + start_up.report if spans else 0.0

    def calibrate(self, cells: Iterable[Cell], threads: int | None = None) -> None:
        """Time every model whose cost is unknown, with random weights, and keep the result in the store.

        Random weights cost the same time as trained ones, and need no download.

        Args:
            cells: The cells whose models are timed.
            threads: Number of CPU threads of a cell; None for those of this process.
        """
        for cell in cells:
            if cell.spec is not None and self.seconds(cell.spec) is None:
                file = self._file(cell.spec)
                if _read(file) is None:
                    with activity(f"timing {cell.spec.start.name}"), _threads(threads):
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


def images_scored(spec: RunSpec) -> int:
    """Return the number of images that a run predicts with its own model; a curve or an ensemble has more models."""
    return sum(len(tree) for tree in spec.images.values())


def total(seconds: Sequence[float | None]) -> float | None:
    """Return the expected seconds of several cells, one after another; None if the time of any is unknown."""
    known = [s for s in seconds if s is not None]
    return sum(known) if len(known) == len(seconds) else None


def _keys(model: str, method: str, source: str, images_seen: int | None) -> tuple[tuple[Any, ...], ...]:
    """Return keys under which the costs of a run and of similar runs are filed, from most to least similar."""
    return (model, method, source, images_seen), (model, method, source), (model, method)


def _images_seen(spec: RunSpec) -> int | None:
    # A merge trains nothing: its ingredients are cells of their own, with a cost of their own.
    return spec.images_trained or None


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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use a number of CPU threads within a block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
