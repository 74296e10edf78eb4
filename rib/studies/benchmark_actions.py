"""The actions of ``python -m rib.benchmark`` on a grid or on the store: run, status, prune, export, import."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal

from rib.config.command_schema import BenchmarkConfig
from rib.errors import RibError, nearest
from rib.methods.build import build_object
from rib.reporting.data_warning import warn_before
from rib.reporting.layout import output
from rib.runs import archive
from rib.runs.spec import PRETRAINED, RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.counting import plural
from rib.runtime.files import digest_of
from rib.sweeps.cost import Costs
from rib.sweeps.executors import Executor, LocalExecutor, SlurmExecutor
from rib.sweeps.plan import Plan, controls, make_plan
from rib.sweeps.plan_view import plan_report, show_plan
from rib.sweeps.scheduler import Outcome, Schedule, failed_labels, grid_state
from rib.sweeps.status import show_status
from rib.sweeps.work_ahead import start_up_file, write_start_up

if TYPE_CHECKING:
    from rib.sweeps.study import Study

Launcher = Mapping[str, Any]
"""Hydra's launcher config: submitit's if the user chose a cluster."""


def act(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Carry out the action that ``action=`` names, such as ``run`` or ``status``.

    Args:
        config: The composed config of the command.
        launcher: Hydra's launcher config.

    Raises:
        RibError: If there is no such action, or the action cannot be carried out.
    """
    actions: dict[str, Callable[[BenchmarkConfig, Launcher], None]] = {
        "run": run,
        "status": status,
        "prune": prune,
        "export": export,
        "import": import_,
    }
    if config.action not in actions:
        close = nearest(config.action, actions, "action=")
        raise RibError(f"action: expected one of {', '.join(actions)}, got {config.action!r}{close}")
    actions[config.action](config, launcher)


