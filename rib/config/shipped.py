"""Read the files of ``conf/`` as rib ships them, by PyYAML alone.

What only looks a default up does not wait for Hydra. ``tests/config/test_shipped.py`` compares every file with what
OmegaConf reads.
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
"""Keys that any class in a node may have beside its arguments, since rib reads them itself."""


WITHOUT_TARGET = ("finetune", "pretrained")
"""Methods that are no class: nothing is added, or nothing is trained."""

UNSET = "???"
"""Value of an option in a file that has no default."""


@cache
def conf_dir() -> str:
    """Absolute path of ``conf/``: inside the package (a wheel) or beside it (a checkout, an editable install).

    Raises:
        FileNotFoundError: If neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError("rib's conf/ folder is missing; install rib again")


def options(group: str) -> list[str]:
    """Names of a config group's files, ``options("model")``."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


@cache
def shipped_nodes(group: str) -> dict[str, dict[str, Any]]:
    """What rib's own files of a group hold, by file name (a method's one entry unwrapped)."""
    nodes = {}
    for name in options(group):
        node = yaml.safe_load(Path(conf_dir(), group, f"{name}.yaml").read_text()) or {}
        node.pop("defaults", None)
        nodes[name] = (node.get(name) or {}) if group == "method" else node
    return nodes
