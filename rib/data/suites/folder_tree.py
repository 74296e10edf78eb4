"""Count the images in each folder below one, to recognise domains and classes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rib.data.suites.glob_images import NUMBER
from rib.data.suites.images import is_image
from rib.errors import RibError
from rib.runtime.progress import activity

JUNK = ("thumbs.db", "desktop.ini")
"""Files of operating systems, which are not worth a word."""


@dataclass
class FolderTree:
    """A folder and the folders below it.

    Attributes:
        name: Its name.
        images: Images directly in it.
        stems: Images directly in it by their name without suffix and number.
        other_files: Names of the other files directly in it, sorted; none of hidden ones.
        children: Its folders by name, sorted.
    """

    name: str
    images: int = 0
    stems: Counter[str] = field(default_factory=Counter)
    other_files: list[str] = field(default_factory=list)
    children: dict[str, FolderTree] = field(default_factory=dict)

    @cached_property
    def images_below(self) -> int:
        """Images in it and in all folders below it."""
        return self.images + sum(child.images_below for child in self.children.values())

    @property
    def used(self) -> list[FolderTree]:
        """Its folders that hold images, or have some below."""
        return [child for child in self.children.values() if child.images_below]

    def by_parent(self) -> Counter[str]:
        """Return the number of images in folders below, by the name of the folder that they lie in."""
        counts: Counter[str] = Counter()
        for child in self.used:
            if child.images:
                counts[child.name] += child.images
            counts.update(child.by_parent())
        return counts

    def other_files_below(self, where: str = "") -> list[str]:
        """Return the paths of all files in it and below that are no images."""
        own = [f"{where}{name}" for name in self.other_files]
        return own + [
            file for child in self.children.values() for file in child.other_files_below(f"{where}{child.name}/")
        ]


def walk(folder: Path) -> FolderTree:
    """Count the images in a folder and in all folders below it; hidden files and folders are left out.

    Args:
        folder: The folder.
    """
    with activity(f"looking at {folder}"):
        return _walk(folder, folder.resolve().name, frozenset())


def _walk(folder: Path, name: str, above: frozenset[str]) -> FolderTree:
    tree = FolderTree(name)
    above = above | {str(folder.resolve())}
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RibError(f"{folder} cannot be read ({error.strerror}); change its permissions or move it away") from error
    for entry in ordered:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            if str(Path(entry.path).resolve()) not in above:  # a link to a folder above would never end
                tree.children[entry.name] = _walk(Path(entry.path), entry.name, above)
        elif is_image(entry.name):
            tree.images += 1
            tree.stems[NUMBER.sub("", entry.name.rpartition(".")[0])] += 1
        elif entry.name.lower() not in JUNK and not entry.name.endswith(".yaml"):  # a suite's own file
            tree.other_files.append(entry.name)
    return tree
