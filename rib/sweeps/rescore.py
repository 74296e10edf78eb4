"""Scoring what is finished: old runs on another suite, and weights from elsewhere, many models in one pass.

A run's question is asked again from its config.yaml with another suite; its key must come out as it was, else the run
is left alone. What it is compared with (its `pretrained` run) and what it is made from are scored in the same pass, as
`rib.train` would have done before it. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from glob import escape, glob
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import rib.config
from rib.config.command_schema import EvaluateConfig
from rib.errors import DamagedError, RibError, nearest
from rib.reporting import run_view
from rib.reporting.publish import publish
from rib.runs.command import command_of
from rib.runs.freshness import find_metrics, out_of_date
from rib.runs.images import check_images, data_of
from rib.runs.metrics_file import AGAIN, is_older, older_words
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runs.spec import RunSpec, suite_label
from rib.runs.store import RunStore
from rib.runtime.console import rank, say
from rib.runtime.environment import environment
from rib.runtime.memory import free_memory
from rib.runtime.processes import agree, launch_processes
from rib.schemas.metrics import Metrics
from rib.sweeps.external import external_job
from rib.sweeps.scoring_job import ScoringJob, Trees, in_order, scoring_job_of
from rib.training.fit import fit

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from rib.scoring.one_pass import LoadedRun

SAID_OF_RUNS = ("runs", "suite", "evaluation", "predictions", "trainer", "paths", "force", "keep_memory")

ABOUT_THE_MACHINE = (
    "data.root",
    "data.workers",
    "data.rescan",
    "data.damaged",
    "data.allow_incomplete",
    "models_at_a_time",
)
"""What a command may say about finished runs; all else is their own."""


def evaluate(config: EvaluateConfig) -> list[Run]:
    """Score finished runs on a suite, or a file of weights as a run of method `external`.

    Args:
        config: From the main; ``runs`` or ``weights`` is given.

    Returns:
        The runs that were asked for, each with metrics of the suite.

    Raises:
        RibError: If there is nothing to score, or (after all others are done) for what could not be scored.
    """
    if (config.runs is None) == (config.weights is None):
        raise RibError("expected either runs=FOLDER_OR_PATTERN or weights=FILE model=NAME")
    failed: dict[Path, str] = {}
    asked = _finished(config, failed) if config.weights is None else [external_job(config)]
    tasks = {task.run.folder: task for task in in_order(asked)}
    for task in tasks.values():
        if task.is_open:
            check_images(task.spec)
    if agree(config, lambda: any(task.is_open for task in tasks.values())):
        _score(config, tasks, failed)
    if failed:
        first, why = next(iter(failed.items()))
        raise RibError(f"{len(failed)} of the runs could not be scored; the first is {first}: {why}")
    if rank() == 0 and len(asked) == 1:
        metrics = find_metrics(asked[0].run, asked[0].spec)
        assert metrics is not None, "a scored run has metrics"
        run_view.show_run(metrics, asked[0].run.folder)
    return [task.run for task in asked]


def _finished(config: EvaluateConfig, failed: dict[Path, str]) -> list[ScoringJob]:
    """A task for each finished run that the pattern matches."""
    said = [key for key in rib.config.changed_options(config, "evaluate") if key not in ABOUT_THE_MACHINE]
    if wrong := [key for key in said if key.partition(".")[0] not in SAID_OF_RUNS]:
        raise RibError(f"{wrong[0]}: finished runs keep their own; say only how they are scored (suite=, evaluation.*)")
    matched = [path.resolve() for path in matching(str(config.runs))]
    folders = sorted({path for path in matched if _is_finished(path)})
    if not folders:
        raise RibError(f"runs: expected folders of finished runs, {_none_in(str(config.runs), matched)}")
    tasks: list[ScoringJob] = []
    trees: Trees = {}
    for folder in folders:
        try:
            task = scoring_job_of(_asked_again(Run(folder), config), _store_of(folder), trees)
            tasks.append(replace(task, again=config.force))
        except DamagedError as error:
            failed[folder] = f"{str(error).removesuffix(f'; {AGAIN}')}; mend it with {command_of(Run(folder))}"
        except RibError as error:
            failed[folder] = str(error)
    return tasks


def matching(pattern: str) -> list[Path]:
    """What a path or a pattern names; a folder that is there is meant as it is spelt, ``st[3]`` and all below it."""
    there, rest = _as_far_as_spelt(pattern)
    if not rest:
        return [there]
    found = glob("/".join(rest), root_dir=there, recursive=True)  # noqa: PTH207 - Path.glob follows no links
    return [there / name for name in found]


def _as_far_as_spelt(pattern: str) -> tuple[Path, list[str]]:
    """The longest beginning of a path that is there, and the names of the rest."""
    there, rest = Path(pattern).expanduser(), list[str]()
    while not there.exists() and there != there.parent:
        there, rest = there.parent, [there.name, *rest]
    return there, rest


def _is_finished(path: Path) -> bool:
    return (path / "metrics.json").is_file() and "." not in path.name


def _none_in(pattern: str, matched: Sequence[Path]) -> str:
    """What a path or a pattern names that names no finished run, and what may be meant."""
    if not matched:
        there, rest = _as_far_as_spelt(pattern)
        if escape(rest[0]) != rest[0] or not there.is_dir():
            return f"{pattern} matches nothing in {there}"
        meant = nearest(rest[0], [entry.name for entry in there.iterdir() if entry.is_dir()])
        return f"{pattern} matches nothing: there is no {rest[0]} in {there}{meant}"
    if len(matched) > 1:
        return f"none of the {len(matched)} places that {pattern} matches is one"
    place = matched[0]
    if place.is_file():
        home = next((p for p in place.parents if _is_finished(p)), None)
        return f"{pattern} is a file" + (f"; give its run's folder, {home}" if home else "")
    key, unfinished, _ = place.name.partition(".")
    if unfinished and len(key) == 16:
        finished = place.with_name(key)
        there_is = f"; the finished one is {finished}" if _is_finished(finished) else ""
        return f"{pattern} is what a process makes, or has left, of one{there_is}"
    if (place / "config.yaml").is_file():
        return f"{pattern} is unfinished: it has no metrics.json; the command that began it goes on with it"
    inside = next(place.glob("**/metrics.json"), None)
    if inside is not None:
        depth = len(inside.parent.relative_to(place).parts)
        return f"{pattern} is none, but holds some; give runs='{pattern}{'/*' * depth}'"
    return f"{pattern} is a folder without one"


def _store_of(folder: Path) -> RunStore:
    """The store that a run's folder lies in."""
    if len(folder.parents) < 5:
        raise RibError("expected a run in its store, <store>/<data>/<model>/<source>/<method>/<key>")
    return RunStore(folder.parents[4])


