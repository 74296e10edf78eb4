"""One pass over the images for many runs: each image is decoded once for all models that see it alike.

What two runs share is told by the score key, which covers the images, the transform, the decoder, the classes and the
precision. A model meets the same batches as it would alone, so its predictions are the same bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from rib.data.datamodule import RIBDataModule
from rib.data.labels import LabelSpace
from rib.models.build import build
from rib.models.classifier import Classifier
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.progress import Advance, progress
from rib.scoring.score import score_all

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from rib.training.merge import Merging


@dataclass(frozen=True)
class LoadedRun:
    """One run with its models in memory, and the datasets that they are to be scored on.

    Attributes:
        spec: What is asked of it.
        run: Where its predictions go.
        datasets: Of the question's.
        data: Serves them.
        own: The run's model; of an ensemble of outputs, all of its models.
        curve: Further models, each with predictions of its own, by label.
        together: From the logits of each of ``own`` to those of the ensemble; None where ``own`` is one model.
        instead: The model of a dataset in the place of ``own``, or None for ``own``.
    """

    spec: RunSpec
    run: Run
    datasets: Sequence[str]
    data: RIBDataModule
    own: Sequence[Classifier]
    curve: Mapping[str, Classifier] = field(default_factory=dict)
    together: Callable[[Sequence[Tensor]], Tensor] | None = None
    instead: Callable[[str], Classifier | None] = lambda dataset: None

    @classmethod
    def load(
        cls,
        spec: RunSpec,
        run: Run,
        datasets: Sequence[str],
        data: RIBDataModule,
        fabric: Fabric,
        merging: Merging | None = None,
    ) -> LoadedRun:
        """Load a run's models onto the device; what was merged may have more than its stored weights.

        Raises:
            RibError: If its weights cannot be read.
        """
        if merging is not None and merging.together:
            return cls(spec, run, datasets, data, merging.models(), together=merging.together)
        start = replace(spec.start, weights=run.weights_file)
        own = [build(start, len(spec.catalog.wnids)).to(fabric.device)]
        if merging is None:
            return cls(spec, run, datasets, data, own)
        return cls(spec, run, datasets, data, own, merging.variants(), instead=merging.model_for)

    def models(self, dataset: str) -> list[Classifier]:
        """What looks at a dataset's images: the run's own, then the curve's."""
        instead = self.instead(dataset)
        return [*(self.own if instead is None else [instead]), *self.curve.values()]


def score_together(entries: Sequence[LoadedRun], fabric: Fabric, title: str) -> None:
    """Score every entry on its datasets and keep the predictions, each dataset read once for all that share its key.

    An ensemble of outputs, whose models answer for one another, reads the images for itself.

    Args:
        entries: At least one.
        fabric: The devices; with several processes each scores its share and rank zero writes.
        title: Of the progress bar.
    """
    begun = time.perf_counter()
    sharing: dict[tuple[str, str, int | None], list[LoadedRun]] = {}
    for number, entry in enumerate(entries):
        for name in entry.datasets:
            alone = number if entry.together is not None else None
            sharing.setdefault((name, entry.spec.score_keys[name], alone), []).append(entry)
    total = sum(len(those[0].spec.images[name]) for (name, *_), those in sharing.items())
    with progress(title, total) as tell:
        for (name, key, _), those in sharing.items():
            _score(name, key, those, fabric, _of_all(tell, len(those[0].spec.images[name]), fabric.world_size))
    if fabric.is_global_zero:
        _share_out(time.perf_counter() - begun, entries)
    fabric.barrier()


def _of_all(tell: Advance, images: int, world: int) -> Advance:
    """Progress of all processes from that of one, which may have an image more than its share."""
    left = images

    def advance(done: int, note: str = "") -> None:
        nonlocal left
        done = min(left, done * world)
        left -= done
        tell(done, note)

    return advance


def _score(
    name: str, key: str, entries: Sequence[LoadedRun], fabric: Fabric, advance: Callable[[int, str], object]
) -> None:
    """One dataset for all entries that share its key."""
    first = entries[0]
    tree, config = first.spec.images[name], first.spec.config
    models = [entry.models(tree.spec.name) for entry in entries]
    predictions = score_all(
        [model for of_entry in models for model in of_entry],
        first.data.evaluation_loader(name, rank=fabric.global_rank, world=fabric.world_size),
        LabelSpace(tree.spec.groups),
        len(tree),
        device=fabric.device,
        precision=config.evaluation.precision,
        keep_logits=config.predictions.logits,
        together=first.together,
        advance=advance,
    )
    if predictions is None or not fabric.is_global_zero:
        return
    answers = iter(predictions)
    for entry in entries:
        own = next(answers)
        for label in entry.curve:
            next(answers).save(entry.run.predictions_file(name, key, label))
        own.save(entry.run.predictions_file(name, key))  # last: where it is, the curve's are too


def _share_out(seconds: float, entries: Sequence[LoadedRun]) -> None:
    """Add to each run's scoring time its share of a pass, by its number of models."""
    models = [len(entry.own) + len(entry.curve) for entry in entries]
    for entry, count in zip(entries, models, strict=True):
        scored = entry.run.read_json("scoring.json")
        before = scored["seconds"] if scored else 0.0
        entry.run.write_json("scoring.json", {"seconds": before + seconds * count / sum(models)})
