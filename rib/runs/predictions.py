"""Stored predictions of a model for every image of a dataset, from which all metrics are computed.

A file has columns in the order of the dataset's paths, 20 bytes per image: label (int16), the five most likely classes
(5 x int16), confidence (float32, probability of the most likely class) and log-probability of the label (float32,
nats); with ``predictions.logits=true`` also the logits (float32, C per image). Classes are those of the dataset,
0..C-1; with C < 5, missing entries of the five are -1.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rib.errors import DamagedError
from rib.runs.metrics_file import AGAIN
from rib.runtime.files import write_atomically
from rib.schemas.verified import Verified

COLUMNS: Mapping[str, tuple[type[np.generic], tuple[int, ...] | None]] = {
    "label": (np.int16, ()),
    "top5": (np.int16, (5,)),
    "confidence": (np.float32, ()),
    "log_prob": (np.float32, ()),
    "logits": (np.float32, None),
}
"""Type of each column, and the shape of its entry for one image; None stands for one number per class."""

VERIFIED = "verified"
"""Name in the file of how top-1 was verified, as JSON; absent where it was not."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model for one dataset of N images and C classes.

    Classes are those of the dataset, 0 to C - 1, not the network's outputs; `FinishedRun.outputs` translates.

    Attributes:
        label: True class, numbered within the dataset, int16, shape (N,).
        top5: Five most likely classes, most likely first, int16, shape (N, 5).
        confidence: Probability of the most likely class, float32, shape (N,).
        log_prob: Log-probability of the label in nats, float32, shape (N,).
        logits: Logits, float32, shape (N, C), or None.
        verified: How top-1 was verified (``evaluation.precision=verified``), or None.
    """

    label: NDArray[np.int16]
    top5: NDArray[np.int16]
    confidence: NDArray[np.float32]
    log_prob: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    verified: Verified | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Boolean mask of shape (N,): True for each image whose most likely class is its label."""
        return np.equal(self.top5[:, 0], self.label)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction."""
        return float(self.correct.mean())

    def __len__(self) -> int:
        return len(self.label)

    def save(self, file: Path) -> None:
        """Write the predictions to an npz file without pickles, atomically.

        Raises:
            ValueError: If a column has another shape or type than in `COLUMNS`.
        """
        self._check()
        buffer = io.BytesIO()
        about = {} if self.verified is None else {VERIFIED: np.array(json.dumps(self.verified))}
        np.savez(buffer, **cast("dict[str, Any]", self.columns | about))
        write_atomically(file, buffer.getvalue())

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Arrays of these predictions by name (``label``, ``top5``, ...); ``logits`` only if they were kept."""
        return {name: column for name in COLUMNS if (column := getattr(self, name)) is not None}

    def _check(self) -> None:
        """Check shapes and types of all columns against `COLUMNS`.

        Raises:
            ValueError: If a column has another type, or another number of images.
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
        """Read predictions from a file written by `save`.

        Raises:
            DamagedError: If the file is damaged or missing; delete a damaged one, and the next command scores again.
        """
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as columns:
                verified = json.loads(str(columns[VERIFIED])) if VERIFIED in columns else None
                named = {name: columns[name] for name in columns.files if name != VERIFIED}
                predictions = cls(**named, verified=verified)
            predictions._check()
            return predictions
        except Exception as error:  # zipfile, zlib and numpy each raise their own on damaged bytes
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise DamagedError(f"cannot read predictions {file} ({reason}); {AGAIN}") from error
