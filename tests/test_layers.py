"""Layers of the package: a module imports only what stands in a layer below its own, or its own package."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import rib

ROOT = Path(rib.__file__).parent

LAYERS: list[tuple[str, ...]] = [
    ("rib", "rib.errors"),
    ("rib.runtime",),
    ("rib.config.schema", "rib.config.command_schema"),
    ("rib.data",),
    ("rib.models", "rib.metrics"),
    ("rib.methods",),
    ("rib.config",),
    ("rib.runs",),
    ("rib.loggers",),
    ("rib.reporting",),
    ("rib.scoring",),
    ("rib.training", "rib.analysis"),
    ("rib.pipeline",),
    ("rib.sweeps",),
    ("rib.studies",),
    (
        "rib.train",
        "rib.benchmark",
        "rib.evaluate",
        "rib.analyze",
        "rib.report",
        "rib.search",
        "rib.pretrain",
        "rib.data.__main__",
    ),
]
"""From the lowest to the highest; those of one layer do not import one another. A package stands for its modules."""

WITHOUT_HYDRA = ["errors", "runtime", "config.schema", "config.command_schema", "data", "models", "metrics", "methods"]
WITHOUT_HYDRA += ["reporting", "scoring", "training"]
"""What never reaches Hydra or OmegaConf but through `rib.config`."""

TOP = {"pipeline", "errors", "py.typed", "__init__", "train", "benchmark", "evaluate", "analyze", "report", "search"}
TOP |= {"pretrain"}
"""What lies at the top of the package besides packages."""


@cache
def modules() -> dict[str, Path]:
    """Every module of rib by its dotted name."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ["rib", *file.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """What a module imports, at its top or inside its functions, but for type checking; and the packages of these."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name}: relative import"
            found.update(
                one if (one := f"{node.module}.{alias.name}") in modules() else node.module for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(modules()[name].read_text()))
    return frozenset(found - {name})


def layer_of(name: str) -> tuple[int, str]:
    """The layer of a module, and the entry of `LAYERS` that it stands under: the longest that begins its name."""
    found = [
        (len(entry), number, entry)
        for number, layer in enumerate(LAYERS)
        for entry in layer
        if name == entry or (entry != "rib" and name.startswith(f"{entry}."))
    ]
    assert found, f"{name} is in no layer: add it to LAYERS"
    _, number, entry = max(found)
    return number, entry


def reached(name: str) -> dict[str, tuple[str, ...]]:
    """Everything that a module imports, however indirectly, with the way there."""
    ways = {name: (name,)}
    todo = [name]
    while todo:
        here = todo.pop()
        for imported in sorted(imports(here)) if here in modules() else ():
            if imported not in ways:
                ways[imported] = (*ways[here], imported)
                todo.append(imported)
    return ways


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_lower_layers_and_its_own_package(name):
    mine, entry = layer_of(name)
    for imported in imports(name) & modules().keys():
        other, theirs = layer_of(imported)
        assert other < mine or theirs == entry, f"{name} imports {imported}, which stands no lower"


def test_no_circle_of_imports():
    state: dict[str, str] = {}

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert state.get(name) != "open", f"circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name in state:
            return
        state[name] = "open"
        for imported in sorted(imports(name) & modules().keys()):
            visit(imported, (*way, name))
        state[name] = "done"

    for name in sorted(modules()):
        visit(name, ())


@pytest.mark.parametrize("package", WITHOUT_HYDRA)
def test_hydra_is_not_reached_from(package):
    for name in modules():
        if name == f"rib.{package}" or (name.startswith(f"rib.{package}.") and name != "rib.data.__main__"):
            ways = {}
            todo = [(name, (name,))]
            while todo:
                here, way = todo.pop()
                if here in ways or (here.startswith("rib.config.") and "schema" not in here):
                    continue
                ways[here] = way
                todo += [(i, (*way, i)) for i in (imports(here) if here in modules() else ())]
            known = [" -> ".join(way) for i, way in ways.items() if i.partition(".")[0] in ("hydra", "omegaconf")]
            assert not known, known[0]
