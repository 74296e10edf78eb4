"""Compute a scored run's metrics, and write metrics.json, figures and (after an interpolation) curve.csv."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rib.config.schema import FiguresConfig
from rib.data.suites.recorded import record_of
from rib.data.worlds import is_suite
from rib.metrics import family_of
from rib.reporting import run_view
from rib.reporting.captions import command_of_figures, origin
from rib.runs.measure import PairedPredictions, held_out_accuracy, keep_paths, measure
from rib.runs.metrics_file import write
from rib.runs.provenance import MADE_FROM
from rib.runs.run import Result, Run
from rib.runs.spec import RunSpec
from rib.runs.store import RunStore, fit_of
from rib.runtime.progress import track
from rib.runtime.stopwatch import timed
from rib.schemas.cost import Cost
from rib.schemas.files import Fit
from rib.schemas.metrics import BestIngredient, DataInfo, Measures, Metrics, UsedRun


def publish(spec: RunSpec, run: Run, pretrained: Run, ingredients: Sequence[Run], store: RunStore) -> None:
    """Compute the metrics, draw the figures, and write metrics.json, which marks the run as finished.

    Args:
        spec: The resolved run, with the datasets that were scored.
        run: Folder with the predictions; the files are written into it.
        pretrained: The baseline that accuracies are compared with; the run itself if it is the pretrained one.
        ingredients: Finished runs that a merge was made from, in the order of ``spec.ingredients``.
        store: Keeps the images' paths, which predictions are stored without.

    Raises:
        DamagedError: If a predictions file does not hold what was written to it.
    """
    with timed("figures"):  # matplotlib's import
        from rib.reporting import run_figures

    for tree in (*spec.images.values(), *filter(None, (spec.held_out,))):
        keep_paths(store.root, tree.digest, tree.paths)
    with timed("accuracies and confidence intervals"):
        metrics = _compute_metrics(spec, run, pretrained, ingredients)
    if "curve" in metrics:
        run_view.write_curve(metrics, run.folder / "curve.csv")
    with timed("figures"):
        run_figures.draw_run(metrics, run.folder, spec.config.figures)
    # Last: a process that dies before this line leaves an unfinished run, never one with numbers and no figures.
    write(run.metrics_file_for(metrics), metrics)


def redraw(metrics: Metrics, folder: Path, figures: FiguresConfig) -> None:
    """Draw a finished run's figures again if they were written with other options, or show another suite.

    A folder that cannot be written to keeps the figures that it has.

    Args:
        metrics: Of the run.
        folder: The run's folder.
        figures: Formats and width.
    """
    if not _is_drawn(metrics, folder, figures):
        _draw(metrics, folder, figures)


def redraw_all(results: Sequence[Result], figures: FiguresConfig) -> None:
    """Draw the figures of several finished runs again where `redraw` would, and show the progress."""
    stale = [(run, m) for run, m in results if not _is_drawn(m, run.folder, figures)]
    for run, m in track(stale, "drawing figures", len(stale), lambda _: 1, "runs") if len(stale) > 1 else stale:
        _draw(m, run.folder, figures)


def _draw(metrics: Metrics, folder: Path, figures: FiguresConfig) -> None:
    if os.access(folder, os.W_OK):
        from rib.reporting import run_figures

        run_figures.draw_run(metrics, folder, figures)


def _is_drawn(metrics: Metrics, folder: Path, figures: FiguresConfig) -> bool:
    """Return True if a run's folder has its figures as these options would make them, from its caption."""
    caption = folder / "figures" / "change.txt"
    files = [caption.with_suffix(f".{ending}") for ending in figures.format]
    if not all(file.is_file() for file in (caption, *files)):
        return False
    return caption.read_text().rstrip("\n").endswith(f"\n\n{origin(figures, command_of_figures(metrics, figures))}")


