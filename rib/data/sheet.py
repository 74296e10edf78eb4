"""Contact sheet: an image with one row per dataset and one column per class, with an example image in each cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rib.data.catalog import Catalog
from rib.data.decode import open_image, to_rgb
from rib.data.transform import file_errors
from rib.data.tree import ImageTree
from rib.data.worlds import is_suite

THUMB, GAP, MARGIN, HEAD = 72, 4, 132, 20
"""Side of a thumbnail, distance between two, width of the column of titles, and height of the row of names, pixels."""


def contact_sheet(trees: Mapping[str, ImageTree], catalog: Catalog, columns: int = 10) -> Image.Image:
    """Return an image with one row per dataset and one column per class, first the classes that most datasets have.

    Above the columns of a user's suite are the names of its classes.

    Args:
        trees: Datasets by name, in the order of rows.
        catalog: Catalog with the datasets' titles.
        columns: Number of classes.

    Returns:
        RGB image with thumbnails of 72 x 72 pixels; left white where a dataset lacks the class.

    Raises:
        RibError: If an image cannot be read.
    """
    ids = {name: [set(group) for group in tree.spec.groups] for name, tree in trees.items()}
    there = [{i for label in np.unique(tree.labels) for i in tree.spec.groups[label]} for tree in trees.values()]
    shared = sorted(sorted(set().union(*there)), key=lambda i: -sum(i in outputs for outputs in there))[:columns]
    head = HEAD if is_suite(catalog.kind) else 0
    size = (MARGIN + len(shared) * (THUMB + GAP), head + len(trees) * (THUMB + GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, output in enumerate(shared if head else ()):
        name = next(iter(trees.values())).spec.classes[output]
        draw.text((MARGIN + column * (THUMB + GAP), 3), name[:12], fill="black", font_size=11)
    for row, (name, tree) in enumerate(trees.items()):
        top = head + row * (THUMB + GAP)
        draw.text((4, top + THUMB // 2 - 6), catalog[name].title, fill="black", font_size=13)
        for column, output in enumerate(shared):
            label = next((j for j, group in enumerate(ids[name]) if output in group), None)
            positions = np.flatnonzero(tree.labels == (-1 if label is None else label))
            if len(positions):
                thumb = _thumbnail(tree.folder / tree.paths[positions[0]])
                sheet.paste(thumb, (MARGIN + column * (THUMB + GAP), top))
    return sheet


def _thumbnail(file: Path) -> Image.Image:
    with file_errors(file):
        content = file.read_bytes()
        image: Image.Image = to_rgb(open_image(content), content)
    return image.resize((THUMB, THUMB), Image.Resampling.BICUBIC)


def write_sheet(trees: Mapping[str, ImageTree], catalog: Catalog, file: Path) -> Path:
    """Save the contact sheet of some datasets as an image file, creating its folder, and return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(trees, catalog).save(file)
    return file
