"""The file of the suite that a finished run is on, which may have moved since."""

from __future__ import annotations

from pathlib import Path

from rib.config.schema import Config
from rib.data.worlds import describe_kind, is_suite, kind_of
from rib.errors import RibError


def suite_file(kind: str, given: str | None, saved: Config) -> str | None:
    """Return the file of the suite that a finished run is on; None for toy data and ImageNet's.

    Args:
        kind: Kind of data of the run.
        given: File that the user gave in place of the recorded one, or None.
        saved: The run's config, with the recorded path.

    Raises:
        RibError: If the given file is that of another suite, or there is no file at the recorded path any more.
    """
    if given is not None and (other := kind_of(None, given)) != kind:
        own = f"the suite {kind}" if is_suite(kind) else describe_kind(kind)
        raise RibError(f"suite={given}: expected the suite of the run, {own}, got the suite {other}")
    if not is_suite(kind):
        return None
    file = given or saved.data.suite
    if file is None or not Path(file).expanduser().is_file():
        was = f", {file}, is gone" if file else " is not recorded"
        raise RibError(f"the file of the suite {kind}{was}; give suite=FILE, where it is now")
    return file
