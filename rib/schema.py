"""What a command can say: the closed schema behind every config, as plain dataclasses.

Hydra composes yaml files and the command line; `rib.config` checks the result against these classes (so that
``+methd=ewc`` is an error, with the nearest right name) and hands on a `Config`, which is never changed. The values
``null`` in ``epochs``, ``optimizer.lr``, ``optimizer.warmup_steps`` and ``precision`` are settled by `rib.recipe`
from the kind of data and the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
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


@dataclass
class BenchmarkConfig(Config):
    """One question to `rib.benchmark`: a grid, each of whose cells is a question to `rib.train`."""

    models: list[str]
    sources: list[str] | None
    methods: list[str]
    seeds: list[int]
    axes: dict[str, Any] | None
    grids: list[dict[str, Any]]
    action: str
    plan_only: bool
    retry: bool
    jobs: int | None
    threads: int
    file: str | None
    format: str
    study: str | None
    draw: dict[str, Any]


@dataclass
class SpaceConfig:
    """What a search tries: lowest and highest, on a log scale; null is not searched."""

    lr: list[float] | None
    strength: list[float] | None


@dataclass
class SearchConfig(Config):
    """One question to `rib.search`."""

    search: SpaceConfig
    trials: int
    objective: str


@dataclass
class EvaluateConfig(Config):
    """One question to `rib.evaluate`.

    Attributes:
        runs: Finished runs to score, a folder or a pattern.
        weights: A file of weights from elsewhere to score, of ``model`` after fine-tuning on ``dataset``.
        name: What such weights are called in tables; null: as the file.
        models_at_a_time: Models in memory at once; null: as many as fit.
    """

    runs: str | None
    weights: str | None
    name: str | None
    models_at_a_time: int | None


@dataclass
class ReportConfig:
    """One question to `rib.report`.

    Attributes:
        out: Folder to write into; null: ``<paths.runs>/report``.
        sources: Only runs on these; null: all.
        search_trials: Show what `rib.search` made to choose a setting, too.
    """

    paths: PathsConfig
    logger: dict[str, Any]
    out: str | None
    sources: list[str] | None
    search_trials: bool = False


@dataclass
class ShownConfig:
    """Where the images of an analysis come from; root null: where the run's own came from."""

    root: str | None = None
    workers: int | None = None


@dataclass
class AnalyzeConfig:
    """One question to `rib.analyze`: what every analysis reads.

    Attributes:
        run: Folder of a finished run.
        analysis: Its name.
        against: Folder of another run; null: the `pretrained` run behind it.
        device: torch's name for it; null: a GPU where there is one.
        force: Make it again although it is there.
    """

    run: str
    analysis: str = "drift"
    against: str | None = None
    device: str | None = None
    force: bool = False
    data: ShownConfig = field(default_factory=ShownConfig)
    paths: PathsConfig = field(default_factory=lambda: PathsConfig("runs", None))
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class InversionConfig:
    """How images are found that a model cannot tell from given ones (`rib.analysis.stir`)."""

    images: int = 64
    steps: int = 200
    lr: float = 0.05


@dataclass
class CKAConfig(AnalyzeConfig):
    """CKA layer by layer; the values are explained in ``conf/analysis/cka.yaml``."""

    analysis: str = "cka"
    datasets: list[str] = field(default_factory=lambda: ["imagenet_val"])
    images: int = 2000
    seed: int = 0
    tokens: str | None = None
    estimator: str = "minibatch"
    batch_size: int = 32
    checkpoints: bool = False
    stir: bool = False
    inversion: InversionConfig = field(default_factory=InversionConfig)


@dataclass
class DataCommandConfig:
    """One question to `rib.data`."""

    action: str
    data: DataConfig
    paths: PathsConfig
    out: str | None


@dataclass
class WorldConfig:
    """One of the worlds that mini's models are pretrained on."""

    name: str
    images: int
    epochs: int
    looks: list[str]


@dataclass
class PretrainConfig:
    """One question to `rib.pretrain`."""

    pretrain: WorldConfig
    out: str | None
    threads: int
    seed: int
    batch_size: int
    lr: float
    weight_decay: float
