"""The plan of a grid: its cells, the runs that they depend on, and which of these are in the store.

A cell is one run of the store. Runs that several cells need (the pretrained scores, a linear probe, an ingredient) are
cells of their own, planned once and made first. Planning downloads and makes nothing, and does not import torch.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import rib.config
from rib.config.command_schema import BenchmarkConfig
from rib.config.schema import BatchNorm, Config
from rib.data.catalog import real
from rib.data.worlds import find_data, kind_of, recipe_of, title_of
from rib.errors import RefusedError, RibError
from rib.runs import ingredients
from rib.runs.fields import fisher_key
from rib.runs.freshness import metrics_if_current
from rib.runs.resolve import Resolver, resolve
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.console import say_once
from rib.runtime.files import digest_of
from rib.schemas.metrics import Metrics

AXES = ("models", "sources", "methods", "seeds", "axes")
"""Options that an entry of ``grids`` may set."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        id: Name of its folder under ``<store>/cells``; cells with the same result have the same id.
        label: Description for the user, ``mini_small, ewc on mini R, seed 0``.
        spec: The resolved run; None if it cannot be resolved.
        run: Folder of the run, made or not; None without a spec.
        needs: Ids of the cells that must be made before it.
        wanted: True if the grid asks for it, False if only other cells need it.
        axes: The value of each of the grid's axes, by option.
        problem: Why it cannot be resolved; None if it can.
        refused: True if that is because its source must not be trained on.
    """

    id: str
    label: str
    spec: RunSpec | None
    run: Run | None
    needs: tuple[str, ...] = ()
    wanted: bool = False
    axes: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    refused: bool = False

    @property
    def metrics(self) -> Metrics | None:
        """Metrics of the cell's run; None until it is finished and scored exactly as ``spec`` says."""
        return None if self.run is None or self.spec is None else metrics_if_current(self.run, self.spec)

    @property
    def is_done(self) -> bool:
        """True if the cell's result is in the store."""
        return self.metrics is not None


