"""Rename the tensors of another library's model to timm's or open_clip's names, by rules that a table lists.

A `Format` is a table of rules for one kind of model. Tensors that a library keeps apart and timm keeps in one (query,
key and value) are joined. Nothing is computed: every number of the result is a number of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]

Rule = tuple[str, str]
"""A regular expression for the whole name, and the new name; see `Format`."""


@dataclass(frozen=True)
class Format:
    """Names of one kind of model in another library.

    Attributes:
        title: Name for messages, ``Hugging Face's ViT``.
        library: ``timm`` or ``open_clip``, whose names the rules give.
        mark: Regular expression that finds a name which only this format has; the group ``prefix`` is what stands
            before all names.
        rules: A new name may end in ``@0``, ``@1``, ``@2`` (parts that are joined along the first axis), ``@T``
            (transposed), or ``@flat`` (one axis); an empty one leaves the tensor out. The first rule that matches
            counts, and a tensor without one keeps its name.
        unused: Description of what the rules leave out, ``the pooler``.
    """

    title: str
    library: str
    mark: str
    rules: Sequence[Rule]
    unused: str = ""


@dataclass(frozen=True)
class Renamed:
    """A file's tensors under timm's or open_clip's names.

    Attributes:
        state: The tensors.
        format: The format that was recognised.
        num_read: Number of the file's tensors that are in ``state``; query, key and value count as three.
        num_left_out: Number of the others.
    """

    state: dict[str, Tensor]
    format: Format
    num_read: int
    num_left_out: int

    @property
    def note(self) -> str:
        """One line that says what was mapped, for the user."""
        unused = f" ({self.format.unused})" if self.format.unused else ""
        rest = f"; left out {self.num_left_out}{unused}" if self.num_left_out else ""
        return f"read {self.num_read} tensors of {self.format.title} as {self.format.library}'s{rest}"


def rename(state: State, formats: Sequence[Format]) -> Renamed | None:
    """Rename a model's tensors by the first format whose mark is among their names; None if there is none.

    Args:
        state: Tensors under a file's names.
        formats: Formats to try, in order.
    """
    for format_ in formats:
        found = next((match for name in state if (match := re.fullmatch(format_.mark, name))), None)
        if found is not None:
            return _apply(format_, state, found["prefix"])
    return None


def _apply(format_: Format, state: State, prefix: str) -> Renamed:
    """Apply a format's rules to all tensors."""
    plain: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    left_out = 0
    for name, tensor in state.items():
        target, _, operation = _new_name(format_, name.removeprefix(prefix)).partition("@")
        if not target:
            left_out += 1
        elif operation.isdecimal():
            parts.setdefault(target, {})[int(operation)] = tensor
        else:
            plain[target] = _reshape(tensor, operation)
    for name, pieces in parts.items():
        if len(pieces) == 3:  # else a part is missing, and so is the whole
            plain[name] = torch.cat([pieces[i] for i in range(3)])
    return Renamed(plain, format_, len(state) - left_out, left_out)


def _new_name(format_: Format, name: str) -> str:
    for pattern, new in format_.rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return name


def _reshape(tensor: Tensor, operation: str) -> Tensor:
    if operation == "T":
        return tensor.T
    return tensor.flatten() if operation == "flat" else tensor
