"""Choose a learning rate and a strength on images held out of the source, never on a target.

Optuna's TPE sampler suggests a setting (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", NeurIPS).
An ordinary run of the store tries it, and its accuracy on the images that ``data.holdout`` kept from training is the
trial's value. RI is shown but not used: a benchmark is meaningless if its targets have chosen the setting.

The study is a journal file beside the runs. An unfinished trial is continued by any process that has nothing else to
do: if another process still works on it, the lock on its run makes the others wait; if that process is dead, its run is
resumed. A suggestion depends on the seed, the trial's number and the values so far, so that a resumed study does not
repeat its first random numbers.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rib.config
from rib.config.command_schema import SearchConfig
from rib.config.schema import Config
from rib.errors import DivergedError, RibError
from rib.pipeline import get_or_make
from rib.reporting.data_warning import warn_before, warning_after
from rib.runs.freshness import metrics_if_current
from rib.runs.method_stack import stack_name
from rib.runs.resolve import resolve
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runs.trials import mark_trial
from rib.runtime.console import rank, say
from rib.runtime.files import digest_of
from rib.runtime.processes import agree
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from rib.reporting.layout import FittedTable

Space = Mapping[str, tuple[float, float]]
"""Lowest and highest value of each searched option, by its name on the command line."""

CAPTION = (
    "RI is shown for information and was not used to choose. The best of many trials looks better on the images that "
    "chose it than on others. Trials stay out of rib.report unless search_trials=true."
)

SEARCH_ONLY = ("trials", "objective", "search.", "force", "data.holdout")
"""Beginnings of overrides that concern the search and are left out of the command for the setting that it finds."""


def search(config: SearchConfig, overrides: Sequence[str]) -> Path:
    """Try settings until there are ``trials`` of them, and report the best.

    Args:
        config: The run to search settings for, with ``search.lr`` and ``search.strength`` as [lowest, highest].
        overrides: The command line that led to it; the commands printed at the end are made from it.

    Returns:
        The study's folder: ``journal.log``, ``trials.csv``, ``trials.png``, and ``trials/`` (`rib.runs.trials`).

    Raises:
        RibError: If the objective is a target or was trained on, if there is nothing to search, or if every trial
            diverged.
    """
    _check_objective(config)
    warn_before([config.model.name], config.data.root)
    space = _search_space(config, overrides)
    base = Config(**{field.name: getattr(config, field.name) for field in fields(Config)})
    # The keys of one setting identify the study: its trials differ in the searched options only.
    corner = _resolve(base, {name: low for name, (low, _) in space.items()})
    key = digest_of([corner.training_key, corner.score_keys, config.suite.targets, space])
    store = RunStore(config.paths.runs)
    folder = store.root / "searches" / f"{corner.start.name}-{corner.source_name}-{corner.method}-{key}"
    study = _open_study(folder) if rank() == 0 else None
    next_trial = partial(_next_trial, study, space, config)
    while (trial := agree(base, next_trial)) is not None:
        number, setting = trial
        spec = _resolve(base, setting)
        if study is not None:
            mark_trial(spec, store, folder)
        try:
            metrics = metrics_if_current(get_or_make(spec, store), spec)
        except DivergedError as error:
            metrics = None
            say(f"trial {number + 1} of {config.trials} diverged: {error}")
        if study is not None:
            _record_trial(study, number, setting, metrics, config.trials)
    if study is not None:
        _report(study, list(space), corner, overrides, folder)
    return folder


def _check_objective(config: SearchConfig) -> None:
    """Check that settings are chosen on images that were held out of training, and never on a target."""
    if config.objective != "held_out":
        raise RibError(
            f"objective={config.objective}: expected held_out; if a setting is chosen on a target, or on RI, which is "
            "computed on the targets, the benchmark's number for it is meaningless; settings are chosen on the part of "
            "the source that data.holdout keeps from training"
        )
    if config.data.holdout == 0:
        raise RibError(
            "data.holdout: expected a fraction above 0, got 0; a setting cannot be chosen on images that were trained "
            "on, and never on targets"
        )
    if config.trials < 1:
        raise RibError(f"trials: expected 1 or more, got {config.trials}")


def _search_space(config: SearchConfig, overrides: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each searched option.

    Raises:
        RibError: If a range is invalid, if a searched option is given as well, or if there is nothing to search.
    """
    ranges = {}
    if config.search.lr is not None:
        ranges["optimizer.lr"] = ("search.lr", config.search.lr)
    strengths = [f"method.{name}.strength" for name, node in config.method.items() if node and "strength" in node]
    if config.search.strength is not None and strengths:
        if len(strengths) > 1:
            raise RibError(f"search.strength: expected one method with a strength, got {' and '.join(strengths)}")
        ranges[strengths[0]] = ("search.strength", config.search.strength)
    given = {_key(override) for override in overrides}
    for name, (option, span) in ranges.items():
        if len(span) != 2 or not 0 < span[0] < span[1] < math.inf:
            raise RibError(f"{option}: expected [lowest, highest] with 0 < lowest < highest, got {list(span)}")
        if name in given:
            raise RibError(f"{name} is both given and searched; leave it out, or fix it with {option}=null")
    if not ranges:
        raise RibError(
            f"nothing to search: {stack_name(config)} has no strength to search, and search.lr is null; give "
            "search.lr=[LOWEST,HIGHEST]"
        )
    return {name: (span[0], span[1]) for name, (_, span) in ranges.items()}


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _options(setting: Mapping[str, float]) -> list[str]:
    return [f"{name}={value!r}" for name, value in setting.items()]


