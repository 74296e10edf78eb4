"""Read a domain that is a folder of class folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rib.data.suites.images import DomainImages, image_files, subfolders
from rib.runtime.content import Ints
from rib.runtime.progress import progress


def read_folder(folder: Path, title: str) -> DomainImages:
    """List the images that lie in the folders of a folder; a class's name is that of its folder.

    Args:
        folder: The domain's folder.
        title: The domain's title, for the progress bar.

    Returns:
        Its images. Folders without an image are left out, and so are hidden files and files of other kinds.

    Raises:
        RibError: If a folder cannot be read, or an image is a broken link.
    """
    # Sorted with the slash, so that folders come in the order of the paths of their images ("a-b/" before "a/").
    inner = sorted(subfolders(folder), key=lambda name: f"{name}/")
    paths: list[str] = []
    sizes: list[int] = []
    counts: list[int] = []
    with progress(f"listing {title}", len(inner), "folders") as advance:
        for name in inner:
            files = sorted(image_files(folder / name))
            counts.append(len(files))
            paths += [f"{name}/{file}" for file, _ in files]
            sizes += [size for _, size in files]
            advance(1, "")
    used = [name for name, count in zip(inner, counts, strict=True) if count]
    codes: Ints = np.repeat(np.arange(len(used)), [count for count in counts if count]).astype(np.int64)
    return DomainImages(folder, tuple(paths), tuple(used), codes, np.array(sizes, dtype=np.int64), (os.curdir, *inner))


def classes_in_folder(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that hold an image, sorted."""
    return [name for name in subfolders(folder) if next(image_files(folder / name), None) is not None]
