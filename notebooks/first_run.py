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
# Take a pretrained model, fine-tune it on one dataset, and see how its accuracy on all the others changes. This
# notebook uses the synthetic images of `mini` and a small model that ships with rib, so it takes seconds on a CPU. For
# real data and a real model, add `data.root=` and change `model=`; everything else stays the same.

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
# `compose` takes the arguments of the command line: this is `python -m rib.train model=mini_small dataset=imagenet_a`.
# If the store already holds this run, it is returned immediately.

# %%
config = compose("model=mini_small", "dataset=imagenet_a", f"paths.runs={RUNS}")
run = finetune(config)
metrics = run.metrics()

# %% [markdown]
# ## Its table and its figure
#
# The numbers come from `metrics.json`: accuracy in percent before and after fine-tuning, and the change in percentage
# points with its 95 % interval over images. RI is the mean change over the six targets. The source and mini val are
# shown too, but do not count towards RI.

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
# A mean hides that some images are gained while others are lost. The pretrained model's predictions are a run in the
# same store, of the method `pretrained`.

# %%
store = RunStore(RUNS)
before = store.run(metrics["data"]["kind"], metrics["model"], "none", "pretrained", metrics["before"])


def flow(dataset: str) -> dict[str, int]:
    """Count the images that are right both times, only now, only before, and never."""
    was, now = before.predictions(dataset).correct, run.predictions(dataset).correct
    found = {"kept": was & now, "won": ~was & now, "lost": was & ~now, "never": ~was & ~now}
    return {name: int(images.sum()) for name, images in found.items()}


pd.DataFrame({name: flow(name) for name in metrics["accuracy"]}).T

# %% [markdown]
# Six of the lost images: their class, which the pretrained model predicted, and what the fine-tuned model predicts.

# %%
DATASET = "imagenet_r"
catalog, root = find_data(config)
paths = read_paths(store.root, metrics["scores"][DATASET]["images"])
was, now = before.predictions(DATASET), run.predictions(DATASET)
lost = np.flatnonzero(was.correct & ~now.correct)
most_sure = lost[np.argsort(-now.confidence[lost])][:6]
spec, words = catalog[DATASET], ImageNetInfo()


def name(label: int) -> str:
    """Return the name of a class, without its synonyms."""
    return words.label_name_to_description(spec.classes[label]).split(",")[0]


figure, axes = plt.subplots(1, 6, figsize=(9, 2.1), layout="constrained")
for ax, i in zip(axes, most_sure, strict=True):
    ax.imshow(plt.imread(root / spec.folders[0] / paths[i]))
    ax.set_title(f"{name(now.label[i])}\nnow {name(now.top5[i, 0])}\n{now.confidence[i]:.0%} sure", fontsize=7)
    ax.axis("off")

# %% [markdown]
# ## Compared with EWC
#
# Elastic weight consolidation (EWC) penalises changes of weights that matter for the pretrained model. The same run
# with EWC, and both side by side:

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
