"""What a GPU should do: training from files, methods, scoring and memory, each against what the same card can do.

    python -m benchmarks.gpu                     # ViT-B/16 on one GPU, a table at the end; made for under 8 minutes
    python -m benchmarks.gpu --tiny              # a small ViT and few images: a trial, also on a CPU

Weights are random, which costs the same time as trained ones. Images are JPEG files of about 115 kB, drawn here (or
those of the folder PHOTOS) and copied into ImageNet-R's layout. Training is rib's own: `FineTuner`,
`RIBDataModule` and Lightning's Trainer, batch size 64, bf16-mixed. The first steps are not counted, and the device is
synchronised at both ends.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import photographs
from benchmarks.side_by_side import machine, versions
from rib.config.shipped import READ_BY_RIB, shipped_nodes
from rib.data import catalog
from rib.data.datamodule import RIBDataModule
from rib.data.labels import LabelSpace
from rib.data.scan import scan
from rib.data.transform import Transform
from rib.methods.build import build_object
from rib.models.classifier import Classifier
from rib.scoring.score import score_all
from rib.training.acceleration import accelerate, fused
from rib.training.module import FineTuner

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISION = "bf16-mixed" if DEVICE.type == "cuda" else "32-true"
FUSED = fused({"_target_": "torch.optim.SGD"}, PRECISION)
METHODS = {"ewc": 1.08, "l2sp": 1.08, "spd": 1.15, "ftp": 1.15, "ema": 1.05}
"""By method, the largest time of a step over plain fine-tuning's that is asked for."""


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    network: str = "vit_base_patch16_224"
    options: tuple[tuple[str, int], ...] = ()
    side: int = 224
    files: int = 10_240
    drawn: int = 64
    batch: int = 64
    scoring_batch: int = 256
    warm_up: int = 20
    steps: int = 80
    scored: int = 5_120


FULL = Size()
TINY = Size(
    "vit_tiny_patch16_224", (("img_size", 32), ("depth", 2)), 32, files=32, drawn=4, batch=8, scoring_batch=16,
    warm_up=1, steps=2, scored=32,
)  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Milliseconds of a step, and peak memory in GiB (nan on a CPU), work before the first step included."""

    step: float
    peak: float


class OneBatch(L.LightningDataModule):
    """The same batch again and again, on the device already: a step without data."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.batches = [batch_of(size.batch, size.side, 200)] * (size.warm_up + size.steps)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of an epoch."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def source_images(self, count: int, seed: int, rank: int = 0, world: int = 1) -> tuple[Iterable[Any], int]:
        """One batch, for a Fisher."""
        images, labels, places = self.batches[0]
        return [(images, labels, places.cpu())], len(labels)


class Timer(L.Callback):
    """Takes the time of the steps after the first ones."""

    def __init__(self, size: Size) -> None:
        self.size, self.begun, self.ended = size, 0.0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, step: int) -> None:
        """Begin once the first steps are done."""
        if trainer.global_step == self.size.warm_up and not self.begun:
            self.begun = now()

    def on_train_end(self, *_: Any) -> None:
        """End once the device has done everything."""
        self.ended = now()

    @property
    def step(self) -> float:
        """Milliseconds of a step."""
        return 1000 * (self.ended - self.begun) / self.size.steps


