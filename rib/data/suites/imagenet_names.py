"""Recognise class names that are ImageNet's, to fill in the outputs of ``head=subset``. Does not import torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rib.data import catalog as catalogs


def imagenet_classes(names: Sequence[str]) -> dict[str, str] | None:
    """Return the WordNet id of each class if all of them are ImageNet's; None if one is not, or two are the same.

    Args:
        names: WordNet ids, or names as WordNet gives them (``tabby cat``, ``tabby_cat``).
    """
    found = {name: _wnid(name) for name in names}
    known = {name: wnid for name, wnid in found.items() if wnid is not None}
    return known if len({*known.values()}) == len(names) else None


def words_of_wnid(wnid: str) -> str:
    """Return the first name of one of ImageNet's classes, ``tench`` of n01440764; the WordNet id if it is not known."""
    return next(iter(_names().get(wnid, [])), wnid)


def _wnid(name: str) -> str | None:
    return name if name in catalogs.real().outputs else _by_name().get(_normal(name))


@cache
def _by_name() -> dict[str, str]:
    """Return the WordNet id of each name of ImageNet's classes, without names that two classes have (crane)."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for wnid, names in _names().items():
        for name in {_normal(name) for name in names}:
            twice |= {name} & found.keys()
            found[name] = wnid
    return {name: wnid for name, wnid in found.items() if name not in twice}


@cache
def _names() -> dict[str, list[str]]:
    """Return the names of each of ImageNet's classes by its WordNet id, from a table that timm brings along."""
    spec = importlib.util.find_spec("timm")
    places = () if spec is None else spec.submodule_search_locations or ()
    file = Path(next(iter(places), ""), "data", "_info", "imagenet_synset_to_lemma.txt")
    if not file.is_file():
        return {}
    lines = [line.partition("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    known = {*catalogs.real().outputs}
    return {
        wnid: [name.strip() for name in names.split(",") if name.strip()] for wnid, _, names in lines if wnid in known
    }


def _normal(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.lower())).strip()
