"""Check a dataset's folders for two kinds of fault: incomplete data, and wrong images or labels.

``data.allow_incomplete`` accepts the first kind. The second is always refused: images that are not part of the
release, class numbers that count from one, labels in another order, or another dataset with the same class folders
(ImageNet-V2's three variants, Stylized-ImageNet). Does not import torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rib.data import catalog
from rib.data.catalog import DatasetSpec
from rib.data.folders import VAL_NUMBER, class_name
from rib.data.listing import ARCHIVES, FLAT, Listing, subfolders
from rib.runtime.content import Ints

GENERIC = ("val", "train", "sketch")
"""Folder names that do not identify a dataset by themselves: any dataset may keep its images under one of them."""


def wrong_images_fault(
    spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int], paths: Sequence[str], labels: Ints
) -> str | None:
    """Return the fault if images are another dataset's or have wrong labels, else None; no run may use such images.

    Args:
        spec: The dataset's catalog entry.
        folder: The dataset's folder.
        listing: All images in the folder.
        known: Label of each class folder.
        paths: Paths of the N images in class folders.
        labels: Labels of these images, shape (N,).

    Returns:
        One sentence on what is wrong and what to do, or None.
    """
    if title := _other_dataset_at(spec, folder):
        return f"{spec.title}: {folder} is {title}, another set of images; put those of {spec.title} there"
    return (
        _numbering_fault(spec, folder, listing)
        or _foreign_class_fault(spec, folder, listing, known)
        or _surplus_fault(spec, folder, listing, labels)
        or _label_order_fault(spec, folder, paths, labels)
    )


def layout_fault(
    spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int], other_folders: set[str] | None
) -> str | None:
    """Check that class folders lie directly in the dataset's folder, and that no folder has an unknown name.

    Args:
        spec: The dataset's catalog entry.
        folder: The dataset's folder.
        listing: All images in the folder.
        known: Label of each class folder.
        other_folders: Folders that belong to the release but are not a class here; None: any other folder may.

    Returns:
        One sentence on what is wrong and what to do, or None.
    """
    names = _names(spec, listing)
    if not names.keys() & known.keys() and spec.rule != "corruption":
        inner = [n for n in names.values() if any(class_name(spec, s) in known for s in subfolders(folder / n))]
        own = [name for name in inner if not _is_other_dataset(spec, name)]
        if own:
            return f"{spec.title}: expected class folders in {folder}, found them in {folder / own[0]}; move them up"
        if inner:
            return (
                f"{spec.title}: expected class folders in {folder}, found only those of another set of images in "
                f"{folder / inner[0]}; put those of {spec.title} there"
            )
    unknown = [] if other_folders is None else sorted(names.keys() - known.keys() - other_folders)
    if unknown:
        return (
            f"{spec.title}: {folder / names[unknown[0]]} is not one of its classes ({len(unknown)} such folders); "
            "move it away, or ignore it with data.allow_incomplete=true"
        )
    return None


def expected_images(spec: DatasetSpec) -> str:
    """Format the number of images of a complete copy: ``50,000``, or ``18,000 to 20,000`` where releases differ."""
    if spec.between is not None:
        return "{:,} to {:,}".format(*spec.between)
    if spec.domain is not None:
        return "-"  # a domain of the user's is as large as it is
    return "?" if spec.num_images is None else f"{spec.num_images:,}"


def _names(spec: DatasetSpec, listing: Listing) -> dict[str, str]:
    """Map each class's name (from `class_name`) to its folder in a dataset's listing."""
    return {class_name(spec, name): name for name in listing.folders if name != FLAT}


def _is_other_dataset(spec: DatasetSpec, name: str) -> bool:
    """Return True if a folder inside the dataset's folder is named like another dataset's folder."""
    if any(re.search(pattern, name, re.IGNORECASE) for pattern in catalog.OTHER_SETS):
        return True
    if name == "val":  # repacks of any dataset keep their images there
        return spec.name == "imagenet_train"
    others = (other for other in catalog.real().specs.values() if other.name != spec.name)
    return any(name == path.rpartition("/")[2] for other in others for path in other.folders)


def _other_dataset_at(spec: DatasetSpec, folder: Path) -> str | None:
    """Return the title of another dataset if a folder (or the target of a link) is named like that one's, or None."""
    target = folder.resolve()
    for pattern, title in catalog.OTHER_SETS.items():
        if re.search(pattern, target.name, re.IGNORECASE):
            return title
    if any(target.match(own) for own in spec.folders):
        return None  # the dataset's own folder, though its last part may be another's as well ("val")
    others = (other for other in catalog.real().specs.values() if other.name != spec.name)
    return next((o.title for o in others if any(target.match(p) for p in o.folders if p not in GENERIC)), None)


