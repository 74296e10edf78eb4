"""Find the catalog and the root folder of a config's data: ImageNet's datasets, the built-in mini, or a user's suite.

What was computed on a suite is read without its file: metrics.json records titles and classes, and `register_recorded`
makes them known to `catalog_of` and `title_of` for the rest of the process.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog, Kind
from rib.errors import RibError

if TYPE_CHECKING:
    from rib.data.suites.suite import Suite
    from rib.schemas.metrics import DataInfo, SuiteInfo

_suites: dict[str, Catalog] = {}
"""Catalogs of the suites that this process has loaded or read about, by name."""

TOY = "toy data (mini)"
"""Name of the built-in data in titles of tables, figures and dashboards."""


def find_data(config: Any) -> tuple[Catalog, Path]:
    """Return the catalog and root folder of a suite, of ImageNet's datasets, or of mini, which is drawn on first use.

    Args:
        config: Any command's config with ``data``, ``head`` and ``paths.cache``.

    Returns:
        The catalog, and the folder that holds its datasets.

    Raises:
        RibError: If ``data.root`` is not a folder, or the file of a suite is invalid.
    """
    if config.data.suite is not None:
        from rib.data.suites.suite_file import load_suite

        suite = load_suite(config.data.suite)
        head = getattr(config, "head", None)  # rib.data looks at images without a model
        catalog = suite.catalog(head and head.kind, cache_dir(config.paths.cache))
        register(catalog)
        return catalog, _folder(config.data.root or str(suite.root))
    if config.data.root is None:
        return mini.catalog(), mini.ensure(cache_dir(config.paths.cache))
    return catalogs.real(), _folder(
        config.data.root,
        f"expected one that holds {catalogs.HOLDS}; for the toy data that rib draws itself give data.root=mini",
    )


def _folder(root: str, expected: str = "expected the folder that holds the suite's domains") -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise RibError(f"data.root: there is no folder {folder}; {expected}")
    return folder


def cache_dir(configured: str | None) -> Path:
    """Return the folder for files that can be regenerated: ``paths.cache`` or ``rib`` in the user's cache folder."""
    if configured:  # an empty RIB_CACHE is unset, and must not fill the working folder
        return Path(configured).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rib"


def kind_of(root: str | None, suite: str | None = None) -> Kind:
    """Return the kind of data of a ``data.root`` and a suite file: ``mini``, ``user``, or the suite's name.

    Args:
        root: ``data.root``.
        suite: ``data.suite``, the file of a user's suite.

    Raises:
        RibError: If the suite's file is invalid.
    """
    if suite is not None:
        return open_suite(suite).name
    return "mini" if root is None else "user"


def open_suite(file: str | Path) -> Suite:
    """Read the file of a user's suite, and make the suite known to `catalog_of` and `title_of`.

    Raises:
        RibError: If there is no such file, or it is invalid.
    """
    from rib.data.suites.suite_file import load_suite

    suite = load_suite(file)
    if suite.name not in _suites:
        register(suite.catalog())
    return suite


def catalog_of(kind: str) -> Catalog:
    """Return the catalog of a kind of data, as recorded in metrics.json: ``mini``, ``user`` or the name of a suite.

    Raises:
        RibError: If it is a suite that this process has neither loaded nor read about.
    """
    if kind in ("mini", "user"):
        return mini.catalog() if kind == "mini" else catalogs.real()
    if kind not in _suites:
        raise RibError(f"suite: expected the file of the suite {kind}, got none; give suite={kind}.yaml")
    return _suites[kind]


def register(catalog: Catalog) -> None:
    """Make the catalog of a suite known to `catalog_of` and `title_of`; it replaces what was known under its name."""
    _suites[catalog.kind] = catalog


def register_recorded(kind: str, recorded: SuiteInfo) -> None:
    """Make a suite known from what metrics.json records of it; of a suite that is known, only add its datasets.

    Args:
        kind: The suite's name.
        recorded: ``data.suite`` of metrics.json.
    """
    from rib.data.suites.recorded import recorded_catalog

    found = recorded_catalog(kind, recorded)
    known = _suites.get(kind)
    _suites[kind] = found if known is None else replace(known, specs={**found.specs, **known.specs})


def catalog_of_run(data: DataInfo) -> Catalog:
    """Return the catalog that a run was scored with: of a suite as recorded, whose file may have changed since.

    Args:
        data: ``data`` of the run's metrics.json.
    """
    from rib.data.suites.recorded import recorded_catalog

    suite = data.get("suite")
    return catalog_of(data["kind"]) if suite is None else recorded_catalog(data["kind"], suite)


def recipe_of(kind: str) -> Literal["mini", "user"]:
    """Return whose default settings a kind of data has: ``mini`` for the toy data, else ``user`` (real data's)."""
    return "mini" if kind == "mini" else "user"


def describe_kind(kind: str) -> str:
    """Return a kind of data in words: ``toy data (mini)``, ``user data`` (ImageNet's), or the title of a suite."""
    if kind in _suites:
        return _suites[kind].title or kind
    return TOY if kind == "mini" else "user data"


def logged_name(dataset: str, kind: str) -> str:
    """Return a dataset's name in a dashboard's keys: its own, ``imagenet_r``; on toy data its title, ``mini R``.

    A domain of a user's suite is named with its suite, ``pets photo``, as another suite may have one of the same name.
    Keys of ImageNet's results stay what they are, for the panels that were made of them.
    """
    if kind == "mini":
        return title_of(dataset, kind)
    return f"{kind} {dataset}" if is_suite(kind) else dataset


def is_suite(kind: str) -> bool:
    """Return True if a kind of data is a suite of the user's own, neither ImageNet's datasets nor the toy data."""
    return kind not in ("mini", "user")


def suffix_of(kind: str) -> str:
    """Return what to add to a heading without data: `` (toy data (mini))``, a suite's title; nothing for ImageNet.

    Args:
        kind: Kind of data.
    """
    return "" if kind == "user" else f" ({describe_kind(kind)})"


def title_of(dataset: str, kind: str = "user") -> str:
    """Return a dataset's display name, such as ``ImageNet-R``; names not in the catalog are returned unchanged."""
    specs = catalog_of(kind).specs if _is_known(kind) else {}
    return specs[dataset].title if dataset in specs else dataset


def place_of(dataset: str, kind: str) -> tuple[int, str]:
    """Return what sorts datasets in figures: the order of a user's suite; ImageNet's and the toy data are by name."""
    order = list(catalog_of(kind).specs) if is_suite(kind) and _is_known(kind) else []
    return (order.index(dataset) if dataset in order else len(order)), dataset


def short_title(dataset: str, kind: str) -> str:
    """Return a dataset's display name without what goes without saying in a table: ``R`` for ``ImageNet-R``."""
    prefix = catalog_of(kind).prefix if _is_known(kind) else ""
    return title_of(dataset, kind).removeprefix(f"{prefix}-") if prefix else title_of(dataset, kind)


def shortened(text: str) -> str:
    """Return a text with the titles of datasets shortened: ``R`` for ``ImageNet-R``, ``val`` for ``ImageNet val``."""
    return re.sub(rf"\b{catalogs.real().prefix}[- ](?=\w)", "", text)


def in_distribution_of(kind: str) -> str | None:
    """Return the dataset whose accuracy is shown beside RI and is never part of it; None if the suite has none.

    Args:
        kind: Kind of data, as in metrics.json.
    """
    return catalog_of(kind).in_distribution if _is_known(kind) else None


def _is_known(kind: str) -> bool:
    return not is_suite(kind) or kind in _suites
