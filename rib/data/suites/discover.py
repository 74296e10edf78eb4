"""Find the classes of a suite whose file leaves them out: the class names of all domains, sorted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rib.data.suites.fields import Fields
from rib.data.suites.folder_images import classes_in_folder
from rib.data.suites.glob_images import read_glob, split_pattern
from rib.data.suites.manifest_images import rows_of
from rib.data.suites.suite import SuiteDomain


def discovered_classes(fields: Fields, domains: Mapping[str, SuiteDomain], root: Path) -> list[str]:
    """Return the names of all classes that a suite's domains have images of, sorted.

    Args:
        fields: The suite's file, for messages.
        domains: Its domains.
        root: Its root.

    Raises:
        RibError: If a domain's classes are not found without unpacking it.
    """
    found: set[str] = set()
    for one in domains.values():
        names = _class_names(fields, one, root)
        renamed = one.domain.class_names
        found |= {meant for name in names if (meant := renamed.get(name, name)) is not None}
    return sorted(found)


def _class_names(fields: Fields, one: SuiteDomain, root: Path) -> set[str]:
    place = one.domain.place
    if one.domain.form in ("shards", "python"):
        raise fields.fault(
            "classes",
            f"expected a list of classes, since those of {one.name} are not known before it is unpacked, got none; "
            "write classes: [...]",
        )
    if one.domain.form == "manifest":
        return {label for _, _, label in rows_of(root / place, one.domain.select)}
    folder = root / (place if one.domain.form == "folder" else split_pattern(place)[0])
    if not folder.is_dir():
        return set()  # said when its images are needed
    if one.domain.form == "folder":
        return {*classes_in_folder(folder)}
    return {*read_glob(root, place, one.domain.class_from, one.title).names}
