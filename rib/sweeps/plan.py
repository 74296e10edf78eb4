"""The plan of a grid: every cell as a question, the runs that it needs, and what is there already.

A cell is one run of the store. What several cells need (the pretrained scores, a linear probe, an ingredient) is a cell
of its own, planned once and made before them. Nothing is downloaded and nothing is made here; no torch.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import rib.config
from rib.config.command_schema import BenchmarkConfig
from rib.config.schema import BatchNorm, Config
from rib.errors import RibError
from rib.runs import ingredients
from rib.runs.fields import fisher_key
from rib.runs.freshness import find_metrics
from rib.runs.resolve import RefusedError, Resolver, resolve
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore
from rib.runtime.files import digest_of
from rib.schemas.metrics import Metrics

AXES = ("models", "sources", "methods", "seeds", "axes")
"""What an entry of ``grids`` may say otherwise."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        id: Names its folder under ``<store>/cells``; two cells with one answer are one cell.
        label: ``mini_small, ewc on imagenet_r, seed 0``.
        spec: What it asks; None where it cannot even be asked.
        place: Where its answer is, or will be; None without a question.
        needs: Ids of the cells that come before it.
        wanted: Whether the grid asks for it, or only other cells need it.
        axes: What the grid's axes say here, by option.
        problem: Why it cannot be asked; None where it can.
        refused: Whether that is because the source must not be trained on.
    """

    id: str
    label: str
    spec: RunSpec | None
    place: Run | None
    needs: tuple[str, ...] = ()
    wanted: bool = False
    axes: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    refused: bool = False

    @property
    def metrics(self) -> Metrics | None:
        """What its run's metrics say to exactly this question; None while there is no answer."""
        return None if self.place is None or self.spec is None else find_metrics(self.place, self.spec)

    @property
    def is_done(self) -> bool:
        """Whether its answer is in the store."""
        return self.metrics is not None


