"""Whether the files that a run is made from stayed as they were when its key was taken.

A key tells files by their content, once, at the beginning; a run reads them for hours. So it is resolved again before
it begins, and what it reads is looked at before and after: size, times and inode of each file. Times that changed are
enough to refuse a result, since what was read in between may have been anything.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rib.errors import RibError
from rib.runs.fields import files_of
from rib.runs.resolve import resolve
from rib.runs.run import Run, unscored
from rib.runs.spec import RunSpec
from rib.runtime.content import file_states
from rib.runtime.files import digest_of


class Watch:
    """Looks at what a run reads, before and after; what was made of files that changed is thrown away.

    Args:
        spec: What is made.
        run: Where; an unfinished one is removed whole, of a finished one only what is scored now.

    Raises:
        RibError: If something has changed since the key was taken.
    """

    def __init__(self, spec: RunSpec, run: Run) -> None:
        check_unchanged(spec)
        self.spec = spec
        self.run = run
        self._finished = run.metrics() is not None
        self._missing = unscored(spec, run)
        self._before = states_of(spec)

    def check(self) -> None:
        """See that nothing was changed meanwhile.

        Raises:
            RibError: If something was; nothing is left then of what was made of it.
        """
        if states_of(self.spec) == self._before:
            return
        if self._finished:
            for name in self._missing:
                self.run.predictions_file(name, self.spec.score_keys[name]).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.run.folder, ignore_errors=True)
        raise RibError(
            "files that this run is made from were changed while it was made; what came of it is thrown away, give the "
            "command again"
        )


def check_unchanged(spec: RunSpec) -> None:
    """See that a question, asked again, still has the keys that it had.

    Raises:
        RibError: If weights, images, other files or the user's code were changed since.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # what it says was said the first time
        data = replace(spec.config.data, rescan=False)  # all was read for the first key
        again = resolve(replace(spec.config, data=data))
    same = all(again.score_keys.get(name, key) == key for name, key in spec.score_keys.items())
    if again.training_key != spec.training_key or not same:
        raise RibError("files that this run is made from were changed after the command began; give it again")


def states_of(spec: RunSpec) -> str:
    """A digest that changes when any file that a run reads may have changed; drawn images are told by their pixels."""
    trees = [*spec.images.values(), *filter(None, (spec.source, spec.held_out))]
    images = [tree.states() for tree in trees if tree.identity != "pixels"]
    files = [_states(file) for file in (spec.start.weights, *files_of(spec))]
    return digest_of([images, files])


def _states(place: Path) -> list[list[int]]:
    found = sorted(_files(place))
    return [file_states(file.parent, [file.name]).tolist()[0] for file in found if file.is_file()]


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (file for file in place.rglob("*") if file.is_file())
    else:
        yield place
