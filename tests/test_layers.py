"""Layers of the package: a module imports only from lower layers or from its own package."""

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
    ("rib.runtime.requirements",),
    ("rib", "rib.errors"),
    ("rib.schemas",),
    ("rib.runtime",),
    ("rib.config.schema",),
    ("rib.config.command_schema",),
    ("rib.data",),
    ("rib.models", "rib.metrics"),
    ("rib.methods",),
    ("rib.config",),
    ("rib.runs",),
    ("rib.terminal",),
    ("rib.loggers",),
    ("rib.reporting",),
    ("rib.scoring",),
    ("rib.training", "rib.analysis"),
    ("rib.pipeline",),
    ("rib.sweeps",),
    ("rib.studies",),
    ("rib.results",),
    (
        "rib.api",
        "rib.train",
        "rib.benchmark",
        "rib.evaluate",
        "rib.analyze",
        "rib.report",
        "rib.search",
        "rib.pretrain",
        "rib.data.__main__",
        "rib.__main__",
    ),
]
"""From the lowest to the highest; those of one layer do not import one another. A package stands for its modules."""

KNOW_HYDRA = ("rib.config.", "rib.sweeps.multirun")
"""What may know Hydra and OmegaConf besides the commands; ``rib.config`` imports them when they are used."""

COMMANDS = {"train", "benchmark", "evaluate", "analyze", "report", "search", "pretrain"}
TOP = {"__init__", "__main__", "api", "errors", "pipeline", *COMMANDS}
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
    """Return what a module imports, at its top or inside its functions, except for type checking."""
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


@pytest.mark.parametrize("name", [name for name in sorted(modules()) if layer_of(name)[1] != "rib.train"])
def test_hydra_is_reached_through_config_alone(name):
    allowed = name.startswith(KNOW_HYDRA) or layer_of(name)[0] == len(LAYERS) - 1
    known = [" -> ".join(way) for i, way in reached(name).items() if i.partition(".")[0] in ("hydra", "omegaconf")]
    assert allowed or not known, known[0]


# In one process, for its start takes longer than the imports: what brings the library in is printed.
LIGHT = {
    "{'torch', 'hydra', 'omegaconf'} & sys.modules.keys()": (
        *("errors", "runtime.console", "config", "runs.resolve", "reporting.report", "pipeline", "api"),
    ),
    "{'lightning', 'torchmetrics'} & sys.modules.keys()": (
        *("models.weights", "data.labels", "models.classifier", "models.start", "metrics.robustness", "metrics.cka"),
        *("runtime.processes", "sweeps.rescore", "scoring.one_pass", "scoring.in_memory", "models.build"),
    ),
}
"""Modules that have to be light, by an expression for the libraries that they must not bring along."""


@pytest.mark.slow
@pytest.mark.parametrize("brought", LIGHT, ids=["no torch and no hydra", "no lightning"])
def test_importing_these_brings(brought):
    lines = [f"import rib.{name}; {brought} and sys.exit('{name}: %s' % ({brought}))" for name in LIGHT[brought]]
    code = "\n".join(["import sys", *lines])
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_timm_and_open_clip_are_imported_by_models_alone():
    for name in modules():
        if not name.startswith("rib.models."):
            assert not {i.partition(".")[0] for i in imports(name)} & {"timm", "open_clip"}, name


def test_the_top_of_the_package_holds_commands_and_packages():
    files = {file.stem for file in ROOT.glob("*.py")}
    assert files <= TOP, f"{sorted(files - TOP)}: put these into a package"


@pytest.mark.parametrize("package", sorted({name.split(".")[1] for name in modules() if name.count(".") > 1}))
def test_a_package_says_what_it_is_for_and_who_may_import_it(package):
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert text and "import" in text, f"rib/{package}/__init__.py: say what it is for, and what may import it"


def test_files_and_functions_are_short():
    lines = {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    functions = {
        f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for sizes, most, ninth_tenth in ((lines, 350, 250), (functions, 60, 35)):
        assert max(sizes.values()) <= most, {name: size for name, size in sizes.items() if size > most}
        assert sorted(sizes.values())[int(0.9 * len(sizes))] <= ninth_tenth
