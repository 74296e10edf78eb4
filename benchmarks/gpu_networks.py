"""Benchmark of a GPU: images per second of training and scoring from files, for every network in conf/model.

    python -m benchmarks.gpu_networks measure PHOTOS OUT.jsonl   # 6 minutes on an H200; PHOTOS holds JPEGs
    python -m benchmarks.gpu_networks collect OUT.jsonl          # -> docs/measured/gpu.csv
    python -m benchmarks.gpu_networks table                      # the tables of docs/howto/cost.md

Weights are random, which costs the same time as trained ones. The photographs are linked many times into the layout of
ImageNet-R, and read, decoded and cropped for every batch, as in a run that is larger than its cache of images.
Training is rib's own: `FineTuner`, `RIBDataModule` and Lightning's Trainer, batch size 64, bf16-mixed. The first steps
are not counted, and the device is synchronised at both ends.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "docs" / "measured" / "gpu.csv"

NETWORKS = {
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-B/32": "vit_base_patch32_224",
    "ViT-L/14": "vit_large_patch14_clip_224",
    "ViT-L/16": "vit_large_patch16_224",
    "ViT-S/16": "vit_small_patch16_224",
    "ViT-S/32": "vit_small_patch32_224",
    "ResNet-18": "resnet18",
    "ResNet-50": "resnet50",
    "ResNet-101": "resnet101",
    "EfficientNet-lite0": "tf_efficientnet_lite0",
}
"""timm's name of each network that a file in conf/model names; open_clip's networks of one name cost the same."""

METHODS = ("ewc", "l2sp", "lwf", "ldifs", "spd", "ftp", "surgical", "lora", "linear_probe", "visual_prompt", "ema")
"""Methods measured with the first network."""

WARM_UP, STEPS, BATCH = 30, 90, 64

OBJECTNET = 18_574
"""Images of ObjectNet that are in ImageNet's classes."""


def link(photos: Path, root: Path, count: int) -> None:
    """Link photographs into ImageNet-R's layout until there are ``count`` files."""
    from rib.data import catalog

    wnids = catalog.real()["imagenet_r"].classes
    files = sorted(f for f in photos.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
    for number, file in enumerate(itertools.islice(itertools.cycle(files), count)):
        folder = root / "imagenet-r" / wnids[number % len(wnids)]
        folder.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / f"photo_{number}.jpg")


def classifier(network: str) -> Any:
    """Return rib's classifier with a network's random weights."""
    import timm

    from rib.models.classifier import Classifier

    return Classifier(timm.create_model(network, num_classes=1000), (0.5,) * 3, (0.5,) * 3)


def data_module(root: Path) -> Any:
    """Return the data module of the linked images, with rib's defaults for batch sizes and workers."""
    from rib.data import catalog
    from rib.data.datamodule import RIBDataModule
    from rib.data.scan import scan
    from rib.data.transform import Transform

    tree = scan(catalog.real()["imagenet_r"], root, allow_incomplete=True)
    transform = Transform(224, 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return RIBDataModule(tree, {"imagenet_r": tree}, transform, batch_size=BATCH)


def train(network: str, data: Any, method: str | None, device: Any) -> dict[str, float]:
    """Return images per second and peak memory of training; a method's work before the first step is told apart."""
    import lightning.pytorch as L
    import torch

    from benchmarks.gpu import fit
    from rib.config.shipped import READ_BY_RIB, shipped_nodes
    from rib.data.labels import LabelSpace
    from rib.methods.build import build_object
    from rib.training.module import FineTuner

    class Timer(L.Callback):
        fit_begun = begun = ended = 0.0

        def on_fit_start(self, *_: Any) -> None:
            self.fit_begun = now(device)

        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, step: int) -> None:
            if step == 0:
                self.preparation = now(device) - self.fit_begun
            if step == WARM_UP:
                self.begun = now(device)

        def on_train_end(self, *_: Any) -> None:
            self.ended = now(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timer = Timer()
    node = shipped_nodes("method")[method] if method else {}
    methods = [build_object({k: v for k, v in node.items() if k not in READ_BY_RIB["method"]})] if node else []
    module = FineTuner(
        classifier(network),
        LabelSpace(data.source.spec.groups),
        functools.partial(torch.optim.SGD, momentum=0.9),
        lr=1e-3,
        warmup_steps=10,
    )
    fit(module, data, "bf16-mixed", WARM_UP + STEPS, [*methods, timer])
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    rate = STEPS * BATCH / (timer.ended - timer.begun)
    return {"images_per_second": rate, "peak_gib": peak, "preparation_seconds": timer.preparation}


def score(network: str, data: Any, precision: str, images: int, device: Any) -> dict[str, float]:
    """Return images per second of scoring, without the first batch."""
    import torch

    from rib.data.labels import LabelSpace
    from rib.scoring.score import score_all

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun: list[float] = []

    def batches() -> Iterator[Any]:
        for number, (batch, labels, _) in enumerate(
            itertools.islice(data.evaluation_loader("imagenet_r"), images // 256 + 1)
        ):
            if number == 1:
                begun.append(now(device))
            yield batch, labels, torch.arange(number * 256, number * 256 + len(labels))

    space = LabelSpace(data.source.spec.groups)
    total = 256 * (images // 256 + 1)
    score_all([classifier(network).to(device)], batches(), space, total, device=device, precision=precision)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return {"images_per_second": (total - 256) / (now(device) - begun[0]), "peak_gib": peak}


def now(device: Any) -> float:
    """Return the time in seconds, once the device has done what was asked of it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(photos: Path, out: Path) -> None:
    """Measure all networks and methods, and append a JSON line for each as soon as it is there."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    small = device.type == "cpu"

    def note(**row: Any) -> None:
        line = json.dumps({"device": name, **row})
        print(line, flush=True)
        with out.open("a") as file:
            file.write(line + "\n")

    with tempfile.TemporaryDirectory(dir=photos.parent) as folder:
        link(photos, Path(folder), max((WARM_UP + STEPS) * BATCH, 10_240 if not small else 512))
        data = data_module(Path(folder))
        first = next(iter(NETWORKS.values()))
        jobs: list[tuple[str, str, Any]] = [(label, n, None) for label, n in NETWORKS.items()]
        jobs += [(next(iter(NETWORKS)), first, method) for method in METHODS]
        for label, network, method in jobs:
            try:
                note(network=label, work="train", method=method or "finetune", **train(network, data, method, device))
                if method is None:
                    for precision in ("32-true", "bf16-mixed"):
                        images = 2_560 if precision == "32-true" and "ViT-L" in label else 5_120
                        note(
                            network=label,
                            work="score",
                            precision=precision,
                            **score(network, data, precision, 256 if small else images, device),
                        )
            except Exception as error:
                note(network=label, method=method, error=f"{type(error).__name__}: {error}")


def collect(lines: Path) -> None:
    """Write the measured lines to docs/measured/gpu.csv, which the documentation's tables are made from."""
    columns = ("device", "network", "work", "method", "precision")
    numbers = {"images_per_second": 0, "peak_gib": 1, "preparation_seconds": 1}
    rows = [row for line in lines.read_text().splitlines() if "error" not in (row := json.loads(line))]
    with MEASURED.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *numbers], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: f"{row[name]:.{digits}f}" for name, digits in numbers.items() if name in row})


