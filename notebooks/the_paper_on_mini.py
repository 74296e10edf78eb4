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
# Three claims of ImageNet-RIB (arXiv 2410.21582) about why fine-tuning loses robustness and what helps, each asked of a
# small grid of the built-in data; the headings are the paper's words, what stands below them is what mini says. The
# studies are one command each; here they run with fewer models, sources and sizes. Mini is a toy world: it says that
# the tool can tell, and may well contradict the paper.

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
    """Make a grid as `python -m rib.benchmark` does; the files it wrote. What is in the store is not made again."""
    command = [sys.executable, "-m", "rib.benchmark", *overrides, f"paths.runs={RUNS}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines() if line.startswith(os.sep)]


def ending(files: list[Path], name: str) -> Path:
    """The last file of this name: a study's own come after its grid's."""
    return [file for file in files if file.name == name][-1]


# %% [markdown]
# ## Claim 1: representations shift, most in models pretrained on the most data
#
# CKA of every layer with its start, for two models that differ in their pretraining alone (8,000 and 64,000 images),
# and RI against its mean.

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
# Nested, class-balanced subsets of mini's training images, the same number of steps on each.

# %%
files = benchmark("study=size_study", BOTH, "axes={data.images_per_class:[1,5,20],steps:[80]}", "seeds=[0]")
Markdown(ending(files, "summary.md").read_text().replace("\n", "  \n"))

# %%
Image(ending(files, "size.png"), width=420)

# %% [markdown]
# ## Claim 3: regularisers and soups help and do not fully compensate
#
# The paper's methods on two sources: mRI, and the accuracy on the source that it was paid with.

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
