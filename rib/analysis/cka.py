"""CKA between a run and its start (or any other run) on a sample of a dataset, kept in the run's folder. No torch here.

Images come in a seeded random order, in batches that differ by one image at most: in path order a batch would hold
images of one class, and no batch is ever too small for the unbiased HSIC.
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
from rib.errors import DamagedError, RibError
from rib.runtime.progress import progress

if TYPE_CHECKING:
    from rib.analysis.compare import Batches, ModelPair
    from rib.models.classifier import Classifier

LEAST = 4
"""Images in the smallest batch that the unbiased HSIC is defined for."""

COLUMNS = ["layer", "cka", "low", "high", "note"]

CHOICES = {"tokens": (None, "cls", "mean", "all"), "estimator": ("minibatch", "exact")}


@dataclass(frozen=True)
class LayerCKA:
    """CKA of one run against another on one dataset, as it lies in a folder.

    Attributes:
        folder: ``RUN/analysis/cka/<key>``.
        made: Whether it was made just now.
    """

    folder: Path
    made: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """``layer, cka, low, high, note`` of each layer that both have by name, in the network's order.

        ``cka`` is missing where ``note`` says constant or unused.
        """
        return read_layers(self.folder / "cka.csv")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What it is about: runs, dataset, images, estimator, tokens."""
        return read_record(self.folder)

    @property
    def mean(self) -> float:
        """Over the layers of the table that have one; NaN if none has."""
        return float(self.table["cka"].mean())

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """``one`` (N,) and ``other`` (M,): names of layers; ``cka`` (N, M), and ``defined`` (N, M), where it is."""
        file = self.folder / "cka.npz"
        try:
            with np.load(file) as arrays:
                return dict(arrays)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedError(f"{file} is damaged ({error}); make it again with force=true") from error


def read_layers(file: Path) -> pd.DataFrame:
    """A csv of layers; an empty note is an empty text."""
    return read_table(file, dtype={"layer": str, "note": str}).fillna({"note": ""})


def layer_cka(config: CKAConfig, dataset: str | None = None) -> LayerCKA:
    """CKA layer by layer of a run against its start or another run: from its folder if it is there, else made.

    Args:
        config: What is asked; ``CKAConfig(run=DIR, images=500)`` asks for the rest as the command does.
        dataset: One of the world's datasets; None: the first of ``config.datasets``.

    Raises:
        RibError: For whatever the user can mend.
    """
    return Pair.of(config).layer_cka(dataset)


def epoch_cka(config: CKAConfig, dataset: str) -> CachedAnalysis:
    """CKA of the start (or ``against``) with the weights kept at the end of every epoch.

    Returns:
        Its folder has ``cka_epochs.csv``: columns epoch, layer, cka, low, high, note.

    Raises:
        RibError: If no weights were kept.
    """
    pair = Pair.of(config)
    epochs = pair.one.epochs
    facts = {**pair.facts(dataset), "epochs": list(epochs)}

    def make(folder: Path) -> Mapping[str, Any]:
        tables = []
        for epoch, weights in epochs.items():
            found = pair.compared(dataset, pair.one.model(weights), f"epoch {epoch}")
            table = layer_table(found)
            table.insert(0, "epoch", epoch)
            tables.append(table)
        write_table(pd.concat(tables), folder / "cka_epochs.csv")
        return {}

    return get_or_compute(pair.one.run, "cka_epochs", facts, make, config.force)


