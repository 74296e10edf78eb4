"""How long a root takes to survey, at first and with records: `python benchmarks/listing.py`.

Eight sets of 1000 classes with 50 empty files each, in a temporary folder. The aim is under 20 s and under 3 s.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rib.data.catalog import Catalog, real
from rib.data.check import survey

SETS = 8
EACH = 50


def build(root: Path) -> Catalog:
    """The sets on disk, changed last a minute ago, and their catalog."""
    sketch = real()["imagenet_sketch"]
    num_images = EACH * len(sketch.classes)
    specs = [replace(sketch, name=f"set{i}", folders=(f"set{i}",), num_images=num_images) for i in range(SETS)]
    then = time.time() - 60
    for spec in specs:
        for wnid in spec.classes:
            folder = root / spec.name / wnid
            folder.mkdir(parents=True)
            for i in range(EACH):
                os.close(os.open(f"{folder}/ILSVRC2012_val_{i:08}.JPEG", os.O_CREAT | os.O_WRONLY))
            os.utime(folder, (then, then))
    return Catalog("user", real().wnids, {spec.name: spec for spec in specs})


def main() -> None:
    """Survey twice."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        catalog = build(root / "root")
        for which in ("first", "again"):
            begun = time.perf_counter()
            found = survey(catalog, root / "root", root / "records")
            seconds = time.perf_counter() - begun
            assert all(f.fault is None for f in found)
            print(f"{which}: {seconds:.2f} s for {sum(f.num_images for f in found):,} images", flush=True)
        print(f"records: {sum(f.stat().st_size for f in (root / 'records').iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
