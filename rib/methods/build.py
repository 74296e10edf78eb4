"""Build an object, such as a method, from a block of options that names its class.

Such a block (a node) is a plain dictionary whose ``_target_`` is the dotted name of a class; the rest are its
arguments. Classes are imported by name, rib's own and the user's alike, without Hydra. Nested nodes, lists of them and
``_partial_`` mean what they mean to `hydra.utils.instantiate`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import partial
from typing import Any

from rib.errors import RibError


def build_object(node: Mapping[str, Any], **more: object) -> Any:
    """Build the object that a dictionary with a class name (``_target_``) and arguments describes.

    Args:
        node: ``_target_``, the dotted name of a class or function, and its arguments; ``_args_``, those without a
            name; ``_partial_: true`` gives a `functools.partial` in the place of a call.
        **more: Arguments that take the place of the node's.

    Raises:
        RibError: If the class cannot be imported or does not take these values; its own `RibError` as it is.
    """
    target = node["_target_"]
    values = {**node, **more}
    arguments = {name: _value(value) for name, value in values.items() if name not in _SPECIAL}
    positional = [_value(value) for value in values.get("_args_", ())]
    try:
        made = pkgutil.resolve_name(target) if isinstance(target, str) else target
        if values.get("_partial_", False):
            return partial(made, *positional, **arguments)
        return made(*positional, **arguments)
    except RibError:
        raise
    except Exception as error:  # whatever the user's class raises
        raise RibError(f"cannot build {target} from its options: {error}") from error


_SPECIAL = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})


def _value(value: object) -> Any:
    """Return an argument with every nested dictionary that has a ``_target_`` replaced by the object it describes."""
    if isinstance(value, Mapping):
        return build_object(value) if "_target_" in value else {key: _value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    return value
