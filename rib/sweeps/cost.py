"""Expected time and disk space of a grid, from finished runs of the store or a calibration of each model.

The time of one cell is that of training (or merging) and scoring; that of a grid also has the start-up of its cells and
the report (`rib.sweeps.work_ahead`). Disk is the bytes that runs keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rib.reporting.formatting import cost_of
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.files import digest_of
from rib.runtime.progress import activity
from rib.sweeps.calibration import Calibration, read_calibration, write_calibration
from rib.sweeps.plan import Cell, fisher_inputs
from rib.sweeps.work_ahead import StartUp, makespan, read_start_up, start_up_file

FLOAT_BYTES = 4

IMAGE_BYTES = 20
"""Bytes of one stored prediction (`rib.runs.predictions`)."""


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

    def seconds(self, spec: RunSpec, with_fisher: bool = True) -> float | None:
        """Return the expected seconds of one cell.

        The estimate is the mean of the most similar finished runs, else comes from the calibration of its model. None
        if there is neither.

        Args:
            spec: The cell's run.
            with_fisher: False if another cell estimates the Fisher information that this one needs.
        """
        seen = _images_seen(spec)
        for key in _keys(spec.start.name, spec.method, spec.source_name, seen):
            if costs := self._known.get(key):
                return fmean(cost.seconds(seen) for cost in costs)
        made = self.calibration(spec)
        return None if made is None else made.fit(spec, with_fisher) + made.evaluate(spec) + made.reading(spec)

    def calibration(self, spec: RunSpec) -> Calibration | None:
        """Return the calibration of a run's model; None if there is none."""
        return read_calibration(self._file(spec))

    def has_batch_norm(self, spec: RunSpec) -> bool:
        """Return True if a run's model is known to have BatchNorm, from its calibration."""
        return (made := self.calibration(spec)) is not None and made.batch_norm

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
        start_up, spans, fishers = self.start_up(kind), {}, set[str]()
        for cell in cells:
            shared = set(fisher_inputs(cell))
            seconds = None if cell.spec is None else self.seconds(cell.spec, not shared or not shared <= fishers)
            fishers |= shared
            if seconds is None:
                return None
            spans[cell.id] = (seconds + start_up.cell, cell.needs)
        return start_up.once + makespan(spans, jobs) + start_up.report if spans else 0.0

    def calibrate(self, cells: Iterable[Cell], threads: int = 1) -> None:
        """Time every model whose cost is unknown, with random weights, and keep the result in the store.

        Random weights cost the same time as trained ones, and need no download.

        Args:
            cells: The cells whose models are timed.
            threads: Number of CPU threads of a cell.
        """
        for cell in cells:
            if cell.spec is not None and self.seconds(cell.spec) is None:
                file = self._file(cell.spec)
                if read_calibration(file) is None:
                    with activity(f"timing {cell.spec.start.name}"):
                        write_calibration(file, cell.spec, threads)

    def _file(self, spec: RunSpec) -> Path:
        # What time per image depends on: the network, the image size, the device and the precision.
        trainer = {k: v for k, v in spec.config.trainer.items() if k in ("accelerator", "devices")}
        key_fields = [spec.start.library, spec.start.architecture, spec.start.transform.size, trainer]
        key_fields += [spec.config.precision, spec.config.evaluation.precision]
        return self.store.root / "calibration" / f"{digest_of(key_fields)}.json"


def num_parameters(spec: RunSpec) -> int:
    """Estimate a model's number of parameters from the size of its weights file.

    The files of mini's models hold 16-bit numbers, others are assumed to hold 32-bit ones. A 16-bit file of another
    model is therefore taken for half as many parameters.
    """
    is_half_precision = spec.start.library == "mini"
    return spec.start.num_bytes // (2 if is_half_precision else FLOAT_BYTES)


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
