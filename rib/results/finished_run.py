"""A finished run as the Python interface returns it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rib.config.schema import PAGE
from rib.data.worlds import title_of
from rib.errors import DamagedError, RibError
from rib.metrics.intervals import Interval
from rib.reporting.formatting import with_interval
from rib.reporting.heads import head_of, is_per_source, title_of_head
from rib.results import display
from rib.results.images import check_scored, image_table, spec_of, store_of
from rib.runs.command import command_of, scoring_command_of
from rib.runs.limits import check_results, why_no_improvement
from rib.runs.metrics_file import AGAIN
from rib.runs.predictions import Predictions
from rib.runs.recorded import suite_word
from rib.runs.run import Result, Run
from rib.runs.spec import EXTERNAL, PRETRAINED
from rib.runtime.arguments import explained
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from rib.results.network import Network


EXTERNAL_NAME = f"method.{EXTERNAL}.name"
"""Option with the name that the user gave to external weights."""


class FinishedRun:
    """A finished run: its numbers, predictions and network. Made by `rib.finetune`, `rib.load` and `rib.find_runs`.

    In a notebook it shows as a table of its accuracies.

    Args:
        run: The run's folder.
        metrics: The content of one of its metrics files.

    Attributes:
        run: The run's folder as an object of `rib.runs.run`, for what this class does not offer.
        brief: What a table shows of the metrics (`rib.runs.index.brief`), or all of them; not to be changed.
    """

    def __init__(self, run: Run, metrics: Metrics) -> None:
        self.run = run
        self.brief = self.metrics = metrics

    @classmethod
    def listed(cls, run: Run, brief: Metrics) -> FinishedRun:
        """Return a run whose metrics.json is read when something needs more than its `rib.runs.index.brief`."""
        found = cls.__new__(cls)
        found.run, found.brief = run, brief
        return found

    @cached_property
    def metrics(self) -> Metrics:
        """Content of metrics.json: accuracies as fractions, RI in percentage points, options, protocol.

        Raises:
            RibError: If the run was removed after it was found, or its file is damaged.
        """
        metrics = self.run.metrics()
        if metrics is None:
            raise RibError(f"{self.run.folder} has no metrics.json any more; list the runs of its store again")
        return metrics

    @classmethod
    def open(cls, run: Run, suite: str | None = None) -> FinishedRun:
        """Read the metrics of a run.

        Args:
            run: The run's folder.
            suite: Name of the suite (the set of scored datasets); None for the one that the run was first scored on.

        Raises:
            RibError: If the run was not scored on the suite.
        """
        metrics = run.metrics(suite)
        if metrics is None:
            views = run.all_metrics()
            scored = ", ".join(dict.fromkeys(m["suite"] for m in views)) or "none"
            word = suite_word(views[0]["data"]["kind"] if views else "user", str(suite))
            raise RibError(
                f"{run.folder} has no metrics of suite {suite} (scored on: {scored}); score it with "
                f"python -m rib.evaluate runs={run.folder} {word}"
            )
        return cls(run, metrics)

    @property
    def folder(self) -> Path:
        """Folder of the run, absolute."""
        return self.run.folder.absolute()

    @property
    def key(self) -> str:
        """Training key, 16 hex digits; `rib.load` finds a run by its first digits."""
        return self.run.key

    @property
    def ri(self) -> Interval | None:
        """Robustness improvement in percentage points, with its 95 % interval over images.

        None for a pretrained model, which has nothing to be compared with, and for a suite without a target.
        """
        improvement = self.brief["robustness_improvement"]
        if improvement is None or why_no_improvement(self.brief):
            return None
        return Interval(improvement["value"], improvement["low"], improvement["high"], "images only")

    @cached_property
    def before(self) -> FinishedRun | None:
        """The run of the pretrained model that this one is compared with; None for a pretrained model itself.

        Raises:
            RibError: If it is no longer in the store; the message has the command that makes it again.
        """
        m = self.metrics
        if m["method"] == PRETRAINED:
            return None
        run = store_of(self.run).run(m["data"]["kind"], m["model"], "none", PRETRAINED, m["before"])
        if run.metrics() is None:
            again = command_of(self.run, m, method={PRETRAINED: {}})
            raise RibError(f"the pretrained run of {self.run.folder} is gone; make it again with {again}")
        # On the same images, where it was scored on several suites.
        same = [own for own in run.all_metrics() if own["scores"].items() >= m["scores"].items()]
        return FinishedRun(run, (same or run.all_metrics())[0])

    def model(self) -> Network:
        """Build the run's network: ``model, transform = run.model()``.

        Returns:
            The timm or open_clip module with the run's weights, in eval mode on the CPU, and the transform from a PIL
            image to its input. Its logits are of all outputs (ImageNet's 1000 classes, or a suite's); accuracies are
            over a dataset's own classes, which `outputs` picks from them.

        Raises:
            RibError: If the run has no weights (an output ensemble, an imported run), or they are damaged.
        """
        from rib.results.network import load_network

        return load_network(self.run, self.metrics)

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of the plain architecture, float32.

        Raises:
            RibError: If the run has no weights.
        """
        if weightless := {"output_ensemble"} & {*self.metrics["method"].split("+")}:
            raise RibError(
                f"{self.run.folder} has no weights of its own: its method, {min(weightless)}, combines predictions"
            )
        if not self.run.weights_file.is_file():
            raise RibError(f"{self.run.folder} has no weights; make it again with {command_of(self.run, force=True)}")
        return self.run.weights()

    @explained
    def predictions(self, dataset: str) -> Predictions:
        """Return the predictions for all images of a dataset, as arrays in the order of `images`.

        Classes are numbered 0 to C - 1 within the dataset, not by the network's outputs, which `outputs` gives.

        Args:
            dataset: Name of a scored dataset, ``imagenet_v2``.

        Raises:
            RibError: If the run was not scored on it.
        """
        check_scored(self.run, self.metrics, dataset)
        try:
            return self.run.load_predictions(dataset, self.metrics["scores"][dataset]["key"])
        except DamagedError as error:
            fault = str(error).removesuffix(f"; {AGAIN}")
            raise DamagedError(
                f"{fault}; score its run again with {scoring_command_of(self.run, self.metrics)}"
            ) from error

    @explained
    def outputs(self, dataset: str) -> tuple[tuple[int, ...], ...]:
        """Return, for each class of a dataset, the network's outputs (0 to K - 1) that count as it.

        Nearly always one; a class with several (nine of ObjectNet's) takes the largest of their logits.

        Args:
            dataset: Name of a scored dataset, ``imagenet_a``.

        Returns:
            C tuples, by the label that `predictions` has.

        Raises:
            RibError: If the run was not scored on it.
        """
        check_scored(self.run, self.metrics, dataset)
        return spec_of(dataset, self.metrics).groups

    @explained
    def images(self, dataset: str) -> pd.DataFrame:
        """Return a table with one row per image of a dataset.

        Args:
            dataset: Name of a scored dataset.

        Returns:
            By path within the dataset: ``file`` (None if the images are not on this machine), the classes ``label``
            and ``predicted`` in English, ``output`` (the network's output for the label, 0 to K - 1; the first where
            the class has several), ``confidence`` (0 to 1) and ``correct``.
        """
        return image_table((self.run, self.metrics), dataset, {"": self.predictions(dataset)})

    def table(self) -> pd.DataFrame:
        """Return a table of accuracies with one row per scored dataset.

        Returns:
            By name of the dataset: ``role`` (target of RI, source, or reported only), ``images`` and top-1 accuracy
            ``before`` and ``after`` in percent; ``change`` with the ends ``low`` and ``high`` of its 95 % interval over
            images in percentage points. It prints two decimals; the numbers have all.
        """
        from rib.reporting.frame import WholeFrame

        m = self.metrics
        rows = [
            {
                "dataset": name,
                "role": role_of(name, m),
                "images": entry["num_images"],
                "before": 100 * entry["before"],
                "after": 100 * entry["after"],
                "change": entry["change"]["value"],
                "low": entry["change"]["low"],
                "high": entry["change"]["high"],
            }
            for name, entry in m["accuracy"].items()
        ]
        return WholeFrame(rows).set_index("dataset")

    @explained
    def figure(
        self, kind: Literal["change", "curve", "loss"] = "change", width: float | None = None, title: bool = True
    ) -> Figure:
        """Draw a figure of the run, without pyplot; a notebook shows it, and ``savefig`` writes it.

        Args:
            kind: ``change`` of accuracy by dataset, ``curve`` of an interpolation (WiSE-FT), or ``loss`` of training.
            width: Inches, 3.3 for one column of a paper; None for the figure's own width.
            title: False to leave the headline out, for a paper whose caption says the same.

        Raises:
            RibError: If the run has no such figure, or no page is so wide.
        """
        from rib.reporting import run_figures

        if width is not None and not PAGE[0] <= width <= PAGE[1]:
            raise RibError(
                f"width: expected inches from {PAGE[0]:g} to {PAGE[1]:g}, such as 3.3, or None; got {width!r}"
            )
        logs = run_figures.training_logs(self.run.folder)
        if kind == "change":
            figure = run_figures.change_figure(self.metrics, width)
        elif kind == "curve" and "curve" in self.metrics:
            figure = run_figures.curve_figure(self.metrics, width)
        elif kind == "loss" and logs:
            figure = run_figures.loss_figure(logs, self.metrics, width)
        else:
            drawn = ["change", *(["curve"] if "curve" in self.metrics else []), *(["loss"] if logs else [])]
            raise RibError(f"figure: this run has no figure {kind!r}; it has {', '.join(drawn)}")
        if not title:
            figure.drop_headline()
        return display.in_notebooks(figure)

    @explained
    def check(self, fail_below: float, fail_on: Literal["upper", "value"] = "upper") -> None:
        """Raise an error if RI is below a limit, for a team's own tests: ``run.check(fail_below=-1.0)``.

        Args:
            fail_below: The limit, percentage points: -1.0 allows a mean loss of one point of accuracy.
            fail_on: ``upper`` to compare the upper end of RI's 95 % interval, so that only a loss that is sure beyond
                the scored images fails; ``value`` to compare RI itself.

        Raises:
            RobustnessError: If RI is below the limit, or NaN; pytest reports it as a failed assertion.
            RibError: If the run has no RI, or the limit is invalid.
        """
        __tracebackhide__ = True
        check_results([self.result], fail_below, fail_on)

    @property
    def command(self) -> str:
        """Shell command that makes the run again."""
        return command_of(self.run, self.metrics)

    @property
    def method(self) -> str:
        """Name of the method, ``ewc`` or ``lwf+wise_ft``; for external weights the name that they were given."""
        return str(self.brief["options"].get(EXTERNAL_NAME) or self.brief["method"])

    @property
    def title(self) -> str:
        """Model, method, source and seed in words, ``mini_small, ewc on ImageNet-A, seed 0``."""
        m = self.metrics
        if m["source"] == "none":
            # A probe on each source makes several pretrained runs of one model.
            head = f", {title_of_head(str(head_of(m)), m['data']['kind'])}" if is_per_source(m) else ""
            return f"{m['model']}, {self.method}{head}"
        seed = "" if m["seed"] is None else f", seed {m['seed']}"
        return f"{m['model']}, {self.method} on {title_of(m['source'], m['data']['kind'])}{seed}"

    @property
    def result(self) -> Result:
        """The run's folder with its metrics, as functions of `rib.reporting` take them."""
        return self.run, self.metrics

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FinishedRun) and (self.folder, self.metrics) == (other.folder, other.metrics)

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        improvement = self.metrics["robustness_improvement"]
        ri = f", RI {with_interval(improvement)}" if improvement and self.ri else ""
        title, name = self.title, f", {self.method}"
        if EXTERNAL_NAME in self.metrics["options"]:
            title = title.replace(name, f"{name} (external)", 1)
        return f"<FinishedRun {self.key}: {title}{ri}>"

    def _repr_html_(self) -> str:
        return display.run_html(self.metrics, self.title, self.key)


def role_of(dataset: str, metrics: Metrics) -> str:
    """Return what a scored dataset is to a run: ``target`` of its RI, its ``source``, or ``reported`` only."""
    improvement = metrics["robustness_improvement"]
    if dataset == metrics["source"]:
        return "source"
    return "target" if improvement and dataset in improvement["targets"] else "reported"
