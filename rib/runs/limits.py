"""Limits for tests and scripts: raise an error if a model's robustness improvement (RI) is below a limit.

By default the upper end of RI's 95 % interval is compared, so that a loss that the scored images do not establish is
no failure; with ``fail_on="value"`` it is RI itself. A number that is not one (NaN) fails, and so does a model without
an RI: neither is evidence that the model kept its robustness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rib.errors import RibError, RobustnessError
from rib.runs.run import Result
from rib.runs.spec import PRETRAINED
from rib.runtime.counting import plural
from rib.schemas.metrics import Improvement, Metrics

FAIL_ON = {"upper": "high", "value": "value"}
"""Choices of ``fail_on``, with the entry of RI that each one compares."""


def check_limit(fail_below: float, fail_on: str) -> None:
    """Check a limit itself, before hours of scoring.

    Args:
        fail_below: The limit, percentage points.
        fail_on: ``upper`` or ``value``.

    Raises:
        RibError: If the limit is not a finite number, or there is no such choice.
    """
    if fail_on not in FAIL_ON:
        raise RibError(f"fail_on: expected {' or '.join(FAIL_ON)}, got {fail_on!r}")
    if isinstance(fail_below, bool) or not isinstance(fail_below, int | float) or not math.isfinite(fail_below):
        raise RibError(f"fail_below: expected a number of percentage points, such as -1.0, got {fail_below!r}")


def check_improvement(
    improvement: Improvement, fail_below: float, fail_on: str = "upper", *, what: str = "the model", against: str
) -> None:
    """Raise an error if RI is below a limit.

    Args:
        improvement: RI with its interval, percentage points.
        fail_below: The limit, percentage points.
        fail_on: ``upper`` to compare the upper end of the 95 % interval, ``value`` to compare RI itself.
        what: Description of the model, to begin the message with.
        against: Description of the model that RI compares it with.

    Raises:
        RobustnessError: If the number is below the limit, or is NaN.
        RibError: If the limit or ``fail_on`` is invalid.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    check_limit(fail_below, fail_on)
    if shortfall := _shortfall(improvement, fail_below, fail_on, against):
        raise RobustnessError(f"{what}: {shortfall}")


def check_results(results: Sequence[Result], fail_below: float, fail_on: str = "upper") -> None:
    """Check the RI of several runs, and name in one error all that are below the limit.

    Args:
        results: Runs with their metrics.
        fail_below: The limit, percentage points.
        fail_on: ``upper`` or ``value``.

    Raises:
        RobustnessError: If the RI of any run is below the limit, or is NaN.
        RibError: If a run has no RI, or the limit is invalid.
    """
    __tracebackhide__ = True
    check_limit(fail_below, fail_on)
    failed, without = [], []
    for run, metrics in results:
        improvement = metrics["robustness_improvement"]
        name = describe(metrics) if len(results) == 1 else f"{describe(metrics)} ({run.folder})"
        if reason := why_no_improvement(metrics):
            without.append(f"{name}: {reason}")
        elif improvement and (
            shortfall := _shortfall(improvement, fail_below, fail_on, f"the pretrained {metrics['model']}")
        ):
            failed.append(f"{name}: {shortfall}")
    lines = [*failed, *without]
    if not lines:
        return
    kind = RobustnessError if failed else RibError
    if len(results) == 1:
        raise kind(lines[0])
    counts = [
        f"{len(found)} of {len(results)} runs {what}"
        for found, what in ((failed, f"failed fail_below={fail_below:g}"), (without, "have no RI to compare"))
        if found
    ]
    raise kind("\n  ".join([" and ".join(counts), *lines]))


def describe_passed(results: Sequence[Result], fail_below: float, fail_on: str = "upper") -> str:
    """Say in one line by how much runs that `check_results` let pass are above the limit; of several, the nearest.

    Args:
        results: Runs with their metrics, which have passed.
        fail_below: The limit, percentage points.
        fail_on: ``upper`` or ``value``.
    """
    improvements = [(metrics["robustness_improvement"], metrics) for _, metrics in results]
    numbers = [(_compared(ri, fail_on), ri, metrics) for ri, metrics in improvements if ri is not None]
    if not numbers:
        return ""
    number, improvement, metrics = min(numbers, key=lambda entry: entry[0])
    which = "its upper end" if fail_on == "upper" else "it"
    text = f"{_interval(improvement)}: {which} is {number - fail_below:.2f} above the limit of {fail_below:+.2f} "
    text += f"percentage points: passed{_few_images(metrics)}"
    return text if len(results) == 1 else f"all {len(results)} runs passed; the nearest, {describe(metrics)}: {text}"


def _few_images(metrics: Metrics) -> str:
    limit = metrics["protocol"]["limit"]
    return f" (at most {plural(limit, 'image')} per dataset)" if limit else ""


def _compared(improvement: Improvement, fail_on: str) -> float:
    return improvement["high" if fail_on == "upper" else "value"]


def _interval(improvement: Improvement) -> str:
    return f"RI {improvement['value']:+.2f} [{improvement['low']:+.2f}, {improvement['high']:+.2f}]"


def why_no_improvement(metrics: Metrics) -> str:
    """Return the reason why a run has no RI that could pass or fail; empty if it has one."""
    if metrics["method"] == PRETRAINED:
        return "RI of a pretrained model compares it with itself; check a fine-tuned run"
    if metrics["robustness_improvement"] is None:
        return f"suite {metrics['suite']} leaves no target to compute RI over; choose another suite"
    return ""


def describe(metrics: Metrics) -> str:
    """Return a run's model, method, source and seed in a few words: ``mini_tiny, ewc on imagenet_r, seed 0``."""
    name = metrics["options"].get("method.external.name")
    words = f"{metrics['model']}, {name or metrics['method']}"
    if metrics["source"] != "none":
        words += f" on {metrics['source']}"
    return words if metrics["seed"] is None else f"{words}, seed {metrics['seed']}"


def _shortfall(improvement: Improvement, fail_below: float, fail_on: str, against: str) -> str:
    """Return by how much RI is below a limit, in words; empty if it is not."""
    number = _compared(improvement, fail_on)
    if number >= fail_below:  # False for NaN, which fails
        return ""
    which = "its upper end" if fail_on == "upper" else "it"
    count = len(improvement["targets"])
    by = "is not a number" if math.isnan(number) else f"is {fail_below - number:.2f} below"
    limit = "" if math.isnan(number) else f" the limit of {fail_below:+.2f} percentage points"
    return f"{_interval(improvement)} against {against}, over {plural(count, 'target')}: {which} {by}{limit}"
