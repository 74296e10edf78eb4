"""Layer-wise CKA between a run and its pretrained model (or any other run), cached in the run's folder.

Images are passed in a seeded random order, since in path order a batch would hold images of a single class. Batch sizes
differ by at most one image, so that no batch is too small for the unbiased HSIC.

This module imports torch only inside functions: a cached result must be readable without it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rib.analysis.cache import CachedAnalysis, get_or_compute, read_record, read_table, write_arrays, write_table
from rib.analysis.subject import Subject, labels
from rib.config.command_schema import CKAConfig
from rib.data.tree import ImageTree
from rib.data.worlds import in_distribution_of, logged_name
from rib.errors import DamagedError, RibError
from rib.runtime.progress import progress
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.analysis.compare import Batches, ModelPair
    from rib.models.classifier import Classifier

MIN_IMAGES = 4
"""Fewest images in a batch for which the unbiased HSIC is defined; `rib.metrics.cka.MIN_IMAGES` without torch."""

COLUMNS = ["layer", "cka", "low", "high", "note"]

CHOICES = {"tokens": (None, "cls", "mean", "all"), "estimator": ("minibatch", "exact")}


@dataclass(frozen=True)
class LayerCKA:
    """Saved CKA of one run against another on one dataset.

    Attributes:
        folder: ``RUN/analysis/cka/<key>``.
        made: True if it was computed by this call, False if it was read from disk.
    """

    folder: Path
    made: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """Table of the layers that both models have, in network order: ``layer``, ``cka``, ``low``, ``high``, ``note``.

        ``low`` and ``high`` are the ends of a 95 % interval over images. ``cka`` is NaN where ``note`` says
        ``constant`` (the same features for all images) or ``unused`` (the layer was never called).
        """
        return read_layers(self.folder / "cka.csv")

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Settings of the analysis: the two runs, dataset, images, estimator, tokens."""
        return read_record(self.folder)

    @property
    def logged_name(self) -> str:
        """Name of the dataset on a dashboard."""
        return logged_name(str(self.metadata["dataset"]), str(self.metadata["kind"]))

    @property
    def mean(self) -> float:
        """Mean CKA over the layers of `table`, skipping NaN; NaN if no layer has a value."""
        return float(self.table["cka"].mean())

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """Arrays of the saved analysis by name: CKA of each pair of layers, layer names, mask of pairs with a CKA.

        ``one`` (N,) and ``other`` (M,) are names of layers, ``cka`` is (N, M), and ``defined`` (N, M) is False where
        one of the two layers is constant or unused.
        """
        file = self.folder / "cka.npz"
        try:
            with np.load(file) as arrays:
                return dict(arrays)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{file} is damaged ({error}); make it again with force=true") from error


def read_layers(file: Path) -> pd.DataFrame:
    """Read a table of layers from CSV, with empty notes as empty strings."""
    return read_table(file, dtype={"layer": str, "note": str}).fillna({"note": ""})


def layer_cka(config: CKAConfig, dataset: str | None = None) -> LayerCKA:
    """Return the layer-wise CKA of a run against its pretrained model or another run, computing it if needed.

    The estimators and the interval are described in `rib.metrics.cka`.

    Args:
        config: Options of the analysis; ``CKAConfig(run=DIR, images=500)`` has the command's defaults.
        dataset: Name of the dataset whose images are used; None: the first of `Pair.datasets`.

    Raises:
        RibError: If an option is invalid, or a run has no weights to analyse.
    """
    return Pair.of(config).layer_cka(dataset)


def epoch_cka(config: CKAConfig, dataset: str) -> CachedAnalysis:
    """Return the CKA of the pretrained model (or ``against``) with the weights saved after each epoch.

    Args:
        config: Options of the analysis.
        dataset: Name of the dataset whose images are used.

    Returns:
        The analysis, whose folder holds ``cka_epochs.csv`` with columns epoch, layer, cka, low, high, note.

    Raises:
        RibError: If the run kept no weights of its epochs.
    """
    pair = Pair.of(config)
    epochs = pair.one.epochs
    key_fields = {**pair.key_fields(dataset), "epochs": list(epochs)}

    def compute(folder: Path) -> Mapping[str, Any]:
        tables = []
        for epoch, weights in epochs.items():
            compared = pair.compare(dataset, pair.one.model(weights), f"epoch {epoch}")
            table = layer_table(compared)
            table.insert(0, "epoch", epoch)
            tables.append(table)
        write_table(pd.concat(tables), folder / "cka_epochs.csv")
        return {}

    return get_or_compute(pair.one.run, "cka_epochs", key_fields, compute, config.force)


