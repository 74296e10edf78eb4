"""Switches ``paper.NAME``, each of which reproduces one error of the ImageNet-RIB authors' code; all off by default.

Errors in their release (github.com/FieteLab/ImageNet-RIB, one commit) that change numbers without crashing:

- ``paper.linear_probe=unfrozen_norms``: class token, position embedding and norms train with the head, and BatchNorm's
  statistics are updated.
- ``paper.ewc=identity``: no Fisher and no 1/2: the penalty is 1.0 * ||theta - theta0||^2, which is L2-SP.
- ``paper.lwf=restricted``: distils only the outputs of the source's classes.
- ``paper.lora=tokens_and_norms``: tokens and norms train in addition to the adapters; alpha is 1.
- ``paper.visual_prompt=random``: the frame starts as unit-variance noise, and the learning rate is 1e-3. (In their
  release the prompt never reaches a ViT's forward pass at all.)
- ``paper.objectnet=authors``: where no synonym matches, a folder gets the previous folder's class: 8 of 113 classes
  are wrong, 105 remain.
- ``paper.objectnet_loss=unrestricted``: fine-tuning on ObjectNet takes labels 0..104 for output ids, with a loss over
  all outputs.
- ``paper.resize_imagenet_c=true``: images that are 224 px already are resized and cropped again.

Their other errors crash, or do not affect a reported number: resuming restarts at epoch 0 with the half-tuned model as
the anchor; an unknown method runs plain fine-tuning; a cached severity drops out of ImageNet-C's mean. A switch changes
a method's *default*: options given on the command line take precedence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rib.config.schema import Config, LabelRule
from rib.config.shipped import shipped_nodes
from rib.data.catalog import DatasetSpec
from rib.errors import RibError

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "linear_probe": {"unfrozen_norms": {"train": "unfrozen_norms"}},
    "ewc": {"identity": {"fisher": "identity", "strength": 2.0}},
    "lwf": {"restricted": {"logits": "restricted"}},
    "lora": {"tokens_and_norms": {"alpha": 1.0, "train": ["tokens", "norms"]}},
    "visual_prompt": {"random": {"init": "randn", "lr": 1e-3}},
}
"""Options of a method that a switch sets, by the switch's name and value."""

DATA = {"objectnet": "authors", "objectnet_loss": "unrestricted"}
"""The only value of each other switch."""


def switches(config: Config) -> dict[str, Any]:
    """Return the errors of the authors' code that a run reproduces, by option: ``{"paper.ewc": "identity"}``."""
    reads = {name: name in config.method for name in METHODS}
    # LP-FT trains a linear probe first, which the probe's switch changes as well.
    reads["linear_probe"] |= any(node and "probe" in node for node in config.method.values())
    reads["objectnet_loss"] = config.dataset.name == "objectnet"
    on = {name: value for name, value in vars(config.paper).items() if value}
    return {f"paper.{name}": value for name, value in on.items() if reads.get(name, True)}


def apply_switches(config: Config) -> Config:
    """Return a config with the defaults of options replaced as its ``paper.*`` switches say; options set by hand stay.

    Args:
        config: A composed config.

    Raises:
        RibError: If a switch has an unknown value.
    """
    method = dict(config.method)
    for name, known in METHODS.items():
        value = getattr(config.paper, name)
        if value is not None and value not in known:
            raise RibError(f"paper.{name}: expected {', '.join(known)} or null, got {value!r}")
        if value is not None and method.get(name):
            default = shipped_nodes("method")[name]
            untouched = {k: v for k, v in known[value].items() if method[name].get(k) == default.get(k)}
            # An option given at its default value is given all the same: `method.ewc.strength=1` keeps 1.
            given = {k for k in untouched if f"method.{name}.{k}" in config.given}
            method[name] = {**method[name], **{k: v for k, v in untouched.items() if k not in given}}
    for name, only in DATA.items():
        if getattr(config.paper, name) not in (None, only):
            raise RibError(f"paper.{name}: expected {only} or null, got {getattr(config.paper, name)!r}")
    data = config.data
    untouched_rule = data.label_rule == LabelRule.max and "data.label_rule" not in config.given
    if config.paper.objectnet is not None and untouched_rule:
        data = replace(data, label_rule=LabelRule.authors)
    return replace(config, method=method, data=data)


def options_kept_from_switches(config: Config) -> dict[str, Any]:
    """Return the values that the user set for options that a ``paper.*`` switch would change, by dotted option name.

    They have to be recorded with the options that differ from the defaults, or the switch would seem to have applied.
    """
    found: dict[str, Any] = {}
    for name, known in METHODS.items():
        switched = known.get(getattr(config.paper, name) or "", {})
        node = config.method.get(name) or {}
        found |= {f"method.{name}.{k}": node[k] for k, v in switched.items() if k in node and node[k] != v}
    if config.paper.objectnet is not None and config.data.label_rule != LabelRule.authors:
        found["data.label_rule"] = str(config.data.label_rule)
    return found


def read_dataset(config: Config, spec: DatasetSpec) -> DatasetSpec:
    """Return a dataset's description, marked to be resized and cropped again if ``paper.resize_imagenet_c`` is on."""
    return replace(spec, precropped=False) if config.paper.resize_imagenet_c else spec


def loss_groups(config: Config, spec: DatasetSpec, outputs: int) -> tuple[tuple[int, ...], ...]:
    """Return the classes that the training loss distinguishes, each as the ids of the model outputs that belong to it.

    These are the source's classes; for ObjectNet with ``paper.objectnet_loss`` every output is a class.

    Args:
        config: Holds the switch.
        spec: The source dataset.
        outputs: Number K of the model's outputs.
    """
    if config.paper.objectnet_loss is not None and spec.name == "objectnet":
        return tuple((i,) for i in range(outputs))
    return spec.groups
