"""Find the user's own classes that a config names: their source files, a digest of the code, and a copy for the run.

A class named in ``_target_`` is user code if its file belongs to no installed distribution; packages installed in
editable mode are user code, too. The digest covers its file and all user files that it imports, directly or not, as
syntax trees without docstrings, so that comments do not matter. Imports whose name is computed at run time are not
found; the option ``method.NAME.version`` distinguishes such versions.

The code itself is not imported here, only the packages that contain it, which finding a module requires.
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
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from rib.errors import RibError
from rib.runtime.files import digest_of, write_atomically

OURS = "rib"

INTERACTIVE = ("__main__", "__mp_main__")
"""Modules that other processes cannot import."""

_seen: dict[str, tuple[bool, str]] = {}
"""For each user module, whether it was imported at the last check, and the digest of its file at that time."""


@dataclass(frozen=True)
class UserCode:
    """Source files behind a user's class.

    Attributes:
        target: Dotted name of the class, ``my_methods.L1SP``.
        files: Path of each file by module name.
        digest: Digest of the code, 16 hex digits.
    """

    target: str
    files: Mapping[str, Path]
    digest: str


def targets(node: object) -> Iterator[str]:
    """Yield the dotted names of all classes and functions (``_target_``) in a config, at any depth.

    Args:
        node: Nested dictionaries and lists.
    """
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
    """Find the user's source files that define a class or function, and those that they import.

    Args:
        target: Dotted name of a class or function.

    Returns:
        The files and their digest; None if the name belongs to rib or to an installed distribution.

    Raises:
        RibError: If it is defined in a script or notebook, or its file was changed after this process imported it.
    """
    if target.partition(".")[0] in INTERACTIVE:
        raise RibError(
            f"_target_={target}: expected a class in a file of its own, got one defined in a script or notebook, which "
            "other processes cannot import; save it in a .py file and name it as FILE.CLASS"
        )
    module = _module_of(target)
    if module is None or not _is_users(module[1]):
        return None
    files = dict(sorted(_with_imports(*module)))
    digests = {name: _digest(file) for name, file in files.items()}
    for name, digest in digests.items():
        _check_unchanged(name, digest, files[name])
        if name not in sys.modules and files[name].suffix == ".py":
            _drop_stale_bytecode(files[name])
    return UserCode(target, files, digest_of(digests))


def copy_code(node: object, folder: Path) -> None:
    """Copy the user's files that a config names into a folder, under the names of their modules.

    Args:
        node: Nested dictionaries and lists.
        folder: Destination.
    """
    for target in targets(node):
        code = user_code(target)
        for name, file in code.files.items() if code is not None else ():
            package = "/__init__" if file.name == "__init__.py" else ""
            copy = folder / f"{name.replace('.', '/')}{package}{file.suffix}"
            write_atomically(copy, file.read_bytes())


def installed_versions(node: object) -> dict[str, str]:
    """Return the version of each installed package, other than rib, whose classes a config names."""
    tops = {target.partition(".")[0] for target in targets(node)} - {OURS}
    known = distributions()
    if not tops <= known.keys():  # installed since, in a notebook
        distributions.cache_clear()
        known = distributions()
    versions = {}
    for name in sorted(name for top in tops for name in known.get(top, ())):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def distributions() -> Mapping[str, list[str]]:
    """Return the names of the installed distributions by top-level package; reading them all takes 0.3 s."""
    return packages_distributions()


def _module_of(target: str) -> tuple[str, Path] | None:
    """Return the module that defines a dotted name, ``pkg.mod`` for ``pkg.mod.Class``, and its file."""
    parts = target.split(".")
    if parts[0] == OURS:
        return None
    module = None
    for length in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:length]))
        if spec is None:
            break
        if spec.origin is not None and spec.has_location:
            module = spec.name, Path(spec.origin)
    return module


def _find_spec(name: str) -> ModuleSpec | None:
    """Return a module's spec without importing its parents, as `importlib.util.find_spec` would."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module created at run time has no spec
        return None
    for i in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[: i + 1]]), list(spec.submodule_search_locations))
    return spec


@lru_cache
def _site_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    names = [*site.getsitepackages(), site.getusersitepackages(), paths["purelib"], paths["platlib"]]
    return tuple(Path(name).resolve() for name in names)


@lru_cache
def _standard_library() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib"))


def _is_users(file: Path) -> bool:
    """Return True if a file is user code: outside the standard library and the folders of installed packages."""
    file = file.resolve()
    installed = any(folder in file.parents for folder in (*_site_folders(), *_standard_library()))
    return not installed and not {"site-packages", "dist-packages"} & set(file.parts)


def _with_imports(name: str, file: Path) -> Iterator[tuple[str, Path]]:
    """Yield a user module, all user modules that it imports, directly or not, and their parent packages, each once."""
    pending, visited = [(name, file)], set()
    while pending:
        name, file = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        yield name, file
        imported = [*_parents(name), *(_imports(name, file) if file.suffix == ".py" else ())]
        # `import a.b` also runs a/__init__.py.
        for other in (n for module in imported for n in (*_parents(module), module)):
            spec = None if other in visited or other.partition(".")[0] == OURS else _find_spec(other)
            if spec is not None and spec.origin is not None and spec.has_location and _is_users(Path(spec.origin)):
                pending.append((other, Path(spec.origin)))


def _parents(name: str) -> list[str]:
    """Return the names of the packages that contain a module, outermost first: ``a``, ``a.b`` for ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _imports(name: str, file: Path) -> Iterator[str]:
    """Yield every dotted name in a file's import statements that may be a module."""
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
                yield from _constant_import(node, ".".join(package))


def _constant_import(call: ast.Call, package: str) -> Iterator[str]:
    """Yield the module that ``import_module("..x", package="y")`` imports, if its arguments are constants."""
    nodes = {"name": call.args[0] if call.args else None, "package": call.args[1] if len(call.args) > 1 else None}
    nodes |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in nodes}
    name, anchor = (node.value if isinstance(node, ast.Constant) else None for node in nodes.values())
    if isinstance(name, str):
        with suppress(ImportError):  # more dots than packages around it
            yield importlib.util.resolve_name(name, anchor if isinstance(anchor, str) else package)


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        raise RibError(f"{file} is not valid Python ({error}); correct it and run the command again") from error


def _digest(file: Path) -> str:
    """Return the digest of a file's syntax tree without docstrings, or of its bytes if it is not Python source."""
    if file.suffix != ".py":
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    tree = _tree(file)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    # unparse, since a dump of the tree would hold line numbers.
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _check_unchanged(name: str, digest: str, file: Path) -> None:
    """Raise an error if a module was edited after its import: old code would run, recorded with the new digest."""
    module = sys.modules.get(name)
    imported, first = _seen.get(name, (False, digest))
    if module is not None and imported and first != digest:
        raise RibError(
            f"{file} was changed after this process had imported it, and the old code would run; start a new process "
            "(restart the notebook's kernel; reloading the module leaves old copies in modules that imported from it)"
        )
    # `rib.config.check.arguments` checks before and after the first import; the second check records what was imported.
    _seen[name] = (module is not None, digest)


def _drop_stale_bytecode(file: Path) -> None:
    """Delete a source file's .pyc if it was compiled from other text; Python itself compares only time and size."""
    try:
        cached = Path(importlib.util.cache_from_source(str(file)))
        content = cached.read_bytes()
        # 16 bytes of header (PEP 552). Python would not notice an edit within one second that keeps the file's size.
        if marshal.loads(content[16:]) != compile(file.read_bytes(), str(file), "exec", dont_inherit=True):
            cached.unlink()
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, NotImplementedError):
        return
