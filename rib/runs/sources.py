"""The source of a run: its images, and the parts of it that are held out or train a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from rib.config.schema import Config
from rib.data.catalog import Catalog
from rib.data.probe_split import split_for_probe
from rib.data.tree import ImageTree
from rib.errors import RefusedError, RibError
from rib.runs.spec import PERMISSION

Once = Callable[[object, Callable[[], tuple[ImageTree, ImageTree]]], tuple[ImageTree, ImageTree]]


def whole_source(
    config: Config, catalog: Catalog, scored: Mapping[str, ImageTree], find: Callable[[str], ImageTree]
) -> ImageTree:
    """Return all images of the dataset to fine-tune on, of which the probe without a reference gets a part.

    Args:
        config: With its head settled.
        catalog: Of its datasets.
        scored: Images of the datasets to score, by name.
        find: Returns the images of any other dataset.

    Raises:
        RefusedError: If its licence does not allow training, or it trains the probe alone.
        RibError: If no dataset is given, or it is not found.
    """
    name = config.dataset.name
    if name == "none":
        raise RibError(
            "dataset: without head.reference the probe is fitted to a part of the source; give dataset=SOURCE, or the "
            "dataset of one probe for all as head.reference=DATASET"
        )
    if name == config.head.reference:
        raise RefusedError(
            f"dataset={name}: it trains the probe (head.reference), so it cannot be the source; fine-tune on "
            "another, or give another head.reference"
        )
    _check_licence(config, catalog, name, "dataset")
    return scored[name] if name in scored else find(name)


def _check_licence(config: Config, catalog: Catalog, name: str, option: str) -> None:
    dataset = catalog[name]
    if dataset.domain is not None and not dataset.may_train:
        licence = f"{dataset.licence.rstrip('.')}; " if dataset.licence else ""
        raise RefusedError(
            f"{option}={name}: {licence}the suite's file says may_train: false; use it as a target, or set may_train: "
            "true there if you may"
        )
    if not dataset.may_train and config.data.objectnet_training != PERMISSION:
        raise RefusedError(
            f"{option}={name}: {dataset.licence} Use it as a target, or, if its authors have allowed you to train on "
            f"it, set data.objectnet_training={PERMISSION}"
        )


def probe_images(
    config: Config, catalog: Catalog, source: ImageTree | None, find: Callable[[str], ImageTree], once: Once
) -> tuple[ImageTree | None, ImageTree]:
    """Return what is left of the source, and the images of the probe: the reference's, or a part of the source.

    Args:
        config: With its head settled, which is a probe.
        catalog: Of its datasets.
        source: All images of the source; None where nothing is trained and the probe has a reference.
        find: Returns the images of a dataset.
        once: Returns the result of a function, which it calls only once for the same key.

    Raises:
        RefusedError: If the licence of the reference does not allow training.
        RibError: If it is not found, or the probe would leave nothing of the source.
    """
    head = config.head
    if head.reference is not None:
        _check_licence(config, catalog, head.reference, "head.reference")
        return source, find(head.reference)
    assert source is not None, "without a reference the source is split"
    whole = source
    key_fields = ["split", config.dataset.name, asdict(config.data), asdict(config.paper), head.share, head.seed]
    images, rest = once(key_fields, lambda: split_for_probe(whole, head.share, head.seed))
    return rest, images


def subset(source: ImageTree, config: Config) -> tuple[ImageTree, ImageTree | None]:
    """Return the training images, and the images held out from training (or None).

    Args:
        source: All images to fine-tune on.
        config: Its ``data`` says which are chosen.

    Raises:
        RibError: If ``data.holdout`` is no fraction, or leaves nothing to train on or to hold out.
    """
    held_out = None
    data, seed = config.data, subset_seed(config)
    if not 0 <= data.holdout < 1:
        raise RibError(f"data.holdout: expected a fraction of at least 0 and below 1, got {data.holdout}")
    # Held out first: a smaller subset of the rest then has the same held-out images.
    if data.holdout > 0:
        source, held_out = source.holdout(data.holdout, seed)
    if data.images_per_class is not None:
        source = source.images_per_class(data.images_per_class, seed)
    if data.shuffled_labels:
        source = source.shuffled_labels(seed)
    return source, held_out


def subset_seed(config: Config) -> int:
    """Return the seed that chooses subsets and held-out images: ``data.subset_seed``, or the training seed if null."""
    return config.seed if config.data.subset_seed is None else config.data.subset_seed
