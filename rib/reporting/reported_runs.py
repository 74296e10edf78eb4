"""Find the runs of a store that a report shows, or explain why there are none."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress

import rib.config
from rib.config.command_schema import ReportConfig
from rib.errors import RibError, nearest
from rib.reporting.selection import describe_filters, select_runs
from rib.reporting.summary import EXTERNAL_NAME
from rib.runs.command import command_for, config_of
from rib.runs.freshness import out_of_date_in
from rib.runs.run import Result, Run
from rib.runs.spec import EXTERNAL
from rib.runs.store import RunStore
from rib.runs.trials import without_trials
from rib.runtime.console import say
from rib.runtime.counting import plural
from rib.schemas.metrics import Metrics

FILTERS = ("models", "methods", "sources", "seeds", "suites", "where")
"""Filters of `rib.reporting.selection.select_runs` that `rib.report` has as options."""


def runs_to_report(config: ReportConfig, store: RunStore) -> tuple[Sequence[Result], str]:
    """Return the fine-tuned runs of a store that a report shows, and a sentence that says how many its filters left.

    What is left out for other reasons is said.

    Args:
        config: Its filters select runs, ``search_trials`` includes those of `rib.search`.
        store: The store.

    Returns:
        The runs with their metrics, and the sentence, which is empty if no filter left out a run.

    Raises:
        RibError: If there is nothing to report; the message says what the store holds instead.
    """
    shown, selection = _select(_fine_tuned(store), config, store)
    with_ri = _with_ri(shown, store)
    reported = with_ri if config.search_trials else without_trials(with_ri, store)
    if trials := len(with_ri) - len(reported):
        results = plural(trials, "result")
        say(f"left out of the report: {results} of rib.search trials; include them with search_trials=true")
    if not reported:
        raise RibError(
            f"paths.runs: expected finished runs in {store.root} that are not trials of rib.search, found "
            f"{plural(trials, 'result')} of trials; include them with search_trials=true"
        )
    return reported, selection


def _fine_tuned(store: RunStore) -> list[Result]:
    """Return a store's fine-tuned runs.

    Raises:
        RibError: If there is none.
    """
    finished = _finished(store)
    trained = [(run, m) for run, m in finished if m["source"] != "none"]
    _say_sourceless(finished)
    if not trained:
        raise RibError(
            f"paths.runs: {store.root} has {_count(finished)} without training (pretrained, or external weights "
            f"without a source) and none that was fine-tuned; make one with {_training_command(store)} +method=NAME"
        )
    return trained


def _say_sourceless(finished: Sequence[Result]) -> None:
    """Say which external weights no table shows, since their source was not given, and the command that gives it."""
    external = [(run, m, _external_digest(run)) for run, m in finished if m["method"] == EXTERNAL]
    shown = {(m["model"], digest) for _, m, digest in external if m["source"] != "none"}
    left_out = [(run, m) for run, m, digest in external if m["source"] == "none" and (m["model"], digest) not in shown]
    if not left_out:
        return
    known = dict.fromkeys(f"{m['options'].get(EXTERNAL_NAME)} ({EXTERNAL}) of {m['model']}" for _, m in left_out)
    run, metrics = left_out[0]
    try:
        command, *comment = command_for(config_of(run, metrics), weights=run.weights_file).split("  # ")
    except RibError:
        command, comment = f"python -m rib.evaluate weights={run.weights_file} model={metrics['model']}", []
    say(
        f"left out of the report, and of runs.csv: {'; '.join(known)}: the dataset that these weights were fine-tuned "
        f"on was not given; give it with:\n  {'  # '.join([f'{command} dataset=SOURCE', *comment])}"
    )


def _external_digest(run: Run) -> str | None:
    """Return the digest of the file that external weights came from; None if the run's config cannot be read."""
    with suppress(RibError):
        return str(config_of(run).method[EXTERNAL]["digest"])
    return None


def _select(trained: Sequence[Result], config: ReportConfig, store: RunStore) -> tuple[list[Result], str]:
    """Return the runs that match the config's filters, and a sentence that says how many these are, if not all."""
    filters = {name: getattr(config, name) for name in FILTERS}
    shown = select_runs(trained, **filters, kind=f"fine-tuned runs in {store.root}")
    total, number = _number(trained), _number(shown)
    given = describe_filters(**filters)
    return shown, f"{number} of {plural(total, 'run')} shown: {given}" if given and len(shown) < len(trained) else ""


def _with_ri(shown: Sequence[Result], store: RunStore) -> list[Result]:
    """Return the runs that have an RI and are up to date; say which are not.

    Raises:
        RibError: If there is none.
    """
    stale = out_of_date_in(store)
    if outdated := [(run, m) for run, m in shown if run.key in stale]:
        say(
            f"left out of the report: {_count(outdated)} made from runs whose weights have changed since, such as "
            f"{outdated[0][0].folder}; remake them with the commands that made them"
        )
    with_ri = [(run, m) for run, m in shown if m["robustness_improvement"] and run.key not in stale]
    if not with_ri:
        raise RibError(
            f"paths.runs: {store.root} has {_count(shown)} with fine-tuning, but no RI: each was scored on no target "
            "besides its own source; score them on a suite with python -m rib.evaluate runs=FOLDER suite=NAME"
        )
    return with_ri


def _finished(store: RunStore) -> list[Result]:
    """Return all finished runs of a store with their metrics, one entry per metrics file.

    Raises:
        RibError: If there is no such folder, or no finished run in it, with a guess at the folder that was meant.
    """
    if not store.root.is_dir():
        near = [p.parent.name for p in store.root.absolute().parent.glob("*/datasets")]
        raise RibError(
            f"paths.runs: expected a folder of runs made by rib.train, there is no folder {store.root}"
            f"{nearest(store.root.name, near)}"
        )
    finished = [(run, metrics) for run in store.finished() for metrics in metrics_files(run, "left out of the report")]
    if not finished:
        # Every store has a folder claims/: look for one around and below the given path.
        around = next((p for p in store.root.absolute().parents if (p / "claims").is_dir()), None)
        meant = around or next((p.parent for p in sorted(store.root.glob("*/claims"))), None)
        how = f"make one with {_training_command(store)}" if meant is None else f"did you mean {meant}?"
        raise RibError(f"paths.runs: expected finished runs in {store.root}, found none; {how}")
    return finished


def _training_command(store: RunStore) -> str:
    return f"python -m rib.train {shlex.quote(rib.config.spell_override('paths.runs', str(store.root)))}"


def metrics_files(run: Run, otherwise: str) -> list[Metrics]:
    """Return the content of all metrics files of a run; if one is unreadable, say why and return none.

    Args:
        run: A finished run.
        otherwise: Begin of the message, ``left out of the report``.
    """
    try:
        return run.all_metrics()
    except RibError as error:
        say(f"{otherwise}: {error}")
        return []


def _number(results: Sequence[Result]) -> int:
    return len({run.folder for run, _ in results})


def _count(results: Sequence[Result]) -> str:
    return plural(_number(results), "run")
