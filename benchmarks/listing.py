"""Benchmark of listing a data root and computing its images' digests, without and with records of a first run.

    python benchmarks/listing.py [full]

Nine sets of 1000 classes with 50 empty files each are made in a temporary folder, listed, and their digests computed
as for run keys, which looks at every file. The aim is under 5 s of CPU time the second time, of which listing takes
under 3 s. With ``full``, ImageNet-C (75,000 folders, 3.75 million files, identified by names and sizes) and ImageNet
train (1.28 million files) in their true sizes: this takes minutes to make and 5 million inodes. Each measurement runs
in its own process, as a command does.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import Process
from pathlib import Path

from rib.data.catalog import Catalog, real
from rib.data.check import survey
from rib.data.scan import scan
from rib.runtime.content import RACY_NS

SETS = 9
EACH = 50


def build(root: Path) -> Catalog:
    """Write the nine sets to disk, with times of a minute ago, and return their catalog."""
    sketch = real()["imagenet_sketch"]
    num_images = EACH * len(sketch.classes)
    specs = [replace(sketch, name=f"set{i}", folders=(f"set{i}",), num_images=num_images) for i in range(SETS)]
    for spec in specs:
        for wnid in spec.classes:
            fill(root / spec.name / wnid, EACH)
    return Catalog("user", real().outputs, {spec.name: spec for spec in specs})


def build_full(root: Path) -> Catalog:
    """Write ImageNet-C and ImageNet train with true numbers of folders and (empty) files; return their catalog."""
    corrupted, train = real()["imagenet_c"], real()["imagenet_train"]
    for cell in corrupted.cells:
        for wnid in corrupted.classes:
            fill(root / corrupted.folders[0] / cell / wnid, 50)
    share, more = divmod(train.num_images or 0, len(train.classes))
    for i, wnid in enumerate(train.classes):
        fill(root / train.folders[0] / wnid, share + (i < more))
    return Catalog("user", real().outputs, {spec.name: spec for spec in (corrupted, train)})


def fill(folder: Path, count: int) -> None:
    """Make a folder of empty image files, last changed a minute ago."""
    folder.mkdir(parents=True)
    for i in range(count):
        os.close(os.open(f"{folder}/ILSVRC2012_val_{i:08}.JPEG", os.O_CREAT | os.O_WRONLY))
    then = time.time() - 60
    os.utime(folder, (then, then))


def measure(catalog: Catalog, root: Path, records: Path, which: str) -> None:
    """List the sets and compute their digests, and print the CPU time of all threads and the peak memory."""
    begun = time.process_time()
    found = survey(catalog, root, records)
    listed = time.process_time() - begun
    for spec in catalog.specs.values():
        assert scan(spec, root, records).digest
    digested = time.process_time() - begun - listed
    assert all(f.fault is None for f in found)
    images = sum(f.num_images for f in found)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{', '.join(catalog.specs)}, {which}: {listed:.2f} s to list, {digested:.2f} s to digest {images:,} images; "
        f"{memory:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure each dataset twice: the first time without records, then with them."""
    with tempfile.TemporaryDirectory() as name:
        root, records = Path(name) / "root", Path(name) / "records"
        full = sys.argv[1:] == ["full"]
        catalog = (build_full if full else build)(root)
        time.sleep(2 * RACY_NS / 1e9)  # files changed within a clock tick of being read are not trusted
        batches = [{name: spec} for name, spec in catalog.specs.items()] if full else [dict(catalog.specs)]
        for specs in batches:
            for which in ("first", "again"):
                process = Process(target=measure, args=(replace(catalog, specs=specs), root, records, which))
                process.start()
                process.join()
                assert process.exitcode == 0
        print(f"records: {sum(f.stat().st_size for f in records.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