def _asked_again(run: Run, config: EvaluateConfig) -> RunSpec:
    """What a finished run answers, with the suite and the scoring of this command."""
    metrics, store = run.metrics(), _store_of(run.folder)
    assert metrics is not None, "only finished runs are scored again"
    try:
        made = rib.config.load_config(run.folder / "config.yaml")
    except RibError as error:
        raise RibError(f"{error}; make it again with {command_of(run, metrics, force=True)}") from error
    root = config.data.root or made.data.root
    data = replace(
        made.data,
        root=None if metrics["data"]["kind"] == "mini" else root,
        workers=config.data.workers,
        rescan=config.data.rescan,
        allow_incomplete=config.data.allow_incomplete or made.data.allow_incomplete,
        damaged=config.data.damaged,
    )
    again = replace(
        made,
        suite=config.suite,
        evaluation=config.evaluation,
        predictions=config.predictions,
        # A null was settled by the machine that made the run, which may have had another device than this one.
        precision=metrics["protocol"]["precision"] or made.precision,
        # How many processes trained, and how they held the weights, is the run's own; who scores it is not in question.
        trainer=made.trainer,
        data=data,
        paths=replace(config.paths, runs=str(store.root)),
        force=False,
    )
    spec = resolve(again)
    if store.run_of(spec).folder != run.folder:
        raise RibError(
            f"{_why_another(metrics, spec)} (its key would now be {spec.training_key}); make it again with "
            f"{command_of(run, metrics)}"
        )
    if changed := out_of_date(metrics, spec, run):
        raise RibError(
            f"it is out of date: {changed} has other weights by now than those that it was made from; make it again "
            f"with {command_of(run, metrics)}"
        )
    return spec


def _why_another(metrics: Metrics, spec: RunSpec) -> str:
    """Why the question that a finished run answered is another one now."""
    if is_older(metrics):
        return f"it {older_words(metrics)}"
    trained_on = metrics.get("trained_on")
    if spec.source is not None and trained_on and trained_on["digest"] != spec.source.digest:
        return f"the images of {spec.source_name} are no more those that it was trained on"
    scores, images = metrics["scores"], spec.images
    if other := [name for name in images if name in scores and images[name].digest != scores[name]["images"]]:
        return f"the images of {', '.join(other)} are no more those that it was scored on"
    start = spec.training_key if spec.source is None else spec.of_pretrained().training_key
    if metrics["before"] != start:
        return f"the weights of model={spec.start.name} are no more those that it began as"
    return "it was made by another version of rib"


