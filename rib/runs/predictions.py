"""What a model said about every image of a dataset, stored once and used by every number after that.

Columns in the dataset's path order, 20 bytes an image: label (int16), five best classes (5 x int16), confidence
(float32, probability of the best), log-probability of the label (float32, nats); with ``predictions.logits=true`` the
logits too (float32, C a row). Classes are the dataset's own, 0..C-1; where C < 5 the missing places hold -1.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rib.errors import DamagedError
from rib.runs.metrics_file import AGAIN
from rib.runtime.files import write_atomically

COLUMNS: Mapping[str, tuple[type[np.generic], tuple[int, ...] | None]] = {
    "label": (np.int16, ()),
    "top5": (np.int16, (5,)),
    "confidence": (np.float32, ()),
    "log_prob": (np.float32, ()),
    "logits": (np.float32, None),
}
"""Type of each column of the file, and the shape of an image's entry; None is a number for each class."""


@dataclass(frozen=True)
class Predictions:
    """One model on one dataset of N images and C classes.

    Attributes:
        label: int16, (N,).
        top5: int16, (N, 5), best first.
        confidence: float32, (N,), probability of the best class.
        log_prob: float32, (N,), log-probability of the label, nats.
        logits: float32, (N, C), or None.
    """

    label: NDArray[np.int16]
    top5: NDArray[np.int16]
    confidence: NDArray[np.float32]
    log_prob: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the best class is the label, (N,)."""
        return np.equal(self.top5[:, 0], self.label)

    @property
    def accuracy(self) -> float:
        """Top-1, a fraction."""
        return float(self.correct.mean())

    def __len__(self) -> int:
        return len(self.label)

    def save(self, file: Path) -> None:
        """Write the file whole or not at all (npz without pickles).

        Raises:
            ValueError: If a column is not as `COLUMNS` says.
        """
        self._check()
        buffer = io.BytesIO()
        np.savez(buffer, **cast("dict[str, Any]", self.columns))
        write_atomically(file, buffer.getvalue())

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column that is there, by name."""
        return {name: column for name, column in vars(self).items() if column is not None}

    def _check(self) -> None:
        """Compare every column with `COLUMNS`.

        Raises:
            ValueError: If one is of another type, or not about the same images.
        """
        for name, column in self.columns.items():
            dtype, entry = COLUMNS[name]
            shape = (len(self.label), *(entry if entry is not None else column.shape[1:2]))
            if column.shape != shape:
                raise ValueError(f"expected {name} of shape {shape}, got {column.shape}")
            if column.dtype != dtype:
                raise ValueError(f"expected {name} of {np.dtype(dtype)}, got {column.dtype}")

    @classmethod
    def load(cls, file: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            DamagedError: If the file is damaged or gone; deleting it lets the next command score the dataset again.
        """
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as columns:
                found = cls(**{name: columns[name] for name in columns.files})
            found._check()
            return found
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise DamagedError(f"cannot read predictions {file} ({reason}); {AGAIN}") from error
