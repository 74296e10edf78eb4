"""Default options, and the options of a config that differ from them."""

from __future__ import annotations

from functools import cache
from typing import Any

from rib.config.check import check_config, to_plain
from rib.config.flatten import flat
from rib.config.schema import Config, RecipeConfig
from rib.config.shipped import shipped_nodes
from rib.config.unchecked import compose_node

OPTIONS = (
    "optimizer",
    "data",
    "head",
    "epochs",
    "steps",
    "batch_size",
    "accumulate",
    "clip",
    "compile",
    "precision",
    "batch_norm",
    "evaluation",
)
"""Nodes whose options are listed in metrics.json if they are not default, besides the methods' own."""

ALSO_OPTIONS = ("model.transform.", "trainer.sync_batchnorm")
"""Prefixes of further such options, of the model and the devices: they change a run's numbers, too."""

NOT_OPTIONS = {
    "data.root",
    "data.workers",
    "data.cache",
    "data.rescan",
    "data.damaged",
    "data.identity",
    "data.suite",
    "data.allow_incomplete",
    "evaluation.batch_size",
    "head.kind",
    "head.reference",
    "method.ewc.keep_on",
    "method.l2sp.keep_on",
}
"""Options in `OPTIONS` and of methods that are not listed: they change no number, or ``protocol.head`` names them."""


def flat_changes(config: Config) -> dict[str, Any]:
    """Return options that differ from their defaults, as in metrics.json: ``{"method.ewc.strength": 10.0}``."""
    changes: dict[str, Any] = {}
    for name, options_ in config.method.items():
        default = shipped_nodes("method").get(name, {})  # of a user's own method every option is listed
        changed = {f"method.{name}.{k}": v for k, v in options_.items() if k not in default or v != default[k]}
        changes |= {k: v for k, v in changed.items() if k not in NOT_OPTIONS}
    default = {k: v for k, v in flat(default_options()).items() if not k.startswith("model.")}
    default |= flat(shipped_nodes("model").get(config.model.name, {}).get("transform") or {}, "model.transform.")
    for key, value in flat(config).items():
        counts = key.partition(".")[0] in OPTIONS or key.startswith(ALSO_OPTIONS)
        if counts and key not in NOT_OPTIONS and value != default.get(key):
            changes[key] = value
    return changes


def shipped_recipes() -> dict[str, RecipeConfig]:
    """Return the default training settings for each kind of data (user, mini), as in ``conf/train.yaml``."""
    return {kind: RecipeConfig(**node) for kind, node in default_options()["recipe"].items()}


@cache
def default_options() -> Any:
    """Return all default options of `rib.train` as nested dictionaries."""
    return to_plain(check_config(compose_node("train"), Config))
