"""The functions of ``import rib`` as the front page of the API, then a page for each package with all its modules."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

from generated import keep_only, write
from sphinx.application import Sphinx

import rib


def packages() -> dict[str, list[str]]:
    """Public modules by package: ``{"rib.data": ["rib.data.catalog", ...]}``."""
    found: dict[str, list[str]] = {"rib": []}
    for module in pkgutil.walk_packages(rib.__path__, "rib."):
        if any(part.startswith("_") for part in module.name.split(".")):
            continue
        if module.ispkg:
            found[module.name] = []
        else:
            found[module.name.rpartition(".")[0]].append(module.name)
    return {package: modules for package, modules in found.items() if modules or package == "rib"}


def first_line(module: str) -> str:
    """Return the first line of a module's docstring as Markdown."""
    return first_line_of(importlib.import_module(module))


def first_line_of(documented: object) -> str:
    """Return the first line of an object's docstring as Markdown."""
    text = (inspect.getdoc(documented) or "").partition("\n")[0]
    return text.replace("``", "`").replace("|", "\\|")


def page(package: str, modules: list[str]) -> str:
    """The text of a package's page."""
    parts = [f"# {package}\n\n```{{eval-rst}}\n.. automodule:: {package}\n{options(package)}```\n"]
    parts += [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options(module)}```\n" for module in modules]
    return "\n".join(parts)


def options(module: str) -> str:
    """Options of a module's directive: the functions of rib.api are on the front page, under the names users call."""
    return "   :no-members:\n" if module in ("rib", "rib.api") else ""


def front() -> str:
    """The functions of ``import rib``, with a table of their first lines."""
    names = [name for name in rib._MODULES if inspect.isfunction(getattr(rib, name))]
    rows = "".join(f"| [`rib.{name}`](#rib.{name}) | {first_line_of(getattr(rib, name))} |\n" for name in names)
    functions = "\n".join(f".. autofunction:: rib.{name}" for name in names)
    return f"| function | |\n|---|---|\n{rows}\n{RETURNED}\n\n```{{eval-rst}}\n{functions}\n```\n\n## Packages\n"


RETURNED = (
    "They return objects of [`rib.results`](api/rib.results.md). [From Python](../howto/python.md) shows how to use "
    "them; `rib.RibError` is the class of all errors that you can fix."
)


def index(found: dict[str, list[str]]) -> str:
    """A list of all packages, each with its modules and their first lines."""
    parts = []
    for package, modules in found.items():
        rows = "".join(f"| `{module}` | {first_line(module)} |\n" for module in modules)
        table = f"| module | |\n|---|---|\n{rows}" if rows else ""
        parts.append(f"### [{package}](api/{package}.md)\n\n{first_line(package)}\n\n{table}")
    names = "\n".join(f"api/{package}" for package in found)
    return f"```{{toctree}}\n:hidden:\n\n{names}\n```\n\n" + "\n".join(parts)


def generate(app: Sphinx) -> None:
    """Write the pages before Sphinx looks for its sources."""
    source, found = Path(app.srcdir), packages()
    for package, modules in found.items():
        write(source, f"api/{package}.md", page(package, modules))
    keep_only(source, "api", {f"{package}.md" for package in found})
    write(source, "api_index.md", f"# API\n\n{front()}\n{index(found)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Generate once a build."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
