"""Pretrain mini's models on their procedural images: the functions behind ``python -m rib.pretrain``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rib.config.command_schema import PretrainConfig

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


def draw_world(name: str, looks: list[str], images: int, outputs: list[int]) -> tuple[Tensor, Tensor]:
    """Draw all pretraining images of one of mini's models into memory, with their labels.

    Args:
        name: Name of the set of images, which seeds them.
        looks: Styles of the images, keys of `rib.data.mini.world.LOOKS`.
        images: N, the number of images.
        outputs: The model's output for each class of mini.

    Returns:
        Pixels, uint8 (N, 3, 48, 48), and output ids, int64 (N,).
    """
    import torch
    from rich.progress import track

    from rib.data.mini.arithmetic import SIDE
    from rib.data.mini.world import pretraining_image

    pixels = torch.empty(images, 3, SIDE, SIDE, dtype=torch.uint8)
    targets = torch.empty(images, dtype=torch.int64)
    for i in track(range(images), f"drawing the images for {name}"):
        picture, label = pretraining_image(name, looks, i)
        pixels[i] = torch.from_numpy(picture).permute(2, 0, 1)
        targets[i] = outputs[label]
    return pixels, targets


def flip_and_shift(images: Tensor, generator: Generator, shift: int = 4) -> Tensor:
    """Augment images with a random horizontal flip and a random shift of up to ``shift`` pixels either way.

    Args:
        images: Shape (B, 3, H, W).
        generator: CPU generator.
        shift: Largest shift, pixels; pixels at the border are repeated.

    Returns:
        Augmented images, same shape.
    """
    import torch
    from torch.nn.functional import pad

    count, _, height, width = images.shape
    flips = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    padded = pad(images, (shift,) * 4, mode="replicate")
    dy, dx = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(height))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


def batches(count: int, size: int, epochs: int, generator: Generator) -> Iterator[Tensor]:
    """Yield the image indices of each batch; every epoch is a new permutation, without an incomplete last batch."""
    import torch

    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator)[: count // size * size].view(-1, size)


def train(
    model: nn.Module,
    pixels: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> None:
    """Train a model in place with AdamW, 5 % linear warm-up, and cosine decay to zero.

    Args:
        model: Network from normalised images (B, 3, H, W) to logits.
        pixels: Images, uint8 (N, 3, H, W).
        targets: Output ids, int64 (N,).
        epochs: Passes over the images.
        batch_size: Images per batch.
        lr: Peak learning rate.
        weight_decay: AdamW's weight decay.
        seed: Seed of order and augmentation.
    """
    import torch
    from rich.progress import track

    generator = torch.Generator().manual_seed(seed)
    steps = len(pixels) // batch_size * epochs
    warmup = max(1, steps // 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup),
        ],
        milestones=[warmup],
    )
    model.train()
    for index in track(batches(len(pixels), batch_size, epochs, generator), "training", total=steps):
        images = flip_and_shift(pixels[index].float(), generator) / 127.5 - 1
        loss = torch.nn.functional.cross_entropy(model(images), targets[index])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    model.eval()


def pretrain(cfg: PretrainConfig) -> Path:
    """Pretrain one of mini's models: draw its images, train it, save it in float16, and return the file's path."""
    import torch
    from safetensors.torch import save_file

    from rib.data.mini import catalog
    from rib.data.mini.classes import CLASSES
    from rib.models.mini import build_mini
    from rib.models.mini_weights import weights_file

    node = cfg.pretrain
    torch.set_num_threads(cfg.threads)
    ids = {wnid: i for i, wnid in enumerate(catalog().outputs)}
    pixels, targets = draw_world(node.name, list(node.looks), node.images, [ids[c.wnid] for c in CLASSES])
    torch.manual_seed(cfg.seed)
    model = build_mini()
    train(
        model, pixels, targets,
        epochs=node.epochs, batch_size=cfg.batch_size, lr=cfg.lr, weight_decay=cfg.weight_decay, seed=cfg.seed,
    )  # fmt: skip
    file = Path(cfg.out) if cfg.out else weights_file(node.name)
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, str(file))
    file.chmod(0o644)  # safetensors writes with 0600, which a package must not ship
    return file
