"""Benchmark of methods: CPU time and peak memory of a training step, relative to plain fine-tuning.

    python benchmarks/methods.py                                # a ViT-tiny, 224 px, batch 16: five minutes
    python benchmarks/methods.py --model mini                   # mini's network, 48 px, batch 64: a minute
    python benchmarks/methods.py --rounds 40 ewc l2sp spd lwf   # some of them, more exactly
    python benchmarks/methods.py --save                         # and put the numbers into docs/measured/steps.csv

In one process and one thread, all methods take a step in turn, each on its own copy of the model, for several rounds.
Time is the thread's CPU time, so that other processes on the machine have little effect. A ratio is the median over
rounds of a method's step over plain fine-tuning's step of the same round. Peak memory is that of a separate process
that takes a few steps of one method.
"""

from __future__ import annotations

import argparse
import copy
import csv
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import timm
import torch
from torch.nn import functional as F

from rib.config import compose
from rib.config.shipped import options, shipped_nodes
from rib.data.labels import LabelSpace
from rib.methods.base import Method, Step
from rib.methods.build import build_object
from rib.models.classifier import Classifier
from rib.models.mini import build_mini
from rib.runtime.memory import keep_memory
from rib.training.module import FineTuner

SPACE = LabelSpace.of_ids(range(200))
STEPS = Path(__file__).resolve().parents[1] / "docs" / "measured" / "steps.csv"
"""Where the documentation reads these numbers from."""


class Bench:
    """A method with its own copy of the model and its own optimizer, of which single steps are timed."""

    def __init__(self, name: str, model: Classifier, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        optimizer = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
        self.module = FineTuner(copy.deepcopy(model), SPACE, optimizer, lr=1e-4)
        self.batches = batches
        node = {} if name == "finetune" else dict(compose(f"+method={name}").method[name])
        given = {k: v for k, v in node.items() if k not in ("lr", "probe")}
        self.method: Method = build_object(given) if given else Method()
        source = [(images, labels, torch.arange(len(images))) for images, labels in batches[:1]]
        self.trainer: Any = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu"), broadcast=lambda value: value),
            datamodule=SimpleNamespace(source_images=lambda *_: (source, len(source[0][0]))),
            global_step=0,
            is_global_zero=True,
        )
        self.module.trainer = self.trainer
        self.method.setup(self.trainer, self.module, "fit")
        groups = self.method.parameter_groups(self.module)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = optimizer(groups or trained)
        self.trainer.optimizers = [self.optimizer]
        self.method.on_train_start(self.trainer, self.module)

    def step(self, number: int) -> float:
        """Take a training step, and return the CPU seconds it took."""
        images, labels = self.batches[number % len(self.batches)]
        begun = time.thread_time()
        self.method.on_train_batch_start(self.trainer, self.module, None, number)
        outputs = self.module.model(images)
        logits = SPACE.project(outputs)
        loss = F.cross_entropy(logits, labels)
        penalty = self.method.penalty(self.module, Step(images, labels, outputs, logits, torch.arange(len(images))))
        self.optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        self.method.on_before_optimizer_step(self.trainer, self.module, self.optimizer)
        self.optimizer.step()
        self.method.after_step(self.module)
        self.trainer.global_step += 1
        self.method.on_train_batch_end(self.trainer, self.module, None, None, number)
        return time.thread_time() - begun


def world(name: str) -> tuple[Classifier, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return a model with random weights and a few batches of noise."""
    torch.manual_seed(0)
    mini = name == "mini"
    backbone, side, batch = (build_mini(), 48, 64) if mini else (timm.create_model(name), 224, 16)
    model = Classifier(backbone, (0.5,) * 3, (0.5,) * 3).train()
    images = torch.randint(0, 256, (4, batch, 3, side, side), dtype=torch.uint8)
    return model, [(few, torch.arange(batch) % len(SPACE)) for few in images]


def training_methods() -> list[str]:
    """Return the methods that change a training step; LP-FT does not, it starts from a linear probe."""
    nodes = shipped_nodes("method")
    left_out = ("pretrained", "finetune", "lp_ft")
    return [n for n in options("method") if n not in left_out and "ingredients" not in nodes[n]]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Step time and peak memory of methods beside plain fine-tuning.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; all that train if none is named")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="mini, or any of timm")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--memory", action="store_true", help="take three steps of one method, print peak memory in GB")
    parser.add_argument("--save", action="store_true", help="put the numbers into docs/measured/steps.csv")
    return parser.parse_args()


def peak_memory(name: str, model: str) -> float:
    """Measure the peak memory of a separate process in GB."""
    line = [sys.executable, __file__, "--memory", "--model", model, name]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def save(network: str, batch: int, found: dict[str, tuple[float, float]]) -> None:
    """Replace the rows of steps.csv that were measured again.

    Args:
        network: Its name and image size.
        batch: Images in a step.
        found: By method, step time over plain fine-tuning's, and peak memory in GB.
    """
    with STEPS.open() as file:
        header, *rows = list(csv.reader(file))
    kept = [row for row in rows if row[0] != network or row[2] not in found]
    kept += [[network, str(batch), name, f"{ratio:.2f}", f"{peak:.2f}"] for name, (ratio, peak) in found.items()]
    with STEPS.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *sorted(kept, key=lambda row: row[0])])


def main() -> None:
    """Print a line per method: step time relative to plain fine-tuning, and peak memory."""
    keep_memory()
    torch.set_num_threads(1)
    given = parse_arguments()
    names = ["finetune", *(given.names or training_methods())]
    # Before there is a model here: on Linux, a child's peak memory starts at that of its parent.
    peaks = {} if given.memory else {name: peak_memory(name, given.model) for name in names}
    model, batches = world(given.model)
    if given.memory:
        bench = Bench(given.names[0], model, batches)
        for number in range(3):
            bench.step(number)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
        return
    benches = {name: Bench(name, model, batches) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(given.rounds + 1):
        for name, bench in benches.items():
            taken = bench.step(number)
            if number:  # the first round is a warm-up
                seconds[name].append(taken)
    plain = seconds["finetune"]
    print(f"{given.model}, batch {len(batches[0][0])}, {given.rounds} rounds: {median(plain):.2f} s of CPU a step")
    found = {name: (median(s / p for s, p in zip(seconds[name], plain, strict=True)), peaks[name]) for name in names}
    for name, (ratio, peak) in found.items():
        print(f"{name}: {ratio:.2f} x, {peak:.2f} GB", flush=True)
    if given.save:
        images = batches[0][0]
        save(f"{given.model}, {images.shape[-1]} px", len(images), found)


if __name__ == "__main__":
    main()
