"""Tables with one row per image: file, class, and what models predict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import rib.config
from rib.data import mini
from rib.data.catalog import DatasetSpec, nearest_dataset, with_label_rule
from rib.data.folders import find_folder
from rib.data.scan import scan
from rib.data.worlds import cache_dir, catalog_of_run, find_data, is_suite
from rib.errors import RibError
from rib.models.class_words import class_words
from rib.runs.measure import read_paths
from rib.runs.predictions import Predictions
from rib.runs.run import Result, Run
from rib.runs.store import RunStore
from rib.schemas.metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd


def store_of(run: Run) -> RunStore:
    """Return the store that a run lies in, ``<store>/<data>/<model>/<source>/<method>/<key>``.

    Raises:
        RibError: If it does not lie in a store, because its folder was copied out of it.
    """
    folder = run.folder.absolute()
    if len(folder.parents) < 5 or not (folder.parents[4] / "datasets").is_dir():
        raise RibError(f"{run.folder} does not lie in a run store, which holds its images' names and pretrained run")
    return RunStore(folder.parents[4])


def check_scored(run: Run, metrics: Metrics, dataset: str) -> None:
    """Check that a run was scored on a dataset.

    Raises:
        RibError: If it was not; the message names the nearest dataset that it was scored on.
    """
    if dataset not in metrics["scores"]:
        known = ", ".join(metrics["scores"])
        hint = nearest_dataset(dataset, metrics["scores"])
        raise RibError(f"{run.folder.name} was not scored on {dataset}{hint}; scored: {known}")


def spec_of(dataset: str, metrics: Metrics) -> DatasetSpec:
    """Return the catalog's entry of a scored dataset, with the classes that its labels number."""
    spec = catalog_of_run(metrics["data"])[dataset.removesuffix(".held_out")]
    return with_label_rule(spec, metrics["protocol"]["label_rule"])


def words_of(folders: Sequence[str], kind: str) -> list[str]:
    """Return the names of classes for readers: English words for ImageNet's, a suite's own names as they are.

    Args:
        folders: Names of the classes, as `class_folders` returns them.
        kind: Kind of data.
    """
    return list(folders) if is_suite(kind) else _words(tuple(folders))


@cache
def _words(classes: tuple[str, ...]) -> list[str]:
    return class_words(classes)


def class_folders(spec: DatasetSpec) -> list[str]:
    """Return the name of each of a dataset's C classes, by label: a WordNet id, ObjectNet's name, or the suite's."""
    labels = spec.labels or range(len(spec.classes))
    return list(dict(sorted(zip(labels, spec.classes, strict=True), reverse=True)).values())[::-1]


def image_table(result: Result, dataset: str, models: Mapping[str, Predictions]) -> pd.DataFrame:
    """Return one row per image of a dataset: its file and class, and what each model predicts.

    Args:
        result: A run that was scored on the dataset, with its metrics.
        dataset: Name of the dataset.
        models: Predictions by suffix of the columns; the empty suffix gives ``predicted``.

    Returns:
        Indexed by the path within the dataset, with the columns ``file`` (None where the images are not on this
        machine), ``label``, ``output`` (the first of the network's outputs that count as the label's class) and, for
        each model, ``predicted``, ``confidence`` (0 to 1) and ``correct``.
    """
    import pandas as pd

    from rib.reporting.frame import WholeFrame

    run, metrics = result
    spec = spec_of(dataset, metrics)
    paths = read_paths(store_of(run).root, metrics["scores"][dataset]["images"])
    folder = _folder(run, metrics, spec)
    names = np.array(words_of(class_folders(spec), metrics["data"]["kind"]), dtype=object)
    columns: dict[str, object] = {"file": [str(folder / path) if folder else None for path in paths]}
    labels = next(iter(models.values())).label
    columns["label"] = names[labels]
    columns["output"] = np.array([group[0] for group in spec.groups])[labels]
    for suffix, predictions in models.items():
        columns[f"predicted{suffix}"] = names[predictions.top5[:, 0]]
        columns[f"confidence{suffix}"] = predictions.confidence
        columns[f"correct{suffix}"] = predictions.correct
    return WholeFrame(columns, index=pd.Index(paths, name="path"))


def _folder(run: Run, metrics: Metrics, spec: DatasetSpec) -> Path | None:
    """Return the folder of a dataset's images, or None if it is not on this machine."""
    try:
        config = rib.config.load_config(run.folder / "config.yaml")
        if is_suite(metrics["data"]["kind"]):
            catalog, root = find_data(config)
            records, data = store_of(run).root / "datasets", config.data
            tree = scan(catalog[spec.name], root, records, data.rescan, data.allow_incomplete, data.identity)
            return tree.folder.absolute()
        if metrics["data"]["kind"] == "mini":
            # The run may come from another machine, on which its cache was.
            own = config.paths.cache if config.paths.cache and Path(config.paths.cache).is_dir() else None
            root = mini.ensure(cache_dir(own or os.environ.get("RIB_CACHE")))
        else:
            root = Path(config.data.root or os.environ.get("RIB_DATA", "")).expanduser()
        return find_folder(spec, root).absolute()
    except RibError:
        return None
