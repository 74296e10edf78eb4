"""Pretraining images of mini's models, in styles that none of the evaluation datasets uses.

From ``mini_tiny`` to ``mini_large`` the models are pretrained on more images and on more styles ("looks"), as web data
has more of both than a single photographer's collection. No look is a renderer of ImageNet-R, Sketch, Cartoon, Drawing
or C; but chalk on a board and grey photographs help with pencil drawings, as web images help with ImageNet-Sketch. The
seeds differ from those of the evaluation datasets, so no scene occurs in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rib.data.mini.arithmetic import SIDE, Dice, Ints, blend, size
from rib.data.mini.classes import CLASSES
from rib.data.mini.patterns import BACKGROUNDS, mute
from rib.data.mini.scene import Layers, Look, compose, flat, photograph
from rib.data.mini.styles import grey, lines, luma, smooth, vivid

NARROW = Look(turn=8, drift=4, backgrounds=("gradient", "horizon"), light=50, occluded=0, noise=6)
COMMON = Look()
WIDE = Look(
    radius=(7, 19),
    turn=180,
    squeeze=30,
    drift=12,
    backgrounds=tuple(BACKGROUNDS),
    light=120,
    occluded=35,
    decoys=25,
    noise=20,
)


def _grey(layers: Layers, dice: Dice) -> Ints:
    return grey(luma(photograph(layers, dice)))


def _wrong_colours(layers: Layers, dice: Dice) -> Ints:
    """Render a photograph with its colour channels permuted."""
    order = dice.pick(((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    return photograph(layers, dice)[:, :, list(order)]


def _negative(layers: Layers, dice: Dice) -> Ints:
    return 255 - photograph(layers, dice)


def _chalk(layers: Layers, dice: Dice) -> Ints:
    """Render a chalk drawing: the object's lines in a light colour on a dark, dusty board."""
    board = np.broadcast_to(mute(dice, 60) // 3, layers.behind.shape)
    dust = dice.field(SIDE, SIDE, 1) // dice.between(6, 14)
    return blend(board, 255 - mute(dice) // 5, lines(layers)[:, :, None]) + dust


def _print(layers: Layers, dice: Dice) -> Ints:
    """Render the object as a print in two random colours of ink on paper, without shading."""
    paper = np.broadcast_to(mute(dice, 40), layers.behind.shape)
    return blend(paper, flat(layers, np.stack([vivid(dice), mute(dice)])), layers.cover[:, :, None])


def _grainy(layers: Layers, dice: Dice) -> Ints:
    """Render a photograph with random black and white pixels, as from a poor sensor."""
    picture = photograph(layers, dice)
    grain = dice.field(SIDE, SIDE, 1)
    return np.where(size(grain) > 127 - dice.between(4, 26), np.sign(grain) * 255 + 127, picture)


def _soft(layers: Layers, dice: Dice) -> Ints:
    """Render a blurred photograph, reduced to half its size and enlarged again."""
    small = smooth(photograph(layers, dice))[::2, ::2]
    return smooth(np.repeat(np.repeat(small, 2, axis=0), 2, axis=1))


LOOKS: dict[str, tuple[Look, Callable[[Layers, Dice], Ints]]] = {
    "narrow": (NARROW, photograph),
    "photo": (COMMON, photograph),
    "wide": (WIDE, photograph),
    "grey": (COMMON, _grey),
    "wrong_colours": (COMMON, _wrong_colours),
    "negative": (WIDE, _negative),
    "chalk": (COMMON, _chalk),
    "print": (WIDE, _print),
    "grainy": (COMMON, _grainy),
    "soft": (COMMON, _soft),
}
"""Styles of pretraining images by name: parameters of the scene, and renderer."""


def pretraining_image(world: str, looks: Sequence[str], index: int) -> tuple[NDArray[np.uint8], int]:
    """Draw the pretraining image with a given index; consecutive images go through all classes, then all looks.

    Args:
        world: Name of the set of images, which seeds them.
        looks: Names of styles, keys of `LOOKS`.
        index: Index of the image, 0 or more.

    Returns:
        Pixels, shape (SIDE, SIDE, 3), and the index of the class in `CLASSES`.
    """
    dice = Dice(f"rib/pretraining/{world}/{index}")
    label = index % len(CLASSES)
    look, renderer = LOOKS[looks[index // len(CLASSES) % len(looks)]]
    picture = renderer(compose(CLASSES[label].appearance, look, dice), dice)
    return np.clip(picture, 0, 255).astype(np.uint8), label
