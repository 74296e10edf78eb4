"""``python -m rib.data init FOLDER``: write the suite's file of a folder of images."""

from __future__ import annotations

import shlex
from pathlib import Path

from rib.data.suites.found import Found
from rib.data.suites.inspect_folder import inspect_folder
from rib.data.suites.suite_file import load_suite
from rib.data.suites.write_suite import suite_name, suite_text
from rib.errors import RibError
from rib.runtime.files import write_atomically


def init_suite(folder: Path, out: Path | None = None, force: bool = False) -> tuple[Found, Path]:
    """Look at a folder, and write the YAML file of a suite for it.

    Args:
        folder: The folder of images.
        out: File to write; None: in the folder, with the suite's name.
        force: Replace a file that exists.

    Returns:
        What was recognised, and the file.

    Raises:
        RibError: If nothing is recognised, the file exists, or it cannot be written.
    """
    if out is not None and out.suffix not in (".yaml", ".yml"):
        raise RibError(f"out: expected a file such as {out.with_suffix('.yaml')}, got {out}")
    found = inspect_folder(folder)
    file = folder / f"{suite_name(found)}.yaml" if out is None else out
    if file.exists() and not force:
        raise RibError(
            f"{file} exists and may have changes of yours; look at it with python -m rib.data suite={file}, write "
            "another file with out=FILE.yaml, or replace it with force=true"
        )
    text = suite_text(found, file)
    write_atomically(file, text.encode())
    if len(found.classes) > 1:  # else the file needs a hand, and says so
        load_suite(file)
    return found, file


def next_commands(found: Found, file: Path) -> str:
    """Return what to do next, one command a line.

    Args:
        found: What was recognised in the folder.
        file: The suite's file.
    """
    suite = shlex.quote(f"suite={file}")
    lines = [
        f"python -m rib.data {suite}   # check it; action=sheet draws it",
        f"python -m rib.benchmark {suite} 'models=[resnet50]' 'methods=[finetune,wise_ft]'   # each domain as source",
    ]
    return "\n".join(["next:", *(f"  {line}" for line in lines[: 1 if found.doubts else 2])])
