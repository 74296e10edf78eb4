"""Schemas of the commands besides `rib.train`: what each can be asked, as plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rib.config.schema import Config, DataConfig, PathsConfig


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
