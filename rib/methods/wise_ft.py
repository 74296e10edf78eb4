"""WiSE-FT: interpolation between the pretrained and the fine-tuned weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from rib.methods.merge import Ingredients, Merge, check_coefficient, single_ingredient
from rib.models.weights import interpolate

FIXED = 0.5
"""The paper's alpha where none can be chosen."""


class WiseFT(Merge):
    """Interpolation of weights: theta = (1 - alpha) theta0 + alpha theta_ft.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903, eq. 1 (there written with the
    classifier apart). In a config::

        wise_ft:
          _target_: rib.methods.wise_ft.WiseFT
          ingredients: [finetune]
          alpha: 0.5
          curve: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

    Differs from the official code (mlfoundations/wise-ft, ``src/wise_ft.py``): there the start is CLIP with a zero-shot
    head, and buffers are interpolated like weights; here counters are not, and rib's commands estimate BatchNorm's
    statistics on source images. Weights are interpolated in the same way.

    In your own Trainer ``WiseFT(alpha=0.5)`` interpolates between the start and the end of that fit. Checkpoints in
    between hold the fine-tuned weights, final.ckpt the interpolated ones. BatchNorm's statistics are interpolated, as
    in the official code; ``torch.optim.swa_utils.update_bn`` estimates them.

    Costs nothing after its ingredient; each alpha of the curve is one more forward pass per image. Does not stack with
    `visual_prompt`, whose weights are the pretrained ones.

    Args:
        alpha: 0 (the start) to 1 (the fine-tuned end).
        curve: Alphas scored in the same pass, saved as curve.csv and a figure. With a held-out part the figure marks
            the one that is best there.
        choose: Use the alpha of the curve (or of 0, .1, ..., 1) with the best accuracy on the held-out images, the
            smallest of several, instead of ``alpha``.
        extrapolate: Allow alphas outside 0..1.

    Raises:
        RibError: For an alpha outside 0..1, or with ``choose`` where nothing was held out.
    """

    name: ClassVar[str] = "wise_ft"
    by_depth: ClassVar[bool] = False

    def __init__(
        self,
        alpha: float = FIXED,
        curve: Sequence[float] | None = None,
        choose: bool = False,
        extrapolate: bool = False,
    ) -> None:
        self.alpha = check_coefficient("method.wise_ft.alpha", alpha, extrapolate)
        self.curve = [check_coefficient("method.wise_ft.curve", a, extrapolate) for a in curve or ()]
        self.chooses = choose
        self.chosen: float | None = None

    def merge(self, given: Ingredients) -> dict[str, Tensor]:
        """Return the weights interpolated at the fixed alpha, or at the one chosen on held-out images."""
        end = single_ingredient(self.name, given)
        alpha = self.alpha
        if self.chooses or (self.curve and given.accuracy is not None):
            accuracy = {a: given.held_out_accuracy(interpolate(given.start, end, a)) for a in self._candidates}
            self.chosen = max(accuracy, key=lambda a: (accuracy[a], -a))
            alpha = self.chosen if self.chooses else alpha
        return interpolate(given.start, end, alpha)

    def variants(self, given: Ingredients) -> dict[str, dict[str, Tensor]]:
        """Return the interpolated weights by alpha for the curve, which includes the fixed and the chosen alpha."""
        end = single_ingredient(self.name, given)
        return {f"{a:g}": interpolate(given.start, end, a) for a in self._candidates} if self.curve else {}

    @property
    def _candidates(self) -> list[float]:
        tenths = [i / 10 for i in range(11)]
        return sorted({*(self.curve or tenths), FIXED})

    def report(self) -> dict[str, float]:
        """Return the alpha that was chosen by accuracy on held-out images; an empty dict if none was chosen."""
        return {} if self.chosen is None else {"wise_ft.chosen_alpha": self.chosen}
