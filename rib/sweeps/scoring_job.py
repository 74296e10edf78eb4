"""A run to be scored, with what stands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.runs.command import command_for
from rib.runs.freshness import find_metrics
from rib.runs.run import Run, unscored
from rib.runs.spec import PRETRAINED, RunSpec
from rib.runs.store import RunStore

Trees = dict[tuple[Path, str], ImageTree]
"""Lists of images that are shared (ImageNet-C has 3.75 million), by their folder and score key."""


@dataclass(frozen=True)
class ScoringJob:
    """A run to be scored.

    Attributes:
        spec: What it answers, with the suite that is asked for.
        run: Its folder.
        store: The store that holds it.
        needs: What must be scored before it: its `pretrained` run, and what it is made from.
        parts: The runs that it is made from.
        weights: The file that its weights are made from, if they are not there yet; None for the start's own.
        again: Whether to score what has been scored.
    """

    spec: RunSpec
    run: Run
    store: RunStore
    needs: tuple[ScoringJob, ...] = ()
    parts: tuple[Run, ...] = ()
    weights: Path | None = None
    again: bool = False

    @property
    def before(self) -> Run:
        """What it is compared with: its `pretrained` run, or itself."""
        return self.needs[0].run if self.needs else self.run

    @property
    def is_open(self) -> bool:
        """Whether there is something to do."""
        return self.again or find_metrics(self.run, self.spec) is None

    @property
    def unscored(self) -> list[str]:
        """Datasets to score."""
        return list(self.spec.images) if self.again else unscored(self.spec, self.run)

    @property
    def num_models(self) -> int:
        """Models that look at each image: the run's own and its curve's, or those of an ensemble."""
        if self.parts and not self.run.weights_file.is_file():
            return len(self.parts)
        metrics = self.run.metrics()
        return 1 + (0 if metrics is None else len(metrics.get("curve", ())))

    @property
    def model_bytes(self) -> int:
        """Memory of one model, and of its logits on the largest dataset where they are kept."""
        files = (self.run.weights_file, self.before.weights_file, self.spec.start.weights)
        weights = next(file for file in files if file.is_file()).stat().st_size
        logits = max((4 * len(t) * len(t.spec.groups) for t in self.spec.images.values()), default=0)
        return weights + (logits if self.spec.config.predictions.logits else 0)


def scoring_job_of(spec: RunSpec, store: RunStore, trees: Trees) -> ScoringJob:
    """A task with those behind it; what of their images is the same is taken from ``trees``, or put there.

    Raises:
        RibError: If a run that it is made from is gone.
    """
    keys = spec.score_keys
    scored = {n: trees.setdefault((tree.folder, keys[n]), tree) for n, tree in spec.scored.items()}
    spec = replace(spec, scored=scored)
    run = store.run_of(spec)
    if spec.method == PRETRAINED:
        return ScoringJob(spec, run, store)
    needs = [scoring_job_of(spec.of_pretrained(), store, trees)]
    parts = []
    for part in spec.ingredients:
        if part.spec is not None:
            needs.append(scoring_job_of(part.spec, store, trees))
        parts.append(needs[-1].run if part.folder is None else Run(part.folder))
        if part.source != "none" and parts[-1].metrics() is None:
            how = "" if part.spec is None else f"; make it with {command_for(part.spec.config)}"
            raise RibError(f"it is made from {part.label}, which is not there{how}")
    return ScoringJob(spec, run, store, tuple(needs), tuple(parts))


def in_order(asked: Sequence[ScoringJob]) -> Iterator[ScoringJob]:
    """Every task once, after what it needs."""
    as_asked = {task.run.folder: task for task in asked}
    done: set[Path] = set()

    def after_needs(task: ScoringJob) -> Iterator[ScoringJob]:
        for need in task.needs:
            yield from after_needs(need)
        if task.run.folder not in done:
            done.add(task.run.folder)
            yield as_asked.get(task.run.folder, task)

    for task in asked:
        yield from after_needs(task)
