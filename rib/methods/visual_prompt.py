"""Visual prompting: a trained frame around every image, before a frozen network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from rib.errors import RibError
from rib.methods.base import Method, Tuned
from rib.models.adapters import BorderPrompt
from rib.models.classifier import Classifier


class VisualPrompt(Method):
    """Train a frame v around every image, max_v P(y | x + v; theta0), with the network frozen and in eval mode.

    Bahng et al. 2022, "Exploring Visual Prompts for Adapting Large-Scale Models", eq. 3, arXiv 2203.17274. The frame is
    added to the *normalised* image, as in the paper's code; inside it nothing changes. The frame is saved beside the
    weights of the run (`rib.models.classifier.Classifier.stored_weights`), which are the pretrained ones.

    In a config::

        visual_prompt:
          _target_: rib.methods.visual_prompt.VisualPrompt
          border: null
          init: zeros
          lr: null
          seed: 0

    Differs from the official code (hjbahng/visual_prompting, ``models/prompters.py``, ``main_clip.py``): there the
    frame starts as noise (``init=randn``), the rate is 40 with SGD for 1000 epochs, and the epoch with the best
    accuracy on the test images is kept; here the frame starts at zero, and the last step counts.

    Cost: a forward and a backward pass through the whole network; memory of activations, none for weights. Its
    gradients are small: the paper trains 1000 epochs at learning rate 40. Does not stack with lora or linear_probe,
    which train other parts, layer_decay or surgical, since a frame has no layers, or ewc, l2sp, spd and ftp, which
    would hold the frame; its runs cannot be averaged. In rib's commands only.

    Args:
        border: Width of the frame, pixels; null is the paper's 30 of 224, scaled with the image's side.
        init: ``zeros`` (the pretrained model exactly) or ``randn``, the paper's unit noise, which covers the frame.
        lr: Peak learning rate of the frame; null is ``optimizer.lr``.
        seed: Seed of the noise.

    Raises:
        RibError: For a border that leaves no image inside, an unknown init, or an invalid learning rate.
    """

    name: ClassVar[str] = "visual_prompt"
    order: ClassVar[int] = 0

    def __init__(
        self,
        border: int | None = None,
        init: Literal["zeros", "randn"] = "zeros",
        lr: float | None = None,
        seed: int = 0,
    ) -> None:
        if border is not None and border < 1:
            raise RibError(f"method.visual_prompt.border: expected at least 1 pixel or null, got {border}")
        if init not in ("zeros", "randn"):
            raise RibError(f"method.visual_prompt.init: expected zeros or randn, got {init!r}")
        if lr is not None and not 0 <= lr < float("inf"):
            raise RibError(f"method.visual_prompt.lr: expected a finite number of 0 or more, or null, got {lr}")
        self.border = border
        self.init = init
        self.lr = lr
        self.seed = seed

    def prepare(self, module: Tuned) -> None:
        """Freeze the network and add the trainable frame at its input, sized for the first source image."""
        model = _classifier(module)
        loader, _ = module.source_images(1, self.seed)
        (side,) = {images.shape[-1] for images, *_ in loader}
        border = max(1, round(side * 30 / 224)) if self.border is None else self.border
        if 2 * border >= side:
            raise RibError(
                f"method.visual_prompt.border: expected fewer than {side / 2:g} pixels (images are {side} px), "
                f"got {border}"
            )
        frame = torch.zeros(3, side, side)
        if self.init == "randn":
            frame = torch.randn(frame.shape, generator=torch.Generator().manual_seed(self.seed))
        model.requires_grad_(False)
        model.prompt = BorderPrompt(frame, border).to(model.mean.device)

    def parameter_groups(self, module: Tuned) -> list[dict[str, Any]] | None:
        """Return the frame's parameter group if ``lr`` is set, else None."""
        prompt = _classifier(module).prompt
        assert prompt is not None, "prepare comes before the optimizer"
        return None if self.lr is None else [{"params": [prompt.frame], "lr": self.lr}]

    def before_batch(self, module: Tuned) -> None:
        """Switch to eval mode at each batch, since Lightning puts the module back into train mode at several points."""
        module.model.eval()


def _classifier(module: Tuned) -> Classifier:
    assert isinstance(module.model, Classifier), "in rib's commands alone"
    return module.model
