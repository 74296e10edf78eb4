"""A grid's table, recomputed from the stored files by a separate script that uses only numpy."""

from __future__ import annotations

import json
from math import erfc, sqrt
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from rib.config import compose
from rib.pipeline import finetune
from rib.reporting.paper_table import paper_table
from rib.runs.store import RunStore

TARGETS = ("imagenet_a", "imagenet_cartoon", "imagenet_drawing")  # the last two show the same photographs
SOURCES = ("imagenet_a", "imagenet_cartoon")
TITLES = {"imagenet_a": "A", "imagenet_cartoon": "Cartoon"}


@pytest.fixture(scope="module")
def store(tmp_path_factory, cache):
    """mini_tiny x 2 methods x 2 sources x 2 seeds."""
    runs = tmp_path_factory.mktemp("grid")
    common = (f"paths.runs={runs}", f"paths.cache={cache}", "trainer=cpu", "data.root=null", "model=mini_tiny")
    more = (f"suite.targets=[{','.join(TARGETS)}]", "epochs=1", "optimizer.lr=0.1", "data.images_per_class=3")
    for source in SOURCES:
        for seed in (0, 1):
            for method in ("finetune", "wise_ft"):
                finetune(compose(*common, *more, f"dataset={source}", f"seed={seed}", f"+method={method}"))
    return runs


def recomputed(store: Path) -> dict[str, dict[str, Any]]:
    """By method: RI of each source, mRI, both intervals, val, and the p-value against plain fine-tuning."""
    runs = [(file.parent, json.loads(file.read_text())) for file in store.glob("mini/*/*/*/*/metrics.json")]
    (start,) = (folder for folder, m in runs if m["source"] == "none")

    def right(folder: Path, name: str, key: str) -> np.ndarray:
        columns = np.load(folder / "predictions" / f"{name}.{key}.npz")
        return columns["top5"][:, 0] == columns["label"]

    change: dict[tuple[str, str, int, str], np.ndarray] = {}
    val: dict[tuple[str, str, int], tuple[float, float]] = {}
    photographs = {}
    for folder, m in runs:
        if m["source"] == "none":
            continue
        cell = (m["method"], m["source"], m["seed"])
        for name, score in m["scores"].items():
            before, after = (right(f, name, score["key"]) for f in (start, folder))
            change[*cell, name] = after.astype(int) - before
            if name == "imagenet_val":
                val[cell] = (before.mean(), after.mean())
            listed = (store / "datasets" / "paths" / f"{score['images']}.txt").read_text().split("\n")[:-1]
            photographs[name] = [PurePosixPath(path).stem for path in listed]

    cells = [(source, seed) for source in SOURCES for seed in (0, 1)]

    def improvement(method: str, source: str, seed: int) -> float:
        return float(np.mean([100 * change[method, source, seed, t].mean() for t in TARGETS if t != source]))

    def by_photograph(method: str, family: tuple[str, ...]) -> np.ndarray:
        """Return what each photograph of a family adds to mRI, times their number; every set holds all of them."""
        names = sorted(photographs[family[0]])
        total = np.zeros(len(names))
        for source, seed in cells:
            counted = [t for t in TARGETS if t != source]
            for name in set(family) & set(counted):
                assert sorted(photographs[name]) == names
                total += change[method, source, seed, name][np.argsort(photographs[name])] / len(counted) / len(cells)
        return total

    families = {"imagenet_a": ("imagenet_a",), "imagenet_val": ("imagenet_cartoon", "imagenet_drawing")}
    table = {}
    for method in ("finetune", "wise_ft"):
        generator, resampled = np.random.default_rng(0), np.zeros(10_000)
        for _, family in sorted(families.items()):
            kinds, often = np.unique(by_photograph(method, family).round(12), return_counts=True)
            n, mean = often.sum(), kinds @ often / often.sum()
            draws = generator.multinomial(n, often / n, 10_000) @ kinds / n
            resampled += mean + sqrt(n / (n - 1)) * (draws - mean)
        seeds = [np.mean([improvement(method, source, seed) for source in SOURCES]) for seed in (0, 1)]
        half = student.ppf(0.975, 1) * np.std(seeds, ddof=1) / sqrt(2)
        differences = [by_photograph(method, f) - by_photograph("finetune", f) for f in families.values()]
        error = sqrt(sum(d.var(ddof=1) / len(d) for d in differences))
        z = sum(d.mean() for d in differences) / error if error else 0.0
        table[method] = {
            "ri": {s: np.mean([improvement(method, s, seed) for seed in (0, 1)]) for s in SOURCES},
            "mri": (np.mean(seeds), *(100 * np.quantile(resampled, [0.025, 0.975]))),
            "seeds": (np.mean(seeds) - half, np.mean(seeds) + half),
            "val": np.mean([val[method, *cell] for cell in cells], axis=0),
            "p": erfc(abs(z) / sqrt(2)),
        }
    return table


def points(value: float) -> str:
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}"


@pytest.mark.slow
def test_the_table_is_the_one_recomputed_from_the_stored_predictions(store):
    runs = RunStore(store)
    table = paper_table([(run, run.metrics()) for run in runs.finished()], runs)
    ours = recomputed(store)
    best = max(ours, key=lambda method: ours[method]["mri"][0])
    expected = []
    for method, row in sorted(ours.items(), key=lambda item: -item[1]["mri"][0]):
        value, low, high = map(points, row["mri"])
        mri = f"{value} [{low}, {high}]"
        cells = [
            "mini_tiny",
            method,
            *(points(row["ri"][source]) for source in SOURCES),
            (f"**{mri}**" if method == best else mri) + "\\*" * (method != "finetune" and row["p"] < 0.05),
            f"[{', '.join(map(points, row['seeds']))}] (2)",
            "2 of 2",
            f"{100 * row['val'][0]:.1f} > {100 * row['val'][1]:.1f}",
        ]
        expected.append(f"| {' | '.join(cells)} |")
    lines = table.markdown().splitlines()
    assert lines[0] == "**Robustness improvement on toy data (mini), suite seven*: 8 runs on mini A, mini Cartoon**"
    assert lines[2] == "| model | method | mini A | mini Cartoon | mRI [images] | [seeds] | sources | val % |"
    assert lines[4:6] == expected
    frame = table.frame().set_index("method")
    assert frame.loc["wise_ft", "p"] == pytest.approx(ours["wise_ft"]["p"], rel=1e-6)
    assert frame.loc["wise_ft", "p_holm"] == frame.loc["wise_ft", "p"]
