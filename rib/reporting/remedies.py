"""Commands that make runs comparable which cannot share a table (`rib.reporting.comparability`).

A run that stands apart is made, or only scored, once more with the settings of the table that it is to join. Its own
model, method, source, seed and recipe stay as they are, unless it belongs to another experiment: then the recipe is
part of what differs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rib.config.schema import Config
from rib.data.worlds import is_suite
from rib.errors import RibError
from rib.reporting.alignment import align, needs_only_scoring, row_and_source
from rib.reporting.apart import explain_group, reference_of
from rib.reporting.comparability import Group, row_key
from rib.reporting.heads import is_per_source
from rib.runs.command import command_for, config_of, scoring_command_for
from rib.runs.metrics_file import numerics_of
from rib.runs.run import Result, Run
from rib.runs.spec import EXTERNAL
from rib.schemas.metrics import Metrics

SHOWN = 3
"""Commands printed per group; all of them are in the report's remedies.sh."""

TABLE_OPTIONS = (
    "data.limit",
    "data.label_rule",
    "data.image_backend",
    "evaluation.precision",
    "precision",
    "optimizer.warmup_steps",
)
"""Options that all runs of a table, or of a cell, have in common, so that a comparable run may differ in them."""


@dataclass(frozen=True)
class Remedy:
    """Reason why the runs of one group get a table of their own, and the commands after which none needs to.

    Attributes:
        reason: One sentence.
        advice: Continuation of the sentence; it ends in a colon if commands follow. Empty where nothing is to be done.
        commands: Shell commands, one for each run that has no counterpart in the first table.
    """

    reason: str
    advice: str
    commands: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The message, a line for the reason and one for each of the first commands."""
        lines = [
            "; ".join(filter(None, (self.reason, self.advice))),
            *(f"  {command}" for command in self.commands[:SHOWN]),
        ]
        left = len(self.commands) - SHOWN
        return [*lines, f"  and {left} more in remedies.sh"] if left > 0 else lines


def remedies(groups: Sequence[Group]) -> list[Remedy]:
    """Return, for each group that gets a table of its own, the reason and the commands that make its runs comparable.

    Args:
        groups: From `rib.reporting.comparability.group_comparable`.
    """
    found = []
    for number, group in enumerate(groups):
        # The sentence about older runs has its own advice, which the commands replace.
        reason = explain_group(groups, number).partition(". To remake")[0]
        if reason:
            reason = f"summary_{number + 1}: {reason}" if number else reason
            reference = reference_of(groups, number)
            if reference == number != 0:
                found.append(Remedy(reason, "", ()))
                continue
            earlier = [r for g in groups[reference:number] for r in g.results]
            found.append(Remedy(reason, *_advice(groups[reference], group, earlier)))
    return found


def _advice(first: Group, group: Group, before: Sequence[Result]) -> tuple[str, tuple[str, ...]]:
    """Return the advice for a group, and its commands."""
    if group is first:
        commands = _commands(_own_command(run, m) for run, m in group.results)
        return ("make them again with:", commands) if commands else _UNKNOWN
    kind = group.results[0][1]["data"]["kind"]
    open_results = [result for result in group.results if not _has_counterpart(result, before)]
    duplicates = [(result, twin) for result in group.results if (twin := _duplicate(result, first)) is not None]
    if duplicates:
        commands = _commands(_removal(result[0], twin[0]) for result, twin in duplicates)
        return "one of the two is out of date; to keep the later one, remove the other:", commands
    if not open_results:
        return f"each of them has a comparable run in {'that' if is_suite(kind) else 'the first'} table", ()
    if is_per_source(first.results[0][1]) != is_per_source(group.results[0][1]):
        return "runs from a probe on a part of each source are compared with their own starts alone", ()
    if _is_toy(open_results, first):
        return "a toy model on toy data has no counterpart on real data", ()
    if (outdated := _made_before_a_change(open_results, first)) is not None:
        commands = _commands(_own_command(run, m) for run, m in outdated)
        return "images or defaults have changed since the earlier ones were made; make those again with:", commands
    commands = _commands(_comparable_command(result, first) for result in open_results)
    return ("make comparable ones with:", commands) if commands else _UNKNOWN


_UNKNOWN: tuple[str, tuple[str, ...]] = ("this version of rib cannot read their options, so make them anew", ())


def _commands(texts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _own_command(run: Run, metrics: Metrics) -> str:
    """Return the command that makes a run again, or nothing if its options are unreadable."""
    with suppress(RibError):
        return _make(run, config_of(run, metrics))
    return ""


def _make(run: Run, config: Config) -> str:
    stored = run.weights_file if EXTERNAL in config.method and run.weights_file.is_file() else None
    return command_for(config, weights=stored)


def _comparable_command(result: Result, first: Group) -> str:
    """Return the command that makes or scores a run so that it is comparable with the first group."""
    run, metrics = result
    reference = _reference(metrics, first)
    with suppress(RibError):
        config = config_of(run, metrics)
        wanted = align(config, metrics, config_of(*reference), reference[1])
        if needs_only_scoring(config, wanted, metrics, reference[1]):
            return scoring_command_for(run, wanted)
        return _make(run, wanted)
    return ""


def _reference(metrics: Metrics, group: Group) -> Result:
    """Return the run of a group that is the most like a given one."""

    def likeness(result: Result) -> tuple[bool, bool, bool]:
        other = result[1]
        of_source = other["source"] == metrics["source"]
        return other["method"] != EXTERNAL, of_source and row_key(other) == row_key(metrics), of_source

    return max(group.results, key=likeness)


def _has_counterpart(result: Result, earlier: Sequence[Result]) -> bool:
    """Return True if an earlier table has this run, scored in its way, or one that differs in the table's options."""
    run, metrics = result
    return any(run.folder == other.folder or _is_counterpart(metrics, m) for other, m in earlier)


