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
# # Inside the model
#
# This notebook shows what fine-tuning changes, layer by layer, for plain fine-tuning and EWC. Two measures: linear CKA
# with the pretrained model (1 if a layer represents images as before, 0 if the two representations are unrelated), and
# weight drift (the distance of the weights from the pretrained ones).

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

import rib
from rib.analysis.cka import layer_cka
from rib.analysis.drift import layer_drift
from rib.analysis.figures import heat_figure
from rib.config.command_schema import AnalyzeConfig, CKAConfig

RUNS = os.environ.get("RIB_RUNS", "runs")

# %%
runs = {
    method: rib.finetune(method, model="mini_large", dataset="imagenet_r", runs=RUNS) for method in ("finetune", "ewc")
}
pd.concat({method: run.table()["change"] for method, run in runs.items()}, axis=1).round(1)

# %% [markdown]
# ## CKA by layer
#
# The debiased estimator on all images of mini val, which no run was trained on. Bars are 95 % intervals by a
# jackknife over disjoint batches; a bootstrap would draw images repeatedly, which increases CKA.

# %%
found = {method: layer_cka(CKAConfig(run=str(run.folder), images=500)) for method, run in runs.items()}
tables = {method: one.table.set_index("layer") for method, one in found.items()}
pd.concat({method: table[["cka", "low", "high"]] for method, table in tables.items()}, axis=1).round(3)

# %%
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for (method, table), colour, marker in zip(tables.items(), ("#D55E00", "#0072B2"), "os", strict=True):
    bars = [table["cka"] - table["low"], table["high"] - table["cka"]]
    ax.errorbar(range(len(table)), table["cka"], bars, color=colour, marker=marker, ms=4, lw=1.2, label=method)
ax.set_xticks(range(len(table)), table.index, rotation=90, fontsize=7)
ax.set_ylabel(f"debiased linear CKA, n = {found['ewc'].metadata['images']}", fontsize=8)
ax.legend(fontsize=8, frameon=False)
ax.grid(lw=0.4, alpha=0.5)

# %% [markdown]
# CKA between all pairs of layers: the plainly fine-tuned model on the vertical axis, the pretrained one on the
# horizontal.

# %%
one = found["finetune"]
heat_figure(one.arrays, one.metadata)

# %% [markdown]
# ## Weight drift by layer
#
# Distance in percent of the norm of the pretrained weights. A layer can drift far and still represent images as before,
# and the reverse.

# %%
drift = pd.concat(
    {
        method: pd.read_csv(layer_drift(AnalyzeConfig(run=str(run.folder)))).set_index("layer")["drift"]
        for method, run in runs.items()
    },
    axis=1,
)
(100 * drift).round(1)

# %%
figure, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
for (method, table), colour, marker in zip(tables.items(), ("#D55E00", "#0072B2"), "os", strict=True):
    both = table.join(drift[method], how="inner")
    ax.plot(100 * both[method], both["cka"], marker, color=colour, ms=5, label=method)
ax.set_xlabel("distance of a layer's weights, % of the start's length", fontsize=8)
ax.set_ylabel("debiased linear CKA of its output", fontsize=8)
ax.legend(fontsize=8, frameon=False)
ax.grid(lw=0.4, alpha=0.5)

# %%
for method, one in found.items():
    least = one.table.loc[one.table["cka"].idxmin()]
    ri = runs[method].ri.value
    print(f"{method}: RI {ri:+.2f} points, mean CKA {one.mean:.3f}, least {least['cka']:.3f} at {least['layer']}")
