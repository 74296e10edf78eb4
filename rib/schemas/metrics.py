"""Types of metrics.json, the results of one run on one suite.

Keys marked `NotRequired` came with a later rib, or only some runs have them. Readers ignore keys they do not know.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from rib.schemas.cost import Cost, Times
from rib.schemas.verified import Verified


class IntervalInPoints(TypedDict):
    """A number with its 95 % interval, in percentage points.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class Improvement(IntervalInPoints):
    """Mean change in accuracy over several targets, in percentage points, with its 95 % interval over images.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
        targets: Datasets that the mean is over.
    """

    targets: list[str]


class RobustnessImprovement(Improvement):
    """RI: mean change in accuracy over the targets, in percentage points, with its 95 % interval over images.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
        targets: Datasets that the mean is over.
        without_derived: RI without the targets that are made from the source's own images; null if none is left.
    """

    without_derived: NotRequired[Improvement | None]


class CellAccuracy(TypedDict):
    """Accuracy before and after fine-tuning on one corruption at one severity of ImageNet-C.

    Attributes:
        before: Top-1 of the pretrained model, a fraction.
        after: Top-1 of the run's model, a fraction.
        num_images: Number of images scored.
    """

    before: float
    after: float
    num_images: int


class DatasetAccuracy(TypedDict):
    """Accuracy on one dataset before and after fine-tuning.

    Attributes:
        num_images: Number of images scored.
        before: Top-1 of the pretrained model, a fraction; the mean over cells where the dataset has cells.
        after: Top-1 of the run's model, likewise.
        cells: Accuracy by "corruption/severity", for ImageNet-C.
        change: Accuracy after minus accuracy before, in percentage points.
        verified: How the top-1 of the run's model was verified, with evaluation.precision=verified.
    """

    num_images: int
    before: float
    after: float
    cells: NotRequired[dict[str, CellAccuracy]]
    change: IntervalInPoints
    verified: NotRequired[Verified]


class Measures(TypedDict):
    """Accuracies and RI of one model on one suite.

    Attributes:
        accuracy: Accuracy by dataset.
        robustness_improvement: RI; null if the suite leaves no target.
    """

    accuracy: dict[str, DatasetAccuracy]
    robustness_improvement: RobustnessImprovement | None


class CurvePoint(Measures):
    """Accuracies and RI of one model on an interpolation curve.

    Attributes:
        accuracy: Accuracy by dataset.
        robustness_improvement: RI; null if the suite leaves no target.
        label: The point's alpha, as text.
    """

    label: str


class DomainInfo(TypedDict):
    """One domain of a user's suite.

    Attributes:
        title: Name in tables and figures.
        derived_from: Domain from whose images these were made, or null.
    """

    title: str
    derived_from: str | None


class SuiteInfo(TypedDict):
    """A user's suite as its file described it when the run was made.

    Attributes:
        title: Name in titles of tables and figures.
        classes: Names of the classes, in label order.
        domains: Its domains, by name.
        in_distribution: Domain whose accuracy is shown beside the targets' mean, or null.
        outputs: Ids of ImageNet-1K's outputs that count as each class, in label order; only with head=subset.
    """

    title: str
    classes: list[str]
    domains: dict[str, DomainInfo]
    in_distribution: str | None
    outputs: NotRequired[list[list[int]]]


class DataInfo(TypedDict):
    """Data that a run was trained and scored on.

    Attributes:
        kind: "mini" for the built-in data, "user" for ImageNet's datasets, or the name of the user's suite.
        digest: Digest of all datasets scored.
        found: Number of images on disk by dataset, for datasets whose number of images is not fixed.
        suite: The user's suite; absent for mini and ImageNet.
    """

    kind: str
    digest: str
    found: NotRequired[dict[str, int]]
    suite: NotRequired[SuiteInfo]


