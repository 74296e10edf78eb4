"""Options of `rib.train`, as plain dataclasses.

Hydra composes yaml files and the command line; `rib.config.check` checks the result against these classes (so that
``+methd=ewc`` is an error that suggests ``method``) and returns a `Config`, which is never modified. Where ``epochs``,
``optimizer.lr``, ``optimizer.warmup_steps`` or ``precision`` is null, `rib.runs.recipe` chooses the value by the kind
of data and the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MINI = "mini"
"""Value of ``data.root`` that means the built-in data, whatever ``RIB_DATA`` says."""


class BatchNorm(StrEnum):
    """BatchNorm's running statistics during fine-tuning: updated, or frozen at the pretrained ones."""

    update = "update"
    frozen = "frozen"


class ImageBackend(StrEnum):
    """Library that decodes and resizes images: torchvision on uint8 tensors (fast), or PIL with timm's transforms."""

    torchvision = "torchvision"
    pil = "pil"


class Damaged(StrEnum):
    """Reaction to damaged JPEG files, which libjpeg decodes with part of the image missing (`rib.data.damage`)."""

    warn = "warn"
    refuse = "refuse"
    ignore = "ignore"


class Augment(StrEnum):
    """Augmentation of training images; ``none`` applies the checkpoint's evaluation transform, as in the paper."""

    none = "none"
    flip = "flip"
    random_resized_crop = "random_resized_crop"


class LabelRule(StrEnum):
    """Rule that maps ImageNet's 1000 outputs to ObjectNet's classes, some of which match several outputs."""

    max = "max"
    first = "first"
    authors = "authors"


class Identity(StrEnum):
    """Properties of image files that the hash of a dataset covers: path, size and content, or path and size only."""

    content = "content"
    listing = "listing"


@dataclass
class TransformConfig:
    """Evaluation transform (resize, crop, normalise); null takes the value recorded with the checkpoint.

    Attributes:
        size: Height and width in pixels of the images given to the model.
        crop_pct: Size of the centre crop as a fraction of the resized image.
        interpolation: ``bicubic`` or ``bilinear``.
        mean: Per channel, subtracted from pixels in 0 to 1.
        std: Per channel, pixels are divided by it.
    """

    size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass
class PretrainingConfig:
    """Pretraining data of a model, for studies of pretraining scale; it does not affect a run's results.

    Attributes:
        images: Number of images or image-text pairs, before any fine-tuning on ImageNet-1k; for DataComp, of its pool.
        objective: ``supervised``, ``contrastive``, or ``contrastive, then supervised``.
    """

    images: int | None = None
    objective: str | None = None


