"""What can be wrong about a dataset's folders, and what to do: incomplete is one thing, another set is another.

`data.allow_incomplete` goes on with what is there. It never goes on with images that are no part of the release, nor
with labels that are not certain: counted from one, in another order, or of a set that has the same class folders.
No torch.
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
"""Places that say nothing of a set if they are all that is known of it: any may keep its images there."""


def another_set(
    spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int], paths: Sequence[str], labels: Ints
) -> str | None:
    """What shows that the images are others, or the labels not certain; refused whatever is allowed.

    Args:
        spec: From the catalog.
        folder: Of the dataset.
        listing: All that is in it.
        known: Label of each class folder.
        paths: Of the images in class folders.
        labels: Of the same, shape (N,).
    """
    if title := _place_of_another(spec, folder):
        return f"{spec.title}: {folder} is {title}, another set of images; put those of {spec.title} there"
    return (
        _miscounted(spec, folder, listing)
        or _strange_classes(spec, folder, listing, known)
        or _too_many(spec, folder, listing, labels)
        or _misplaced(spec, folder, paths, labels)
    )


def layout_fault(
    spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int], strangers: set[str] | None
) -> str | None:
    """What is wrong about a dataset's folders, and what to do.

    Args:
        spec: From the catalog.
        folder: Of the dataset.
        listing: All that is in it.
        known: Label of each class folder.
        strangers: Folders that are right but no class here, None meaning all others.
    """
    names = _names(spec, listing)
    if not names.keys() & known.keys() and spec.rule != "corruption":
        inner = [n for n in names.values() if any(class_name(spec, s) in known for s in subfolders(folder / n))]
        own = [name for name in inner if not _is_another(spec, name)]
        if own:
            return f"{spec.title}: expected class folders in {folder}, found them in {folder / own[0]}; move them up"
        if inner:
            return (
                f"{spec.title}: expected class folders in {folder}, found only those of another set of images in "
                f"{folder / inner[0]}; put those of {spec.title} there"
            )
    unknown = [] if strangers is None else sorted(names.keys() - known.keys() - strangers)
    if unknown:
        return (
            f"{spec.title}: {folder / names[unknown[0]]} is no class of it ({len(unknown)} such folders); "
            "move it away, or go on with data.allow_incomplete=true"
        )
    return None


def expected_images(spec: DatasetSpec) -> str:
    """How many images a complete copy has, in words: ``50,000``, or ``18,000 to 20,000`` where releases differ."""
    if spec.between is not None:
        return "{:,} to {:,}".format(*spec.between)
    return "?" if spec.num_images is None else f"{spec.num_images:,}"


def _names(spec: DatasetSpec, listing: Listing) -> dict[str, str]:
    """The class that each folder's name says, and the folder."""
    return {class_name(spec, name): name for name in listing.folders if name != FLAT}


def _is_another(spec: DatasetSpec, name: str) -> bool:
    """Whether a folder within a dataset's is named like another set's."""
    if any(re.search(pattern, name, re.IGNORECASE) for pattern in catalog.OTHER_SETS):
        return True
    if name == "val":  # repacks of any set keep their images there
        return spec.name == "imagenet_train"
    others = (other for other in catalog.real().specs.values() if other.name != spec.name)
    return any(name == place.rpartition("/")[2] for other in others for place in other.folders)


def _place_of_another(spec: DatasetSpec, folder: Path) -> str | None:
    """The title of another set that a folder, or what it is a link to, is the place of."""
    place = folder.resolve()
    for pattern, title in catalog.OTHER_SETS.items():
        if re.search(pattern, place.name, re.IGNORECASE):
            return title
    if any(place.match(own) for own in spec.folders):
        return None
    others = (other for other in catalog.real().specs.values() if other.name != spec.name)
    return next((o.title for o in others if any(place.match(p) for p in o.folders if p not in GENERIC)), None)


def _miscounted(spec: DatasetSpec, folder: Path, listing: Listing) -> str | None:
    """Classes or severities that are counted in another way than the release counts them."""
    if spec.rule == "corruption":
        for corruption in dict.fromkeys(cell.partition("/")[0] for cell in spec.cells):
            for place in (corruption, *(f"{archive}/{corruption}" for archive in ARCHIVES)):
                if (folder / place / "0").is_dir():
                    return f"{spec.title}: {folder / place / '0'} is there, severities run from 1; rename them"
    if spec.rule != "number":
        return None
    numbers = {int(name) for name in _names(spec, listing) if name.isdecimal()}
    last = max(group[0] for group in spec.groups)
    if numbers and (max(numbers) > last or numbers == set(range(1, len(numbers) + 1))):
        return (
            f"{spec.title}: expected folders 0 to {last} in {folder}, found {min(numbers)} to {max(numbers)}, which "
            "are not counted from zero: each would be taken for the class beside it; take the release's own folders"
        )
    return None


def _strange_classes(spec: DatasetSpec, folder: Path, listing: Listing, known: Mapping[str, int]) -> str | None:
    """Classes of ImageNet in a set of 200 that has others: the images are another set's."""
    if spec.rule != "wnid":
        return None
    strange = sorted((_names(spec, listing).keys() - known.keys()) & set(catalog.real().wnids))
    if not strange:
        return None
    return (
        f"{spec.title}: {folder / strange[0]} is a class of ImageNet but none of its {len(spec.groups)} "
        f"({len(strange)} such folders), so that these are another set's images; put those of {spec.title} there"
    )


def _too_many(spec: DatasetSpec, folder: Path, listing: Listing, labels: Ints) -> str | None:
    """More images than the release has, of all or (where labels come from a list) of a class."""
    most = spec.between[1] if spec.between is not None else spec.num_images
    if most is not None and len(labels) > most:
        return (
            f"{spec.title}: expected {expected_images(spec)} images in {folder}, found {len(labels):,}: more than the "
            "release has; take out what is not of it"
        )
    if listing.folders == (FLAT,) and spec.balanced and most is not None and len(labels):
        each = most // len(spec.groups)
        label, count = Counter(labels.tolist()).most_common(1)[0]
        if count > each:
            return (
                f"{spec.title}: the list of labels gives {spec.classes[label]} {count} images of {folder}, expected "
                f"{each}; take the list of this release"
            )
    return None


def _misplaced(spec: DatasetSpec, folder: Path, paths: Sequence[str], labels: Ints) -> str | None:
    """An image of val whose class is known, under another: folders or a list in another order."""
    if not spec.first:
        return None
    for path, label in zip(paths, np.asarray(labels).tolist(), strict=True):
        found = VAL_NUMBER.search(path)
        number = int(found[1]) if found else 0
        if 0 < number <= len(spec.first) and spec.classes[label] != spec.first[number - 1]:
            return (
                f"{spec.title}: {folder / path} is {spec.first[number - 1]}, found under {spec.classes[label]}; the "
                "folders or the list of labels are in another order: take those of the release"
            )
    return None