@dataclass
class Plan:
    """A grid's cells and the further runs that they need.

    Attributes:
        cells: All cells by id, each after those that it needs.
        asked: The wanted cells, once per combination of the axes: two values of an option that lead to the same run
            are two entries with the same id.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    asked: list[Cell] = field(default_factory=list)

    def add(self, cell: Cell) -> None:
        """Add a cell to the plan unless it is known; a known cell becomes wanted if the grid itself asks for it."""
        if cell.wanted:
            self.asked.append(cell)
        # Replacing a value keeps its place in a dict, so that a cell stays before those that need it.
        known = self.cells.get(cell.id)
        if known is None or (cell.wanted and not known.wanted):
            self.cells[cell.id] = cell

    @property
    def wanted(self) -> list[Cell]:
        """The cells that the grid asks for."""
        return [cell for cell in self.cells.values() if cell.wanted]

    def shared(self) -> dict[str, int]:
        """Count, by method, the runs that the grid's cells need but the grid does not ask for, such as `pretrained`.

        Each is made once for all cells that need it. ``Fisher`` counts EWC's estimates of the Fisher information.
        """
        needed = [cell for cell in self.cells.values() if not cell.wanted and cell.spec is not None]
        counts: dict[str, int] = {}
        for cell in needed:
            assert cell.spec is not None
            counts[cell.spec.method] = counts.get(cell.spec.method, 0) + 1
        fishers = {inputs for cell in self.cells.values() for inputs in fisher_inputs(cell)}
        return counts | ({"Fisher": len(fishers)} if fishers else {})


def make_plan(config: BenchmarkConfig, store: RunStore) -> Plan:
    """Plan a grid: resolve each of its cells to a run, and find the runs that these depend on.

    Args:
        config: With the lists ``models``, ``sources``, ``methods`` and ``seeds``, ``axes``, or ``grids`` of these.
        store: Where the runs are, or will be.

    Returns:
        The plan. A cell that cannot be resolved is part of it, with the reason.

    Raises:
        RibError: If the grid itself is invalid, or if all cells fail for the same reason.
    """
    # One resolver for all cells: it looks each file and dataset up once, and a failure is not tried again per cell.
    plan, resolver = Plan(), Resolver(download=False)
    for label, values, cell_config in _configs(config):
        try:
            spec = resolve(cell_config, resolver)
        except RibError as error:
            refused = isinstance(error, RefusedError)
            cell_id = digest_of([label, values])
            plan.add(Cell(cell_id, label, None, None, (), True, values, str(error), refused))
        else:
            _add(plan, store, spec, label, values, wanted=True)
    # One problem of all cells is a mistake in the command, not in a cell; a refused source is part of a normal plan.
    problems = {cell.problem for cell in plan.wanted}
    if len(problems) == 1 and (only := problems.pop()) is not None and not all(c.refused for c in plan.wanted):
        raise RibError(only)
    return plan


def controls(plan: Plan, store: RunStore, has_batch_norm: Callable[[RunSpec], bool] = lambda spec: False) -> Plan:
    """Plan the missing control runs of a grid: plain fine-tuning with frozen BatchNorm statistics.

    Updating the statistics alone can cost more accuracy than fine-tuning does, so that methods which freeze them need
    this comparison. Whether a model has BatchNorm is known once it was trained, hence a second plan.

    Args:
        plan: The grid's, with finished cells.
        store: Where the runs are, or will be.
        has_batch_norm: Tells of the model of an unfinished run that trains whether it has BatchNorm, for an estimate.
    """
    missing, resolver = Plan(), Resolver(download=False)
    for cell in plan.wanted:
        spec, metrics = cell.spec, cell.metrics
        if spec is None:
            continue
        if metrics is None:
            needs_control = cell.run is not None and spec.trains and has_batch_norm(spec)
        else:
            needs_control = bool(metrics["notes"].get("batch_norm.layers"))
        if not needs_control:
            continue
        control = resolve(replace(spec.config, method={}, batch_norm=BatchNorm.frozen), resolver)
        _add(missing, store, control, f"{label_of(control)}, batch_norm=frozen", {}, wanted=True)
    missing.cells = {id: cell for id, cell in missing.cells.items() if id not in plan.cells}
    return missing


def label_of(spec: RunSpec) -> str:
    """Return a run's description for the user, ``mini_small, ewc on mini R, seed 0``."""
    if spec.source is None:
        return f"{spec.start.name}, {spec.method}"
    source = title_of(spec.source_name, spec.catalog.kind)
    return f"{spec.start.name}, {spec.method} on {source}, seed {spec.config.seed}"


def _add(
    plan: Plan, store: RunStore, spec: RunSpec, label: str, values: Mapping[str, Any], wanted: bool = False
) -> str:
    """Add the cell of a run to a plan, after the cells of the runs that it needs, and return the cell's id."""
    used = [run.spec for run in spec.needs if run.spec is not None]
    pretrained = [] if spec.source is None else [spec.of_pretrained()]
    needs = tuple(dict.fromkeys(_add(plan, store, need, label_of(need), {}) for need in (*pretrained, *used)))
    run = store.run_of(spec)
    # The training key alone would not do: two suites of one run are two results, each scored by a cell of its own.
    suite = [spec.suite, spec.protocol["targets"], spec.protocol["reported"], spec.config.experiment]
    cell_id = digest_of([run.key, suite, spec.score_keys])
    plan.add(Cell(cell_id, label, spec, run, needs, wanted, values))
    return cell_id


def _configs(config: BenchmarkConfig) -> Iterator[tuple[str, dict[str, Any], Config]]:
    """Yield the label, the values of the axes and the config of every cell that the grid asks for."""
    base = Config(**{f.name: getattr(config, f.name) for f in fields(Config)})
    if base.method:
        raise RibError(f"expected methods=[{', '.join(base.method)}] for a grid, got +method={','.join(base.method)}")
    defaults = {name: getattr(config, name) for name in AXES}
    for entry in config.grids or [{}]:
        if unknown := entry.keys() - set(AXES):
            raise RibError(f"grids: expected an entry with any of {', '.join(AXES)}, got {min(unknown)}")
        yield from _product(base, {**defaults, **entry})


