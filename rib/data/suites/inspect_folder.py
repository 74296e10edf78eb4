"""Look at a folder of images, and say what its domains and classes probably are, for ``action=init``.

Recognised, in this order: a manifest (CSV, JSON, ... with path and label), tar shards, and folders in folders. Whatever
is left out is listed with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rib.data.suites.folder_layouts import find_folders
from rib.data.suites.folder_tree import FolderTree, walk
from rib.data.suites.found import Found
from rib.data.suites.glob_images import NUMBER, literal
from rib.data.suites.manifest_images import ENDINGS, Manifest, manifest_of
from rib.data.suites.shards import class_names_in
from rib.errors import RibError


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
        find_folders(found, tree)
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
