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
# # Your own domains
#
# A benchmark of your own needs one folder for each domain, with one folder for each class in it. This notebook draws
# such folders first: photographs of six things, and the same things as paintings, in pencil and at dusk.
# With pictures of yours, skip the first cell and put your folder in place of `things`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import rib

OUTLINES = {
    "book": [(-0.7, -1), (0.7, -1), (0.7, 1), (-0.7, 1)],
    "coin": [(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 6, 30)],
    "fish": [(-1, 0), (-0.3, -0.55), (0.45, -0.1), (1, -0.6), (1, 0.6), (0.45, 0.1), (-0.3, 0.55)],
    "house": [(-0.8, 0.9), (-0.8, -0.1), (0, -1), (0.8, -0.1), (0.8, 0.9)],
    "kite": [(0, -1.1), (0.65, -0.3), (0, 1.1), (-0.65, -0.3)],
    "star": [
        (r * np.sin(turn), -r * np.cos(turn))
        for turn, r in zip(np.arange(10) * np.pi / 5, [1.1, 0.45] * 5, strict=True)
    ],
}
LOOKS = {
    "photo": lambda image: image,
    "paint": lambda image: ImageOps.posterize(image.filter(ImageFilter.MedianFilter(7)), 2),
    "pencil": lambda image: Image.blend(image, blurred(image, 1).filter(ImageFilter.CONTOUR), 0.65),
    "dusk": lambda image: Image.blend(blurred(image, 2), Image.new("RGB", image.size, "#102050"), 0.55),
}
rng = np.random.default_rng(0)


def blurred(image, radius):
    """Blur a picture."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def photograph(name, side=96):
    """A thing, turned and moved, in about the colour of its kind, before a blurred background."""
    ground = Image.fromarray(rng.integers(30, 140, (4, 4, 3), dtype=np.uint8)).resize((side, side), 3)
    hue = (list(OUTLINES).index(name) * 42 + int(rng.integers(-25, 25))) % 256
    thing = Image.new("HSV", (side, side), (hue, int(rng.integers(120, 230)), int(rng.integers(190, 250))))
    (cos, sin), size = (np.cos(angle := rng.normal(0, 0.25)), np.sin(angle)), side * rng.uniform(0.24, 0.36)
    corners = np.array(OUTLINES[name]) @ [[cos, sin], [-sin, cos]] * size + side * rng.uniform(0.42, 0.58, 2)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon([*map(tuple, corners)], fill=255)
    image = Image.composite(thing.convert("RGB"), ground, blurred(mask, 1))
    return Image.fromarray((np.asarray(image) + rng.normal(0, 6, (side, side, 3))).clip(0, 255).astype(np.uint8))


for domain, look in LOOKS.items():
    for name in OUTLINES:
        folder = Path("things", domain, name)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(20):
            look(photograph(name)).save(folder / f"{i:02}.jpg", quality=90)

figure, axes = plt.subplots(4, 12, figsize=(9, 3.2), layout="constrained")
for row, domain in zip(axes, LOOKS, strict=True):
    for ax, file in zip(row, sorted(Path("things", domain).glob("*/0[01].jpg")), strict=True):
        ax.imshow(Image.open(file).convert("RGB"))
        ax.axis("off")

# %% [markdown]
# ## The file of the suite
#
# `rib data init` looks at the folder and writes `things/things.yaml`: what it took for domains and classes, what it
# ignored, and which classes a domain lacks. Everything can be changed there: titles, names of classes, which domains
# are fine-tuned on, which may not be. (`rib data check` and `rib data sheet` look at the suite at any time.)

# %% language="bash"
# rib data init things
# grep -v '^#' things/things.yaml

# %% [markdown]
# ## One run
#
# `mini_large` is a small model that comes with rib and was pretrained on 40 other classes. So it gets a head for these
# six first: a linear probe on its frozen features, fitted to 30 % of the photographs. Then it is fine-tuned on the
# other 70 %, and the other domains are scored before and after. A real model is used in the same way, by its name:
# `model="zeroshot_laion2b_b32"`, whose text tower makes the head from the names of the classes, or
# `model="dinov2_s14"`, which gets a probe, too.

# %%
options = {"suite": "things/things.yaml", "model": "mini_large"}
run = rib.finetune(dataset="photo", **options)
run

# %% [markdown]
# The options left out have the values for real data, the paper's 10 epochs at a learning rate of 1e-3. With 20 images
# of each class the intervals are wide.
#
# ## Every domain as the source, with three methods

# %%
runs = {
    (method or "finetune", source): rib.finetune(method, dataset=source, **options)
    for method in (None, "ewc", "wise_ft")
    for source in LOOKS
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, method in zip(axes, ("finetune", "ewc", "wise_ft"), strict=True):
    changes = np.array([[runs[method, source].table().loc[target, "change"] for target in LOOKS] for source in LOOKS])
    ax.imshow(changes, cmap="RdBu", vmin=-25, vmax=25)
    for (row, column), change in np.ndenumerate(changes):
        ax.text(column, row, f"{change:+.0f}", ha="center", va="center", alpha=0.35 if row == column else 1)
    mean = np.mean([runs[method, source].ri.value for source in LOOKS])
    ax.set(title=f"{method}: mRI {mean:+.1f} points", xticks=range(4), xticklabels=LOOKS, xlabel="scored on")
axes[0].set(yticks=range(4), yticklabels=LOOKS, ylabel="fine-tuned on")
plt.show()
# %% [markdown]
# Change in accuracy, percentage points; the accuracy on the source itself, on the diagonal, is not part of RI. Each
# source has a probe of its own, so *before* is another model in each row: `run.before` is that model.
#
# `rib report suite=things/things.yaml` makes the table of all runs and its figures; in Python it is

# %%
found = rib.find_runs(method=["finetune", "ewc", "wise_ft"], where="head.reference=null")
found.table().pivot(index="source", columns="method", values="ri").round(1)

# %% [markdown]
# ## One start for all sources
#
# With a `reference`, one domain trains the probe and nothing else. All sources then begin with the same model, whose
# accuracy before is the same in every run.

# %%
referred = [rib.finetune("head.reference=photo", dataset=source, **options) for source in ("paint", "pencil", "dusk")]
for run in referred:
    print(run.metrics["source"], run.table()["before"].round(1).to_dict(), f"RI {run.ri.value:+.1f}")

# %% [markdown]
# Runs with a reference and runs without one are never in one table, since they do not start from the same model. The
# page *Your own data* of the documentation has every key of the file, and says what is compared with what.
