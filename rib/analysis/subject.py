"""The subject of an analysis: a finished run with its weights, its pretrained run and its datasets.

This module imports torch only inside functions: a cached analysis must be readable without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rib.config.command_schema import AnalyzeConfig
from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.data.scan import scan
from rib.data.tree import ImageTree
from rib.data.worlds import TOY, cache_dir, find_data, title_of
from rib.errors import DamagedError, RibError
from rib.models.start import Start, find_start
from rib.reporting.data_warning import warn_before
from rib.runs.command import command_of
from rib.runs.heads import head_of
from rib.runs.metrics_file import AGAIN, is_older, older_words
from rib.runs.own_suite import suite_file
from rib.runs.run import Run
from rib.runs.spec import PRETRAINED
from rib.runs.usable import check_weights
from rib.runtime.console import say
from rib.runtime.content import file_digest_of
from rib.runtime.weights_file import has_own_digest, weights_file_digest
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.models.classifier import Classifier


@dataclass(frozen=True)
class Subject:
    """A finished run whose weights can be analysed.

    Attributes:
        run: The run's folder.
        metrics: The run's metrics.json.
        config: The config that the run was made with, but with the paths of data and cache of the analysis.
    """

    run: Run
    metrics: Metrics
    config: Config

    @classmethod
    def of(cls, folder: str | Path, config: AnalyzeConfig, where: str = "run") -> Subject:
        """Open the run in a folder.

        Args:
            folder: Folder of a finished run.
            config: Options of the analysis; its ``data.root`` (null: the run's own) and ``paths.cache`` are used.
            where: Name of the option that gave the folder, for messages.

        Raises:
            RibError: If it is not a finished run, its weights are missing or damaged, or its method has no weights of
                its own to analyse.
        """
        run = Run(Path(folder).expanduser())
        metrics = _read_metrics(run, folder, where)
        made = check_weights(run, metrics, where, folder)
        if is_older(metrics):
            say(f"{where}: {folder} {older_words(metrics)}; its weights are analysed as they are")
        kind = metrics["data"]["kind"]
        if kind == "mini" and config.data.root is not None:
            raise RibError(
                f"data.root={config.data.root}: {folder} is a run on {TOY}, which rib draws itself, and analysed on "
                "it; leave data.root out"
            )
        root = None if kind == "mini" else config.data.root or made.data.root
        file = suite_file(kind, config.data.suite, made)
        data = replace(made.data, root=root, suite=file, workers=config.data.workers)
        warn_before([metrics["model"]], root)
        return cls(run, metrics, replace(made, data=data, paths=config.paths))

    @property
    def pretrained(self) -> Path:
        """Folder of the `pretrained` run that this run is compared with.

        Raises:
            RibError: If that folder is missing.
        """
        # <store>/<data>/<model>/<source>/<method>/<key>
        folder: Path = self.run.folder.absolute().parents[2] / "none" / "pretrained" / self.metrics["before"]
        if not (folder / "metrics.json").is_file():
            raise RibError(
                f"run: its pretrained run, {folder}, is missing; make it again with "
                f"{command_of(self.run, method={PRETRAINED: {}})}, or give another run as against=DIR"
            )
        return folder

    @property
    def label(self) -> str:
        """Name of the run for figures and messages: ``mini_small, ewc on mini R, seed 0``."""
        m = self.metrics
        source = title_of(m["source"], m["data"]["kind"])
        return f"{m['model']}, " + (
            "pretrained" if m["source"] == "none" else f"{m['method']} on {source}, seed {m['seed']}"
        )

    @cached_property
    def start(self) -> Start:
        """Network, image transform and weights file of the run: those of its pretrained model, but its own weights."""
        head = head_of(self.config, self.catalog)
        start = find_start(self.config.model, cache_dir(self.config.paths.cache), head=head)
        return start.with_weights(self.run.weights_file)

    @cached_property
    def _data(self) -> tuple[Catalog, Path]:
        return find_data(self.config)

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the weights file's content.

        The run's key is not enough: a run that was made again may have other weights under its old key.
        """
        file = self.run.weights_file
        if has_own_digest(file):
            return weights_file_digest(file)[:16]
        return file_digest_of(file, cache_dir(self.config.paths.cache) / "digests")

    @property
    def catalog(self) -> Catalog:
        """Catalog of the datasets that the run was scored on: toy data (mini) or the ImageNet family."""
        return self._data[0]

    def tree(self, dataset: str) -> ImageTree:
        """Return the list of a dataset's images.

        Raises:
            RibError: If there is no such dataset, or its folder is missing or incomplete.
        """
        catalog, root = self._data
        records = self.run.folder.absolute().parents[4] / "datasets"
        data = self.config.data
        return scan(catalog[dataset], root, records, data.rescan, data.allow_incomplete, data.identity)

    def model(self, weights: Path | None = None) -> Classifier:
        """Build the model with the run's final weights, or with those in a file; in eval mode, on the CPU."""
        from rib.models.build import build

        return build(self.start if weights is None else self.start.with_weights(weights))

    @property
    def epochs(self) -> dict[int, Path]:
        """Weights files saved after each epoch, by number of the epoch.

        Raises:
            RibError: If the run kept none (``checkpoint.keep_epochs=false``).
        """
        files = {int(file.stem): file for file in (self.run.folder / "epochs").glob("*.safetensors")}
        if not files:
            keep = replace(self.config.checkpoint, keep_epochs=True)
            raise RibError(
                f"checkpoints: {self.run.folder} has no weights of its epochs; make it again with "
                f"{command_of(self.run, checkpoint=keep, force=True)}"
            )
        return dict(sorted(files.items()))

    @property
    def crops(self) -> Path:
        """Folder that caches cropped and resized images (`rib.data.crop_cache`)."""
        return cache_dir(self.config.paths.cache) / "crops"


def _read_metrics(run: Run, folder: str | Path, where: str) -> Metrics:
    """Read the metrics of a finished run; raise a RibError that names the option if there are none."""
    try:
        metrics = run.metrics()
    except DamagedError as error:
        fault = str(error).removesuffix(f"; {AGAIN}")
        raise RibError(f"{where}: {fault}; repair it with {command_of(run)}") from error
    if metrics is None:
        raise RibError(f"{where}: expected the folder of a finished run, with metrics.json, got {folder}")
    return metrics


def labels(one: Subject, other: Subject) -> dict[str, str]:
    """Return the metadata that figures print: labels of the two compared runs, and the kind of data (mini or user)."""
    return {"run_label": one.label, "against_label": other.label, "kind": one.metrics["data"]["kind"]}
