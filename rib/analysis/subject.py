"""A finished run as something to look into: its weights, what it was before, and the images it is shown. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import rib.config
from rib.config.command_schema import AnalyzeConfig
from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.data.scan import scan
from rib.data.tree import ImageTree
from rib.data.worlds import cache_dir, find_data
from rib.errors import DamagedError, RibError
from rib.models.start import Start, find_start
from rib.runs.command import command_of
from rib.runs.method_stack import NO_WEIGHTS, classes_of
from rib.runs.metrics_file import AGAIN, is_older, older_words
from rib.runs.run import Run
from rib.runs.spec import PRETRAINED
from rib.runtime.console import say
from rib.runtime.content import file_digest_of
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.models.classifier import Classifier


@dataclass(frozen=True)
class Subject:
    """A finished run with weights.

    Attributes:
        run: Its folder.
        metrics: Its metrics.json.
        config: What it was made with; the places of data and cache are those of the analysis.
    """

    run: Run
    metrics: Metrics
    config: Config

    @classmethod
    def of(cls, folder: str | Path, config: AnalyzeConfig, where: str = "run") -> Subject:
        """The run in a folder.

        Args:
            folder: Of a finished run.
            config: Whose ``data.root`` (null: the run's own) and ``paths.cache`` hold.
            where: Names the option in messages.

        Raises:
            RibError: If it is no finished run, or has no weights of its own to analyse.
        """
        run = Run(Path(folder).expanduser())
        try:
            metrics = run.metrics()
        except DamagedError as error:
            fault = str(error).removesuffix(f"; {AGAIN}")
            raise RibError(f"{where}: {fault}; mend it with {command_of(run)}") from error
        if metrics is None:
            raise RibError(f"{where}: expected the folder of a finished run, with metrics.json, got {folder}")
        for method in metrics["method"].split("+"):
            if method in NO_WEIGHTS:
                raise RibError(
                    f"{where}: {folder} is a run of {method}, which cannot be analysed: {NO_WEIGHTS[method]}"
                )
        if not run.weights_file.is_file():
            raise RibError(
                f"{where}: {folder} has no weights, as after an import; to look into it make it again with "
                f"{command_of(run, force=True)}"
            )
        if is_older(metrics):
            say(f"{where}: {folder} {older_words(metrics)}; its weights are looked into as they are")
        try:
            made = rib.config.load_config(run.folder / "config.yaml")
        except RibError as error:
            raise RibError(f"{where}: {error}; make it again with {command_of(run, force=True)}") from error
        for method in classes_of(made) & NO_WEIGHTS.keys():  # under another name, too
            raise RibError(f"{where}: {folder} is a run of {method}, which cannot be analysed: {NO_WEIGHTS[method]}")
        if not run.is_intact:
            raise RibError(
                f"{where}: {run.weights_file} is damaged: it is not what was written; make it again with "
                f"{command_of(run, force=True)}"
            )
        root = None if metrics["data"]["kind"] == "mini" else config.data.root or made.data.root
        data = replace(made.data, root=root, workers=config.data.workers)
        return cls(run, metrics, replace(made, data=data, paths=config.paths))

    @property
    def before(self) -> Path:
        """Folder of the `pretrained` run behind it.

        Raises:
            RibError: If that run is gone.
        """
        # <store>/<data>/<model>/<source>/<method>/<key>
        folder: Path = self.run.folder.absolute().parents[2] / "none" / "pretrained" / self.metrics["before"]
        if not (folder / "metrics.json").is_file():
            raise RibError(
                f"run: its start, the pretrained run {folder}, is gone; make it again with "
                f"{command_of(self.run, method={PRETRAINED: {}})}, or give against=DIR"
            )
        return folder

    @property
    def label(self) -> str:
        """For people: ``mini_small, ewc on imagenet_r, seed 0``."""
        m = self.metrics
        return f"{m['model']}, " + (
            "pretrained" if m["source"] == "none" else f"{m['method']} on {m['source']}, seed {m['seed']}"
        )

    @cached_property
    def start(self) -> Start:
        """The network with the run's own weights in the place of the checkpoint's."""
        return replace(find_start(self.config.model, cache_dir(self.config.paths.cache)), weights=self.run.weights_file)

    @cached_property
    def _data(self) -> tuple[Catalog, Path]:
        return find_data(self.config)

    @cached_property
    def weights_digest(self) -> str:
        """Of the content: a run that was made again may have other weights under its old key."""
        return file_digest_of(self.run.weights_file, cache_dir(self.config.paths.cache) / "digests")

    @property
    def catalog(self) -> Catalog:
        """The world that it knows."""
        return self._data[0]

    def tree(self, dataset: str) -> ImageTree:
        """The images of a dataset.

        Raises:
            RibError: If there is no such dataset, or it is not where it should be.
        """
        catalog, root = self._data
        records = self.run.folder.absolute().parents[4] / "datasets"
        data = self.config.data
        return scan(catalog[dataset], root, records, data.rescan, data.allow_incomplete, data.identity)

    def model(self, weights: Path | None = None) -> Classifier:
        """The model with the run's final weights, or with those in a file; in eval mode, on the CPU."""
        from rib.models.build import build

        start = self.start if weights is None else replace(self.start, weights=weights)
        return build(start, len(self.catalog.wnids))

    @property
    def epochs(self) -> dict[int, Path]:
        """Weights kept at the end of each epoch.

        Raises:
            RibError: If none were kept.
        """
        files = {int(file.stem): file for file in (self.run.folder / "epochs").glob("*.safetensors")}
        if not files:
            keep = replace(self.config.checkpoint, keep_epochs=True)
            raise RibError(
                f"checkpoints: {self.run.folder} keeps no weights of its epochs; make it again with "
                f"{command_of(self.run, checkpoint=keep, force=True)}"
            )
        return dict(sorted(files.items()))

    @property
    def crops(self) -> Path:
        """Where decoded images are kept."""
        return cache_dir(self.config.paths.cache) / "crops"


def labels(one: Subject, other: Subject) -> dict[str, str]:
    """What figures say of two runs: their names, and whose data it is."""
    return {"run_label": one.label, "against_label": other.label, "kind": one.metrics["data"]["kind"]}
