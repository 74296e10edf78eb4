"""Images a second of a ConvNet and a ViT on the CPU, with glibc's allocator as it is and as rib sets it.

    python benchmarks/allocator.py            # about 3 minutes on two cores

Each measurement is a process of its own; the two settings alternate, so that a noisy machine hurts both alike.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import defaultdict
from statistics import median

MODELS = ("tf_efficientnet_lite0", "vit_tiny_patch16_224")
REPEATS = 3


def measure(model_name: str, tuned: bool) -> None:
    """One process: print evaluation and training images a second, and the peak memory in GB."""
    import time

    import timm
    import torch

    from rib.runtime.memory import keep_memory

    if tuned:
        keep_memory()
    torch.manual_seed(0)
    model = timm.create_model(model_name)
    images = torch.randn(32, 3, 224, 224)
    labels = torch.arange(32)
    rates = []
    for train in (False, True):
        model.train(train)
        begun = 0.0
        for step in range(4):
            if step == 1:  # the first is a warm-up
                begun = time.perf_counter()
            with torch.set_grad_enabled(train):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            if train:
                model.zero_grad()
                loss.backward()
        rates.append(3 * len(images) / (time.perf_counter() - begun))
    print(*rates, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    """Alternate the settings and print medians and ratios."""
    found: dict[tuple[str, bool], list[list[float]]] = defaultdict(list)
    for _ in range(REPEATS):
        for model in MODELS:
            for tuned in (False, True):
                line = [sys.executable, __file__, model, str(int(tuned))]
                done = subprocess.run(line, capture_output=True, text=True, check=True)
                found[model, tuned].append([float(x) for x in done.stdout.split()])
    for model in MODELS:
        plain, tuned = ([median(column) for column in zip(*found[model, t], strict=True)] for t in (False, True))
        for name, one, other in zip(("evaluation", "training"), plain, tuned, strict=False):
            print(f"{model} {name}: {one:.1f} plain, {other:.1f} tuned images/s, ratio {other / one:.2f}")
        print(f"{model} peak memory: {plain[2]:.1f} plain, {tuned[2]:.1f} tuned GB")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], sys.argv[2] == "1")
    else:
        main()
