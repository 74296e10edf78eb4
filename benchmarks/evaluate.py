"""Eight runs scored together against one by one, on JPEGs that are decoded anew in every pass.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.evaluate PHOTOS    # <wnid>/<file>.JPEG

All in one process, so that imports count on neither side, and in turns, round after round. What is measured is what a
pass does: images are decoded (counted), every model looks at them, predictions are written. Then the same parts alone:
one decoding of all images, and the forward passes of all models on images in memory. CPU seconds of the process stand
beside the clock's, since other work on the machine hardly moves them.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from rib.config import compose
from rib.data import crop_cache
from rib.data.labels import LabelSpace
from rib.models.build import build
from rib.models.weights import save_weights
from rib.runs.images import data_of
from rib.runs.resolve import resolve
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.memory import keep_memory
from rib.scoring.one_pass import LoadedRun, score_together
from rib.scoring.score import score_all
from tests.support.photos import build as build_photographs

MODELS = 8
ROUNDS = 5
IMAGES = 64
"""Of each of the two datasets."""

Seconds = NDArray[np.float64]
"""Of the clock, and of the process on all cores."""


def now() -> Seconds:
    """Both times so far."""
    return np.array([time.perf_counter(), time.process_time()])


def made(spec: RunSpec, folder: Path) -> list[Run]:
    """Runs whose weights are the start's with a little noise."""
    runs = []
    model = build(spec.start, len(spec.catalog.wnids))
    for number in range(MODELS):
        torch.manual_seed(number)
        run = Run(folder / str(number))
        state = model.stored_weights()
        save_weights(
            {k: t + 1e-4 * torch.randn_like(t) if t.is_floating_point() else t for k, t in state.items()},
            run.weights_file,
        )
        runs.append(run)
    return runs


@contextmanager
def counted() -> Iterator[list[Path]]:
    """Files read while inside; the loader must have no workers."""
    read: list[Path] = []
    original = crop_cache.read_image

    def read_image(file: Path, *arguments: object) -> torch.Tensor:
        read.append(file)
        return original(file, *arguments)

    crop_cache.read_image = read_image
    try:
        yield read
    finally:
        crop_cache.read_image = original


def score(spec: RunSpec, runs: Sequence[Run], folder: Path, at_a_time: int) -> tuple[Seconds, Seconds, int]:
    """Seconds of passes over the images, of loading models, and images decoded."""
    shutil.rmtree(folder, ignore_errors=True)
    fabric = Fabric(accelerator="cpu", devices=1)
    loading, passes = np.zeros(2), np.zeros(2)
    with counted() as read:
        for i in range(0, MODELS, at_a_time):
            begun = now()
            entries = []
            for run in runs[i : i + at_a_time]:
                place = Run(folder / run.key)
                place.folder.mkdir(parents=True)
                place.weights_file.hardlink_to(run.weights_file)
                entries.append(LoadedRun.load(spec, place, list(spec.scored), data_of(spec), fabric))
            loaded = now()
            score_together(entries, fabric, "scoring")
            loading += loaded - begun
            passes += now() - loaded
    return passes, loading, len(read)


def parts(spec: RunSpec, runs: Sequence[Run]) -> tuple[Seconds, Seconds]:
    """Seconds of one decoding, and of all models looking at decoded images one model after another."""
    data = data_of(spec)
    begun = now()
    batches = {name: list(data.evaluation_loader(name)) for name in spec.scored}
    decoding = now() - begun
    forward = np.zeros(2)
    for run in runs:
        entry = LoadedRun.load(spec, run, [], data, Fabric(accelerator="cpu", devices=1))
        begun = now()
        for name, tree in spec.scored.items():
            score_all(entry.own, batches[name], LabelSpace(tree.spec.groups), len(tree))
        forward += now() - begun
    return decoding, forward


def equal(one: Path, other: Path) -> bool:
    """Whether all predictions of two folders agree bit for bit."""
    files = sorted(f.relative_to(one) for f in one.glob("*/predictions/*.npz"))
    assert files, "expected predictions"
    return all(
        np.array_equal(np.load(one / f)[column], np.load(other / f)[column])
        for f in files
        for column in ("label", "top5", "confidence", "log_prob")
    )


def said(both: Seconds) -> str:
    """``1.23 (2.34)``."""
    return f"{both[0]:.2f} ({both[1]:.2f})"


def main() -> None:
    """Print seconds of both ways and their parts, images decoded, and whether the bits agree."""
    crop_cache.BUDGET = 0
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        root = build_photographs(Path(sys.argv[1]), Path(folder) / "data", only={"imagenet_val", "imagenet_v2"})
        spec = resolve(
            compose(
                *("model=efficientnet_lite0", f"data.root={root}", "data.allow_incomplete=true", "data.workers=0"),
                *("+method=pretrained", "suite.targets=[imagenet_v2]", "trainer=cpu", f"paths.runs={folder}/runs"),
                "evaluation.batch_size=32",
                f"data.limit={IMAGES}",
            )
        )
        images = sum(map(len, spec.scored.values()))
        runs = made(spec, Path(folder) / "made")
        print(f"{images} images, {MODELS} models, {torch.get_num_threads()} threads; seconds (CPU seconds)", flush=True)
        ratios, bounds = [], []
        for number in range(ROUNDS):
            together, loading, decoded = score(spec, runs, Path(folder) / "together", MODELS)
            alone, loading_alone, decoded_alone = score(spec, runs, Path(folder) / "alone", 1)
            decoding, forward = parts(spec, runs)
            ratios.append(alone / together)
            bounds.append(together / (decoding + forward))
            lines = (
                f"round {number + 1}: together {said(together)}, {decoded} decoded",
                f"one by one {said(alone)}, {decoded_alone} decoded",
                f"one decoding {said(decoding)}, {MODELS} forward passes {said(forward)}",
                f"loading {said(loading)} and {said(loading_alone)}",
                f"same bits: {equal(Path(folder) / 'together', Path(folder) / 'alone')}",
            )
            print("; ".join(lines), flush=True)
        print(f"one by one / together, median: {said(np.median(ratios, axis=0))}")
        print(f"together / (one decoding + {MODELS} forward passes), median: {said(np.median(bounds, axis=0))}")


if __name__ == "__main__":
    main()
