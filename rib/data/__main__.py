"""``python -m rib.data``: look at data without any model (``action=check``, ``action=sheet``)."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from rib.config import checked, conf_dir
from rib.errors import RibError
from rib.launch import launch, quietly
from rib.schema import DataCommandConfig


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="data")
@quietly
def _main(cfg: DictConfig) -> None:
    config = checked(cfg, DataCommandConfig)
    actions = {"check": check, "sheet": sheet}
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

    from rib.asking import find_data
    from rib.data.check import survey

    catalog, root = find_data(config)
    table = Table(title=f"Datasets under {root}", title_justify="left")
    table.add_column("dataset")
    for column in ("images", "expected", "classes", "expected"):
        table.add_column(column, justify="right")
    table.add_column("what to do", overflow="fold")
    found = survey(catalog, root, Path(config.paths.runs) / "datasets", config.data.rescan)
    for entry in found:
        expected = "?" if entry.spec.num_images is None else f"{entry.spec.num_images:,}"
        classes = (str(entry.num_classes), str(len(entry.spec.groups)))
        table.add_row(entry.spec.title, f"{entry.num_images:,}", expected, *classes, entry.fault or "")
    Console(width=None if Console().is_terminal else 160).print(table)
    wrong = sum(entry.fault is not None for entry in found)
    if wrong:
        raise RibError(f"{wrong} of {len(found)} datasets are not complete; see the table")


def sheet(config: DataCommandConfig) -> None:
    """Draw a contact sheet of every dataset that is there.

    Raises:
        RibError: If none is.
    """
    from rib.asking import find_data
    from rib.data.images import MissingDatasetError, scan
    from rib.data.sheet import write_sheet

    catalog, root = find_data(config)
    trees = {}
    for name, spec in catalog.specs.items():
        try:
            trees[name] = scan(spec, root, Path(config.paths.runs) / "datasets", config.data.rescan, True)
        except MissingDatasetError:
            continue
    if not trees:
        raise RibError(f"data.root: expected imagenet-r, imagenet/val, ... in {root}, found none of them")
    file = Path(config.out or "contact_sheet.png")
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise RibError(f"out: expected the name of a picture, like sheet.png, got {config.out!r}")
    print(write_sheet(trees, catalog, file).resolve())


def main() -> None:
    """Entry point of ``rib-data``."""
    launch(_main)


if __name__ == "__main__":
    main()
