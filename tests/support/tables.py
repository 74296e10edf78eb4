"""Every table that rib prints, made from invented numbers, under long names and with wide numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rib.data import catalog
from rib.data.__main__ import status_table
from rib.data.check import DatasetStatus
from rib.data.worlds import describe_kind
from rib.metrics.comparison import PairedTest
from rib.metrics.intervals import Interval
from rib.reporting.layout import FittedTable
from rib.reporting.paper_table import PaperTable
from rib.reporting.published_accuracies import PublishedComparison, published_table
from rib.reporting.run_view import best_ingredient_table, curve_table, run_table
from rib.reporting.runs_table import comparison_table
from rib.reporting.summary import Summary
from rib.sweeps.jobs_table import job_table
from rib.sweeps.plan import Cell, Plan
from rib.sweeps.plan_view import plan_table
from rib.sweeps.scheduler import Outcome
from rib.sweeps.search import trial_table
from rib.sweeps.status import running_table

MODELS = ("mini_small", "vit_base_patch16_224.augreg2_in21k_ft_in1k")
NAMES = (
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "objectnet",
    "imagenet_cartoon",
    "imagenet_drawing",
    "imagenet_val",
)
SOURCES = ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_cartoon")


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.234, "high": value + 11.234}


def metrics(kind: str = "user", model: str = MODELS[1], seed: int = 0, **more: Any) -> dict[str, Any]:
    """Return what tables read of a run's metrics."""
    accuracy = {
        name: {"before": 0.6 + i / 97, "after": 0.5 + i / 89, "num_images": 50_000 + i, "change": interval(-10.5 - i)}
        for i, name in enumerate(NAMES)
    }
    targets = [name for name in NAMES[:7] if name != "imagenet_r"]
    improvement = {
        **interval(-12.345 - seed),
        "targets": targets,
        "without_derived": {**interval(-13.456), "targets": targets[:4]},
    }
    return {
        "model": model,
        "method": "ewc",
        "source": "imagenet_r",
        "seed": seed,
        "suite": "seven",
        "options": {"optimizer.lr": 0.001},
        "data": {"kind": kind},
        "protocol": {"limit": None, "batch_norm": "update", "switches": {}, "experiment": None, "epochs": 10},
        "cost": {"images_trained": 300_000, "images_scored": 217_000 + seed, "device": "NVIDIA H100 80GB HBM3"},
        "accuracy": accuracy,
        "robustness_improvement": improvement,
        "seconds": {"fit": 12345.6 + seed, "evaluate": 1.0},
        "notes": {"ewc.capped_share": 0.002},
        **more,
    }


def merged(kind: str) -> dict[str, Any]:
    made = metrics(kind, seed=0)
    curve = [
        {"label": str(i / 10), "accuracy": made["accuracy"], "robustness_improvement": {**interval(-i), "targets": []}}
        for i in range(11)
    ]
    best = {
        name: {"label": f"finetune seed={i}", "accuracy": 0.5 + i / 83, "gain": 1.5 - i} for i, name in enumerate(NAMES)
    }
    return made | {"curve": curve, "best_ingredient": best}


def paper(kind: str, sources: Sequence[str] = SOURCES) -> PaperTable:
    def row(model: str, method: str, value: float) -> Summary:
        known: dict[str, Any] = {
            "model": model,
            "method": method,
            "options": {},
            "settings": {"optimizer.lr": 0.001 if value > 0 else 0.01},
            "improvement": {name: value - i for i, name in enumerate(sources)},
            "seeds": (0, 1, 2),
            "over_images": Interval(value, value - 2.3, value + 2.4, "images"),
            "over_seeds": Interval(value, value - 12.3, value + 12.4, "seeds"),
            "against_plain": PairedTest(1.0, 0.1, 0.001),
            "p_adjusted": 0.001,
            "val_before": 0.85123,
            "val_after": 0.80123,
            "source_before": 0.45,
            "source_after": 0.75,
            "images_trained": 300_000.0,
            "images_scored": 217_000.0,
            "seconds": 12345.6,
            "devices": ("NVIDIA H100 80GB HBM3",),
            "made_from": 0,
            "is_trial": False,
        }
        return Summary(**{field.name: known.get(field.name, 0) for field in fields(Summary)})

    rows = [row(model, method, value) for model in MODELS for method, value in (("ewc", 11.5), ("finetune", -12.5))]
    return PaperTable(
        rows,
        axes=("optimizer.lr",),
        common={"epochs": 10},
        sources=tuple(sources),
        asked=tuple(sources),
        kind=kind,
        suite="seven",
        about=f"{describe_kind(kind)}, suite seven",
        num_runs=72,
    )


def tables(kind: str = "user") -> dict[str, FittedTable]:
    """Return every table by its name.

    Args:
        kind: Kind of data, ``mini`` or ``user``.
    """
    main, cost = paper(kind).rich()
    runs: list[Any] = [metrics(kind, model, seed) for model in MODELS for seed in (0, 1, 2)]
    cells = [
        Cell(f"{m}{method}", f"{m}, {method} on ImageNet-R, seed 0", None, None, wanted=True, problem="none")
        for m in MODELS
        for method in ("ewc", "lwf+wise_ft")
    ]
    plan = Plan({cell.id: cell for cell in cells})
    one: Any = metrics(kind)
    made: Any = merged(kind)
    jobs: list[Any] = [
        {
            "overrides": f"+method=ewc seed={seed} optimizer.lr=0.00{seed}",
            "kind": kind,
            "model": MODELS[1],
            "source": "imagenet_r",
            "method": "ewc",
            "seed": seed,
            **({"robustness_improvement": interval(-12.5 - seed), "folder": "/runs/a/b"} if seed else {"error": "no"}),
        }
        for seed in (0, 1, 2)
    ]
    running: list[Any] = [
        {"label": f"{MODELS[1]}, ewc on ImageNet-R, seed {seed}", "host": "node", "pid": 12345, "what": "scoring"}
        | {"note": "", "done": 11111, "total": 123456 + seed, "unit": "images", "rate": 1234.0, "seconds_left": 99.0}
        for seed in (0, 1)
    ]
    trials = [
        {"trial": i, "optimizer.lr": 0.00123 * (i + 1), "method.ewc.strength": 12.3 * (i + 1), "held_out": 0.5 + i / 97}
        | {"before": 0.4, "num_images": 104, "ri": -3.21 - i}
        for i in range(4)
    ]
    specs = list(catalog.real().specs.values())
    fault = "ImageNet-C: expected 1,000 classes with images in imagenet-c, found 999; unpack its archive again"
    statuses = [DatasetStatus(spec, 49_999 + i, 999, fault if i else None) for i, spec in enumerate(specs)]
    accuracies = [PublishedComparison(name, 50_000, 81.23 + i, 82.34, 0.5) for i, name in enumerate(NAMES)]
    return {
        "run": run_table(one),
        "runs": comparison_table(runs),
        "paper": main,
        "cost": cost,
        "plan": plan_table(plan, Outcome(done=set(), failed={}, refused={})),
        "status": running_table(running),
        "trials": trial_table(trials, ["optimizer.lr", "method.ewc.strength"], "vit, ewc on ImageNet-R (user data)"),
        "jobs": job_table(jobs, Path("/multirun")),
        "ingredients": best_ingredient_table(made),
        "curve": curve_table(made),
        "published": published_table(one, accuracies),
        "check": status_table("Datasets under /data", statuses),
    }
