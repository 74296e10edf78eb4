"""Score finished runs or external weights on another suite of datasets, many models per pass over the images.

A finished run is resolved again from its config.yaml with another suite. If its key is no longer the same, the run is
left as it is. Its `pretrained` run and its ingredients are scored in the same pass. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import rib.config
from rib.config.command_schema import EvaluateConfig
from rib.config.schema import Config
from rib.data.worlds import TOY
from rib.errors import DamagedError, RibError
from rib.reporting import run_view
from rib.reporting.data_warning import warn_before
from rib.reporting.publish import publish, redraw_all
from rib.runs.command import command_of
from rib.runs.freshness import metrics_if_current, out_of_date
from rib.runs.images import check_images, data_of, scored_images_of
from rib.runs.limits import check_limit
from rib.runs.metrics_file import AGAIN, is_older, older_words
from rib.runs.resolve import resolve
from rib.runs.run import Result, Run
from rib.runs.spec import RunSpec, suite_label
from rib.runs.store import RunStore
from rib.runtime.console import rank, say
from rib.runtime.counting import plural
from rib.runtime.environment import environment
from rib.runtime.memory import free_memory
from rib.runtime.processes import agree, launch_processes
from rib.schemas.metrics import Metrics
from rib.sweeps.external import external_job
from rib.sweeps.own_suites import suite_of
from rib.sweeps.run_paths import explain_mismatch, is_finished, matching_paths, store_of
from rib.sweeps.scoring_job import ScoringJob, Trees, in_order, scoring_job_of
from rib.training.fit import fit

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes
    from rib.scoring.one_pass import LoadedRun

SCORING_OPTIONS = (
    *("runs", "suite", "evaluation", "predictions", "trainer", "paths", "figures", "force", "keep_memory"),
    *("fail_below", "fail_on"),
)
"""Options and config sections that ``rib.evaluate`` may set for finished runs."""

MACHINE_OPTIONS = (
    "data.root",
    "data.suite",
    "data.workers",
    "data.cache",
    "data.rescan",
    "data.damaged",
    "data.allow_incomplete",
    "models_at_a_time",
)
"""Further options that may be set, since they describe the machine; all others are taken from the runs."""


def evaluate(config: EvaluateConfig) -> list[Run]:
    """Score as `evaluate_results`, and return the requested runs alone."""
    return [run for run, _ in evaluate_results(config)]


def evaluate_results(config: EvaluateConfig) -> list[Result]:
    """Score finished runs on a suite, or a file of weights as a run of method `external`.

    ``fail_below`` is checked for errors only; `rib.runs.limits.check_results` compares the results with it.

    Args:
        config: Either its ``runs`` is set, a folder or a pattern, or its ``weights``, a file.

    Returns:
        The requested runs, each with its metrics of the suite.

    Raises:
        RibError: If there is nothing to score; and, once all other runs are done, if some could not be scored.
    """
    if (config.runs is None) == (config.weights is None):
        raise RibError("expected either runs=FOLDER_OR_PATTERN or weights=FILE model=NAME")
    if config.fail_below is not None:
        check_limit(config.fail_below, config.fail_on)
    elif config.fail_on != "upper":
        raise RibError(f"fail_on={config.fail_on}: there is no limit to fail on; give fail_below=-1.0 as well")
    failed: dict[Path, str] = {}
    requested = _jobs_of_runs(config, failed) if config.weights is None else [external_job(config)]
    jobs = {job.run.folder: job for job in in_order(requested)}
    for job in jobs.values():
        warn_before([job.spec.start.name], job.spec.config.data.root)
        if job.is_open:
            check_images(job.spec)
    if agree(config, lambda: any(job.is_open for job in jobs.values())):
        _score(config, jobs, failed)
    if failed:
        first, reason = next(iter(failed.items()))
        raise RibError(f"{len(failed)} of the runs could not be scored; the first is {first}: {reason}")
    results = [(job.run, _metrics_of(job)) for job in requested]
    if rank() == 0:
        redraw_all(results, config.figures)
        if len(results) == 1:
            run, metrics = results[0]
            run_view.show_run(metrics, run.folder)
    return results


def _metrics_of(job: ScoringJob) -> Metrics:
    metrics = metrics_if_current(job.run, job.spec)
    assert metrics is not None, "a scored run has metrics"
    return metrics


def _jobs_of_runs(config: EvaluateConfig, failed: dict[Path, str]) -> list[ScoringJob]:
    """Return a scoring job for each finished run that the path or pattern ``runs=`` matches."""
    given = [key for key in rib.config.changed_options(config, "evaluate") if key not in MACHINE_OPTIONS]
    if wrong := [key for key in given if key.partition(".")[0] not in SCORING_OPTIONS]:
        raise RibError(
            f"{wrong[0]}: finished runs keep their own value; set only how they are scored (suite=, evaluation.*)"
        )
    matched = [path.resolve() for path in matching_paths(str(config.runs))]
    folders = sorted({path for path in matched if is_finished(path)})
    if not folders:
        raise RibError(f"runs: expected folders of finished runs; {explain_mismatch(str(config.runs), matched)}")
    _check_root(config, folders)
    jobs: list[ScoringJob] = []
    # A run that cannot be scored must not keep the others from it: failures are collected and raised at the end.
    trees: Trees = {}
    for folder in folders:
        try:
            job = scoring_job_of(_resolve_again(Run(folder), config), store_of(folder), trees)
            jobs.append(replace(job, force=config.force))
        except DamagedError as error:
            failed[folder] = f"{str(error).removesuffix(f'; {AGAIN}')}; repair it with {command_of(Run(folder))}"
        except RibError as error:
            failed[folder] = str(error)
    return jobs


def _check_root(config: EvaluateConfig, folders: Sequence[Path]) -> None:
    """Refuse a ``data.root`` of this command that no run would use; one of the environment (RIB_DATA) may be there."""
    if config.data.root is None or "data.root" not in config.given or config.data.suite is not None:
        return
    if all(folder.parts[-5:-4] == ("mini",) for folder in folders):
        raise RibError(
            f"data.root={config.data.root}: {'this run is' if len(folders) == 1 else 'these runs are'} on {TOY}, which "
            "rib draws itself, and scored on it; leave data.root out, or fine-tune on your data with rib train"
        )


def _resolve_again(run: Run, config: EvaluateConfig) -> RunSpec:
    """Return a finished run's specification, with the suite and the scoring options of this command.

    Raises:
        RibError: If the run's config cannot be read, if it now leads to another key, or if the run is out of date.
    """
    metrics, store = run.metrics(), store_of(run.folder)
    assert metrics is not None, "only finished runs are scored again"
    try:
        saved = rib.config.load_config(run.folder / "config.yaml")
    except RibError as error:
        raise RibError(f"{error}; make it again with {command_of(run, metrics, force=True)}") from error
    spec = resolve(_with_scoring_of(config, saved, metrics, store))
    if store.run_of(spec).folder != run.folder:
        raise RibError(
            f"{_explain_new_key(metrics, spec)} (its key would now be {spec.training_key}); make it again with "
            f"{command_of(run, metrics)}"
        )
    if changed := out_of_date(metrics, spec, run):
        raise RibError(
            f"it is out of date: {changed} has other weights now than those that it was made from; make it again "
            f"with {command_of(run, metrics)}"
        )
    return spec


def _with_scoring_of(config: EvaluateConfig, saved: Config, metrics: Metrics, store: RunStore) -> Config:
    """Return a run's saved config with the scoring and machine options of this command."""
    file, suite = suite_of(config, saved, metrics)
    # One of the environment (RIB_DATA) is not that of a suite of the user's own.
    root = config.data.root if file is None or "data.root" in config.given else None
    data = replace(
        saved.data,
        suite=file,
        root=None if metrics["data"]["kind"] == "mini" else root or saved.data.root,
        workers=config.data.workers,
        cache=config.data.cache,
        rescan=config.data.rescan,
        allow_incomplete=config.data.allow_incomplete or saved.data.allow_incomplete,
        damaged=config.data.damaged,
    )
    return replace(
        saved,
        suite=suite,
        evaluation=config.evaluation,
        predictions=config.predictions,
        # A null was resolved for the device of the machine that made the run; on this one it could mean another value.
        precision=metrics["protocol"]["precision"] or saved.precision,
        # It describes how the run was trained (processes, sharding), whatever devices score it now.
        trainer=saved.trainer,
        data=data,
        paths=replace(config.paths, runs=str(store.root)),
        figures=config.figures,
        force=False,
    )