def _compute_metrics(spec: RunSpec, run: Run, pretrained: Run, ingredients: Sequence[Run]) -> Metrics:
    """Compute the content of a run's metrics.json from its stored predictions."""
    fitted, scoring, measures = fit_of(run), run.read_json("scoring.json"), _measure(spec, run, pretrained)
    metrics: Metrics = {
        "schema": 1,
        "model": spec.start.name,
        "source": spec.source_name,
        "method": spec.method,
        "options": spec.options,
        # Nothing is random without training: one pretrained run serves all seeds.
        "seed": spec.config.seed if spec.source is not None else None,
        "suite": spec.suite,
        "fingerprint": spec.training_key,
        "data": _data_info(spec),
        "protocol": spec.protocol,
        "trained_on": spec.trained_on,
        "accuracy": measures["accuracy"],
        "robustness_improvement": measures["robustness_improvement"],
        "seconds": {"fit": fitted["seconds"], "evaluate": scoring["seconds"] if scoring else 0.0},
        "num_parameters": fitted["num_parameters"],
        "notes": fitted["notes"],
        "before": pretrained.key,
        "scores": spec.scores,
    }
    if spec.source is not None and spec.held_out is not None:
        # Held-out images are among the source's, so their accuracy is read off predictions that exist already.
        name = str(spec.held_out_name)
        start, end = (r.load_predictions(name, spec.score_keys[name]) for r in (pretrained, run))
        metrics["held_out"] = held_out_accuracy(start, end, spec.images[name].paths, spec.held_out)
    if labels := run.curve_points(spec.score_keys):
        metrics["curve"] = [{"label": label, **_measure(spec, run, pretrained, label)} for label in labels]
    metrics["cost"] = _cost(spec, fitted, len(labels))
    if spec.ingredients:
        metrics["ingredients"] = _used_runs(spec, run)[: len(spec.ingredients)]
        metrics["best_ingredient"] = _best_ingredients(spec, metrics, ingredients)
    if spec.probe is not None:
        metrics["probe"] = _used_runs(spec, run)[0]
    if spec.fitted_start is not None:
        metrics["start"] = _used_runs(spec, run)[-1]
    return metrics


def _data_info(spec: RunSpec) -> DataInfo:
    info: DataInfo = {"kind": spec.catalog.kind, "digest": spec.data_digest, "found": spec.images_found}
    # With it a store explains itself: its tables need no suite file.
    return {**info, "suite": record_of(spec.catalog)} if is_suite(spec.catalog.kind) else info


def _cost(spec: RunSpec, fitted: Fit, num_points: int) -> Cost:
    """Count the images behind a run's metrics: from its spec, so that an interrupted run has the same numbers."""
    # An ensemble has no weights of its own, and passes every image through the models of its ingredients.
    models = (1 if fitted["weights"] is not None else len(spec.ingredients)) + num_points
    cost: Cost = {
        "images_trained": spec.images_trained,
        "images_scored": models * sum(len(tree) for tree in spec.images.values()),
    }
    return {**cost, "device": fitted["device"]} if "device" in fitted else cost


def _measure(spec: RunSpec, run: Run, pretrained: Run, point: str | None = None) -> Measures:
    """Compute accuracies and RI of the run's final model, or of one point of its interpolation curve."""
    scored = [
        PairedPredictions.of(
            name,
            pretrained.load_predictions(name, spec.score_keys[name]),
            run.load_predictions(name, spec.score_keys[name], point),
            tree.paths,
            spec.catalog,
        )
        for name, tree in spec.scored.items()
    ]
    return measure(scored, spec.source_name, spec.config.suite.targets, spec.catalog)


def _used_runs(spec: RunSpec, run: Run) -> list[UsedRun]:
    """List the runs that a run was made from (`RunSpec.needs`), with a digest of each one's weights.

    The key of a used run is not enough: retraining it may give other weights under the same key.
    """
    record = run.read_json(MADE_FROM)
    assert record is not None, "a run that is made from others records their weights"
    weights = record["weights"]
    return [
        {"label": used.label, "source": used.source, "fingerprint": used.key, "weights": digest}
        for used, digest in zip(spec.needs, weights, strict=True)
    ]


def _best_ingredients(spec: RunSpec, metrics: Metrics, runs: Sequence[Run]) -> dict[str, BestIngredient]:
    """Find, for each dataset, the most accurate of the merged runs (ingredients) that were not fine-tuned on it.

    Averaging is worth its cost where it beats that ingredient, by ``gain`` percentage points. If a RIB soup leaves out
    a whole family of datasets (``leave_out: family``), ingredients of the same family are left out here as well.
    """
    derived_from = {name: dataset.derived_from for name, dataset in spec.catalog.specs.items()}
    by_family = spec.config.method[str(spec.merged)].get("leave_out") == "family"

    def family(name: str) -> str:
        return family_of(name, derived_from) if by_family else name

    best: dict[str, BestIngredient] = {}
    for name, entry in metrics["accuracy"].items():
        candidates = [
            (other["accuracy"][name]["after"], ingredient.label)
            for ingredient, run in zip(spec.ingredients, runs, strict=True)
            # An ingredient that was not scored on this suite may still share some of its datasets.
            if family(ingredient.source) != family(name)
            and (other := run.metrics(metrics["suite"]) or run.metrics()) is not None
            if name in other["accuracy"]
        ]
        if candidates:
            accuracy, label = max(candidates)  # of equal ones the last label in the alphabet: the same in every run
            best[name] = {"label": label, "accuracy": accuracy, "gain": 100 * (entry["after"] - accuracy)}
    return best
