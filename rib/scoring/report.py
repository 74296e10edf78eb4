"""The result of scoring a model in memory: accuracies, RI, predictions, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from rib.data.catalog import nearest_dataset
from rib.data.tree import ImageTree
from rib.data.worlds import title_of
from rib.errors import RibError
from rib.metrics.intervals import Interval
from rib.reporting.formatting import data_and_suite, with_interval
from rib.reporting.layout import FittedTable, as_text
from rib.runs.limits import check_improvement, check_limit
from rib.runs.predictions import Predictions
from rib.runtime.arguments import explained
from rib.runtime.counting import plural
from rib.schemas.metrics import IntervalInPoints, RobustnessImprovement
from rib.schemas.verified import Verified

if TYPE_CHECKING:
    import pandas as pd


class ScoredCell(TypedDict):
    """Accuracy of a model on one corruption at one severity of ImageNet-C.

    Attributes:
        before: Top-1 of the model compared with, a fraction; None without one.
        after: Top-1 of the model, a fraction.
        num_images: Number of images scored.
    """

    before: float | None
    after: float
    num_images: int


class ScoredAccuracy(TypedDict):
    """Accuracy of a model on one dataset.

    Attributes:
        num_images: Number of images scored.
        before: Top-1 of the model compared with, a fraction; None without one.
        after: Top-1 of the model, likewise; for ImageNet-C the mean over corruptions and severities.
        change: Accuracy after minus before with its 95 % interval over images, in percentage points; None without a
            model to compare with.
        cells: Accuracy by "corruption/severity", for ImageNet-C.
        verified: How top-1 was verified, with precision="verified".
    """

    num_images: int
    before: float | None
    after: float
    change: IntervalInPoints | None
    cells: NotRequired[dict[str, ScoredCell]]
    verified: NotRequired[Verified]


@dataclass(frozen=True, eq=False)
class Score:
    """Accuracies of a model on the datasets of a suite, and RI where it was compared with another model.

    In a notebook it shows as a table.

    Attributes:
        accuracy: By dataset: ``before`` and ``after`` (fractions), ``num_images``, and the ``change`` with its 95 %
            interval over images (percentage points). ``before`` and ``change`` are None without a model to compare
            with.
        robustness_improvement: RI over the targets (``value``, ``low``, ``high`` in percentage points, ``targets``), as
            in metrics.json; None without a model to compare with, or without a target.
        suite: Name of the suite.
        source: The dataset that the model was fine-tuned on, left out of RI; ``none`` if it was not given.
        targets: Datasets that count towards RI.
        against: Description of the model that it is compared with; empty without one.
        kind: ``mini`` for toy data, ``user`` for ImageNet's datasets, or the name of a suite.
        limit: Largest number of images scored per dataset; None for all.
    """

    accuracy: Mapping[str, ScoredAccuracy]
    robustness_improvement: RobustnessImprovement | None
    suite: str
    source: str
    targets: Sequence[str]
    against: str
    kind: str
    limit: int | None
    _predictions: Mapping[str, Predictions] = field(repr=False)
    _images: Mapping[str, ImageTree] = field(repr=False)

    @property
    def ri(self) -> Interval | None:
        """RI in percentage points, with its 95 % interval over images; None where there is none."""
        improvement = self.robustness_improvement
        if improvement is None:
            return None
        return Interval(improvement["value"], improvement["low"], improvement["high"], "images only")

    @explained
    def predictions(self, dataset: str) -> Predictions:
        """Return the model's predictions for all images of a dataset, in the order of their paths.

        Args:
            dataset: Name of a scored dataset, ``imagenet_v2``.

        Raises:
            RibError: If the model was not scored on it.
        """
        if dataset not in self._predictions:
            known = ", ".join(self._predictions)
            raise RibError(
                f"there is no score on {dataset}{nearest_dataset(dataset, self._predictions)}; scored: {known}"
            )
        return self._predictions[dataset]

    @explained
    def images(self, dataset: str) -> ImageTree:
        """Return the scored images of a dataset (paths and labels), in the order of `predictions`.

        Raises:
            RibError: If the model was not scored on it.
        """
        self.predictions(dataset)
        return self._images[dataset]

    @explained
    def check(self, fail_below: float, fail_on: str = "upper") -> None:
        """Raise an error if RI is below a limit, for a team's own tests.

        Args:
            fail_below: The limit, percentage points: -1.0 allows a mean loss of one point of accuracy.
            fail_on: ``upper`` to compare the upper end of RI's 95 % interval, so that only a loss that is sure beyond
                the scored images fails; ``value`` to compare RI itself.

        Raises:
            RobustnessError: If RI is below the limit, or NaN; pytest reports it as a failed assertion.
            RibError: If there is no RI, or the limit is invalid.
        """
        __tracebackhide__ = True
        check_limit(fail_below, fail_on)
        if self.robustness_improvement is None:
            why = "there is no target in the suite" if self.against else "give before=MODEL_OR_RUN to rib.score"
            raise RibError(f"check: expected a score with an RI, got one without; {why}")
        check_improvement(self.robustness_improvement, fail_below, fail_on, against=self.against)

    def table(self) -> pd.DataFrame:
        """Return a table of accuracies with one row per scored dataset.

        Returns:
            By name of the dataset: ``role`` (target of RI, source, or reported only), ``images`` and top-1 accuracy
            ``before`` and ``after`` in percent; ``change`` with the ends ``low`` and ``high`` of its 95 % interval over
            images in percentage points. Without a model to compare with, ``accuracy`` in their place. It prints two
            decimals; the numbers have all.
        """
        from rib.reporting.frame import WholeFrame

        rows = []
        for name, entry in self.accuracy.items():
            row: dict[str, Any] = {"dataset": name, "role": self._role(name)}
            row["images"] = entry["num_images"]
            if entry["before"] is not None:
                row["before"] = 100 * entry["before"]
            row["after" if self.against else "accuracy"] = 100 * entry["after"]
            if (change := entry["change"]) is not None:
                row |= {"change": change["value"], "low": change["low"], "high": change["high"]}
            rows.append(row)
        return WholeFrame(rows).set_index("dataset")

    @property
    def title(self) -> str:
        """Heading of the table: the data, the suite, and the model compared with."""
        against = f", compared with {self.against}" if self.against else ""
        return f"Top-1 accuracy in percent on {data_and_suite(self.kind, self.limit, self.suite)}{against}"

    @property
    def summary(self) -> str:
        """RI in words, or that there is none."""
        if self.robustness_improvement is None:
            return "no RI (no model to compare with)" if not self.against else "no RI (no target)"
        count, interval = len(self.targets), with_interval(self.robustness_improvement)
        return f"RI {interval} percentage points over {plural(count, 'target')} (95 %, images only)"

    def __str__(self) -> str:
        numbers = [name for name in self.table().columns if name != "role"]
        table = FittedTable(self.title, ("dataset", "role"), tuple(numbers), notes=(self.summary,))
        for dataset, row in self.table().to_dict("index").items():
            cells = (f"{row[name]:,}" if name == "images" else f"{row[name]:.2f}" for name in numbers)
            table.add_row(title_of(str(dataset), self.kind), row["role"], *cells)
        return as_text(table)

    def __repr__(self) -> str:
        return f"<Score on {data_and_suite(self.kind, self.limit, self.suite)}: {self.summary}>"

    def _repr_html_(self) -> str:
        table = self.table().rename(index=lambda name: title_of(str(name), self.kind)).rename_axis(None)
        body = table.to_html(float_format="{:.2f}".format, border=0)
        return f"<p>{self.title}</p>{body}<p><b>{self.summary}</b></p>"

    def _role(self, dataset: str) -> str:
        if dataset == self.source:
            return "source"
        return "target" if dataset in self.targets else "reported"
