"""Logging without waiting for the device: a step reads no value, and every step has its row all the same."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rib.data.labels import LabelSpace
from rib.methods.ema import EMA
from rib.methods.ewc import EWC
from rib.methods.ftp import FTP
from rib.methods.l2sp import L2SP
from rib.methods.ldifs import LDIFS
from rib.methods.lwf import LwF
from rib.methods.spd import SPD
from rib.training import module as training
from rib.training.log import TrainingLog
from rib.training.module import FineTuner
from tests.support.fitting import SPACE, Data
from tests.support.nets import OUTPUTS, SIDE, small_vit

METHODS = {
    "finetune": list,
    "penalties": lambda: [EWC(fisher="identity"), L2SP(), LDIFS(), LwF()],
    "proximal": lambda: [EWC(fisher="identity", form="proximal")],
    "projections": lambda: [FTP(), SPD()],
    "average": lambda: [EMA()],
}


class Reads(TorchDispatchMode):
    """Counts the values that are read from tensors."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "_local_scalar_dense" in str(function)
        return function(*args, **(kwargs or {}))


def run(folder, steps, *methods, epochs=1, accumulate=1, log=None, stop_at=None):
    logs = [CSVLogger(folder, name="log", version=0)]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*methods, log or TrainingLog(seconds=1e9)],
        logger=logs,
        log_every_n_steps=0,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    module = FineTuner(small_vit(), SPACE).train()
    trainer.fit(module, datamodule=Data(steps))
    return rows(folder)


def rows(folder):
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", METHODS)
def test_more_steps_read_no_more_values(name, tmp_path, monkeypatch):
    """As on a GPU, where each would make the CPU wait."""
    monkeypatch.setattr(training, "reads_freely", lambda device: False)
    counts = []
    for steps in (3, 9):
        with Reads() as reads:
            found = run(tmp_path / str(steps), steps, *METHODS[name]())
        assert len([row for row in found if row["loss"]]) == steps
        counts.append(reads.count)
    assert counts[1] <= counts[0], "the first fit may fill caches"


class Transfers(TorchDispatchMode):
    """Notes the operations whose tensors are on two devices; single numbers of the CPU go along with a kernel."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors if t.ndim or "copy" in str(function)}) > 1:
            self.found.append(str(function))
        return made


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # torchmetrics copies its counts
def test_a_step_on_a_gpu_copies_nothing_between_devices():
    """On a pretended one; what is there only once, such as the classes' outputs, is copied in the first step."""
    space = LabelSpace(SPACE.groups)
    space.project(torch.zeros(1, OUTPUTS))  # its table is made on the CPU
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, OUTPUTS))
        module = FineTuner(network, space)
        module.accuracy.to("cuda")
        module.log_dict = lambda _: None
        module._trainer = SimpleNamespace(
            callbacks=[], train_dataloader=None, num_training_batches=9, accumulate_grad_batches=1, global_step=1
        )
        module._trainer.current_epoch = module._trainer.global_rank = 0
        batch = torch.zeros(4, 3, SIDE, SIDE), torch.zeros(4, dtype=torch.long), torch.arange(4)
        assert module.training_step(batch, 0).device.type == "cuda"
        with Transfers() as transfers:
            module.training_step(batch, 1)
            assert not transfers.found
            module.accuracy.total.cpu()
        assert transfers.found, "a copy would be noticed"


def test_accumulated_batches_have_one_row_a_step_and_an_epoch_its_own(tmp_path):
    found = run(tmp_path, 4, epochs=2, accumulate=2)
    assert [row["step"] for row in found] == ["0", "1", "1", "2", "3", "3"]
    assert [row["epoch"] for row in found] == ["0", "0", "0", "1", "1", "1"]
    assert [bool(row["accuracy"]) for row in found] == [False, False, True] * 2


class Stop(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3:
            raise ValueError("stop here")


def test_what_was_not_yet_written_is_when_training_fails(tmp_path):
    log = TrainingLog(seconds=1e9)
    with pytest.raises(ValueError, match="stop here"):
        run(tmp_path, 5, Stop(), log=log)
    found = [float(row["loss"]) for row in rows(tmp_path)]
    assert len(found) == 3
    assert log.loss == pytest.approx(found[-1])
