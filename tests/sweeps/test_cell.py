"""A cell's process behaves like that of a command."""

from __future__ import annotations

import multiprocessing

from rib.sweeps import cell
from rib.sweeps.executors import cell_processes, start_guarded


def _note_start_method(folder) -> None:
    cell.attempt = lambda folder: (folder / "method").write_text(multiprocessing.get_start_method()) and 0
    cell.run_cell(folder, 1, {})


def test_loaders_start_as_in_a_command(tmp_path):
    """By the fork server's way, which a cell itself is started in, each of their processes would import torch."""
    process = cell_processes().Process(target=_note_start_method, args=(tmp_path,))
    start_guarded(process)
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "method").read_text() == multiprocessing.get_start_method()
