"""Choose a learning rate and a strength on images held out of the source, never on a target.

Optuna's TPE suggests (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", NeurIPS), an ordinary run of
the store answers, and its accuracy on what ``data.holdout`` kept from training is the trial's value. RI is shown, and
read by nothing: a benchmark whose targets have chosen the setting measures nothing on them.

The study is a journal beside the runs. A trial that is not finished, because another process is at it or because its
process is gone, is taken up by whoever has nothing else to do: the run store's claim makes them wait for one who is
alive, and what is left of a dead one's run goes on. What is suggested depends on the seed, the trial's number and the
values so far, so that a study that goes on does not begin with the random numbers that it began with.
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
from rib.runs.freshness import find_metrics
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
    from rich.table import Table

Space = Mapping[str, tuple[float, float]]
"""Lowest and highest value of each searched option, by its name on the command line."""

CAPTION = (
    "RI is shown and has chosen nothing. The best of many is better on the images that chose it than on others. Trials "
    "stay out of rib.report unless search_trials=true."
)

SEARCHED_BY = ("trials", "objective", "search.", "force", "data.holdout")
"""Beginnings of overrides that mean something to the search, and nothing to the setting that it finds."""


def search(config: SearchConfig, overrides: Sequence[str]) -> Path:
    """Try settings until there are ``trials``, and report the best.

    Args:
        config: What to try.
        overrides: The command line behind it, from which the one to give next is made.

    Returns:
        The study's folder: ``journal.log``, ``trials.csv``, ``trials.png``, and ``trials/`` (`rib.runs.trials`).

    Raises:
        RibError: If what is to choose was trained on or is a target, if there is nothing to search, or if every trial
            diverged.
    """
    _check_what_chooses(config)
    space = _space(config, overrides)
    base = Config(**{field.name: getattr(config, field.name) for field in fields(Config)})
    # One corner stands for all trials: what else they share is in its keys.
    corner = _asked(base, {name: low for name, (low, _) in space.items()})
    key = digest_of([corner.training_key, corner.score_keys, config.suite.targets, space])
    store = RunStore(config.paths.runs)
    folder = store.root / "searches" / f"{corner.start.name}-{corner.source_name}-{corner.method}-{key}"
    study = _study(folder) if rank() == 0 else None
    turn = partial(_next, study, space, config)
    while (given := agree(base, turn)) is not None:
        number, setting = given
        spec = _asked(base, setting)
        if study is not None:
            mark_trial(spec, store, folder)
        try:
            metrics = find_metrics(get_or_make(spec, store), spec)
        except DivergedError as error:
            metrics = None
            say(f"trial {number + 1} of {config.trials} diverged: {error}")
        if study is not None:
            _tell(study, number, setting, metrics, config.trials)
    if study is not None:
        _report(study, list(space), corner, overrides, folder)
    return folder


def _check_what_chooses(config: SearchConfig) -> None:
    if config.objective != "held_out":
        raise RibError(
            f"objective={config.objective}: expected held_out; a setting that was chosen on a target, or on RI, "
            "which is made of them, makes the benchmark's number for it meaningless; what chooses is the part of the "
            "source that data.holdout keeps from training"
        )
    if config.data.holdout == 0:
        raise RibError(
            "data.holdout: expected a fraction above 0, got 0; images that were trained on cannot choose, and targets "
            "never do"
        )
    if config.trials < 1:
        raise RibError(f"trials: expected 1 or more, got {config.trials}")


def _space(config: SearchConfig, overrides: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What is searched, checked."""
    ranges = {}
    if config.search.lr is not None:
        ranges["optimizer.lr"] = ("search.lr", config.search.lr)
    strong = [f"method.{name}.strength" for name, node in config.method.items() if node and "strength" in node]
    if config.search.strength is not None and strong:
        if len(strong) > 1:
            raise RibError(f"search.strength: expected one method with a strength, got {' and '.join(strong)}")
        ranges[strong[0]] = ("search.strength", config.search.strength)
    given = {_key(override) for override in overrides}
    for name, (where, span) in ranges.items():
        if len(span) != 2 or not 0 < span[0] < span[1] < math.inf:
            raise RibError(f"{where}: expected [lowest, highest] with 0 < lowest < highest, got {list(span)}")
        if name in given:
            raise RibError(f"{name} is given and searched; leave it out, or keep it with {where}=null")
    if not ranges:
        raise RibError(
            f"nothing to search: {stack_name(config)} has no strength that is searched, and search.lr is null"
        )
    return {name: (span[0], span[1]) for name, (_, span) in ranges.items()}


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _options(setting: Mapping[str, float]) -> list[str]:
    return [f"{name}={value!r}" for name, value in setting.items()]


def _asked(base: Config, setting: Mapping[str, float]) -> RunSpec:
    spec = resolve(rib.config.override(base, _options(setting), "search"))
    if spec.recipe is None:
        raise RibError(f"{spec.method} trains nothing: expected a method whose lr or strength can be searched")
    return spec


def _study(folder: Path) -> Study:
    """The study in a folder, made or gone on with."""
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
            f"{journal} is damaged ({error}); delete it and give the command again: its runs are in the store"
        ) from error


