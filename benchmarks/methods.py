"""What each method that trains adds to a step, and to memory: a ViT-tiny at 224 px, batch 16, on the CPU.

    python benchmarks/methods.py [NAME ...]     # about five minutes on two cores

In one process all methods take a step in turn, each on its own copy of the model, round after round; a ratio is the
median over rounds of a method's step against plain fine-tuning's step of the same round, so that a machine that slows
down hurts all alike. Peak memory is that of a process of its own which takes a few steps of one method.
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import time
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import timm
import torch
from torch.nn import functional as F

from rib.allocator import keep_memory
from rib.config import compose, instantiate, options, shipped_nodes
from rib.data.labels import LabelSpace
from rib.methods.base import Method, Step
from rib.models.classifier import Classifier
from rib.module import FineTuner

ROUNDS = 8
BATCH = 16
SPACE = LabelSpace.of_ids(range(200))


class Bench:
    """One method with its own model and optimizer; `step` takes a training step and says how long it took."""

    def __init__(self, name: str, model: Classifier, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        optimizer = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
        self.module = FineTuner(copy.deepcopy(model), SPACE, optimizer, lr=1e-4)
        self.batches = batches
        node = {} if name == "finetune" else dict(compose(f"+method={name}").method[name])
        given = {k: v for k, v in node.items() if k not in ("lr", "probe")}
        self.method: Method = instantiate(given) if given else Method()
        source = [(images, labels, torch.arange(len(images))) for images, labels in batches[:1]]
        self.trainer: Any = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu"), broadcast=lambda value: value),
            datamodule=SimpleNamespace(source_images=lambda *_: (source, len(source[0][0]))),
            global_step=0,
            is_global_zero=True,
        )
        self.method.setup(self.trainer, self.module, "fit")
        groups = self.method.parameter_groups(self.module)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = optimizer(groups or trained)
        self.trainer.optimizers = [self.optimizer]

    def step(self, number: int) -> float:
        """Seconds of one step."""
        images, labels = self.batches[number % len(self.batches)]
        begun = time.perf_counter()
        self.method.on_train_batch_start(self.trainer, self.module, None, number)
        outputs = self.module.model(images)
        logits = SPACE.project(outputs)
        loss = F.cross_entropy(logits, labels)
        penalty = self.method.penalty(self.module, Step(images, labels, outputs, logits))
        self.optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        self.method.on_before_optimizer_step(self.trainer, self.module, self.optimizer)
        self.optimizer.step()
        self.method.after_step(self.module)
        self.trainer.global_step += 1
        self.method.on_train_batch_end(self.trainer, self.module, None, None, number)
        return time.perf_counter() - begun


def world() -> tuple[Classifier, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A model with random weights and a few batches of noise."""
    torch.manual_seed(0)
    model = Classifier(timm.create_model("vit_tiny_patch16_224"), (0.5,) * 3, (0.5,) * 3).train()
    images = torch.randint(0, 256, (4, BATCH, 3, 224, 224), dtype=torch.uint8)
    return model, [(batch, torch.arange(BATCH) % 200) for batch in images]


def main() -> None:
    """Print a line a method: step time against plain fine-tuning's, and peak memory."""
    keep_memory()
    model, batches = world()
    if sys.argv[1:2] == ["memory"]:
        bench = Bench(sys.argv[2], model, batches)
        for number in range(3):
            bench.step(number)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
        return
    nodes = shipped_nodes("method")
    # LP-FT's second stage is plain fine-tuning; its first is a linear probe.
    left_out = ("pretrained", "finetune", "lp_ft")
    trains = [n for n in options("method") if n not in left_out and "ingredients" not in nodes[n]]
    names = ["finetune", *(sys.argv[1:] or trains)]
    benches = {name: Bench(name, model, batches) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(ROUNDS + 1):
        for name, bench in benches.items():
            taken = bench.step(number)
            if number:  # the first round is a warm-up
                seconds[name].append(taken)
        print(f"round {number} of {ROUNDS}", file=sys.stderr, flush=True)
    plain = seconds["finetune"]
    for name in names:
        line = [sys.executable, __file__, "memory", name]
        peak = float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        ratio = median(s / p for s, p in zip(seconds[name], plain, strict=True))
        about = f"vit_tiny_patch16_224, batch {BATCH}: {median(plain):.2f} s a step, " if name == "finetune" else ""
        print(f"{name}: {about}{ratio:.2f} x a step, {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
