"""Decide from the number of images in each folder alone which level of folders is the domain and which the class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rib.data.suites.folder_tree import FolderTree
from rib.data.suites.found import Found
from rib.data.suites.glob_images import literal
from rib.runtime.counting import plural

FULL = "full"
"""Name of a folder that holds all images of a domain beside its parts train, test, ... (VLCS)."""

SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing", "crossval", FULL)
"""Names of folders that hold parts of one domain."""

FEW = 0.1
"""Share of a domain's images that may lie at another depth than the rest, and are then left out."""


def find_folders(found: Found, tree: FolderTree) -> None:
    """Add the domains that are folders of class folders, in whatever order they lie, and what is left out.

    Args:
        found: What has been recognised; domains are added, and its root may go down to the only folder with images.
        tree: The images in its root.
    """
    tree = _descend(found, tree)
    _ignore_files(found, tree)
    used = {child.name: child for child in tree.children.values() if child.images_below}
    _ignore_empty(found, tree)
    if used and all(name.lower() in SPLITS for name in used):
        _find_below_splits(found, tree, used)
        return
    nested = [child for child in used.values() if child.images_below > 2 * child.images]
    if sum(child.images_below for child in nested) * 2 > tree.images_below:
        found.layout = "folders DOMAIN/CLASS"
        for child in used.values():
            if child in nested:
                _add_nested(found, child)
            else:
                found.ignored.append(f"{child.name}/ ({plural(child.images, 'image')} without class folders)")
    elif used and _named_by_class(used.values()):
        found.layout = "folders DOMAIN with the class in the files' names"
        for child in used.values():
            found.add(child.name, {"glob": f"{literal(child.name)}/*", "class_from": "stem"}, child.stems)
    elif used:
        found.layout = "folders CLASS of one domain"
        found.add(found.root.resolve().name, {"folder": "."}, {name: child.images for name, child in used.items()})
        _ignore_deeper(found, used.values())
    elif len(tree.stems) > 1:
        found.layout = "files of one domain with the class in their names"
        found.add(found.root.resolve().name, {"glob": "*", "class_from": "stem"}, tree.stems)
        return
    if tree.images:
        found.ignored.append(f"{plural(tree.images, 'image')} directly in {found.root.name}/ (in no folder of a class)")


def _descend(found: Found, tree: FolderTree) -> FolderTree:
    """Go down to the only folder with images while there must be two more levels below it."""
    while True:
        used = [child for child in tree.children.values() if child.images_below]
        if tree.images or len(used) != 1 or used[0].images or used[0].name.lower() in SPLITS:
            return tree
        inner = [child for child in used[0].children.values() if child.images_below]
        if any(child.images for child in inner) or all(child.name.lower() in SPLITS for child in inner):
            return tree
        _ignore_empty(found, tree)
        _ignore_files(found, replace(tree, children={}))
        tree = used[0]
        found.root = found.root / tree.name


def _find_below_splits(found: Found, tree: FolderTree, splits: Mapping[str, FolderTree]) -> None:
    """Take the domains, or the one domain, of a folder whose own folders are train, test, ...."""
    names = ", ".join(splits)
    if all(grandchild.images for split in splits.values() for grandchild in split.used):
        found.layout = f"folders CLASS of one domain in {names}"
        counts: Counter[str] = Counter()
        for split in splits.values():
            counts.update({child.name: child.images for child in split.used})
        found.add(found.root.resolve().name, {"glob": "*/*/*", "class_from": "parent"}, counts)
        return
    found.layout = f"folders DOMAIN/CLASS in {names}"
    by_domain: dict[str, Counter[str]] = {}
    for split in splits.values():
        for domain in split.used:
            by_domain.setdefault(domain.name, Counter()).update({one.name: one.images for one in domain.used})
    for name, counts in by_domain.items():
        found.add(name, {"glob": f"*/{literal(name)}/*/*", "class_from": "parent"}, +counts)


def _add_nested(found: Found, top: FolderTree) -> None:
    """Add a domain whose classes are folders, directly or below further folders (images/, train/ and test/)."""
    place, tree = top.name, top
    while not tree.images and (only := _only(tree)) and not only.images:
        found.ignored += [f"{place}/{one.name}/ (parts of {place}/{FULL}/)" for one in tree.used if one is not only]
        tree, place = only, f"{place}/{only.name}"
    _ignore_empty(found, tree, f"{place}/")
    direct = {child.name: child.images for child in tree.used if child.images}
    if sum(direct.values()) >= (1 - FEW) * tree.images_below:
        found.add(top.name, {"folder": place}, direct)
        _ignore_deeper(found, tree.used, f"{place}/")
        if tree.images:
            found.ignored.append(f"{plural(tree.images, 'image')} directly in {place}/ (in no folder of a class)")
        return
    parents = [(child.name, inner.name, inner.images) for child in tree.used for inner in child.used]
    below: Counter[str] = Counter()
    for _, name, images in parents:
        below[name] += images
    splits = all(child.name.lower() in SPLITS for child in tree.used)
    if splits or len(below) < len(parents):  # the same class folders in train/ and in test/
        found.add(top.name, {"glob": f"{literal(place)}/**/*", "class_from": "parent"}, tree.by_parent())
    else:
        expression = f"^{re.escape(place)}/(?P<class>[^/]+)/"
        found.add(
            top.name,
            {"glob": f"{literal(place)}/*/**/*", "class_from": expression},
            {child.name: child.images_below for child in tree.used},
        )


def _only(tree: FolderTree) -> FolderTree | None:
    """Return the only folder with images in a folder, or `FULL` beside train/ and test/, whose images it has too."""
    names = {child.name: child for child in tree.used}
    if FULL in names and all(name.lower() in SPLITS for name in names):
        return names[FULL]
    return tree.used[0] if len(names) == 1 else None


def _named_by_class(folders: Iterable[FolderTree]) -> bool:
    """Return True if the files of each of several folders are named after the same classes (dog_1.jpg)."""
    stems = [{*folder.stems} for folder in folders]
    if len(stems) < 2 or any(len(names) < 2 or "" in names for names in stems):
        return False
    return 2 * len(set.intersection(*stems)) >= len(set.union(*stems))


def _ignore_deeper(found: Found, folders: Iterable[FolderTree], where: str = "") -> None:
    for folder in folders:
        if deeper := folder.images_below - folder.images:
            found.ignored.append(f"{plural(deeper, 'image')} in folders below {where}{folder.name}/ (below a class)")


def _ignore_empty(found: Found, tree: FolderTree, where: str = "") -> None:
    found.ignored += [f"{where}{name}/ (holds no image)" for name, one in tree.children.items() if not one.images_below]


def _ignore_files(found: Found, tree: FolderTree) -> None:
    if files := tree.other_files_below():
        more = ", ..." if len(files) > 3 else ""
        found.ignored.append(f"{plural(len(files), 'other file')} ({', '.join(files[:3])}{more})")
