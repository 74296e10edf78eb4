"""rib from Python: fine-tune, load a run, find runs, compare two of them, score any torch module.

These functions are reached as ``rib.finetune`` and so on, after ``import rib``::

    import rib

    run = rib.finetune("ewc", model="mini_small", dataset="imagenet_a")
    run.table()                                   # accuracies before and after, as a pandas table
    model, transform = run.model()                # a plain timm or open_clip module
    plain = rib.finetune(model="mini_small", dataset="imagenet_a")
    rib.compare(run, plain)                       # paired difference, images won and lost
    rib.score(my_module, before=run.before)       # any torch module in memory

Errors that you can fix are `rib.RibError`, with one sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.errors import RibError
from rib.reporting.selection import Names, NoMatchError, Where, select_runs
from rib.results.comparison import RunComparison
from rib.results.finished_run import FinishedRun
from rib.results.found_runs import FoundRuns, order
from rib.results.lookup import find_run, find_store, suite_name, views
from rib.runs.run import Run
from rib.runtime.arguments import explained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rib.models.evaluation_transform import EvaluationTransform
    from rib.scoring.report import Score

__all__ = ["compare", "find_runs", "finetune", "load", "score"]


def finetune(
    method: str | Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    /,
    *overrides: str,
    runs: str | Path | None = None,
    **options: Any,
) -> FinishedRun:
    """Fine-tune a pretrained model, score it on every dataset of the suite, and return the finished run.

    A run that is in the store already is returned from there, and one that was interrupted is resumed: call the
    function again. The options are those of ``python -m rib.train``, under the same names::

        rib.finetune("ewc", model="mini_small", dataset="imagenet_a", seed=1)
        rib.finetune("ewc", "method.ewc.strength=3", "optimizer.lr=0.01", model="mini_small")
        rib.finetune(["lwf", "wise_ft"], optimizer={"lr": 0.01}, data={"root": "~/data"})
        rib.finetune({"ewc": {"strength": 3}}, epochs=1)
        rib.finetune("ewc", model="zeroshot_openai", suite="pets.yaml", dataset="photo")    # domains of your own

    Args:
        method: Name of a method, a list of names to stack, or a mapping from names to their options; None for plain
            fine-tuning.
        overrides: Options as on the command line, ``"optimizer.lr=0.01"``; they come after the keyword arguments.
        runs: Folder of the run store, ``paths.runs``; None for ``runs`` in the working directory.
        options: Options by name, as Python values: numbers, texts, paths, lists, None. A mapping sets several options
            of a group, ``optimizer={"lr": 0.01}``.

    Returns:
        The finished run.

    Raises:
        RibError: If an option or value does not exist, with the nearest one that does; if data or weights are missing;
            if training diverges.
    """
    from rib.config import compose
    from rib.config.keywords import overrides_of
    from rib.pipeline import finish

    if "method" in options:
        if method is not None:
            raise RibError(f"method: expected one value, got {method!r} and {options['method']!r}")
        method = options.pop("method")
    if runs is not None:
        options["paths.runs"] = str(Path(runs).expanduser())
    config = compose(*overrides_of(method, overrides, options))
    try:
        run, metrics = finish(config)
    except SystemExit as stop:
        # Lightning turns an interrupt of the training loop into exit(1), which would end a script's except clause too.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt("interrupted; the same call resumes from the last checkpoint") from None
    return FinishedRun(run, metrics)


@explained
def load(
    run: str | Path | Run | FinishedRun, *, runs: str | Path = "runs", suite: str | Path | None = None
) -> FinishedRun:
    """Return a finished run by its folder or its key.

    Args:
        run: The run's folder (the last line that ``python -m rib.train`` prints), or the first digits of its key, if
            no other key of the store begins so.
        runs: The run store in which a key is looked up.
        suite: Name or file of the suite whose numbers to return, for a run that was scored on several; None for the
            first.

    Returns:
        The finished run.

    Raises:
        RibError: If there is no such run, it is not finished, several keys begin with the digits, or it was not scored
            on the suite.
    """
    name = suite_name(suite)
    if isinstance(run, FinishedRun):
        return run if name in (None, run.metrics["suite"]) else FinishedRun.open(run.run, name)
    return FinishedRun.open(find_run(run, runs), name)


@explained
def find_runs(
    *,
    method: Names = None,
    model: Names = None,
    source: Names = None,
    seed: Names = None,
    suite: str | Path | None = None,
    where: Where = None,
    runs: str | Path = "runs",
) -> FoundRuns:
    """Return the finished runs of a store, as a sequence of runs and as a table.

    Every argument narrows the search. A list matches any of its values, and ``*`` in a name any text::

        rib.find_runs(method=["ewc", "finetune"], model="mini_*").table()
        rib.find_runs(method="ewc", where="optimizer.lr=0.01")[0].figure()

    Args:
        method: Method as in tables, ``"ewc"``; a stack is ``"lwf+wise_ft"``.
        model: Name of the pretrained model.
        source: Dataset that was fine-tuned on; ``"none"`` for pretrained models.
        seed: Random seed.
        suite: Name or file of the suite that the runs were scored on; None for each run's first.
        where: Conditions on options, set or default: ``"optimizer.lr=0.01"``, ``"epochs>=5"``, several such texts, or
            a mapping from options to values.
        runs: The run store.

    Returns:
        The runs, sorted by source, model, method, options and seed; empty if none matches, and then it shows why.

    Raises:
        RibError: If there is no such store, or a name is unknown, with the nearest one that exists.
    """
    store, name = find_store(runs), suite_name(suite)
    # What a condition or a suite asks for is in the files only. A run that was scored on several suites is found once
    # for each that is asked for.
    listed = name is None and where is None
    results = store.briefs() if listed else [(run, m) for run in store.finished() for m in views(run, name)]
    found, reason = [], ""
    try:
        found = select_runs(results, model, method, source, seed, where, name, f"runs in {store.root}", singular=True)
    except NoMatchError as none:
        reason = str(none)
    made = FinishedRun.listed if listed else FinishedRun
    return FoundRuns((made(run, m) for run, m in sorted(found, key=order)), store, reason)


@explained
def compare(
    first: str | Path | Run | FinishedRun,
    second: str | Path | Run | FinishedRun,
    *,
    runs: str | Path = "runs",
    suite: str | Path | None = None,
) -> RunComparison:
    """Compare two runs image by image: first minus second.

    Compared with its own ``run.before``, a run shows what fine-tuning changed.

    Args:
        first: A run, its folder, or the first digits of its key.
        second: Another one, scored on the same images.
        runs: The run store in which keys are looked up.
        suite: Name or file of the suite whose numbers to compare; None for each run's own.

    Returns:
        Paired differences of accuracy and of RI with 95 % intervals over images, and the images won and lost, by
        dataset, class and image.

    Raises:
        RibError: If there is no such run, or the two were scored on different data.
    """
    return RunComparison(load(first, runs=runs, suite=suite), load(second, runs=runs, suite=suite))


@explained
def score(
    model: nn.Module,
    *overrides: str,
    before: nn.Module | Score | str | Path | Run | FinishedRun | None = None,
    data: str | Path | None = None,
    transform: EvaluationTransform | None = None,
    suite: str | Path = "seven",
    datasets: Sequence[str] | None = None,
    source: str = "none",
    limit: int | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str = "32-true",
    runs: str | Path = "runs",
) -> Score:
    """Score any torch module in memory on the datasets of a suite, and compare it with another model.

    No run or file is needed or made. The model is left as it was (mode, device, gradients), and so are all random
    states. Equal weights get the numbers of ``rib.train`` and ``rib.evaluate``.

    Args:
        model: Module from images (B, 3, H, W) to the logits (B, K) of the data's K outputs: ImageNet-1K's classes; with
            a suite of your own its classes, or ImageNet-1K's with ``"head=subset"``.
        *overrides: Further options as on the command line: ``"data.label_rule=first"``, ``"data.workers=4"``.
        before: The model that it is compared with: a module, another score, or a finished run or its folder or key,
            whose stored predictions are used. None: report accuracies only.
        data: Folder with the datasets, or ``mini`` for toy data. None: as on the command line, RIB_DATA or toy data.
        transform: Function from a PIL image to a tensor (3, H, W), such as a torchvision transform, which is applied as
            it is; also to the images of ``before``. That of ``run.model()`` reads the cached crops of training, which
            is faster. None: what timm or open_clip recorded in each model.
        suite: Name of the suite, ``seven`` or ``paper``, or the file of your own, ``pets.yaml``.
        datasets: Names of the datasets to score in place of the suite's.
        source: The dataset that the model was fine-tuned on, which does not count towards RI.
        limit: Largest number of images scored per dataset.
        batch_size: Images per batch.
        device: Device to score on; None: the model's own.
        precision: ``32-true`` (float32 without TF32), ``bf16-mixed`` or ``16-mixed``.
        runs: The run store in which a key is looked up.

    Raises:
        RibError: If the outputs are no such logits, the transform is not known, a dataset is missing, or the run given
            as ``before`` was scored on other images.
    """
    from rib.scoring.in_memory import score_module, scoring_config

    config = scoring_config(overrides, data, suite, datasets, limit, batch_size, precision)
    if isinstance(before, str | Path | Run | FinishedRun):
        before = load(before, runs=runs).run
    return score_module(model, before, transform, source, config, device)
