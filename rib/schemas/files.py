"""Types of the JSON files of runs and sweeps, except metrics.json."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from rib.schemas.cost import Cost
from rib.schemas.metrics import RobustnessImprovement


class Fit(TypedDict):
    """Result of training or merging weights: fit.json, written with the weights.

    Attributes:
        seconds: Wall time.
        num_parameters: Number of the model's parameters.
        notes: Numbers that the methods report, by "method.name".
        weights: SHA-256 of weights.safetensors without the metadata in its header; null for an ensemble of outputs,
            which has no such file.
        device: Name of the GPU, or "CPU (2 threads)"; with a number in front if there were several processes.
    """

    seconds: float
    num_parameters: int
    notes: dict[str, float]
    weights: str | None
    device: NotRequired[str]


class Scoring(TypedDict):
    """Time that a run spent on predicting the images of its datasets: scoring.json.

    Attributes:
        seconds: Wall time of all scoring so far, shared among models that were scored together.
    """

    seconds: float


class MadeFrom(TypedDict):
    """Digests of other runs' weights that a run is made from, recorded when it starts: made_from.json.

    Attributes:
        weights: SHA-256 of the weights of each of these runs, in order.
    """

    weights: list[str | None]


class GitState(TypedDict):
    """State of a git repository when a run began.

    Attributes:
        commit: Hash of the commit that was checked out.
        dirty: True if files differed from it; null if git could not say (a bare or very large repository).
    """

    commit: str
    dirty: bool | None


class Environment(TypedDict):
    """Software versions, code and kind of machine that made a run: env.json, without host and user names.

    Attributes:
        versions: Versions of Python, rib and packages.
        platform: Operating system.
        device: Name of the GPU, or kind of CPU.
        threads: CPU threads that torch used.
        command: Command line without secrets, with the home folder as ~; absent in runs of older versions.
        git: Git state by what it is of: rib (if it runs from a checkout), cwd (the working folder), and each top-level
            module of the user's own classes; absent in runs of older versions.
    """

    versions: dict[str, str]
    platform: str
    device: str
    threads: int
    command: NotRequired[str]
    git: NotRequired[dict[str, GitState]]


class Failure(TypedDict):
    """Last failure of a cell, one run of a grid: failed.json.

    Attributes:
        error: One sentence.
        last_lines: Last lines of the cell's log.
    """

    error: str
    last_lines: list[str]


class ProgressInfo(TypedDict):
    """Progress of a cell, one run of a grid, while it is running: progress.json.

    Attributes:
        what: Current task, "fine-tuning on ImageNet-R".
        done: Units done.
        total: Units of the whole task; 0 if unknown, as while waiting for another process.
        unit: "images", "steps".
        note: Short remark; may be empty.
        rate: Units per second.
        seconds_left: Expected remaining time of this task; null before there is a rate.
    """

    what: str
    done: int
    total: int
    unit: str
    note: str
    rate: float
    seconds_left: float | None


class Job(TypedDict):
    """One job of a Hydra multirun: job.<number>.json in the sweep's folder.

    Attributes:
        overrides: The job's overrides, separated by spaces.
        kind: Kind of data, "mini" or "user"; absent in records of older versions.
        model: Name of the model.
        source: Dataset that is fine-tuned on; "none" for a pretrained model.
        method: "finetune", "ewc", "lwf+wise_ft".
        seed: Random seed; null if nothing is random.
        robustness_improvement: RI of a finished job; null if the suite leaves no target.
        folder: The run's folder; absent unless the job finished.
        seconds: Seconds of training and scoring of a finished job's run, when it was made.
        cost: Images trained and scored by a finished job's run, and the device.
        in_store: True if the run was in the store already.
        error: One sentence, if the job failed.
    """

    overrides: str
    kind: NotRequired[str]
    model: str
    source: str
    method: str
    seed: int | None
    robustness_improvement: NotRequired[RobustnessImprovement | None]
    folder: NotRequired[str]
    seconds: NotRequired[float]
    cost: NotRequired[Cost]
    in_store: NotRequired[bool]
    error: NotRequired[str]