@dataclass
class ModelConfig:
    """The pretrained model and the source of its weights.

    Attributes:
        name: Name in tables and the store's folders; the library's own name if ``architecture`` is null.
        library: ``mini``, ``timm``, or ``open_clip`` (an image tower with a zero-shot head).
        architecture: The library's name of the network.
        tag: The library's name of the checkpoint.
        hub: Repository on the Hugging Face hub; null: the library's default.
        file: File in that repository or package; null: the library's default.
        package: Installed Python package that contains the weights.
        weights: Local file, used instead of hub or package.
        activation: ``gelu`` or ``quickgelu``, the activation that a CLIP model was trained with; null: derived from tag
            or name, and weights without either are refused.
        transform: Evaluation transform; its values replace those recorded with the checkpoint.
        published: Published top-1 in percent by dataset, to compare an evaluation with.
        pretraining: Pretraining data.
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
    """The source: the dataset that the model is fine-tuned on."""

    name: str


@dataclass
class SuiteConfig:
    """A benchmark suite: the datasets to fine-tune on, those that count towards RI, and those only reported.

    Attributes:
        name: Name in tables and file names.
        sources: Datasets that a grid fine-tunes on.
        targets: Datasets whose mean change in accuracy is RI; the source is left out of its own.
        reported: Datasets that are scored but not part of RI.
    """

    name: str
    sources: list[str]
    targets: list[str]
    reported: list[str]


@dataclass
class RecipeConfig:
    """Default training settings for one kind of data (user or mini), used for options that are null.

    Attributes:
        epochs: Passes over the source.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up; null: a tenth of all.
    """

    epochs: int
    lr: float
    warmup_steps: int | None


def data_root(given: str | None) -> str | None:
    """Return the folder that ``data.root`` names, or None for mini, which is spelt null, ``mini`` or an empty text.

    Without a name for mini, ``RIB_DATA`` could be overridden only by ``data.root=null``, which nobody guesses. A folder
    of that name is ``./mini``.
    """
    return None if given in (None, "", MINI) else given


@dataclass
class DataConfig:
    """Images to train and score on; ``conf/data/default.yaml`` explains the options."""

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
    suite: str | None = None
    cache: str = "auto"

    def __post_init__(self) -> None:
        self.root = data_root(self.root)


@dataclass
class HeadConfig:
    """Head of a model whose outputs are not the suite's classes.

    Attributes:
        kind: ``zero_shot`` (open_clip), ``subset`` (outputs of ImageNet-1K that count as each class), ``probe``
            (logistic regression on frozen features); null: the suite's, or the model's own outputs.
        reference: Dataset that trains the probe alone and is neither source nor target; null: the suite's, or else a
            part of each source.
        share: Fraction of each class of the source that trains the probe, where there is no reference.
        l2: Strengths of the probe's L2 penalty to choose from: the penalty is l2 / 2 times the squared weights, added
            to the mean cross-entropy (nats).
        holdout: Fraction of the probe's images by which the strength is chosen.
        seed: Seed of both choices of images.
    """

    kind: str | None = None
    reference: str | None = None
    share: float = 0.3
    l2: list[float] = field(default_factory=lambda: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    holdout: float = 0.1
    seed: int = 0


@dataclass
class EvaluationConfig:
    """Settings for scoring images; changing the precision makes rib score again, changing the batch size does not."""

    batch_size: int
    precision: str


@dataclass
class PredictionsConfig:
    """Outputs saved for each scored image.

    Attributes:
        logits: Save all outputs, besides the prediction.
    """

    logits: bool


@dataclass
class CheckpointConfig:
    """Checkpoints written during training; these options do not affect results.

    Attributes:
        every_minutes: Minutes between two writes of last.ckpt; it is also written after epochs, but for short ones.
        keep_epochs: Keep the weights of every epoch in the run's folder.
    """

    every_minutes: float
    keep_epochs: bool


@dataclass
class PaperConfig:
    """Switches that reproduce errors of the ImageNet-RIB authors' code (`rib.runs.errata`); null: without the error."""

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
    """Folders that rib writes to.

    Attributes:
        runs: The run store.
        cache: Files that rib can make again (drawn images, decoded images); null: ``RIB_CACHE`` or ~/.cache/rib.
    """

    runs: str
    cache: str | None


PAGE = (2.5, 20.0)
"""Narrowest and widest figure, inches; in less, labels of 7 points leave no room for what they label."""

FIGURE_FORMATS = ("png", "pdf", "svg")
"""Formats that a figure can be written in."""


@dataclass
class FiguresConfig:
    """Files that figures are written to; these options change no number.

    Attributes:
        format: ``png``, ``pdf`` or ``svg``, or a list of them; `rib.config.check` turns one into a list.
        width: Width of the page in inches, 3.3 for one column; null: each figure's own.
        title: False to leave headlines out, for a figure whose caption says the same.
    """

    format: Any = field(default_factory=lambda: ["png", "pdf"])
    width: float | None = None
    title: bool = True


@dataclass
class Config:
    """All options of `rib.train`; read-only by convention. ``conf/train.yaml`` explains them.

    Attributes:
        given: Names of the options on the command line, filled in by `rib.config`. A switch of ``paper`` changes
            defaults, and an option that the user has set is no default, even if it has the default value.
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
    figures: FiguresConfig
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
    compile: bool
    gradient_checkpointing: bool
    profile: bool
    given: list[str]
    head: HeadConfig