def _numbering_fault(spec: DatasetSpec, folder: Path, listing: Listing) -> str | None:
    """Return an error message if ImageNet-V2's folders do not count from 0 or -C's severities from 1, else None."""
    if spec.rule == "corruption":
        for corruption in dict.fromkeys(cell.partition("/")[0] for cell in spec.cells):
            for name in (corruption, *(f"{archive}/{corruption}" for archive in ARCHIVES)):
                if (folder / name / "0").is_dir():
                    return (
                        f"{spec.title}: expected severities from 1, found {folder / name / '0'}; use the release's own "
                        "folders"
                    )
    if spec.rule != "number":
        return None
    numbers = {int(name) for name in _names(spec, listing) if name.isdecimal()}
    last = max(group[0] for group in spec.groups)
    # Folders 1 to N in place of 0 to N - 1 would shift every label by one, and nothing else would look wrong.
    if numbers and (max(numbers) > last or numbers == set(range(1, len(numbers) + 1))):
        return (
            f"{spec.title}: expected folders 0 to {last} in {folder}, found {min(numbers)} to {max(numbers)}, which "
            "are not counted from zero and would be read as the wrong classes; use the release's own folders"
        )
    return None


def _foreign_class_fault(spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int]) -> str | None:
    """Return an error message if a folder is of an ImageNet class that the dataset does not have, else None.

    ImageNet-A and -R, for example, have 200 of the 1000 classes.
    """
    if spec.rule != "wnid":
        return None
    foreign = sorted((_names(spec, listing).keys() - known.keys()) & set(catalog.real().outputs))
    if not foreign:
        return None
    return (
        f"{spec.title}: {folder / foreign[0]} is a class of ImageNet but none of its {len(spec.groups)} "
        f"({len(foreign)} such folders), so these are the images of another dataset; put those of {spec.title} there"
    )


def _surplus_fault(spec: DatasetSpec, folder: Path, listing: Listing, labels: Ints) -> str | None:
    """Return an error message if there are more images than in the release, in total or in a class; else None."""
    most = spec.between[1] if spec.between is not None else spec.num_images
    if most is not None and len(labels) > most:
        return (
            f"{spec.title}: expected {expected_images(spec)} images in {folder}, found {len(labels):,}: more than the "
            "release has; remove those that do not belong to it"
        )
    # With a list of labels the total is right even if the list is another release's; the counts per class are not.
    if listing.folders == (FLAT,) and spec.balanced and most is not None and len(labels):
        each = most // len(spec.groups)
        label, count = Counter(labels.tolist()).most_common(1)[0]
        if count > each:
            return (
                f"{spec.title}: the list of labels gives {spec.classes[label]} {count} images of {folder}, expected "
                f"{each}; use the list of this release"
            )
    return None


def _label_order_fault(spec: DatasetSpec, folder: Path, paths: Sequence[str], labels: Ints) -> str | None:
    """Return an error message if one of the first val images, whose classes are known, has another label; else None."""
    if not spec.first:
        return None
    for path, label in zip(paths, np.asarray(labels).tolist(), strict=True):
        match = VAL_NUMBER.search(path)
        number = int(match[1]) if match else 0
        if 0 < number <= len(spec.first) and spec.classes[label] != spec.first[number - 1]:
            return (
                f"{spec.title}: {folder / path} is {spec.first[number - 1]}, found under {spec.classes[label]}; the "
                "folders or the list of labels are in another order: use those of the release"
            )
    return None
