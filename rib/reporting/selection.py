"""Select runs of a store by model, method, source, seed, suite and the options that they were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

import rib.config
from rib.config.flatten import flat
from rib.config.shipped import options as shipped_names
from rib.config.shipped import shipped_nodes
from rib.data.catalog import nearest_dataset
from rib.data.worlds import catalog_of
from rib.errors import RibError, nearest
from rib.runs.recipe import RECIPE_OPTIONS
from rib.runs.run import Result, Run
from rib.runs.spec import EXTERNAL
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.config.conditions import Condition

Names = str | int | Sequence[str | int | None] | None
"""One name or several, which may have the wildcards ``*`` and ``?``; None for all."""

Where = str | Sequence[str] | Mapping[str, Any] | None
"""Conditions on options, as `rib.config.conditions.parse_conditions` takes them."""


class NoMatchError(RibError):
    """Raised if all names and options exist, but no run matches them."""


def select_runs(
    results: Iterable[Result],
    models: Names = None,
    methods: Names = None,
    sources: Names = None,
    seeds: Names = None,
    where: Where = None,
    suites: Names = None,
    kind: str = "runs",
    singular: bool = False,
) -> list[Result]:
    """Select the runs that match all given filters.

    Args:
        results: Runs with their metrics.
        models: Names of models, ``mini_small`` or ``["mini_*", "clip_laion2b"]``.
        methods: Names of methods; external weights also match by the name that they were given.
        sources: Datasets that the runs were fine-tuned on.
        seeds: Random seeds; None in a list stands for runs without one.
        where: Conditions on options, ``"optimizer.lr=0.001"`` or ``{"optimizer.lr": 0.001}``.
        suites: Suites that the runs were scored on.
        kind: Phrase for the runs in messages, ``fine-tuned runs in STORE``.
        singular: Whether messages name the filters as `rib.find_runs` does, ``model``, and not ``models``.

    Returns:
        The matching runs, in their order; a run that has no such option matches no condition on it.

    Raises:
        RibError: If a name or option does not exist; the message names those that do.
        NoMatchError: If a filter leaves nothing.
    """
    found = list(results)
    filters: tuple[tuple[str, Names, Callable[[Metrics], list[Any]]], ...] = (
        ("models", models, lambda m: [m["model"]]),
        ("methods", methods, _method_names),
        ("sources", sources, lambda m: [m["source"]]),
        ("seeds", seeds, lambda m: [m["seed"]]),
        ("suites", suites, lambda m: [m["suite"]]),
    )
    applied: list[str] = []
    for name, given, names_of in filters:
        if given is not None:
            wanted, spelled = as_list(given), name.removesuffix("s") if singular else name
            found = _select(found, name, wanted, names_of, _describe_kind(kind, applied), singular)
            applied.append(_spell(spelled, wanted))
    return _select_where(found, rib.config.parse_conditions(where), kind, applied)


def describe_filters(**filters: Any) -> str:
    """Return the given filters as text, ``methods=ewc where='epochs>=5'``; empty if there is none.

    Args:
        **filters: As the arguments of `select_runs`.
    """
    where = rib.config.parse_conditions(filters.pop("where", None))
    given = [_spell(name, as_list(value)) for name, value in filters.items() if value is not None]
    return " ".join([*given, *(f"where='{condition}'" for condition in where)])


def as_list(given: Names) -> list[Any]:
    """Return one name, or several, as a list; an empty list for None."""
    if given is None:
        return []
    return [given] if isinstance(given, str | int) else list(given)


def options_of(run: Run, metrics: Metrics) -> dict[str, Any]:
    """Return the options that a run was made with, defaults included, by dotted name.

    Options that were null in its config and chosen by rib (``epochs``, ``optimizer.lr``, ...) have the chosen value.

    Args:
        run: A finished run; without a readable config.yaml only the options that its metrics record are known.
        metrics: One of its metrics files.
    """
    found: dict[str, Any] = {}
    try:
        # The fast loader of PyYAML reads what OmegaConf has written, without the wait for its import.
        config = yaml.load((run.folder / "config.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        found = {key: value for key, value in flat(config).items() if key != "given"}
    except (OSError, ValueError, yaml.YAMLError, TypeError):
        pass
    protocol: Mapping[str, Any] = metrics["protocol"]
    resolved = {option: protocol[key] for option, key in RECIPE_OPTIONS.items() if protocol.get(key) is not None}
    scored = {
        "suite": metrics["suite"],
        "suite.name": metrics["suite"],
        "evaluation.precision": protocol["evaluation_precision"],
        "experiment": protocol["experiment"],
    }
    names = {"model": metrics["model"], "method": metrics["method"], "dataset": metrics["source"]}
    return {**found, **metrics["options"], **resolved, **scored, **names, "seed": metrics["seed"]}


def _select(
    found: Sequence[Result],
    name: str,
    wanted: Sequence[Any],
    names_of: Callable[[Metrics], list[Any]],
    kind: str,
    singular: bool,
) -> list[Result]:
    """Apply one filter by name."""
    known = list(dict.fromkeys(value for _, m in found for value in names_of(m)))
    exist = [*known, *_existing(name, found)]
    absent = [pattern for pattern in wanted if not any(_matches(value, pattern) for value in known)]
    # A dataset or method without runs is no mistake as long as others have some; a name that does not exist is one.
    unknown = [pattern for pattern in absent if pattern not in exist]
    chosen = [(run, m) for run, m in found if any(_matches(v, p) for v in names_of(m) for p in wanted)]
    if unknown or not chosen:
        got = str(unknown[0]) or "nothing" if unknown else ", ".join(map(str, absent)) or "an empty list"
        closest = nearest_dataset if name == "sources" else nearest
        hint = closest(str(unknown[0]), map(str, exist)) if unknown else ""
        # External weights are offered by the names that they were given.
        offered = [_method_names(m)[-1] for _, m in found] if name == "methods" else known
        if name == "seeds":
            offered = sorted(seed for seed in known if seed is not None)
        there = f"available: {', '.join(dict.fromkeys(map(_show, offered)))}" if offered else "there is none"
        one = name.removesuffix("s")
        # Every number may be a seed.
        raise (RibError if unknown and name != "seeds" else NoMatchError)(
            f"{one}: none of the {kind} has {one} {got}; {there}{hint}"
            if singular
            else f"{name}: expected {name} with {kind}, got {got}; {there}{hint}"
        )
    return chosen


def _select_where(
    found: list[Result], conditions: Sequence[Condition], kind: str, applied: Sequence[str]
) -> list[Result]:
    """Apply conditions on options, one after the other."""
    if not conditions:
        return found
    options = [options_of(run, metrics) for run, metrics in found]
    known = {key for of_run in options for key in of_run}
    known |= {f"method.{name}.{key}" for name, node in shipped_nodes("method").items() for key in node}
    done = list(applied)
    for condition in conditions:
        name = condition.option
        if name not in known:
            raise RibError(f"where: {name}: there is no such option{_nearest_option(name, known)}")
        kept = [i for i, of_run in enumerate(options) if name in of_run and condition.holds(of_run[name])]
        if not kept:
            raise NoMatchError(
                f"where: expected {_describe_kind(kind, [*done, str(condition)])}, found none; "
                f"{_recorded([of_run[name] for of_run in options if name in of_run], name)}"
            )
        found, options = [found[i] for i in kept], [options[i] for i in kept]
        done.append(str(condition))
    return found


def _recorded(values: Sequence[Any], option: str) -> str:
    """Describe the values of an option in the runs at hand, ``their optimizer.lr is 0.001 (4 times), 0.005``."""
    counts = Counter(map(_show, values))
    if not counts:
        return f"none of them has the option {option}"
    shown = [text + (f" ({number} times)" if number > 1 else "") for text, number in counts.most_common(8)]
    return f"their {option} is {', '.join(shown)}{', ...' if len(counts) > 8 else ''}"


def _nearest_option(name: str, known: Iterable[str]) -> str:
    """Return the text "; did you mean NAME?" with the option whose full or last name is the most similar."""
    names = sorted(known)
    last = name.rpartition(".")[2]
    same = [key for key in names if key.rpartition(".")[2] == last]
    # `lr` is optimizer.lr before it is a method's own, and not more than three are worth reading.
    same.sort(key=lambda key: (key.count("."), key))
    if same:
        several = same[:1] if same[0].count(".") == 1 else same[:3]
        return f"; did you mean {' or '.join(several)}?"
    if found := nearest(name, names):
        return found
    ends = {key.rpartition(".")[2]: key for key in reversed(names)}
    meant = nearest(last, ends).removeprefix("; did you mean ").removesuffix("?")
    return f"; did you mean {ends[meant]}?" if meant else ""


def _existing(name: str, results: Sequence[Result]) -> list[str]:
    """Return the names of models, methods or sources that exist, whether there are runs of them or not."""
    if name == "sources":
        return list(dict.fromkeys(key for _, m in results for key in catalog_of(m["data"]["kind"]).specs))
    groups = {"models": "model", "methods": "method", "suites": "suite"}
    return shipped_names(groups[name]) if name in groups else []


def _method_names(metrics: Metrics) -> list[str]:
    """Return the names that a run's method goes by: its own, and that of external weights."""
    given = metrics["options"].get(f"method.{EXTERNAL}.name")
    return [metrics["method"], *([given] if isinstance(given, str) else [])]


def _matches(value: Any, pattern: Any) -> bool:
    if isinstance(value, str):
        return value == pattern or fnmatchcase(value, str(pattern))
    return value == pattern or (isinstance(value, int) and str(value) == pattern)


def _describe_kind(kind: str, applied: Sequence[str]) -> str:
    return f"{kind} with {' and '.join(applied)}" if applied else kind


def _spell(name: str, values: Sequence[Any]) -> str:
    texts = [_show(value) for value in values]
    return f"{name}={texts[0]}" if len(texts) == 1 else f"{name}=[{','.join(texts)}]"


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
