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
# notebook uses toy data, images that rib draws itself, and a small model that ships with rib, so it takes seconds on a
# CPU. For real data and a real model, add `data={"root": "/data"}` and change `model`; everything else stays the same.

# %%
import matplotlib.pyplot as plt
import torch

import rib

run = rib.finetune(model="mini_small", dataset="imagenet_a")
run

# %% [markdown]
# Each row is a dataset: accuracy before and after fine-tuning, and the change in percentage points with its 95 %
# interval over images. RI, the robustness improvement, is the mean change over the six targets. The source and ImageNet
# val are shown too, but do not count towards RI.
#
# The options are those of the command line: this is `python -m rib.train model=mini_small dataset=imagenet_a`. The run
# is now in a store, the folder `runs`; the same call returns it from there at once, and `rib.load` finds it by the
# first digits of its key.

# %%
assert rib.load(run.key[:8]) == run

# %% [markdown]
# ## Its numbers and its figure
#
# `run.metrics` is the content of `metrics.json`, and `run.table()` a pandas table of the accuracies.

# %%
run.table().round(1)

# %%
print(f"RI {run.ri.value:+.2f} [{run.ri.low:+.2f}, {run.ri.high:+.2f}] points")
run.figure()

# %% [markdown]
# ## What fine-tuning changed, image by image
#
# A mean hides that some images are won while others are lost. `run.before` is the pretrained model as a run of its own,
# scored on the same images, so the two can be compared in pairs: first minus second.

# %%
changes = rib.compare(run, run.before)
changes

# %% [markdown]
# The classes of ImageNet-R that lost most:

# %%
changes.classes("imagenet_r").nsmallest(5, "difference").round(1)

# %% [markdown]
# Six of the lost images: their class, which the pretrained model predicted, and what the fine-tuned model predicts.

# %%
images = changes.images("imagenet_r")
lost = images[images["outcome"] == "lost"].nlargest(6, "confidence_first")
figure, axes = plt.subplots(1, 6, figsize=(9, 2.1), layout="constrained")
for ax, image in zip(axes, lost.itertuples(), strict=True):
    ax.imshow(plt.imread(image.file))
    ax.set_title(f"{image.label}\nnow {image.predicted_first}\n{image.confidence_first:.0%} sure", fontsize=7)
    ax.axis("off")

# %% [markdown]
# ## Compared with EWC
#
# Elastic weight consolidation (EWC) penalises changes of weights that matter for the pretrained model. The same run
# with EWC, minus the plain one:

# %%
ewc = rib.finetune("ewc", model="mini_small", dataset="imagenet_a")
rib.compare(ewc, run)

# %% [markdown]
# Both runs are in the store. `find_runs` searches it by method, model, source, seed and any option.

# %%
found = rib.find_runs(source="imagenet_a")
found

# %%
found.table()[["method", "ri", "source_after", "val_after"]].round(2)

# %% [markdown]
# ## The network itself
#
# `run.model()` builds timm's own module with the run's weights, beside the transform that its images need, for any code
# of yours.

# %%
model, transform = ewc.model()
pictures = [plt.imread(file) for file in lost["file"]]
with torch.no_grad():
    outputs = model(torch.stack([transform(picture) for picture in pictures]))
outputs.shape, sum(parameter.numel() for parameter in model.parameters())
