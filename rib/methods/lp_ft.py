"""LP-FT: fine-tuning that starts from a linear probe."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.weights import StoredWeights


class LPFT(Method):
    """Fine-tune features and head (theta, w) from (theta0, w_lp), w_lp the head of a linear probe at theta0.

    Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv
    2202.10054, section 3: a head that already fits the source sends smaller gradients into the features. In a config::

        lp_ft:
          _target_: rib.methods.lp_ft.LPFT
          probe: {epochs: null, lr: null}

    Differs from the official code (AnanyaKumar/transfer_learning, ``baseline_train.py``), and from the paper, in the
    probe: there w_lp is a minimum, argmin_w L_task(w, theta0) up to a weight decay that held-out images choose; here it
    is the run +method=linear_probe, a few epochs of SGD from the pretrained head. Give it more with ``probe.epochs``.

    Costs a linear probe in addition to fine-tuning; rib makes it first, or finds it in the store. For other methods
    used with it the probe is the start model (EWC's anchor, LwF's teacher). Does not stack with `linear_probe`, which
    trains only the head, or `other_start`, whose shuffled head the probe's would replace.

    Args:
        probe: File of the probe's weights; None is refused when the fit begins.

    Raises:
        RibError: If there is no probe, or it does not fit the model.
    """

    name: ClassVar[str] = "lp_ft"
    order: ClassVar[int] = -1
    rib_only: ClassVar[str] = "it begins with a linear probe, a run of the store"

    def __init__(self, probe: str | Path | None = None) -> None:
        self.probe = probe

    def prepare(self, module: Tuned) -> None:
        """Load the linear probe's weights into the model, as the start of fine-tuning."""
        if self.probe is None:
            raise RibError("method.lp_ft: expected the weights of a finished linear probe, got none")
        try:
            module.backbone.load_state_dict(dict(StoredWeights(Path(self.probe))))
        except RuntimeError as error:
            raise RibError(f"method.lp_ft: the linear probe {self.probe} does not fit the model: {error}") from error
