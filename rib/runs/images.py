"""The images of a run as a data module, and the check of damaged files before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rib.data.worlds import cache_dir
from rib.runs.spec import RunSpec

if TYPE_CHECKING:
    from rib.data.datamodule import RIBDataModule


def look_at_images(spec: RunSpec) -> None:
    """Say which images are damaged before anything is made of them; mini's are drawn here.

    Raises:
        RibError: If there are any and ``data.damaged`` is ``refuse``.
    """
    if spec.catalog.kind == "mini":
        return
    from rib.data.damage import report_damage

    config, source = spec.config, [] if spec.source is None else [spec.source]
    records = Path(config.paths.runs) / "datasets"
    report_damage([*spec.images.values(), *source], records, str(config.data.damaged), config.data.rescan)


def data_of(spec: RunSpec) -> RIBDataModule:
    """What serves a question's images."""
    from rib.data.datamodule import RIBDataModule

    config = spec.config
    return RIBDataModule(
        spec.source,
        spec.images,
        spec.start.transform,
        batch_size=config.batch_size,
        evaluation_batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        augment=str(config.data.augment),
        image_backend=str(config.data.image_backend),
        cache=cache_dir(config.paths.cache) / "crops",
    )
