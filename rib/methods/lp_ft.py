"""LP-FT: first a linear probe, then everything."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import lightning.pytorch as L

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.weights import StoredWeights
from rib.training.module import FineTuner


class LPFT(Method):
    """Fine-tuning of features and head (theta, w) from (theta0, w_lp), w_lp the head of a linear probe at theta0.

    The start is a finished linear probe instead of the pretrained head w0. Kumar et al. 2022, "Fine-tuning can distort
    pretrained features and underperform out-of-distribution", arXiv 2202.10054, section 3: a head that
    fits the source first sends smaller gradients into the features. In a config::

        lp_ft:
          _target_: rib.methods.lp_ft.LPFT
          probe: {epochs: null, lr: null}

    Differs from the official code (AnanyaKumar/transfer_learning, ``baseline_train.py``), and from the paper, in the
    probe: there w_lp is a minimum, argmin_w L_task(w, theta0) up to a weight decay that held-out images choose; here it
    is the run +method=linear_probe, a few epochs of SGD from the pretrained head. Give it more with ``probe.epochs``.

    Costs a linear probe more than fine-tuning; rib makes it first, or finds it in the store. What other methods of the
    stack hold on to (EWC's anchor, LwF's teacher) is the probe. Not with `linear_probe`, which trains the head alone,
    nor with `other_start`, whose shuffled head the probe's would replace.

    Args:
        probe: The probe's weights.safetensors. None: none was given, which `setup` refuses.

    Raises:
        RibError: If there is no probe, or it does not fit the model.
    """

    order: ClassVar[int] = -1

    def __init__(self, probe: str | Path | None = None) -> None:
        self.probe = probe

    @property
    def name(self) -> str:
        """As in configs."""
        return "lp_ft"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start from the probe."""
        if stage != "fit":
            return
        assert isinstance(pl_module, FineTuner)
        if self.probe is None:
            raise RibError("method.lp_ft: expected the weights of a finished linear probe, got none")
        try:
            pl_module.model.backbone.load_state_dict(dict(StoredWeights(Path(self.probe))))
        except RuntimeError as error:
            raise RibError(f"method.lp_ft: the linear probe {self.probe} does not fit the model: {error}") from error