def _is_counterpart(metrics: Metrics, other: Metrics) -> bool:
    if any(metrics[name] != other[name] for name in ("model", "source", "method", "seed")):
        return False
    if metrics["protocol"]["experiment"] != other["protocol"]["experiment"]:
        return True
    options = [{k: v for k, v in m["options"].items() if k not in TABLE_OPTIONS} for m in (metrics, other)]
    return options[0] == options[1]


def _duplicate(result: Result, first: Group) -> Result | None:
    """Return the run of the first group that is this one made once more: the same cell and seed, another key."""
    metrics = result[1]
    if not any("appears twice" in reason for reason in first.differences(metrics)):
        return None
    same = (other for other in first.results if row_and_source(other[1]) == row_and_source(metrics))
    return next((other for other in same if other[1]["seed"] == metrics["seed"]), None)


def _removal(one: Run, two: Run) -> str:
    return shlex.join(["rm", "-r", str(min((one, two), key=_time).folder)])


def _time(run: Run) -> float:
    """Return when a run was made, seconds; 0 if that is unknown."""
    files = [file for name in ("fit.json", "metrics.json") if (file := run.folder / name).is_file()]
    return files[0].stat().st_mtime if files else 0.0


def _is_toy(results: Sequence[Result], first: Group) -> bool:
    """Return True if only the kind of data keeps toy models from a table of real data."""
    kinds = {m["data"]["kind"] for _, m in (*results, first.results[0])}
    return len(kinds) > 1 and all(m["model"].startswith("mini_") for _, m in results)


def _made_before_a_change(results: Sequence[Result], first: Group) -> Sequence[Result] | None:
    """Return the runs to make again where nothing that was asked for differs, but images or defaults have changed.

    These are the runs of the group or of the first one, whichever are older; None if some option differs.
    """
    run, metrics = results[0]
    reference = _reference(metrics, first)
    if numerics_of(metrics) != numerics_of(reference[1]):
        return None
    try:
        config = config_of(run, metrics)
        wanted = align(config, metrics, config_of(*reference), reference[1])
    except RibError:
        return None
    if wanted != replace(config, paths=wanted.paths):
        return None
    return results if _time(run) <= _time(reference[0]) else first.results
