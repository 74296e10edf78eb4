"""Marks for runs that are trials of a hyperparameter search (`rib.search`), so that tables leave them out.

A trial is in the store like any other run, so that it is never made twice. Before it begins, an empty file named by
its fingerprint marks it: ``<store>/searches/<study>/trials/<fingerprint>``. Tables leave trials out because the best of
many settings, whatever chose it, cannot be compared with a method at its default. A run that was finished before the
search is not a trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rib.runs.run import Result
from rib.runs.store import RunStore

if TYPE_CHECKING:
    from rib.runs.spec import RunSpec

TRIALS = "searches/*/trials/*"
"""Glob pattern of the marks in a store."""


def mark_trial(spec: RunSpec, store: RunStore, folder: Path) -> None:
    """Mark a run and the runs that it needs as trials, unless they are finished already.

    Args:
        spec: The trial.
        store: The store that it will be in.
        folder: Folder of the search.
    """
    if store.run_of(spec).metrics() is None:
        file = folder / "trials" / spec.training_key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for ingredient in spec.needs:
        if ingredient.spec is not None and ingredient.spec.source is not None:
            mark_trial(ingredient.spec, store, folder)


def trials_in(store: RunStore) -> frozenset[str]:
    """Return the training keys of all runs that are marked as trials of a hyperparameter search in a store."""
    return frozenset(file.name for file in store.root.glob(TRIALS))


def without_trials(results: Sequence[Result], store: RunStore) -> Sequence[Result]:
    """Return the given results without those of runs that are marked as trials of a hyperparameter search."""
    trials = trials_in(store)
    return [(run, metrics) for run, metrics in results if run.key not in trials]