def _resolve(base: Config, setting: Mapping[str, float]) -> RunSpec:
    """Return the specification of the run for one trial, given its values of the searched options.

    Raises:
        RibError: If its method does not train.
    """
    spec = resolve(rib.config.override(base, _options(setting), "search"))
    if spec.recipe is None:
        raise RibError(f"{spec.method} does not train: expected a method whose lr or strength can be searched")
    return spec


def _open_study(folder: Path) -> Study:
    """Open the Optuna study in a folder; create it if there is none."""
    try:
        import optuna
    except ImportError as error:
        raise RibError("rib.search needs Optuna, which is not installed: pip install 'rib[search]'") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "journal.log"
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.create_study(storage=storage, study_name=folder.name, direction="maximize", load_if_exists=True)
    except (ValueError, KeyError, TypeError) as error:
        raise RibError(
            f"{journal} is damaged ({error}); delete it and run the same command again: its runs are in the store"
        ) from error


def _next_trial(study: Study | None, space: Space, config: SearchConfig) -> tuple[int, dict[str, float]] | None:
    """Return the number and setting of the next trial; None if all are finished.

    Ranks above zero have no study and get None here; `rib.runtime.processes.agree` sends them rank zero's value.
    """
    if study is None:
        return None
    from optuna.samplers import TPESampler
    from optuna.trial import Trial, TrialState

    known = _trials(study)
    unfinished = [trial for trial in known if not trial.state.is_finished()]
    if len(known) < config.trials:
        trial = study.ask()
        if sum(other.number <= trial.number for other in _trials(study)) > config.trials:
            study.tell(trial, state=TrialState.FAIL)  # another process took the last trial at the same moment
            return _next_trial(study, space, config)
    elif unfinished:
        # Optuna has no public way to go on with a trial of another process: `ask` always starts a new one.
        trial = Trial(study, unfinished[0]._trial_id)
    else:
        return None
    # Seeded per trial: a sampler that is seeded once would repeat its first random numbers when the study is resumed.
    study.sampler = TPESampler(seed=int(digest_of([config.seed, trial.number])[:8], 16))
    # Rounded to three digits, so that the command printed at the end repeats the trial bit for bit.
    setting = {n: float(f"{trial.suggest_float(n, low, high, log=True):.3g}") for n, (low, high) in space.items()}
    return trial.number, setting


def _trials(study: Study) -> list[FrozenTrial]:
    """Return an Optuna study's trials without the failed ones.

    Those are surplus trials: two processes began one at the same moment, when only one was left to begin.
    """
    from optuna.trial import TrialState

    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]


