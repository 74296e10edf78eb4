"""Check a composed config against the schema, and return it as a plain dataclass.

Hydra accepts ``+methd=ewc`` (``+`` may add any key), and a misspelt key inside a yaml file surfaces late, as a
traceback. So the composed config is checked against `rib.config.schema`. A block of
options that names a class (``_target_``) may contain the options in rib's own yaml file for that class; for a user's
class, the arguments of its constructor.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from rib.config.messages import explain_omegaconf
from rib.config.schema import FIGURE_FORMATS, PAGE, FiguresConfig
from rib.config.shipped import READ_BY_RIB, WITHOUT_TARGET, options, shipped_nodes
from rib.errors import RibError, UnknownOptionError, nearest

C = TypeVar("C")

OPEN_NODES = ("method", "optimizer", "trainer", "logger", "draw")
"""Nodes whose keys are the options of the class that they name, and not in the schema."""

SCORING_PRECISIONS = ("32-true", "tf32", "bf16-mixed", "16-mixed", "verified")
"""Precisions of scoring, `rib.scoring.score.PRECISIONS`."""

PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true", "32", "bf16", "16", "64"),
    *("transformer-engine", "transformer-engine-float16"),
)
"""Names that Lightning gives precisions of training."""

RECORDED = {"external": {"name", "digest"}}
"""Keys that `rib.evaluate` records in place of a method's options, for weights that were trained outside rib."""


def check_config(cfg: DictConfig, schema: type[C]) -> C:
    """Check the options that Hydra composed, and return them as an instance of the command's dataclass.

    Args:
        cfg: From Hydra.
        schema: Dataclass of `rib.config.schema` or `rib.config.command_schema`.

    Raises:
        RibError: For a key that does not exist or a value of the wrong type.
    """
    try:
        # Interpolations such as ${oc.env:RIB_DATA,null} are resolved first; the result is plain data.
        plain = OmegaConf.create(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)))
        result = cast("C", OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain)))
    except ConfigKeyError as error:
        raise UnknownOptionError(str(error.full_key), explain_omegaconf(error, schema)) from error
    except OmegaConfBaseException as error:
        raise RibError(explain_omegaconf(error, schema)) from error
    if figures := getattr(result, "figures", None):
        _check_figures(figures, has_dashboard="_target_" in (getattr(result, "logger", None) or {}))
    paths = getattr(result, "paths", None)
    if paths is not None and not paths.runs.strip():  # paths.runs=$UNSET would otherwise fill the working folder
        raise RibError("paths.runs: expected a folder, got an empty text; give paths.runs=DIR")
    _check_precisions(result)
    for name in OPEN_NODES:
        node = getattr(result, name, None)
        if name == "method" and node:
            for method, options in node.items():
                _check_method(method, options)
        elif node:
            _check_node(name, node)
    return result


def to_plain(config: object) -> Any:
    """Convert a config (dataclass or OmegaConf object) to nested dictionaries and lists, and its enums to text."""
    node = config if isinstance(config, DictConfig) else OmegaConf.structured(config)
    return OmegaConf.to_container(node, resolve=True, enum_to_str=True)


def _check_precisions(config: object) -> None:
    """Check the names of precisions, which Lightning would refuse only after the pretrained model has been scored.

    Raises:
        RibError: For a name that is none of `PRECISIONS`; the message has the right spelling.
    """
    for name in ("precision", "gpu_precision"):
        value = getattr(config, name, None)
        if value is not None and str(value) not in PRECISIONS:
            bits = re.search("bf16|16|32|64", str(value).replace("bfloat", "bf"))
            full = [known for known in PRECISIONS if "-" in known and "engine" not in known]
            meant = next(known for known in full if known.startswith(bits[0] if bits else "bf"))
            raise RibError(f"{name}: expected one of {', '.join(full)}, got {value!r}; did you mean {name}={meant}?")
    evaluation = getattr(config, "evaluation", None)
    if evaluation is not None and evaluation.precision not in SCORING_PRECISIONS:
        close = nearest(evaluation.precision, SCORING_PRECISIONS, "evaluation.precision=")
        expected = ", ".join(SCORING_PRECISIONS)
        raise RibError(f"evaluation.precision: expected one of {expected}, got {evaluation.precision!r}{close}")


