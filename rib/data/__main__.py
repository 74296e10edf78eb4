"""``python -m rib.data``: check and view datasets without a model (``action=check``, ``look`` or ``sheet``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import DataCommandConfig
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.errors import RibError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rib.data.catalog import Catalog
    from rib.data.check import DatasetStatus
    from rib.data.tree import ImageTree
    from rib.reporting.layout import FittedTable


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="data")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_config(cfg, DataCommandConfig)
    actions = {"check": check, "look": look, "sheet": sheet}
    if config.action not in actions:
        close = nearest(config.action, actions, "action=")
        raise RibError(f"action: expected one of {', '.join(actions)}, got {config.action!r}{close}")
    actions[config.action](config)


def check(config: DataCommandConfig) -> None:
    """Print a table of the images and classes found and expected in every dataset.

    Raises:
        RibError: After the table, if a dataset is missing, incomplete or wrong.
    """
    from rib.data.check import survey
    from rib.data.worlds import find_data, suffix_of
    from rib.reporting.layout import output

    catalog, root = find_data(config)
    statuses = survey(catalog, root, Path(config.paths.runs) / "datasets", config.data.rescan)
    output().print(status_table(f"Datasets under {root}{suffix_of(catalog.kind)}", statuses))
    wrong = sum(status.fault is not None for status in statuses)
    if wrong:
        raise RibError(f"{wrong} of {len(statuses)} datasets are not complete; the table says what to do for each")


def status_table(title: str, statuses: Sequence[DatasetStatus]) -> FittedTable:
    """Return a table with one row per dataset: images and classes found and expected, and what to do."""
    from rib.data.layout import expected_images
    from rib.reporting.layout import FittedTable

    numbers = ("images", "expected", "classes", "classes expected")
    table = FittedTable(title, words=("dataset",), numbers=numbers, prose=("what to do",))
    for status in statuses:
        expected = expected_images(status.spec)
        classes = (str(status.num_classes), str(len(status.spec.groups)))
        table.add_row(status.spec.title, f"{status.num_images:,}", expected, *classes, status.fault or "")
    return table


def look(config: DataCommandConfig) -> None:
    """Print the path of every damaged JPEG file of the datasets under the data root, and what is wrong with it.

    Raises:
        RibError: After the list, if a file is damaged; or if no dataset is found.
    """
    from rib.data.damage import find_damage

    trees, _ = _scan_all(config)
    damage = find_damage(trees.values(), Path(config.paths.runs) / "datasets", config.data.rescan)
    for file, what in damage.items():
        print(f"{file}: {what}")
    count = sum(map(len, trees.values()))
    if damage:
        raise RibError(f"{len(damage):,} of {count:,} images are damaged; replace them from the archive")
    print(f"none of {count:,} images is damaged")


def sheet(config: DataCommandConfig) -> None:
    """Save example images of the datasets found, one row per dataset, as an image file, and print its path.

    Raises:
        RibError: If no dataset is found, or ``out`` is not an image file name.
    """
    from rib.data.sheet import write_sheet

    trees, catalog = _scan_all(config)
    file = Path(config.out or "contact_sheet.png")
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise RibError(f"out: expected an image file name such as sheet.png, got {config.out!r}")
    print(write_sheet(trees, catalog, file).resolve())


def _scan_all(config: DataCommandConfig) -> tuple[dict[str, ImageTree], Catalog]:
    """Return the images of each dataset under the data root (complete or not) by its name, and the catalog."""
    from rib.data.scan import scan
    from rib.data.worlds import find_data
    from rib.errors import MissingDatasetError

    catalog, root = find_data(config)
    trees = {}
    for name, spec in catalog.specs.items():
        try:
            trees[name] = scan(spec, root, Path(config.paths.runs) / "datasets", config.data.rescan, True)
        except MissingDatasetError:
            continue
    if not trees:
        raise RibError(f"data.root: expected imagenet-r, imagenet/val, ... in {root}, found none of them")
    return trees, catalog


def main() -> None:
    """Run the command ``rib-data``, which is the same as ``python -m rib.data``."""
    launch(_main, "data")


if __name__ == "__main__":
    main()
