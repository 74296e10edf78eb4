"""Name the Python objects in a PyTorch file or pickle without executing any of its code, and say how to convert it."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path

import torch

LARGEST = 2_000_000
"""Bytes of a pickle that are searched for names; they come before the tensors."""

MODULE = re.compile(r"(?i)(classifier|encoder|model|net|vit|transformer|resnet)\w*$")
"""Names of classes that look like a network's."""


def pickled_objects(file: Path) -> list[str]:
    """Return the dotted names of the classes and functions that loading a file would need, those of networks first."""
    try:
        names = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # no archive of torch.save's: a plain pickle, or another format
        names = _in_pickle(file)
    return sorted(names, key=lambda name: (MODULE.search(name) is None, name))


def conversion_hint(file: Path, objects: list[str]) -> str:
    """Say in one clause how to convert a file that holds Python objects to a file of weights alone.

    Args:
        file: The file.
        objects: From `pickled_objects`.
    """
    module = next((name for name in objects if MODULE.search(name)), None)
    if module is None:
        return "if you trust the file, load it yourself and save model.state_dict() alone"
    by_torch = zipfile.is_zipfile(file)
    by_pickle = f"pickle.loads(pathlib.Path('{file.name}').read_bytes())"
    load = f"torch.load('{file.name}', weights_only=False)" if by_torch else by_pickle
    known = any(name.startswith("src.models.") for name in objects)
    code = "of WiSE-FT or FLYP" if known else f"that has {module.partition('.')[0]}"
    return (
        f"it is a whole {module.rpartition('.')[2]}: if you trust it, run in an environment with the code {code}: "
        f"import pathlib, pickle, torch; torch.save({load}.state_dict(), 'weights.pt')"
    )


def _in_pickle(file: Path) -> set[str]:
    """Return the names in a plain pickle, such as WiSE-FT's code writes, read as text up to where it cannot be."""
    names: set[str] = set()
    texts: list[str] = []
    memo: list[str | None] = []  # a text that is used again is written as its number
    last = None
    with file.open("rb") as stream:
        start = stream.read(LARGEST)
    try:
        for opcode, argument, _ in pickletools.genops(start):
            if opcode.name == "MEMOIZE":
                memo.append(last)
            elif opcode.name in ("BINGET", "LONG_BINGET") and int(argument or 0) < len(memo):
                texts += filter(None, (memo[int(argument or 0)],))
            elif opcode.name == "GLOBAL":
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                names.add(f"{texts[-2]}.{texts[-1]}")
            last = argument if isinstance(argument, str) else None
            texts += filter(None, (last,))
    except Exception:  # cut at LARGEST, or no pickle at all
        pass
    known = ("torch.", "collections.", "builtins.", "__builtin__.")
    return {name for name in names if not name.startswith(known)}
