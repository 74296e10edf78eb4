"""Catalog of mini's datasets, with the names and folder layouts of the real datasets in `rib.data.catalog`."""

from __future__ import annotations

from functools import cache

from rib.data.catalog import Catalog, DatasetSpec, Rule
from rib.data.mini import sets
from rib.data.mini.classes import CLASSES, FOLDERS, STRANGERS, output_ids, output_wnids
from rib.data.mini.styles import CORRUPTIONS

LICENCE = "drawn by rib; Apache-2.0"


@cache
def catalog() -> Catalog:
    """Return the catalog of mini's datasets: the description of each, by name."""
    all_ = tuple(c.wnid for c in CLASSES)
    in_a = tuple(c.wnid for c in CLASSES if c.in_a)
    in_r = tuple(c.wnid for c in CLASSES if c.in_r)
    ids = output_ids()
    wnid: Rule = "wnid"
    val = "imagenet_val"
    specs = (
        _spec("imagenet_val", "mini val", "imagenet/val", wnid, all_),
        _spec("imagenet_v2", "mini V2", "imagenet-v2/imagenetv2-matched-frequency-format-val", "number", all_),
        _spec("imagenet_a", "mini A", "imagenet-a", wnid, in_a),
        _spec("imagenet_r", "mini R", "imagenet-r", wnid, in_r),
        _spec("imagenet_sketch", "mini Sketch", "imagenet-sketch", wnid, all_),
        DatasetSpec(
            name="objectnet",
            title="mini ObjectNet",
            folders=("objectnet-1.0/images",),
            rule="objectnet",
            groups=tuple(tuple(ids[w] for w in f.wnids) for f in FOLDERS),
            classes=tuple(f.name for f in FOLDERS),
            num_images=len(sets.pictures("objectnet")) - len(STRANGERS) * sets.STRANGERS_EACH,
            licence=LICENCE,
            border=sets.BORDER,
            more_folders=True,
        ),
        _spec("imagenet_cartoon", "mini Cartoon", "imagenet-cartoon", wnid, all_, derived_from=val),
        _spec("imagenet_drawing", "mini Drawing", "imagenet-drawing", wnid, all_, derived_from=val),
        _spec(
            "imagenet_c", "mini C", "imagenet-c", "corruption", all_, derived_from=val,
            cells=tuple(f"{c}/{s}" for c in CORRUPTIONS for s in sets.SEVERITIES),
        ),
        _spec("imagenet_train", "mini train", "imagenet/train", wnid, all_),
    )  # fmt: skip
    return Catalog(kind="mini", outputs=output_wnids(), specs={spec.name: spec for spec in specs})


def _spec(
    name: str,
    title: str,
    folder: str,
    rule: Rule,
    wnids: tuple[str, ...],
    derived_from: str | None = None,
    cells: tuple[str, ...] = (),
) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        title=title,
        folders=(folder,),
        rule=rule,
        groups=tuple((output_ids()[w],) for w in wnids),
        classes=wnids,
        num_images=len(sets.pictures(name)),
        licence=LICENCE,
        derived_from=derived_from,
        precropped=bool(cells),
        cells=cells,
    )
