"""The methods that a run combines (its stack): any that change training, and at most one that merges finished runs.

A method whose options name ``ingredients`` does not train: it merges finished runs. An ingredient is the folder of a
run, or a text: the methods of the ingredient joined by ``+``, then overrides relative to the merged run::

    ewc
    ewc method.ewc.fisher=identity
    finetune seed=+1
    finetune dataset=others           # one for each other source of the suite that may be trained on

Options that a text does not set (seed, source, epochs, learning rate, experiment) are those of the merged run. In
``'+method=[lwf,wise_ft]'`` the ingredient ``finetune`` stands for the rest of the stack, ``lwf``. torch is not
imported, so that a finished run is found without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import rib.config
from rib.config.schema import Config
from rib.config.shipped import READ_BY_RIB, WITHOUT_TARGET, shipped_nodes
from rib.errors import RibError
from rib.methods.build import build_object
from rib.methods.clashes import ADAPTERS, CLASHES

NO_WEIGHTS = {
    "visual_prompt": "its prompt is stored beside the weights, which are the pretrained ones",
    "output_ensemble": "it has predictions and no weights",
}
"""Methods whose runs cannot be averaged, with the reason."""

LEAVE_THE_START = ("ewc", "l2sp", "lwf", "ldifs", "spd", "ftp", "surgical", "layer_decay", "ema")
"""Methods of rib that change neither the start model nor the choice of trained weights (their ``order`` is above 0)."""

BY_TARGET = {
    "rib_soup": "it scores each target with a model of its own, none of which has the stored weights",
}
"""Methods whose runs cannot be an ingredient, with the reason."""


def training_methods(config: Config) -> dict[str, Any]:
    """Return the methods of a run that change fine-tuning: options by method name; plain ``finetune`` has no entry."""
    return {name: node for name, node in config.method.items() if node and "ingredients" not in node}


def merging_method(config: Config) -> str | None:
    """Return the name of a config's method that merges finished runs, such as ``wise_ft``, or None."""
    return next((name for name, node in config.method.items() if node and "ingredients" in node), None)


def stack_name(config: Config) -> str:
    """Return the joined names of a run's methods, ``lora+lwf``: adapters, then other training methods, then merging."""
    last = merging_method(config)
    names = sorted(training_methods(config), key=lambda name: (name not in ADAPTERS, name)) + ([last] if last else [])
    return "+".join(names) or next(iter(config.method), "finetune")


def check(config: Config) -> None:
    """Check that all methods of a config can be used together.

    Raises:
        RibError: If two methods exclude each other, or one cannot be trained with this Trainer; the message says why.
    """
    names = [name for name, node in config.method.items() if node]
    classes = classes_of(config)
    if "fsdp" in str(config.trainer.get("strategy")) and names:
        raise RibError(
            f"trainer=fsdp: expected plain fine-tuning, got +method={'+'.join(names)}: methods need whole weights, and "
            "FSDP shards them; use trainer=ddp"
        )
    for pair, why in CLASHES.items():
        if pair <= classes:
            raise RibError(f"method: {' and '.join(sorted(pair))} cannot be stacked: {why}")
    merging = [name for name in names if "ingredients" in config.method[name]]
    if len(merging) > 1:
        raise RibError(
            f"method: {' and '.join(merging)} both merge finished runs; stack only one of them, and list the other's "
            f"run folder in method.{merging[0]}.ingredients"
        )
    if "pretrained" in config.method and len(config.method) > 1:
        raise RibError("+method=pretrained trains nothing and cannot be stacked with another method")


def classes_of(config: Config) -> set[str]:
    """Return the names of a config's methods: registered names (``ewc``) for rib's, the config's own for the user's."""
    return {registered_name(node) or name for name, node in config.method.items()}


@cache
def _registered_names() -> dict[str, str]:
    """Map the import path of each of rib's own method classes to its registered name, such as ``ewc``."""
    nodes = shipped_nodes("method").items()
    return {node["_target_"]: name for name, node in nodes if name not in WITHOUT_TARGET}


def registered_name(node: Mapping[str, Any]) -> str | None:
    """Return the registered name of the rib method that a config block builds (``ewc``), or None for a user's class."""
    return _registered_names().get(node.get("_target_", ""))


def read_by_rib(node: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of a method's options that rib reads itself instead of passing them to the method's class."""
    if registered_name(node) is not None or "_target_" not in node:
        return READ_BY_RIB["method"]
    return READ_BY_RIB["method"] - (rib.config.arguments(node["_target_"], "method") - {"ingredients"})


def build_method(config: Config, name: str, **more: object) -> Any:
    """Instantiate one method of a config with its options.

    Args:
        config: Config with the stack.
        name: Name of the method in it.
        **more: Arguments that the config cannot hold; those that are no option of this method are ignored.

    Raises:
        RibError: If the class does not accept the options.
    """
    node = dict(config.method[name])
    known = {key: value for key, value in more.items() if key in node}
    left_out = {*read_by_rib(node), "probe"}
    return build_object({key: value for key, value in node.items() if key not in left_out} | known)
