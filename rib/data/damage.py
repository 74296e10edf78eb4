"""Find files that are no images, and JPEG files that are damaged although they can be decoded.

libjpeg fills in the parts that it cannot decode and prints a warning to standard error that does not name the file
(PIL suppresses even that). To know which file a warning is about, every file is decoded once on its own, in loader
processes whose standard error is redirected to a file, before anything is trained or scored. The results are saved
under the digest of the images, so no image is checked twice.

Damage that leaves the Huffman codes in step causes no warning. Measured on photographs: one flipped bit is detected in
1 of 9 files, 16 zeroed bytes in a third, 512 in 9 of 10, 4096 or a piece cut out in all; in progressive files 6 of 10.
The digest of the content (`rib.data.identity`) changes in all these cases. PNG has checksums, so that a damaged file
cannot be read at all; such files, empty ones and those of other kinds are found here before they stop a run.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from rib.data.decode import decode, decode_jpeg
from rib.data.tree import ImageTree
from rib.errors import RibError
from rib.runtime.console import rank, say
from rib.runtime.counting import plural
from rib.runtime.files import digest_of, write_atomically
from rib.runtime.memory import cores
from rib.runtime.progress import progress

JPEG_START = b"\xff\xd8"
STANDARD_ERROR = 2
UNREADABLE = "unreadable"
BATCH = 32
"""Images that a loader process checks between two updates of the progress bar."""

WORTH_A_PROCESS = 256
"""Images per loader process; starting a process takes as long as checking about this many."""

LARGE = 1_000_000
"""Datasets with more images are not checked unless asked for: a core checks about 600 images a second."""

NAMED = 3
"""Number of damaged files named in a message; `python -m rib.data action=look` lists all."""

Damage = dict[Path, str]
"""Description of the damage, by file."""


def report_damage(trees: Iterable[ImageTree], records: Path | None, damaged: str = "warn", again: bool = False) -> None:
    """Check datasets for damaged images on rank zero, and print a warning or raise an error if there are any.

    Args:
        trees: Datasets that are about to be read.
        records: Folder for saved results, or None to save none.
        damaged: ``warn``, ``refuse``, or ``ignore`` to check nothing. Datasets with more than `LARGE` images
            (ImageNet-C, ImageNet train) are checked with ``refuse`` only.
        again: Check all images again, even if results are saved.

    Raises:
        RibError: With ``refuse``, if an image is damaged or this torchvision cannot check JPEG files.
    """
    if damaged == "ignore" or rank() > 0:
        return
    if damaged == "warn" and not _can_check():
        return  # a run continues without the check; data.damaged=refuse is an error in find_damage
    chosen = [tree for tree in trees if damaged == "refuse" or len(tree) <= LARGE]
    damage = find_damage(chosen, records, again)
    if not damage:
        return
    named = ", ".join(f"{file} ({what})" for file, what in list(damage.items())[:NAMED])
    more = f" and {len(damage) - NAMED:,} more" if len(damage) > NAMED else ""
    sentence = f"{plural(len(damage), 'damaged image')}: {named}{more}; replace from the archive"
    if damaged == "refuse":
        raise RibError(f"data.damaged=refuse: {sentence}, or continue with data.damaged=warn")
    unreadable = any(what.startswith(UNREADABLE) for what in damage.values())
    then = (
        "a run stops where it reads an unreadable one"
        if unreadable
        else ("libjpeg fills in the parts that it cannot decode")
    )
    _say_once(f"{sentence}, or stop at damaged images with data.damaged=refuse ({then})")


def find_damage(trees: Iterable[ImageTree], records: Path | None = None, again: bool = False) -> Damage:
    """Return all damaged files of some datasets, in path order.

    Args:
        trees: Datasets or subsets of them; an image that is in several is checked once.
        records: Folder for saved results, or None to save none.
        again: Check all images again, even if results are saved.

    Raises:
        RibError: If this torchvision has no JPEG decoder.
    """
    if not _can_check():
        raise RibError("checking for damaged images: expected a torchvision with a JPEG decoder, got one without")
    damage: Damage = {}
    done: list[ImageTree] = []
    # Largest first: a subset then finds all its images among those of its whole dataset.
    for tree in sorted(trees, key=len, reverse=True):
        record = None if records is None else records / f"damage-{tree.spec.name}-{_digest(tree)}.json"
        known = None if record is None or again else _read(record)
        if known is None:
            seen = {path for other in done if other.folder == tree.folder for path in other.paths}
            fresh = _warnings_of(tree, [path for path in tree.paths if path not in seen])
            known = {p: what for p in tree.paths if (what := fresh.get(p) or damage.get(tree.folder / p))}
            if record is not None:
                write_atomically(record, json.dumps(known, indent=1).encode())
        damage |= {tree.folder / path: what for path, what in known.items()}
        done.append(tree)
    return dict(sorted(damage.items()))


def _can_check() -> bool:
    try:
        from torchvision.io import decode_jpeg  # noqa: F401
    except ImportError:
        return False
    return True


@cache  # several runs of one process may read the same datasets
def _say_once(sentence: str) -> None:
    say(sentence)


def _digest(tree: ImageTree) -> str:
    return digest_of([str(tree.folder.resolve()), tree.digest])


def _read(record: Path) -> dict[str, str] | None:
    try:
        saved = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None
    return saved if isinstance(saved, dict) else None


def _warnings_of(tree: ImageTree, paths: Sequence[str]) -> dict[str, str]:
    """Decode the images at some paths and return libjpeg's warning for each damaged one, by path."""
    loader = DataLoader(
        _Warnings(tree.folder, paths),
        batch_size=BATCH,
        num_workers=min(cores(), 1 + len(paths) // WORTH_A_PROCESS),
        collate_fn=list,
        worker_init_fn=_capture_standard_error,
    )
    damage: dict[str, str] = {}
    with progress(f"checking {tree.spec.title} for damage", len(paths)) as advance:
        for batch in loader:
            damage |= {path: what for path, what in batch if what}
            advance(len(batch), "")
    return damage


class _Warnings(Dataset[tuple[str, str]]):
    """Torch dataset that decodes each file and returns its path and libjpeg's warning, empty if it is intact."""

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self.folder = folder
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.paths[index], _warning(self.folder / self.paths[index])


def _capture_standard_error(worker: int) -> None:
    """Redirect a loader process's standard error to a temporary file, where `_warning` reads libjpeg's warnings."""
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), STANDARD_ERROR)
    warnings.simplefilter("ignore")  # Python's warnings would be taken for libjpeg's


def _warning(file: Path) -> str:
    """Describe the damage of a file; empty if there is none."""
    try:
        content = file.read_bytes()
    except OSError:
        return ""
    if not content.startswith(JPEG_START):
        return _describe_unreadable(content)
    start = os.fstat(STANDARD_ERROR).st_size
    try:
        decode_jpeg(content)  # torchvision's, since PIL suppresses libjpeg's warnings
    except RuntimeError:
        return _describe_unreadable(content) or "torchvision cannot read it, PIL fills in a part"
    size = os.fstat(STANDARD_ERROR).st_size - start
    printed = os.pread(STANDARD_ERROR, size, start).decode(errors="replace")
    return " ".join(printed.removeprefix("Corrupt JPEG data: ").split())


def _describe_unreadable(content: bytes) -> str:
    try:
        decode(content)
    except Exception as error:
        return f"{UNREADABLE}: {' '.join(str(error).split())}"
    return ""
