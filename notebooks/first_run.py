# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One run
#
# Take a pretrained model, fine-tune it on one dataset, and see what that did to its accuracy on all the others. Here
# the data are drawn (`mini`) and the model ships with rib, so that it takes seconds on a CPU; with `data.root=` and a
# real model every line below stays the same.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image
from timm.data import ImageNetInfo

from rib.config import compose
from rib.data.worlds import find_data
from rib.pipeline import finetune
from rib.runs.measure import read_paths
from rib.runs.store import RunStore

RUNS = os.environ.get("RIB_RUNS", "runs")

# %% [markdown]
# `compose` takes what the command line takes: this is `python -m rib.train model=mini_small dataset=imagenet_a`.
# A run that is in the store is not made again, so that the cell is quick the second time.

# %%
config = compose("model=mini_small", "dataset=imagenet_a", f"paths.runs={RUNS}")
run = finetune(config)
metrics = run.metrics()

# %% [markdown]
# ## Its table and its figure
#
# The same numbers out of `metrics.json`: accuracy in percent before and after, and the change in percentage points with
# its 95 % interval over images. The source and ImageNet val are shown and are no part of RI, the mean change over the
# six targets.

# %%
accuracy = pd.DataFrame(
    {
        name: {
            "before": 100 * entry["before"],
            "after": 100 * entry["after"],
            "change": entry["change"]["value"],
            "low": entry["change"]["low"],
            "high": entry["change"]["high"],
            "images": entry["num_images"],
        }
        for name, entry in metrics["accuracy"].items()
    }
).T
accuracy["in RI"] = accuracy.index.isin(metrics["robustness_improvement"]["targets"])
accuracy.round(1)

# %%
ri = metrics["robustness_improvement"]
print(f"RI {ri['value']:+.2f} [{ri['low']:+.2f}, {ri['high']:+.2f}] points over {len(ri['targets'])} targets")

# %%
Image(run.folder / "figures" / "change.png", width=560)

# %% [markdown]
# ## Its predictions, image by image
#
# Means hide that some images are won while others are lost. The model before is a run of the same store, `pretrained`.

# %%
store = RunStore(RUNS)
before = store.run(metrics["data"]["kind"], metrics["model"], "none", "pretrained", metrics["before"])


def flow(dataset: str) -> dict[str, int]:
    """How many images were right both times, only now, only before, and never."""
    was, now = before.predictions(dataset).correct, run.predictions(dataset).correct
    found = {"kept": was & now, "won": ~was & now, "lost": was & ~now, "never": ~was & ~now}
    return {name: int(images.sum()) for name, images in found.items()}


pd.DataFrame({name: flow(name) for name in metrics["accuracy"]}).T

# %% [markdown]
# Some that were lost: what the model said before, rightly, and what it says now.

# %%
DATASET = "imagenet_r"
catalog, root = find_data(config)
paths = read_paths(store.root, metrics["scores"][DATASET]["images"])
was, now = before.predictions(DATASET), run.predictions(DATASET)
lost = np.flatnonzero(was.correct & ~now.correct)
most_sure = lost[np.argsort(-now.confidence[lost])][:6]
spec, words = catalog[DATASET], ImageNetInfo()


def name(label: int) -> str:
    """A class in words, with its first synonym alone."""
    return words.label_name_to_description(spec.classes[label]).split(",")[0]


figure, axes = plt.subplots(1, 6, figsize=(9, 2.1), layout="constrained")
for ax, i in zip(axes, most_sure, strict=True):
    ax.imshow(plt.imread(root / spec.folders[0] / paths[i]))
    ax.set_title(f"{name(now.label[i])}\nnow {name(now.top5[i, 0])}\n{now.confidence[i]:.0%} sure", fontsize=7)
    ax.axis("off")

# %% [markdown]
# ## Against a method that protects what the model knew
#
# The same question with EWC, and both side by side.

# %%
ewc = finetune(compose("model=mini_small", "dataset=imagenet_a", "+method=ewc", f"paths.runs={RUNS}")).metrics()
rows = {
    m["method"]: {
        "RI": m["robustness_improvement"]["value"],
        "low": m["robustness_improvement"]["low"],
        "high": m["robustness_improvement"]["high"],
        "source %": 100 * m["accuracy"]["imagenet_a"]["after"],
    }
    for m in (metrics, ewc)
}
pd.DataFrame(rows).T.round(2)
