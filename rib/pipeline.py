"""One run from config to metrics.json: resolve, look up in the run store, lock, fine-tune, score, measure, plot.

A killed run leaves enough to resume from: last.ckpt during training, weights.safetensors and fit.json after it, and one
file of predictions per dataset. metrics.json is written last. With several processes (DDP) all ranks run this code, and
only rank zero writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rib.config.schema import Config
from rib.data.worlds import title_of
from rib.errors import RibError
from rib.loggers.base import log_run
from rib.reporting import run_view
from rib.reporting.data_warning import warn_before
from rib.reporting.layout import output
from rib.reporting.profile import FILE as PROFILE
from rib.reporting.profile import profile_table, profiled, read_profile
from rib.reporting.publish import publish, redraw
from rib.reporting.published_accuracies import show_published
from rib.runs.command import command_of
from rib.runs.freshness import metrics_if_current, out_of_date
from rib.runs.images import check_images, data_of, scored_images_of
from rib.runs.inputs import Watch
from rib.runs.provenance import begin_record
from rib.runs.resolve import resolve
from rib.runs.run import Result, Run, unscored
from rib.runs.spec import Ingredient, RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import rank, say, say_detail
from rib.runtime.memory import release_memory
from rib.runtime.processes import (
    agree,
    agree_if_finished,
    check_batch,
    launch_processes,
    load_lightning,
    processes_exist,
)
from rib.runtime.progress import activity
from rib.schemas.metrics import Metrics
from rib.training.fit import fit

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes
    from rib.training.merge import Merging


def finetune(config: Config) -> Run:
    """Return the finished run of a config: from the run store if it is there, else fine-tuned and scored now.

    Args:
        config: From `rib.config.compose` or a command.

    Returns:
        The finished run; `Run.metrics` returns the content of its metrics.json.

    Raises:
        RibError: For every error that the user can fix.
    """
    begun, (run, metrics) = time.time(), finish(config)
    if rank() == 0:
        run_view.say_if_stored(run.metrics_file_for(metrics), begun)
        redraw(metrics, run.folder, config.figures)
        if metrics["source"] == "none":
            show_published(metrics, config.model.published)
        run_view.show_run(metrics, run.folder)
        if config.profile:
            _show_profile(run, begun)
    return run


def _show_profile(run: Run, begun: float) -> None:
    """Print where a run's time went, or that there is nothing to measure in a run that was found in the store."""
    profile = read_profile(run.folder)
    if profile is None or (run.folder / PROFILE).stat().st_mtime < begun:
        say("profile=true: the run was in the store, so there is nothing to measure; force=true makes it again")
    if profile is not None:
        output().print(profile_table(*profile))


def finish(config: Config) -> Result:
    """Return the finished run of a config with its metrics on the config's suite, like `finetune`, but print no table.

    Raises:
        RibError: For every error that the user can fix.
    """
    warn_before([config.model.name], config.data.root)
    spec = resolve(config)
    run = get_or_make(spec, RunStore(config.paths.runs))

    def look() -> Metrics | None:
        return metrics_if_current(run, spec)

    # Other ranks may not see the folder yet; and no process is started only to read what is in the store.
    metrics = agree(config, look) if processes_exist() else look()
    assert metrics is not None, "a finished run has metrics"
    return run, metrics


def find_finished(config: Config) -> Run | None:
    """Return the finished run of a config, or None if it has to be made (missing, outdated or ``force=true``)."""
    spec = resolve(config)
    run = RunStore(config.paths.runs).run_of(spec)
    return None if config.force or metrics_if_current(run, spec) is None else run


def get_or_make(spec: RunSpec, store: RunStore) -> Run:
    """Return the finished run that a `RunSpec` describes; if missing, make it after making the runs that it needs.

    Args:
        spec: The run.
        store: Where runs are looked up and written.

    Raises:
        RibError: For every error that the user can fix.
    """
    run = store.run_of(spec)
    force = spec.config.force

    def is_finished() -> bool:
        return not force and metrics_if_current(run, spec) is not None

    if not is_finished():
        check_images(spec)  # before there are other processes, which would wait for it
    if agree_if_finished(spec.config, is_finished):
        return run
    if spec.source is not None:
        load_lightning()  # methods are its callbacks
        from rib.training.merge import check_methods

        check_methods(spec)  # a misspelt option must not surface after hours of training
        if spec.trains:
            check_batch(spec.config)
    if spec.source is None:
        pretrained = None
    else:  # a merge and a run from a probe load its weights, other training only compares with the predictions
        get = _get_intact if spec.ingredients or spec.start.headless else get_or_make
        pretrained = get(spec.of_pretrained(), store)
    ingredients = [
        pretrained if pretrained is not None and need is spec.fitted_start else _get_ingredient(spec, need, store)
        for need in spec.needs
    ]
    if pretrained is not None and spec.start.headless:
        spec = replace(spec, start=spec.start.with_weights(pretrained.weights_file))
    # Seven copies of the weights (two checkpoints while one replaces the other, each with weights and the optimizer's
    # two moments, and the final weights), at twice the file's size, which may be float16; and predictions per image.
    needed = 14 * spec.start.num_bytes + 30 * sum(map(len, spec.images.values()))
    with store.lock(run, needed) as lock:
        if lock is not None:
            store.recover(run)
        force = force or agree(spec.config, lambda: _is_outdated(spec, run))
        # Another process may have made it while this one waited.
        if agree(spec.config, lambda: metrics_if_current(run, spec) is not None) and not force:
            return run
        work = agree(spec.config, lambda: store.begin(run, lock, force) if lock is not None else run)
        with profiled(spec.config, work.folder):
            make(spec, work, pretrained, ingredients, store)
        if lock is not None:
            store.publish(work, run, lock, force)
            say_detail(f"saved {run.folder.resolve()}")
    return run


