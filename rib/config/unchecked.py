"""Compose a config with Hydra, without checking it against a schema."""

from __future__ import annotations

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rib.config.shipped import conf_dir

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)
"""Exceptions that composing or checking a config may raise."""


def compose_node(config_name: str, *overrides: str) -> DictConfig:
    """Compose a config with Hydra; inside a running Hydra command its global state is restored afterwards.

    Args:
        config_name: File of ``conf/``, ``train``.
        overrides: As on the command line.
    """
    # Hydra's state is global, and it refuses to be initialised a second time.
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().hydra = running


def lacks_name(error: Exception) -> bool:
    """Return True for the error of a config group without a name, ``model=null``, for which Hydra 1.3 has no class."""
    return isinstance(error, ValueError) and str(error).startswith("Config group override must be")


def has_key(cfg: DictConfig, key: str) -> bool:
    """Return True if a config contains a dotted option name, which Hydra can then override without ``++``."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and last in node


def search_path() -> list[str]:
    """Return the folders in the running command's ``hydra.searchpath``; an empty list outside a command."""
    return list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
