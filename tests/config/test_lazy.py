"""The names of ``rib.config`` that are imported at their first use are those that type checkers see."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rib.config


def seen_by_type_checkers() -> dict[str, str]:
    """Return the module of each name that is imported under TYPE_CHECKING."""
    tree = ast.parse(Path(rib.config.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {node.names[0].name: str(node.module).rpartition(".")[2] for node in block.body}


def test_both_lists_are_one():
    assert seen_by_type_checkers() == rib.config._MODULES


@pytest.mark.parametrize("name", seen_by_type_checkers())
def test_a_name_is_there_when_it_is_used(name):
    assert getattr(rib.config, name) is not None


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'instantiate'"):
        rib.config.instantiate  # noqa: B018
