"""What `rib.benchmark` can be told to do with a grid or with the store: run, status, prune, export, import."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import rib.config
from rib.config.command_schema import BenchmarkConfig
from rib.errors import RibError
from rib.runs import archive
from rib.runs.spec import PRETRAINED
from rib.runs.store import RunStore
from rib.runtime.console import say
from rib.runtime.files import digest_of
from rib.sweeps.cost import Costs
from rib.sweeps.executors import LocalExecutor, SlurmExecutor, Workers
from rib.sweeps.plan import Plan, controls, make_plan
from rib.sweeps.scheduler import Outcome, Schedule, failed_labels, grid_state
from rib.sweeps.status import plan_report, show_plan, show_status

if TYPE_CHECKING:
    from rib.sweeps.study import Study

Launcher = Mapping[str, Any]
"""Hydra's node of how jobs are launched; submitit's where the user chose a cluster."""


def act(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Do what ``action=`` says.

    Raises:
        RibError: If there is no such action, or in it for whatever the user can mend.
    """
    actions: dict[str, Callable[[BenchmarkConfig, Launcher], None]] = {
        "run": run,
        "status": status,
        "prune": prune,
        "export": export,
        "import": import_,
    }
    if config.action not in actions:
        raise RibError(f"action: expected one of {', '.join(actions)}, got {config.action!r}")
    actions[config.action](config, launcher)


