"""The layers of the design: mains -> pipeline -> module, methods, store -> data, models, metrics, weights."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rib

ROOT = Path(rib.__file__).parent
MAINS = {"train", "analyze", "report", "search", "benchmark", "evaluate", "pretrain", "data.__main__"}
HYDRA = MAINS | {"config", "commands", "launch", "sweep"}
LAYER = {
    **dict.fromkeys(("data", "models", "metrics", "weights"), 0),
    **dict.fromkeys(("methods", "module"), 1),
    **dict.fromkeys(("results", "recipe", "question", "asking", "store"), 2),
    "pipeline": 3,
    "analysis": 3,
}


def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Everything a module imports, at its top or inside its functions, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_mains_and_config_know_hydra(name):
    known = {i.partition(".")[0] for i in imports(modules()[name])}
    assert name in HYDRA or not known & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_imports_a_layer_above_its_own(name):
    mine = LAYER.get(name, LAYER.get(name.partition(".")[0]))
    if mine is None or name in MAINS:
        return
    for imported in imports(modules()[name]):
        part = imported.removeprefix("rib.").partition(".")[0] if imported.startswith("rib.") else ""
        allowed = part == "module" and name.startswith("methods")  # type annotations of the callbacks' hooks
        assert allowed or LAYER.get(part, -1) <= mine, f"{name} imports {imported}"


@pytest.mark.parametrize(
    "name", ["weights", "data.labels", "models.classifier", "models.zoo", "metrics.robustness", "metrics.cka"]
)
def test_these_import_no_lightning(name):
    code = f"import sys, rib.{name}; sys.exit(any(m.startswith('lightning.pytorch') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["question", "asking", "store", "results", "tables", "config", "pipeline", "analysis"])
def test_these_import_no_torch(name):
    code = f"import sys, rib.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_no_module_outside_models_imports_timm_or_open_clip():
    for name, path in modules().items():
        if not name.startswith("models."):
            assert not {i.partition(".")[0] for i in imports(path)} & {"timm", "open_clip"}, name
