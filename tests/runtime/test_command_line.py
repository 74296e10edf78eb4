"""The recorded command line: no secret, no home folder, no account or host name."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rib.runtime import command_line

PLAIN = [
    "+method=ewc",
    "method.ewc.strength=3",
    "model.tag=openai",
    "keep_memory=true",
    "monkey=3",
    "max_tokens=3",
    "hub=s3://bucket/key",
    "authors=me",
    "optimizer={_target_:torch.optim.SGD,lr:0.1}",
    "runs=runs/mini/0123456789abcdef0123456789abcdef01234567",
]


@pytest.mark.parametrize("word", PLAIN)
def test_a_word_without_a_secret_stays(word):
    assert shlex.split(command_line.clean([word])) == [word]


SECRET = [
    "logger.api_key=hush",
    "+logger.api_key='hush hush'",
    "WANDB_API_KEY=hush",
    "token=hush/hush",
    "hf-token=hush",
    "password=hush hush",
    "+logger={api_key:hush,project:p}",
    "+logger={'api_key': 'hush hush'}",
    "hub=https://me:hush@host.org/x",
    "hub=https://host.org/x?token=hush&y=1",
    "hub=https://host.org/x?y=1&access_token=hush",
    "name=hf_hushhushhushhush",
    "name=ghp_hushhushhushhush",
    "name=local-0123456789abcdef0123456789abcdef01234567",
    "notes=mine-is-hush-hush-hush",
    "AWS_SECRET_ACCESS_KEY=hush",
]


@pytest.mark.parametrize("word", SECRET)
def test_a_secret_is_removed(word, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hush-hush-hush")
    cleaned = command_line.clean(["rib", word])
    assert "hush" not in cleaned and "0123456789abcdef" not in cleaned and "REMOVED" in cleaned


def test_the_word_after_an_option_for_a_secret_is_removed():
    assert (
        command_line.clean(["x", "--api-key", "hush", "--token=hush", "a"]) == "x --api-key REMOVED --token=REMOVED a"
    )


def test_names_of_home_account_and_host_are_not_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jdoe")
    monkeypatch.setenv("LOGNAME", "jdoe")
    monkeypatch.setattr(command_line.socket, "gethostname", lambda: "node7")
    words = [
        "data.root=/home/jdoe/data",
        "a=/scratch/jdoe/x",
        "b=/mnt/node7/y",
        "c=/home/jdoes",
        "d=jdoe",
        "e=[/home/jdoe]",
    ]
    expected = ["data.root=~/data", "a=/scratch/USER/x", "b=/mnt/HOST/y", "c=/home/jdoes", "d=jdoe", "e=[~]"]
    assert shlex.split(command_line.clean(words)) == expected


@pytest.mark.parametrize(
    ("module", "argv", "expected"),
    [
        ("rib.train", ["/some/where/rib/train.py", "a=1"], "python -m rib.train a=1"),
        ("rib.__main__", ["/some/where/rib/__main__.py", "train", "a=1"], "python -m rib train a=1"),
        (None, ["/usr/bin/rib-train", "a=1"], "rib-train a=1"),
        (None, ["/secret/place/mine.py", "a=1"], "python mine.py a=1"),
        ("ipykernel_launcher", ["/x/ipykernel_launcher.py", "-f", "/home/me/kernel.json"], "notebook"),
        (None, [""], "python"),
    ],
)
def test_the_program_is_told_without_its_folder(module, argv, expected, monkeypatch):
    main = SimpleNamespace(__spec__=None if module is None else SimpleNamespace(name=module))
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert command_line.command_line() == expected


def test_it_needs_no_account(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert command_line.clean(["a=/x/y"]) == "a=/x/y"


def test_importing_it_is_quick():
    code = "import sys, rib.runtime.command_line, rib.runtime.git; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
