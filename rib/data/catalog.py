"""What each dataset is: the facts that the folders on disk are checked against, never derived from.

A `Catalog` describes one world of images: the real ImageNet family (`real()`), or the built-in `mini`
(`rib.data.mini`). Nothing outside the catalog knows that ImageNet has 1000 classes. This module imports no torch,
so that a question already answered by the run store is answered at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from rib.errors import RibError

Rule = Literal["wnid", "number", "objectnet", "corruption"]


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset of a world.

    Attributes:
        name: As in commands and metrics.json, ``imagenet_r``.
        title: As in tables and figures, ``ImageNet-R``.
        folders: Where it may lie under the data root, the canonical place first.
        rule: How a folder becomes a class: its WordNet id; its number (ImageNet-V2); ObjectNet's mapping files; or
            corruption/severity above WordNet ids.
        groups: ``groups[j]`` are the output ids of class ``j``, in the order of labels.
        num_images: Images expected when complete; None where releases differ.
        between: Fewest and most images of a complete copy, where releases differ.
        balanced: Whether each class (of each cell) has as many images as any other.
        first: WordNet ids of ``ILSVRC2012_val_00000001`` and those after it: labels in another order are found out.
        classes: Folder names of the classes in label order (WordNet ids; ObjectNet folder names).
        border: Pixels to cut from each side before the transform (ObjectNet's red frame).
        derived_from: The dataset whose very images these are transforms of.
        licence: What its terms say, in one sentence.
        may_train: Whether its licence lets a model be trained on it.
        labels: Class of each folder in ``classes``, where several folders are one class; empty: each its own.
        more_folders: Whether the release holds folders that are no class here (200 of ObjectNet's 313).
        precropped: Whether images are stored at 224 px, already cropped (ImageNet-C).
        cells: ``corruption/severity`` sub-folders (ImageNet-C), else empty.
        synset_files: Where images lie flat, one of these in the folder or beside it says each one's WordNet id.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    rule: Rule
    groups: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    num_images: int | None
    between: tuple[int, int] | None = None
    balanced: bool = False
    first: tuple[str, ...] = ()
    licence: str = ""
    border: int = 0
    derived_from: str | None = None
    may_train: bool = True
    labels: tuple[int, ...] = ()
    more_folders: bool = False
    precropped: bool = False
    cells: tuple[str, ...] = ()
    synset_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """The datasets of one world and the outputs its models have.

    Attributes:
        kind: ``mini`` or ``user``, as in metrics.json and in the run store's first folder.
        wnids: WordNet id of each output, in output order, length K.
        specs: The datasets by name, in the order of tables.
    """

    kind: Literal["mini", "user"]
    wnids: tuple[str, ...]
    specs: Mapping[str, DatasetSpec] = field(repr=False)

    def __getitem__(self, name: str) -> DatasetSpec:
        if name not in self.specs:
            close = difflib.get_close_matches(name, self.specs, n=1)
            nearest = f"; did you mean {close[0]}?" if close else ""
            raise RibError(f"there is no dataset {name}{nearest}; known: {', '.join(self.specs)}")
        return self.specs[name]


CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""ImageNet-C's fifteen; its four extra ones are in no mean."""


@cache
def real() -> Catalog:
    """The ImageNet family as its releases are (sizes and layouts: the datasets' own papers and pages)."""
    specs = (*_photographs(), _objectnet(), *_derived_from_val(), _train())
    return Catalog("user", _wnids(), {spec.name: spec for spec in specs})


@cache
def _wnids() -> tuple[str, ...]:
    return tuple(resource("imagenet_wnids.txt").split())


def _of_all_classes(name: str, title: str, *folders: str, num_images: int | None, **more: Any) -> DatasetSpec:
    every = tuple((i,) for i in range(len(_wnids())))
    return DatasetSpec(name, title, folders, groups=every, classes=_wnids(), num_images=num_images, **more)


def _of_some_classes(name: str, title: str, folder: str, ids: str, num_images: int) -> DatasetSpec:
    chosen = [int(i) for i in resource(ids).split()]
    groups, classes = tuple((i,) for i in chosen), tuple(_wnids()[i] for i in chosen)
    return DatasetSpec(name, title, (folder,), "wnid", groups, classes, num_images, licence=NO_IMAGE_LICENCE)


def _photographs() -> tuple[DatasetSpec, ...]:
    """Val, V2, A, R and Sketch."""
    return (
        _of_all_classes(
            "imagenet_val",
            "ImageNet val",
            "imagenet/val",
            "val",
            num_images=50_000,
            balanced=True,
            first=FIRST_OF_VAL,
            rule="wnid",
            licence=IMAGENET,
            synset_files=SYNSET_FILES,
        ),
        _of_all_classes(
            "imagenet_v2",
            "ImageNet-V2",
            "imagenet-v2/imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency-format-val",
            "imagenet-v2",
            num_images=10_000,
            balanced=True,
            rule="number",
            licence="Code MIT; images under their Flickr licences.",
        ),
        _of_some_classes("imagenet_a", "ImageNet-A", "imagenet-a", "imagenet_a_ids.txt", 7_500),
        _of_some_classes("imagenet_r", "ImageNet-R", "imagenet-r", "imagenet_r_ids.txt", 30_000),
        _of_all_classes(
            "imagenet_sketch",
            "ImageNet-Sketch",
            "imagenet-sketch",
            "sketch",
            num_images=50_889,
            rule="wnid",
            licence="No licence stated for the images.",
        ),
    )


