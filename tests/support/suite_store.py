"""A store of finished runs on suites of a user's own, made from drawn numbers: no images, no weights, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rib.data.catalog import Catalog, DatasetSpec
from rib.data.suites.recorded import record_of
from rib.data.worlds import is_suite, register
from rib.runs.keys import NUMERICS
from rib.runs.measure import PairedPredictions, keep_paths, measure
from rib.runs.metrics_file import write
from rib.runs.predictions import Predictions
from rib.runs.run import Run
from rib.runs.store import RunStore
from rib.runtime.files import digest_of
from rib.schemas.metrics import Metrics

IMAGES = 60
"""Images of a domain."""


def suite(
    name: str = "pets",
    title: str = "Pets in four styles",
    domains: Mapping[str, str] | int = 4,
    classes: int = 7,
    in_distribution: str | None = None,
    derived: Mapping[str, str] | None = None,
) -> Catalog:
    """Return the catalog of a suite, and make it known; ``domains`` are titles by name, or a number of them."""
    if isinstance(domains, int):
        domains = {f"domain_{i}": f"Domain {i}" for i in range(domains)}
    names = tuple(f"class_{i}" for i in range(classes))
    groups = tuple((i,) for i in range(classes))
    specs = {
        key: DatasetSpec(key, shown, (), "domain", groups, names, None, derived_from=(derived or {}).get(key))
        for key, shown in domains.items()
    }
    catalog = Catalog(name, names, specs, title, in_distribution)
    register(catalog)
    return catalog


def add_run(
    root: Path,
    catalog: Catalog,
    source: str,
    method: str = "finetune",
    model: str = "vit",
    seed: int = 0,
    head: str | None = "zero_shot",
    gain: float = 0.1,
    targets: Sequence[str] | None = None,
    **more: Any,
) -> tuple[Run, Metrics]:
    """Add a finished run, and the pretrained run that it is compared with, to a store.

    Args:
        root: The store's folder.
        catalog: From `suite`, or any other.
        source: Domain that the run was fine-tuned on; ``none`` for a pretrained run.
        method: Name of the method.
        model: Name of the model.
        seed: Random seed.
        head: ``protocol.head``; None for a model with outputs of its own.
        gain: Fraction of wrong images that fine-tuning makes right; negative: of right ones that it makes wrong.
        targets: Targets of the suite; None: all domains but the one in distribution.
        **more: Further fields of metrics.json.
    """
    store = RunStore(root)
    (root / "datasets").mkdir(parents=True, exist_ok=True)
    targets = targets or [name for name in catalog.specs if name != catalog.in_distribution]
    before = digest_of([catalog.kind, model, head])
    key = before if source == "none" else digest_of([before, source, method, seed, more.get("options")])
    run = store.run(catalog.kind, model, source, "pretrained" if source == "none" else method, key)
    if source != "none" and not (store.run(catalog.kind, model, "none", "pretrained", before).metrics()):
        add_run(root, catalog, "none", model=model, head=head, targets=targets)
    scores, pairs = {}, []
    for name, spec in catalog.specs.items():
        paths = [f"{spec.classes[i % len(spec.classes)]}/{i:04}.jpg" for i in range(IMAGES)]
        images = digest_of([catalog.kind, name])
        keep_paths(root, images, paths)
        label = np.arange(IMAGES, dtype=np.int16) % len(spec.classes)
        start = drawn(label, [before, name], 0.5, len(spec.classes))
        end = start if source == "none" else moved(start, [key, name], gain, len(spec.classes))
        scores[name] = {"key": digest_of([name]), "images": images}
        file = run.predictions_file(name, scores[name]["key"])
        file.parent.mkdir(parents=True, exist_ok=True)
        end.save(file)
        pairs.append(PairedPredictions.of(name, start, end, paths, catalog))
    protocol: dict[str, Any] = {
        "numerics": NUMERICS,
        "experiment": None,
        "precision": "32-true",
        "evaluation_precision": "32-true",
        "epochs": 5,
        "lr": 0.001,
        "warmup_steps": 3,
        "batch_size": 64,
        "batch_norm": "update",
        "label_rule": "max",
        "image_backend": "torchvision",
        "limit": None,
        "identity": "content",
        "processes": 1,
        "holdout": 0.0,
        "targets": sorted(targets),
        "reported": [],
        "switches": {},
        **({} if head is None else {"head": head}),
    }
    metrics: Any = {
        "schema": 1,
        "model": model,
        "source": source,
        "method": run.folder.parent.name,
        "options": {},
        "seed": None if source == "none" else seed,
        "suite": catalog.kind if is_suite(catalog.kind) else "seven",
        "fingerprint": key,
        "data": {"kind": catalog.kind, "digest": digest_of([catalog.kind, *catalog.specs])},
        "protocol": protocol,
        "trained_on": None if source == "none" else {"num_images": IMAGES, "digest": "d" * 16},
        **measure(pairs, source, targets, catalog),
        "seconds": {"fit": 12.3, "evaluate": 1.0},
        "num_parameters": 1,
        "notes": {},
        "before": before,
        "scores": scores,
        **more,
    }
    if is_suite(catalog.kind):
        metrics["data"]["suite"] = record_of(catalog)
    write(run.folder / "metrics.json", metrics)
    return run, metrics


def drawn(label: np.ndarray, seed: object, accuracy: float, classes: int) -> Predictions:
    """Return predictions of a model with about an accuracy."""
    random = np.random.default_rng(int(digest_of(seed), 16))
    right = random.random(len(label)) < accuracy
    return predicted(label, np.where(right, label, (label + 1) % classes))


def moved(start: Predictions, seed: object, gain: float, classes: int) -> Predictions:
    """Return predictions of which a fraction differs from the start: wrong ones get right, or the reverse."""
    random = np.random.default_rng(int(digest_of(seed), 16))
    changed = (random.random(len(start)) < abs(gain)) & (start.correct == (gain < 0))
    other = start.label if gain > 0 else (start.label + 1) % classes
    return predicted(start.label, np.where(changed, other, start.top5[:, 0]))


def predicted(label: np.ndarray, first: np.ndarray) -> Predictions:
    """Return predictions whose most likely classes are given."""
    top5 = np.full((len(label), 5), -1, np.int16)
    top5[:, 0] = first
    ones = np.ones(len(label), np.float32)
    return Predictions(label.astype(np.int16), top5, ones, -ones)
