"""Which runs of a store were made to choose a setting: trials of `rib.search`, and what they are made from.

Each lies in the store like any other run, so that it is never made twice; beside the search is an empty file a trial,
named by its fingerprint, before it is begun: ``<store>/searches/<study>/trials/<fingerprint>``. A table of methods is
no place for them: the best of many, whatever chose it, is not a row like the others. A run that was there before is
none of them.
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
"""Where a store has its marks."""


def mark_trial(spec: RunSpec, store: RunStore, folder: Path) -> None:
    """Remember that a run, and what it is made from, is about to be made for a search; not what is there already.

    Args:
        spec: What the trial asks.
        store: Where it will be.
        folder: The search's.
    """
    if store.run_of(spec).metrics() is None:
        file = folder / "trials" / spec.training_key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for part in spec.needs:
        if part.spec is not None and part.spec.source is not None:
            mark_trial(part.spec, store, folder)


def trials_in(store: RunStore) -> frozenset[str]:
    """Fingerprints of all trials."""
    return frozenset(file.name for file in store.root.glob(TRIALS))


def without_trials(results: Sequence[Result], store: RunStore) -> Sequence[Result]:
    """Results of what was made for its own sake."""
    trials = trials_in(store)
    return [(run, metrics) for run, metrics in results if run.key not in trials]
