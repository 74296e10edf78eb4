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
# such folders first: photographs of six things, and the same things as sketches, as paintings and at night.
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
    "sketch": lambda image: ImageOps.autocontrast(blurred(image.convert("L"), 1).filter(ImageFilter.CONTOUR)),
    "paint": lambda image: ImageOps.posterize(image.filter(ImageFilter.MedianFilter(7)), 2),
    "night": lambda image: ImageOps.colorize(blurred(image.convert("L"), 2), "black", "#99b3ff"),
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
