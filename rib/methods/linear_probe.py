"""Linear probing: train the head on the frozen features of the start model."""

from __future__ import annotations

from typing import ClassVar, Literal

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.adapters import outer_norm_names, token_names


class LinearProbe(Method):
    """Train only the head w of w^T f(x; theta0); the features f stay those of the pretrained model.

    Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", section 3,
    arXiv 2202.10054. Frozen weights are not enough for that: the network is in eval mode while the head trains, so that
    BatchNorm's statistics do not move (moving alone, they cost an EfficientNet 29 points on ImageNet-val) and dropout
    is off.

    In a config::

        linear_probe:
          _target_: rib.methods.linear_probe.LinearProbe
          train: frozen

    Differs from the official code (AnanyaKumar/transfer_learning, ``log_reg_sk.py``): there the head is a new one,
    fitted by logistic regression (L-BFGS) to stored features for many strengths of weight decay, of which the best on
    held-out images stays. Here it is the pretrained head, trained by the run's optimizer for the run's epochs; it does
    not reach a minimum.

    Cost: one forward pass over the source, since the features of an image stay the same; one a step where images
    differ from epoch to epoch (``data.augment``). Does not stack with methods that train or freeze other parts: lora,
    visual_prompt, freeze_embed, lp_ft.

    Args:
        train: ``frozen`` or ``unfrozen_norms``, the ImageNet-RIB authors' code: on a ViT tokens, positions and
            LayerNorms outside the blocks train too; the network is in train mode, so that BatchNorm's statistics move
            unless ``batch_norm=frozen``.

    Raises:
        RibError: For another value of ``train``.
    """

    name: ClassVar[str] = "linear_probe"
    order: ClassVar[int] = 0

    def __init__(self, train: Literal["frozen", "unfrozen_norms"] = "frozen") -> None:
        if train not in ("frozen", "unfrozen_norms"):
            raise RibError(f"method.linear_probe.train: expected frozen or unfrozen_norms, got {train!r}")
        self.train = train

    def prepare(self, module: Tuned) -> None:
        """Freeze all parameters except those of the head, or of the parts that ``train`` names."""
        backbone = module.backbone
        trained = module.head
        if self.train == "unfrozen_norms":
            trained |= token_names(backbone) | outer_norm_names(backbone)
        for name, p in backbone.named_parameters():
            p.requires_grad_(name in trained)

    def begin(self, module: Tuned) -> None:
        """Switch to eval mode before the first batch, in which the features of all images can be computed."""
        self.before_batch(module)

    def before_batch(self, module: Tuned) -> None:
        """Switch to eval mode at each batch, since Lightning puts the module back into train mode at several points."""
        if self.train == "frozen":
            module.model.eval()
