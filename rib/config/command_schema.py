"""Options of the commands other than `rib.train`, as plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rib.config.schema import Config, DataConfig, FiguresConfig, PathsConfig, data_root


@dataclass
class BenchmarkConfig(Config):
    """Options of `rib.benchmark`, which makes a grid of runs (cells); options of `rib.train` apply to all of them.

    Attributes:
        models: Names of files in ``conf/model``.
        sources: Datasets to fine-tune on; null: those of the suite.
        methods: Names of files in ``conf/method``; ``lwf+wise_ft`` uses two methods together.
        seeds: Random seeds.
        axes: Further axes of the grid: for each option, the values to run.
        grids: Several grids in one; each entry lists which of the five above differ in it.
        action: ``run``, ``status``, ``prune``, ``export`` or ``import``.
        plan_only: Show the plan and stop.
        retry: Repeat runs that have failed.
        jobs: Number of cells to run at the same time; null: one per GPU, else one per ``threads`` cores.
        threads: CPU threads of each run.
        file: Archive that is exported or imported.
        format: ``table`` or ``json``, for status and plan.
        study: Name of the study, set by the files in ``conf/study``.
        draw: Class that draws the study's figures.
    """

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
    """Ranges of a hyperparameter search: [lowest, highest] on a log scale; an option with null is not searched.

    Attributes:
        lr: Peak learning rate.
        strength: The method's strength.
    """

    lr: list[float] | None
    strength: list[float] | None


@dataclass
class SearchConfig(Config):
    """Options of `rib.search`, besides those of `rib.train`.

    Attributes:
        search: Ranges to search in.
        trials: Number of trials, those already in the study included.
        objective: Number to maximise: ``held_out`` (accuracy on held-out source images) is the only choice.
    """

    search: SpaceConfig
    trials: int
    objective: str


@dataclass
class EvaluateConfig(Config):
    """Options of `rib.evaluate`, besides those of `rib.train`.

    Attributes:
        runs: Folder of a finished run to score, or a glob pattern for several.
        weights: File of weights to score, of ``model`` after fine-tuning on ``dataset`` outside rib.
        name: Name of these weights in tables; null: the file's name.
        models_at_a_time: Number of models in memory at the same time; null: as many as fit.
        fail_below: End with exit code 3 if RI is below this many percentage points; null: never.
        fail_on: Number that is compared with ``fail_below``: ``upper`` (end of the 95 % interval) or ``value``.
    """

    runs: str | None
    weights: str | None
    name: str | None
    models_at_a_time: int | None
    fail_below: float | None
    fail_on: str


@dataclass
class ReportConfig:
    """Options of `rib.report`.

    Attributes:
        paths: The run store.
        logger: Dashboard that shows the report, too.
        out: Output folder; null: ``<paths.runs>/report``.
        sources: Show only runs fine-tuned on these datasets; null: all.
        search_trials: Include the trials of `rib.search`.
        models: Show only runs of these models; names or patterns such as ``mini_*``; null: all.
        methods: Show only runs of these methods, likewise.
        seeds: Show only runs with these seeds.
        suites: Show only results on these suites.
        where: Show only runs that meet these conditions on their options, ``optimizer.lr=0.001``.
        sort: Column to sort rows by, in ascending order; ``-COLUMN`` or ``COLUMN desc``: in descending order.
        figures: Files that figures are written to.
    """

    paths: PathsConfig
    logger: dict[str, Any]
    out: str | None
    sources: Any = None
    search_trials: bool = False
    models: Any = None
    methods: Any = None
    seeds: Any = None
    suites: Any = None
    where: Any = None
    sort: str | None = None
    figures: FiguresConfig = field(default_factory=FiguresConfig)


@dataclass
class ShownConfig:
    """Loading of the images that an analysis runs on.

    Attributes:
        root: Folder with the datasets; null: the one that the run used.
        workers: Processes that load images; null: chosen by rib.
        suite: File of a user's suite; null: the one that the run used.
        cache: Bytes that decoded images may take on disk, as in `rib.train`.
    """

    root: str | None = None
    workers: int | None = None
    suite: str | None = None
    cache: str = "auto"

    def __post_init__(self) -> None:
        self.root = data_root(self.root)


@dataclass
class AnalyzeConfig:
    """Options of `rib.analyze` that all analyses share.

    Attributes:
        run: Folder of a finished run.
        analysis: Name of the analysis, ``cka`` or ``drift``.
        against: Folder of the run to compare with; null: the `pretrained` run of the same model.
        device: Device as torch names it; null: a GPU if there is one.
        force: Repeat the analysis even if its result exists.
        data: Images to analyse on.
        paths: Run store and cache.
        logger: Dashboard that shows the result, too.
        figures: Files that figures are written to.
    """

    run: str
    analysis: str = "drift"
    against: str | None = None
    device: str | None = None
    force: bool = False
    data: ShownConfig = field(default_factory=ShownConfig)
    paths: PathsConfig = field(default_factory=lambda: PathsConfig("runs", None))
    logger: dict[str, Any] = field(default_factory=dict)
    figures: FiguresConfig = field(default_factory=FiguresConfig)


@dataclass
class InversionConfig:
    """Settings of representation inversion, for STIR (`rib.analysis.stir`).

    Attributes:
        images: Number of images to invert.
        steps: Optimizer steps.
        lr: Learning rate of the pixels.
    """

    images: int = 64
    steps: int = 200
    lr: float = 0.05


@dataclass
class CKAConfig(AnalyzeConfig):
    """Options of ``analysis=cka``, the similarity of two models' layers; ``conf/analysis/cka.yaml`` explains them."""

    analysis: str = "cka"
    datasets: list[str] | None = None
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
    """Options of `rib.data`, which checks the datasets on disk, draws contact sheets and writes files of suites.

    Attributes:
        action: ``check``, ``look``, ``sheet`` or ``init``.
        data: Dataset to look at, its folder, and how its images are read.
        paths: The cache.
        out: File of the contact sheet or of the suite; null: contact_sheet.png, or NAME.yaml in the folder.
        folder: Folder of images that ``init`` writes a suite's file for.
        force: Replace a suite's file that exists.
    """

    action: str
    data: DataConfig
    paths: PathsConfig
    out: str | None
    folder: str | None
    force: bool


@dataclass
class WorldConfig:
    """Pretraining data of one of the built-in mini models: synthetic images, which rib generates itself.

    Attributes:
        name: Name of the model.
        images: Number of images.
        epochs: Passes over the images.
        looks: Visual styles, keys of `rib.data.mini.world.LOOKS`.
    """

    name: str
    images: int
    epochs: int
    looks: list[str]


@dataclass
class PretrainConfig:
    """Options of `rib.pretrain`, which pretrains one of the built-in mini models.

    Attributes:
        pretrain: Pretraining data of the model.
        out: File to write; null: the file that is part of rib.
        threads: CPU threads; the last digits of the result depend on their number.
        seed: Random seed.
        batch_size: Images of a step.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
    """

    pretrain: WorldConfig
    out: str | None
    threads: int
    seed: int
    batch_size: int
    lr: float
    weight_decay: float
