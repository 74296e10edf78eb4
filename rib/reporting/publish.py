"""Measure a scored run and write metrics.json, its figures and its curve."""

from __future__ import annotations

from collections.abc import Sequence

from rib.metrics import family_of
from rib.reporting import run_view
from rib.runs.measure import PairedPredictions, held_out_accuracy, keep_paths, measure
from rib.runs.metrics_file import write
from rib.runs.provenance import MADE_FROM
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore, fit_of
from rib.schemas.metrics import BestIngredient, Measures, Metrics, UsedRun


def publish(spec: RunSpec, run: Run, before: Run, parts: Sequence[Run], store: RunStore) -> None:
    """Measure, draw, and write metrics.json: from here on the run is finished."""
    from rib.reporting import run_figures

    for tree in (*spec.images.values(), *filter(None, (spec.held_out,))):
        keep_paths(store.root, tree.digest, tree.paths)

    def measured(variant: str | None = None) -> Measures:
        scored = [
            PairedPredictions.of(
                name,
                before.load_predictions(name, spec.score_keys[name]),
                run.load_predictions(name, spec.score_keys[name], variant),
                tree.paths,
                spec.catalog,
            )
            for name, tree in spec.scored.items()
        ]
        return measure(scored, spec.source_name, spec.config.suite.targets, spec.catalog)

    fitted, scoring, measures = fit_of(run), run.read_json("scoring.json"), measured()
    metrics: Metrics = {
        "schema": 1,
        "model": spec.start.name,
        "source": spec.source_name,
        "method": spec.method,
        "options": spec.options,
        "seed": spec.config.seed if spec.source is not None else None,
        "suite": spec.suite,
        "fingerprint": spec.training_key,
        "data": {"kind": spec.catalog.kind, "digest": spec.data_digest, "found": spec.images_found},
        "protocol": spec.protocol,
        "trained_on": spec.trained_on,
        "accuracy": measures["accuracy"],
        "robustness_improvement": measures["robustness_improvement"],
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"] if scoring else 0.0},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": before.key,
        "scores": spec.scores,
    }
    if spec.source is not None and spec.held_out is not None:
        name = str(spec.held_out_name)
        start, end = (r.load_predictions(name, spec.score_keys[name]) for r in (before, run))
        metrics["held_out"] = held_out_accuracy(start, end, spec.images[name].paths, spec.held_out)
    if labels := run.curve_points(spec.score_keys):
        metrics["curve"] = [{"label": label, **measured(label)} for label in labels]
        run_view.write_curve(metrics, run.folder / "curve.csv")
    if spec.ingredients:
        metrics["ingredients"] = _used(spec, run)
        metrics["best_ingredient"] = _best_ingredient(spec, metrics, parts)
    if spec.probe is not None:
        metrics["probe"] = _used(spec, run)[0]
    run_figures.draw_run(metrics, run.folder)
    write(run.metrics_file_for(metrics), metrics)


def _used(spec: RunSpec, run: Run) -> list[UsedRun]:
    """Which weights of which runs were used: another making of the same run may have others."""
    begun = run.read_json(MADE_FROM)
    assert begun is not None, "a run that is made from others says of which weights"
    weights = begun["weights"]
    return [
        {"label": part.label, "source": part.source, "fingerprint": part.key, "weights": digest}
        for part, digest in zip(spec.needs, weights, strict=True)
    ]


def _best_ingredient(spec: RunSpec, metrics: Metrics, parts: Sequence[Run]) -> dict[str, BestIngredient]:
    """The ingredient with the best accuracy on each dataset, among those that were not fine-tuned on it.

    An average is worth its cost where it beats them: by how much is ``gain``, in percentage points. Where a RIB soup
    leaves out a whole family (``leave_out: family``), so does what it is compared with.
    """
    derived_from = {name: dataset.derived_from for name, dataset in spec.catalog.specs.items()}
    by_family = spec.config.method[str(spec.merged)].get("leave_out") == "family"

    def kin(name: str) -> str:
        return family_of(name, derived_from) if by_family else name

    found: dict[str, BestIngredient] = {}
    for name, entry in metrics["accuracy"].items():
        candidates = [
            (other["accuracy"][name]["after"], part.label)
            for part, run in zip(spec.ingredients, parts, strict=True)
            if kin(part.source) != kin(name) and (other := run.metrics(metrics["suite"]) or run.metrics()) is not None
            if name in other["accuracy"]
        ]
        if candidates:
            accuracy, label = max(candidates)
            found[name] = {"label": label, "accuracy": accuracy, "gain": 100 * (entry["after"] - accuracy)}
    return found
