"""What the ImageNet-RIB authors' code does differently, each on a switch of its own (``paper.NAME``).

Errata of their release (github.com/FieteLab/ImageNet-RIB, one commit) that change numbers without crashing:

- ``paper.linear_probe=unfrozen_norms``: class token, position embedding and norms train with the head, and BatchNorm's
  statistics move.
- ``paper.ewc=identity``: no Fisher and no 1/2, so + 1.0 * ||theta - theta0||^2: it is L2-SP.
- ``paper.lwf=restricted``: distils the source's classes alone.
- ``paper.lora=tokens_and_norms``: tokens and norms train beside the adapters; alpha 1.
- ``paper.visual_prompt=random``: a frame of unit noise at first, learning rate 1e-3. (In their release it never reaches
  a ViT's forward pass at all.)
- ``paper.objectnet=authors``: where no synonym matched, the previous folder's class is kept: 8 of 113 are wrong, 105
  remain.
- ``paper.objectnet_loss=unrestricted``: fine-tuning on ObjectNet trains labels 0..104 as if they were output ids, over
  all outputs.
- ``paper.resize_imagenet_c=true``: images that are 224 px already are resized and cropped again.

Their other errors are crashes or do nothing to a number that was reported: resuming restarts at epoch 0 with the
half-tuned model as the anchor; an unknown method runs plain fine-tuning; a cached severity drops out of ImageNet-C's
mean. A switch changes a method's *default*: what is given on the command line holds.
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
"""Options of a method by switch and value."""

DATA = {"objectnet": "authors", "objectnet_loss": "unrestricted"}
"""The one value of each other switch."""


def switches(config: Config) -> dict[str, Any]:
    """The switches that are on and matter to a run, ``{"paper.ewc": "identity"}``."""
    reads = {name: name in config.method for name in METHODS}
    reads["linear_probe"] |= any(node and "probe" in node for node in config.method.values())
    reads["objectnet_loss"] = config.dataset.name == "objectnet"
    on = {name: value for name, value in vars(config.paper).items() if value}
    return {f"paper.{name}": value for name, value in on.items() if reads.get(name, True)}


def apply_switches(config: Config) -> Config:
    """A config with the paper's choices in the place of defaults, as far as they are switched on.

    Raises:
        RibError: If a switch has a value that it does not know.
    """
    method = dict(config.method)
    for name, known in METHODS.items():
        value = getattr(config.paper, name)
        if value is not None and value not in known:
            raise RibError(f"paper.{name}: expected {', '.join(known)} or null, got {value!r}")
        if value is not None and method.get(name):
            default = shipped_nodes("method")[name]
            untouched = {k: v for k, v in known[value].items() if method[name].get(k) == default.get(k)}
            said = {k for k in untouched if f"method.{name}.{k}" in config.given}
            method[name] = {**method[name], **{k: v for k, v in untouched.items() if k not in said}}
    for name, only in DATA.items():
        if getattr(config.paper, name) not in (None, only):
            raise RibError(f"paper.{name}: expected {only} or null, got {getattr(config.paper, name)!r}")
    data = config.data
    untouched_rule = data.label_rule == LabelRule.max and "data.label_rule" not in config.given
    if config.paper.objectnet is not None and untouched_rule:
        data = replace(data, label_rule=LabelRule.authors)
    return replace(config, method=method, data=data)


def options_kept_from_switches(config: Config) -> dict[str, Any]:
    """Options that the command line holds at their defaults against a switch, by flat name.

    To say of a run only what is not default would leave these out, and the switch would seem to have been followed.
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
    """A dataset as their code reads it, as far as that is switched on."""
    return replace(spec, precropped=False) if config.paper.resize_imagenet_c else spec


def loss_groups(config: Config, spec: DatasetSpec, outputs: int) -> tuple[tuple[int, ...], ...]:
    """The source's classes in the loss: its own, or every output by its number."""
    if config.paper.objectnet_loss is not None and spec.name == "objectnet":
        return tuple((i,) for i in range(outputs))
    return spec.groups
