"""``python -m rib.data``: see data without any model (``action=check``, ``action=look``, ``action=sheet``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from rib.config.check import check_config
from rib.config.command_schema import DataCommandConfig
from rib.config.launch import launch, one_sentence_errors
from rib.config.shipped import conf_dir
from rib.errors import RibError

if TYPE_CHECKING:
    from rib.data.catalog import Catalog
    from rib.data.tree import ImageTree


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="data")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_config(cfg, DataCommandConfig)
    actions = {"check": check, "look": look, "sheet": sheet}
    if config.action not in actions:
        raise RibError(f"action: expected one of {', '.join(actions)}, got {config.action!r}")
    actions[config.action](config)


def check(config: DataCommandConfig) -> None:
    """Print what was found of every dataset against what is expected.

    Raises:
        RibError: If anything is not as it should be, after the table.
    """
    from rich.console import Console
    from rich.table import Table

    from rib.data.check import survey
    from rib.data.layout import expected_images
    from rib.data.worlds import find_data

    catalog, root = find_data(config)
    table = Table(title=f"Datasets under {root}", title_justify="left")
    table.add_column("dataset")
    for column in ("images", "expected", "classes", "expected"):
        table.add_column(column, justify="right")
    table.add_column("what to do", overflow="fold")
    found = survey(catalog, root, Path(config.paths.runs) / "datasets", config.data.rescan)
    for entry in found:
        expected = expected_images(entry.spec)
        classes = (str(entry.num_classes), str(len(entry.spec.groups)))
        table.add_row(entry.spec.title, f"{entry.num_images:,}", expected, *classes, entry.fault or "")
    Console(width=None if Console().is_terminal else 160).print(table)
    wrong = sum(entry.fault is not None for entry in found)
    if wrong:
        raise RibError(f"{wrong} of {len(found)} datasets are not complete; see the table")


def look(config: DataCommandConfig) -> None:
    """Print every damaged JPEG file of the datasets that are there, and what is wrong with it.

    Raises:
        RibError: If there is one, after the list; or if there is no dataset.
    """
    from rib.data.damage import find_damage as look_at

    trees, _ = _there(config)
    found = look_at(trees.values(), Path(config.paths.runs) / "datasets", config.data.rescan)
    for file, what in found.items():
        print(f"{file}: {what}")
    count = sum(map(len, trees.values()))
    if found:
        raise RibError(f"{len(found):,} of {count:,} images are damaged; replace them from the archive")
    print(f"none of {count:,} images is damaged")


def sheet(config: DataCommandConfig) -> None:
    """Draw a contact sheet of every dataset that is there.

    Raises:
        RibError: If none is.
    """
    from rib.data.sheet import write_sheet

    trees, catalog = _there(config)
    file = Path(config.out or "contact_sheet.png")
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise RibError(f"out: expected the name of a picture, like sheet.png, got {config.out!r}")
    print(write_sheet(trees, catalog, file).resolve())


def _there(config: DataCommandConfig) -> tuple[dict[str, ImageTree], Catalog]:
    """The datasets that are under the root, complete or not, and their world."""
    from rib.data.folders import MissingDatasetError
    from rib.data.scan import scan
    from rib.data.worlds import find_data

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
    """Entry point of ``rib-data``."""
    launch(_main)


if __name__ == "__main__":
    main()
