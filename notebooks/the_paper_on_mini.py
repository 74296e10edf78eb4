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
# # The paper on mini
#
# Three claims of ImageNet-RIB (arXiv 2410.21582) about why fine-tuning loses robustness and what helps, each tested on
# a small grid of the built-in data. The headings are the paper's claims, the results below them are those on mini. Each
# study is one command; here they run with fewer models, sources and sizes. Mini is synthetic: it shows how the studies
# work, and its results may well contradict the paper.

# %%
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown

RUNS = os.environ.get("RIB_RUNS", "runs")
BOTH = "models=[mini_small,mini_large]"


def benchmark(*overrides: str) -> list[Path]:
    """Run `python -m rib.benchmark`, which makes only missing runs, and return the files that it wrote."""
    command = [sys.executable, "-m", "rib.benchmark", *overrides, f"paths.runs={RUNS}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines() if line.startswith(os.sep)]


def ending(files: list[Path], name: str) -> Path:
    """Return the last file of this name, which is the study's; the grid's own files come first."""
    return [file for file in files if file.name == name][-1]


# %% [markdown]
# ## Claim 1: representations shift, most in models pretrained on the most data
#
# CKA of every layer with the pretrained model, for two models that differ only in the number of pretraining images
# (8,000 and 64,000), and RI against mean CKA.

# %%
files = benchmark("study=cka_study", BOTH, "sources=[imagenet_a,imagenet_r,imagenet_sketch,objectnet]", "seeds=[0]")
Markdown(ending(files, "summary.md").read_text().replace("\n", "  \n"))

# %%
Image(ending(files, "layers.png"), width=480)

# %%
Image(ending(files, "shift.png"), width=420)

# %% [markdown]
# ## Claim 2: small fine-tuning sets are the main cause
#
# Nested, class-balanced subsets of mini's training images, with the same number of training steps on each.

# %%
files = benchmark("study=size_study", BOTH, "axes={data.images_per_class:[1,5,20],steps:[80]}", "seeds=[0]")
Markdown(ending(files, "summary.md").read_text().replace("\n", "  \n"))

# %%
Image(ending(files, "size.png"), width=420)

# %% [markdown]
# ## Claim 3: regularisers and soups help and do not fully compensate
#
# The paper's methods on two sources: mRI, and accuracy on the source before and after.

# %%
files = benchmark(BOTH, "sources=[imagenet_r,imagenet_sketch]", "methods=[finetune,ewc,lwf,wise_ft,soup]")
table = pd.read_csv(ending(files, "summary.csv"))
columns = ["model", "method", "mri", "mri_low", "mri_high", "source_before", "source_after", "p_holm"]
table[columns].round(2).assign(p_holm=[f"{p:.1g}" if p == p else "" for p in table["p_holm"]])

# %%
Image(ending(files, "summary.png"), width=640)

# %%
for model, rows in table.groupby("model"):
    plain = rows.loc[rows["method"] == "finetune", "mri"].item()
    better = rows[(rows["mri"] > plain) & (rows["p_holm"] < 0.05)]
    whole = better[better["mri_high"] >= 0]
    print(
        f"{model}: plain fine-tuning {plain:+.2f} points; {len(better)} of {len(rows) - 1} methods lose less "
        f"(p < 0.05 after Holm), {len(whole)} of them lose nothing that their own intervals tell from 0"
    )