def run(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Show a grid's plan, make its missing runs and show the results; exit with code 1 if one has no result."""
    if config.force:
        raise RibError("force=true repeats a single run (python -m rib.train); a grid makes only missing runs")
    _check_format(config)
    store, console = RunStore(config.paths.runs), output()
    workers = _workers(config, launcher, store)
    plan = make_plan(config, store)
    warn_before({cell.spec.start.name for cell in plan.wanted if cell.spec is not None}, config.data.root)
    study = _study(config, plan)  # checked before hours of training, not after
    outcome = grid_state(plan, store, retry_failed=config.retry and not config.plan_only)
    costs = Costs(store)
    missing = [cell for id, cell in plan.cells.items() if outcome.is_open(id)]
    if missing:
        costs.calibrate(missing, config.threads)
    if config.plan_only and config.format == "json":
        print(json.dumps(plan_report(plan, outcome, costs, workers), indent=1))
        return
    show_plan(plan, outcome, costs, workers, console)
    if config.plan_only:
        return
    start_up = costs.start_up(workers.kind)

    def expected(spec: RunSpec) -> float | None:
        seconds = costs.seconds(spec)
        return None if seconds is None else seconds + start_up.cell

    schedule = Schedule(plan, store, workers, outcome, expected)
    try:
        if missing:
            schedule.run()
        _make_controls(plan, store, workers, outcome)
    except KeyboardInterrupt:
        _show_finished(plan)
        raise
    begun = time.monotonic()
    _show_results(config, plan, store)
    write_start_up(start_up_file(store.root, workers.kind), schedule.overheads, time.monotonic() - begun)
    plotted = study is None or _show_study(study, config, plan, store, console)
    if outcome.failed:
        failed = sum(cell.id in outcome.failed for cell in plan.wanted)
        say(f"{failed} of {plural(len(plan.wanted), 'cell')} have no result; add retry=1 to try failed ones again:")
        for label, reason in failed_labels(plan, outcome):
            say(f"  {label}: {reason}")
    if outcome.failed or not plotted:
        sys.exit(1)


def status(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Show how many of a grid's cells (its single runs) are finished, running, failed or missing."""
    _check_format(config)
    store = RunStore(config.paths.runs)
    if not store.root.is_dir():
        say(f"paths.runs: {store.root} does not exist yet, so no cell of this grid is finished")
    show_status(make_plan(config, store), store, Costs(store), config.format)


def prune(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Remove unfinished runs and temporary files that no live process holds; with ``plan_only``, only list them."""
    paths, size = archive.prune(RunStore(config.paths.runs), dry_run=config.plan_only)
    for path in paths:
        print(path)
    done = "would be removed" if config.plan_only else "removed"
    found = plural(len(paths), "unfinished run or temporary file", "unfinished runs and temporary files")
    say(f"{found} {done}, {decimal(size)}")


def export(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Pack the results in the store, without weights, into the tar archive ``file=``."""
    file = _file(config)
    count = archive.export_runs(RunStore(config.paths.runs), file)
    say(f"{plural(count, 'run')}, {decimal(file.stat().st_size)}")
    print(file.resolve())


def import_(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Import the runs in the tar archive ``file=`` into the store.

    Raises:
        RibError: If the store already holds one of them with other numbers; that run is not changed.
    """
    result = archive.import_runs(RunStore(config.paths.runs), _file(config))
    known = f", {len(result.known)} already in the store" if result.known else ""
    say(f"{plural(len(result.new), 'run')} imported{known}")
    if result.older:
        say(f"{len(result.older)} of the imported runs were made by an older version of rib; tables show them apart")
    if result.clashes:
        raise RibError(
            f"already in the store with other numbers, and not imported: {plural(len(result.clashes), 'run')}: "
            f"{', '.join(result.clashes)}"
        )


def _workers(config: BenchmarkConfig, launcher: Launcher, store: RunStore) -> Executor:
    if "submitit" in str(launcher.get("_target_", "")):
        return SlurmExecutor(launcher, store.root / "submitit", config.jobs)
    return LocalExecutor(config.trainer, config.jobs, config.threads)


def _check_format(config: BenchmarkConfig) -> None:
    if config.format not in ("table", "json"):
        raise RibError(f"format: expected table or json, got {config.format!r}")


def _file(config: BenchmarkConfig) -> Path:
    if config.file is None:
        raise RibError(f"action={config.action} needs a file; give file=NAME.tar")
    return Path(config.file).expanduser()


def _make_controls(plan: Plan, store: RunStore, workers: Executor, outcome: Outcome) -> None:
    """Make the control runs that models with BatchNorm need, and add them to the plan and its outcome.

    Only after training is it known whether a model has BatchNorm, whose moving statistics alone can cost robustness.
    """
    missing = controls(plan, store)
    if not missing.wanted:
        return
    say(f"{len(missing.wanted)} control runs for models with BatchNorm: plain fine-tuning with frozen statistics")
    extended = Plan({**plan.cells, **missing.cells})
    state = grid_state(extended, store)
    made = Schedule(extended, store, workers, state).run()
    outcome.failed |= {id: why for id, why in made.failed.items() if id in missing.cells}
    plan.cells |= missing.cells


def _show_results(config: BenchmarkConfig, plan: Plan, store: RunStore) -> None:
    """Show the tables of the grid's finished runs; results that are not comparable never share a table."""
    from rib.reporting.comparability import group_comparable
    from rib.reporting.report import finish_report, show_report, write_report

    done = [(cell.run, metrics) for cell in plan.wanted if cell.run and (metrics := cell.metrics)]
    trained = [(run, m) for run, m in done if m["robustness_improvement"] and m["method"] != PRETRAINED]
    # Named by its cells: repeating the command, in any order of options, replaces its own tables and no others.
    out = store.root / "grids" / digest_of(sorted(cell.id for cell in plan.wanted))
    groups = group_comparable(trained)
    written = []
    for number, group in enumerate(groups, start=1):
        sources = list(dict.fromkeys(m["source"] for _, m in group.results))
        suffix = "" if number == 1 else f"_{number}"
        files, table = write_report(group.results, store, out, sources, suffix, figures=config.figures)
        written += files
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)
    finish_report(out, groups, written)


def _show_finished(plan: Plan) -> None:
    """Print the table of an interrupted grid's finished runs, and write nothing."""
    from rib.reporting.comparability import group_comparable
    from rib.reporting.runs_table import comparison_table

    done = [(cell.run, m) for cell in plan.wanted if cell.run and (m := cell.metrics) and m["robustness_improvement"]]
    for group in group_comparable([one for one in done if one[1]["method"] != PRETRAINED]):
        table = comparison_table([metrics for _, metrics in group.results])
        output().print(replace(table, optional=(), file=""))  # no file has the columns that there is no room for


def _study(config: BenchmarkConfig, plan: Plan) -> Study | None:
    """Return the requested study after checking that this grid has the cells it needs; None without ``study=``."""
    if config.study is None:
        return None
    study: Study = build_object(config.draw)
    if valid := [cell for cell in plan.asked if cell.spec is not None]:  # without any, the plan says why
        study.check(valid)
    return study


def _show_study(study: Study, config: BenchmarkConfig, plan: Plan, store: RunStore, console: Console) -> bool:
    """Write a study's files, print its paragraph and their paths; return False if it cannot be plotted."""
    from rib.sweeps.study import Made, write_study

    name = str(config.study)
    done = [(cell, cell.run, m) for cell in plan.asked if cell.run and (m := cell.metrics)]
    made = [Made(*one) for one in done if one[2]["robustness_improvement"] is not None]
    if not made:
        say(f"study {name}: no finished cell has an RI, so there is nothing to plot")
        return False
    try:
        text, files = write_study(study, made, store, store.root / "studies" / name, config.figures)
    except RibError as error:  # printed rather than raised, so that the reasons of failed cells are printed after it
        say(f"study {name} cannot be plotted: {error}")
        return False
    console.print(text, highlight=False, markup=False)
    console.print("\n".join(str(file.resolve()) for file in files), soft_wrap=True, highlight=False)
    return True