def run(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Show the plan, make what is missing, show the table; exit code 1 if a cell has no answer."""
    if config.force:
        raise RibError("force=true makes one run again (python -m rib.train); a grid makes what is missing")
    _check_format(config)
    store, console = RunStore(config.paths.runs), _console()
    workers = _workers(config, launcher, store)
    plan = make_plan(config, store)
    study = _study(config, plan)
    outcome = grid_state(plan, store, retry_failed=config.retry and not config.plan_only)
    costs = Costs(store)
    missing = [cell for id, cell in plan.cells.items() if outcome.is_open(id)]
    if missing:
        costs.calibrate(missing)
    if config.plan_only and config.format == "json":
        print(json.dumps(plan_report(plan, outcome, costs, workers.at_once), indent=1))
        return
    show_plan(plan, outcome, costs, workers.at_once, console)
    if config.plan_only:
        return
    if missing:
        Schedule(plan, store, workers, outcome).run()
    _make_controls(plan, store, workers, outcome)
    _show_results(config, plan, store)
    drawn = study is None or _show_study(study, str(config.study), plan, store, console)
    if outcome.failed:
        wanted = sum(cell.id in outcome.failed for cell in plan.wanted)
        say(f"{wanted} of {len(plan.wanted)} cells have no result; retry=1 tries failed ones again:")
        for label, reason in failed_labels(plan, outcome):
            say(f"  {label}: {reason}")
    if outcome.failed or not drawn:
        sys.exit(1)


def status(config: BenchmarkConfig, launcher: Launcher) -> None:
    """How the grid stands."""
    _check_format(config)
    store = RunStore(config.paths.runs)
    if not store.root.is_dir():
        say(f"paths.runs: there is no {store.root} yet, so that nothing of this grid is done")
    show_status(make_plan(config, store), store, Costs(store), config.format)


def prune(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Remove what is unfinished and nobody is making."""
    found, size = archive.prune(RunStore(config.paths.runs), dry_run=config.plan_only)
    for place in found:
        print(place)
    done = "would be removed" if config.plan_only else "removed"
    say(f"{len(found)} unfinished runs and temporary files {done}, {size / 1e6:.1f} MB")


def export(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Pack the store's results, without weights, into a tar."""
    file = _file(config)
    count = archive.export_runs(RunStore(config.paths.runs), file)
    say(f"{count} runs, {file.stat().st_size / 1e6:.1f} MB")
    print(file.resolve())


def import_(config: BenchmarkConfig, launcher: Launcher) -> None:
    """Take the runs of a tar into the store; exit code 1 if one is there with other numbers."""
    taken = archive.import_runs(RunStore(config.paths.runs), _file(config))
    say(f"{len(taken.new)} runs taken in, {len(taken.known)} were there already")
    if taken.older:
        say(
            f"{len(taken.older)} of those taken in are of an older version of rib than this one: tables show them apart"
        )
    if taken.clashes:
        raise RibError(
            f"{len(taken.clashes)} runs are there with other numbers, and stay as they are: {', '.join(taken.clashes)}"
        )


def _workers(config: BenchmarkConfig, launcher: Launcher, store: RunStore) -> Workers:
    if "submitit" in str(launcher.get("_target_", "")):
        return SlurmExecutor(launcher, store.root / "submitit", config.jobs)
    return LocalExecutor(config.trainer, config.jobs, config.threads)


def _check_format(config: BenchmarkConfig) -> None:
    if config.format not in ("table", "json"):
        raise RibError(f"format: expected table or json, got {config.format!r}")


def _file(config: BenchmarkConfig) -> Path:
    if config.file is None:
        raise RibError(f"action={config.action} needs file=NAME.tar")
    return Path(config.file).expanduser()


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140)


def _make_controls(plan: Plan, store: RunStore, workers: Workers, outcome: Outcome) -> None:
    """Make the controls that the grid's models need, and count them in."""
    lacking = controls(plan, store)
    if not lacking.wanted:
        return
    say(f"{len(lacking.wanted)} controls: plain fine-tuning with frozen statistics of the models with BatchNorm")
    needed = Plan({**plan.cells, **lacking.cells})
    there = grid_state(needed, store)
    made = Schedule(needed, store, workers, there).run()
    outcome.failed |= {id: why for id, why in made.failed.items() if id in lacking.cells}
    plan.cells |= lacking.cells


def _show_results(config: BenchmarkConfig, plan: Plan, store: RunStore) -> None:
    """The tables of what is there of the grid; results that are not comparable never share one."""
    from rib.reporting.comparability import comparable, what_differs
    from rib.reporting.report import show_report, write_report

    done = [(cell.place, metrics) for cell in plan.wanted if cell.place and (metrics := cell.metrics)]
    trained = [(run, m) for run, m in done if m["robustness_improvement"] and m["method"] != PRETRAINED]
    out = store.root / "grids" / digest_of(sorted(cell.id for cell in plan.wanted))
    groups = comparable(trained)
    for line in what_differs(groups):
        say(line)
    for number, group in enumerate(groups, start=1):
        asked = list(dict.fromkeys(m["source"] for _, m in group.results))
        files, table = write_report(group.results, store, out, asked, "" if number == 1 else f"_{number}")
        if table is not None:
            show_report(table, files, config.logger, config.paths.cache)


def _study(config: BenchmarkConfig, plan: Plan) -> Study | None:
    """The study that was asked for, which can be drawn from this grid: seen before anything is made."""
    if config.study is None:
        return None
    study: Study = rib.config.instantiate(config.draw)
    if asked := [cell for cell in plan.asked if cell.spec is not None]:  # else the plan says why there is none
        study.check(asked)
    return study


def _show_study(study: Study, name: str, plan: Plan, store: RunStore, console: Console) -> bool:
    """What the study draws from its cells: the paragraph, and where the table and figures are; False if it cannot."""
    from rib.sweeps.study import Made, write_study

    done = [(cell, cell.place, m) for cell in plan.asked if cell.place and (m := cell.metrics)]
    made = [Made(*one) for one in done if one[2]["robustness_improvement"] is not None]
    if not made:
        say(f"no cell of {name} is finished and has an RI, so that there is nothing to draw")
        return False
    try:
        text, files = write_study(study, made, store, store.root / "studies" / name)
    except RibError as error:  # said here, so that why cells failed is still told after it
        say(f"{name} cannot be drawn: {error}")
        return False
    console.print(text, highlight=False, markup=False)
    console.print("\n".join(str(file.resolve()) for file in files), soft_wrap=True, highlight=False)
    return True
