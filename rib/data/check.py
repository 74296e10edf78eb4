"""What is under a data root, against what the catalog expects: the table of ``python -m rib.data action=check``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rib.data.catalog import Catalog, DatasetSpec
from rib.data.scan import scan
from rib.errors import RibError


@dataclass(frozen=True)
class Found:
    """One dataset as it lies there.

    Attributes:
        spec: What the catalog expects.
        num_images: Images in folders that are classes of it.
        num_classes: Classes with at least one image.
        fault: What was expected, what came and what to do, in one sentence; None where all is well.
    """

    spec: DatasetSpec
    num_images: int
    num_classes: int
    fault: str | None


def survey(catalog: Catalog, root: Path, records: Path | None = None, rescan: bool = False) -> list[Found]:
    """Count the images and classes of every dataset of a world.

    Args:
        catalog: The world.
        root: The data root.
        records: Folder that keeps listings, or None.
        rescan: List folders again although nothing seems changed.

    Returns:
        One entry a dataset, in the catalog's order; those that are not there have no image and a fault.
    """
    return [_look(spec, root, records, rescan) for spec in catalog.specs.values()]


def _look(spec: DatasetSpec, root: Path, records: Path | None, rescan: bool) -> Found:
    fault = None
    try:
        tree = scan(spec, root, records, rescan)
    except RibError as error:
        fault = str(error)
        try:
            tree = scan(spec, root, records, allow_incomplete=True)
        except RibError:
            return Found(spec, 0, 0, fault)
    return Found(spec, len(tree), len(np.unique(tree.labels)), fault)
