"""Check that the input files of a run did not change while the run was being made.

A run's hash key covers the content of input files at the start of the command, but the run reads them for hours. So the
run is resolved again right before it begins, and size, times and inode of every input file are compared before and
after. A changed time is enough to refuse a result, since nobody can tell what was read in between.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rib.errors import RibError
from rib.runs import method_stack
from rib.runs.fields import code_digests, option_path
from rib.runs.keys import METHOD_RESOLVED
from rib.runs.resolve import resolve
from rib.runs.run import Run, unscored
from rib.runs.spec import RunSpec
from rib.runtime.content import file_states
from rib.runtime.files import digest_of
from rib.runtime.weights_file import shards


class Watch:
    """Record the state of a run's input files, to discard the result if any of the files changes meanwhile.

    Args:
        spec: The resolved run.
        run: Its folder. If inputs change, an unfinished run is deleted as a whole; a finished one loses only the
            predictions that were being made.

    Raises:
        RibError: If an input has changed since the run was resolved.
    """

    def __init__(self, spec: RunSpec, run: Run) -> None:
        check_unchanged(spec)
        self.spec = spec
        self.run = run
        self._finished = run.metrics() is not None
        self._missing = unscored(spec, run)
        self._before = states_of(spec)

    def check(self) -> None:
        """Check that no input has changed since this object was made.

        Raises:
            RibError: If one has; what was made meanwhile has been deleted.
        """
        if states_of(self.spec) == self._before:
            return
        if self._finished:
            for name in self._missing:
                self.run.predictions_file(name, self.spec.score_keys[name]).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.run.folder, ignore_errors=True)
        raise RibError(
            "input files of this run changed while it ran, so its result was deleted; run the same command again"
        )


def check_unchanged(spec: RunSpec) -> None:
    """Check that a run's inputs (weights, images, other files, user's code) have not changed since it was resolved.

    Raises:
        RibError: If weights, images, other input files or the user's code have changed.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # its messages were shown the first time
        data = replace(spec.config.data, rescan=False)  # the first key has read every file already
        again = resolve(replace(spec.config, data=data))
    same = all(again.score_keys.get(name, key) == key for name, key in spec.score_keys.items())
    if again.training_key != spec.training_key or not same:
        raise RibError("input files of this run changed after the command began; run the same command again")


def states_of(spec: RunSpec) -> str:
    """Return a digest of the sizes, times and inodes of a run's input files; equal if none has changed."""
    # mini's images are drawn from code: their files may be rewritten at any time, their pixels cannot change.
    trees = [*spec.images.values(), *filter(None, (spec.source, spec.held_out, spec.head_images))]
    images = [tree.states() for tree in trees if tree.identity != "pixels"]
    files = [_states(file) for file in (*shards(spec.start.weights), *files_of(spec))]
    return digest_of([images, files])


def _states(path: Path) -> list[list[int]]:
    files = sorted(_files(path))
    return [file_states(file.parent, [file.name]).tolist()[0] for file in files if file.is_file()]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    else:
        yield path


def files_of(spec: RunSpec) -> list[Path]:
    """Return every file and folder that the methods and the optimizer of a run name in their options."""
    found: list[Path] = []

    def walk(registered: str | None, key: str, value: object) -> None:
        if isinstance(value, dict | list):
            for child in value.values() if isinstance(value, dict) else value:
                walk(registered, key, child)
        elif (path := option_path(registered, key, value)) is not None:
            found.extend(path if isinstance(path, list) else [path])

    for node in [*method_stack.training_methods(spec.config).values(), spec.config.optimizer]:
        if "_target_" in node and (method_stack.registered_name(node) is not None or code_digests(node)):
            for key, value in node.items():
                if key not in METHOD_RESOLVED:
                    walk(method_stack.registered_name(node), key, value)
    return found
