"""Find the catalog and the root folder of a config's data: the user's, or the built-in mini."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog
from rib.errors import RibError


def find_data(config: Any) -> tuple[Catalog, Path]:
    """The catalog and root folder that a config means: the user's, or mini, drawn on first use.

    Raises:
        RibError: If the root is no folder.
    """
    if config.data.root is None:
        return mini.catalog(), mini.ensure(cache_dir(config.paths.cache))
    root = Path(config.data.root).expanduser()
    if not root.is_dir():
        raise RibError(f"data.root: there is no folder {root}; expected one that holds imagenet-r, imagenet/val, ...")
    return catalogs.real(), root


def cache_dir(given: str | None) -> Path:
    """Where files go that can be made again: ``paths.cache`` (``RIB_CACHE``), else the user's cache."""
    if given is not None:
        return Path(given).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rib"


def catalog_of(kind: str) -> Catalog:
    """The world that metrics.json calls ``mini`` or ``user``."""
    return mini.catalog() if kind == "mini" else catalogs.real()


def title_of(dataset: str, kind: str = "user") -> str:
    """A dataset's name for people."""
    specs = catalog_of(kind).specs
    return specs[dataset].title if dataset in specs else dataset
