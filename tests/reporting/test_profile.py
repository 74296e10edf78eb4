"""The bottleneck's sentence names the phase that takes longest, and what to change."""

import pytest

from rib.reporting.profile import ADVICE, REST, bottleneck, read_profile, write_profile
from rib.training.profiler import PHASES, phase_of


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ({"training: waiting for images": 41, "training: forward": 29, "training: backward": 10, REST: 20}, "waiting"),
        ({"training: waiting for images": 35, "training: forward": 20, "training: backward": 30, REST: 15}, "forward"),
        ({"training: forward": 1, "figures": 2, REST: 50}, "start-up"),
        ({REST: 0.0}, "start-up"),
    ],
)
def test_the_bottleneck_is_the_longest_phase(seconds, found):
    sentence = bottleneck(seconds)
    assert found in sentence
    if found == "waiting":
        assert "41 % of" in sentence
        assert "data.workers" in sentence


def test_what_lightning_does_has_a_phase():
    actions = {
        "[_TrainingEpochLoop].train_dataloader_next": "training: waiting for images",
        "[Strategy]SingleDeviceStrategy.training_step": "training: forward",
        "[Strategy]SingleDeviceStrategy.backward": "training: backward",
        "[LightningModule]FineTuner.optimizer_step": "training: optimizer",
        "[Callback]Resume.on_train_epoch_end": "training: checkpoints",
        "[Callback]EWC.on_train_start": "training: before the first step (Fisher, features)",
        "setup": None,
    }
    assert {action: phase_of(action) for action in actions} == actions
    assert {*ADVICE} >= {*PHASES.values()} - {"training: copying images to the device"}


def test_a_profile_is_read_as_it_was_written(tmp_path, monkeypatch):
    from rib.config import compose

    write_profile({"scoring: forward": 2.5, REST: 1.0}, tmp_path, compose("figures.format=png"))
    assert read_profile(tmp_path) == {"scoring: forward": 2.5, REST: 1.0}
    assert (tmp_path / "figures" / "profile.png").is_file()
    assert read_profile(tmp_path / "figures") is None
