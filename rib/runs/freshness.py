"""Decide whether a finished run still answers: same images, same scoring, same weights of its ingredients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.errors import DamagedError
from rib.runs.metrics_file import MetricsKey
from rib.runs.run import Run, made_from, weights_digest
from rib.runs.store import RunStore, part_of
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.runs.spec import RunSpec


def find_metrics(run: Run, spec: RunSpec) -> Metrics | None:
    """A run's metrics for the suite, if they stand on exactly the images and the way of scoring that are asked for.

    None where it has none, or they are damaged, or what the run was made from has other weights by now. Of weights
    from elsewhere also where they go by another name or precision now: these are written anew, nothing is scored.
    """
    protocol = spec.protocol
    targets, reported = protocol["targets"], protocol["reported"]
    try:
        view = run.metrics(MetricsKey(spec.suite, targets, reported, protocol["experiment"], spec.scores))
    except DamagedError:
        return None
    if view is None or out_of_date(view, spec, run) is not None:
        return None
    if spec.external is not None:
        said = (spec.options, protocol["precision"])
        return view if (view["options"], view["protocol"]["precision"]) == said else None
    return view


def out_of_date(view: Metrics, spec: RunSpec, run: Run) -> str | None:
    """The first run that another was made from and that holds other weights by now; one that is gone is none.

    Args:
        view: What the metrics of the run say.
        spec: What it answers.
        run: Its folder, in the store of those that it was made from.
    """
    for part, then in zip(spec.needs, made_from(view), strict=True):
        place = part_of(part, RunStore(run.folder.parents[4]))
        now = weights_digest(place)
        if now is None:
            continue
        if now != then["weights"]:
            return part.label
        if part.spec is not None and (own := place.metrics()) is not None:
            deeper = out_of_date(own, part.spec, place)
            if deeper is not None:
                return f"{part.label} is out of date itself: {deeper}"
    return None


def out_of_date_in(store: RunStore) -> set[str]:
    """Keys of finished runs that were made from others which hold other weights by now, or are such themselves."""
    runs = store.finished()
    weights = {run.key: weights_digest(run) for run in runs}
    used = {run.key: made_from(metrics) for run in runs if (metrics := run.metrics()) is not None}
    old: set[str] = set()
    while more := {
        key
        for key, parts in used.items()
        if key not in old
        and any(
            part["fingerprint"] in old or weights.get(part["fingerprint"], part.get("weights")) != part.get("weights")
            for part in parts
        )
    }:
        old |= more
    return old
