"""Score many runs in one pass over the images: each image is decoded once for all models that transform it alike.

Two runs share a pass over a dataset if they have the same score key, which covers the images, the transform, the
decoder, the classes and the precision. A model gets the same batches as it would alone, so its predictions are the same
bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from rib.data.evaluation import EvaluationImages
from rib.data.labels import LabelSpace
from rib.models.build import build
from rib.models.classifier import Classifier
from rib.models.memory_format import prefer_channels_last
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.progress import Advance, progress
from rib.runtime.stopwatch import TimedItems, timed
from rib.scoring.score import score_all

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes
    from rib.training.merge import Merging


@dataclass(frozen=True)
class LoadedRun:
    """One run with its models in memory, and the datasets to score them on.

    Attributes:
        spec: The run's configuration, with all options filled in.
        run: The folder that its predictions are written to.
        datasets: Names of the datasets, out of ``spec.images``.
        data: Serves their images.
        own: The run's model; for an output ensemble all of its models.
        curve: Models of the points on the run's curve by label, each with predictions of its own.
        combine: Combines the logits of ``own`` to those of the ensemble; None where ``own`` is a single model.
        model_for: Returns the model for a dataset that ``own`` is not scored on (RIB soup), or None for ``own``.
    """

    spec: RunSpec
    run: Run
    datasets: Sequence[str]
    data: EvaluationImages
    own: Sequence[Classifier]
    curve: Mapping[str, Classifier] = field(default_factory=dict)
    combine: Callable[[Sequence[Tensor]], Tensor] | None = None
    model_for: Callable[[str], Classifier | None] = lambda dataset: None

    @classmethod
    def load(
        cls,
        spec: RunSpec,
        run: Run,
        datasets: Sequence[str],
        data: EvaluationImages,
        processes: Processes,
        merging: Merging | None = None,
    ) -> LoadedRun:
        """Load a run's models onto the device.

        Args:
            spec: The run's configuration, with all options filled in.
            run: Its folder.
            datasets: Names of the datasets to score.
            data: Serves their images.
            processes: This process and its device.
            merging: For a merged run, which may have more models than its stored weights.

        Raises:
            RibError: If the weights cannot be read.
        """
        if merging is not None and merging.combine:
            return cls(spec, run, datasets, data, merging.models(), combine=merging.combine)
        own = [prefer_channels_last(build(spec.start.with_weights(run.weights_file))).to(processes.device)]
        if merging is None:
            return cls(spec, run, datasets, data, own)
        return cls(spec, run, datasets, data, own, merging.curve(), model_for=merging.model_for)

    def models(self, dataset: str) -> list[Classifier]:
        """Return the models to score on a dataset: the run's own, then those on its interpolation curve (WiSE-FT)."""
        special = self.model_for(dataset)
        return [*(self.own if special is None else [special]), *self.curve.values()]


def score_together(entries: Sequence[LoadedRun], processes: Processes, title: str) -> None:
    """Score runs and write their predictions; runs that process a dataset's images alike share one pass over it.

    Alike means with the same score key (see the module's docstring).

    An output ensemble, whose models have predictions only together, has a pass of its own.

    Args:
        entries: The loaded runs, at least one.
        processes: The processes; with several, each scores its share of the images, and rank zero writes.
        title: Title of the progress bar.
    """
    start = time.perf_counter()
    sharing: dict[tuple[str, str, int | None], list[LoadedRun]] = {}
    for number, entry in enumerate(entries):
        for name in entry.datasets:
            alone = number if entry.combine is not None else None
            sharing.setdefault((name, entry.spec.score_keys[name], alone), []).append(entry)
    total = sum(len(group[0].spec.images[name]) for (name, *_), group in sharing.items())
    with progress(title, total) as advance:
        for (name, key, _), group in sharing.items():
            size = len(group[0].spec.images[name])
            with timed("scoring: forward"):
                _score(name, key, group, processes, _scale_progress(advance, size, processes.world_size))
    if processes.is_global_zero:
        _add_seconds(time.perf_counter() - start, entries)
    processes.barrier()


def _scale_progress(advance: Advance, images: int, world: int) -> Advance:
    """Return a progress callback that multiplies one process's count by the number of processes, up to the total."""
    left = images

    def advance_all(done: int, note: str = "") -> None:
        nonlocal left
        done = min(left, done * world)  # rank zero may have one image more than its share
        left -= done
        advance(done, note)

    return advance_all


def _score(
    name: str, key: str, entries: Sequence[LoadedRun], processes: Processes, advance: Callable[[int, str], object]
) -> None:
    """Score the models of several runs on one dataset in one pass, and save the predictions of each."""
    first = entries[0]
    tree, config = first.spec.images[name], first.spec.config
    models = [entry.models(tree.spec.name) for entry in entries]
    batches = first.data.evaluation_loader(name, rank=processes.global_rank, world=processes.world_size)
    predictions = score_all(
        [model for of_entry in models for model in of_entry],
        TimedItems(batches, "scoring: waiting for images"),
        LabelSpace(tree.spec.groups),
        len(tree),
        device=processes.device,
        precision=config.evaluation.precision,
        keep_logits=config.predictions.logits,
        combine=first.combine,
        read=partial(first.data.batches_of, tree),
        advance=advance,
    )
    if predictions is None or not processes.is_global_zero:
        return
    remaining = iter(predictions)
    for entry in entries:
        own = next(remaining)
        for label in entry.curve:
            next(remaining).save(entry.run.predictions_file(name, key, label))
        # Last: a process that resumes after a kill takes this file as the sign that the curve is complete too.
        own.save(entry.run.predictions_file(name, key))


def _add_seconds(seconds: float, entries: Sequence[LoadedRun]) -> None:
    """Add the seconds of one pass to the scoring times of its runs, in proportion to each run's number of models."""
    models = [len(entry.own) + len(entry.curve) for entry in entries]
    for entry, count in zip(entries, models, strict=True):
        scoring = entry.run.read_json("scoring.json")
        earlier = scoring["seconds"] if scoring else 0.0
        entry.run.write_json("scoring.json", {"seconds": earlier + seconds * count / sum(models)})
