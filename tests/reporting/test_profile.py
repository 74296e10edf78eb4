"""The bottleneck's sentence names the phase that takes longest, and what to change."""

import time

import pytest

from rib.config import compose
from rib.data.dataset import READING, Images
from rib.data.loader import batch_loader, chunks
from rib.data.transform import Transform
from rib.reporting.profile import ADVICE, REST, bottleneck, read_profile, write_profile
from rib.runtime.stopwatch import measured
from rib.training.profiler import PHASES, phase_of
from tests.data.trees import pictures


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


def test_a_profile_is_read_as_it_was_written(tmp_path):
    seconds, beside = {"scoring: forward": 2.5, REST: 1.0}, {READING: 7.0}
    write_profile(seconds, beside, tmp_path, compose("figures.format=png"))
    assert read_profile(tmp_path) == (seconds, beside)
    assert (tmp_path / "figures" / "profile.png").is_file()
    assert read_profile(tmp_path / "figures") is None


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_is_counted_in_whatever_process_it_happens(tmp_path, workers):
    """Its seconds are no part of the whole, which is that of the phases."""
    tree, transform = pictures(tmp_path, 16), Transform(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
    with measured(REST) as watch:
        images = Images(tree, transform)
        begun = time.perf_counter()
        assert len(list(batch_loader(images, chunks(range(16), 4), workers))) == 4
        taken = time.perf_counter() - begun
    assert 0 < watch.beside[READING].seconds < (workers or 1) * taken
    assert list(watch.seconds) == [REST]
    assert Images(tree, transform)._reading is None, "nothing is measured now"