class Protocol(TypedDict):
    """Training and scoring settings; those of training are null for a run that trains nothing.

    Attributes:
        numerics: Version of rib's numerical results; 1 if absent.
        experiment: Name of the experiment file, or null.
        precision: Precision of training, as Lightning names it.
        evaluation_precision: Precision of scoring.
        epochs: Passes over the source.
        lr: Peak learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        batch_size: Images per optimizer step.
        batch_norm: "update" or "frozen".
        label_rule: Rule that maps 1000 outputs to ObjectNet's classes.
        image_backend: Library that decodes the images.
        limit: Largest number of images scored per dataset; null for all.
        identity: Property that identifies images in keys: "content", "listing" or "pixels".
        processes: Number of processes that trained.
        targets: The suite's targets.
        reported: Datasets that are scored but not part of RI.
        holdout: Fraction of the source kept from training.
        head: Head of a model whose outputs are not the suite's classes: "zero_shot", "subset", "reference:DATASET" (a
            probe on that dataset) or "probe:SOURCE" (on a part of the source); absent for a model with its own outputs.
        switches: Departures from the benchmark: errata, permissions, incomplete datasets.
    """

    numerics: NotRequired[int]
    experiment: str | None
    precision: str | None
    evaluation_precision: str
    epochs: int | None
    lr: float | None
    warmup_steps: int | None
    batch_size: int | None
    batch_norm: str | None
    label_rule: str
    image_backend: str
    limit: int | None
    identity: NotRequired[str]
    processes: NotRequired[int]
    targets: NotRequired[list[str]]
    reported: NotRequired[list[str]]
    holdout: float | None
    head: NotRequired[str]
    switches: dict[str, Any]


class TrainedOn(TypedDict):
    """Number and digest of the images that the weights were trained on.

    Attributes:
        num_images: Number of images.
        digest: Digest of these images alone, not of the whole dataset.
    """

    num_images: int
    digest: str


class ScoreInfo(TypedDict):
    """Reference to the stored predictions that an accuracy was computed from.

    Attributes:
        key: Score key, part of the name of the predictions' file.
        images: Digest of the images; the store keeps their paths under it.
    """

    key: str
    images: str


class HeldOut(TypedDict):
    """Accuracy before and after fine-tuning on the source images that data.holdout keeps from training.

    Attributes:
        before: Top-1 of the pretrained model, a fraction.
        after: Top-1 of the run's model, a fraction.
        num_images: Number of images held out.
        images: Digest of these images; the store keeps their paths under it.
    """

    before: float
    after: float
    num_images: int
    images: str


class UsedRun(TypedDict):
    """A finished run that this one was made from.

    Attributes:
        label: Short description, "finetune seed=1".
        source: Dataset that it was fine-tuned on, or "none".
        fingerprint: Its training key.
        weights: SHA-256 of the weights that were used; null for a run without weights.
    """

    label: str
    source: str
    fingerprint: str
    weights: NotRequired[str | None]


class BestIngredient(TypedDict):
    """The ingredient with the best accuracy on a dataset, among those not fine-tuned on it.

    Attributes:
        label: Label of the ingredient.
        accuracy: Top-1 of the ingredient, a fraction.
        gain: Accuracy of the merged model minus that of the ingredient, in percentage points.
    """

    label: str
    accuracy: float
    gain: float


class Metrics(Measures):
    """Results of one run on one suite: metrics.json, or metrics.<suite>.json beside it.

    Attributes:
        schema: Version of the format of this file.
        model: Name of the pretrained model.
        source: Dataset that was fine-tuned on; "none" for a pretrained model.
        method: "finetune", "ewc", "lwf+wise_ft".
        options: Options that differ from the defaults, by dotted name.
        seed: Random seed; null if nothing is random.
        suite: The suite's name; with a star if its datasets are not those of rib's suite of that name.
        fingerprint: Training key, 16 hex digits.
        data: Data that the run was trained and scored on.
        protocol: Training and scoring settings.
        trained_on: Images that the weights were trained on; null if nothing was trained.
        accuracy: Accuracy by dataset.
        robustness_improvement: RI; null if the suite leaves no target.
        seconds: Wall time.
        cost: Images trained and scored, and the device.
        num_parameters: Number of the model's parameters.
        notes: Numbers that the methods report, by "method.name".
        before: Training key of the pretrained run.
        scores: Predictions that the accuracies were computed from, by dataset.
        held_out: Accuracy on the held-out part of the source, with data.holdout.
        curve: Results of the other models on an interpolation curve.
        ingredients: Runs that a merged run is made from.
        best_ingredient: The best ingredient on each dataset, chosen with hindsight.
        probe: The linear probe that training started from.
        start: The `pretrained` run whose head, a probe, this run started from.
    """

    schema: int
    model: str
    source: str
    method: str
    options: dict[str, Any]
    seed: int | None
    suite: str
    fingerprint: str
    data: DataInfo
    protocol: Protocol
    trained_on: NotRequired[TrainedOn | None]
    seconds: Times
    cost: NotRequired[Cost]
    num_parameters: int
    notes: dict[str, float]
    before: str
    scores: dict[str, ScoreInfo]
    held_out: NotRequired[HeldOut]
    curve: NotRequired[list[CurvePoint]]
    ingredients: NotRequired[list[UsedRun]]
    best_ingredient: NotRequired[dict[str, BestIngredient]]
    probe: NotRequired[UsedRun]
    start: NotRequired[UsedRun]
