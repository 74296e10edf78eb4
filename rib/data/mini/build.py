"""Drawing mini into the cache, once: safe when two processes start together or one is killed midway.

Everything is drawn under a temporary name and published by one rename, so whoever finds the root finds it whole. A lock
makes the second process wait rather than draw too. Where none can be written both draw, and the rename lets one win.
The digests are of pixels before encoding, since JPEG encoders may differ between machines; `DIGESTS` says what they
must be.
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
"""Raised with every change that moves a pixel."""

STALE_SECONDS = 3600
"""Age at which an unfinished folder belongs to nobody, where no lock can tell."""


def digests() -> dict[str, str]:
    """What the SHA-256 of each dataset's paths and pixels must be."""
    return cast("dict[str, str]", json.loads(files("rib.data.mini").joinpath("digests.json").read_text()))


def ensure(cache: Path) -> Path:
    """The root of mini's images under ``cache``, drawn now if it is not there (some 5,300 small files)."""
    root = cache / f"mini-v{DRAWING_VERSION}"
    if _whole(root):
        return root
    cache.mkdir(parents=True, exist_ok=True)
    with hold_while_making(root) as locked:
        if not _whole(root):
            _clear(root, everything=locked)
            _publish(root)
    return root


def _whole(root: Path) -> bool:
    return drawn_digests(root) is not None


def _clear(root: Path, everything: bool) -> None:
    """Remove what killed processes left: all of it under the lock, else what is old."""
    for folder in root.parent.glob(f"{root.name}.partial-*"):
        with suppress(OSError):
            if everything or time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder)
    if root.exists() and not _whole(root):
        shutil.rmtree(root)


def _publish(root: Path) -> None:
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}-{os.urandom(4).hex()}")
    draw(partial, NAMES)
    try:
        partial.rename(root)
    except OSError:
        shutil.rmtree(partial)
        if not _whole(root):
            raise


def draw(root: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Draw datasets into a new folder.

    Args:
        root: The folder to fill.
        names: Which datasets.

    Returns:
        Their digests, also written to `DIGESTS`; beside them those of the files, by which a change shows.
    """
    found = {}
    total = sum(len(pictures(name)) for name in names)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"drawing mini, once, into {root.parent}", total=total)
        for name in names:
            hasher = hashlib.sha256()
            for picture in pictures(name):
                pixels = picture.pixels()
                hasher.update(picture.path.encode() + b"\n" + pixels.tobytes())
                _save(root / picture.path, Image.fromarray(pixels))
                progress.advance(task)
            found[name] = hasher.hexdigest()
    for path, content in documents().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content, indent=1) + "\n")
    trees = {name: scan(catalog()[name], root) for name in names}
    contents = {n: contents_digest(t.telling.contents(t.folder, t.paths, t.spec.title)) for n, t in trees.items()}
    for name, digests_of in ((CONTENTS, contents), (DIGESTS, found)):
        (root / name).write_text(json.dumps(digests_of, indent=1) + "\n")
    return found


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        image.save(path, "PNG", compress_level=1)
    else:
        image.save(path, "JPEG", quality=95, subsampling=0)
