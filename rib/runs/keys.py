"""Hash keys that identify runs and predictions: digests of all settings and inputs except those excluded here.

A run is resolved first (`rib.runs.fields`): null options get their values, folders and files become digests of their
content. A key is the digest of that flat dictionary, so that an option that nobody thought of is in the key. Fields are
excluded by name:

- `RESOLVED` options are in the key as what they resolve to, under another name.
- `LEFT_OUT` lists, for each kind of key, the fields that cannot change what the key names, each with the reason.
- `NEUTRAL` values are left out as well: with an option at its neutral value the code behaves as it did before the
  option existed, so that a new option does not change the keys of old runs. A neutral value never changes. A default
  may change: it is then in the key, since it differs from the neutral value.

A new option of ``conf/`` needs a line in one of these tables, or ``tests/runs/test_option_walk.py`` fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rib.runtime.files import digest_of

NUMERICS = 3
"""Version of the numbers, raised when a change of the code changes results; part of every key."""

Kind = Literal["trained", "pretrained", "merged", "external", "score", "fisher"]
"""Kinds of keys: four for weights, one for a dataset's predictions, one for an EWC Fisher."""

RESOLVED: Mapping[str, str] = {
    "model.": "start, library, architecture, and transform.* (also in each score key): the files by content",
    "dataset.": "source.images: every image that trains, by content",
    "data.root": "source.images and the images of each score key, by content",
    "data.suite": "source.images and the images of each score key, by content, and their classes",
    "head.": "start: the images that the probe is trained on by content, and how; or the sentences of a zero-shot head",
    "data.identity": "source.images, and the images of each score key: how these digests were made is part of them",
    "data.images_per_class": "source.images",
    "data.shuffled_labels": "source.images",
    "data.holdout": "source.images and held_out.images",
    "data.label_rule": "source.classes, and the classes of each score key",
    "data.allow_incomplete": "source.images, and the images of each score key",
    "recipe.": "epochs, optimizer.lr, optimizer.warmup_steps",
    "gpu_precision": "precision: the one that runs on this machine",
    "paper.": "the options of methods, source.*, loss.classes, and the images of each score key",
    "given": "which defaults paper.* replaces, and so the options of methods",
    "method.": "methods: class, options and user's code of each, in one order",
}
"""Options that are in the key as other fields; a name that ends in a dot stands for all options below it."""

_NO_NUMBER: Mapping[str, str] = {
    "suite.": "decides what is scored and averaged; each score has a key of its own",
    "experiment": "the name of a protocol, whose options are all in the key",
    "logger.": "reads numbers",
    "paths.": "folders on the disk",
    "figures.": "files of figures, drawn from finished numbers",
    "force": "whether a finished run is made again",
    "checkpoint.": "an interrupted fit resumes bit for bit (tests/training/test_resume.py)",
    "keep_memory": "how memory is given back to the system",
    "gradient_checkpointing": "the same activations, computed again",
    "data.workers": "images and augmentation belong to (seed, epoch, image), not to a process",
    "data.cache": "decoded images are kept bit for bit (tests/data/test_crops.py)",
    "data.rescan": "whether to trust the records of digests",
    "data.damaged": "the messages about files that are read in any case",
    "data.objectnet_training": "a permission",
    "evaluation.batch_size": "logits agree to rounding, and no choice is made on less",
    "trainer.accelerator": "the same computation to rounding; precision is in the key",
    "trainer.devices": "the batch is that of the whole job; where processes matter they are in `processes`",
    "trainer.num_nodes": "as trainer.devices",
    "trainer.benchmark": "which of several equal kernels",
    "trainer.deterministic": "which of several equal kernels",
    "profile": "measures time",
    "trainer.profiler": "measures time",
    "trainer.detect_anomaly": "raises, or does nothing",
}
"""Options that change neither weights nor predictions, each with the reason."""

_SCORING: Mapping[str, str] = {
    "evaluation.precision": "weights are made before they are scored; what chooses by scores has it in chosen_at",
    "predictions.": "what is kept of a prediction",
}

_TRAINING: Mapping[str, str] = {
    "optimizer.": "trains",
    "epochs": "trains",
    "steps": "trains",
    "batch_size": "trains",
    "accumulate": "trains",
    "clip": "trains",
    "compile": "trains; fused operations round elsewhere",
    "precision": "trains",
    "seed": "trains",
    "trainer.": "trains",
    "processes": "trains",
    "loss.": "trains",
    "data.augment": "trains; what is measured on source images sees them without",
    "data.subset_seed": "source.images and held_out.images say which",
}
"""Fields that only training reads."""

_SOURCE: Mapping[str, str] = {
    "source.": "nothing is trained",
    "held_out.": "nothing is trained",
    "batch_norm": "nothing is trained",
    "methods": "nothing is trained",
    "probe": "nothing is trained",
    "ingredients": "nothing is merged",
}
"""Fields that only a run with a source reads."""

_PIXELS: Mapping[str, str] = {
    # The size is not here: position embeddings are resampled to it, so it changes weights.
    "transform.crop_pct": "no image is looked at",
    "transform.interpolation": "no image is looked at",
    "transform.mean": "no image is looked at",
    "transform.std": "no image is looked at",
    "data.image_backend": "no image is looked at",
}
"""Fields that only change how pixels are read."""