@dataclass
class Plan:
    """A grid's cells.

    Attributes:
        cells: By id, each after those that it needs.
        asked: As often as the grid asks: two values of an option that mean the same run are two entries of one id.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    asked: list[Cell] = field(default_factory=list)

    def add(self, cell: Cell) -> None:
        """Take in a cell; one that only others needed becomes wanted when the grid asks for it, too."""
        if cell.wanted:
            self.asked.append(cell)
        known = self.cells.get(cell.id)
        if known is None or (cell.wanted and not known.wanted):
            self.cells[cell.id] = cell

    @property
    def wanted(self) -> list[Cell]:
        """The cells that the grid asks for."""
        return [cell for cell in self.cells.values() if cell.wanted]

    def shared(self) -> dict[str, int]:
        """What several cells need once, and how many of each: pretrained scores, probes, ingredients, Fishers."""
        needed = [cell for cell in self.cells.values() if not cell.wanted and cell.spec is not None]
        counts: dict[str, int] = {}
        for cell in needed:
            assert cell.spec is not None
            counts[cell.spec.method] = counts.get(cell.spec.method, 0) + 1
        fishers = {digest_of(facts) for cell in self.cells.values() for facts in _fishers(cell)}
        return counts | ({"Fisher": len(fishers)} if fishers else {})


def make_plan(config: BenchmarkConfig, store: RunStore) -> Plan:
    """Lay out a grid.

    Raises:
        RibError: If an entry of the grid cannot be understood; a cell that cannot be asked is part of the plan.
    """
    plan, found = Plan(), Resolver(download=False)
    for label, values, cell_config in _configs(config):
        try:
            spec = resolve(cell_config, found)
        except RibError as error:
            refused = isinstance(error, RefusedError)
            cell_id = digest_of([label, values])
            plan.add(Cell(cell_id, label, None, None, (), True, values, str(error), refused))
        else:
            _add(plan, store, spec, label, values, wanted=True)
    problems = {cell.problem for cell in plan.wanted}
    if len(problems) == 1 and (only := problems.pop()) is not None and not all(c.refused for c in plan.wanted):
        raise RibError(only)
    return plan


def controls(plan: Plan, store: RunStore) -> Plan:
    """What a finished grid lacks to be read: plain fine-tuning with frozen statistics of every model with BatchNorm.

    Moving statistics alone can cost more than fine-tuning does; whether a model has any is known once it was trained.
    """
    lacking, found = Plan(), Resolver(download=False)
    for cell in plan.wanted:
        spec, metrics = cell.spec, cell.metrics
        if spec is None or metrics is None or not metrics["notes"].get("batch_norm.layers"):
            continue
        control = resolve(replace(spec.config, method={}, batch_norm=BatchNorm.frozen), found)
        _add(lacking, store, control, f"{label_of(control)}, batch_norm=frozen", {}, wanted=True)
    lacking.cells = {id: cell for id, cell in lacking.cells.items() if id not in plan.cells}
    return lacking


def label_of(spec: RunSpec) -> str:
    """``mini_small, ewc on imagenet_r, seed 0``."""
    if spec.source is None:
        return f"{spec.start.name}, {spec.method}"
    return f"{spec.start.name}, {spec.method} on {spec.source_name}, seed {spec.config.seed}"


def _add(
    plan: Plan, store: RunStore, spec: RunSpec, label: str, values: Mapping[str, Any], wanted: bool = False
) -> str:
    """Add a cell after what it needs."""
    asked = [part.spec for part in spec.needs if part.spec is not None]
    before = [] if spec.source is None else [spec.of_pretrained()]
    needs = tuple(dict.fromkeys(_add(plan, store, part, label_of(part), {}) for part in (*before, *asked)))
    place = store.run_of(spec)
    suite = [spec.suite, spec.protocol["targets"], spec.protocol["reported"], spec.config.experiment]
    cell_id = digest_of([place.key, suite, spec.score_keys])
    plan.add(Cell(cell_id, label, spec, place, needs, wanted, values))
    return cell_id


def _configs(config: BenchmarkConfig) -> Iterator[tuple[str, dict[str, Any], Config]]:
    """Every cell that the grid asks for: a label, what the axes say, and its config."""
    base = Config(**{f.name: getattr(config, f.name) for f in fields(Config)})
    if base.method:
        raise RibError(f"a grid takes methods=[{', '.join(base.method)}] in the place of +method=")
    whole = {name: getattr(config, name) for name in AXES}
    for entry in config.grids or [{}]:
        if unknown := entry.keys() - set(AXES):
            raise RibError(f"grids: there is no {min(unknown)}; an entry may have {', '.join(AXES)}")
        yield from _product(base, {**whole, **entry})


def _product(base: Config, grid: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], Config]]:
    sources = grid["sources"] if grid["sources"] is not None else base.suite.sources
    axes = _axes(grid["axes"] or {}, base)
    for name, listed in {**{k: grid[k] for k in AXES if k != "axes"}, "sources": sources, **axes}.items():
        if not isinstance(listed, list) or not listed:
            raise RibError(f"{name}: expected a list of at least one value, got {listed!r}")
    used: set[str] = set()
    for model, names in itertools.product(grid["models"], grid["methods"]):
        name, *more = shlex.split(model)
        started = rib.config.override(base, [f"model={name}", *more], f"models: {model}")
        stacked = replace(started, method=ingredients.nodes_of(names, "methods", names))
        here = [axis for axis in axes if not axis.startswith("method.") or axis.split(".")[1] in stacked.method]
        used |= set(here)
        for combination in itertools.product(*(axes[axis] for axis in here)):
            values = dict(zip(here, combination, strict=True))
            one = (
                rib.config.override(stacked, [f"{k}={_spelt(v)}" for k, v in values.items()], "axes")
                if values
                else stacked
            )
            for source, seed in itertools.product(sources, grid["seeds"]):
                cell = replace(one, dataset=replace(one.dataset, name=source), seed=seed)
                said = "".join(f", {axis}={_spelt(value)}" for axis, value in values.items())
                yield f"{cell.model.name}, {names} on {source}, seed {seed}{said}", values, cell
    if lost := axes.keys() - used:
        raise RibError(f"axes: {min(lost)} is an option of no method in methods={grid['methods']}")


def _axes(given: Mapping[str, Any], base: Config) -> dict[str, Any]:
    """The axes of this world: one that is null is none, and one may list its values by the kind of data."""
    kind = "mini" if base.data.root is None else "user"
    found = {}
    for name, listed in given.items():
        if isinstance(listed, Mapping) and set(listed) != {"mini", "user"}:
            each = "one for each kind of data, {mini: [..], user: [..]}"
            raise RibError(f"axes.{name}: expected a list, or {each}, got {dict(listed)}")
        values = listed[kind] if isinstance(listed, Mapping) else listed
        if values is not None:
            found[name] = values
    return found


def _spelt(value: object) -> str:
    """A value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _fishers(cell: Cell) -> Iterator[Sequence[object]]:
    """What a cell's Fisher depends on, if it estimates one: cells of equal facts share it (`rib.runtime.artifacts`)."""
    spec = cell.spec
    if spec is None or spec.source is None or not spec.trains:
        return
    ewc = spec.config.method.get("ewc")
    if ewc and ewc.get("fisher") != "identity":
        yield [
            fisher_key(spec, spec.probe.key if spec.probe else None),
            *(ewc.get(option) for option in ("samples", "seed", "labels")),
        ]
