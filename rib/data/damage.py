"""JPEG files that can be read although they are damaged: a second look, once an image, says which they are.

libjpeg makes up what it cannot read, and all that is heard of it is a line on the process's standard error that names
no file (PIL keeps even that to itself). A line can be laid to a file only where nothing else decodes or prints. So each
file is decoded alone, in loader processes whose standard error is a file of their own, before anything trains or is
scored; what was found is kept by the digest of the images, so that no image is looked at twice.

Nobody sees what leaves the stream of Huffman codes in step: measured on photographs, one flipped bit is heard of in 1
of 9 files, 16 zeros in a third, 512 zeros in 9 of 10, a piece cut out or 4096 zeros in all; in progressive files 6 of
10. Identity by content (`data.identity`) is what sees those. PNG needs no look: its checksums make a damaged one
unreadable.
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
from rib.runtime.files import digest_of, write_atomically
from rib.runtime.memory import cores
from rib.runtime.progress import progress

JPEG_START = b"\xff\xd8"
STANDARD_ERROR = 2
BATCH = 32
"""Images that a loader process looks at between two reports."""

WORTH_A_PROCESS = 256
"""Images; starting a process takes as long as looking at about so many."""

LARGE = 1_000_000
"""Images that are too many to be looked at unasked: a core looks at about 600 a second."""

NAMED = 3
"""Files that a sentence names; `python -m rib.data action=look` names all."""

Damage = dict[Path, str]
"""What is wrong, by file."""


def report_damage(trees: Iterable[ImageTree], records: Path | None, damaged: str = "warn", again: bool = False) -> None:
    """Say once which images are damaged, or refuse them; from rank zero alone.

    Args:
        trees: Datasets that are about to be read.
        records: Folder that keeps what was found, or None.
        damaged: ``warn``; ``refuse``; or ``ignore``, to look at nothing. What has more than `LARGE` images
            (ImageNet-C, ImageNet train) is looked at by ``refuse`` alone.
        again: Look again although it is known.

    Raises:
        RibError: If an image is damaged and ``damaged`` is ``refuse``, or nothing can be looked at then.
    """
    if damaged == "ignore" or rank() > 0:
        return
    if damaged == "warn" and not _can_look():
        return
    chosen = [tree for tree in trees if damaged == "refuse" or len(tree) <= LARGE]
    found = find_damage(chosen, records, again)
    if not found:
        return
    named = ", ".join(f"{file} ({what})" for file, what in list(found.items())[:NAMED])
    more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    sentence = f"{len(found):,} damaged image{'s' * (len(found) > 1)}: {named}{more}; replace from the archive"
    if damaged == "refuse":
        raise RibError(f"data.damaged=refuse: {sentence}, or go on with data.damaged=warn")
    _say_once(f"{sentence}, or let data.damaged=refuse stop here (what is missing of them is made up by libjpeg)")


def find_damage(trees: Iterable[ImageTree], records: Path | None = None, again: bool = False) -> Damage:
    """Every damaged JPEG file of some datasets, in path order.

    Args:
        trees: Datasets or parts of them; an image in several is looked at once.
        records: Folder that keeps what was found, or None.
        again: Look again although it is known.

    Raises:
        RibError: If this torchvision has no JPEG decoder.
    """
    if not _can_look():
        raise RibError("damaged images: expected a torchvision with a JPEG decoder, whose libjpeg says what is wrong")
    found: Damage = {}
    done: list[ImageTree] = []
    for tree in sorted(trees, key=len, reverse=True):
        record = None if records is None else records / f"damage-{tree.spec.name}-{_digest(tree)}.json"
        known = None if record is None or again else _read(record)
        if known is None:
            seen = {path for other in done if other.folder == tree.folder for path in other.paths}
            fresh = _complaints(tree, [path for path in tree.paths if path not in seen])
            known = {p: what for p in tree.paths if (what := fresh.get(p) or found.get(tree.folder / p))}
            if record is not None:
                write_atomically(record, json.dumps(known, indent=1).encode())
        found |= {tree.folder / path: what for path, what in known.items()}
        done.append(tree)
    return dict(sorted(found.items()))


def _can_look() -> bool:
    try:
        from torchvision.io import decode_jpeg  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def _say_once(sentence: str) -> None:
    say(sentence)


def _digest(tree: ImageTree) -> str:
    return digest_of([str(tree.folder.resolve()), tree.digest])


def _read(record: Path) -> dict[str, str] | None:
    try:
        kept = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def _complaints(tree: ImageTree, paths: Sequence[str]) -> dict[str, str]:
    """What libjpeg says of each file that it finds fault with."""
    loader = DataLoader(
        _Looks(tree.folder, paths),
        batch_size=BATCH,
        num_workers=min(cores(), 1 + len(paths) // WORTH_A_PROCESS),
        collate_fn=list,
        worker_init_fn=_listen,
    )
    found: dict[str, str] = {}
    with progress(f"looking at {tree.spec.title}", len(paths)) as advance:
        for batch in loader:
            found |= {path: what for path, what in batch if what}
            advance(len(batch), "")
    return found


class _Looks(Dataset[tuple[str, str]]):
    """Paths of files in a folder, and what libjpeg says of each."""

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self.folder = folder
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[str, str]:
        return self.paths[place], _complaint(self.folder / self.paths[place])


def _listen(worker: int) -> None:
    """Give a loader process, which does nothing but look, a standard error that can be read."""
    with tempfile.TemporaryFile() as ear:
        os.dup2(ear.fileno(), STANDARD_ERROR)
    warnings.simplefilter("ignore")  # Python's would be heard as well


def _complaint(file: Path) -> str:
    """What is wrong with a JPEG file, or nothing; any other file is left to whoever reads it."""
    try:
        with file.open("rb") as stream:
            if stream.read(len(JPEG_START)) != JPEG_START:
                return ""
            content = JPEG_START + stream.read()
    except OSError:
        return ""
    before = os.fstat(STANDARD_ERROR).st_size
    try:
        decode_jpeg(content)
    except RuntimeError:
        return _why_unreadable(content)
    size = os.fstat(STANDARD_ERROR).st_size - before
    heard = os.pread(STANDARD_ERROR, size, before).decode(errors="replace")
    return " ".join(heard.removeprefix("Corrupt JPEG data: ").split())


def _why_unreadable(content: bytes) -> str:
    try:
        decode(content)
    except Exception as error:
        return f"unreadable: {error}"
    return "torchvision cannot read it, PIL makes up a part"