def _check_figures(figures: FiguresConfig, has_dashboard: bool) -> None:
    """Check how figures are written, and make ``format`` a list of distinct formats, with png for a dashboard.

    Raises:
        RibError: For an unknown format, or a width that no page has.
    """
    given = figures.format if isinstance(figures.format, list) else [figures.format]
    if not given or (unknown := [name for name in given if name not in FIGURE_FORMATS]):
        got = repr(unknown[0]) if given else "an empty list"
        raise RibError(
            f"figures.format: expected one of {', '.join(FIGURE_FORMATS)}, or a list of them such as "
            f"figures.format=[png,pdf], got {got}{nearest(str(unknown[0]), FIGURE_FORMATS) if given else ''}"
        )
    figures.format = list(dict.fromkeys([*given, "png"] if has_dashboard else given))
    narrowest, widest = PAGE
    if figures.width is not None and not narrowest <= figures.width <= widest:
        raise RibError(
            f"figures.width: expected inches from {narrowest:g} to {widest:g}, such as figures.width=3.3 for one "
            f"column, or null; got {figures.width:g}"
        )


def _check_method(name: str, node: object) -> None:
    if not isinstance(node, dict):
        raise RibError(
            f"method.{name}: expected a block of options, got {node!r}; "
            f"a method is chosen with +method=NAME, one of: {', '.join(options('method'))}"
        )
    if node.keys() == RECORDED.get(name):
        return
    if "_target_" not in node and name not in WITHOUT_TARGET:
        if name in options("method"):
            raise RibError(f"method.{name}: method {name} is not selected; add +method={name}")
        raise RibError(
            f"method.{name}: expected a class named in _target_, found none{nearest(name, options('method'))}"
        )
    _check_node("method", node, f"method.{name}")


def _check_node(group: str, node: dict[str, Any], where: str | None = None) -> None:
    """Check a block of options against rib's yaml files for its class, or a user's class against its constructor."""
    where = where or group
    known: dict[str, Any] = {}
    # Several files may name one class; then the options of all of them are valid, with the first file's types.
    for shipped in shipped_nodes(group).values():
        if shipped.get("_target_") == node.get("_target_"):
            known = {**shipped, **known}
    accepted = set(known) if known or "_target_" not in node else arguments(node["_target_"], where)
    accepted_by_class = accepted
    accepted = accepted | READ_BY_RIB.get(group, frozenset())
    for key, value in node.items():
        if key not in {"_target_", *accepted}:
            close = nearest(key, accepted - {"_target_"}, f"{where}.")
            raise UnknownOptionError(f"{where}.{key}", f"{where}.{key}: there is no such option{close}")
        if (group, key) == ("method", "lr") and (known or "lr" not in accepted_by_class):
            _check_rate(value, f"{where}.lr")
        elif key in known and not _same_kind(value, known[key]):
            raise RibError(f"{where}.{key}: expected a value like {known[key]!r}, got {value!r}")
        if isinstance(known.get(key), float):
            node[key] = float(value)  # 1 and 1.0 must give the same key


def _check_rate(value: object, where: str) -> None:
    """Check that a method's ``lr`` is a number or null (the default rate), or a mapping to these from user and mini."""
    rates = list(value.values()) if isinstance(value, dict) else [value]
    kinds = value.keys() if isinstance(value, dict) else ()
    numbers = all(r is None or (isinstance(r, int | float) and not isinstance(r, bool)) for r in rates)
    if not numbers or set(kinds) - {"user", "mini"}:
        raise RibError(f"{where}: expected a number, null, or {{user: ..., mini: ...}}, got {value!r}")


def _same_kind(value: object, shipped: object) -> bool:
    """Return True if an option's value has the type of its default in rib's yaml file; null and text allow any type."""
    if shipped is None or (isinstance(shipped, str) and value is not None):
        return True
    if isinstance(shipped, bool) or isinstance(value, bool):  # before int, of which bool is a subclass
        return isinstance(shipped, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(shipped, float) else type(shipped))


def arguments(target: str, where: str) -> set[str]:
    """Import a user's class and return the names of its constructor's arguments.

    Args:
        target: Dotted name of the class.
        where: Option that names it, to begin an error message with.

    Raises:
        RibError: If the class cannot be imported, or its file was changed after this process imported it.
    """
    from hydra.utils import get_object

    from rib.config.user_code import user_code

    user_code(target)
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RibError(f"{where}._target_: cannot import {target!r} ({reason})") from error
    user_code(target)  # Python does not notice later changes of its file; they are refused from now on
    return set(parameters)
