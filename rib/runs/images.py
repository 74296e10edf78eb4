"""Loaders of the images of a run, for training and for scoring, and a check for damaged files before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.config.schema import Config
from rib.data.worlds import cache_dir
from rib.runs.spec import RunSpec

if TYPE_CHECKING:
    from rib.data.datamodule import RIBDataModule
    from rib.data.evaluation import EvaluationImages


def check_images(spec: RunSpec) -> None:
    """Report damaged files among the images that a run will read, before it begins.

    Raises:
        RibError: If a file is damaged and ``data.damaged`` is ``refuse``.
    """
    if spec.catalog.kind == "mini":  # drawn by rib itself and identified by pixels
        return
    # Imported here, as everything is that brings torch along: a finished run is found without it.
    from rib.data.damage import report_damage

    config, trained = spec.config, [tree for tree in (spec.source, spec.head_images) if tree is not None]
    records = Path(config.paths.runs) / "datasets"
    report_damage([*spec.images.values(), *trained], records, str(config.data.damaged), config.data.rescan)


def scored_images_of(spec: RunSpec) -> EvaluationImages:
    """Return what serves the images that a run is scored on, as `data_of` does, but without importing Lightning."""
    from rib.data.evaluation import EvaluationImages

    return EvaluationImages(spec.images, spec.start.transform, **loading_options(spec.config))


def loading_options(config: Config) -> dict[str, Any]:
    """Return the arguments of `EvaluationImages` and `RIBDataModule` that say how images are read and kept."""
    return {
        "evaluation_batch_size": config.evaluation.batch_size,
        "workers": config.data.workers,
        "image_backend": str(config.data.image_backend),
        "cache": cache_dir(config.paths.cache) / "crops",
        "cache_limit": config.data.cache,
    }


def data_of(spec: RunSpec) -> RIBDataModule:
    """Return the data module that serves a run's training and evaluation images."""
    from rib.data.datamodule import RIBDataModule

    config = spec.config
    return RIBDataModule(
        spec.source,
        spec.images,
        spec.start.transform,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=str(config.data.augment),
        **loading_options(config),
    )