def _objectnet() -> DatasetSpec:
    known = json.loads(resource("objectnet.json"))
    return DatasetSpec(
        "objectnet",
        "ObjectNet",
        ("objectnet-1.0/images", "objectnet/images"),
        "objectnet",
        groups=tuple(tuple(entry["ids"]) for entry in known.values()),
        classes=tuple(known),
        num_images=None,  # about 18,574 of the 50,273; the shares of the releases differ
        between=(18_000, 20_000),
        licence="CC BY 4.0, and ObjectNet may never be used to tune the parameters of any model.",
        border=2,
        may_train=False,
        more_folders=True,
    )


def _derived_from_val() -> tuple[DatasetSpec, ...]:
    """Cartoon, Drawing and C: changed images of val."""
    common: dict[str, Any] = {"derived_from": "imagenet_val", "balanced": True}
    looks = tuple(
        _of_all_classes(
            f"imagenet_{look.lower()}",
            f"ImageNet-{look}",
            folder,
            f"datasets/{folder}",  # what the tars of these two unpack to
            num_images=50_000,
            rule="wnid",
            licence=ZENODO.format(6801109),
            **common,
        )
        for look, folder in (("Cartoon", "imagenet-cartoon"), ("Drawing", "imagenet-drawing"))
    )
    corrupted = _of_all_classes(
        "imagenet_c",
        "ImageNet-C",
        "imagenet-c",
        num_images=15 * 5 * 50_000,
        precropped=True,
        cells=tuple(f"{corruption}/{severity}" for corruption in CORRUPTIONS for severity in range(1, 6)),
        rule="corruption",
        licence=ZENODO.format(2235448),
        **common,
    )
    return (*looks, corrupted)


def _train() -> DatasetSpec:
    return _of_all_classes(
        "imagenet_train",
        "ImageNet train",
        "imagenet/train",
        "train",
        num_images=1_281_167,
        rule="wnid",
        licence=IMAGENET,
    )


SYNSET_FILES = (
    "LOC_val_solution.csv",
    "val_synsets.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "synset_labels.txt",
)
"""Val's archive has no class folders: Kaggle's table of its images, or a line an image, as TensorFlow ships."""

FIRST_OF_VAL = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189", "n02346627", "n02776631")
"""Of ``ILSVRC2012_val_00000001`` to 8, as in every list of val's labels (outputs 65, 970, 230, 809, 516, 57, ...)."""

OTHER_SETS = {
    "top-?images": "ImageNet-V2's top-images",
    "threshold-?0\\.7": "ImageNet-V2's threshold 0.7",
    "^imagenet-o$": "ImageNet-O",
    "^imagenet-p$": "ImageNet-P",
    "^imagenet-c-bar": "ImageNet-C-bar",
    "styli[sz]ed": "Stylized-ImageNet",
}
"""Folders with the same class folders that hold other images than any set here, by a pattern of their names."""

IMAGENET = "ImageNet terms of access: non-commercial research and education."
NO_IMAGE_LICENCE = "Code MIT; no licence stated for the images."
ZENODO = "CC BY 4.0 (Zenodo {}); the originals stay under ImageNet's terms."


def with_label_rule(spec: DatasetSpec, rule: str) -> DatasetSpec:
    """ObjectNet read another way; other datasets as they are.

    Args:
        spec: Of any dataset.
        rule: ``max`` over a class's outputs (113 classes; wise-ft's scoring), ``first`` of them alone (113), or
            ``authors``: the ImageNet-RIB authors' 105 outputs, with the 8 folders that their code mislabels.

    Raises:
        RibError: If the rule is unknown.
    """
    if spec.rule != "objectnet" or rule == "max":
        return spec
    if rule == "first":
        return replace(spec, groups=tuple(group[:1] for group in spec.groups))
    if rule != "authors":
        raise RibError(f"data.label_rule: expected max, first or authors, got {rule!r}")
    theirs = {folder: entry["authors"] for folder, entry in json.loads(resource("objectnet.json")).items()}
    ids = sorted({theirs[folder] for folder in spec.classes})
    labels = tuple(ids.index(theirs[folder]) for folder in spec.classes)
    return replace(spec, groups=tuple((i,) for i in ids), labels=labels)


def resource(name: str) -> str:
    """A text file of ``rib/data/resources``."""
    return files("rib.data").joinpath("resources", name).read_text()
