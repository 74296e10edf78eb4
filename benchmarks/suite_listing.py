"""Benchmark of listing a user's suite and computing its images' digests, without and with records of a first run.

    python benchmarks/suite_listing.py [number of images]

Five domains of 345 classes with 200,000 files of a few bytes in all are made in a temporary folder, and read as class
folders, as patterns and as one manifest. The aim is under 3 s of CPU time the second time, imports included, and
memory that does not grow with the number of starts. Each measurement runs in a process of its own, as a command does.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real")
CLASSES = [f"class_{i:03}" for i in range(345)]
FORMS = ("folder", "glob", "manifest")

MEASURE = "--measure"
"""Argument of the processes that measure: the suite's file and the folder of records follow."""


def build(root: Path, count: int) -> None:
    """Write the images, the manifest, and one suite's file for each form."""
    each = count // (len(DOMAINS) * len(CLASSES))
    with (root / "all.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("path", "label", "domain"))
        for domain in DOMAINS:
            for name in CLASSES:
                (root / domain / name).mkdir(parents=True)
                for i in range(each):
                    path = f"{domain}/{name}/{domain}_{i:06}.jpg"
                    (root / path).write_bytes(path.encode())
                    rows.writerow((path, name, domain))
    for form in FORMS:
        places = {
            "folder": {name: {"folder": name} for name in DOMAINS},
            "glob": {name: {"glob": f"{name}/**/*.jpg"} for name in DOMAINS},
            "manifest": {name: {"manifest": "all.csv", "domain": name} for name in DOMAINS},
        }
        document = {"name": form, "classes": CLASSES, "domains": places[form]}
        (root / f"{form}.yaml").write_text(yaml.safe_dump(document))


def measure(file: Path, records: Path) -> None:
    """List the domains and compute their digests, and print this process's CPU time and peak memory."""
    from rib.data.scan import scan
    from rib.data.suites.suite_file import load_suite

    imported = time.process_time()
    suite = load_suite(file)
    trees = [scan(spec, suite.root, records) for spec in suite.catalog().specs.values()]
    listed = time.process_time()
    assert all(tree.digest for tree in trees)
    digested = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{imported:.2f} s to import, {listed - imported:.2f} s to list, {digested - listed:.2f} s to digest: "
        f"{digested:.2f} s of CPU for {sum(map(len, trees)):,} images; {memory:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Make the suites, and measure each form three times."""
    if sys.argv[1:2] == [MEASURE]:
        measure(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, int(sys.argv[1]) if sys.argv[1:] else 200_100)
        time.sleep(2.1)  # files that changed just now are read again
        for form in FORMS:
            for which in ("first", "second", "third"):
                print(f"{form}, {which} start: ", end="", flush=True)
                command = [sys.executable, __file__, MEASURE, root / f"{form}.yaml", root / f"records-{form}"]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
