"""Warnings where a model and its data do not belong together: a real model on toy data, or a toy model on real data.

A forgotten data root must not look like a result: ``model=clip_laion2b`` without one runs on the drawings of mini, on
which its numbers mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rib.config.schema import MINI
from rib.data.catalog import HOLDS
from rib.runtime.console import say_once

REAL_DATA = f"data.root=DIR or the environment variable RIB_DATA (DIR holds {HOLDS})"


def is_toy(model: str) -> bool:
    """Return True if a model is one of the small ones that rib ships for toy data, such as ``mini_small``."""
    return model.startswith(f"{MINI}_")


def warn_before(models: Iterable[str], root: str | None) -> None:
    """Warn, before any work and once per process, of models that do not belong to the data that they will see.

    Args:
        models: Names of the models.
        root: ``data.root``; None for toy data.
    """
    names = sorted(set(models))
    toy = [name for name in names if is_toy(name)]
    real = [name for name in names if not is_toy(name)]
    if root is None and real:
        say_once(f"warning: {_say_toy_data(real)}; for real data give {REAL_DATA}")
    if root is not None and toy and Path(root).expanduser().is_dir():  # a missing folder is an error of its own
        say_once(f"warning: {_say_toy_model(toy, root)}")


def warning_after(models: Iterable[str], kind: str) -> str | None:
    """Return the warning to print below a table of real models on toy data, or None if there is none to give.

    Args:
        models: Names of the models in the table.
        kind: Kind of data, ``mini`` or ``user``.
    """
    real = sorted({name for name in models if not is_toy(name)})
    return f"warning: {_say_toy_data(real)}; for real data give {REAL_DATA}" if kind == MINI and real else None


def _say_toy_data(models: list[str]) -> str:
    one = len(models) == 1
    return (
        f"toy data (mini), small drawings that rib makes itself: the numbers mean nothing for {', '.join(models)}, "
        f"{'a real model' if one else 'real models'}"
    )


def _say_toy_model(models: list[str], root: str) -> str:
    one = len(models) == 1
    text = (
        f"{', '.join(models)} {'is a small model' if one else 'are small models'} that rib ships for its toy data "
        f"(48 x 48 pixels), not for real images; for {root} choose a real one, such as model=clip_laion2b or "
        "model=in21k_augreg"
    )
    if os.environ.get("RIB_DATA") == root:
        return f"{text}, or run on the toy data with data.root={MINI} (RIB_DATA is set)"
    return text
