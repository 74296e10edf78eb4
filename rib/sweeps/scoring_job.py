"""Scoring jobs: runs to be scored, with the runs that they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.runs.command import command_for
from rib.runs.freshness import metrics_if_current
from rib.runs.run import Run, unscored
from rib.runs.spec import PRETRAINED, RunSpec
from rib.runs.store import RunStore

Trees = dict[tuple[Path, str], ImageTree]
"""Lists of images by folder and key (`RunSpec.score_keys`), shared among jobs: ImageNet-C has 3.75 million images."""


@dataclass(frozen=True)
class ScoringJob:
    """A run to be scored on a suite of datasets, with the jobs that must be done first.

    Attributes:
        spec: The resolved run, with the suite to score it on.
        run: Folder of the run.
        store: The store that holds it.
        needs: Jobs that come first: that of its `pretrained` run, and those of its ingredients.
        ingredients: The runs that it was merged from.
        weights: File of external weights for a run without weights yet; None for those of the pretrained model.
        force: True to score datasets again that have been scored.
    """

    spec: RunSpec
    run: Run
    store: RunStore
    needs: tuple[ScoringJob, ...] = ()
    ingredients: tuple[Run, ...] = ()
    weights: Path | None = None
    force: bool = False

    @property
    def pretrained(self) -> Run:
        """The baseline that the run is compared with: its `pretrained` run, or the run itself if it is one."""
        return self.needs[0].run if self.needs else self.run

    @property
    def is_open(self) -> bool:
        """True if the run lacks predictions or metrics of the suite, or if ``force`` is set."""
        return self.force or metrics_if_current(self.run, self.spec) is None

    @property
    def unscored(self) -> list[str]:
        """Names of the datasets that are left to score."""
        return list(self.spec.images) if self.force else unscored(self.spec, self.run)

    @property
    def num_models(self) -> int:
        """Number of models that each image passes through: the run's own, and those of its curve, if it has one.

        A curve holds models between two weights, such as those of WiSE-FT by alpha. An ensemble counts its members.
        """
        if self.ingredients and not self.run.weights_file.is_file():
            return len(self.ingredients)
        metrics = self.run.metrics()
        return 1 + (0 if metrics is None else len(metrics.get("curve", ())))

    @property
    def model_bytes(self) -> int:
        """Memory of one model in bytes, with its logits on the largest dataset if these are kept."""
        # Runs that were never made and ensembles have no weights file; their models have the size of the start.
        files = (self.run.weights_file, self.pretrained.weights_file)
        weights = next((file.stat().st_size for file in files if file.is_file()), self.spec.start.num_bytes)
        logits = max((4 * len(t) * len(t.spec.groups) for t in self.spec.images.values()), default=0)
        return weights + (logits if self.spec.config.predictions.logits else 0)


def scoring_job_of(spec: RunSpec, store: RunStore, trees: Trees) -> ScoringJob:
    """Return the job that scores a run, with the jobs that must come first (its `pretrained` run, its ingredients).

    Args:
        spec: The resolved run.
        store: The store that holds it.
        trees: Lists of images of earlier jobs; they are reused, and new ones are added.

    Raises:
        RibError: If an ingredient of the run is gone.
    """
    keys = spec.score_keys
    scored = {n: trees.setdefault((tree.folder, keys[n]), tree) for n, tree in spec.scored.items()}
    spec = replace(spec, scored=scored)
    run = store.run_of(spec)
    if spec.method == PRETRAINED:
        return ScoringJob(spec, run, store)
    needs = [scoring_job_of(spec.of_pretrained(), store, trees)]
    ingredients = []
    for ingredient in spec.ingredients:
        if ingredient.spec is not None:
            needs.append(scoring_job_of(ingredient.spec, store, trees))
        ingredients.append(needs[-1].run if ingredient.folder is None else Run(ingredient.folder))
        if ingredient.source != "none" and ingredients[-1].metrics() is None:
            how = "" if ingredient.spec is None else f"; make it with {command_for(ingredient.spec.config)}"
            raise RibError(f"its ingredient {ingredient.label} is not in the store{how}")
    return ScoringJob(spec, run, store, tuple(needs), tuple(ingredients))


def in_order(requested: Sequence[ScoringJob]) -> Iterator[ScoringJob]:
    """Yield every job once, after the jobs that it needs.

    Args:
        requested: Jobs that the command asks for; if another one needs such a job, it is yielded with its own options.
    """
    by_folder = {job.run.folder: job for job in requested}
    done: set[Path] = set()

    def visit(job: ScoringJob) -> Iterator[ScoringJob]:
        for need in job.needs:
            yield from visit(need)
        if job.run.folder not in done:
            done.add(job.run.folder)
            yield by_folder.get(job.run.folder, job)

    for job in requested:
        yield from visit(job)
