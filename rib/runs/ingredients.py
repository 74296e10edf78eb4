"""The configs of the runs that a merged run is made from, and of the probe that LP-FT starts from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rib.config
from rib.config.schema import Config
from rib.config.shipped import options
from rib.data.catalog import Catalog
from rib.errors import RibError, nearest
from rib.runs.method_stack import BY_TARGET, NO_WEIGHTS, classes_of, merging_method, stack_name, training_methods


def ingredients(config: Config, catalog: Catalog) -> list[tuple[str, Config | Path]]:
    """What the merged method of a config is made from: texts for people, each with a config to answer or a folder.

    Raises:
        RibError: If there is none, or a text cannot be understood.
    """
    name = merging_method(config)
    assert name is not None, "only a merged method has ingredients"
    texts = config.method[name]["ingredients"]
    where = f"method.{name}.ingredients"
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise RibError(f"{where}: expected a list of runs, like [pretrained, finetune, 'ewc seed=1'], got {texts!r}")
    rest = training_methods(config)
    if rest and not any(text.split()[:1] == ["finetune"] for text in texts):
        raise RibError(
            f"method: {name} beside {', '.join(rest)} is made from the run {'+'.join(rest)}, but no ingredient is "
            f"finetune, whose place it would take: {texts}"
        )
    found: list[tuple[str, Config | Path]] = []
    for text in texts:
        if Path(text).expanduser().is_dir():
            found.append((Path(text).name, Path(text).expanduser()))
        else:
            found += _asked(config, text, where, rest, catalog)
    for label, part in found:
        of = classes_of(part) if isinstance(part, Config) else set(part.resolve().parent.name.split("+"))
        for method in of & BY_TARGET.keys():
            raise RibError(f"{where}: {label} cannot be an ingredient: {BY_TARGET[method]}")
        for method in of & NO_WEIGHTS.keys():
            if name != "output_ensemble":
                raise RibError(f"{where}: {label} cannot be averaged with others: {NO_WEIGHTS[method]}")
    return found


def _asked(
    config: Config, text: str, where: str, rest: Mapping[str, Any], catalog: Catalog
) -> Iterable[tuple[str, Config]]:
    """The configs that one text means."""
    names, *overrides = shlex.split(text)
    plain = replace(config, method=dict(rest) if names == "finetune" else nodes_of(names, where, text), force=False)
    sources = [config.dataset.name]
    given = []
    for override in overrides:
        key, _, value = override.partition("=")
        if (key, value) == ("dataset", "others"):
            allowed = config.data.objectnet_training is not None
            sources = [s for s in config.suite.sources if s != sources[0] and (catalog[s].may_train or allowed)]
        elif key == "seed" and value[:1] in "+-" and value[1:].isdecimal():
            plain = replace(plain, seed=plain.seed + int(value))
        else:
            given.append(override)
    if given:
        plain = rib.config.override(plain, given, where)
    if len(sources) == 1 and "dataset=others" not in overrides:
        return [(text if names != "finetune" or not rest else f"{'+'.join(rest)} {' '.join(overrides)}".strip(), plain)]
    return [(f"{stack_name(plain)} on {s}", replace(plain, dataset=replace(plain.dataset, name=s))) for s in sources]


def nodes_of(names: str, where: str, text: str) -> dict[str, Any]:
    """The nodes of the methods of a stack spelt ``lwf+wise_ft``, with their defaults.

    Args:
        names: Of files in conf/method, or in a folder of the user's on ``hydra.searchpath``.
        where: Begins the sentence if there is no such method.
        text: What the user said.

    Raises:
        RibError: If there is none.
    """
    nodes: dict[str, Any] = {}
    for name in names.split("+"):
        node = rib.config.method_node(name)
        if node is None:
            meant = nearest(name, options("method"))
            raise RibError(
                f"{where}: {text!r} is no folder of a run, and {name} no method of rib"
                f"{meant}; known: {', '.join(options('method'))}"
            )
        nodes[name] = node
    return nodes


def probe(config: Config) -> Config | None:
    """The linear probe that a method of the stack starts from; exactly ``+method=linear_probe`` unless it says more."""
    name = next((name for name, node in config.method.items() if node and "probe" in node), None)
    if name is None:
        return None
    given = {key: value for key, value in (config.method[name]["probe"] or {}).items() if value is not None}
    if unknown := given.keys() - {"epochs", "lr"}:
        raise RibError(f"method.{name}.probe.{min(unknown)}: there is no such option; known: epochs, lr")
    optimizer = {**config.optimizer, **({"lr": given["lr"]} if "lr" in given else {})}
    return replace(
        config,
        method=nodes_of("linear_probe", f"method.{name}.probe", "linear_probe"),
        epochs=given.get("epochs", config.epochs),
        optimizer=optimizer,
        force=False,
    )