def _next(study: Study | None, space: Space, config: SearchConfig) -> tuple[int, dict[str, float]] | None:
    """Number and setting of a trial to run; None when all are finished (and on ranks above zero, which are told)."""
    if study is None:
        return None
    from optuna.samplers import TPESampler
    from optuna.trial import Trial, TrialState

    known = _trials(study)
    unfinished = [trial for trial in known if not trial.state.is_finished()]
    if len(known) < config.trials:
        trial = study.ask()
        if sum(other.number <= trial.number for other in _trials(study)) > config.trials:
            study.tell(trial, state=TrialState.FAIL)  # another process was first to the last one
            return _next(study, space, config)
    elif unfinished:
        trial = Trial(study, unfinished[0]._trial_id)
    else:
        return None
    study.sampler = TPESampler(seed=int(digest_of([config.seed, trial.number])[:8], 16))
    # Three digits, so that the command that is printed at the end is the trial, bit for bit.
    setting = {n: float(f"{trial.suggest_float(n, low, high, log=True):.3g}") for n, (low, high) in space.items()}
    return trial.number, setting


def _trials(study: Study) -> list[FrozenTrial]:
    """All that count; what failed was one too many."""
    from optuna.trial import TrialState

    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]


def _tell(study: Study, number: int, setting: Mapping[str, float], metrics: Metrics | None, trials: int) -> None:
    """Record how a trial ended, unless who else had it has done so; one without metrics diverged."""
    from optuna.trial import TrialState

    if metrics is None:
        study.set_user_attr(str(number), {"setting": dict(setting)})
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        return
    held_out, improvement = metrics["held_out"], metrics["robustness_improvement"]
    shown = {"setting": dict(setting), "held_out": held_out, "ri": improvement and improvement["value"]}
    study.set_user_attr(str(number), {**shown, "fingerprint": metrics["fingerprint"]})
    study.tell(number, held_out["after"], skip_if_finished=True)
    values = [f"{100 * value:.2f} %" for value in (held_out["after"], study.best_value)]
    say(f"trial {number + 1} of {trials}: {' '.join(_options(setting))}: held out {values[0]}, best {values[1]}")


def rows_of(study: Study) -> list[dict[str, Any]]:
    """One row a finished trial, the best first; of equals the one with the smaller lr, then the earlier.

    Returns:
        ``trial``, each option, ``held_out`` and ``before`` (fractions), ``num_images``, ``ri`` (percentage points) and
        ``fingerprint``; a trial that diverged has its options alone.
    """
    rows, notes = [], study.user_attrs
    for trial in _trials(study):
        if trial.state.is_finished():
            note = notes[str(trial.number)]
            row = {"trial": trial.number, **note["setting"]}
            if held := note.get("held_out"):
                row |= {"held_out": held["after"], "before": held["before"], "num_images": held["num_images"]}
                row |= {"ri": note["ri"], "fingerprint": note["fingerprint"]}
            rows.append(row)
    return sorted(rows, key=lambda row: (-row.get("held_out", -1.0), row.get("optimizer.lr", 0.0), row["trial"]))


def _report(study: Study, options: Sequence[str], corner: RunSpec, overrides: Sequence[str], folder: Path) -> None:
    """Print and draw what came out, and say what to do with it."""
    import pandas as pd
    from rich.console import Console

    from rib.data import worlds
    from rib.reporting import figures, formatting, style

    rows = rows_of(study)
    best = rows[0]
    if "held_out" not in best:
        raise RibError(
            f"all {len(rows)} trials diverged; expected one that did not: search smaller values of "
            f"{' and '.join(options)}"
        )
    kind, protocol = corner.catalog.kind, corner.protocol
    about = f"{corner.start.name}, {corner.method} on {worlds.title_of(corner.source_name, kind)}"
    about += f" ({formatting.world_of(kind, protocol['limit'])})"
    pd.DataFrame(rows).to_csv(folder / "trials.csv", index=False)
    figure = style.save(figures.search_figure(rows, options, about), folder / "trials.png")
    setting = [
        *(o for o in overrides if not _key(o).startswith(SEARCHED_BY)),
        *_options({name: best[name] for name in options}),
    ]
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_table(rows, options, about))
    for what, more in (
        ("the best trial, which is in the store", [f"data.holdout={protocol['holdout']}"]),
        ("the same on the whole source, as the benchmark trains", []),
    ):
        command = shlex.join(["python", "-m", "rib.train", *setting, *more])
        console.print(f"{what}:\n  {command}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"figure: {figure.resolve()}", soft_wrap=True, highlight=False)


def _table(rows: Sequence[Mapping[str, Any]], options: Sequence[str], about: str) -> Table:
    from rich.table import Table

    best = rows[0]
    title = f"{about}: {best['num_images']} images held out of the source, {100 * best['before']:.2f} % before training"
    table = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    for column in ("trial", *options, "held out %", "RI"):
        table.add_column(column, justify="right")
    for row in rows:
        held, ri = row.get("held_out"), row.get("ri")
        result = "diverged" if held is None else f"{100 * held:.2f}"
        values = [f"{row[name]:.3g}" for name in options]
        style = "bold" if row is best else None
        table.add_row(str(row["trial"] + 1), *values, result, "-" if ri is None else f"{ri:+.2f}", style=style)
    return table
