"""Benchmark of CKA: all pairs of layers at once against loops over pairs, and peak memory by number of images.

    python benchmarks/cka.py

Features are those of two untrained ViT-B/16 (12 blocks, 48 layers, class token) on noise; forward passes are not timed.
``pair_by_pair`` treats each of the 48 x 48 pairs on its own, as common implementations do: two Gram matrices,
U-centring and three HSIC_1 in float64. ``grams_kept`` computes each Gram matrix once and does the rest pair by pair.

Measured on two shared cores (other load affects the ratios): at once 0.094 s, Grams kept 0.41 s (4 times as long), pair
by pair 11.4 s (121 times). Memory 949 MB for 500 images, 952 MB for 5,000 (+0.4 %).

Memory is the peak (Linux) of a separate process that compares two ViTs of 12 blocks on 500 or 5,000 images of 48 px.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor

from rib.analysis.compare import compare
from rib.metrics.cka import debiased_cka, gram, unbiased_hsic
from rib.models.classifier import Classifier
from rib.models.features import feature_hooks

BATCH = 32
HALF = (0.5, 0.5, 0.5)


def features(seed: int, images: Tensor) -> list[Tensor]:
    """Return the features of all 48 layers of an untrained ViT-B/16 for a batch, each of shape (B, D)."""
    torch.manual_seed(seed)
    net = timm.create_model("vit_base_patch16_224").eval()
    heard: dict[str, Tensor] = {}
    with torch.inference_mode(), feature_hooks(net, "cls", heard.__setitem__):
        net(images)
    return list(heard.values())


def at_once(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Compute CKA of all pairs with N + M Gram matrices and one matrix product."""
    return unbiased_hsic(*(torch.stack([gram(x).matrix for x in side]) for side in (one, other))).cka()


def pair_by_pair(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Compute CKA of all pairs with 2 N M Gram matrices and N M products."""
    return torch.tensor([[debiased_cka(x, y) for y in other] for x in one], dtype=torch.float64)


def grams_kept(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Compute CKA of all pairs with N + M Gram matrices and N M products."""
    a, b = ([gram(x).matrix[None] for x in side] for side in (one, other))
    return torch.tensor([[float(unbiased_hsic(x, y).cka()) for y in b] for x in a], dtype=torch.float64)


def seconds(measure: Callable[[list[Tensor], list[Tensor]], Tensor], one: list[Tensor], other: list[Tensor]) -> float:
    """Return the seconds that one call takes."""
    begun = time.perf_counter()
    measure(one, other)
    return time.perf_counter() - begun


def speed(rounds: int = 3) -> None:
    """Print seconds and ratios; the variants take turns and the best time of each counts, since other load varies."""
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    one, other = features(0, images), features(1, images)
    ways = (at_once, grams_kept, pair_by_pair)
    with torch.inference_mode():
        worst = float((at_once(one[:9], other) - pair_by_pair(one[:9], other)).abs().max())
        turns = [[seconds(way, one, other) for way in ways] for _ in range(rounds)]
    best = [min(of_way) for of_way in zip(*turns, strict=True)]
    print(
        f"{len(one)} x {len(other)} layers, {BATCH} images, {torch.get_num_threads()} threads, best of {rounds} turns:"
    )
    for way, taken in zip(ways, best, strict=True):
        print(f"  {way.__name__:14s} {taken:7.3f} s, {taken / best[0]:6.1f} times as long")
    print(f"  largest difference {worst:.1e}", flush=True)


def vit(seed: int) -> Classifier:
    """Build a small ViT with twelve blocks for images of 48 px."""
    torch.manual_seed(seed)
    net = timm.models.VisionTransformer(img_size=48, patch_size=8, embed_dim=64, depth=12, num_heads=4, num_classes=10)
    return Classifier(net, HALF, HALF)


def peak(images: int) -> float:
    """Return the peak memory of this process in MB after comparing two models on a number of images."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for rows in torch.arange(images).tensor_split(-(-images // BATCH)):
            batch = torch.randint(0, 256, (len(rows), 3, 48, 48), dtype=torch.uint8, generator=generator)
            yield batch, batch

    compare(vit(0), vit(1), batches(), tokens=("cls", "cls"), num_images=images)
    lines = Path("/proc/self/status").read_text().splitlines()  # a child's ru_maxrss begins at its parent's
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def memory() -> None:
    """Print the peak memory of a process for 500 and for 5,000 images."""
    peaks = {}
    for images in (500, 5000):
        done = subprocess.run([sys.executable, __file__, str(images)], capture_output=True, text=True, check=True)
        peaks[images] = float(done.stdout)
        print(f"  {images:5d} images: {peaks[images]:.0f} MB at most", flush=True)
    print(f"  {peaks[5000] / peaks[500] - 1:+.1%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(peak(int(sys.argv[1])))
    else:
        speed()
        print("minibatch estimator, two ViTs of 12 blocks:")
        memory()
