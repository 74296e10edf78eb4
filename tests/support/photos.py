"""Small sets in the real layouts, made out of real photographs: a check of code on real weights, not a benchmark.

    python -m tests.support.photos PHOTOS ROOT

PHOTOS holds ``<wnid>/<file>.JPEG``, one photograph a class. Each set is a transform of them: V2 is cropped and
brightened, A is shrunk onto a blurred copy, R in eight colours, Sketch contours, ObjectNet turned and framed in red,
Cartoon smoothed and flattened, Drawing in pencil grey.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from rib.data import catalog

Picture = Callable[[Image.Image], Image.Image]


def shifted(image: Image.Image) -> Image.Image:
    w, h = image.size
    return image.crop((w // 12, h // 12, w, h)).point(lambda v: min(255, v * 5 // 4))


def hard(image: Image.Image) -> Image.Image:
    w, h = image.size
    ground = image.filter(ImageFilter.GaussianBlur(20)).transpose(Image.Transpose.ROTATE_180).resize((w, h))
    ground.paste(image.resize((w * 9 // 20, h * 9 // 20)), (w // 2, h // 3))
    return ground


def rendition(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(2)).quantize(8).convert("RGB")


def contours(image: Image.Image) -> Image.Image:
    edges = image.convert("L").filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES)
    return ImageOps.invert(ImageOps.autocontrast(edges, cutoff=2)).convert("RGB")


def turned(image: Image.Image) -> Image.Image:
    inner = image.rotate(35, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=(120, 100, 80))
    return ImageOps.expand(inner, 2, (255, 0, 0))


def cartoon(image: Image.Image) -> Image.Image:
    return ImageOps.posterize(image.filter(ImageFilter.MedianFilter(7)), 3)


def drawing(image: Image.Image) -> Image.Image:
    grey = ImageOps.equalize(image.convert("L"))
    edges = ImageOps.invert(image.convert("L").filter(ImageFilter.CONTOUR))
    return Image.blend(grey, ImageOps.invert(edges), 0.5).convert("RGB")


def build(photos: Path, root: Path, only: Collection[str] | None = None) -> Path:
    """The eight sets, or some of them, under ``root``; returns it."""
    specs = catalog.real().specs
    output = {wnid: i for i, wnid in enumerate(catalog.real().outputs)}
    names = {"imagenet_a": "0.000116_digital clock _ digital clock_0.86.jpg", "imagenet_r": "art_0.jpg"}
    looks: dict[str, Picture] = {
        "imagenet_val": lambda image: image,  # the file itself
        "imagenet_v2": shifted,
        "imagenet_a": hard,
        "imagenet_r": rendition,
        "imagenet_sketch": contours,
        "objectnet": turned,
        "imagenet_cartoon": cartoon,
        "imagenet_drawing": drawing,
    }
    for file in sorted(photos.glob("*/*")):
        wnid = file.parent.name
        with Image.open(file) as opened:
            image = ImageOps.contain(opened.convert("RGB"), (360, 360))
        for name, look in looks.items():
            if only is not None and name not in only:
                continue
            folder = class_folder(specs[name], wnid, output[wnid])
            if folder is None:
                continue
            ending = ".png" if name == "objectnet" else ".JPEG"
            place = root / specs[name].folders[0] / folder / names.get(name, file.stem + ending)
            place.parent.mkdir(parents=True, exist_ok=True)
            if name == "imagenet_val":
                shutil.copyfile(file, place)
            else:
                look(image).save(place, quality=95)
    return root


def class_folder(spec: catalog.DatasetSpec, wnid: str, output: int) -> str | None:
    """Return the folder of a class in a dataset; None if the dataset does not have it."""
    if spec.rule == "number":
        return str(output)
    if spec.rule == "objectnet":
        return next((f for f, ids in zip(spec.classes, spec.groups, strict=True) if output in ids), None)
    return wnid if wnid in spec.classes else None


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])))
