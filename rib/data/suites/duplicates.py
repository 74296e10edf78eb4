"""Find images that two domains of a user's suite share, by the content of their files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from rich.filesize import decimal

from rib.data.tree import ImageTree
from rib.runtime.counting import plural

MOST = 20 * 10**9
"""Bytes of a suite's images above which it is not looked for shared ones; each file is read once, in some minutes."""


def shared_images(trees: Sequence[ImageTree]) -> list[str]:
    """Return a sentence for each two domains that have the same image files.

    Args:
        trees: Images of all datasets; those that are not of a user's suite are left out.
    """
    trees = [tree for tree in trees if tree.spec.domain is not None]
    size = sum(int(tree.sizes.sum()) for tree in trees if tree.sizes is not None)
    if size > MOST:
        return [f"not looked for images that two domains share: {decimal(size)} would have to be read"]
    path_of = []
    for tree in trees:
        contents = tree.file_identity.contents(tree.folder, tree.paths, tree.spec.title)
        path_of.append(dict(zip((row.tobytes() for row in contents), tree.paths, strict=True)))
    found = []
    for i, j in combinations(range(len(trees)), 2):
        if shared := path_of[i].keys() & path_of[j].keys():
            example = min(shared, key=lambda content: path_of[i][content])
            titles = f"{trees[i].spec.title} and {trees[j].spec.title}"
            one, two = trees[i].folder / path_of[i][example], trees[j].folder / path_of[j][example]
            found.append(
                f"{titles} share {plural(len(shared), 'image')} ({one} is {two}): "
                "remove them from one, since a model fine-tuned on it has seen those of the other"
            )
    return found
