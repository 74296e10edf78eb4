"""Read the files of ``conf/`` with PyYAML, without Hydra.

Defaults can then be looked up without waiting for the import of Hydra. ``tests/config/test_shipped.py`` checks that
OmegaConf reads the same from every file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

READ_BY_RIB = {
    "optimizer": frozenset({"lr", "warmup_steps"}),
    "method": frozenset({"ingredients", "lr", "reestimate", "version"}),
}
"""Options that rib reads itself; a node may have them besides the arguments of its class."""


WITHOUT_TARGET = ("finetune", "pretrained")
"""Methods without a class: plain fine-tuning, and no training at all."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's loader: in C where it was built so, 8 times as fast."""

UNSET = "???"
"""Value, in a file, of an option that has no default."""


@cache
def conf_dir() -> str:
    """Return the absolute path of ``conf/``: inside the package (a wheel) or beside it (a checkout).

    Raises:
        FileNotFoundError: If neither folder exists.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError("rib's conf/ folder is missing; install rib again")


def options(group: str) -> list[str]:
    """Return the names that can be selected in a config group, ``ewc`` for ``conf/method/ewc.yaml``, sorted.

    Args:
        group: Folder of ``conf/``, ``model``.
    """
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


@cache
def shipped_nodes(group: str) -> dict[str, dict[str, Any]]:
    """Return the options in each yaml file of a config group, by the file's name without its ending.

    Args:
        group: Folder of ``conf/``, ``method``.
    """
    nodes = {}
    for name in options(group):
        node = yaml.load(Path(conf_dir(), group, f"{name}.yaml").read_text(), LOADER) or {}
        node.pop("defaults", None)
        nodes[name] = (node.get(name) or {}) if group == "method" else node
    return nodes
