"""Compose a config from ``conf/`` and overrides, load the config of a run, and build the objects that it describes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from rib.config.check import OPEN_NODES, C, check_config, to_plain
from rib.config.defaults import default_options
from rib.config.flatten import flat
from rib.config.messages import explain, with_correction
from rib.config.schema import Config
from rib.config.shipped import conf_dir, shipped_nodes
from rib.config.slips import tidy
from rib.config.unchecked import CONFIG_ERRORS, compose_node, lacks_name, search_path
from rib.errors import RibError
from rib.runtime.console import say_once


def compose(*overrides: str) -> Config:
    """Compose the config that ``python -m rib.train OVERRIDES`` would use, for notebooks and tests.

    Args:
        overrides: As on the command line, ``"+method=ewc"``, ``"model=mini_small"``.

    Raises:
        RibError: For an option or value that does not exist, with the most similar one.
    """
    return _with_given(compose_command("train", Config, overrides), overrides)


def compose_command(command: str, schema: type[C], arguments: Sequence[str]) -> C:
    """Compose and check the config of a command as the command itself does.

    Args:
        command: Name of the command, ``benchmark``.
        schema: Dataclass of its options.
        arguments: As on the command line.

    Raises:
        RibError: For an option or value that does not exist, with the right spelling.
    """
    arguments = tidy(command, arguments)
    try:
        return check_config(compose_node(command, *arguments), schema)
    except CONFIG_ERRORS as error:
        raise RibError(explain(error, command, arguments)) from error
    except ValueError as error:
        if not lacks_name(error):
            raise
        raise RibError(explain(error, command, arguments)) from error
    except RibError as error:
        raise with_correction(error, command, arguments) from error


def check_command(cfg: DictConfig, schema: type[C]) -> C:
    """Check the config of the running command, and record in ``given`` which options the command line set.

    Args:
        cfg: From Hydra.
        schema: Dataclass of the command's options.

    Raises:
        RibError: As `check_config`.
    """
    return _with_given(check_config(cfg, schema), HydraConfig.get().overrides.task)


def _with_given(config: C, overrides: Iterable[str]) -> C:
    """Return a copy of a config that adds the options set by overrides to ``given``, its list of user-set options."""
    names = [override.partition("=")[0].lstrip("+") for override in overrides]
    if 0 in (getattr(config, "epochs", None), getattr(config, "steps", None)):
        say_once("warning: epochs=0 or steps=0 trains nothing: the result is the pretrained model, with RI 0.00")
    given: list[str] = getattr(config, "given")  # noqa: B009 - all schemas of commands that make runs have it
    return cast("C", replace(cast("Any", config), given=sorted({*given, *names})))


def changed_options(config: object, config_name: str) -> list[str]:
    """Return the dotted names of options that differ from their defaults in a command's yaml file, ``["seed"]``."""
    default = flat(check_config(compose_node(config_name), type(config)))
    return [key for key, value in flat(config).items() if value != default.get(key) and key != "given"]


def override(config: Config, overrides: list[str], where: str) -> Config:
    """Return a copy of a config with some options changed, as on the command line.

    Args:
        config: The config to start from; the options of its methods may be changed too.
        overrides: ``seed=1``, ``dataset=imagenet_a``, ``method.ewc.strength=3``.
        where: Option that the overrides come from, to begin an error message with.

    Raises:
        RibError: For an option or value that does not exist.
    """
    if config.data.suite is not None:  # its domains have no files in conf/dataset
        overrides = [re.sub(r"^dataset=", "dataset.name=", override) for override in overrides]
    # Groups (dataset=...) are composed by Hydra; single options are set in the config, which keeps its other values.
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


def load_config(file: Path) -> Config:
    """Load the config of a run from its config.yaml; options added to rib since then take their defaults.

    Raises:
        RibError: If the file is damaged, or of a version of rib with other options.
    """
    # Without the nodes of the default model and classes: their options are not those of the run's.
    defaults = {key: node for key, node in default_options().items() if key not in (*OPEN_NODES, "model")}
    try:
        return check_config(cast("DictConfig", OmegaConf.merge(defaults, OmegaConf.load(file))), Config)
    except Exception as error:  # yaml raises errors of many kinds for a damaged file
        raise RibError(f"{file} cannot be read by this version of rib ({error})") from error


def to_yaml(config: object) -> str:
    """Format a config as yaml, as in a run's config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def method_node(name: str) -> dict[str, Any] | None:
    """Return the options in a method's yaml file, of rib or of a folder in the command's ``hydra.searchpath``.

    Args:
        name: Name of the method, ``ewc``.

    Returns:
        The options, ``_target_`` among them; None if there is no such file.
    """
    if name in shipped_nodes("method"):
        return dict(shipped_nodes("method")[name])
    if folders := search_path():
        try:
            composed = compose_node("train", f"+method={name}", f"hydra.searchpath=[{','.join(folders)}]")
        except HydraException:
            return None
        return cast("dict[str, Any]", OmegaConf.to_container(composed.method[name], resolve=True))
    return None
