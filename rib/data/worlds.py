"""Find the catalog and the root folder of a config's data: the user's datasets or the built-in mini."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog, Kind
from rib.errors import RibError

TOY = "toy data (mini)"
"""Name of the built-in data in titles of tables, figures and dashboards."""


def find_data(config: Any) -> tuple[Catalog, Path]:
    """Return the catalog and root folder of the user's datasets, or of mini, which is drawn on first use.

    Args:
        config: Any command's config with ``data.root`` and ``paths.cache``.

    Returns:
        The catalog, and the folder that holds its datasets.

    Raises:
        RibError: If ``data.root`` is not a folder.
    """
    if config.data.root is None:
        return mini.catalog(), mini.ensure(cache_dir(config.paths.cache))
    root = Path(config.data.root).expanduser()
    if not root.is_dir():
        raise RibError(
            f"data.root: there is no folder {root}; expected one that holds imagenet-r, imagenet/val, ...; for the toy "
            "data that rib draws itself give data.root=mini"
        )
    return catalogs.real(), root


def cache_dir(configured: str | None) -> Path:
    """Return the folder for files that can be regenerated: ``paths.cache`` or ``rib`` in the user's cache folder."""
    if configured:  # an empty RIB_CACHE is unset, and must not fill the working folder
        return Path(configured).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rib"


def kind_of(root: str | None) -> Kind:
    """Return the kind of data of a ``data.root``: ``mini`` if it is None, else ``user``."""
    return "mini" if root is None else "user"


def catalog_of(kind: str) -> Catalog:
    """Return the catalog of a kind of data, as recorded in metrics.json: ``mini``, or ``user`` (real ImageNet)."""
    return mini.catalog() if kind == "mini" else catalogs.real()


def describe_kind(kind: str) -> str:
    """Return a kind of data in words: ``toy data (mini)`` or ``user data``."""
    return TOY if kind == "mini" else "user data"


def logged_name(dataset: str, kind: str) -> str:
    """Return a dataset's name in a dashboard's keys: its own, ``imagenet_r``; on toy data its title, ``mini R``.

    Keys of real results stay what they are, for the panels that were made of them.
    """
    return title_of(dataset, kind) if kind == "mini" else dataset


def suffix_of(kind: str) -> str:
    """Return what to add to a heading that names no data: `` (toy data (mini))`` for mini, nothing for the user's."""
    return f" ({TOY})" if kind == "mini" else ""


def title_of(dataset: str, kind: str = "user") -> str:
    """Return a dataset's display name, such as ``ImageNet-R``; names not in the catalog are returned unchanged."""
    specs = catalog_of(kind).specs
    return specs[dataset].title if dataset in specs else dataset
