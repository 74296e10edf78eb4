"""Schemas of the commands' options, and everything that needs Hydra or OmegaConf.

`rib.config.schema` imports nothing of rib and may be imported by every package; the other modules are for `rib.runs`
and above. Functions that need Hydra are called as ``rib.config.NAME`` and imported at their first use, so that other
packages can be imported without waiting for Hydra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rib.config.check import arguments as arguments
    from rib.config.check import check_config as check_config
    from rib.config.check import to_plain as to_plain
    from rib.config.composition import changed_options as changed_options
    from rib.config.composition import compose as compose
    from rib.config.composition import load_config as load_config
    from rib.config.composition import method_node as method_node
    from rib.config.composition import override as override
    from rib.config.composition import to_yaml as to_yaml
    from rib.config.conditions import parse_conditions as parse_conditions
    from rib.config.conditions import quote_filters as quote_filters
    from rib.config.defaults import flat_changes as flat_changes
    from rib.config.defaults import shipped_recipes as shipped_recipes
    from rib.config.own_suite import open_suite as open_suite
    from rib.config.own_suite import restore_suite as restore_suite
    from rib.config.own_suite import rewrite_suite as rewrite_suite
    from rib.config.spelling import spell_override as spell_override
    from rib.config.unchecked import CONFIG_ERRORS as CONFIG_ERRORS
    from rib.config.unchecked import compose_node as compose_node
    from rib.config.unchecked import has_key as has_key
    from rib.config.unchecked import search_path as search_path

_MODULES = {
    "CONFIG_ERRORS": "unchecked",
    "arguments": "check",
    "check_config": "check",
    "compose": "composition",
    "compose_node": "unchecked",
    "flat_changes": "defaults",
    "has_key": "unchecked",
    "method_node": "composition",
    "parse_conditions": "conditions",
    "quote_filters": "conditions",
    "changed_options": "composition",
    "open_suite": "own_suite",
    "restore_suite": "own_suite",
    "rewrite_suite": "own_suite",
    "search_path": "unchecked",
    "shipped_recipes": "defaults",
    "spell_override": "spelling",
    "load_config": "composition",
    "to_plain": "check",
    "to_yaml": "composition",
    "override": "composition",
}


def __getattr__(name: str) -> Any:
    """Import the function ``rib.config.NAME`` from its module when it is first used, and return it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
