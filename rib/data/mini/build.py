"""Draw the images of mini, the built-in benchmark, into the cache folder on first use.

This is safe if two processes start together or one is killed. All files are drawn into a temporary folder that is
renamed at the end, so an existing root is always complete. A lock makes a second process wait; where no lock can be
written, both draw and the first rename wins. Digests are of pixels before encoding, since JPEG encoders may differ
between machines; ``digests.json`` holds the expected ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import cast

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from rib.data.identity import CONTENTS, DIGESTS, contents_digest, drawn_digests
from rib.data.mini.documents import documents
from rib.data.mini.sets import NAMES, pictures
from rib.data.mini.specs import catalog
from rib.data.scan import scan
from rib.runtime.locks import hold_while_making

DRAWING_VERSION = 2
"""Version of the images, increased with every change to a pixel."""

STALE_SECONDS = 3600
"""Age above which an unfinished folder is taken as abandoned if there is no lock to say so, seconds."""


def digests() -> dict[str, str]:
    """Return the expected SHA-256 of the paths and pixels of each of mini's datasets, by the dataset's name."""
    return cast("dict[str, str]", json.loads(files("rib.data.mini").joinpath("digests.json").read_text()))


def ensure(cache: Path) -> Path:
    """Return the folder of mini's datasets in the cache, after drawing the images (about 5,300) if there are none yet.

    Args:
        cache: The cache folder, created if it does not exist.
    """
    root = cache / f"mini-v{DRAWING_VERSION}"
    if _is_complete(root):
        return root
    cache.mkdir(parents=True, exist_ok=True)
    with hold_while_making(root) as locked:
        if not _is_complete(root):  # else another process drew it while this one waited
            _clear(root, everything=locked)
            _publish(root)
    return root


def _is_complete(root: Path) -> bool:
    return drawn_digests(root) is not None  # these two files are written last


def _clear(root: Path, everything: bool) -> None:
    """Remove unfinished folders of killed processes: all if this process holds the lock, else only old ones."""
    for folder in root.parent.glob(f"{root.name}.partial-*"):
        with suppress(OSError):
            if everything or time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder)
    if root.exists() and not _is_complete(root):
        shutil.rmtree(root)


def _publish(root: Path) -> None:
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
    draw(partial, NAMES)
    try:
        partial.rename(root)
    except OSError:
        shutil.rmtree(partial)
        if not _is_complete(root):  # else another process was faster, and its images are the same
            raise


def draw(root: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Draw the images of some of mini's datasets into a new folder, and write their digests.

    Args:
        root: The folder to fill.
        names: Names of the datasets.

    Returns:
        The SHA-256 of each dataset's paths and pixels, also written to `DIGESTS`. The digests of the encoded files
        are written to `CONTENTS`, so that later changes to a file are noticed.
    """
    pixel_digests = {}
    total = sum(len(pictures(name)) for name in names)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"drawing mini into {root.parent} (first use only)", total=total)
        for name in names:
            hasher = hashlib.sha256()
            for picture in pictures(name):
                pixels = picture.pixels()
                hasher.update(picture.path.encode() + b"\n" + pixels.tobytes())
                _save(root / picture.path, Image.fromarray(pixels))
                progress.advance(task)
            pixel_digests[name] = hasher.hexdigest()
    for path, content in documents().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content, indent=1) + "\n")
    trees = {name: scan(catalog()[name], root) for name in names}
    contents = {n: contents_digest(t.file_identity.contents(t.folder, t.paths, t.spec.title)) for n, t in trees.items()}
    for name, digests_of in ((CONTENTS, contents), (DIGESTS, pixel_digests)):
        (root / name).write_text(json.dumps(digests_of, indent=1) + "\n")
    return pixel_digests


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        image.save(path, "PNG", compress_level=1)
    else:
        image.save(path, "JPEG", quality=95, subsampling=0)
