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

from collections.abc import Mapping
from functools import cache
from typing import Any

import rib.config
from rib.config.schema import Config
from rib.config.shipped import READ_BY_RIB, WITHOUT_TARGET, shipped_nodes
from rib.errors import RibError
from rib.methods.build import build
from rib.methods.clashes import ADAPTERS, CLASHES

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


def training_methods(config: Config) -> dict[str, Any]:
    """The methods that add something to fine-tuning, with their options; beside another, `finetune` adds nothing."""
    return {name: node for name, node in config.method.items() if node and "ingredients" not in node}


def merging_method(config: Config) -> str | None:
    """The method that is made from finished runs, if there is one."""
    return next((name for name, node in config.method.items() if node and "ingredients" in node), None)


def stack_name(config: Config) -> str:
    """``finetune``, ``ewc``, ``lora+lwf``, ``lwf+wise_ft``: adapters, regularizers, averaging."""
    after = merging_method(config)
    names = sorted(training_methods(config), key=lambda name: (name not in ADAPTERS, name)) + ([after] if after else [])
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
    return READ_BY_RIB["method"] - (rib.config.arguments(node["_target_"], "method") - {"ingredients"})


def method_of(config: Config, name: str, **more: object) -> Any:
    """Make one method of a stack, without the options that rib itself reads.

    Args:
        config: Whose stack.
        name: Of the method.
        **more: Arguments of its class that a config does not hold; one that is no option of this method is left out.

    Raises:
        RibError: If its class does not take these values.
    """
    node = dict(config.method[name])
    known = {key: value for key, value in more.items() if key in node}
    left_out = {*read_by_rib(node), "probe"}
    return build({key: value for key, value in node.items() if key not in left_out} | known)
