"""Figures of every kind from synthetic numbers, which takes no run, and what must hold for their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from rib.metrics import Interval, PairedTest
from rib.reporting.paper_table import PaperTable
from rib.reporting.summary import Summary
from rib.schemas.metrics import Metrics

LONG = "vit_large_patch14_clip_quickgelu_336.openai_ft_in12k_in1k"
MODELS = ("mini_small", LONG)
METHODS = (
    *("finetune", "ewc strength=1000 fisher=identity", "lwf+wise_ft alpha=0.3 curve=[0,0.25,0.5,0.75,1]"),
    *("l2sp", "linear_probe", "lp_ft", "lora", "ema", "ftp", "spd", "lines", "ldifs", "soup", "model_stock", "ties"),
    *("fisher_merge", "task_arithmetic", "layer_decay", "freeze_embed", "surgical", "visual_prompt"),
    *("output_ensemble", "rib_soup leave_out=family"),
)
TARGETS = ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_cartoon")


def metrics(method: str = "ewc", model: str = LONG, source: str = "imagenet_r", seed: int = 0) -> Metrics:
    """Metrics of a run with an interpolation curve."""
    random = np.random.default_rng(abs(hash((len(method), len(model), seed))) % 1000)

    def around(value: float, half: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    accuracy: dict[str, Any] = {}
    for name in (*TARGETS, "imagenet_val"):
        before, after = (float(x) for x in random.uniform(0.05, 0.95, 2))
        accuracy[name] = {"before": before, "after": after, "num_images": 30000}
        accuracy[name]["change"] = around(100 * (after - before), 6.0)
    targets = [name for name in TARGETS if name != source]
    ri: Any = {
        **around(-12.345, 3.2),
        "targets": targets,
        "without_derived": {**around(-11.0, 3.0), "targets": targets},
    }
    curve = [
        {"label": f"{a:g}", "robustness_improvement": ri, "accuracy": {n: {"after": 0.4 + 0.3 * a} for n in accuracy}}
        for a in np.linspace(0, 1, 21)
    ]
    return {  # type: ignore[return-value, typeddict-item]
        "schema": 1,
        "model": model,
        "source": source,
        "method": method.split()[0],
        "options": {},
        "seed": seed,
        "suite": "seven",
        "fingerprint": "0" * 16,
        "data": {"kind": "mini", "digest": ""},
        "protocol": {"experiment": None, "limit": None, "precision": "32-true"},
        "accuracy": accuracy,
        "robustness_improvement": ri,
        "notes": {"wise_ft.chosen_alpha": 0.25},
        "curve": curve,
    }


def paper_table(methods: int, seeds: int = 2) -> PaperTable:
    """A table of two models; the interval over two seeds is many times wider than anything measured."""
    random, rows = np.random.default_rng(1), []
    for model in MODELS:
        for number, method in enumerate(METHODS[:methods]):
            value = float(random.normal(-8, 5))
            by_seed = tuple(value + float(x) for x in random.normal(0, 1, seeds))
            options = dict(word.split("=") for word in method.split()[1:])
            rows.append(
                Summary(
                    model=model,
                    method=method.split()[0],
                    options=options,
                    settings=options,
                    improvement=dict.fromkeys(TARGETS[:3], value),
                    seeds=tuple(range(seeds)),
                    over_images=Interval(value, value - 1.5, value + 1.5, 0.2, 0.01),
                    over_seeds=Interval(value, value - 60, value + 60, 0.2, 0.01) if seeds > 1 else None,
                    against_plain=PairedTest(1.0, 0.5, 0.04) if number else None,
                    p_adjusted=0.01 if number % 2 else 0.4,
                    val_before=0.8,
                    val_after=0.8 + value / 100,
                    source_before=0.3,
                    source_after=0.35 + number / 100,
                    seconds=4.0,
                    images_trained=364.0,
                    images_scored=2000.0,
                    devices=("cpu",),
                    made_from=0,
                    is_trial=False,
                    by_seed=by_seed,
                )
            )
    about, num_runs = "toy data (mini), suite seven", len(rows) * 3 * seeds
    return PaperTable(rows, (), {"epochs": 1}, TARGETS[:3], TARGETS, "mini", "seven", about, num_runs)


def texts_outside(figure: Figure) -> list[str]:
    """Texts that reach out of the figure by more than a pixel."""
    page, found = figure.bbox, []
    for text in visible_texts(figure):
        box = text.get_window_extent()
        if min(box.x0 - page.x0, box.y0 - page.y0, page.x1 - box.x1, page.y1 - box.y1) < -1:
            found.append(text.get_text())
    return found


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other: tick labels, titles, labels, legends and notes of all panels."""
    texts = [(text.get_text(), text.get_window_extent().padded(-1)) for text in visible_texts(figure)]
    return [
        (one, other)
        for i, (one, box) in enumerate(texts)
        for other, second in texts[i + 1 :]
        if box.width > 0 and box.height > 0 and box.overlaps(second)
    ]


