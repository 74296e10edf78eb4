"""Read a domain that is a pattern of image files, with a rule that reads the class from a path."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rib.data.suites.images import DomainImages, image_files, subfolders
from rib.errors import RibError
from rib.runtime.progress import activity

NUMBER = re.compile(r"[-_ .(]*\d*\)?$")
"""What follows the class in a file's stem: ``_001`` of dog_001, `` (3)`` of dog (3)."""


def split_pattern(pattern: str) -> tuple[str, str]:
    """Split a pattern into the folder before its first wildcard and the rest.

    ``sketch/v2/**/*.png`` is ``sketch/v2`` and ``**/*.png``.
    """
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    return "/".join(parts[:fixed]), "/".join(parts[fixed:])


def read_glob(root: Path, pattern: str, class_from: str, title: str) -> DomainImages:
    """List the images whose path matches a pattern.

    Args:
        root: The suite's root.
        pattern: Path relative to the root, with ``*``, ``?``, ``[abc]``, and ``**`` for any folders.
        class_from: ``parent`` (the image's folder), ``stem`` (the file's name without its suffix and number), or a
            regular expression with a group ``class`` that is searched for in the path relative to the root.
        title: The domain's title, for messages.

    Returns:
        Its images.

    Raises:
        RibError: If a path has no class by the rule, or a folder cannot be read.
    """
    fixed, rest = split_pattern(pattern)
    folder = root / fixed if fixed else root
    wanted = re.compile(_expression(rest)).fullmatch
    class_of = _rule(class_from, fixed or folder.resolve().name)
    rows, places = [], []
    with activity(f"listing {title}"):
        for inner in _folders_below(folder, deep="/" in rest):
            places.append(inner or os.curdir)
            for name, size in image_files(folder / inner):
                path = f"{inner}/{name}" if inner else name
                if not wanted(path):
                    continue
                found = class_of(f"{fixed}/{path}" if fixed else path)
                if not found:
                    raise RibError(
                        f"{title}: expected class_from={class_from} to find the class of each image, found none in "
                        f"{folder / path}; correct the rule, or match fewer files with the pattern {pattern}"
                    )
                rows.append((path, found, size))
    return DomainImages.of(folder, rows, places)


def _folders_below(folder: Path, deep: bool) -> Iterator[str]:
    """Yield a folder ("") and, if ``deep``, all folders below it, as relative paths; each real folder once."""
    seen = set()
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        status = (folder / inner).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # a link to a folder above would never end
        seen.add((status.st_dev, status.st_ino))
        yield inner
        if deep:
            waiting += [f"{inner}/{name}" if inner else name for name in subfolders(folder / inner)]


def _rule(class_from: str, fixed: str) -> Callable[[str], str | None]:
    if class_from == "parent":
        return lambda path: path.split("/")[-2] if "/" in path else fixed
    if class_from == "stem":
        return lambda path: NUMBER.sub("", path.rpartition("/")[2].rpartition(".")[0])
    search = re.compile(class_from).search

    def by_expression(path: str) -> str | None:
        match = search(path)
        return None if match is None else match["class"]

    return by_expression


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern; ``*`` and ``?`` do not match a slash."""
    parts = pattern.split("/")
    return "".join(
        r"(?:[^/]+/)*" if part == "**" else _expression_of_part(part) + ("/" if i < len(parts) - 1 else "")
        for i, part in enumerate(parts)
    ) + ("[^/]+" if parts[-1] == "**" else "")


def _expression_of_part(part: str) -> str:
    def expression(match: re.Match[str]) -> str:
        text, negated, letters = match[0], match[1], match[2]
        if letters:
            escaped = re.sub(r"([\\\[^])", r"\\\1", letters)
            return f"[{'^' if negated else ''}{escaped}]"
        return {"*": "[^/]*", "?": "[^/]"}.get(text[0], re.escape(text))

    return re.sub(r"\[(!?)(.+?)\]|\*+|\?|.", expression, part)


def literal(place: str) -> str:
    """Return the pattern that matches a path alone, whatever it contains."""
    return re.sub(r"([*?\[])", r"[\1]", place)