def _record_trial(
    study: Study, number: int, setting: Mapping[str, float], metrics: Metrics | None, trials: int
) -> None:
    """Record a trial's result in the study, unless another process has done so; ``metrics`` is None if it diverged."""
    from optuna.trial import TrialState

    if metrics is None:
        # PRUNED and not FAIL, which marks trials in excess: a diverged trial counts, and TPE learns that it is bad.
        study.set_user_attr(str(number), {"setting": dict(setting)})
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        return
    held_out, improvement = metrics["held_out"], metrics["robustness_improvement"]
    result = {"setting": dict(setting), "held_out": held_out, "ri": improvement and improvement["value"]}
    study.set_user_attr(str(number), {**result, "fingerprint": metrics["fingerprint"]})
    study.tell(number, held_out["after"], skip_if_finished=True)
    values = [f"{100 * value:.2f} %" for value in (held_out["after"], study.best_value)]
    say(f"trial {number + 1} of {trials}: {' '.join(_options(setting))}: held out {values[0]}, best {values[1]}")


def trial_rows(study: Study) -> list[dict[str, Any]]:
    """Return one row per finished trial, the best first; ties go to the smaller lr, then to the earlier trial.

    Returns:
        ``trial``, each option, ``held_out`` and ``before`` (accuracy on the held-out images after and before training,
        fractions), ``num_images``, ``ri`` (percentage points) and ``fingerprint``. The row of a trial that diverged has
        only its number and options.
    """
    rows, notes = [], study.user_attrs
    for trial in _trials(study):
        if trial.state.is_finished():
            note = notes[str(trial.number)]
            row = {"trial": trial.number, **note["setting"]}
            if held_out := note.get("held_out"):
                row |= {"held_out": held_out["after"], "before": held_out["before"]}
                row |= {"num_images": held_out["num_images"]}
                row |= {"ri": note["ri"], "fingerprint": note["fingerprint"]}
            rows.append(row)
    return sorted(rows, key=lambda row: (-row.get("held_out", -1.0), row.get("optimizer.lr", 0.0), row["trial"]))


def _report(study: Study, options: Sequence[str], corner: RunSpec, overrides: Sequence[str], folder: Path) -> None:
    """Print, write and draw the trials, and print the commands for the best setting."""
    import pandas as pd

    from rib.data import worlds
    from rib.reporting import captions, figures, formatting, style
    from rib.reporting.layout import output

    rows = trial_rows(study)
    best = rows[0]
    if "held_out" not in best:
        raise RibError(f"all {len(rows)} trials diverged; search smaller values of {' and '.join(options)}")
    kind, protocol = corner.catalog.kind, corner.protocol
    title = f"{corner.start.name}, {corner.method} on {worlds.title_of(corner.source_name, kind)}"
    title += f" ({formatting.world_of(kind, protocol['limit'])})"
    pd.DataFrame(rows).to_csv(folder / "trials.csv", index=False)
    asked = corner.config.figures
    drawn = figures.search_figure(rows, options, title, asked.width)
    figure = style.save(drawn, folder / "trials", asked, captions.running_command(""))[0]
    setting = [
        *(o for o in rib.config.restore_suite(overrides) if not _key(o).startswith(SEARCH_ONLY)),
        *_options({name: best[name] for name in options}),
    ]
    console = output()
    console.print(trial_table(rows, options, title))
    for heading, more in (
        ("the best trial, which is in the store", [f"data.holdout={protocol['holdout']}"]),
        ("the same setting trained on the whole source, as in the benchmark", []),
    ):
        command = shlex.join(["python", "-m", "rib.train", *setting, *more])
        console.print(f"{heading}:\n  {command}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"figure: {figure.resolve()}", soft_wrap=True, highlight=False)
    if warning := warning_after([corner.start.name], kind):
        console.print(warning, highlight=False)


def trial_table(rows: Sequence[Mapping[str, Any]], options: Sequence[str], about: str) -> FittedTable:
    """Return a table with one row per trial, the best in bold.

    Args:
        rows: From `trial_rows`.
        options: Names of the searched options.
        about: The run that is searched.
    """
    from rib.reporting.layout import FittedTable

    best = rows[0]
    title = f"{about}: {best['num_images']} images held out of the source, {100 * best['before']:.2f} % before training"
    table = FittedTable(title, words=("trial",), numbers=(*options, "held out %", "RI"), notes=(CAPTION,))
    for row in rows:
        held_out, ri = row.get("held_out"), row.get("ri")
        result = "diverged" if held_out is None else f"{100 * held_out:.2f}"
        values = [f"{row[name]:.3g}" for name in options]
        style = "bold" if row is best else ""
        table.add_row(str(row["trial"] + 1), *values, result, "-" if ri is None else f"{ri:+.2f}", style=style)
    return table
