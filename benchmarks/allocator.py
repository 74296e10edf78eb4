"""Speed and peak memory with rib's setting of glibc's memory allocator (``keep_memory``), against its defaults.

    python -m benchmarks.allocator            # about 3 minutes on two idle cores

Every measurement is a process of its own that evaluates or trains a network on noise, in batches as rib gives them to
it: slices of 32 in scoring, 64 in training. Imports and the first pass are not timed; peak memory is that of the whole
process. The ViT's rows are for comparison: it has few page faults.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from benchmarks.side_by_side import SMALL, clocks, command, compare, heading, say_taken

NETWORKS = {"ConvNet": "tf_efficientnet_lite0", "ViT": "vit_tiny_patch16_224"}
BATCH = {"evaluation": 4, "training": 4} if SMALL else {"evaluation": 32, "training": 64}
PASSES = {"evaluation": 1, "training": 1} if SMALL else {"evaluation": 8, "training": 2}

CLAIMS = (
    ("ConvNet", "evaluation", 2.0),
    ("ConvNet", "training", 1.6),
    ("ViT", "evaluation", None),
    ("ViT", "training", None),
)
"""Network, work, and the ratio that is asked for, at no more than `MEMORY` times the memory."""

MEMORY = 1.25


def measure(network: str, work: str, kept: bool) -> None:
    """Pass batches of noise through a network, and print how long it took."""
    import timm
    import torch
    from torch.nn.functional import cross_entropy

    from rib.models.memory_format import prefer_channels_last
    from rib.runtime.memory import keep_memory, training_memory

    if kept and not keep_memory():
        raise SystemExit("keep_memory has no effect here: it needs Linux with glibc, and enough free memory")
    torch.manual_seed(0)
    train = work == "training"
    model = prefer_channels_last(timm.create_model(NETWORKS[network])).train(train)
    images = torch.randn(BATCH[work], 3, 224, 224)
    labels = torch.arange(len(images))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def once() -> None:
        with torch.set_grad_enabled(train):
            loss = cross_entropy(model(images), labels)
        if train:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with training_memory() if train else nullcontext():
        once()
        begun = clocks()
        for _ in range(PASSES[work]):
            once()
        say_taken(begun)


def main() -> None:
    """Print the table."""
    heading("glibc's allocator: its defaults, rib's setting")
    for network, work, at_least in CLAIMS:
        line = ("-m", "benchmarks.allocator", network, work)
        compare(
            f"{network}, {work}, {BATCH[work]} images at once",
            ("defaults", command(*line, 0)),
            ("keep_memory", command(*line, 1)),
            at_least=at_least,
            memory_at_most=MEMORY,
        )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], sys.argv[3] == "1")
    else:
        main()
