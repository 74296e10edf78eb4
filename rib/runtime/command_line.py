"""The command line of this process without secrets, and without the names of the user's home and account."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

REMOVED = "REMOVED"
"""Replacement of a secret."""

SECRET_NAME = (
    r"(?:[\w.-]*[._-])?(?:\w*token|\w*secret|pass(?:word|wd|phrase|code)?|(?:\w*_)?key|apikey|credentials?|auth)"
)

OPTION = re.compile(rf"(?i)-{{1,2}}{SECRET_NAME}")
"""An option of another program whose value is the next word: ``--api-key``."""

SECRETS = (
    (re.compile(rf"(?is)^([-+~]*{SECRET_NAME}=)(?!\w+://).+$"), rf"\1{REMOVED}"),
    # KEY=VALUE and KEY: VALUE within an address (?token=...) or a nested value.
    (
        re.compile(rf"(?i)((?<=[\s?&;,{{'\"]){SECRET_NAME}['\"]?\s*[=:]\s*)(?!//)('[^']*'|\"[^\"]*\"|[^\s&,;}}\]]+)"),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(\w+://)[^\s/@]+@"), rf"\1{REMOVED}@"),  # user and password in an address
    # Keys that can be recognised: Hugging Face, GitHub, GitLab, OpenAI and the like, AWS, Slack, W&B.
    (re.compile(r"\b(?:hf_|gh[opsur]_|github_pat_|glpat-|sk-|AKIA|xox[abprs]-|wandb_v1_)[\w-]{12,}"), REMOVED),
    (re.compile(r"(?<![\w/.-])(?:local-)?[0-9a-f]{40}(?![\w.-])"), REMOVED),  # W&B's older keys
)
"""Patterns of secrets with what replaces them."""


def command_line() -> str:
    """Return the command line of this process for a POSIX shell, without secrets, home folder and account name."""
    return clean(_words())


_typed: dict[tuple[str, ...], list[str]] = {}
"""Arguments of this process as they were typed, by those that rib has put in their place."""


def rewrite_arguments(arguments: Sequence[str]) -> None:
    """Replace the arguments of this process by others that mean the same; `typed_arguments` returns the old ones."""
    _typed[tuple(arguments)] = typed_arguments()
    sys.argv[1:] = arguments


def typed_arguments() -> list[str]:
    """Return the arguments of this process as they were typed, ``suite=pets.yaml`` instead of what it stands for."""
    return _typed.get(tuple(sys.argv[1:]), sys.argv[1:])


def clean(words: Sequence[str]) -> str:
    """Join the words of a command for a POSIX shell, without secrets, home folder, account name and host name.

    Args:
        words: The program and its arguments.
    """
    return shlex.join(_without_names(_without_secrets(word)) for word in _without_values_of_options(words))


def _words() -> list[str]:
    """Return the words that started this process, the program by its name alone."""
    arguments, program = typed_arguments(), Path(sys.argv[0] if sys.argv else "").name
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if program.startswith("ipykernel") or str(getattr(spec, "name", "")).startswith("ipykernel"):
        return ["notebook"]  # its arguments are those of the kernel
    if spec is not None:
        return ["python", "-m", spec.name.removesuffix(".__main__"), *arguments]
    return [*(["python"] if program.endswith(".py") else []), program, *arguments] if program else ["python"]


def _without_values_of_options(words: Sequence[str]) -> Iterator[str]:
    secret = False
    for word in words:
        yield REMOVED if secret else word
        secret = OPTION.fullmatch(word) is not None


def _without_secrets(word: str) -> str:
    """Return a word with every secret in it replaced, by name, by form, or as the value of a variable for secrets."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.fullmatch(rf"(?i){SECRET_NAME}", name):
            word = word.replace(value, REMOVED)
    for pattern, replacement in SECRETS:
        word = pattern.sub(replacement, word)
    return word


def _without_names(word: str) -> str:
    """Return a word with the home folder as ``~``, and with no part of a path that is the account's or host's name."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    if len(home) > 1:
        word = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", word)
    for name, replacement in ((_user(), "USER"), (socket.gethostname(), "HOST")):
        if name:
            word = re.sub(rf"(?<=[/\\]){re.escape(name)}(?=[/\\]|$)", replacement, word)
    return word


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no entry
        return ""
