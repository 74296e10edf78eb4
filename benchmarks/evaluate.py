"""Benchmark of scoring: eight runs in one pass against one by one, on JPEGs that are decoded in every pass.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.evaluate PHOTOS    # <wnid>/<file>.JPEG

Everything runs in one process, so that imports are not timed, and both ways take turns for several rounds. A pass
decodes the images (which are counted), runs every model on them and writes predictions. The parts are also timed alone:
decoding all images once, and the forward passes of all models on images in memory. CPU seconds of the process are
printed beside wall-clock seconds, since other load on the machine hardly affects them.
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
"""Number of images in each of the two datasets."""

Seconds = NDArray[np.float64]
"""Wall-clock seconds, and CPU seconds of the process on all cores; shape (2,)."""


def now() -> Seconds:
    """Read both clocks."""
    return np.array([time.perf_counter(), time.process_time()])


def make_runs(spec: RunSpec, folder: Path) -> list[Run]:
    """Write runs whose weights are the pretrained ones with a little noise."""
    runs = []
    model = build(spec.start)
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
def recorded_reads() -> Iterator[list[Path]]:
    """Record the image files that are read in this context; data loaders must have no workers."""
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
    """Score all runs, some at a time; return the times of scoring and of loading models, and the images decoded."""
    shutil.rmtree(folder, ignore_errors=True)
    fabric = Fabric(accelerator="cpu", devices=1)
    loading, passes = np.zeros(2), np.zeros(2)
    with recorded_reads() as read:
        for i in range(0, MODELS, at_a_time):
            begun = now()
            entries = []
            for run in runs[i : i + at_a_time]:
                copy = Run(folder / run.key)
                copy.folder.mkdir(parents=True)
                copy.weights_file.hardlink_to(run.weights_file)
                entries.append(LoadedRun.load(spec, copy, list(spec.scored), data_of(spec), fabric))
            loaded = now()
            score_together(entries, fabric, "scoring")
            loading += loaded - begun
            passes += now() - loaded
    return passes, loading, len(read)


def time_parts(spec: RunSpec, runs: Sequence[Run]) -> tuple[Seconds, Seconds]:
    """Return the times of decoding all images once, and of the forward passes of all models on decoded images."""
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
    """Return True if all predictions in two folders are identical, bit for bit."""
    files = sorted(f.relative_to(one) for f in one.glob("*/predictions/*.npz"))
    assert files, "expected predictions"
    return all(
        np.array_equal(np.load(one / f)[column], np.load(other / f)[column])
        for f in files
        for column in ("label", "top5", "confidence", "log_prob")
    )


def seconds_text(both: Seconds) -> str:
    """Format both times: ``1.23 (2.34)``."""
    return f"{both[0]:.2f} ({both[1]:.2f})"


def main() -> None:
    """Print the times of both ways and of their parts, the images decoded, and whether predictions are identical."""
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
        runs = make_runs(spec, Path(folder) / "made")
        print(f"{images} images, {MODELS} models, {torch.get_num_threads()} threads; seconds (CPU seconds)", flush=True)
        ratios, bounds = [], []
        for number in range(ROUNDS):
            together, loading, decoded = score(spec, runs, Path(folder) / "together", MODELS)
            alone, loading_alone, decoded_alone = score(spec, runs, Path(folder) / "alone", 1)
            decoding, forward = time_parts(spec, runs)
            ratios.append(alone / together)
            bounds.append(together / (decoding + forward))
            lines = (
                f"round {number + 1}: together {seconds_text(together)}, {decoded} decoded",
                f"one by one {seconds_text(alone)}, {decoded_alone} decoded",
                f"one decoding {seconds_text(decoding)}, {MODELS} forward passes {seconds_text(forward)}",
                f"loading {seconds_text(loading)} and {seconds_text(loading_alone)}",
                f"same bits: {equal(Path(folder) / 'together', Path(folder) / 'alone')}",
            )
            print("; ".join(lines), flush=True)
        print(f"one by one / together, median: {seconds_text(np.median(ratios, axis=0))}")
        print(f"together / (one decoding + {MODELS} forward passes), median: {seconds_text(np.median(bounds, axis=0))}")


if __name__ == "__main__":
    main()
