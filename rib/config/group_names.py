"""Names that a config group can be given: its files, or the domains of a user's suite as datasets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from rib.config.aliases import CHOICES
from rib.config.shipped import options

_domains: ContextVar[tuple[str, ...]] = ContextVar("_domains", default=())
"""Domains of the user's suite that the arguments name, which are the datasets then; empty for rib's own datasets."""


@contextmanager
def domains(names: tuple[str, ...]) -> Iterator[None]:
    """Correct the names of datasets to these instead of rib's own, inside a ``with`` block; () leaves rib's own."""
    token = _domains.set(names)
    try:
        yield
    finally:
        _domains.reset(token)


def names_of(group: str) -> Sequence[str]:
    """Return the names that a config group can be given: its files, or the domains of a user's suite as datasets."""
    return (group == "dataset" and _domains.get()) or options(group)


def short_names(group: str) -> Mapping[str, str]:
    """Return what the names of a config group are short for; a user's domains have no short names."""
    return {} if group == "dataset" and _domains.get() else CHOICES.get(group, {})


def is_file(text: str) -> bool:
    """Return True if the value of ``suite=`` is a file or folder, and no name of a file in ``conf/suite``."""
    return bool(re.search(r"\.ya?ml(?![\w.])", text, re.I)) or "/" in text or text in ("~", ".", "..")
