"""The procedural world that mini's models are pretrained on: sizes and kinds of looks, never the benchmark's pictures.

The ladder of pretraining scale grows in both: more images, and more looks, as web data has more of both than one
photographer's collection. The looks are a family of their own: none is a renderer of ImageNet-R, Sketch, Cartoon,
Drawing or C, though chalk on a board and grey photographs prepare for pencil on paper, as the web prepares for
ImageNet-Sketch. Names of the dice differ from every evaluation set's, so no scene is shared.
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
    """Channels exchanged."""
    order = dice.pick(((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    return photograph(layers, dice)[:, :, list(order)]


def _negative(layers: Layers, dice: Dice) -> Ints:
    return 255 - photograph(layers, dice)


def _chalk(layers: Layers, dice: Dice) -> Ints:
    """Light lines on a dark, coloured board, with dust."""
    board = np.broadcast_to(mute(dice, 60) // 3, layers.behind.shape)
    dust = dice.field(SIDE, SIDE, 1) // dice.between(6, 14)
    return blend(board, 255 - mute(dice) // 5, lines(layers)[:, :, None]) + dust


def _print(layers: Layers, dice: Dice) -> Ints:
    """Two inks on one paper, no light."""
    paper = np.broadcast_to(mute(dice, 40), layers.behind.shape)
    return blend(paper, flat(layers, np.stack([vivid(dice), mute(dice)])), layers.cover[:, :, None])


def _grainy(layers: Layers, dice: Dice) -> Ints:
    """Dead and hot pixels of a poor sensor."""
    picture = photograph(layers, dice)
    grain = dice.field(SIDE, SIDE, 1)
    return np.where(size(grain) > 127 - dice.between(4, 26), np.sign(grain) * 255 + 127, picture)


def _soft(layers: Layers, dice: Dice) -> Ints:
    """Enlarged from half the size."""
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
"""What a pretraining picture may look like, by name: how its scene is set up and shown."""


def pretraining_image(world: str, looks: Sequence[str], index: int) -> tuple[NDArray[np.uint8], int]:
    """Picture ``index`` of a world and the index of its class in `CLASSES`; classes and looks take turns.

    Args:
        world: Name of the world; every name is a world of its own.
        looks: Keys of `LOOKS`.
        index: 0 or more.

    Returns:
        Pixels of shape (SIDE, SIDE, 3), and the class.
    """
    dice = Dice(f"rib/pretraining/{world}/{index}")
    place = index % len(CLASSES)
    look, renderer = LOOKS[looks[index // len(CLASSES) % len(looks)]]
    picture = renderer(compose(CLASSES[place].appearance, look, dice), dice)
    return np.clip(picture, 0, 255).astype(np.uint8), place
