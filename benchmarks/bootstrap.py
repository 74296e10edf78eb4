"""Benchmark of the bootstrap intervals. The aim is under 1 s for RI over 7 targets of 50,000 images.

    python benchmarks/bootstrap.py

Measured on 2 shared cores with 10,000 draws, one thread: RI 0.14 s and mRI over seven sources 0.12 s; with ImageNet-C's
75 cells 0.3 s and 1.2 s. The worst case took 3.3 s: sets of one family that hold different photographs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from rib.metrics.bootstrap import Changes, mean_robustness_interval, robustness_interval
from rib.metrics.intervals import Interval

NUM_IMAGES = 50_000
DERIVED = ("imagenet_cartoon", "imagenet_drawing")
ALONE = ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet")
FILES = np.array([f"ILSVRC2012_val_{i + 1:08d}" for i in range(NUM_IMAGES)])
CELLS = tuple(f"corruption{i}/{severity}" for i in range(15) for severity in range(1, 6))


def changes(generator: np.random.Generator, corruptions: bool = False, size: int = NUM_IMAGES) -> list[Changes]:
    """Simulate the changes of seven sets after one source: a tenth of the images gained, a tenth lost."""

    def change() -> np.ndarray[tuple[int], np.dtype[np.int8]]:
        return generator.choice(np.array([-1, 0, 1], dtype=np.int8), size, p=[0.1, 0.8, 0.1])

    made = [Changes(name, change()) for name in ALONE]
    made += [Changes(name, change(), FILES[:size].copy(), "imagenet_val") for name in DERIVED]
    if corruptions:
        made += [Changes("imagenet_c", change(), FILES[:size], "imagenet_val", cell) for cell in CELLS]
    return made


def print_timed(label: str, measure: Callable[[], Interval]) -> None:
    """Print an interval and the seconds that computing it took."""
    start = time.perf_counter()
    interval = measure()
    print(f"{time.perf_counter() - start:7.2f} s  {label}: {interval}", flush=True)


def main() -> None:
    """Time RI, mRI over seven sources, and both with ImageNet-C's 75 cells."""
    generator = np.random.default_rng(0)
    seven = {source: changes(generator) for source in range(7)}
    print_timed("RI, 7 targets of 50,000", lambda: robustness_interval(seven[0]))
    print_timed("mRI, 7 sources x 7 targets of 50,000", lambda: mean_robustness_interval(seven))
    halves = [*seven[0][:6], *changes(generator, size=NUM_IMAGES // 2)[6:]]
    print_timed("RI, one member lacking half of its originals", lambda: robustness_interval(halves))
    paper = {source: changes(generator, corruptions=True) for source in range(7)}
    print_timed("RI with ImageNet-C, 75 cells of 50,000", lambda: robustness_interval(paper[0]))
    ragged = [*paper[0][:-2]]
    print_timed("RI with ImageNet-C, two cells missing", lambda: robustness_interval(ragged))
    print_timed("mRI with ImageNet-C, 7 sources", lambda: mean_robustness_interval(paper))


if __name__ == "__main__":
    main()