def _explain_new_key(metrics: Metrics, spec: RunSpec) -> str:
    """Explain why a finished run's key (hash of all that its training depends on) differs if computed again now."""
    if is_older(metrics):
        return f"it {older_words(metrics)}"
    trained_on = metrics.get("trained_on")
    if spec.source is not None and trained_on and trained_on["digest"] != spec.source.digest:
        return f"the images of {spec.source_name} are no longer those that it was trained on"
    scores, images = metrics["scores"], spec.images
    if changed := [name for name in images if name in scores and images[name].digest != scores[name]["images"]]:
        return f"the images of {', '.join(changed)} are no longer those that it was scored on"
    start = spec.training_key if spec.source is None else spec.of_pretrained().training_key
    if metrics["before"] != start:
        return f"the weights of model={spec.start.name} are no longer those that it was fine-tuned from"
    return "it was made by another version of rib"


def _score(config: EvaluateConfig, jobs: dict[Path, ScoringJob], failed: dict[Path, str]) -> None:
    """Score all jobs on the datasets they lack, as many models at a time as fit into memory, and write the metrics."""
    processes = launch_processes(config)
    with ExitStack() as locks:
        # Locks are taken in one order by all commands, so that two never wait for each other. A key is locked once,
        # even if several folders belong to it.
        keys = {(str(job.store.root), job.run.key): job for job in jobs.values() if job.is_open}
        for _, job in sorted(keys.items(), key=itemgetter(0)):
            # Bytes of disk that must be free: a prediction takes 20 (`rib.sweeps.cost`), the rest is room to spare.
            images = sum(map(len, job.spec.images.values()))
            locks.enter_context(job.store.lock(job.run, 30 * images))
        # Another process may have scored some while this one waited. Rank zero decides, so that all ranks agree.
        todo = [jobs[folder] for folder in processes.broadcast([f for f, job in jobs.items() if job.is_open])]
        for job in todo:
            _write_weights(job, processes)
        missing: dict[Path, list[str]] = processes.broadcast({job.run.folder: job.unscored for job in todo})
        for batch in _batches([job for job in todo if missing[job.run.folder]], config, processes):
            _score_batch(batch, missing, processes, failed)
        for job in todo:
            if processes.is_global_zero:
                _publish(job, failed)
    processes.barrier()