def sizes(figure: Figure) -> set[float]:
    """Sizes of all texts in points."""
    return {text.get_fontsize() for text in visible_texts(figure)}


def visible_texts(figure: Figure) -> Iterator[Text]:
    """Texts that are drawn; an axis keeps labels of ticks beyond its ends, which are not."""
    hidden: set[int] = set()
    for axes in figure.axes:
        if not axes.get_visible():
            hidden |= {id(text) for text in axes.findobj(Text)}
        for axis in (axes.xaxis, axes.yaxis):
            drawn = {id(label) for tick in axis._update_ticks() for label in (tick.label1, tick.label2)}
            every = {id(label) for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)}
            hidden |= every - drawn
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text


Builder = Callable[[float | None], Figure]


def study_table(curves: int = 2, **more: Any) -> pd.DataFrame:
    """Rows of a study: ``curves`` curves along five values, on two models."""
    random, rows = np.random.default_rng(2), []
    for number in range(curves):
        for value in (0.0001, 0.0005, 0.001, 0.005, 0.01):
            mri = float(random.normal(-8, 4))
            rows.append(
                {
                    "model": MODELS[number % 2],
                    "method": METHODS[number % 23].split()[0],
                    "curve": f"{MODELS[number % 2]}, {METHODS[number % 23]}",
                    "mri": mri,
                    "low": mri - 1,
                    "high": mri + 1,
                    "seeds_low": mri - 9,
                    "seeds_high": mri + 9,
                    "p": 0.01,
                    "num_sources": 3,
                    "num_seeds": 2,
                    "sources": "imagenet_r imagenet_v2 imagenet_sketch",
                    "source_before": 30.0,
                    "source_after": 40 + mri,
                    "val_before": 80.0,
                    "val_after": 80 + mri,
                    "val_low": mri - 2,
                    "val_high": mri + 2,
                    "optimizer.lr": value,
                    "a_class": 2e4 * value,
                    "pretrained_on": 3e9 * value,
                    "strength": 100 * value,
                    "distance": 1.0,
                    **{name: values[number % len(values)] for name, values in more.items()},
                }
            )
    return pd.DataFrame(rows)


def layers_table(blocks: int, sources: int = 3, curves: int = 3) -> pd.DataFrame:
    """Rows of the study of representation shift: a ViT of some blocks, or with 0 a ConvNet."""
    parts = (".attn.proj", ".mlp.fc1", ".mlp.fc2", "")
    names = [f"blocks.{i}{part}" for i in range(blocks) for part in parts]
    names = names or [f"stages.{i}.blocks.{j}.conv_dw.convolution" for i in range(4) for j in range(9)]
    shared = study_table(curves).groupby("curve", sort=False).first().reset_index()
    rows = [
        {**row, "source": source, "seed": 0, "ri": -5.0 - n, "layer": name, "cka": 1 - 0.01 * k, "note": ""}
        | {"cka_low": 0.97 - 0.01 * k, "cka_high": 1.0 - 0.005 * k, "images": 240, "kind": "mini"}
        for row in shared.to_dict("records")
        for n, source in enumerate(TARGETS[:sources])
        for k, name in enumerate(names)
    ]
    return pd.DataFrame(rows)
