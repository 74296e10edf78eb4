"""Hydra and OmegaConf live here and in the mains only: compose, check, and hand on plain dataclasses.

Hydra lets ``+methd=ewc`` pass (a ``+`` opens any node), and a misspelt key inside a yaml file surfaces late as a
traceback. So the composed config is checked against the closed schema of `rib.schema`; a node that names a class
(``_target_``) may hold what rib's own files hold for that class, and beyond that what the class's signature takes.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from rib.errors import RibError
from rib.schema import CKAConfig, Config, RecipeConfig

C = TypeVar("C")

OPEN_NODES = ("method", "optimizer", "trainer", "logger", "draw")
"""Nodes whose keys belong to a class that is named in them, not to the schema."""

READ_BY_RIB = {
    "optimizer": frozenset({"lr", "warmup_steps"}),
    "method": frozenset({"ingredients", "lr", "reestimate", "version"}),
}
"""Keys that any class in a node may have beside its arguments, since rib reads them itself."""

WITHOUT_TARGET = ("finetune", "pretrained")
"""Methods that are no class: nothing is added, or nothing is trained."""

RECORDED = {"external": {"name", "digest"}}
"""What `rib.evaluate` records in the place of a method, for weights that were made elsewhere."""


@cache
def conf_dir() -> str:
    """Absolute path of ``conf/``: inside the package (a wheel) or beside it (a checkout, an editable install).

    Raises:
        FileNotFoundError: If neither is there.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError("rib's conf/ folder is missing; install rib again")


