"""Batch sampler whose order of training images is a function of seed and epoch, and which can start in mid-epoch.

Lightning resumes in mid-epoch by counting batches, but a plain shuffled loader then yields other images. Here the
order of an epoch depends on (seed, epoch) alone, so a resumed fit gets exactly the remaining batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from rib.runtime.files import digest_of
from rib.runtime.processes import check_share


class EpochBatches(Sampler[list[int]]):
    """Batch sampler for one process: yields lists of image indices, each encoded as ``epoch * N + position``.

    Processes share the same global batches: rank r takes the images r, r + world, ... of each. If the last batch of an
    epoch does not divide evenly, ranks get different numbers of images; if it has fewer images than there are ranks, it
    is padded with images from the start of the epoch, since DDP needs every rank in every step. `weight` gives the
    factor for the loss with which every image of a step counts equally, and padding does not count.

    Args:
        num_images: N, the images of an epoch.
        batch_size: Images in a global batch, over all processes.
        seed: Seed that, with the epoch, determines the order.
        rank: Index of this process.
        world: Number of processes.

    Raises:
        ValueError: If ``world`` does not divide ``batch_size``.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        check_share(batch_size, world)
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self._skip = 0

    @property
    def sampler(self) -> EpochBatches:
        """This object itself, under the name where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def start_at(self, epoch: int, batches_done: int) -> None:
        """Let the next iteration begin in the given epoch, after the given number of batches already done."""
        self.epoch, self._skip = epoch, batches_done

    def order(self) -> list[int]:
        """Return the positions of all N images in the random order of the current epoch."""
        generator = torch.Generator().manual_seed(int(digest_of(["order", self.seed, self.epoch])[:15], 16))
        return torch.randperm(self.num_images, generator=generator).tolist()

    def size(self, number: int) -> int:
        """Return the number of images in batch ``number`` (from 0), over all processes, without padding."""
        return min(self.batch_size, self.num_images - number * self.batch_size)

    def share(self, number: int) -> int:
        """Return the number of images of batch ``number`` that this process gets, without padding; may be 0."""
        return len(range(self.rank, self.size(number), self.world))

    def smallest_share(self) -> int:
        """Return the smallest number of images that any process gets in a step of an epoch, with padding."""
        return max(1, self.size(len(self) - 1) // self.world)

    def weight(self, number: int, accumulate: int = 1, batches: int | None = None) -> float:
        """Return the factor for a batch's mean loss that makes every image of an optimizer step count equally.

        Lightning divides each batch's loss by ``accumulate`` even if the epoch's last group has fewer batches, and DDP
        averages gradients over processes even if their numbers of images differ. The factor undoes both: a group's
        factors, so divided and averaged, sum to 1.

        Args:
            number: Index of the batch in its epoch, from 0.
            accumulate: Batches whose gradients are added before a step; groups start with the epoch.
            batches: Number of batches in the epoch if it is cut short, else None.

        Returns:
            ``accumulate * world * images of this process / images of the group over all processes``; exactly 1 if all
            batches of the group are full and evenly shared.
        """
        first = number - number % accumulate
        end = min(first + accumulate, len(self) if batches is None else batches)
        group = sum(map(self.size, range(first, end)))
        return accumulate * self.world * self.share(number) / group

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = self.epoch, self.order()
        first, self._skip = self._skip, 0
        for number in range(first, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            while len(batch) < self.world:
                batch = (batch + order)[: self.world]
            # The epoch goes along in the index since augmentation is seeded with it (`rib.data.dataset.Images`).
            yield [epoch * self.num_images + position for position in batch[self.rank :: self.world]]
