"""Read a domain that is a Python object of the user's: ``python: "my_package.my_module:function"``."""

from __future__ import annotations

import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rib.data.decode import open_image, to_rgb
from rib.data.suites.unpack import VERSION, Packed, Source
from rib.errors import RibError, nearest
from rib.runtime.counting import plural
from rib.runtime.files import digest_of

ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}
"""Suffix of a file by PIL's name of its format; images of other formats are saved as PNG."""


class SuiteImages(Protocol):
    """Interface of what the function of a domain's ``python`` returns: N images with ids and classes.

    rib calls ``image`` once for each image and saves the result in the cache. Later starts read ``version``, ``ids``
    and ``labels`` alone: **change ``version`` whenever the pixels of an image change**, else the old ones are used.

    Attributes:
        version: Any text that changes when the images do.
        ids: A name for each image, length N, each once; part of the images' identity, so that it should stay the same
            when images are added.
        labels: Class of each image, length N: names of the suite's classes, or their numbers from 0.
    """

    version: str
    ids: Sequence[str | int]
    labels: Sequence[str | int]

    def image(self, i: int, /) -> Any:
        """Return the image at a position: a PIL image, a uint8 array (H, W, 3), or the bytes of an image file."""


def entry_point(place: str, root: Path, title: str) -> SuiteImages:
    """Call a domain's function, and check what it returns.

    Args:
        place: ``module:function``; the module is looked for in the suite's root and the working folder as well.
        root: The suite's root.
        title: The domain's title, for messages.

    Raises:
        RibError: If there is no such module or function, it fails, or returns something else.
    """
    return _called(place, root, title)


@cache
def _called(place: str, root: Path, title: str) -> SuiteImages:
    where = f"{title}: python: {place}"
    module, _, name = place.partition(":")
    try:
        with _searching(root):
            imported = importlib.import_module(module)
    except ImportError as error:
        raise RibError(
            f"{where}: {module} cannot be imported ({error}); put {module.partition('.')[0]}.py into {root} or the "
            "working folder, or install its package"
        ) from error
    except Exception as error:  # the user's code
        raise RibError(f"{where}: importing {module} raised {_told(error)}; correct it") from error
    function: Callable[[], SuiteImages] | None = getattr(imported, name, None)
    if not callable(function):
        raise RibError(f"{where}: expected a function {name} in {module}, found none{nearest(name, vars(imported))}")
    found: SuiteImages = _attempt(function, f"{where}: {name}()")
    for attribute in ("version", "ids", "labels", "image"):
        if not hasattr(found, attribute):
            raise RibError(
                f"{where}: expected an object with version, ids, labels and image(i), got "
                f"{type(found).__name__} without {attribute}"
            )
    if not isinstance(found.version, str):
        raise RibError(f"{where}: expected version to be a text, got {found.version!r}")
    for attribute in ("ids", "labels"):
        if not hasattr(getattr(found, attribute), "__len__"):
            raise RibError(
                f"{where}: expected {attribute} to be a list, got {type(getattr(found, attribute)).__name__}"
            )
    ids = [str(one) for one in found.ids]
    if len(ids) != len(found.labels):
        raise RibError(f"{where}: expected an id and a label for each image, got {len(ids)} and {len(found.labels)}")
    if len({*ids}) < len(ids):
        twice = next(one for i, one in enumerate(ids) if one in ids[:i])
        raise RibError(f"{where}: expected each id once, got {twice} twice")
    return found


@contextmanager
def _searching(folder: Path) -> Iterator[None]:
    """Find modules in a folder and in the working folder too, within a block."""
    added = [str(folder), str(Path.cwd())]
    sys.path[:0] = added
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def _attempt(function: Callable[..., Any], where: str, *arguments: object) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # the user's code: any error is theirs to correct
        raise RibError(f"{where} raised {_told(error)}; correct it") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def entry_digest(images: SuiteImages, place: str) -> str:
    """Return a digest of the function's name, version, ids and labels, from which the name of their folder is made."""
    return digest_of(
        [VERSION, place, images.version, [str(i) for i in images.ids], [str(one) for one in images.labels]]
    )


def entry_source(images: SuiteImages, place: str, title: str) -> Source:
    """Return what there is to unpack from an entry point."""
    total = len(images.ids)

    def packed(advance: Callable[[int], object]) -> Iterator[Packed]:
        for i, (name, label) in enumerate(zip(images.ids, images.labels, strict=True)):
            where = f"{title}: python: {place}: image({i})"
            ending, content = _encoded(_attempt(images.image, where, i), where)
            yield Packed(str(label), f"{_file_name(str(name))}{ending}", content)
            advance(1)

    return Source(title, plural(total, "image"), total, "images", packed)


def _file_name(name: str) -> str:
    return name if re.fullmatch(r"[\w][\w.+=-]{0,150}", name) else digest_of(name)


def _encoded(image: Any, where: str) -> tuple[str, bytes]:
    """Return the suffix and bytes of an image file; arrays and PIL images are saved without loss, as PNG."""
    from PIL import Image

    if isinstance(image, bytes):
        try:
            opened = open_image(image)
        except ValueError as error:
            raise RibError(
                f"{where}: expected the bytes of an image file, got {len(image)} others ({error})"
            ) from error
        if ending := ENDINGS.get(opened.format):
            return ending, image
        image = to_rgb(opened, image)
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise RibError(f"{where}: expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        raise RibError(
            f"{where}: expected a PIL image, a uint8 array (H, W, 3) or the bytes of a file, got {type(image).__name__}"
        )
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return ".png", buffer.getvalue()
