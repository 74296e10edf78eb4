"""Output ensemble: the average of several models' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rib.errors import RibError
from rib.methods.merge import Ingredients, Merge


class OutputEnsemble(Merge):
    """Mean of probabilities, p(y|x) = sum_i w_i(x) p_i(y|x), equal or with w_i proportional to exp(-H(p_i(.|x))).

    The plain mean is what weight averaging is compared with (Wortsman et al. 2022, arXiv 2203.05482, section 4); the
    entropy form gives a more confident model more weight for each image, with the coefficient of DaWin (Oh et al. 2025,
    arXiv 2410.03782, eq. 4) applied to outputs instead of weights. Probabilities are over the dataset's own classes.

    In a config::

        output_ensemble:
          _target_: rib.methods.output_ensemble.OutputEnsemble
          ingredients: [pretrained, finetune]
          weights: equal

    Differs from the official code (naver-ai/dawin, ``dawin_rft/main_dawin.py``): there probabilities are tempered
    first, by constants found for three CLIP models, and the coefficient may be shifted by the mean entropies of the
    whole test set. Here the output for an image depends on that image alone. Wortsman et al. average logits, not
    probabilities.

    Costs N forward passes per image, or none where every ingredient was run with ``predictions.logits=true``. It has no
    weights, so it is refused where weights are averaged. In rib's commands only.

    Args:
        weights: ``equal`` or ``entropy``.

    Raises:
        RibError: For another value of ``weights``.
    """

    name: ClassVar[str] = "output_ensemble"
    rib_only: ClassVar[str] = "it averages the outputs of finished runs and has no weights"

    def __init__(self, weights: Literal["equal", "entropy"] = "equal") -> None:
        if weights not in ("equal", "entropy"):
            raise RibError(f"method.output_ensemble.weights: expected equal or entropy, got {weights!r}")
        self.weights = weights

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Raise an error, since an ensemble of outputs has no merged weights.

        Raises:
            RibError: Always.
        """
        raise RibError(
            "method.output_ensemble: it averages predictions, so there are no merged weights to return; score it with "
            "python -m rib.train"
        )

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Average the probabilities of several models, given their logits.

        Args:
            logits: Logits of each model over a dataset's classes, (B, C).

        Returns:
            The logarithm of the averaged probabilities, (B, C).
        """
        log_p = torch.stack([z.log_softmax(dim=1) for z in logits])
        if self.weights == "equal":
            return log_p.logsumexp(dim=0) - torch.tensor(float(len(log_p))).log()
        entropy = -(log_p.exp() * log_p).sum(dim=2, keepdim=True)
        return (log_p + (-entropy).log_softmax(dim=0)).logsumexp(dim=0)
