"""Catalog of the datasets: folders, classes, numbers of images and licences, against which the files are checked.

A `Catalog` describes one family of datasets: the real ImageNet family (`real()`), the built-in mini (`rib.data.mini`),
or a suite of the user's own (`rib.data.suites`). Nothing outside the catalog knows that ImageNet has 1000 classes. This
module does not import torch, so that a command whose run is finished can return it without the seconds that importing
torch takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from rib.errors import RibError, nearest

if TYPE_CHECKING:
    from rib.data.suites.domain import Domain

Rule = Literal["wnid", "number", "objectnet", "corruption", "domain"]

Kind = str
"""Kind of data: ``mini`` (the toy data that rib draws itself), ``user`` (ImageNet's), or the name of a user's suite."""


@dataclass(frozen=True)
class DatasetSpec:
    """Description of one dataset: its names, folder layout, classes, number of images and licence.

    Attributes:
        name: Name in commands and metrics.json, such as ``imagenet_r``.
        title: Name in tables and figures, such as ``ImageNet-R``.
        folders: Possible folders under the data root, the canonical one first.
        rule: Meaning of a class folder's name: a WordNet id (``wnid``), the class's number (``number``, ImageNet-V2),
            a name in ObjectNet's mapping files (``objectnet``), a WordNet id below corruption/severity
            (``corruption``), or as ``domain`` says.
        groups: ``groups[j]`` are the output ids of class ``j``, in the order of labels.
        num_images: Images of a complete copy; None where releases differ.
        between: Fewest and most images of a complete copy, where releases differ.
        balanced: True if all classes have equally many images (in ImageNet-C, for each corruption and severity).
        first: WordNet ids of ``ILSVRC2012_val_00000001`` and the next ones, to detect labels in another order.
        classes: Folder names of the classes in label order (WordNet ids; ObjectNet folder names).
        border: Pixels to cut from each side before the transform (ObjectNet's red frame).
        derived_from: Name of the dataset from whose images these were made (val for ImageNet-C), or None.
        licence: Terms of use, in one sentence.
        may_train: True if the licence permits training a model on it.
        labels: Label of each folder in ``classes``, if several folders form one class; empty: one class per folder.
        more_folders: True if the release has folders that are not a class here (200 of ObjectNet's 313).
        precropped: True if images are stored at 224 px, already cropped (ImageNet-C).
        cells: ``corruption/severity`` sub-folders (ImageNet-C), else empty.
        synset_files: Files that list each image's WordNet id, for a copy without class folders.
        domain: Where the images of a user's suite are and how to read their classes; None for ImageNet and mini.
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
    domain: Domain | None = None


@dataclass(frozen=True)
class Catalog:
    """The datasets of one benchmark (ImageNet, mini, or a user's suite), and the classes that the K outputs stand for.

    Indexing by a dataset's name returns its `DatasetSpec`, or raises a `RibError` with the nearest known name.

    Attributes:
        kind: ``mini``, ``user`` or the suite's name, as in metrics.json and in the run store's first folder.
        outputs: Name of the class of each of a model's K outputs, in order; WordNet ids for ImageNet's classes.
        specs: The datasets by name, in the order of tables.
        title: Name of a user's suite in titles; empty for ImageNet and mini.
        in_distribution: Dataset whose accuracy tables show beside RI, and which is never part of it; None: none.
        prefix: Word that tables leave out at the start of titles, where it goes without saying; empty: none.
    """

    kind: Kind
    outputs: tuple[str, ...]
    specs: Mapping[str, DatasetSpec] = field(repr=False)
    title: str = ""
    in_distribution: str | None = "imagenet_val"
    prefix: str = ""

    @property
    def outputs_in_words(self) -> str:
        """Phrase for a model's outputs: ``the 3 classes of Pets (cat, dog, bird), in this order``."""
        if self.outputs == _wnids():
            return f"the {len(self.outputs)} classes of ImageNet-1K, in the order of their WordNet ids"
        named = ", ".join(self.outputs[:5]) + (", ..." if len(self.outputs) > 5 else "")
        return f"the {len(self.outputs)} classes of {self.title or self.kind} ({named}), in this order"

    def __getitem__(self, name: str) -> DatasetSpec:
        if name not in self.specs:
            raise RibError(
                f"there is no dataset {name}{nearest_dataset(name, self.specs)}; known: {', '.join(self.specs)}"
            )
        return self.specs[name]


def nearest_dataset(name: str, known: Iterable[str]) -> str:
    """Return the text "; did you mean NAME?" with the dataset that a short or misspelt name stands for.

    Args:
        name: What the user wrote: ``val``, ``R``, ``ImageNet-V2``, ``imagenet_sketsh``.
        known: Names of datasets.

    Returns:
        The end of a message, or an empty string if no name is similar.
    """
    names = list(known)
    meant = [one for one in names if _core(one) == _core(name)]
    return f"; did you mean {meant[0]}?" if meant else nearest(name, names)


def _core(name: str) -> str:
    """Return what distinguishes a dataset's name, ``v2`` of imagenet_v2, ImageNet-V2, IN-V2 and mini V2."""
    words = re.findall("[a-z0-9]+", name.lower())
    return "".join(words).removeprefix("imagenet").removeprefix("mini") if words[:1] != ["in"] else "".join(words[1:])


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
"""The fifteen corruptions of ImageNet-C that enter its mean; the four extra ones do not."""


@cache
def real() -> Catalog:
    """Return the catalog of the real ImageNet family, with the sizes and layouts of the datasets' papers and pages."""
    specs = (*_photographs(), _objectnet(), *_derived_from_val(), _train())
    return Catalog("user", _wnids(), {spec.name: spec for spec in specs}, prefix="ImageNet")


@cache
def _wnids() -> tuple[str, ...]:
    return tuple(resource("imagenet_wnids.txt").split())


def _of_all_classes(name: str, title: str, *folders: str, num_images: int | None, **more: Any) -> DatasetSpec:
    every = tuple((i,) for i in range(len(_wnids())))
    return DatasetSpec(name, title, folders, groups=every, classes=_wnids(), num_images=num_images, **more)


def _of_some_classes(name: str, title: str, folder: str, ids: str, num_images: int, **more: Any) -> DatasetSpec:
    chosen = [int(i) for i in resource(ids).split()]
    groups, classes = tuple((i,) for i in chosen), tuple(_wnids()[i] for i in chosen)
    more = {"licence": NO_IMAGE_LICENCE, **more}
    return DatasetSpec(name, title, (folder,), "wnid", groups, classes, num_images, **more)


def _photographs() -> tuple[DatasetSpec, ...]:
    """Return the descriptions of the datasets with images of their own: val, V2, A, R and Sketch."""
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
            num_images=50_889,  # not 50 per class
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
        num_images=None,  # 18,574 of 50,273 images are in ImageNet's classes, but the number varies between releases
        between=(18_000, 20_000),
        licence="CC BY 4.0, and ObjectNet may never be used to tune the parameters of any model.",
        border=2,
        may_train=False,
        more_folders=True,
    )


def _derived_from_val() -> tuple[DatasetSpec, ...]:
    """Return the descriptions of the datasets made from ImageNet val's images: ImageNet-Cartoon, -Drawing and -C."""
    common: dict[str, Any] = {"derived_from": "imagenet_val", "balanced": True}
    looks = tuple(
        _of_all_classes(
            f"imagenet_{look.lower()}",
            f"ImageNet-{look}",
            folder,
            f"datasets/{folder}",  # the tar archives of these two unpack to this folder
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
"""Label lists for ImageNet val without class folders: Kaggle's table, or one line per image, as TensorFlow ships."""

FIRST_OF_VAL = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189", "n02346627", "n02776631")
"""Classes of ``ILSVRC2012_val_00000001`` to 8, in all lists of val's labels (outputs 65, 970, 230, 809, 516, ...)."""

OTHER_SETS = {
    "top-?images": "ImageNet-V2's top-images",
    "threshold-?0\\.7": "ImageNet-V2's threshold 0.7",
    "^imagenet-o$": "ImageNet-O",
    "^imagenet-p$": "ImageNet-P",
    "^imagenet-c-bar": "ImageNet-C-bar",
    "styli[sz]ed": "Stylized-ImageNet",
}
"""Datasets outside the catalog with the same class folders but other images, by a pattern of their folder's name."""

HOLDS = "imagenet-r, imagenet/val, ..."
"""Folders of a data root, for messages."""

IMAGENET = "ImageNet terms of access: non-commercial research and education."
NO_IMAGE_LICENCE = "Code MIT; no licence stated for the images."
ZENODO = "CC BY 4.0 (Zenodo {}); the originals stay under ImageNet's terms."


def with_label_rule(spec: DatasetSpec, rule: str) -> DatasetSpec:
    """Return ObjectNet's description with another mapping of its folders to outputs; other datasets are unchanged.

    Args:
        spec: Description of any dataset.
        rule: ``max``: the maximum over a class's outputs (113 classes, as WiSE-FT scores it); ``first``: the first of
            its outputs alone (113); ``authors``: the 105 outputs of the ImageNet-RIB authors' code, including the 8
            folders that it mislabels.

    Raises:
        RibError: If the rule is unknown.
    """
    if spec.rule != "objectnet" or rule == "max":
        return spec
    if rule == "first":
        return replace(spec, groups=tuple(group[:1] for group in spec.groups))
    if rule != "authors":
        raise RibError(f"data.label_rule: expected max, first or authors, got {rule!r}")
    output_of = {folder: entry["authors"] for folder, entry in json.loads(resource("objectnet.json")).items()}
    ids = sorted({output_of[folder] for folder in spec.classes})
    labels = tuple(ids.index(output_of[folder]) for folder in spec.classes)
    return replace(spec, groups=tuple((i,) for i in ids), labels=labels)


def resource(name: str) -> str:
    """Return the content of a text file in ``rib/data/resources``."""
    return files("rib.data").joinpath("resources", name).read_text()
