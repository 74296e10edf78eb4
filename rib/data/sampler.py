"""The order of training images, a function of seed and epoch, which can begin in the middle of an epoch.

Lightning goes on in mid-epoch by counting batches, but a plain shuffled loader then replays other images. Here the
order of an epoch is drawn from (seed, epoch) alone, so a resumed fit sees exactly the batches that were left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from rib.runtime.files import digest_of
from rib.runtime.processes import check_share


class EpochBatches(Sampler[list[int]]):
    """Batches of image indices, each tagged as ``epoch * N + place``; processes share the same global batches.

    Rank r takes the places r, r + world, ... of each global batch. A last batch with fewer images than processes is
    filled up from the epoch's beginning, since every process must take part in every step; what fills up counts
    nothing. A last batch that the processes cannot share evenly is shared unevenly. `weight` makes every image of a
    step count the same all the same.

    Args:
        num_images: N.
        batch_size: Images in a global batch.
        seed: With the epoch, what determines the order.
        rank: This process.
        world: Number of processes.

    Raises:
        ValueError: If the global batch cannot be split evenly.
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
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it at the start of each."""
        self.epoch = epoch

    def start_at(self, epoch: int, batches_done: int) -> None:
        """Begin the next iteration in mid-epoch."""
        self.epoch, self._skip = epoch, batches_done

    def order(self) -> list[int]:
        """All indices in the order of this epoch."""
        generator = torch.Generator().manual_seed(int(digest_of(["order", self.seed, self.epoch])[:15], 16))
        return torch.randperm(self.num_images, generator=generator).tolist()

    def size(self, number: int) -> int:
        """Images of a global batch, without what fills it up."""
        return min(self.batch_size, self.num_images - number * self.batch_size)

    def share(self, number: int) -> int:
        """Images of a global batch that are this process's; 0 if all it has fills up."""
        return len(range(self.rank, self.size(number), self.world))

    def smallest_share(self) -> int:
        """Images, with what fills up, that some process is given in the smallest batch of an epoch."""
        return max(1, self.size(len(self) - 1) // self.world)

    def weight(self, number: int, accumulate: int = 1, batches: int | None = None) -> float:
        """What to multiply a batch's mean loss by, so that a step follows the mean over all images of its batches.

        A trainer divides each batch's loss by ``accumulate``, whatever an epoch's last group of batches holds, and
        takes the mean over processes, whatever each of them has. Weights of a group, so divided, sum to 1.

        Args:
            number: Of the batch in its epoch, from 0.
            accumulate: Batches whose gradients are added before a step; groups begin with the epoch.
            batches: After which the epoch ends; None: all.

        Returns:
            accumulate * world * images of this process / images of the group over all processes; 1 exactly where all
            batches of a group are full and shared evenly.
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
            # Tagged with the epoch, which seeds augmentation (`rib.data.dataset.Images`).
            yield [epoch * self.num_images + place for place in batch[self.rank :: self.world]]
