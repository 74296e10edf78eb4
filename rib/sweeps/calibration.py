"""Time that a model takes per image, measured with random weights, and what a run that nobody made yet costs by it.

Random weights cost the same time as trained ones, and need no download. On a CPU the seconds are CPU seconds, which
other load on the machine hardly changes: they are the time that an idle machine takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.errors import RibError
from rib.runs.metrics_file import read
from rib.runs.recipe import training_precision
from rib.runs.spec import RunSpec
from rib.runtime.files import write_atomically
from rib.runtime.memory import cores, keep_memory
from rib.sweeps.executors import cell_processes, start_guarded
from rib.sweeps.plan import needs_fisher

if TYPE_CHECKING:
    import torch

BATCH = 32
"""Largest batch that is timed."""

FISHER_IMAGES = 4
"""Images whose gradients are timed one by one, as the Fisher information takes them."""

FILES = 8
"""Image files that are read."""

START = 0.4
"""Seconds of two CPU cores that a fit takes besides its steps."""

FEW, MANY, LONG = 2, 4, 4.0
"""Steps that are timed: few if the first, which also fills the memory, took this many seconds, else many."""


@dataclass(frozen=True)
class Calibration:
    """Time that a model takes per image.

    Attributes:
        train: Seconds of a forward and backward pass.
        score: Seconds of a forward pass.
        fisher: Seconds of an image's squared gradients (`rib.methods.fisher`).
        read: Seconds to read, decode and crop an image file, on one core.
        batch_norm: True if the model has BatchNorm, so that a grid makes control runs.
    """

    train: float
    score: float
    fisher: float
    read: float
    batch_norm: bool

    def fit(self, spec: RunSpec, with_fisher: bool = True) -> float:
        """Return the expected seconds of a run's training; 0 for one that trains nothing.

        Args:
            spec: The run.
            with_fisher: False if another run estimates the Fisher information that this one needs.
        """
        if not spec.trains or spec.source is None:
            return 0.0
        seen, source, methods = spec.images_trained, len(spec.source), spec.config.method
        # What does not change from epoch to epoch is computed once (`rib.methods.constants`).
        constant = source if spec.config.data.augment == "none" and seen > source else seen
        only_head = [*methods] == ["linear_probe"] and methods["linear_probe"].get("train") == "frozen"
        # The first step, which also fills the memory, takes about as long as two.
        trained = seen + min(spec.config.batch_size, seen)
        seconds = START + (constant * self.score if only_head else trained * self.train)
        if "lwf" in methods:
            seconds += constant * self.score
        if with_fisher and needs_fisher(spec):
            seconds += min(source, methods["ewc"].get("samples") or source) * self.fisher
        return seconds

    def evaluate(self, spec: RunSpec) -> float:
        """Return the expected seconds of a run's scoring, with every model of its interpolation curve."""
        curve = (spec.config.method.get("wise_ft") or {}).get("curve") or []
        return images_scored(spec) * self.score * (1 + len(curve))

    def reading(self, spec: RunSpec) -> float:
        """Return the expected seconds of reading a run's images, which are decoded once if they are kept.

        The pretrained model is scored before all others, and so reads them first.
        """
        if spec.config.data.cache == "off":
            images = images_scored(spec) + spec.images_trained
        else:
            images = images_scored(spec) if spec.source is None else 0
        return images * self.read / (cores() if _has_gpu(spec) else 1)


def images_scored(spec: RunSpec) -> int:
    """Return the number of images that a run predicts with its own model; a curve or an ensemble has more models."""
    return sum(len(tree) for tree in spec.images.values())


def read_calibration(file: Path) -> Calibration | None:
    """Read a calibration; None if there is none, or if its file is damaged or of another version."""
    try:
        content = read(file)
        train, score, fisher, read_one = (float(content[name]) for name in ("train", "score", "fisher", "read"))
        return Calibration(train, score, fisher, read_one, bool(content["batch_norm"]))
    except (OSError, RibError, KeyError, TypeError, ValueError):
        return None


def write_calibration(file: Path, spec: RunSpec, threads: int) -> None:
    """Time a run's model in a process of its own, forked as a grid's cells are, and write the calibration.

    Nothing is written if that fails, such as for lack of memory; the time is then unknown.

    Args:
        file: Where to.
        spec: The run.
        threads: Number of CPU threads of a run.
    """
    process = cell_processes().Process(target=_measure, args=(file, spec, threads))
    start_guarded(process)
    process.join()


def _measure(file: Path, spec: RunSpec, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if spec.config.keep_memory and not _has_gpu(spec):
        keep_memory()
    write_atomically(file, json.dumps(asdict(_time_model(spec))).encode())


def _has_gpu(spec: RunSpec) -> bool:
    from rib.runtime.processes import has_gpu

    return has_gpu(str(spec.config.trainer.get("accelerator", "auto")))


def _time_model(spec: RunSpec) -> Calibration:
    """Measure a model's seconds per image on random weights, each after a warm-up."""
    import torch
    from torch.nn import functional as F
    from torch.nn.modules.batchnorm import _BatchNorm

    from rib.methods.fisher import Way, squared_gradients
    from rib.models.backbone import build_backbone
    from rib.models.classifier import Classifier
    from rib.models.memory_format import prefer_channels_last

    start = spec.start
    device = torch.device("cuda" if _has_gpu(spec) else "cpu")
    model = Classifier(build_backbone(start), start.transform.mean, start.transform.std)
    model = prefer_channels_last(model).to(device)
    size = min(BATCH, spec.config.batch_size)
    images = torch.zeros(size, 3, start.transform.size, start.transform.size, dtype=torch.uint8, device=device)
    labels = torch.zeros(size, dtype=torch.long, device=device)

    few = slice(FISHER_IMAGES)
    way: Way = "loop" if device.type == "cpu" else "vmap"

    def precision(name: str) -> torch.autocast:
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "verified": torch.float16}
        return torch.autocast(device.type, half.get(name), enabled=name in half)

    def train() -> None:
        with precision(training_precision(spec.config)):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    model.eval()
    with torch.no_grad(), precision(str(spec.config.evaluation.precision)):
        score = _seconds(lambda: model(images), device) / size
    fisher = _seconds(lambda: squared_gradients(model, images[few], labels[few], way), device) / FISHER_IMAGES
    model.train()
    seconds = _seconds(train, device) / size
    batch_norm = any(isinstance(layer, _BatchNorm) for layer in model.modules())
    return Calibration(seconds, score, fisher, _read_seconds(spec), batch_norm)


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of the fastest step after a first one, on a CPU the CPU seconds of one thread."""
    import torch

    clock, threads = (time.perf_counter, 1) if device.type == "cuda" else (time.process_time, torch.get_num_threads())

    def taken() -> float:
        begun = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()  # kernels are only queued so far
        return (clock() - begun) / threads

    steps = FEW if taken() > LONG else MANY
    return min(taken() for _ in range(steps))


def _read_seconds(spec: RunSpec) -> float:
    """Return the CPU seconds of reading an image of the scored datasets, from a few files of each in turn."""
    from rib.data.crop_cache import Crops

    trees = [tree for tree in spec.scored.values() if len(tree)]
    taken = []
    for number in range(FILES + 1):
        tree = trees[number % len(trees)]
        crops = Crops(tree, spec.start.transform, str(spec.config.data.image_backend))
        begun = time.process_time()
        crops.read([number % len(tree)])
        taken.append(time.process_time() - begun)
    return sum(taken[1:]) / FILES  # the first has imports
