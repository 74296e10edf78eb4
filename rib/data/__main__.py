"""``python -m rib.data``: check and view datasets without a model, or write the file of a suite of one's own.

The actions are ``check``, ``look``, ``sheet`` and ``init``.
"""

from __future__ import annotations

from dataclasses import replace
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
    from rib.data.suites.found import Found
    from rib.data.tree import ImageTree
    from rib.reporting.layout import FittedTable


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="data")
@one_sentence_errors
def _main(cfg: DictConfig) -> None:
    config = check_config(cfg, DataCommandConfig)
    actions = {"check": check, "look": look, "sheet": sheet, "init": init}
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
    from rib.data.suites.duplicates import shared_images
    from rib.data.worlds import find_data, is_suite, suffix_of
    from rib.reporting.layout import output

    catalog, root = find_data(config)
    statuses = survey(catalog, root, Path(config.paths.runs) / "datasets", config.data.rescan)
    what = "Domains" if is_suite(catalog.kind) else "Datasets"
    output().print(status_table(f"{what} under {root}{suffix_of(catalog.kind)}", statuses))
    for sentence in shared_images([status.tree for status in statuses if status.tree is not None]):
        print(sentence)
    wrong = sum(status.fault is not None for status in statuses)
    if wrong:
        raise RibError(f"{wrong} of {len(statuses)} datasets are not complete; the table says what to do for each")


def status_table(title: str, statuses: Sequence[DatasetStatus]) -> FittedTable:
    """Return a table with one row per dataset: images and classes found and expected, and what to do."""
    from rib.data.layout import expected_images
    from rib.data.suites.scan_domain import named
    from rib.reporting.layout import FittedTable

    numbers = ("images", "expected", "classes", "classes expected")
    prose = ("no image of", "what to do") if any(status.absent for status in statuses) else ("what to do",)
    table = FittedTable(title, words=("dataset",), numbers=numbers, prose=prose)
    for status in statuses:
        expected = expected_images(status.spec)
        classes = (str(status.num_classes), str(len(status.spec.groups)))
        absent = named(status.absent, "class", "classes") if status.absent else ""
        sentences = (absent, status.fault or "")[-len(prose) :]
        table.add_row(status.spec.title, f"{status.num_images:,}", expected, *classes, *sentences)
    return table


def look(config: DataCommandConfig) -> None:
    """Print the path of every damaged file of the datasets under the data root, and what is wrong with it.

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


def init(config: DataCommandConfig) -> None:
    """Write the file of a suite for the images in a folder, and print what was recognised and the next commands.

    Raises:
        RibError: If nothing is recognised in the folder, or the file exists.
    """
    from rib.data.suites.init import init_suite, next_commands
    from rib.reporting.layout import output

    if config.folder is None:
        raise RibError("folder: expected a folder of images, as in python -m rib.data init FOLDER, got none")
    out = None if config.out is None else Path(config.out).expanduser()
    found, file = init_suite(Path(config.folder).expanduser(), out, config.force)
    output().print(found_table(found, file))
    print(next_commands(found, file))


def found_table(found: Found, file: Path) -> FittedTable:
    """Return a table of what ``init`` recognised in a folder, with one row per domain."""
    from rib.data.suites.scan_domain import named
    from rib.data.suites.write_suite import in_words, lacking
    from rib.reporting.layout import FittedTable

    gaps = {name: lacking(found, one) for name, one in found.domains.items()}
    prose = ("no image of",) if any(gaps.values()) else ()
    table = FittedTable(f"{file}: {in_words(found)}", ("domain", "place"), ("images", "classes"), prose)
    for name, one in found.domains.items():
        lacks = [named(gaps[name], "class", "classes") if gaps[name] else ""] if prose else []
        place = next(iter(one.place.values()))
        table.add_row(name, place, f"{sum(one.counts.values()):,}", str(len(one.counts)), *lacks)
    ignored = [f"ignored: {reason}" for reason in found.ignored]
    return replace(table, notes=(*ignored, *(f"please check: {doubt}" for doubt in found.doubts)))


def _scan_all(config: DataCommandConfig) -> tuple[dict[str, ImageTree], Catalog]:
    """Return the images of each dataset under the data root (complete or not) by its name, and the catalog."""
    from rib.data.catalog import HOLDS
    from rib.data.scan import scan
    from rib.data.worlds import find_data, is_suite
    from rib.errors import MissingDatasetError

    catalog, root = find_data(config)
    trees = {}
    for name, spec in catalog.specs.items():
        try:
            trees[name] = scan(spec, root, Path(config.paths.runs) / "datasets", config.data.rescan, True)
        except MissingDatasetError:
            continue
    if not trees:
        expected = "the domains of its file" if is_suite(catalog.kind) else HOLDS
        raise RibError(f"data.root: expected {expected} in {root}, found none of them")
    return trees, catalog


def main() -> None:
    """Run the command ``rib-data``, which is the same as ``python -m rib.data``."""
    launch(_main, "data")


if __name__ == "__main__":
    main()
