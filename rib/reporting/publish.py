"""Measure a scored run and write metrics.json, its figures and its curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rib.metrics import family_of
from rib.reporting import run_view
from rib.runs.measure import Scored, held_out_accuracy, keep_paths, measure
from rib.runs.provenance import MADE_FROM
from rib.runs.run import Run
from rib.runs.spec import Question
from rib.runs.store import RunStore
from rib.runtime.files import write_atomically


def publish(question: Question, run: Run, before: Run, parts: Sequence[Run], store: RunStore) -> None:
    """Measure, draw, and write metrics.json: from here on the run is finished."""
    from rib.reporting import run_figures

    for tree in (*question.images.values(), *filter(None, (question.held_out,))):
        keep_paths(store.root, tree.digest, tree.paths)

    def measured(variant: str | None = None) -> dict[str, Any]:
        scored = [
            Scored.of(
                name,
                before.scored(name, question.score_keys[name]),
                run.scored(name, question.score_keys[name], variant),
                tree.paths,
                question.catalog,
            )
            for name, tree in question.scored.items()
        ]
        return measure(scored, question.source_name, question.config.suite.targets, question.catalog)

    fitted = run.read_json("fit.json") or {}
    scoring = run.read_json("scoring.json") or {"seconds": 0.0}
    metrics = {
        "schema": 1,
        "model": question.start.name,
        "source": question.source_name,
        "method": question.method,
        "options": question.options,
        "seed": question.config.seed if question.source is not None else None,
        "suite": question.suite,
        "fingerprint": question.training_key,
        "data": {"kind": question.catalog.kind, "digest": question.data_digest, "found": question.images_found},
        "protocol": question.protocol,
        "trained_on": question.trained_on,
        **measured(),
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"]},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": before.key,
        "scores": question.scores,
    }
    if question.source is not None and question.held_out is not None:
        name = str(question.choosing)
        start, end = (r.scored(name, question.score_keys[name]) for r in (before, run))
        metrics["held_out"] = held_out_accuracy(start, end, question.images[name].paths, question.held_out)
    if labels := run.variants(question.score_keys):
        metrics["curve"] = [{"label": label, **measured(label)} for label in labels]
        run_view.write_curve(metrics, run.folder / "curve.csv")
    if question.ingredients:
        metrics["ingredients"] = _used(question, run)
        metrics["best_ingredient"] = _best_ingredient(question, metrics, parts)
    if question.probe is not None:
        metrics["probe"] = _used(question, run)[0]
    run_figures.draw_run(metrics, run.folder)
    write_atomically(run.view_file(metrics), (json.dumps(metrics, indent=1) + "\n").encode())


def _used(question: Question, run: Run) -> list[dict[str, str | None]]:
    """Which weights of which runs were used: another making of the same run may have others."""
    weights = (run.read_json(MADE_FROM) or {})["weights"]
    return [
        {"label": part.label, "source": part.source, "fingerprint": part.key, "weights": digest}
        for part, digest in zip(question.needs, weights, strict=True)
    ]


def _best_ingredient(question: Question, metrics: dict[str, Any], parts: Sequence[Run]) -> dict[str, Any]:
    """The ingredient with the best accuracy on each dataset, among those that were not fine-tuned on it.

    An average is worth its cost where it beats them: by how much is ``gain``, in percentage points. Where a RIB soup
    leaves out a whole family (``leave_out: family``), so does what it is compared with.
    """
    derived_from = {name: spec.derived_from for name, spec in question.catalog.specs.items()}
    by_family = question.config.method[str(question.merged)].get("leave_out") == "family"

    def kin(name: str) -> str:
        return family_of(name, derived_from) if by_family else name

    found = {}
    for name, entry in metrics["accuracy"].items():
        candidates = [
            (other["accuracy"][name]["after"], part.label)
            for part, run in zip(question.ingredients, parts, strict=True)
            if kin(part.source) != kin(name) and (other := run.metrics(metrics["suite"]) or run.metrics()) is not None
            if name in other["accuracy"]
        ]
        if candidates:
            accuracy, label = max(candidates)
            found[name] = {"label": label, "accuracy": accuracy, "gain": 100 * (entry["after"] - accuracy)}
    return found
