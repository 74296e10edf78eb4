"""Format numbers and descriptions for tables: signed percentage points, intervals, accuracy before and after."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Literal

from rib.data.worlds import describe_kind, in_distribution_of, is_suite, short_title
from rib.runs.spec import EXTERNAL
from rib.schemas.cost import Cost
from rib.schemas.metrics import DatasetAccuracy, IntervalInPoints, Metrics


def points(value: float) -> str:
    """Format percentage points with a sign, ``+1.23``; a change that rounds to zero has none."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def with_interval(value: IntervalInPoints) -> str:
    """Format a value and its interval, both in percentage points, as ``+1.23 [+0.40, +2.05]``."""
    return f"{points(value['value'])} [{points(value['low'])}, {points(value['high'])}]"


def before_after(before: float, after: float) -> str:
    """Format accuracy before and after fine-tuning, in percent, as ``34.6 > 62.5``; ``not scored`` if NaN."""
    return "not scored" if isnan(after) else f"{before:.1f} > {after:.1f}"


def world_of(kind: str, limit: int | None) -> str:
    """Describe the data of results (toy data, the user's, a suite), with a warning if only some images are used.

    Args:
        kind: ``mini``, ``user`` or the name of a suite.
        limit: ``data.limit``, the largest number of images per dataset; None for all of them.
    """
    return describe_kind(kind) + (f", at most {limit} images per dataset: a quick look, not a result" if limit else "")


def world(metrics: Metrics) -> str:
    """Describe the data that a run was scored on, for the title or caption of a table or figure."""
    return world_of(metrics["data"]["kind"], metrics["protocol"]["limit"])


def data_and_suite(kind: str, limit: int | None, suite: str) -> str:
    """Describe the data of results and the suite, once where a suite of the user's own is titled by its name.

    Args:
        kind: ``mini``, ``user`` or the name of a suite.
        limit: ``data.limit``, the largest number of images per dataset; None for all of them.
        suite: Name of the suite in metrics.json.
    """
    return world_of(kind, limit) if describe_kind(kind) == suite else f"{world_of(kind, limit)}, suite {suite}"


def world_and_suite(metrics: Metrics) -> str:
    """Describe the data and the suite that a run was scored on, for the title of a table."""
    return data_and_suite(metrics["data"]["kind"], metrics["protocol"]["limit"], metrics["suite"])


def in_distribution_heading(kind: str) -> str | None:
    """Return the heading of accuracies in distribution, ``val %``, or ``Photographs %`` in a suite; None without any.

    Args:
        kind: Kind of data.
    """
    name = in_distribution_of(kind)
    return None if name is None else f"{short_title(name, kind) if is_suite(kind) else 'val'} %"


def cost_of(metrics: Metrics) -> Cost:
    """Return the images that a run trained on and scored, and its device if known; counted for runs of older versions.

    Args:
        metrics: Of the run.
    """
    if "cost" in metrics:
        return metrics["cost"]
    trained, epochs = metrics.get("trained_on"), metrics["protocol"]["epochs"]
    scored = sum(entry["num_images"] for entry in metrics["accuracy"].values()) * (1 + len(metrics.get("curve", ())))
    images = trained["num_images"] * epochs if trained and epochs else 0
    if (steps := metrics["options"].get("steps")) is not None:  # the last epoch ends where the steps do
        images = min(images, steps * (metrics["protocol"]["batch_size"] or 0) * metrics["options"].get("accumulate", 1))
    return {"images_trained": images, "images_scored": scored}


def cost_line(metrics: Metrics) -> str:
    """Describe what a run cost: ``2,184 images trained, 2,324 scored, 8.8 s on CPU (2 threads)``.

    A run that is read from the store shows the time and device of when it was made.

    Args:
        metrics: Of the run.
    """
    seconds = metrics["seconds"]
    apart = ", not counting the runs that it is made from" if metrics.get("ingredients") else ""
    apart = apart or (", for scoring only" if metrics["method"] == EXTERNAL else "")
    return describe_cost([cost_of(metrics)], seconds["fit"] + seconds["evaluate"]) + apart


def describe_cost(costs: Sequence[Cost], seconds: float) -> str:
    """Describe what runs cost together: ``2,184 images trained, 2,324 scored, 8.8 s on CPU (2 threads)``.

    Args:
        costs: Of each run.
        seconds: Of all runs, for training and scoring.
    """
    trained, scored = sum(cost["images_trained"] for cost in costs), sum(cost["images_scored"] for cost in costs)
    images = f"{trained:,} images trained, {scored:,} scored" if trained else f"{scored:,} images scored"
    devices = " and ".join(dict.fromkeys(cost["device"] for cost in costs if "device" in cost))
    return f"{images}, {duration(seconds)}{' on ' * bool(devices)}{devices}"


def duration(seconds: float) -> str:
    """Format a duration as ``8.8 s``, ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def percent(entry: DatasetAccuracy | None, when: Literal["before", "after"]) -> float:
    """Return a dataset's accuracy before or after fine-tuning, in percent; NaN if it was not scored."""
    return 100 * entry[when] if entry else float("nan")