def _score(config: EvaluateConfig, tasks: dict[Path, ScoringJob], failed: dict[Path, str]) -> None:
    """Score all that is open, as many models at a time as fit, and write the metrics."""
    fabric = launch_processes(config)
    with ExitStack() as locks:
        # In one order everywhere, so that two commands never wait for each other; a key once, whatever its folders.
        keys = {(str(task.store.root), task.run.key): task for task in tasks.values() if task.is_open}
        for _, task in sorted(keys.items(), key=itemgetter(0)):
            images = sum(map(len, task.spec.images.values()))
            locks.enter_context(task.store.lock(task.run, 30 * images))
        # Rank zero's look decides for all; while this one waited, another process may have made some.
        todo = [tasks[folder] for folder in fabric.broadcast([f for f, task in tasks.items() if task.is_open])]
        for task in todo:
            _begin(task, fabric)
        missing: dict[Path, list[str]] = fabric.broadcast({task.run.folder: task.unscored for task in todo})
        for batch in _batches([task for task in todo if missing[task.run.folder]], config, fabric):
            _score_batch(batch, missing, fabric, failed)
        for task in todo:
            if fabric.is_global_zero:
                _publish(task, failed)
    fabric.barrier()


def _begin(task: ScoringJob, fabric: Fabric) -> None:
    """Give a run that was never made its weights: the start's, or those from elsewhere."""
    spec = task.spec
    if fabric.broadcast(task.run.read_json("fit.json") is not None):
        if spec.external is not None and fabric.is_global_zero:  # its name and precision are what is said of it
            (task.run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
        return
    if fabric.is_global_zero:
        task.run.folder.mkdir(parents=True, exist_ok=True)
        (task.run.folder / "config.yaml").write_text(rib.config.to_yaml(spec.config))
        task.run.write_json("env.json", environment())
    if task.weights is not None:
        spec = replace(spec, start=replace(spec.start, weights=task.weights))
    fit(spec, task.run, task.store)
    fabric.barrier()


def _batches(tasks: Sequence[ScoringJob], config: EvaluateConfig, fabric: Fabric) -> list[list[ScoringJob]]:
    """Tasks whose images are decoded alike, as many as fit into half of the free memory; images take the rest."""

    def alike(task: ScoringJob) -> str:
        return repr((asdict(task.spec.start.transform), task.spec.config.data.image_backend))

    free = int(fabric.broadcast(free_memory(fabric))) // 2
    batches: list[list[ScoringJob]] = []
    for _, group in groupby(sorted(tasks, key=alike), alike):
        those = list(group)
        limit = config.models_at_a_time or free // max(task.model_bytes for task in those)
        count = limit
        for task in those:
            if count + task.num_models > limit:
                batches.append([])
                count = 0
            batches[-1].append(task)
            count += task.num_models
    if batches:
        sizes = [sum(task.num_models for task in batch) for batch in batches]
        models = f"{sum(sizes)} models of {len(tasks)} runs"
        say(f"{models} on suite {suite_label(config.suite)}, {max(sizes)} models at a time")
    return batches


def _score_batch(
    batch: Sequence[ScoringJob], missing: dict[Path, list[str]], fabric: Fabric, failed: dict[Path, str]
) -> None:
    """One pass over the images that these tasks miss."""
    from rib.scoring.one_pass import score_together

    entries = []
    for task in batch:
        try:
            entries.append(_load(task, missing[task.run.folder], fabric))
        except RibError as error:
            failed[task.run.folder] = str(error)
    if entries:
        models = sum(len(entry.own) + len(entry.curve) for entry in entries)
        score_together(entries, fabric, f"scoring {models} models")


def _load(task: ScoringJob, datasets: Sequence[str], fabric: Fabric) -> LoadedRun:
    from rib.scoring.one_pass import LoadedRun
    from rib.training.merge import Merging

    spec, data = task.spec, data_of(task.spec)
    merging = Merging(spec, task.before, task.parts, data, fabric) if task.parts else None
    return LoadedRun.load(spec, task.run, datasets, data, fabric, merging)


def _publish(task: ScoringJob, failed: dict[Path, str]) -> None:
    """Write a run's metrics, unless it or what it needs could not be scored."""
    folder = task.run.folder
    for need in task.needs:
        if need.run.folder in failed:
            failed.setdefault(folder, failed[need.run.folder])
    if folder in failed:
        return
    try:
        for tree in task.spec.images.values():
            if tree.identity != "pixels":
                tree.on_disk()  # images that were changed meanwhile are not those that the numbers are said to be of
        publish(task.spec, task.run, task.before, task.parts, task.store)
    except RibError as error:
        failed[folder] = str(error)
