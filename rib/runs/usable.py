"""Check that the weights of a finished run can be used: that it has some, and that their file is undamaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rib.config
from rib.config.schema import Config
from rib.errors import RibError
from rib.runs.command import command_of
from rib.runs.method_stack import NO_WEIGHTS, classes_of
from rib.runs.run import Run
from rib.schemas.metrics import Metrics


def check_weights(
    run: Run, metrics: Metrics, where: str, shown: str | Path, refused: Mapping[str, str] = NO_WEIGHTS
) -> Config:
    """Return the config of a finished run after checking that its weights can be used.

    Args:
        run: The run.
        metrics: Its metrics.
        where: Name of the option or function that asks, to begin messages with.
        shown: The run's folder as the user gave it, for messages.
        refused: Methods whose runs cannot be used, with the reason.

    Raises:
        RibError: If its method is refused, its weights are missing or damaged, or its config is unreadable.
    """

    def check_method(method: str) -> None:
        if method in refused:
            raise RibError(f"{where}: {shown} is a run of {method}, whose weights cannot be used: {refused[method]}")

    for method in metrics["method"].split("+"):
        check_method(method)
    if not run.weights_file.is_file():
        raise RibError(
            f"{where}: {shown} has no weights (imported runs come without them); make it again with "
            f"{command_of(run, force=True)}"
        )
    try:
        config = rib.config.load_config(run.folder / "config.yaml")
    except RibError as error:
        raise RibError(f"{where}: {error}; make it again with {command_of(run, force=True)}") from error
    for method in classes_of(config):  # a user may have configured the same class under another name
        check_method(method)
    if not run.is_intact:
        raise RibError(
            f"{where}: {run.weights_file} is damaged (its checksum differs from the one saved after training); "
            f"make it again with {command_of(run, force=True)}"
        )
    return config
