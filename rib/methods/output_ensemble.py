"""An ensemble of outputs: several models answer, and their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge


class OutputEnsemble(Merge):
    """p(y|x) = sum_i w_i(x) p_i(y|x), with equal weights or w_i proportional to exp(-H(p_i(.|x))).

    The plain mean is what weight averaging is compared with (Wortsman et al. 2022, arXiv 2203.05482, section 4); the
    entropy form gives a sure model more say for each image, the coefficient of DaWin (Oh et al. 2025, arXiv
    2410.03782, eq. 4) applied to outputs in the place of weights. Probabilities are over the dataset's own classes.
    In a config::

        output_ensemble:
          _target_: rib.methods.output_ensemble.OutputEnsemble
          ingredients: [pretrained, finetune]
          weights: equal

    Differs from the official code (naver-ai/dawin, ``dawin_rft/main_dawin.py``): there probabilities are tempered
    first, by constants found for three CLIP models, and the coefficient may be shifted by the mean entropies of the
    whole test set. Here an image's answer depends on that image alone. Wortsman et al. average logits, not
    probabilities.

    Costs N forwards an image, or none where every ingredient was run with ``predictions.logits=true``. It has no
    weights, so it is refused where weights are averaged.

    Args:
        weights: ``equal`` or ``entropy``.

    Raises:
        RibError: For other weights.
    """

    def __init__(self, weights: Literal["equal", "entropy"] = "equal") -> None:
        if weights not in ("equal", "entropy"):
            raise RibError(f"method.output_ensemble.weights: expected equal or entropy, got {weights!r}")
        self.weights = weights

    @property
    def name(self) -> str:
        """As in configs."""
        return "output_ensemble"

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """There are no merged weights.

        Raises:
            RibError: Always.
        """
        raise RibError("method.output_ensemble: it has no weights of its own; run it with python -m rib.train")

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """The ensemble's logits.

        Args:
            logits: Of each model over a dataset's classes, (B, C).

        Returns:
            The logarithm of the averaged probabilities, (B, C).
        """
        log_p = torch.stack([z.log_softmax(dim=1) for z in logits])
        if self.weights == "equal":
            return log_p.logsumexp(dim=0) - torch.tensor(float(len(log_p))).log()
        entropy = -(log_p.exp() * log_p).sum(dim=2, keepdim=True)
        return (log_p + (-entropy).log_softmax(dim=0)).logsumexp(dim=0)
