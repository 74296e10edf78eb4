"""What a command can say: the closed schema behind every config, as plain dataclasses.

Hydra composes yaml files and the command line; `rib.config` checks the result against these classes (so that
``+methd=ewc`` is an error, with the nearest right name) and hands on a `Config`, which is never changed. The values
``null`` in ``epochs``, ``optimizer.lr``, ``optimizer.warmup_steps`` and ``precision`` are settled by `rib.runs.recipe`
from the kind of data and the machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from typing import Any


class BatchNorm(StrEnum):
    """What fine-tuning does to BatchNorm's running statistics."""

    update = "update"
    frozen = "frozen"


class ImageBackend(StrEnum):
    """Who decodes and resizes: torchvision on uint8 (fast), or PIL exactly as timm does it."""

    torchvision = "torchvision"
    pil = "pil"


class Damaged(StrEnum):
    """What happens where a JPEG file can be read although it is damaged (`rib.data.damage`)."""

    warn = "warn"
    refuse = "refuse"
    ignore = "ignore"


class Augment(StrEnum):
    """What happens to training images besides the checkpoint's own evaluation transform."""

    none = "none"
    flip = "flip"
    random_resized_crop = "random_resized_crop"


class LabelRule(StrEnum):
    """How ObjectNet's classes are read off ImageNet outputs (facts in `rib.data.catalog`)."""

    max = "max"
    first = "first"
    authors = "authors"


class Identity(StrEnum):
    """By what images are told in keys: path, size and content, or path and size alone."""

    content = "content"
    listing = "listing"


@dataclass
class TransformConfig:
    """A checkpoint's evaluation transform; null means: ask the checkpoint."""

    size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass
class PretrainingConfig:
    """What a model had seen, for the studies that ask whether that matters; it changes no number of a run.

    Attributes:
        images: How many images or image-text pairs, before any fine-tuning on ImageNet-1k; of DataComp its pool.
        objective: ``supervised``, ``contrastive``; ``contrastive, then supervised``.
    """

    images: int | None = None
    objective: str | None = None


@dataclass
class ModelConfig:
    """Which pretrained model, from which library.

    Attributes:
        name: As in tables and the store's folders; also the library's own name where ``architecture`` is null.
        library: ``mini``, ``timm``, or ``open_clip`` (an image tower with a zero-shot head).
        architecture: The library's name for the network.
        tag: The library's name for the checkpoint of that architecture.
        hub: Repository on the Hugging Face hub; null means: ask the library.
        file: File in that repository or package; null means: ask the library.
        package: Installed Python package that holds the weights.
        weights: Local file that takes the place of all of these.
        activation: ``gelu`` or ``quickgelu``, what a CLIP model's weights were trained with; null means: as the tag or
            the name says, and weights without either are refused.
        transform: What differs from the checkpoint's own.
        published: Top-1 in percent by dataset, to compare an evaluation with.
        pretraining: What it had seen.
    """

    name: str
    library: str
    architecture: str | None = None
    tag: str | None = None
    hub: str | None = None
    file: str | None = None
    package: str | None = None
    weights: str | None = None
    activation: str | None = None
    transform: TransformConfig = field(default_factory=TransformConfig)
    published: dict[str, float] = field(default_factory=dict)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)


@dataclass
class DatasetConfig:
    """The source: the dataset that is fine-tuned on."""

    name: str


@dataclass
class SuiteConfig:
    """Which datasets are sources, which are targets, and which are only reported."""

    name: str
    sources: list[str]
    targets: list[str]
    reported: list[str]


@dataclass
class RecipeConfig:
    """What null means for one kind of data."""

    epochs: int
    lr: float
    warmup_steps: int | None


@dataclass
class DataConfig:
    """Where images come from and which of them take part."""

    root: str | None
    limit: int | None
    images_per_class: int | None
    subset_seed: int | None
    shuffled_labels: bool
    holdout: float
    augment: Augment
    image_backend: ImageBackend
    damaged: Damaged
    label_rule: LabelRule
    workers: int | None
    identity: Identity | None
    rescan: bool
    allow_incomplete: bool
    objectnet_training: str | None


@dataclass
class EvaluationConfig:
    """How models are scored; precision is in the score key, batch size is in no key."""

    batch_size: int
    precision: str


@dataclass
class PredictionsConfig:
    """What is kept for each image."""

    logits: bool


@dataclass
class CheckpointConfig:
    """How often an unfinished run is saved, and whether the weights of every epoch stay; in no key."""

    every_minutes: float
    keep_epochs: bool


@dataclass
class PaperConfig:
    """Errors and choices of the ImageNet-RIB authors' code, each switched on by its name; null is right."""

    linear_probe: str | None
    ewc: str | None
    lwf: str | None
    lora: str | None
    visual_prompt: str | None
    objectnet: str | None
    objectnet_loss: str | None
    resize_imagenet_c: bool


@dataclass
class PathsConfig:
    """Where results and re-creatable files go."""

    runs: str
    cache: str | None


@dataclass
class Config:
    """One question to `rib.train`, as composed; read-only by convention.

    Attributes:
        given: Names of what the command line says (filled in by `rib.config`): a switch of ``paper`` changes defaults,
            and what was said is none, whatever its value.
    """

    model: ModelConfig
    dataset: DatasetConfig
    suite: SuiteConfig
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    logger: dict[str, Any]
    data: DataConfig
    recipe: dict[str, RecipeConfig]
    evaluation: EvaluationConfig
    predictions: PredictionsConfig
    checkpoint: CheckpointConfig
    paper: PaperConfig
    paths: PathsConfig
    method: dict[str, Any]
    experiment: str | None
    epochs: int | None
    steps: int | None
    batch_size: int
    accumulate: int
    clip: float | None
    precision: str | None
    gpu_precision: str
    batch_norm: BatchNorm
    seed: int
    force: bool
    keep_memory: bool
    given: list[str]


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a dataclass or of nested dictionaries by dotted names, enums as their values."""
    found: dict[str, Any] = {}
    for key, value in (node if isinstance(node, dict) else asdict(node)).items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value.value if isinstance(value, Enum) else value
    return found
