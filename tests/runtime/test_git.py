"""Git's state of rib and of the user's code: what it says, and that it never fails or waits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rib.runtime import git
from rib.runtime.environment import environment
from rib.runtime.git import git_state


def run(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit; git reads no configuration of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(git, "_slow", set())
    folder = tmp_path / "code"
    folder.mkdir()
    run(folder, "init", "-q")
    (folder / "mine.py").write_text("A = 1\n")
    run(folder, "add", "mine.py")
    run(folder, "commit", "-qm", "first")
    return folder


def test_a_commit_and_whether_files_differ(repository, monkeypatch):
    commit = run(repository, "rev-parse", "HEAD")
    (repository / "inner").mkdir()
    (repository / "runs.txt").write_text("untracked files are results as often as code")
    assert git_state(repository) == git_state(repository / "inner") == {"commit": commit, "dirty": False}
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as inside of a hook
    assert git_state(repository) == {"commit": commit, "dirty": False}
    (repository / "mine.py").write_text("A = 2\n")
    assert git_state(repository) == {"commit": commit, "dirty": True}
    run(repository, "-C", ".", "--git-dir", ".git", "checkout", "-q", "--detach", "-f")
    assert git_state(repository) == {"commit": commit, "dirty": False}


def test_of_the_users_own_files_untracked_and_ignored_ones_count(repository):
    mine, other = repository / "mine.py", repository / "other.py"
    assert git_state(repository, [mine])["dirty"] is False
    other.write_text("B = 1\n")
    assert git_state(repository, [mine])["dirty"] is False
    assert git_state(repository, [mine, other])["dirty"] is True
    (repository / ".git" / "info" / "exclude").write_text("other.py\n")
    assert git_state(repository, [mine, other])["dirty"] is True


def test_a_submodule_has_a_commit_of_its_own(repository, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    run(outer, "init", "-q")
    run(outer, "submodule", "--quiet", "add", str(repository), "sub")
    run(outer, "commit", "-qm", "with a submodule")
    assert git_state(outer / "sub") == git_state(repository)
    assert git_state(outer) == {"commit": run(outer, "rev-parse", "HEAD"), "dirty": False}
    (outer / "sub" / "mine.py").write_text("A = 3\n")
    assert git_state(outer)["dirty"] is True


def test_where_git_cannot_say_there_is_nothing(repository, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    run(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    assert git_state(bare) == {"commit": run(repository, "rev-parse", "HEAD"), "dirty": None}
    empty = tmp_path / "empty"
    empty.mkdir()
    assert git_state(empty) is git_state(tmp_path / "absent") is None
    run(empty, "init", "-q")
    assert git_state(empty) is None  # no commit yet
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(repository) is None  # no git


def stand_in(folder: Path, text: str) -> str:
    program = folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    return str(program.parent)


def test_a_repository_of_another_user_is_left_alone(repository, tmp_path, monkeypatch):
    refusal = "import sys; sys.exit('fatal: detected dubious ownership in repository')"
    monkeypatch.setenv("PATH", stand_in(tmp_path, refusal))
    assert git_state(repository) is None


def test_a_slow_repository_is_asked_once(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(git, "SECONDS", 0.5)
    monkeypatch.setenv(
        "PATH", stand_in(tmp_path, "import sys, time; 'status' in sys.argv and time.sleep(60)\nprint('a')")
    )
    began = time.monotonic()
    assert git_state(repository) == {"commit": "a", "dirty": None}
    assert git_state(repository) is None
    assert time.monotonic() - began < 5


def test_the_configuration_of_a_repository_starts_no_program(repository, tmp_path):
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    monitor.chmod(0o755)
    run(repository, "config", "core.fsmonitor", str(monitor))
    assert git_state(repository)["dirty"] is False
    assert not (tmp_path / "started").exists()


def test_env_json_has_the_state_of_each_package_of_the_users(repository, monkeypatch):
    monkeypatch.chdir(repository)
    (repository / "new.py").write_text("")
    env = environment({"mine": repository / "mine.py", "new": repository / "new.py"})
    commit = run(repository, "rev-parse", "HEAD")
    assert env["git"]["cwd"] == env["git"]["mine"] == {"commit": commit, "dirty": False}
    assert env["git"]["new"] == {"commit": commit, "dirty": True}
