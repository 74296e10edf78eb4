"""List of mini's pictures: the path of each and how it is drawn.

Folders and file names have the form of the real datasets'. ObjectNet's mapping files (`rib.data.mini.documents`) keep
their real formats: ``folder_to_objectnet_label.json`` is {folder: label}; ``objectnet_to_imagenet_1k.json`` is {label:
"synset; synset"}; ``pytorch_to_imagenet_2012_id.json`` is {output id: line in ``imagenet_to_label_2012_v2``}; the last
is a list of 1000 synsets, with the WordNet id in place of the synsets that mini does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rib.data.mini.arithmetic import Dice, Ints
from rib.data.mini.classes import CLASSES, FOLDERS, STRANGERS, Appearance, MiniClass, output_ids
from rib.data.mini.scene import Layers, Look, compose, photograph
from rib.data.mini.styles import CORRUPTIONS, RENDITIONS, sketch, to_cartoon, to_drawing

VAL_EACH, TRAIN_EACH, V2_EACH, A_EACH, R_EACH, SKETCH_EACH, OBJECTNET_EACH, STRANGERS_EACH = 6, 50, 8, 13, 14, 8, 16, 10
"""Number of pictures per class (per folder in ObjectNet)."""

SEVERITIES = (2, 4)
"""Severities of mini's ImageNet-C, out of the real one's five."""

BORDER = 2
"""Width of ObjectNet's red frame, pixels."""

COMMON = Look()

SHIFTED = Look(radius=(9, 15), turn=22, drift=9, jitter=44, light=110, occluded=27, noise=18)

HARD = Look(radius=(7, 12), turn=25, drift=14, light=120, occluded=50, decoys=75, noise=18)

TURNED = Look(turn=180, squeeze=35, backgrounds=("stripes", "tiles", "horizon"), light=110)


@dataclass(frozen=True)
class Picture:
    """Description of one picture of mini: its file, its scene, and how it is rendered.

    Attributes:
        path: Path relative to the root, which seeds the picture.
        appearance: Outline, texture and palette of the object.
        look: Ranges of the scene's random parameters.
        renderer: Function from the scene's layers to a picture.
        filter: Function applied to a picture of val, for the datasets made from it; else None.
        original: Path of that picture of val.
        border: Width of the red frame around the picture, pixels.
    """

    path: str
    appearance: Appearance
    look: Look = COMMON
    renderer: Callable[[Layers, Dice], Ints] = photograph
    filter: Callable[[Ints, Dice], Ints] | None = None
    original: str = ""
    border: int = 0

    def pixels(self) -> NDArray[np.uint8]:
        """Draw the picture and return its pixels, uint8, shape (H, W, 3)."""
        if self.filter is None:
            drawn = _scene(self.path, self.appearance, self.look, self.renderer)
        else:
            original = _scene(self.original, self.appearance, self.look, self.renderer)
            drawn = self.filter(original, Dice(f"rib/mini/{self.path}"))
        image = np.clip(drawn, 0, 255).astype(np.uint8)
        if self.border:
            framed = np.zeros((image.shape[0] + 2 * self.border, image.shape[1] + 2 * self.border, 3), np.uint8)
            framed[..., 0] = 255
            framed[self.border : -self.border, self.border : -self.border] = image
            return framed
        return image


@lru_cache(maxsize=512)
def _scene(path: str, appearance: Appearance, look: Look, renderer: Callable[[Layers, Dice], Ints]) -> Ints:
    """Render the scene of a picture, seeded by the picture's path; cached, since val's pictures are filtered later."""
    dice = Dice(f"rib/mini/{path}")
    return np.clip(renderer(compose(appearance, look, dice), dice), 0, 255).astype(np.int32)


def pictures(name: str) -> list[Picture]:
    """Return all pictures of a dataset, sorted by path."""
    return sorted(_DATASETS[name](), key=lambda picture: picture.path)


def _val_name(index: int, n: int) -> str:
    return f"ILSVRC2012_val_{n * len(CLASSES) + index + 1:08d}.JPEG"


def _val() -> Iterator[Picture]:
    for i, c in enumerate(CLASSES):
        for n in range(VAL_EACH):
            yield Picture(f"imagenet/val/{c.wnid}/{_val_name(i, n)}", c.appearance)


