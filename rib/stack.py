"""What a stack of methods means: which of them train, which one is made from finished runs, and from which.

A method whose options name ``ingredients`` never trains: it puts finished runs together. An ingredient is a folder of a
run, or a text: the methods of the run joined by ``+``, then overrides relative to the run that needs it::

    ewc
    ewc method.ewc.fisher=identity
    finetune seed=+1
    finetune dataset=others           # one for each other source of the suite that may be trained on

What a text does not say (seed, source, epochs, rate, experiment) is the run's own. In ``'+method=[lwf,wise_ft]'`` the
rest of the stack stands wherever an ingredient says ``finetune``. No torch: a run that is there is found at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from rib.config import (
    READ_BY_RIB,
    WITHOUT_TARGET,
    arguments,
    method_node,
    nearest,
    options,
    shipped_nodes,
    varied,
)
from rib.data.catalog import Catalog
from rib.errors import RibError
from rib.schema import Config

ADAPTERS = ("lora", "visual_prompt")
"""Methods that change the network; recorded first."""

NO_WEIGHTS = {
    "visual_prompt": "its prompt lies beside the weights, which are the start's",
    "output_ensemble": "it has predictions and no weights",
}
"""Methods whose runs cannot be averaged, and why."""

LEAVE_THE_START = ("ewc", "l2sp", "lwf", "ldifs", "spd", "ftp", "surgical", "layer_decay", "ema")
"""Methods of rib that change neither the start model nor which of its weights train (their ``order`` is above 0)."""

BY_TARGET = {
    "rib_soup": "each target has a model of its own, without that target's fine-tune; its weights have them all",
}
"""Methods whose runs cannot be an ingredient, and why."""

HOLDING = ("ewc", "l2sp", "spd", "ftp")
"""Methods that hold each trained weight near its start."""

CLASHES: Mapping[frozenset[str], str] = {
    frozenset(pair): why
    for *pair, why in (
        ("linear_probe", "lora", "a linear probe freezes everything but the head, LoRA trains what is beside it"),
        ("linear_probe", "visual_prompt", "a linear probe trains the head alone, a visual prompt the frame alone"),
        ("linear_probe", "lp_ft", "lp_ft begins with a linear probe of its own"),
        ("other_start", "lp_ft", "the probe's head would take the place of the shuffled one"),
        ("linear_probe", "freeze_embed", "a linear probe freezes the embedding already"),
        ("lora", "visual_prompt", "each trains its own few parameters and freezes all others"),
        ("lora", "freeze_embed", "LoRA freezes the embedding already"),
        ("layer_decay", "surgical", "both set the learning rate of each layer"),
        *(("visual_prompt", other, "the frame is all that trains") for other in ("layer_decay", "surgical")),
        *((adapter, other, "it would hold the adapter, not the weights") for adapter in ADAPTERS for other in HOLDING),
    )
}
"""Pairs that make no sense together, and why."""


def trained(config: Config) -> dict[str, Any]:
    """The methods that add something to fine-tuning, with their options; beside another, `finetune` adds nothing."""
    return {name: node for name, node in config.method.items() if node and "ingredients" not in node}


def merged(config: Config) -> str | None:
    """The method that is made from finished runs, if there is one."""
    return next((name for name, node in config.method.items() if node and "ingredients" in node), None)


def name_of(config: Config) -> str:
    """``finetune``, ``ewc``, ``lora+lwf``, ``lwf+wise_ft``: adapters, regularizers, averaging."""
    after = merged(config)
    names = sorted(trained(config), key=lambda name: (name not in ADAPTERS, name)) + ([after] if after else [])
    return "+".join(names) or next(iter(config.method), "finetune")


def check(config: Config) -> None:
    """See that a stack makes sense.

    Raises:
        RibError: If two methods cannot stand together, or one cannot be trained with this Trainer, with the reason.
    """
    names = [name for name, node in config.method.items() if node]
    classes = classes_of(config)
    if "fsdp" in str(config.trainer.get("strategy")) and names:
        raise RibError(
            f"trainer=fsdp: expected plain fine-tuning, got +method={'+'.join(names)}: methods read or change single "
            "weights, of which FSDP keeps shards; use trainer=ddp"
        )
    for pair, why in CLASHES.items():
        if pair <= classes:
            raise RibError(f"method: {' and '.join(sorted(pair))} cannot be stacked: {why}")
    after = [name for name in names if "ingredients" in config.method[name]]
    if len(after) > 1:
        raise RibError(
            f"method: {' and '.join(after)} are both made from finished runs; stack one of them, and give the other's "
            f"run folder in method.{after[0]}.ingredients"
        )
    if "pretrained" in config.method and len(config.method) > 1:
        raise RibError("+method=pretrained trains nothing and cannot be stacked with another method")


def ingredients(config: Config, catalog: Catalog) -> list[tuple[str, Config | Path]]:
    """What the merged method of a config is made from: texts for people, each with a config to answer or a folder.

    Raises:
        RibError: If there is none, or a text cannot be understood.
    """
    name = merged(config)
    assert name is not None, "only a merged method has ingredients"
    texts = config.method[name]["ingredients"]
    where = f"method.{name}.ingredients"
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise RibError(f"{where}: expected a list of runs, like [pretrained, finetune, 'ewc seed=1'], got {texts!r}")
    rest = trained(config)
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


def classes_of(config: Config) -> set[str]:
    """Names of a stack's methods, rib's own by the names that they are registered under."""
    return {registered_name(node) or name for name, node in config.method.items()}


@cache
def _registered() -> dict[str, str]:
    nodes = shipped_nodes("method").items()
    return {node["_target_"]: name for name, node in nodes if name not in WITHOUT_TARGET}


def registered_name(node: Mapping[str, Any]) -> str | None:
    """The name of one of rib's own methods by its class, whatever a config calls it; None for the user's."""
    return _registered().get(node.get("_target_", ""))


def read_by_rib(node: Mapping[str, Any]) -> frozenset[str]:
    """Of a method's options, those that rib reads itself; one that the user's class takes is the class's."""
    if registered_name(node) is not None or "_target_" not in node:
        return READ_BY_RIB["method"]
    return READ_BY_RIB["method"] - (arguments(node["_target_"], "method") - {"ingredients"})


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
        plain = varied(plain, given, where)
    if len(sources) == 1 and "dataset=others" not in overrides:
        return [(text if names != "finetune" or not rest else f"{'+'.join(rest)} {' '.join(overrides)}".strip(), plain)]
    return [(f"{name_of(plain)} on {s}", replace(plain, dataset=replace(plain.dataset, name=s))) for s in sources]


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
        node = method_node(name)
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