def layer_table(compared: ModelPair) -> pd.DataFrame:
    """Return computed CKA as a table with the columns of cka.csv: one row per layer that both models have."""
    rows = [
        (name, *((None, None, None) if estimate is None else estimate), note)
        for name, (estimate, note) in compared.layers.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Pair:
    """Two runs to compare, and the options of the comparison.

    Attributes:
        config: Options of the analysis.
        one: The run whose folder keeps the result.
        other: Its pretrained run, or the run given as ``against``.
    """

    config: CKAConfig
    one: Subject
    other: Subject

    @classmethod
    def of(cls, config: CKAConfig) -> Pair:
        """Open the two runs that the options name, and check the options.

        Raises:
            RibError: If an option is invalid, a run has no weights, or the two runs use different kinds of data.
        """
        check(config)
        one = Subject.of(config.run, config)
        if config.datasets is None:
            config = replace(config, datasets=default_datasets(one.metrics))
        other = Subject.of(config.against or one.pretrained, config, "against")
        kinds = [subject.metrics["data"]["kind"] for subject in (one, other)]
        if kinds[0] != kinds[1]:
            raise RibError(f"against: expected a run on {kinds[0]} data like {config.run}, got one on {kinds[1]} data")
        return cls(config, one, other)

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets whose images both models see."""
        return self.config.datasets or default_datasets(self.one.metrics)

    def layer_cka(self, dataset: str | None = None) -> LayerCKA:
        """Return the CKA of the two runs, computing it if needed; see the function `layer_cka`."""
        key_fields = self.key_fields(dataset or self.datasets[0])
        compute = partial(self.compute, key_fields["dataset"])
        return LayerCKA(*get_or_compute(self.one.run, "cka", key_fields, compute, self.config.force))

    def tree(self, dataset: str) -> ImageTree:
        """Return the list of a dataset's images.

        Raises:
            RibError: If there is no such dataset, or it has fewer than four images.
        """
        if dataset not in self.one.catalog.specs:
            known = ", ".join(self.one.catalog.specs)
            raise RibError(f"datasets: there is no {dataset!r}; expected any of {known}")
        tree = self.one.tree(dataset)
        if len(tree) < MIN_IMAGES:
            raise RibError(f"datasets: expected at least {MIN_IMAGES} images of {dataset}, found {len(tree)}")
        return tree

    def key_fields(self, dataset: str, images: int | None = None) -> dict[str, Any]:
        """Return all inputs and options that change the result, by name; the cache key is their hash.

        Args:
            dataset: Name of the dataset whose images both models see.
            images: Largest number of images; None: ``config.images``.
        """
        c, tree = self.config, self.tree(dataset)
        # Sorted: the key is of the set of images, whose order follows from the seed.
        sample = np.sort(tree.sample(images or c.images, c.seed))
        return {
            "run": self.one.metrics["fingerprint"],
            "against": self.other.metrics["fingerprint"],
            "weights": [subject.weights_digest for subject in (self.one, self.other)],
            "transforms": [asdict(subject.start.transform) for subject in (self.one, self.other)],
            "dataset": dataset,
            "digest": tree.part(sample, f"sample {len(sample)} seed {c.seed}").digest,
            "image_backend": str(self.one.config.data.image_backend),
            "images": min(c.images, len(tree)),  # asking for more images than there are is the same analysis
            "seed": c.seed,
            "tokens": c.tokens,
            "estimator": c.estimator,
            "batch_size": c.batch_size,
        }

    def compute(self, dataset: str, folder: Path) -> Mapping[str, Any]:
        """Compute CKA on a dataset, write cka.csv and cka.npz into a folder, and return metadata for the record."""
        compared = self.compare(dataset, self.one.model(), self.one.label)
        write_table(layer_table(compared), folder / "cka.csv")
        write_arrays(
            folder / "cka.npz",
            one=np.array(compared.one),
            other=np.array(compared.other),
            cka=compared.cka,
            defined=compared.defined,
        )
        batches = len(self.batch_indices(self.tree(dataset)))
        return {**labels(self.one, self.other), "batches": batches, "read": compared.tokens}

    def compare(self, dataset: str, model: Classifier, label: str) -> ModelPair:
        """Compute CKA of a model with the model of the run `other`, on a sample of a dataset's images.

        Args:
            dataset: Name of the dataset.
            model: The first model: the run's, or one of its epochs.
            label: Its name in the progress line.
        """
        from rib.analysis.compare import compare

        other, tree = self.other.model(), self.tree(dataset)
        indices = self.batch_indices(tree)
        count = sum(map(len, indices))
        with progress(f"CKA on {tree.spec.title}, {label}", count) as advance:
            return compare(
                model,
                other,
                self.batches(tree, indices),
                tokens=self.tokens(model, other),
                num_images=count,
                estimator=self.config.estimator,
                device=self.device,
                advance=advance,
            )

    def tokens(self, one: Classifier, other: Classifier) -> list[str]:
        """Return, for each model, the token that represents an image: ``config.tokens``, else the input of its head."""
        from rib.models.features import readout

        return [self.config.tokens or readout(model.backbone) for model in (one, other)]

    @property
    def device(self) -> str:
        """Device to compute on, as torch names it."""
        import torch

        return self.config.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def batch_indices(self, tree: ImageTree) -> list[NDArray[np.int64]]:
        """Split a sample of a dataset's images (indices) into batches of nearly equal size, at least four each."""
        sample = tree.sample(self.config.images, self.config.seed)
        # As many batches as batch_size asks for, rounded up, but not so many that one has fewer than four images.
        count = max(1, min(-(-len(sample) // self.config.batch_size), len(sample) // MIN_IMAGES))
        return np.array_split(sample, count)

    def batches(self, tree: ImageTree, indices: list[NDArray[np.int64]]) -> Batches:
        """Yield each batch of images as a pair: transformed for the first model, and for the second.

        If both models crop and resize in the same way, images are decoded once and the pair holds one tensor twice.
        """
        one, other = (self.loader(subject, tree, indices) for subject in (self.one, self.other))
        # Mean and std are applied inside the models, so they make no difference to the uint8 pixels.
        pixels = [replace(s.start.transform, mean=(), std=()) for s in (self.one, self.other)]
        if pixels[0] == pixels[1]:
            return ((images, images) for images in one)
        return zip(one, other, strict=True)

    def loader(self, subject: Subject, tree: ImageTree, indices: list[NDArray[np.int64]]) -> Iterator[Any]:
        """Yield batches of images, transformed as a run's model needs them: uint8 tensors of shape (B, 3, H, W)."""
        from rib.data.evaluation import EvaluationImages

        data = EvaluationImages(
            {},
            subject.start.transform,
            workers=self.config.data.workers,
            image_backend=str(self.one.config.data.image_backend),
            cache=subject.crops,
            cache_limit=self.config.data.cache,
        )
        return (images for images, _, _ in data.batches_of(tree, [batch.tolist() for batch in indices]))


def default_datasets(metrics: Metrics) -> list[str]:
    """Return the datasets whose images are used if none are asked for: the in-distribution one, else all targets.

    Args:
        metrics: Of the run that is analysed.
    """
    kind, improvement = metrics["data"]["kind"], metrics["robustness_improvement"]
    if (name := in_distribution_of(kind)) is not None:
        return [name]
    return improvement["targets"] if improvement else list(metrics["accuracy"])


def check(config: CKAConfig) -> None:
    """Check the options that can be checked without looking at the runs.

    Raises:
        RibError: If an option has an invalid value.
    """
    for name, known in CHOICES.items():
        if (value := getattr(config, name)) not in known:
            raise RibError(f"{name}: expected one of {', '.join(str(k or 'null') for k in known)}, got {value!r}")
    numbers = {"images": config.images, "batch_size": config.batch_size, "inversion.images": config.inversion.images}
    for name, number in numbers.items():
        if number < MIN_IMAGES:
            raise RibError(f"{name}: expected at least {MIN_IMAGES} images, which unbiased HSIC needs, got {number}")
    if config.inversion.steps < 1 or not config.inversion.lr > 0:
        how = config.inversion
        raise RibError(f"inversion: expected steps of 1 or more and lr above 0, got steps={how.steps} and lr={how.lr}")
    if config.datasets is not None and not config.datasets:
        raise RibError("datasets: expected at least one, got an empty list")
