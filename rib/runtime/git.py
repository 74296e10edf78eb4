"""Commit and dirtiness of the git repository that holds a folder; None wherever git cannot say, and never an error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rib.schemas.files import GitState

SECONDS = 3.0
"""Time that git may take for one answer; a repository that takes longer is not asked again by this process."""

_slow: set[Path] = set()


def git_state(folder: Path, files: Sequence[Path] = ()) -> GitState | None:
    """Return the commit of the repository that a folder is in, and whether files differ from it.

    Args:
        folder: Any folder.
        files: Files that matter, with which untracked ones count as well; empty for all tracked files.

    Returns:
        None outside of a repository, without git, or where git refuses (a repository of another user). ``dirty`` is
        None in a bare repository and in one that is too large to be compared in a few seconds.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = ["status", "--porcelain"]
    if files:
        status += ["--untracked-files=all", "--ignored", "--", *(str(file) for file in files)]
    else:
        status += ["--untracked-files=no"]
    changed = _git(folder, *status)
    return {"commit": commit.strip(), "dirty": None if changed is None else bool(changed.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command prints, or None if it fails or takes too long."""
    if folder in _slow:
        return None
    # Inside a git hook these variables name another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    # A repository's own configuration may start programs: a monitor of its files is one.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        _slow.add(folder)
        return None
    except OSError:  # git is not installed, or the folder is gone
        return None
    return done.stdout if done.returncode == 0 else None
