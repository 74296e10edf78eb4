"""Look at a folder of images, and say what its domains and classes probably are, for ``action=init``.

Recognised, in this order: a manifest (CSV, JSON, ... with path and label), tar shards, and folders in folders. Of
folders it is decided from the number of images in each alone which level is the domain and which the class; whatever is
left out is listed with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rib.data.suites.folder_tree import FolderTree, walk
from rib.data.suites.glob_images import NUMBER, literal
from rib.data.suites.manifest_images import ENDINGS, Manifest, manifest_of
from rib.data.suites.shards import class_names_in
from rib.data.suites.suite_file import clean_name
from rib.errors import RibError
from rib.runtime.counting import plural

SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing", "crossval", "full")
"""Names of folders that hold parts of one domain."""

FEW = 0.1
"""Share of a domain's images that may lie at another depth than the rest, and are then left out."""


@dataclass(frozen=True)
class FoundDomain:
    """A domain that was recognised.

    Attributes:
        title: What it is called on disk.
        place: Its keys in a suite's file: ``{"folder": "photo"}``.
        counts: Images of each class, by name.
    """

    title: str
    place: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass
class Found:
    """What was recognised in a folder.

    Attributes:
        root: Folder that the places are relative to: the given one, or the only one in it.
        layout: How the images lie, in words.
        domains: By name in a suite's file.
        ignored: What was left out, each with the reason.
        doubts: What the user should check.
    """

    root: Path
    layout: str = ""
    domains: dict[str, FoundDomain] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of all classes, sorted."""
        return sorted({name for domain in self.domains.values() for name in domain.counts})

    def add(self, title: str, place: Mapping[str, str], counts: Mapping[str, int]) -> None:
        """Add a domain under a name that a suite's file allows."""
        base = name = clean_name(title) or "domain"
        number = 2
        while name in self.domains:
            name, number = f"{base}_{number}", number + 1
        self.domains[name] = FoundDomain(title, place, dict(sorted(counts.items())))


def inspect_folder(folder: Path) -> Found:
    """Return what the domains and classes in a folder probably are.

    Args:
        folder: The folder.

    Raises:
        RibError: If there is no such folder, or no image of a class in it.
    """
    if not folder.is_dir():
        raise RibError(f"folder: expected a folder of images, found none at {folder}")
    found = Found(folder)
    tree = walk(folder)
    if not (_find_manifests(found, tree) or _find_shards(found, tree)):
        _find_folders(found, tree)
    if not found.domains:
        reasons = f" ({'; '.join(found.ignored[:3])})" if found.ignored else ""
        raise RibError(
            f"folder: expected images in folders DOMAIN/CLASS, a manifest with path and label, or tar shards in "
            f"{folder}, found none{reasons}"
        )
    _doubt(found)
    return found


def _find_manifests(found: Found, tree: FolderTree) -> bool:
    """Take the manifests directly in the folder, if there are some whose images exist."""
    for name in tree.other_files:
        if not name.lower().endswith(ENDINGS):
            continue
        with suppress(RibError):  # any other table or JSON file
            manifest = manifest_of(found.root / name)
            if manifest.paths and (found.root / manifest.paths[0]).is_file():
                _add_manifest(found, name, manifest)
    if found.domains:
        found.layout = "rows of a manifest"
        found.ignored += [f"{name}/ (read through the manifest alone)" for name in tree.children]
    return bool(found.domains)


def _add_manifest(found: Found, name: str, manifest: Manifest) -> None:
    if manifest.domains is None:
        found.add(name.rpartition(".")[0], {"manifest": name}, Counter(manifest.labels))
        return
    for domain in dict.fromkeys(manifest.domains):
        labels = (label for label, own in zip(manifest.labels, manifest.domains, strict=True) if own == domain)
        found.add(domain, {"manifest": name, "domain": domain}, Counter(labels))


def _find_shards(found: Found, tree: FolderTree) -> bool:
    """Take tar shards: those of each folder, or those directly here by the name before their number."""
    if tree.images_below:
        return False
    groups: dict[str, tuple[str, str]] = {}
    for name in _shards(tree.other_files):
        title = NUMBER.sub("", name.partition(".")[0]) or found.root.name
        groups[title] = (f"{literal(title)}*.tar*", title)
    for child in tree.children.values():
        if _shards(child.other_files):
            groups[child.name] = (f"{literal(child.name)}/*.tar*", child.name)
    for title, (pattern, _) in groups.items():
        files = sorted(found.root.glob(pattern))
        found.add(title, {"shards": pattern}, Counter(class_names_in(files, title)))
    found.layout = "tar shards of key.jpg and key.cls"
    return bool(groups)


def _shards(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.lower().endswith((".tar", ".tar.gz", ".tgz"))]


def _find_folders(found: Found, tree: FolderTree) -> None:
    """Decide which level of folders is the domain and which the class."""
    tree = _descend(found, tree)
    _ignore_files(found, tree)
    used = {child.name: child for child in tree.children.values() if child.images_below}
    found.ignored += [f"{name}/ (holds no image)" for name in tree.children if name not in used]
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
    while len(tree.used) == 1 and not tree.images and not tree.used[0].images:
        tree = tree.used[0]
        place = f"{place}/{tree.name}"
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


def _ignore_files(found: Found, tree: FolderTree) -> None:
    if files := tree.other_files_below():
        more = ", ..." if len(files) > 3 else ""
        found.ignored.append(f"{plural(len(files), 'other file')} ({', '.join(files[:3])}{more})")


def _doubt(found: Found) -> None:
    if len(found.domains) == 1:
        found.doubts.append("there is one domain; RI needs at least two, one to fine-tune on and another to score")
    several = [name for name in found.classes if sum(name in one.counts for one in found.domains.values()) > 1]
    if len(found.domains) > 1 and not several:
        found.doubts.append(
            "no class is in two domains; if these folders are groups of classes of one domain, correct domains"
        )
    if len(found.classes) < 2:
        found.doubts.append("there is one class; a suite needs at least two")
