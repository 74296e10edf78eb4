"""Cache of decoded images: what a checkpoint's evaluation transform makes of a file is the same in every epoch.

Crops are kept on disk, uint8, in one file for each dataset and geometry (`rib.data.crop_file`), shared by all models of
that geometry and all processes; mean and std are applied by the model. The file grows while the first epoch or scoring
runs. An image is found by the digest of its file's content, which is compared with the bytes that are decoded. So
subsets share the file of their dataset, and a changed image never meets an old crop. Small datasets (all of mini) are
held in memory as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.filesize import decimal
from torch import Tensor
from torch.utils.data import get_worker_info

from rib.data.crop_file import FULL, CropFile
from rib.data.crop_room import SUFFIX, Room, parse_limit
from rib.data.transform import Transform, crop, file_errors
from rib.data.tree import ImageTree
from rib.runtime.console import say_once
from rib.runtime.files import digest_of
from rib.runtime.memory import cores
from rib.runtime.progress import progress

IN_MEMORY = 256 * 2**20
"""Largest dataset, bytes of its crops, that is decoded at once and held in memory."""

CHUNK = 256
"""Images that are decoded before they are added to the file, where a whole dataset is decoded."""


@dataclass(frozen=True)
class CropCache:
    """Folder of the decoded images, and the limit of its size.

    Attributes:
        folder: Folder of the files.
        limit: Bytes that they may take in all, 0 for no files; None: as `rib.data.crop_room` says, and no ImageNet-C,
            which alone would take 560 GB.
    """

    folder: Path
    limit: int | None = None

    @classmethod
    def of(cls, folder: Path | None, limit: str | int) -> CropCache | None:
        """Return the cache that the option ``data.cache`` describes; None without a folder.

        Args:
            folder: Folder of the files.
            limit: ``auto``, ``off``, or a number of bytes such as ``60000000000`` or ``60GB``.

        Raises:
            RibError: If the limit is none of these.
        """
        size = parse_limit(limit)
        return None if folder is None else cls(folder, size)

    def file(self, tree: ImageTree, transform: Transform, backend: str) -> CropFile | None:
        """Return the file for a dataset's crops, which may not exist yet; None if the dataset is not cached.

        Args:
            tree: The dataset, or any part of it.
            transform: The checkpoint's evaluation transform.
            backend: ``torchvision`` or ``pil``.
        """
        size = 3 * transform.size**2
        if self.limit == 0 or (self.limit is None and tree.spec.cells and len(tree) * size > IN_MEMORY):
            return None
        geometry = {name: value for name, value in asdict(transform).items() if name not in ("mean", "std")}
        decoders = [version(package) for package in ("torchvision", "pillow")]  # versions differ in pixels
        spec = tree.spec
        name = f"{spec.name}-{digest_of([geometry, backend, spec.border, spec.precropped, decoders])}{SUFFIX}"
        return CropFile(self.folder / name, size, Room.of(self.folder, self.limit))


class Crops:
    """The crops of a dataset's images, from the cache or decoded; threads and processes may read at the same time.

    Args:
        tree: Paths and labels of the images.
        transform: The checkpoint's evaluation transform.
        backend: ``torchvision`` or ``pil``.
        cache: Where crops are kept; None: nowhere, not in memory either, and every image is decoded every time.

    Raises:
        RibError: If images were changed after this command began.
    """

    def __init__(self, tree: ImageTree, transform: Transform, backend: str, cache: CropCache | None = None) -> None:
        self.tree = tree
        self.transform = transform
        self.backend = backend
        self._fits_memory = cache is not None and len(tree) * 3 * transform.size**2 <= IN_MEMORY
        self._file = None if cache is None else cache.file(tree, transform, backend)
        self._keys = [] if self._file is None else tree.image_keys()
        if self._file is not None and not self._fits_memory and not self._file.path.exists():
            room = self._file.room
            say_once(
                f"decoded images are kept in {room.folder}, {decimal(room.limit)} at most; data.cache=off keeps none, "
                "data.cache=BYTES sets the limit"
            )

    def kept(self) -> bool:
        """Return True if all images are in the cache now."""
        if self._file is None:
            return False
        self._file.used()
        return self._file.holds(self._keys)

    def in_memory(self) -> Tensor | None:
        """Return all crops, uint8 (N, 3, S, S), decoded where they are not kept; None where they exceed `IN_MEMORY`.

        Raises:
            RibError: If an image cannot be read, or was changed after this command began.
        """
        if not self._fits_memory:
            return None
        crops = self._empty(len(self.tree))
        missing = list(range(len(crops)))
        if self._file is not None:
            self._file.used()
            missing = self._file.read(self._keys, crops.view(len(crops), -1).numpy())
        if missing:
            self._decode_all(missing, crops)
            self.say_trouble()
        return crops

    def read(self, positions: Sequence[int]) -> Tensor:
        """Return crops by their positions in the dataset; those that were not kept yet are decoded, and then kept.

        Args:
            positions: B positions.

        Returns:
            uint8 (B, 3, S, S), in pinned memory in the main process of a machine with a GPU.

        Raises:
            RibError: If an image cannot be read, or was changed after this command began.
        """
        # Read into pinned memory by whoever hands the batch to the GPU, with no copy in between.
        crops = self._empty(len(positions), pinned=torch.cuda.is_available() and get_worker_info() is None)
        if self._file is None:
            for i, position in enumerate(positions):
                crops[i] = self._decode(position)
            return crops
        keys = [self._keys[position] for position in positions]
        pixels = crops.view(len(crops), -1).numpy()
        missing = self._file.read(keys, pixels)
        for i in missing:
            crops[i] = self._decode(positions[i])
        if missing:
            self._file.add([keys[i] for i in missing], [pixels[i] for i in missing])
        return crops

    def say_trouble(self) -> None:
        """Say once if crops are no longer kept, and why; loader processes leave that to the main process."""
        reason = 0 if self._file is None else self._file.stopped
        if not reason:
            return
        assert self._file is not None, "only a file has stopped"
        room = self._file.room
        if reason == FULL:
            say_once(
                f"the decoded images in {room.folder} have reached {decimal(room.limit)}; further ones are decoded "
                "each time, unless data.cache=BYTES allows more"
            )
        else:
            say_once(f"no more decoded images are kept in {room.folder} ({os.strerror(reason)}); the run goes on")

    def _empty(self, count: int, pinned: bool = False) -> Tensor:
        return torch.empty((count, 3, self.transform.size, self.transform.size), dtype=torch.uint8, pin_memory=pinned)

    def _decode(self, position: int) -> Tensor:
        spec, path = self.tree.spec, self.tree.folder / self.tree.paths[position]
        with file_errors(path):
            content = path.read_bytes()
            image = crop(content, self.transform, self.backend, spec.border, spec.precropped)
        if self._keys and self.tree.image_key(position, content) != self._keys[position]:
            raise self.tree.changed()
        return image

    def _decode_all(self, positions: Sequence[int], crops: Tensor) -> None:
        """Decode images into their rows of ``crops``, and keep them."""

        def decode(position: int) -> None:
            crops[position] = self._decode(position)

        pixels = crops.view(len(crops), -1).numpy()
        # Threads suffice: the decoders release Python's lock.
        with (
            progress(f"decoding {self.tree.spec.title}", len(positions)) as advance,
            ThreadPoolExecutor(cores()) as pool,
        ):
            for first in range(0, len(positions), CHUNK):
                part = positions[first : first + CHUNK]
                for _ in pool.map(decode, part):
                    advance(1, "")
                if self._file is not None:
                    self._file.add([self._keys[i] for i in part], [pixels[i] for i in part])
