"""English names of ImageNet's classes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any


def class_words(names: Iterable[str]) -> list[str]:
    """Return the first English name of each WordNet id, ``goldfish`` for ``n01443537``; other names are unchanged.

    Args:
        names: WordNet ids or names of folders.
    """
    info = _info()
    known = set(info.label_names())
    return [
        info.label_name_to_description(name, detailed=False).split(",")[0] if name in known else name for name in names
    ]


@cache
def _info() -> Any:
    from timm.data.imagenet_info import ImageNetInfo

    return ImageNetInfo()
