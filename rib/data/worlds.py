"""Find the catalog and the root folder of a config's data: the user's datasets or the built-in mini."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rib.data import catalog as catalogs
from rib.data import mini
from rib.data.catalog import Catalog
from rib.errors import RibError


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
        raise RibError(f"data.root: there is no folder {root}; expected one that holds imagenet-r, imagenet/val, ...")
    return catalogs.real(), root


def cache_dir(configured: str | None) -> Path:
    """Return the folder for files that can be regenerated: ``paths.cache`` or ``rib`` in the user's cache folder."""
    if configured is not None:
        return Path(configured).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rib"


def catalog_of(kind: str) -> Catalog:
    """Return the catalog of a kind of data, as recorded in metrics.json: ``mini``, or ``user`` (real ImageNet)."""
    return mini.catalog() if kind == "mini" else catalogs.real()


def title_of(dataset: str, kind: str = "user") -> str:
    """Return a dataset's display name, such as ``ImageNet-R``; names not in the catalog are returned unchanged."""
    specs = catalog_of(kind).specs
    return specs[dataset].title if dataset in specs else dataset