def _write_weights(job: ScoringJob, processes: Processes) -> None:
    """Write the weights of a run that has none yet: those of the pretrained model, or external ones."""
    spec = job.spec
    if processes.broadcast(job.run.read_json("fit.json") is not None):
        if spec.external is not None and processes.is_global_zero:  # its name and precision may be given anew
            (job.run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
        return
    if processes.is_global_zero:
        job.run.folder.mkdir(parents=True, exist_ok=True)
        (job.run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
        job.run.write_json("env.json", environment())
    if job.weights is not None:
        spec = replace(spec, start=spec.start.with_weights(job.weights))
    fit(spec, job.run, job.store)
    processes.barrier()


def _batches(jobs: Sequence[ScoringJob], config: EvaluateConfig, processes: Processes) -> list[list[ScoringJob]]:
    """Split jobs into batches that share a transform and whose models fit into memory."""

    def transform_key(job: ScoringJob) -> str:
        return repr((asdict(job.spec.start.transform), job.spec.config.data.image_backend))

    # Half of the free memory is for weights; images and activations need the rest.
    free = int(processes.broadcast(free_memory(processes))) // 2
    batches: list[list[ScoringJob]] = []
    for _, group in groupby(sorted(jobs, key=transform_key), transform_key):
        members = list(group)
        limit = config.models_at_a_time or free // max(job.model_bytes for job in members)
        count = limit
        for job in members:
            if count + job.num_models > limit:
                batches.append([])
                count = 0
            batches[-1].append(job)
            count += job.num_models
    if batches:
        sizes = [sum(job.num_models for job in batch) for batch in batches]
        models = f"{plural(sum(sizes), 'model')} of {plural(len(jobs), 'run')}"
        at_once = f", {plural(max(sizes), 'model')} at a time" if sum(sizes) > 1 else ""
        say(f"scoring {models} on suite {suite_label(config.suite)}{at_once}")
    return batches


def _score_batch(
    batch: Sequence[ScoringJob], missing: dict[Path, list[str]], processes: Processes, failed: dict[Path, str]
) -> None:
    """Score the runs of several jobs on the datasets that they have no predictions for, reading images once."""
    from rib.scoring.one_pass import score_together

    loaded = []
    for job in batch:
        try:
            loaded.append(_load(job, missing[job.run.folder], processes))
        except RibError as error:
            failed[job.run.folder] = str(error)
    if loaded:
        models = sum(len(run.own) + len(run.curve) for run in loaded)
        score_together(loaded, processes, f"scoring {plural(models, 'model')}")


def _load(job: ScoringJob, datasets: Sequence[str], processes: Processes) -> LoadedRun:
    from rib.scoring.one_pass import LoadedRun

    spec, merging = job.spec, None
    if job.ingredients:
        from rib.training.merge import Merging

        merging = Merging(spec, job.pretrained, job.ingredients, data_of(spec), processes)
    return LoadedRun.load(spec, job.run, datasets, scored_images_of(spec), processes, merging)


def _publish(job: ScoringJob, failed: dict[Path, str]) -> None:
    """Write a run's metrics; if it or a run that it needs could not be scored, record the reason in ``failed``."""
    folder = job.run.folder
    for need in job.needs:
        if need.run.folder in failed:
            failed.setdefault(folder, failed[need.run.folder])
    if folder in failed:
        return
    try:
        for tree in job.spec.images.values():
            tree.check_unchanged()  # during the scoring: the digest would name other images
        publish(job.spec, job.run, job.pretrained, job.ingredients, job.store)
    except RibError as error:
        failed[folder] = str(error)