def _train() -> Iterator[Picture]:
    for c in CLASSES:
        for n in range(TRAIN_EACH):
            yield Picture(f"imagenet/train/{c.wnid}/{c.wnid}_{n}.JPEG", c.appearance)


def _v2() -> Iterator[Picture]:
    for c in CLASSES:
        folder = f"imagenet-v2/imagenetv2-matched-frequency-format-val/{output_ids()[c.wnid]}"
        for n in range(V2_EACH):
            name = hashlib.sha1(f"{c.wnid}/{n}".encode(), usedforsecurity=False).hexdigest()
            yield Picture(f"{folder}/{name}.jpeg", c.appearance, SHIFTED)


def _a() -> Iterator[Picture]:
    for c in CLASSES:
        for n in range(A_EACH if c.in_a else 0):
            yield Picture(f"imagenet-a/{c.wnid}/{_a_name(c, n)}", c.appearance, HARD)


def _a_name(c: MiniClass, n: int) -> str:
    """Return a file name in ImageNet-A's form: a number, two wrong predictions with spaces, and a confidence."""
    dice = Dice(f"rib/mini/imagenet-a/{c.wnid}/{n}")
    first, second = (dice.pick(CLASSES).synset.split(",")[0] for _ in range(2))
    return f"0.{n:06d}_{first} _ {second}_0.{dice.between(300000, 999999)}.jpg"


def _r() -> Iterator[Picture]:
    kinds = list(RENDITIONS)
    for c in CLASSES:
        for n in range(R_EACH if c.in_r else 0):
            kind = kinds[n % len(kinds)]
            yield Picture(f"imagenet-r/{c.wnid}/{kind}_{n // len(kinds)}.jpg", c.appearance, COMMON, RENDITIONS[kind])


def _sketch() -> Iterator[Picture]:
    for c in CLASSES:
        for n in range(SKETCH_EACH):
            yield Picture(f"imagenet-sketch/{c.wnid}/sketch_{n}.JPEG", c.appearance, COMMON, sketch)


def _objectnet() -> Iterator[Picture]:
    """Yield ObjectNet's pictures; in a folder with several WordNet ids, their objects take turns."""
    looks = {c.wnid: c.appearance for c in CLASSES}
    folders = [(f.name, [looks[w] for w in f.wnids], OBJECTNET_EACH) for f in FOLDERS]
    folders += [(name, [appearance], STRANGERS_EACH) for name, (_, appearance) in STRANGERS.items()]
    for folder, appearances, count in folders:
        for n in range(count):
            name = hashlib.sha1(f"{folder}/{n}".encode(), usedforsecurity=False).hexdigest()[:15]
            appearance = appearances[n % len(appearances)]
            yield Picture(f"objectnet-1.0/images/{folder}/{name}.png", appearance, TURNED, border=BORDER)


def _from_val(folder: str, change: Callable[[Ints, Dice], Ints]) -> Iterator[Picture]:
    for picture in _val():
        path = picture.path.replace("imagenet/val", folder)
        yield Picture(path, picture.appearance, filter=change, original=picture.path)


def _c() -> Iterator[Picture]:
    for corruption, corrupt in CORRUPTIONS.items():
        for severity in SEVERITIES:
            yield from _from_val(f"imagenet-c/{corruption}/{severity}", _at_severity(corrupt, severity))


def _at_severity(corrupt: Callable[[Ints, Dice, int], Ints], severity: int) -> Callable[[Ints, Dice], Ints]:
    # A function of its own: a lambda in the loop above would see the loop's last severity.
    return lambda picture, dice: corrupt(picture, dice, severity)


_DATASETS: dict[str, Callable[[], Iterator[Picture]]] = {
    "imagenet_val": _val,
    "imagenet_v2": _v2,
    "imagenet_a": _a,
    "imagenet_r": _r,
    "imagenet_sketch": _sketch,
    "objectnet": _objectnet,
    "imagenet_cartoon": lambda: _from_val("imagenet-cartoon", to_cartoon),
    "imagenet_drawing": lambda: _from_val("imagenet-drawing", to_drawing),
    "imagenet_c": _c,
    "imagenet_train": _train,
}

NAMES: tuple[str, ...] = tuple(_DATASETS)
"""Names of the datasets, in the order of tables."""
