"""Read the files of ``conf/`` as rib ships them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)
"""What composing or checking a config raises."""

UNSET: str = MISSING
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


def compose_node(config_name: str, *overrides: str) -> DictConfig:
    """Hydra's compose, which also works inside a Hydra main (whose global state is put back)."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().hydra = running


def has_key(cfg: DictConfig, key: str) -> bool:
    """Return whether Hydra takes a dotted name without ``++``."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and last in node


def search_path() -> list[str]:
    """Return the running command's ``hydra.searchpath``; empty outside a command."""
    return list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []


def options(group: str) -> list[str]:
    """Names of a config group's files, ``options("model")``."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


@cache
def shipped_nodes(group: str) -> dict[str, dict[str, Any]]:
    """What rib's own files of a group hold, by file name (a method's one entry unwrapped)."""
    nodes = {}
    for name in options(group):
        loaded = OmegaConf.load(Path(conf_dir(), group, f"{name}.yaml"))
        node = cast("dict[str, Any]", OmegaConf.to_container(loaded, resolve=False))
        node.pop("defaults", None)
        nodes[name] = (node.get(name) or {}) if group == "method" else node
    return nodes
