"""The user's own code behind a config: which files it is, a digest of what they do, and a copy for the run's folder.

A class that a node names in ``_target_`` is the user's where its file belongs to no installed distribution; what is
installed in editable mode is the user's, too. Its digest is of its file and of every file of the user's that it
imports, directly or not, as syntax trees without docstrings: a comment changes nothing. Imports whose name is computed
while the code runs are not seen; ``method.NAME.version=`` is there to tell such versions apart.

Nothing is imported here but the packages that a module lies in, as finding it demands.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import marshal
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from rib.errors import RibError
from rib.runtime.files import digest_of, write_atomically

OURS = "rib"

INTERACTIVE = ("__main__", "__mp_main__")
"""Modules that no other process can find."""

_seen: dict[str, tuple[bool, str]] = {}
"""By module of the user's: whether it was imported when this process last looked, and the digest of its file then."""


@dataclass(frozen=True)
class UserCode:
    """Files of the user's behind one class.

    Attributes:
        target: The class, ``my_methods.L1SP``.
        files: By module name.
        digest: Of what they do, 16 hex digits.
    """

    target: str
    files: Mapping[str, Path]
    digest: str


def targets(node: object) -> Iterator[str]:
    """Every dotted name that a config node has Hydra import, at any depth."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            yield target
            if target.startswith("hydra.utils.get_") and isinstance(node.get("path"), str):
                yield node["path"]
        for child in node.values():
            yield from targets(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from targets(child)


def user_code(target: str) -> UserCode | None:
    """The user's files behind a dotted name; None where it is of an installed distribution, or of rib itself.

    Raises:
        RibError: If it was defined in a script or a notebook, or its file was changed after this process imported it.
    """
    if target.partition(".")[0] in INTERACTIVE:
        raise RibError(
            f"_target_={target}: expected a class in a file of its own, got one of a script or notebook, which no "
            "other process can find; save it in a .py file and name it FILE.CLASS"
        )
    found = _module_of(target)
    if found is None or not _is_users(found[1]):
        return None
    files = dict(sorted(_with_imports(*found)))
    digests = {name: _digest(file) for name, file in files.items()}
    for name, digest in digests.items():
        _check_unchanged(name, digest, files[name])
        if name not in sys.modules and files[name].suffix == ".py":
            _drop_stale_bytecode(files[name])
    return UserCode(target, files, digest_of(digests))


def copy_code(node: object, folder: Path) -> None:
    """Copy the user's files behind a config into a folder, by the names of their modules."""
    for target in targets(node):
        code = user_code(target)
        for name, file in code.files.items() if code is not None else ():
            package = "/__init__" if file.name == "__init__.py" else ""
            place = folder / f"{name.replace('.', '/')}{package}{file.suffix}"
            write_atomically(place, file.read_bytes())


def installed_versions(node: object) -> dict[str, str]:
    """Versions of the distributions that a config names classes of, rib apart."""
    known = packages_distributions()
    tops = {target.partition(".")[0] for target in targets(node)} - {OURS}
    versions = {}
    for name in sorted(name for top in tops for name in known.get(top, ())):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _module_of(target: str) -> tuple[str, Path] | None:
    """The longest beginning of a dotted name that is a module with a file, and that file."""
    parts = target.split(".")
    if parts[0] == OURS:
        return None
    found = None
    for length in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:length]))
        if spec is None:
            break
        if spec.origin is not None and spec.has_location:
            found = spec.name, Path(spec.origin)
    return found


def _find(name: str) -> ModuleSpec | None:
    """A module's spec, found without importing anything."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that was put together by hand has no spec
        return None
    for i in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[: i + 1]]), list(spec.submodule_search_locations))
    return spec


@lru_cache
def _installed_places() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    names = [*site.getsitepackages(), site.getusersitepackages(), paths["purelib"], paths["platlib"]]
    return tuple(Path(name).resolve() for name in names)


@lru_cache
def _standard_library() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib"))


def _is_users(file: Path) -> bool:
    """Whether a file lies in no folder that installers write to, and not in the standard library."""
    file = file.resolve()
    installed = any(place in file.parents for place in (*_installed_places(), *_standard_library()))
    return not installed and not {"site-packages", "dist-packages"} & set(file.parts)


def _with_imports(name: str, file: Path) -> Iterator[tuple[str, Path]]:
    """A module of the user's and all that it imports of theirs, each once, with the packages that they lie in."""
    waiting, known = [(name, file)], set()
    while waiting:
        name, file = waiting.pop()
        if name in known:
            continue
        known.add(name)
        yield name, file
        wanted = [*_parents(name), *(_imports(name, file) if file.suffix == ".py" else ())]
        for other in (n for imported in wanted for n in (*_parents(imported), imported)):
            spec = None if other in known or other.partition(".")[0] == OURS else _find(other)
            if spec is not None and spec.origin is not None and spec.has_location and _is_users(Path(spec.origin)):
                waiting.append((other, Path(spec.origin)))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _imports(name: str, file: Path) -> Iterator[str]:
    """Dotted names that a file may import: modules, and names in them that may be modules."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    nodes = list(ast.walk(_tree(file)))
    by_name = {"import_module", "__import__"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "importlib":
            by_name |= {alias.asname or alias.name for alias in node.names if alias.name == "import_module"}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in by_name:
                yield from _named(node, ".".join(package))


def _named(call: ast.Call, package: str) -> Iterator[str]:
    """The module that ``import_module("..x", package="y")`` names, where it is written out."""
    given = {"name": call.args[0] if call.args else None, "package": call.args[1] if len(call.args) > 1 else None}
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in given}
    name, of = (node.value if isinstance(node, ast.Constant) else None for node in given.values())
    if isinstance(name, str):
        with suppress(ImportError):  # beyond the top of the package
            yield importlib.util.resolve_name(name, of if isinstance(of, str) else package)


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        raise RibError(f"{file} cannot be read as Python ({error})") from error


def _digest(file: Path) -> str:
    """Of a file's syntax tree without docstrings, or of its bytes where it is no source."""
    if file.suffix != ".py":
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    tree = _tree(file)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _check_unchanged(name: str, digest: str, file: Path) -> None:
    """A module that was edited after it was imported would run as it was, under the key of what it is now."""
    module = sys.modules.get(name)
    imported, first = _seen.get(name, (False, digest))
    if module is not None and imported and first != digest:
        raise RibError(
            f"{file} was changed after this process had imported it, and would run as it was; start a new process "
            "(restart the notebook's kernel; a reload would leave what others imported from it)"
        )
    # A first import comes between two looks: `rib.config.check.arguments` looks again after it.
    _seen[name] = (module is not None, digest)


def _drop_stale_bytecode(file: Path) -> None:
    """Python trusts a .pyc by time and size alone; one that is of another text of the same time and size is removed."""
    try:
        cached = Path(importlib.util.cache_from_source(str(file)))
        content = cached.read_bytes()
        if marshal.loads(content[16:]) != compile(file.read_bytes(), str(file), "exec", dont_inherit=True):
            cached.unlink()
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, NotImplementedError):
        return
