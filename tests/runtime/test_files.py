"""Files that several processes write at once."""

import os
from pathlib import Path

import pytest

from rib.errors import RibError
from rib.runtime import files
from rib.runtime.files import write_atomically


def test_two_writers_at_once_both_succeed_and_leave_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two grids on one store write the same figure: neither takes the other's unfinished file away."""
    file, calls = tmp_path / "figure.png", []
    fsync = os.fsync

    def other_writer_comes_and_goes(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:  # the first writer has its file open: the second writes the same from start to end
            write_atomically(file, b"second")
            assert file.read_bytes() == b"second"
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", other_writer_comes_and_goes)
    write_atomically(file, b"first")
    assert len(calls) == 2 and file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "table.csv"
    write_atomically(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RibError, match=r"cannot write .*table\.csv: No space left on device"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
