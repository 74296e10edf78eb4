"""Types of metrics.json, the results of one run on one suite.

Keys marked `NotRequired` came with a later version of rib, or belong to some runs only. Readers ignore keys that they
do not know.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


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
    """Mean change in accuracy over some targets, in percentage points; the interval is over images only.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
        targets: Datasets that the mean is over.
    """

    targets: list[str]


class RobustnessImprovement(Improvement):
    """RI: mean change in accuracy over the targets, in percentage points; the interval is over images only.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
        targets: Datasets that the mean is over.
        without_derived: RI without the targets that are made of the source's own images; null if none is left.
    """

    without_derived: NotRequired[Improvement | None]


class CellAccuracy(TypedDict):
    """Accuracy on one corruption at one severity of ImageNet-C.

    Attributes:
        before: Top-1 of the pretrained model, a fraction.
        after: Top-1 of the run's model, a fraction.
        num_images: Images scored.
    """

    before: float
    after: float
    num_images: int


class DatasetAccuracy(TypedDict):
    """Accuracy on one dataset.

    Attributes:
        num_images: Images scored.
        before: Top-1 of the pretrained model, a fraction; the mean over cells where the dataset has cells.
        after: Top-1 of the run's model, likewise.
        cells: Accuracy by "corruption/severity", for ImageNet-C.
        change: After minus before, in percentage points.
    """

    num_images: int
    before: float
    after: float
    cells: NotRequired[dict[str, CellAccuracy]]
    change: IntervalInPoints


class Measures(TypedDict):
    """Numbers of one model on one suite.

    Attributes:
        accuracy: By dataset.
        robustness_improvement: RI; null if the suite leaves no target.
    """

    accuracy: dict[str, DatasetAccuracy]
    robustness_improvement: RobustnessImprovement | None


class CurvePoint(Measures):
    """Numbers of one model on an interpolation curve.

    Attributes:
        accuracy: By dataset.
        robustness_improvement: RI; null if the suite leaves no target.
        label: The point's alpha, as text.
    """

    label: str


class DataInfo(TypedDict):
    """Data behind the numbers.

    Attributes:
        kind: "mini" for the built-in data, "user" for data.root.
        digest: Of all datasets scored.
        found: Images on disk, by dataset, of those whose releases differ in their number.
    """

    kind: str
    digest: str
    found: NotRequired[dict[str, int]]


class Protocol(TypedDict):
    """How the numbers were made. Null marks what a run that trains nothing does not have.

    Attributes:
        numerics: Version of rib's numbers; 1 if absent.
        experiment: Name of the experiment file, or null.
        precision: Of training, in Lightning's words.
        evaluation_precision: Of scoring.
        epochs: Passes over the source.
        lr: Learning rate.
        warmup_steps: Optimizer steps of linear warm-up.
        batch_size: Images of an optimizer step.
        batch_norm: "update" or "frozen".
        label_rule: How ObjectNet's classes are read from 1000 outputs.
        image_backend: Decoder of the images.
        limit: Most images scored of a dataset; null for all.
        identity: How images are told apart: "content", "listing" or "pixels".
        processes: Processes that trained.
        targets: The suite's targets.
        reported: Datasets scored and not in RI.
        holdout: Fraction of the source kept from training.
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
    switches: dict[str, Any]


class TrainedOn(TypedDict):
    """Images that trained the weights.

    Attributes:
        num_images: Their number.
        digest: Of just these, not of the whole dataset.
    """

    num_images: int
    digest: str


class ScoreInfo(TypedDict):
    """Predictions behind one accuracy.

    Attributes:
        key: Score key, part of the predictions' file name.
        images: Digest of the images, under which the store keeps their paths.
    """

    key: str
    images: str


class HeldOut(TypedDict):
    """Accuracy on the images that data.holdout keeps from training.

    Attributes:
        before: Top-1 of the pretrained model, a fraction.
        after: Top-1 of the run's model, a fraction.
        num_images: Images held out.
        images: Digest under which the store keeps their paths.
    """

    before: float
    after: float
    num_images: int
    images: str


class UsedRun(TypedDict):
    """A finished run that this one was made from.

    Attributes:
        label: For people, "finetune seed=1".
        source: Dataset it was fine-tuned on, or "none".
        fingerprint: Its training key.
        weights: SHA-256 of the weights that were used; null for a run without weights.
    """

    label: str
    source: str
    fingerprint: str
    weights: NotRequired[str | None]


class BestIngredient(TypedDict):
    """The ingredient with the best accuracy on a dataset, of those not fine-tuned on it.

    Attributes:
        label: Its label.
        accuracy: Its top-1, a fraction.
        gain: Accuracy of the merged model minus that, in percentage points.
    """

    label: str
    accuracy: float
    gain: float


class Times(TypedDict):
    """Wall time of a run, in seconds.

    Attributes:
        fit: Training or merging.
        evaluate: Scoring.
    """

    fit: float
    evaluate: float


class Metrics(Measures):
    """Results of one run on one suite: metrics.json, or metrics.<suite>.json beside it.

    Attributes:
        schema: Version of this format.
        model: Name of the pretrained model.
        source: Dataset that was fine-tuned on; "none" for a pretrained model.
        method: "finetune", "ewc", "lwf+wise_ft".
        options: Flat overrides that are not default.
        seed: Null where nothing is random.
        suite: The suite's name; with a star if its datasets are not those of rib's suite of that name.
        fingerprint: Training key, 16 hex digits.
        data: Data behind the numbers.
        protocol: How the numbers were made.
        trained_on: Images that trained the weights; null if nothing was trained.
        accuracy: By dataset.
        robustness_improvement: RI; null if the suite leaves no target.
        seconds: Wall time.
        num_parameters: Parameters of the model.
        notes: Numbers that the methods report, by "method.name".
        before: Training key of the pretrained run.
        scores: Predictions behind each accuracy, by dataset.
        held_out: Accuracy on the held-out part of the source, with data.holdout.
        curve: Other models on the curve of an interpolation.
        ingredients: Runs that a merged one is made from.
        best_ingredient: The best ingredient with hindsight, by dataset.
        probe: The linear probe that training started from.
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
    num_parameters: int
    notes: dict[str, float]
    before: str
    scores: dict[str, ScoreInfo]
    held_out: NotRequired[HeldOut]
    curve: NotRequired[list[CurvePoint]]
    ingredients: NotRequired[list[UsedRun]]
    best_ingredient: NotRequired[dict[str, BestIngredient]]
    probe: NotRequired[UsedRun]
