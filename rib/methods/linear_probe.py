"""Linear probing: train the head on features that stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import lightning.pytorch as L

from rib.errors import RibError
from rib.methods.base import Method
from rib.models.adapters import outer_norm_names, token_names
from rib.models.layers import head_names

if TYPE_CHECKING:
    from rib.training.module import FineTuner


class LinearProbe(Method):
    """Trains the head w of w^T f(x; theta0) alone; the features f stay those of the start model.

    Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", section 3,
    arXiv 2202.10054. Features that stay need more than frozen weights: the network is in eval mode while it trains, so
    that BatchNorm's statistics do not move (alone they cost an EfficientNet 29 points on ImageNet-val) and nothing is
    dropped.

    In a config::

        linear_probe:
          _target_: rib.methods.linear_probe.LinearProbe
          train: frozen

    Differs from the official code (AnanyaKumar/transfer_learning, ``log_reg_sk.py``): there the head is a new one,
    fitted by logistic regression (L-BFGS) to stored features for many strengths of weight decay, of which the best on
    held-out images stays. Here it is the pretrained head, trained by the run's optimizer for the run's epochs; it is no
    minimum.

    Cost: a forward pass and the head's gradient. Not beside what trains or freezes other parts: lora, visual_prompt,
    freeze_embed, lp_ft.

    Args:
        train: ``frozen`` or ``unfrozen_norms``, the ImageNet-RIB authors' code: on a ViT tokens, positions and
            LayerNorms outside the blocks train too; the network is in train mode, so that BatchNorm's statistics move
            unless ``batch_norm=frozen``.

    Raises:
        RibError: For another value.
    """

    order: ClassVar[int] = 0

    def __init__(self, train: Literal["frozen", "unfrozen_norms"] = "frozen") -> None:
        if train not in ("frozen", "unfrozen_norms"):
            raise RibError(f"method.linear_probe.train: expected frozen or unfrozen_norms, got {train!r}")
        self.train = train

    @property
    def name(self) -> str:
        """As in logs and metrics.json."""
        return "linear_probe"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze all but the head."""
        if stage != "fit":
            return
        module: FineTuner = pl_module  # type: ignore[assignment]
        backbone = module.model.backbone
        trained = head_names(backbone)
        if self.train == "unfrozen_norms":
            trained |= token_names(backbone) | outer_norm_names(backbone)
        for name, p in backbone.named_parameters():
            p.requires_grad_(name in trained)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Eval mode, anew at each batch: Lightning puts the module back into train mode at several points."""
        if self.train == "frozen":
            module: FineTuner = pl_module  # type: ignore[assignment]
            module.model.eval()
