"""Check that a finished run is up to date: its images, way of scoring and the runs it was made from are unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.errors import DamagedError
from rib.runs.metrics_file import MetricsKey
from rib.runs.run import Run, made_from, weights_digest
from rib.runs.store import RunStore, ingredient_run
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    from rib.runs.spec import RunSpec


def metrics_if_current(run: Run, spec: RunSpec) -> Metrics | None:
    """Return a run's metrics if they are up to date: measured on the images and with the settings of a run spec.

    Args:
        run: The run's folder.
        spec: The resolved run.

    Returns:
        None if there are no such metrics, if they are damaged, or if an ingredient's weights have changed since. For
        external weights also if their name or precision has changed: metrics are then rewritten without scoring.
    """
    protocol = spec.protocol
    targets, reported = protocol["targets"], protocol["reported"]
    try:
        metrics = run.metrics(MetricsKey(spec.suite, targets, reported, protocol["experiment"], spec.scores))
    except DamagedError:  # `RunStore.recover` moves the file aside, and the metrics are computed again
        return None
    if metrics is None or out_of_date(metrics, spec, run) is not None:
        return None
    if spec.external is not None:
        # Neither is in the key of external weights, which is that of their content.
        described = (spec.options, protocol["precision"])
        return metrics if (metrics["options"], metrics["protocol"]["precision"]) == described else None
    return metrics


def out_of_date(metrics: Metrics, spec: RunSpec, run: Run) -> str | None:
    """Return the label of the first ingredient (run that this one was made from) with changed weights, or None.

    Ingredients of ingredients count as well. An ingredient that is no longer in the store counts as unchanged.

    Args:
        metrics: Of the run.
        spec: The resolved run.
        run: Its folder, in the same store as its ingredients.
    """
    for ingredient, recorded in zip(spec.needs, made_from(metrics), strict=True):
        used = ingredient_run(ingredient, RunStore(run.folder.parents[4]))
        digest = weights_digest(used)
        if digest is None:
            continue
        if digest != recorded["weights"]:
            return ingredient.label
        if ingredient.spec is not None and (own := used.metrics()) is not None:
            deeper = out_of_date(own, ingredient.spec, used)
            if deeper is not None:
                return f"{ingredient.label} is out of date itself: {deeper}"
    return None


def out_of_date_in(store: RunStore) -> set[str]:
    """Return the training keys of finished runs made, directly or not, from runs whose weights have changed since."""
    runs = store.briefs()
    used = {run.key: made for run, metrics in runs if (made := made_from(metrics))}
    ingredients = {i["fingerprint"] for made in used.values() for i in made}
    weights = {run.key: weights_digest(run) for run, _ in runs if run.key in ingredients}
    old: set[str] = set()
    # Repeated, since a merge of an outdated merge is outdated too, whatever the order of folders.
    while more := {
        key
        for key, made in used.items()
        if key not in old
        and any(
            i["fingerprint"] in old or weights.get(i["fingerprint"], i.get("weights")) != i.get("weights") for i in made
        )
    }:
        old |= more
    return old
