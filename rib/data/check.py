"""Compare the files under a data root with the catalog, for the table of ``python -m rib.data action=check``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rib.data.catalog import Catalog, DatasetSpec
from rib.data.scan import scan
from rib.data.suites.scan_domain import absent_classes
from rib.data.tree import ImageTree
from rib.errors import RibError


@dataclass(frozen=True)
class DatasetStatus:
    """Images and classes of one dataset that are on disk, and what is wrong with them.

    Attributes:
        spec: The dataset's catalog entry.
        num_images: Images in the dataset's class folders.
        num_classes: Classes with at least one image.
        fault: One sentence saying what was expected, what was found and what to do; None if the dataset is complete.
        tree: Its images, or None if they cannot be used.
    """

    spec: DatasetSpec
    num_images: int
    num_classes: int
    fault: str | None
    tree: ImageTree | None = None

    @property
    def absent(self) -> list[str]:
        """Classes of a user's suite that the domain has no image of; empty for other datasets."""
        return [] if self.tree is None or self.spec.domain is None else absent_classes(self.spec, self.tree.labels)


def survey(catalog: Catalog, root: Path, records: Path | None = None, rescan: bool = False) -> list[DatasetStatus]:
    """Count the images and classes of every dataset in a catalog.

    Args:
        catalog: The datasets to look for.
        root: The data root.
        records: Folder for saved folder listings, or None to save none.
        rescan: List all folders again, even if they look unchanged.

    Returns:
        One entry per dataset, in the catalog's order; a missing dataset has 0 images and a fault.
    """
    return [_check_dataset(spec, root, records, rescan) for spec in catalog.specs.values()]


def _check_dataset(spec: DatasetSpec, root: Path, records: Path | None, rescan: bool) -> DatasetStatus:
    fault = None
    try:
        tree = scan(spec, root, records, rescan)
    except RibError as error:
        fault = str(error)
        try:
            # The strict scan stops at the first fault; this one counts what can be used all the same.
            tree = scan(spec, root, records, allow_incomplete=True)
        except RibError:
            return DatasetStatus(spec, 0, 0, fault)
    return DatasetStatus(spec, len(tree), len(np.unique(tree.labels)), fault, tree)
