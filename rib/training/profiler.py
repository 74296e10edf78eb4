"""Lightning's profiler hooks, as phases of `rib.runtime.stopwatch`."""

from __future__ import annotations

from lightning.pytorch.profilers import Profiler

from rib.runtime.stopwatch import running

PHASES = {
    "dataloader_next": "training: waiting for images",
    "batch_to_device": "training: copying images to the device",
    ".training_step": "training: forward",
    ".backward": "training: backward",
    ".optimizer_step": "training: optimizer",
    "Resume.on_train": "training: checkpoints",
    "save_checkpoint": "training: checkpoints",
    ".on_train_start": "training: before the first step (Fisher, features)",
    "run_training_epoch": "training: loop, logs and callbacks",
}
"""Phase by a part of the name of Lightning's action."""


class PhaseProfiler(Profiler):
    """Lightning profiler that counts what the Trainer does in phases of the measurement in progress."""

    def start(self, action_name: str) -> None:
        """Begin the phase of an action that has one."""
        if (phase := phase_of(action_name)) is not None and (watch := running()) is not None:
            watch.start(phase)

    def stop(self, action_name: str) -> None:
        """End it."""
        if phase_of(action_name) is not None and (watch := running()) is not None:
            watch.stop()


def phase_of(action: str) -> str | None:
    """Return the phase of one of Lightning's actions, ``[Strategy]SingleDeviceStrategy.backward``; None if none."""
    return next((phase for part, phase in PHASES.items() if part in action), None)
