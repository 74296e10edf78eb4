"""Compose a config from ``conf/`` and overrides, read a stored one, and instantiate its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf

from rib.config.check import OPEN_NODES, C, check_config, to_plain
from rib.config.defaults import default_options
from rib.config.launch import accept
from rib.config.messages import explain
from rib.config.schema import Config, flat
from rib.config.shipped import conf_dir, shipped_nodes
from rib.config.unchecked import CONFIG_ERRORS, compose_node, search_path
from rib.errors import RibError


def compose(*overrides: str) -> Config:
    """The config that ``python -m rib.train OVERRIDES`` would use, for notebooks and tests.

    Args:
        overrides: As on the command line, ``"+method=ewc"``, ``"model=mini_small"``.

    Raises:
        RibError: For anything misspelt, with the nearest right spelling.
    """
    try:
        return _with_given(check_config(compose_node("train", *accept(list(overrides))), Config), overrides)
    except CONFIG_ERRORS as error:
        raise RibError(explain(error)) from error


def check_command(cfg: DictConfig, schema: type[C]) -> C:
    """The checked config of a running main, with the names of what its command line says in ``given``.

    Raises:
        RibError: As `checked`.
    """
    return _with_given(check_config(cfg, schema), HydraConfig.get().overrides.task)


def _with_given(config: C, overrides: Iterable[str]) -> C:
    names = [override.partition("=")[0].lstrip("+") for override in overrides]
    kept: list[str] = getattr(config, "given")  # noqa: B009 - every schema that a run is made from has it
    return cast("C", replace(cast("Any", config), given=sorted({*kept, *names})))


def changed_options(config: object, config_name: str) -> list[str]:
    """Dotted names of what a command says otherwise than its yaml file: ``["suite.name", "seed"]``."""
    default = flat(check_config(compose_node(config_name), type(config)))
    return [key for key, value in flat(config).items() if value != default.get(key) and key != "given"]


def override(config: Config, overrides: list[str], where: str) -> Config:
    """A config with some of its values said otherwise, as on the command line, relative to what it is.

    Args:
        config: Whose method nodes stay open to ``method.NAME.option=``.
        overrides: ``seed=1``, ``dataset=imagenet_a``, ``method.ewc.strength=3``.
        where: Begins the sentence if they cannot be understood.

    Raises:
        RibError: For anything misspelt.
    """
    groups = {key for key in (o.partition("=")[0] for o in overrides) if Path(conf_dir(), key).is_dir()}
    try:
        plain = cast("DictConfig", OmegaConf.create(to_plain(config)))
        if groups:
            composed = compose_node("train", *(o for o in overrides if o.partition("=")[0] in groups))
            plain.update({group: composed[group] for group in groups})
        for override in OverridesParser.create().parse_overrides(overrides):
            key = str(override.key_or_group).lstrip("+")
            if key not in groups:
                OmegaConf.update(plain, key, override.value(), force_add=True)
        return _with_given(check_config(plain, Config), overrides)
    except CONFIG_ERRORS as error:
        raise RibError(f"{where}: {explain(error)}") from error
    except RibError as error:
        raise RibError(f"{where}: {error}") from error


def instantiate(node: Mapping[str, Any], **extra: object) -> Any:
    """The object that a node with ``_target_`` describes (`hydra.utils.instantiate`).

    Raises:
        RibError: If its class does not take these values.
    """
    from hydra.utils import instantiate as build

    try:
        return build(dict(node), **extra, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, RibError):
            raise error.__cause__ from None
        raise RibError(f"cannot make a {node['_target_']}: {error.__cause__ or error}") from error


def load_config(file: Path) -> Config:
    """The config that a run was made with, from its config.yaml; options that came later have their defaults.

    Raises:
        RibError: If the file is damaged, or of a version of rib that knew other options.
    """
    # Not of the model, whose defaults are another one's.
    later = {key: node for key, node in default_options().items() if key not in (*OPEN_NODES, "model")}
    try:
        return check_config(cast("DictConfig", OmegaConf.merge(later, OmegaConf.load(file))), Config)
    except Exception as error:  # whatever yaml makes of a damaged file
        raise RibError(f"{file} cannot be read by this version of rib ({error})") from error


def to_yaml(config: object) -> str:
    """A config as yaml text, as kept in a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def method_node(name: str) -> dict[str, Any] | None:
    """A method's options as its file has them, rib's own or one on the running command's ``hydra.searchpath``."""
    if name in shipped_nodes("method"):
        return dict(shipped_nodes("method")[name])
    if places := search_path():
        try:
            composed = compose_node("train", f"+method={name}", f"hydra.searchpath=[{','.join(places)}]")
        except HydraException:
            return None
        return cast("dict[str, Any]", OmegaConf.to_container(composed.method[name], resolve=True))
    return None