def _product(base: Config, grid: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], Config]]:
    """Yield label, values of the axes and config of every cell: all combinations of the values in a grid's lists."""
    sources = _sources(grid["sources"], base)
    axes = _axes(grid["axes"] or {}, base)
    for name, entries in {**{k: grid[k] for k in AXES if k != "axes"}, "sources": sources, **axes}.items():
        if not isinstance(entries, list) or not entries:
            raise RibError(f"{name}: expected a list of at least one value, got {entries!r}")
    used: set[str] = set()
    kind = kind_of(base.data.root, base.data.suite)
    for model, names in itertools.product(grid["models"], grid["methods"]):
        # An entry of models may carry overrides: "timm model.name=resnet26".
        name, *more = shlex.split(model)
        with_model = rib.config.override(base, [f"model={name}", *more], f"models: {model}")
        with_method = replace(with_model, method=ingredients.nodes_of(names, "methods", names))
        # An axis over an option of one method does not multiply the cells of the others.
        own = [axis for axis in axes if not axis.startswith("method.") or axis.split(".")[1] in with_method.method]
        used |= set(own)
        for combination in itertools.product(*(axes[axis] for axis in own)):
            values = dict(zip(own, combination, strict=True))
            with_values = (
                rib.config.override(with_method, [f"{k}={_spell(v)}" for k, v in values.items()], "axes")
                if values
                else with_method
            )
            for source, seed in itertools.product(sources, grid["seeds"]):
                cell = replace(with_values, dataset=replace(with_values.dataset, name=source), seed=seed)
                suffix = "".join(f", {axis}={_spell(value)}" for axis, value in values.items())
                yield f"{cell.model.name}, {names} on {title_of(source, kind)}, seed {seed}{suffix}", values, cell
    if unused := axes.keys() - used:
        raise RibError(f"axes: no method in methods={grid['methods']} has the option {min(unused)}")


def _sources(given: Any, base: Config) -> Any:
    """Return the sources of a grid; a study names ImageNet's, in whose place a suite of the user's own has its own.

    The reference of a probe is none, but one that is asked for by name is refused in words.
    """
    if given is None:
        return [name for name in base.suite.sources if name != base.head.reference]
    if base.data.suite is None or not isinstance(given, list) or not given:
        return given
    foreign = [name for name in given if name in real().specs and name not in find_data(base)[0].specs]
    if len(foreign) < len(given):
        return given
    said = f"{foreign[0]} is no domain" if len(foreign) == 1 else f"{', '.join(foreign)} are no domains"
    say_once(f"sources: {said} of {base.suite.name}; its own sources take their place")
    return base.suite.sources


def _axes(given: Mapping[str, Any], base: Config) -> dict[str, Any]:
    """Return the values of each axis (varied option) for the kind of data in use, mini or user; omit axes set to null.

    An axis is a list of values, or a mapping that gives a list for mini and another for the user's data.
    """
    kind = recipe_of(kind_of(base.data.root, base.data.suite))
    axes = {}
    for name, entries in given.items():
        if isinstance(entries, Mapping) and set(entries) != {"mini", "user"}:
            alternative = "one for each kind of data, {mini: [..], user: [..]}"
            raise RibError(f"axes.{name}: expected a list, or {alternative}, got {dict(entries)}")
        values = entries[kind] if isinstance(entries, Mapping) else entries
        if values is not None:
            axes[name] = values
    return axes


def _spell(value: object) -> str:
    """Spell a value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def fisher_inputs(cell: Cell) -> Iterator[str]:
    """Yield the digest of the inputs of the Fisher information that a cell needs for EWC; nothing if it needs none.

    Cells with equal inputs share one Fisher (`rib.runtime.artifacts`). They only serve to count
    Fishers: the cache's own key holds the digest of the probe's weights, not made yet.
    """
    if cell.spec is not None and needs_fisher(cell.spec):
        spec, ewc = cell.spec, cell.spec.config.method["ewc"]
        key = fisher_key(spec, spec.probe.key if spec.probe else None)
        yield digest_of([key, *(ewc.get(option) for option in ("samples", "seed", "labels"))])


def needs_fisher(spec: RunSpec) -> bool:
    """Return True if a run needs the Fisher information, its own or one shared with other runs."""
    ewc = spec.config.method.get("ewc") if spec.source is not None and spec.trains else None
    return ewc is not None and ewc.get("fisher") != "identity"
