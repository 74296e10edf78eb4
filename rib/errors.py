"""Errors that the user can fix.

Each message is one sentence: what was expected, what was found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RibError(Exception):
    """Error that the user can fix; commands print only its message, without a traceback.

    Attributes:
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code: ClassVar[int] = 1


class UnknownOptionError(RibError):
    """Error for an option that does not exist.

    Args:
        option: Its dotted name.
        message: The sentence to print.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class MissingDatasetError(RibError):
    """Error for a dataset whose folder does not exist or holds no image."""


class RefusedError(RibError):
    """Error for a source that cannot be trained on: by its licence, its part in the suite, or a class that it lacks.

    A grid leaves such a source out and says so; its other cells are made.
    """


class DamagedError(RibError):
    """Error for a file of the run store that is truncated or was changed after rib wrote it."""


class OtherVersionError(RibError):
    """Error for a file of the run store in the format of another rib version; the file is left unchanged."""


class DivergedError(RibError):
    """Error for training whose loss or weights became NaN or infinite; a hyperparameter search avoids such settings."""


class RobustnessError(RibError, AssertionError):
    """Error for a model that lost more robustness than it may; a test that raises it fails as by an assertion.

    ``python -m rib.evaluate fail_below=-1.0`` and the method ``check`` of scores and runs raise it. Commands end with
    exit code 3, so that a script can tell a model that is too weak from a mistake in the command (exit code 1).
    """

    exit_code: ClassVar[int] = 3


def nearest(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Return the text "; did you mean NAME?" with the valid name most similar to a misspelt one, to end a message.

    Args:
        name: What the user wrote.
        candidates: Valid names.
        prefix: Put before the suggested name, ``"data."``.

    Returns:
        ``; did you mean NAME?``, to end a message with, or an empty string if no candidate is similar.
    """
    close = difflib.get_close_matches(name, sorted({*candidates} - {name}), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
