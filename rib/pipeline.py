"""The story of one run, top to bottom: ask, look it up, claim it, fine-tune, score, measure, draw.

What a kill leaves behind is enough to go on: last.ckpt while training, weights.safetensors and fit.json after it, one
file of predictions a dataset; metrics.json comes last. A process that is one of several (DDP) tells the same story as
the others; rank zero alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rib.config.schema import Config
from rib.errors import RibError
from rib.loggers.base import log_run
from rib.reporting import run_view
from rib.reporting.publish import publish
from rib.reporting.published import show_published
from rib.runs.command import command_of
from rib.runs.freshness import find_metrics, out_of_date
from rib.runs.images import check_images, data_of
from rib.runs.inputs import Watch
from rib.runs.provenance import begin_record
from rib.runs.resolve import resolve
from rib.runs.run import Run, unscored
from rib.runs.spec import Ingredient, RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import rank, say
from rib.runtime.processes import agree, agree_if_finished, check_batch, launch_processes
from rib.training.fit import fit

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from rib.training.merge import Merging


def finetune(config: Config) -> Run:
    """Answer one question: from the store if it is there, else by fine-tuning and scoring.

    Args:
        config: From `rib.config.compose` or a main.

    Returns:
        The finished run; its ``metrics()`` is what metrics.json holds.

    Raises:
        RibError: For whatever the user can mend.
    """
    spec = resolve(config)
    store = RunStore(config.paths.runs)
    run = get_or_make(spec, store)
    if rank() == 0:
        metrics = find_metrics(run, spec)
        assert metrics is not None, "an answered question has metrics"
        run_view.show_run(metrics, run.folder)
        if spec.source is None:
            show_published(metrics, config.model.published)
    return run


def find_finished(config: Config) -> Run | None:
    """The finished run that answers a question, if it is in the store and is not to be made again."""
    spec = resolve(config)
    place = RunStore(config.paths.runs).run_of(spec)
    return None if config.force or find_metrics(place, spec) is None else place


def get_or_make(spec: RunSpec, store: RunStore) -> Run:
    """The finished run of a question, made if need be; its `pretrained` run is made before it."""
    place = store.run_of(spec)
    force = spec.config.force

    def known() -> bool:
        return not force and find_metrics(place, spec) is not None

    if not known():
        check_images(spec)  # before there are other processes, which would wait for it
    if agree_if_finished(spec.config, known):
        return place
    if spec.source is not None:
        from rib.training.merge import check_methods

        check_methods(spec)  # before hours go into what a misspelt option then throws away
        if spec.trains:
            check_batch(spec.config)
    if spec.source is None:
        before = None
    else:
        before = (_get_intact if spec.ingredients else get_or_make)(spec.of_pretrained(), store)
    parts = [_get_ingredient(spec, part, store) for part in spec.needs]
    # Two checkpoints while one replaces the other, each weights and an optimizer's two moments, and the final weights.
    needed = 14 * spec.start.num_bytes + 30 * sum(map(len, spec.images.values()))
    with store.lock(place, needed) as lock:
        if lock is not None:
            store.recover(place)
        force = force or agree(spec.config, lambda: _is_outdated(spec, place))
        # Another process may have made it while this one waited.
        if agree(spec.config, lambda: find_metrics(place, spec) is not None) and not force:
            return place
        work = agree(spec.config, lambda: store.begin(place, lock, force) if lock is not None else place)
        make(spec, work, before, parts, store)
        if lock is not None:
            store.publish(work, place, lock, force)
            say(f"made {place.folder}")
    return place


def _is_outdated(spec: RunSpec, run: Run) -> bool:
    """Whether a finished run was made from others that hold other weights by now, which is said."""
    views = run.all_metrics() if run.metrics() is not None else []
    changed = next(filter(None, (out_of_date(view, spec, run) for view in views)), None)
    if changed is not None:
        say(f"{run.folder} is out of date: {changed} has other weights than those that it was made from; made again")
    return changed is not None


def _get_ingredient(spec: RunSpec, part: Ingredient, store: RunStore) -> Run:
    """A run that another needs, made if need be; two processes that need the same one make it once."""
    if part.folder is not None:
        run = Run(part.folder)
        if not run.is_intact:
            again = f"make that run again with {command_of(run, force=True)}"
            raise RibError(f"{run.weights_file} is damaged: it is not what was written; {again}")
        return run
    assert part.spec is not None, "an ingredient is a folder or a question"
    asked = part.spec
    if rank() == 0 and store.run_of(asked).metrics() is None:
        known = store.seconds(asked.start.name, asked.method)
        about = f", about {max(1, known):.0f} s" if known is not None else ""
        say(f"{spec.method} needs {part.label} (source {asked.source_name}, seed {asked.config.seed}){about}")
    try:
        return _get_intact(asked, store)
    except RibError as error:
        raise type(error)(f"{spec.method} needs {part.label}, which failed: {error}") from error


def _get_intact(spec: RunSpec, store: RunStore) -> Run:
    """A run whose weights are about to be used; made again where its file is not what was written."""
    run = get_or_make(spec, store)
    if agree(spec.config, lambda: run.is_intact):
        return run
    say(f"{run.weights_file} is damaged: it is not what was written; this run is made again")
    return get_or_make(replace(spec, config=replace(spec.config, force=True)), store)


def make(spec: RunSpec, run: Run, before: Run | None, parts: Sequence[Run], store: RunStore) -> None:
    """Everything between a claim and metrics.json; picks up where a killed process left off.

    Args:
        spec: What is asked.
        run: Where it goes.
        before: The finished `pretrained` run; None if this is it.
        parts: Finished runs that this one is made from or starts from.
        store: The store, for what is shared between runs.
    """
    fabric = launch_processes(spec.config)
    watch = Watch(spec, run) if fabric.is_global_zero else None
    if fabric.is_global_zero and run.metrics() is None:  # else its weights are there, and what they were made with
        begin_record(spec, run, parts)
    merging = None
    if spec.ingredients:
        from rib.training.merge import Merging

        assert before is not None, "merged weights have a start"
        merging = Merging(spec, before, parts, data_of(spec), fabric)
    with log_run(spec, run) as loggers, _discard_if_inputs_changed(watch):
        fitted = fabric.broadcast(run.read_json("fit.json") is not None)
        if fitted and not fabric.broadcast(run.is_intact):
            raise RibError(
                f"{run.weights_file} is damaged: it is not what was written; say force=true to make it again"
            )
        if not fitted:
            if merging is not None:
                from rib.training.merge import save_merged

                save_merged(merging, run)
            else:
                fit(spec, run, store, loggers, *parts)
        fabric.barrier()
        _score_missing(spec, run, fabric, merging)
        if watch is not None:
            watch.check()
            publish(spec, run, before or run, parts, store)
    fabric.barrier()


@contextmanager
def _discard_if_inputs_changed(watch: Watch | None) -> Iterator[None]:
    """Leave nothing of an attempt that failed after the files that it read were changed: it would be gone on with."""
    try:
        yield
    except BaseException:
        if watch is not None and watch.run.metrics() is None:
            with suppress(RibError, OSError):
                watch.check()
        raise


def _score_missing(spec: RunSpec, run: Run, fabric: Fabric, merging: Merging | None) -> None:
    """Score every dataset that this run has no predictions for: its own model, and those of a curve beside it."""
    missing = fabric.broadcast(unscored(spec, run))  # rank zero's look decides for all
    if missing:
        from rib.scoring.one_pass import LoadedRun, score_together

        entry = LoadedRun.load(spec, run, missing, data_of(spec), fabric, merging)
        score_together([entry], fabric, f"{spec.start.name}: scoring {spec.method}")