def layer_table(found: ModelPair) -> pd.DataFrame:
    """What cka.csv holds."""
    rows = [
        (name, *((None, None, None) if estimate is None else estimate), note)
        for name, (estimate, note) in found.layers.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared, and how.

    Attributes:
        config: What is asked.
        one: The run whose folder the result goes to.
        other: Its start, or the one given.
    """

    config: CKAConfig
    one: Subject
    other: Subject

    @classmethod
    def of(cls, config: CKAConfig) -> Pair:
        """Find both runs and check what is asked.

        Raises:
            RibError: For whatever the user can mend.
        """
        check(config)
        one = Subject.of(config.run, config)
        other = Subject.of(config.against or one.before, config, "against")
        kinds = [subject.metrics["data"]["kind"] for subject in (one, other)]
        if kinds[0] != kinds[1]:
            raise RibError(f"against: expected a run on {kinds[0]} data like {config.run}, got one on {kinds[1]} data")
        return cls(config, one, other)

    def layer_cka(self, dataset: str | None = None) -> LayerCKA:
        """As the function of this name, for two runs already found."""
        facts = self.facts(dataset or self.config.datasets[0])
        make = partial(self.make, facts["dataset"])
        return LayerCKA(*get_or_compute(self.one.run, "cka", facts, make, self.config.force))

    def tree(self, dataset: str) -> ImageTree:
        """The dataset's images, of which there must be enough."""
        if dataset not in self.one.catalog.specs:
            known = ", ".join(self.one.catalog.specs)
            raise RibError(f"datasets: there is no {dataset!r}; expected any of {known}")
        tree = self.one.tree(dataset)
        if len(tree) < LEAST:
            raise RibError(f"datasets: expected at least {LEAST} images of {dataset}, found {len(tree)}")
        return tree

    def facts(self, dataset: str, images: int | None = None) -> dict[str, Any]:
        """Everything that changes the numbers, and nothing else.

        Args:
            dataset: Whose images both models see.
            images: How many of them; None: as the config says.
        """
        c, tree = self.config, self.tree(dataset)
        sample = np.sort(tree.sample(images or c.images, c.seed))
        return {
            "run": self.one.metrics["fingerprint"],
            "against": self.other.metrics["fingerprint"],
            "weights": [subject.weights_digest for subject in (self.one, self.other)],
            "transforms": [asdict(subject.start.transform) for subject in (self.one, self.other)],
            "dataset": dataset,
            "digest": tree.part(sample, f"sample {len(sample)} seed {c.seed}").digest,
            "image_backend": str(self.one.config.data.image_backend),
            "images": min(c.images, len(tree)),
            "seed": c.seed,
            "tokens": c.tokens,
            "estimator": c.estimator,
            "batch_size": c.batch_size,
        }

    def make(self, dataset: str, folder: Path) -> Mapping[str, Any]:
        """Fill a variant's folder with cka.csv and cka.npz."""
        found = self.compared(dataset, self.one.model(), self.one.label)
        write_table(layer_table(found), folder / "cka.csv")
        write_arrays(
            folder / "cka.npz",
            one=np.array(found.one),
            other=np.array(found.other),
            cka=found.cka,
            defined=found.defined,
        )
        batches = len(self.places(self.tree(dataset)))
        return {**labels(self.one, self.other), "batches": batches, "read": found.tokens}

    def compared(self, dataset: str, model: Classifier, label: str) -> ModelPair:
        """Pass the sample through a model in the place of the run's, and through the other's."""
        from rib.analysis.compare import compare

        other, tree = self.other.model(), self.tree(dataset)
        places = self.places(tree)
        count = sum(map(len, places))
        with progress(f"CKA on {tree.spec.title}, {label}", count) as advance:
            return compare(
                model,
                other,
                self.batches(tree, places),
                tokens=self.tokens(model, other),
                num_images=count,
                estimator=self.config.estimator,
                device=self.device,
                advance=advance,
            )

    def tokens(self, one: Classifier, other: Classifier) -> list[str]:
        """What represents an image in each model: as told, else what its head reads."""
        from rib.models.features import readout

        return [self.config.tokens or readout(model.backbone) for model in (one, other)]

    @property
    def device(self) -> str:
        """Where it is computed."""
        import torch

        return self.config.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def places(self, tree: ImageTree) -> list[NDArray[np.int64]]:
        """The sample in batches of nearly the same size, at least four images each."""
        sample = tree.sample(self.config.images, self.config.seed)
        count = max(1, min(-(-len(sample) // self.config.batch_size), len(sample) // LEAST))
        return np.array_split(sample, count)

    def batches(self, tree: ImageTree, places: list[NDArray[np.int64]]) -> Batches:
        """The sample as each of the two models wants it; decoded once where both want the same."""
        one, other = (self.loader(subject, tree, places) for subject in (self.one, self.other))
        pixels = [replace(s.start.transform, mean=(), std=()) for s in (self.one, self.other)]
        if pixels[0] == pixels[1]:
            return ((images, images) for images in one)
        return zip(one, other, strict=True)

    def loader(self, subject: Subject, tree: ImageTree, places: list[NDArray[np.int64]]) -> Iterator[Any]:
        """Batches of images, uint8 (B, 3, H, W), under a model's own transform."""
        from rib.data.datamodule import RIBDataModule

        data = RIBDataModule(
            None,
            {},
            subject.start.transform,
            workers=self.config.data.workers,
            image_backend=str(self.one.config.data.image_backend),
            cache=subject.crops,
        )
        return (images for images, _, _ in data.batches_of(tree, [batch.tolist() for batch in places]))


def check(config: CKAConfig) -> None:
    """See that what is asked makes sense, whatever the runs.

    Raises:
        RibError: If a value is not what it should be.
    """
    for name, known in CHOICES.items():
        if (value := getattr(config, name)) not in known:
            raise RibError(f"{name}: expected one of {', '.join(str(k or 'null') for k in known)}, got {value!r}")
    numbers = {"images": config.images, "batch_size": config.batch_size, "inversion.images": config.inversion.images}
    for name, number in numbers.items():
        if number < LEAST:
            raise RibError(f"{name}: expected at least {LEAST}, below which unbiased HSIC is not defined, got {number}")
    if config.inversion.steps < 1 or not config.inversion.lr > 0:
        raise RibError("inversion: expected steps of 1 or more and lr above 0")
    if not config.datasets:
        raise RibError("datasets: expected at least one, got an empty list")