def now() -> float:
    """Return the time in seconds, once the device has done what was asked of it."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def batch_of(images: int, side: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch of noise on the device: images, labels, positions."""
    noise = torch.randint(
        0, 256, (images, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return noise.to(DEVICE), (torch.arange(images) % classes).to(DEVICE), torch.arange(images).to(DEVICE)


def classifier(size: Size) -> Classifier:
    """Return rib's classifier with a network's random weights."""
    torch.manual_seed(0)
    return Classifier(timm.create_model(size.network, **dict(size.options)), (0.5,) * 3, (0.5,) * 3)


def link(root: Path, size: Size) -> None:
    """Draw a few images, and write them into ImageNet-R's layout until there are enough files."""
    wnids = catalog.real()["imagenet_r"].classes
    contents = []
    for _, image in itertools.islice(photographs.photographs(), size.drawn):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        contents.append(buffer.getvalue())
    for number, content in enumerate(itertools.islice(itertools.cycle(contents), size.files)):
        folder = root / "imagenet-r" / wnids[number % len(wnids)]
        folder.mkdir(parents=True, exist_ok=True)
        # Decoders stop at a JPEG's end; with a number behind it each file is another image to the cache.
        (folder / f"art_{number}.jpg").write_bytes(content + number.to_bytes(4, "little"))


def from_files(root: Path, size: Size, cached: bool) -> RIBDataModule:
    """Return the data module of the files, which keeps decoded images or not."""
    tree = scan(catalog.real()["imagenet_r"], root, allow_incomplete=True)
    transform = Transform(size.side, 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3)
    cache = root / "cache" if cached else None
    return RIBDataModule(tree, {"imagenet_r": tree}, transform, batch_size=size.batch, cache=cache)


def train(data: Any, size: Size, method: str | None = None, *, compiled: bool = False, steps: int = -1) -> Fit:
    """Train as rib does, and return the time of a step and the peak memory.

    Args:
        data: Lightning data module.
        size: The sizes.
        method: A method of conf/method, or None for plain fine-tuning.
        compiled: With ``torch.compile``.
        steps: Optimizer steps; -1: those of ``size``.
    """
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    timer = Timer(size)
    shipped: Any = shipped_nodes("method")[method] if method else {}
    node = {k: v for k, v in shipped.items() if k not in READ_BY_RIB["method"]}
    model = classifier(size)
    accelerate(model, compiled=compiled and DEVICE.type == "cuda", checkpointed=False, frozen_batch_norm=False)
    module = FineTuner(
        model,
        LabelSpace(catalog.real()["imagenet_r"].groups),
        functools.partial(torch.optim.SGD, momentum=0.9, **FUSED),
        lr=1e-3,
        warmup_steps=10,
    )
    callbacks = [*([build_object(node)] if node else []), timer]
    fit(module, data, PRECISION, size.warm_up + size.steps if steps < 0 else steps, callbacks)
    return Fit(timer.step, torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else float("nan"))


def fit(module: FineTuner, data: Any, precision: Any, steps: int, callbacks: list[Any]) -> None:
    """Train for some steps with Lightning's Trainer, which prints and writes nothing."""
    trainer = L.Trainer(
        accelerator="gpu" if DEVICE.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_steps=steps,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module.train()
    trainer.fit(module, datamodule=data)


def bare_step(size: Size) -> float:
    """Return the milliseconds of a step of a loop in plain PyTorch, without data: what the card can do."""
    model = classifier(size).to(DEVICE)
    images, labels, _ = batch_of(size.batch, size.side, 200)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, **FUSED)
    begun = 0.0
    for step in range(size.warm_up + size.steps):
        if step == size.warm_up:
            begun = now()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            loss = nn.functional.cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1000 * (now() - begun) / size.steps


def scored(model: nn.Module, batches: Iterable[Any], size: Size, precision: str, **options: Any) -> tuple[float, Any]:
    """Score all images of a few batches; return images per second and the predictions."""
    begun = now()
    made = score_all(
        [model], batches, LabelSpace(catalog.real()["imagenet_r"].groups), size.scored, device=DEVICE,
        precision=precision, **options,
    )  # fmt: skip
    assert made is not None
    return size.scored / (now() - begun), made[0]


def forward_alone(model: nn.Module, size: Size) -> float:
    """Return images per second of the forward pass in bf16, on a batch that is on the device."""
    images, *_ = batch_of(size.scoring_batch, size.side, 200)
    with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
        model(images)
        begun = now()
        for _ in range(count := max(1, size.scored // size.scoring_batch)):
            model(images)
    return count * size.scoring_batch / (now() - begun)


Row = tuple[str, str, str, bool]
"""What was measured, the measurement, what is asked for, and whether it holds."""


def training_rows(root: Path, size: Size) -> list[Row]:
    """Measure training from files and from the cache against the same step without data."""
    eager, compiled = train(OneBatch(size), size), train(OneBatch(size), size, compiled=True)
    cached = from_files(root, size, cached=True)
    first = train(cached, size)
    begun = now()
    count = sum(len(labels) for _, labels, _ in from_files(root, size, cached=False).train_dataloader())
    decoding = count / (now() - begun)
    for _ in cached.train_dataloader():  # the rest of the files
        pass
    rows = [
        row("first epoch from files", size.batch, first.step, eager.step, 0.9, f"decoding alone {decoding:.0f} img/s"),
        row("from the cache, eager", size.batch, train(cached, size).step, eager.step, 0.95),
        row("from the cache, compiled", size.batch, train(cached, size, compiled=True).step, compiled.step, 0.95),
    ]
    bare = row("rib's step without data", size.batch, eager.step, bare_step(size), 0.95, "of a bare loop")
    decode_bound = 1000 * size.batch / first.step >= 0.9 * decoding
    return [bare, (*rows[0][:3], rows[0][3] or decode_bound), *rows[1:]]


def row(claim: str, images: int, step: float, alone: float, at_least: float, more: str = "") -> Row:
    """Return the row of a step's time against that of a step without data."""
    share = alone / step
    said = f"{1000 * images / step:.0f} img/s of {1000 * images / alone:.0f}: {share:.2f}{'; ' * bool(more)}{more}"
    return f"training, {claim}", said, f"{at_least} of it", share >= at_least


def method_rows(size: Size) -> list[Row]:
    """Measure a step of each method, and EWC's memory, against plain fine-tuning's; plain is measured twice."""
    weights = sum(p.numel() for p in classifier(size).parameters()) * 4 / 2**30
    plain = train(OneBatch(size), size)
    fits = {name: train(OneBatch(size), size, name) for name in METHODS}
    again = train(OneBatch(size), size).step
    mean, rows = (plain.step + again) / 2, []
    for name, most in METHODS.items():
        ratio = fits[name].step / mean
        said = f"{fits[name].step:.1f} ms of {mean:.1f} ({plain.step:.1f}, {again:.1f}): {ratio:.2f}"
        rows.append((f"a step with {name}", said, f"at most {most}", ratio <= most))
    bound = 1.1 * plain.peak + 3 * weights
    said = f"{fits['ewc'].peak:.1f} GiB, plain {plain.peak:.1f}, weights {weights:.2f}"
    holds = fits["ewc"].peak <= bound
    return [*rows, ("peak memory of ewc, Fisher included", said, f"at most {bound:.1f} GiB", holds)]


def scoring_row(root: Path, size: Size) -> list[Row]:
    """Measure bf16 scoring from the cache against the forward pass alone."""
    model = classifier(size).to(DEVICE).eval()
    rate = max(scored(model, loaded(root, size), size, PRECISION)[0] for _ in range(2))
    alone = forward_alone(model, size)
    said = f"{rate:.0f} img/s of {alone:.0f}: {rate / alone:.2f}"
    return [("scoring in bf16 from the cache", said, "0.9 of it", rate / alone >= 0.9)]


def loaded(root: Path, size: Size) -> Iterable[Any]:
    """Yield batches of the first images from the cache."""
    data = from_files(root, size, cached=True)
    data.evaluation_batch_size = size.scoring_batch
    return itertools.islice(data.evaluation_loader("imagenet_r"), size.scored // size.scoring_batch)


def verified_row(root: Path, size: Size) -> list[Row]:
    """Measure ``verified`` against float32, both without files: all images are on the device already."""
    model = classifier(size).to(DEVICE).eval()
    images, labels, places = (torch.cat(column) for column in zip(*loaded(root, size), strict=True))
    images, labels = images.to(DEVICE), labels.to(DEVICE)

    def read(batches: Iterable[Any]) -> Iterable[Any]:
        return ((images[rows], labels[rows], places[rows]) for rows in map(torch.as_tensor, batches))

    plain = [range(i, i + size.scoring_batch) for i in range(0, size.scored, size.scoring_batch)]
    rates, found = {}, {}
    for precision, more in {"32-true": {}, "verified": {"read": read}}.items():
        scored(model, read(plain), size, precision, **more)  # kernels are chosen in the first pass
        rates[precision], found[precision] = scored(model, read(plain), size, precision, **more)
    ratio, share = rates["verified"] / rates["32-true"], found["verified"].verified["rescored"]
    differ = int((found["verified"].top5[:, 0] != found["32-true"].top5[:, 0]).sum())
    said = f"{rates['verified']:.0f} img/s of {rates['32-true']:.0f}: {ratio:.2f}; {100 * share:.1f} % scored again"
    return [
        ("scoring, verified against float32", said, "3 where at most 15 % are", ratio >= 3 or share > 0.15),
        ("scoring, verified: top-1", f"{differ} of {size.scored} differ", "none", differ == 0),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a small network and few images")
    size = TINY if parser.parse_args(arguments).tiny else FULL
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU: a trial, its numbers mean nothing"
    print(f"{name}; {machine()}; {versions()}\n{size.network}, batch {size.batch}, {size.files:,} files", flush=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    begun, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        link(Path(folder), size)
        parts: list[Callable[[], list[Row]]] = [
            lambda: training_rows(Path(folder), size),
            lambda: method_rows(size),
            lambda: scoring_row(Path(folder), size),
            lambda: verified_row(Path(folder), size),
        ]
        for part in parts:
            try:
                rows += part()
            except Exception as error:  # the other parts are measured all the same, as a GPU's time is short
                rows.append(("a part failed", f"{type(error).__name__}: {error}", "", False))
            print(f"{len(rows)} rows after {time.perf_counter() - begun:.0f} s", flush=True)
    print("\n| on one GPU | measured | asked for | |\n|---|---|---|---|")
    for claim, said, wanted, holds in rows:
        print(f"| {claim} | {said} | {wanted} | {'held' if holds else 'short'} |")


if __name__ == "__main__":
    main()