def compose(*overrides: str) -> Config:
    """The config that ``python -m rib.train OVERRIDES`` would use, for notebooks and tests.

    Args:
        overrides: As on the command line, ``"+method=ewc"``, ``"model=mini_small"``.

    Raises:
        RibError: For anything misspelt, with the nearest right spelling.
    """
    try:
        return _with_given(checked(_compose("train", *accept(list(overrides))), Config), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise RibError(explain(error)) from error


def _compose(config_name: str, *overrides: str) -> DictConfig:
    """Hydra's compose, which also works inside a Hydra main (whose global state is put back)."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().hydra = running


def accept(arguments: list[str]) -> list[str]:
    """Arguments as Hydra wants them.

    ``method=ewc`` means ``+method=ewc``: the group is not in the defaults list, so that ``+`` is Hydra's way. A grid's
    ``axes={...}`` takes the place of a study's, which Hydra would add to it.
    """
    accepted: list[str] = []
    for argument in arguments:
        if re.match(r"axes=", argument):
            accepted += ["axes=null", argument]
        else:
            accepted.append(f"+{argument}" if re.match(r"method=", argument) else argument)
    return accepted


def checked(cfg: DictConfig, schema: type[C]) -> C:
    """The composed config as an instance of its dataclass (of `rib.schema`).

    Raises:
        RibError: For a key that does not exist or a value of the wrong type, named in one sentence.
    """
    plain = OmegaConf.create(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)))
    try:
        result = cast("C", OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain)))
    except OmegaConfBaseException as error:
        raise RibError(_explain_omegaconf(error, schema)) from error
    for name in OPEN_NODES:
        node = getattr(result, name, None)
        if name == "method" and node:
            for method, options in node.items():
                _check_method(method, options)
        elif node:
            _check_node(name, node)
    return result


def asked(cfg: DictConfig, schema: type[C]) -> C:
    """The checked config of a running main, with the names of what its command line says in ``given``.

    Raises:
        RibError: As `checked`.
    """
    return _with_given(checked(cfg, schema), HydraConfig.get().overrides.task)


def _with_given(config: C, overrides: Iterable[str]) -> C:
    names = [override.partition("=")[0].lstrip("+") for override in overrides]
    kept: list[str] = getattr(config, "given")  # noqa: B009 - every schema that a run is made from has it
    return cast("C", replace(cast("Any", config), given=sorted({*kept, *names})))


def not_default(config: object, config_name: str) -> list[str]:
    """Dotted names of what a command says otherwise than its yaml file: ``["suite.name", "seed"]``."""
    default = flat(checked(_compose(config_name), type(config)))
    return [key for key, value in flat(config).items() if value != default.get(key) and key != "given"]


def varied(config: Config, overrides: list[str], where: str) -> Config:
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
        plain = cast("DictConfig", OmegaConf.create(_plain(config)))
        if groups:
            composed = _compose("train", *(o for o in overrides if o.partition("=")[0] in groups))
            plain.update({group: composed[group] for group in groups})
        for override in OverridesParser.create().parse_overrides(overrides):
            key = str(override.key_or_group).lstrip("+")
            if key not in groups:
                OmegaConf.update(plain, key, override.value(), force_add=True)
        return _with_given(checked(plain, Config), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise RibError(f"{where}: {explain(error)}") from error
    except RibError as error:
        raise RibError(f"{where}: {error}") from error


def _plain(config: object) -> Any:
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)


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


def stored(file: Path) -> Config:
    """The config that a run was made with, from its config.yaml; options that came later have their defaults.

    Raises:
        RibError: If the file is damaged, or of a version of rib that knew other options.
    """
    # Not of the model, whose defaults are another one's.
    later = {key: node for key, node in _defaults().items() if key not in (*OPEN_NODES, "model")}
    try:
        return checked(cast("DictConfig", OmegaConf.merge(later, OmegaConf.load(file))), Config)
    except Exception as error:  # whatever yaml makes of a damaged file
        raise RibError(f"{file} cannot be read by this version of rib ({error})") from error


def to_yaml(config: object) -> str:
    """A config as yaml text, as kept in a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


OPTIONS = (
    "optimizer",
    "data",
    "epochs",
    "steps",
    "batch_size",
    "accumulate",
    "clip",
    "precision",
    "batch_norm",
    "evaluation",
)
"""What counts as an option of a run in metrics.json, besides the methods' own."""

ALSO_OPTIONS = ("model.transform.", "trainer.sync_batchnorm")
"""What else changes a run's numbers under the names of its model and its devices."""

NOT_OPTIONS = {
    "data.root",
    "data.workers",
    "data.rescan",
    "data.damaged",
    "data.identity",
    "data.allow_incomplete",
    "evaluation.batch_size",
}
"""Of these, what changes no number."""


def flat_changes(config: Config) -> dict[str, Any]:
    """Options that are not default, as flat overrides: ``{"method.ewc.strength": 10.0}``."""
    changes: dict[str, Any] = {}
    for name, options_ in config.method.items():
        default = shipped_nodes("method").get(name, {})
        changes |= {f"method.{name}.{k}": v for k, v in options_.items() if k not in default or v != default[k]}
    default = {k: v for k, v in flat(_defaults()).items() if not k.startswith("model.")}
    default |= flat(shipped_nodes("model").get(config.model.name, {}).get("transform") or {}, "model.transform.")
    for key, value in flat(config).items():
        counts = key.partition(".")[0] in OPTIONS or key.startswith(ALSO_OPTIONS)
        if counts and key not in NOT_OPTIONS and value != default.get(key):
            changes[key] = value
    return changes


def shipped_recipes() -> dict[str, RecipeConfig]:
    """What null means as rib ships it, whatever a command says."""
    return {kind: RecipeConfig(**node) for kind, node in _defaults()["recipe"].items()}


@cache
def _defaults() -> Any:
    return _plain(checked(_compose("train"), Config))


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a dataclass or of nested dictionaries by dotted names, enums as their values."""
    found: dict[str, Any] = {}
    for key, value in (node if isinstance(node, dict) else asdict(node)).items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value.value if isinstance(value, Enum) else value
    return found


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


def method_node(name: str) -> dict[str, Any] | None:
    """A method's options as its file has them, rib's own or one on the running command's ``hydra.searchpath``."""
    if name in shipped_nodes("method"):
        return dict(shipped_nodes("method")[name])
    if HydraConfig.initialized() and (places := HydraConfig.get().searchpath):
        try:
            composed = _compose("train", f"+method={name}", f"hydra.searchpath=[{','.join(places)}]")
        except HydraException:
            return None
        return cast("dict[str, Any]", OmegaConf.to_container(composed.method[name], resolve=True))
    return None


def _check_method(name: str, node: object) -> None:
    if not isinstance(node, dict):
        raise RibError(
            f"method.{name}: expected a block of options, got {node!r}; "
            f"a method is chosen with +method=NAME, one of: {', '.join(options('method'))}"
        )
    if node.keys() == RECORDED.get(name):
        return
    if "_target_" not in node and name not in WITHOUT_TARGET:
        raise RibError(
            f"method.{name}: expected a class named in _target_, found none{nearest(name, options('method'))}"
        )
    _check_node("method", node, f"method.{name}")


def _check_node(group: str, node: dict[str, Any], where: str | None = None) -> None:
    """A class that rib's own files name takes what they hold, typed as there; any other, what its signature takes."""
    where = where or group
    known: dict[str, Any] = {}
    for shipped in shipped_nodes(group).values():
        if shipped.get("_target_") == node.get("_target_"):
            known = {**shipped, **known}
    accepted = set(known) if known or "_target_" not in node else arguments(node["_target_"], where)
    accepted_by_class = accepted
    accepted = accepted | READ_BY_RIB.get(group, frozenset())
    for key, value in node.items():
        if key not in {"_target_", *accepted}:
            raise RibError(
                f"{where}.{key}: there is no such option{nearest(key, accepted - {'_target_'}, f'{where}.')}"
            )
        if (group, key) == ("method", "lr") and (known or "lr" not in accepted_by_class):
            _check_rate(value, f"{where}.lr")
        elif key in known and not _same_kind(value, known[key]):
            raise RibError(f"{where}.{key}: expected a value like {known[key]!r}, got {value!r}")
        if isinstance(known.get(key), float):
            node[key] = float(value)  # 1 and 1.0 are one question


def _check_rate(value: object, where: str) -> None:
    """A method's own learning rate: one number, or one for each kind of data; null leaves it to the recipe."""
    rates = list(value.values()) if isinstance(value, dict) else [value]
    kinds = value.keys() if isinstance(value, dict) else ()
    numbers = all(r is None or (isinstance(r, int | float) and not isinstance(r, bool)) for r in rates)
    if not numbers or set(kinds) - {"user", "mini"}:
        raise RibError(f"{where}: expected a number, null, or {{user: ..., mini: ...}}, got {value!r}")


def _same_kind(value: object, shipped: object) -> bool:
    """Whether a value may stand where rib's own file has ``shipped``; null there allows any, a float an int."""
    if shipped is None or (isinstance(shipped, str) and value is not None):
        return True
    if isinstance(shipped, bool) or isinstance(value, bool):
        return isinstance(shipped, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(shipped, float) else type(shipped))


def arguments(target: str, where: str) -> set[str]:
    """Names that a user's own class takes.

    Raises:
        RibError: If it cannot be imported.
    """
    from hydra.utils import get_object

    from rib.user_code import user_code

    user_code(target)
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RibError(f"{where}._target_: cannot import {target!r} ({reason})") from error
    user_code(target)  # from now on a change of its file would go unnoticed by Python, and is refused
    return set(parameters)


def explain(error: Exception) -> str:
    """One sentence for an error of Hydra or OmegaConf: what came, and the nearest that would do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group:
            known = ", ".join(error.options)
            return f"{group}={name}: there is no such {group}{nearest(name, error.options)}; known: {known}"
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = str(found[1]).lstrip("+")
        methods = {f"method.{name}.{k}": name for name, node in shipped_nodes("method").items() for k in node}
        if key in methods:
            return f"{key}: no method {methods[key]} was chosen; give +method={methods[key]} with it"
        named = [f"logger.{k}" for node in shipped_nodes("logger").values() for k in node if k != "_target_"]
        candidates = [*_all_keys(), *methods, *named, *(p.name for p in Path(conf_dir()).iterdir() if p.is_dir())]
        return f"{key}: there is no such option{nearest(key, candidates)}"
    if isinstance(error, OmegaConfBaseException):
        return _explain_omegaconf(error, Config)
    return " ".join(text.split())


def _explain_omegaconf(error: OmegaConfBaseException, schema: type[Any]) -> str:
    where = str(error.full_key or error.key or "")
    if isinstance(error, ConfigKeyError):
        parent, _, key = where.rpartition(".")
        prefix = f"{parent}." if parent else ""
        return f"{where}: there is no such option{nearest(key, _fields(schema, parent), prefix)}"
    message = str(error.msg or error).split("\n")[0]
    if "not a ListConfig" in message:
        return f"{where}: expected a list, {where}=[..]"
    if "missing mandatory value" in message:
        return f"{where}: it has no default; give {where}=VALUE"
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _fields(schema: Any, path: str) -> list[str]:
    """Names under a dotted path of a schema."""
    for part in filter(None, path.split(".")):
        schema = get_type_hints(schema).get(part)
    return [field.name for field in fields(schema)] if is_dataclass(schema) else []


@cache
def _all_keys() -> tuple[str, ...]:
    """Every dotted key of the default train config, and what an analysis has beside it."""
    cfg = _compose("train")

    def walk(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in map(str, node):
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from walk(child, f"{prefix}{key}.")

    return (*walk(cfg), *_fields(CKAConfig, ""))


def nearest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """``; did you mean NAME?`` for the candidate most like a name, or nothing."""
    close = difflib.get_close_matches(name, sorted({*candidates} - {name}), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