LEFT_OUT: Mapping[Kind, Mapping[str, str]] = {
    "trained": {**_NO_NUMBER, **_SCORING},
    "pretrained": {**_NO_NUMBER, **_SCORING, **_TRAINING, **_SOURCE, **_PIXELS},
    "external": {**_NO_NUMBER, **_SCORING, **_TRAINING, **_SOURCE, **_PIXELS},
    "merged": {
        **_NO_NUMBER,
        **_SCORING,
        # An ingredient that was trained otherwise has another key, and ingredients' keys are in this one.
        **{name: f"{why}: in its ingredients' keys" for name, why in _TRAINING.items()},
    },
    "score": {
        **_NO_NUMBER,
        **_TRAINING,
        **_SOURCE,
        "start": "predictions lie in the folder of the weights that made them",
        "library": "as start",
        "architecture": "as start",
        "data.limit": "which images: each score key has their digest",
        "chosen_at": "as start",
        "external": "as start",
    },
    "fisher": {
        **_NO_NUMBER,
        **_SCORING,
        **{name: why for name, why in _TRAINING.items() if name != "loss."},
        "methods": "those that change the start are in surgery",
        "held_out.": "not looked at",
        "batch_norm": "measured in eval mode",
        "data.limit": "source.images",
        "external": "nothing is estimated",
    },
}
"""For each kind of key the fields that cannot change what it names, with the reason."""

NEUTRAL: Mapping[str, Any] = {
    "accumulate": 1,
    "batch_norm": "update",
    "chosen_at": None,
    "clip": None,
    "compile": False,
    "data.augment": "none",
    "data.limit": None,
    "data.subset_seed": None,
    "external": None,
    "held_out.images": None,
    "ingredients": [],
    "method.fisher_merge.normalise": "none",
    "method.freeze_embed.tokens": "frozen",
    "method.ldifs.scaling": "flattened",
    "method.lines.behind": "last",
    "method.surgical.per": "layer",
    "methods": [],
    "optimizer.code": [],
    "predictions.logits": False,
    "probe": None,
    "processes": 1,
    "source.border": 0,
    "source.precropped": False,
    "steps": None,
    "trainer.strategy": "replicated",
    "trainer.sync_batchnorm": False,
}
"""Values at which the code behaves as it did before the option existed; an entry never changes."""

_WITHOUT_NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "": ("epochs", "batch_size", "precision", "seed"),
    "data.": ("image_backend",),
    "evaluation.": ("precision",),
    "optimizer.": ("_target_", "lr", "warmup_steps", "momentum", "weight_decay", "nesterov", "betas", "eps"),
    "method.ema.": ("decay",),
    "method.ewc.": ("strength", "fisher", "labels", "normalise", "form", "samples", "seed"),
    "method.fisher_merge.": ("alpha", "samples", "seed", "reestimate"),
    "method.ftp.": ("radius", "rate", "anneal", "exclude_head"),
    "method.l2sp.": ("strength",),
    "method.layer_decay.": ("decay",),
    "method.ldifs.": ("strength",),
    "method.linear_probe.": ("train",),
    "method.lines.": ("first", "rise", "reestimate"),
    "method.lora.": ("rank", "alpha", "targets", "train", "seed"),
    "method.lwf.": ("strength", "temperature", "t_squared", "logits", "inputs"),
    "method.model_stock.": ("reestimate",),
    "method.other_start.": ("shuffled", "seed"),
    "method.output_ensemble.": ("weights",),
    "method.rib_soup.": ("leave_out", "reestimate"),
    "method.soup.": ("choice", "strict", "reestimate"),
    "method.spd.": ("strength",),
    "method.surgical.": ("samples", "seed", "power"),
    "method.task_arithmetic.": ("strength", "reestimate"),
    "method.ties.": ("strength", "keep", "reestimate"),
    "method.visual_prompt.": ("border", "init", "seed"),
    "method.wise_ft.": ("alpha", "curve", "choose", "extrapolate", "reestimate"),
}

ALWAYS = frozenset(f"{node}{name}" for node, names in _WITHOUT_NEUTRAL.items() for name in names)
"""Options that are always in the key: they are as old as the current format of keys and have no neutral value."""

METHOD_RESOLVED: Mapping[str, str] = {
    "_target_": "methods: rib's own class by its registered name, others by theirs",
    "lr": "optimizer.lr",
    "ingredients": "ingredients: their own training keys",
    "probe": "probe: its own training key",
}
"""Options of a method that are in the key as other fields."""


METHOD_LEFT_OUT: Mapping[str, str] = {
    "method.ewc.keep_on": "where tensors lie; the numbers are the same",
    "method.l2sp.keep_on": "where tensors lie; the numbers are the same",
}
"""Options of rib's own methods that change no number, each with the reason."""


def key_of(fields: Mapping[str, Any], kind: Kind) -> str:
    """Return the hash key of a run's weights, predictions or Fisher: a digest of the fields that can change them.

    Args:
        fields: From `rib.runs.fields.resolved_fields`.
        kind: The kind of key, which decides what is excluded.

    Returns:
        16 hex digits.
    """
    return digest_of(select_key_fields(fields, kind))


def select_key_fields(fields: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return the fields that are hashed into a key: all except those in `LEFT_OUT` or at their `NEUTRAL` value."""
    left_out = LEFT_OUT[kind]
    return {
        name: value
        for name, value in fields.items()
        if find_entry(left_out, name) is None and not is_neutral(name, value)
    }


def is_neutral(name: str, value: object) -> bool:
    """Return True if an option has its `NEUTRAL` value, at which it changes nothing and is left out of keys."""
    return name in NEUTRAL and NEUTRAL[name] == value


def find_entry(names: Iterable[str], name: str) -> str | None:
    """Return the first of ``names`` that is an option's name or a prefix of it, such as ``data.``; None if none is."""
    return next((entry for entry in names if name == entry or (entry.endswith(".") and name.startswith(entry))), None)