def measured(**wanted: str) -> dict[str, str]:
    """Return the row of docs/measured/gpu.csv with the given values."""
    with MEASURED.open() as file:
        return next(row for row in csv.DictReader(file) if all(row[name] == value for name, value in wanted.items()))


def hours_table() -> str:
    """Return the Markdown table of GPU hours a network and source: plain fine-tuning for 10 epochs, then scoring."""
    import yaml

    from rib.config.shipped import conf_dir
    from rib.data import catalog

    epochs = yaml.safe_load((Path(conf_dir()) / "train.yaml").read_text())["recipe"]["user"]["epochs"]
    specs = catalog.real()
    sources = ["imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch"]
    sources += ["imagenet_cartoon", "imagenet_drawing"]
    sizes = {name: specs[name].num_images for name in (*sources, "imagenet_val")}
    # ObjectNet may not be trained on; its releases differ, and this is its number of images of ImageNet's classes.
    scored = OBJECTNET + sum(size or 0 for size in sizes.values())
    titles = [specs[name].title.removeprefix("ImageNet-") for name in sources]
    lines = [
        ["network", "train, images/s", "score, images/s", "peak GiB", "before", *titles, "all six"],
        ["---"] * (len(sources) + 6),
    ]
    for network in NETWORKS:
        fit = measured(network=network, work="train", method="finetune")
        rate = float(measured(network=network, work="score", precision="32-true")["images_per_second"])
        before = scored / rate / 3600
        hours = [epochs * (n or 0) / float(fit["images_per_second"]) / 3600 + before for n in map(sizes.get, sources)]
        cells = [before, *hours, before + sum(hours)]
        numbers = [fit["images_per_second"], f"{rate:.0f}", fit["peak_gib"]]
        lines.append([network, *numbers, *(f"{cell:.2f}" for cell in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def methods_table() -> str:
    """Return the Markdown table of the cost of a training step of each method, relative to plain fine-tuning."""
    network = next(iter(NETWORKS))
    plain = float(measured(network=network, work="train", method="finetune")["images_per_second"])
    lines = [["method", "images/s", "time of an epoch", "peak GiB"], ["---"] * 4]
    for method in ("finetune", *METHODS):
        row = measured(network=network, work="train", method=method)
        ratio = plain / float(row["images_per_second"])
        lines.append([f"`{method}`", row["images_per_second"], f"{ratio:.2f}", row["peak_gib"]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Run the action that the first argument names."""
    match sys.argv[1:]:
        case ["measure", photos, out]:
            measure(Path(photos), Path(out))
        case ["collect", lines]:
            collect(Path(lines))
        case ["table"]:
            print(hours_table())
            print(methods_table())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