def _is_outdated(spec: RunSpec, run: Run) -> bool:
    """Return True, and print why, if a finished run was made from other runs whose weights have changed since."""
    views = run.all_metrics() if run.metrics() is not None else []
    changed = next(filter(None, (out_of_date(metrics, spec, run) for metrics in views)), None)
    if changed is not None:
        why = f"the weights of a run it was made from have changed ({changed})"
        say(f"{run.folder} is out of date: {why}; making it again")
    return changed is not None


def _get_ingredient(spec: RunSpec, ingredient: Ingredient, store: RunStore) -> Run:
    """Return a finished run that another run is made from (its ingredient); make the ingredient if it is missing."""
    if ingredient.folder is not None:
        run = Run(ingredient.folder)
        if not run.is_intact:
            again = f"make that run again with {command_of(run, force=True)}"
            raise RibError(f"{run.weights_file} is damaged: its checksum does not match; {again}")
        return run
    assert ingredient.spec is not None, "an ingredient is a folder or a run spec"
    needed = ingredient.spec
    if rank() == 0 and store.run_of(needed).metrics() is None:
        seconds = store.seconds(needed.start.name, needed.method)
        source = title_of(needed.source_name, needed.catalog.kind)
        about = f", about {max(1, seconds):.0f} s" if seconds is not None else ""
        say_detail(f"{spec.method} needs {ingredient.label} (source {source}, seed {needed.config.seed}){about}")
    try:
        return _get_intact(needed, store)
    except RibError as error:
        # The same class: `rib.search` treats a diverged ingredient like a diverged run.
        raise type(error)(f"{spec.method} needs {ingredient.label}, which failed: {error}") from error


def _get_intact(spec: RunSpec, store: RunStore) -> Run:
    """Return the finished run that a `RunSpec` describes; make it again if its weights file has a wrong checksum."""
    run = get_or_make(spec, store)
    if agree(spec.config, lambda: run.is_intact):
        return run
    say(f"{run.weights_file} is damaged: its checksum does not match; making this run again")
    return get_or_make(replace(spec, config=replace(spec.config, force=True)), store)


def make(spec: RunSpec, run: Run, pretrained: Run | None, ingredients: Sequence[Run], store: RunStore) -> None:
    """Make one run: train or merge, score, and write metrics.json; resumes what a killed process left in the folder.

    Args:
        spec: The run.
        run: Folder to work in, locked by the caller.
        pretrained: The finished `pretrained` run, to compare with; None if this run is the pretrained one.
        ingredients: Finished runs that this one is made from or starts from, those of ``spec.needs``.
        store: The run store, for what runs share.

    Raises:
        RibError: For every error that the user can fix.
    """
    processes = launch_processes(spec.config)
    watch = Watch(spec, run) if processes.is_global_zero else None
    # With metrics there already (a further suite), the weights stay, and so does the record of how they were made.
    if processes.is_global_zero and run.metrics() is None:
        begin_record(spec, run, ingredients)
    merging, merged = None, ingredients[: len(spec.ingredients)]
    if merged:
        from rib.training.merge import Merging

        assert pretrained is not None, "a merge starts from pretrained weights"
        merging = Merging(spec, pretrained, merged, data_of(spec), processes)
    with log_run(spec, run) as loggers, _discard_if_inputs_changed(watch):
        fitted = processes.broadcast(run.read_json("fit.json") is not None)
        if fitted and not processes.broadcast(run.is_intact):
            raise RibError(
                f"{run.weights_file} is damaged: its checksum does not match; add force=true to make the run again"
            )
        if not fitted:
            if merging is not None:
                from rib.training.merge import save_merged

                with activity(f"{spec.start.name}: merging runs ({spec.method})"):
                    save_merged(merging, run)
            else:
                with activity(f"{spec.start.name}: preparing {spec.method}"):
                    fit(spec, run, store, loggers, ingredients[0] if spec.probe else None)
            release_memory()
        processes.barrier()
        _score_missing(spec, run, processes, merging)
        if watch is not None:
            watch.check()
            with activity(f"{spec.start.name}: computing RI and drawing figures of {spec.method}"):
                publish(spec, run, pretrained or run, merged, store)
    processes.barrier()


@contextmanager
def _discard_if_inputs_changed(watch: Watch | None) -> Iterator[None]:
    """Context manager: if its body fails after an input file changed, delete the unfinished run (never resume it)."""
    try:
        yield
    except BaseException:
        if watch is not None and watch.run.metrics() is None:
            with suppress(RibError, OSError):  # the error that ended the attempt is the one to show
                watch.check()
        raise


def _score_missing(spec: RunSpec, run: Run, processes: Processes, merging: Merging | None) -> None:
    """Score a run's model, and the models on its interpolation curve, on every dataset that has no predictions yet."""
    missing = processes.broadcast(unscored(spec, run))  # ranks must not look for themselves: rank zero is writing
    if missing:
        from rib.scoring.one_pass import LoadedRun, score_together

        loaded = LoadedRun.load(spec, run, missing, scored_images_of(spec), processes, merging)
        score_together([loaded], processes, f"{spec.start.name}: scoring {spec.method}")
