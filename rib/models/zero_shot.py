"""A CLIP model as a classifier: its image tower and a head made of class names (Radford et al. 2021, arXiv 2103.00020).

The head's row for a class is the mean of its 80 sentences' unit vectors ("a photo of a goldfish", ...), scaled to
unit length and times the model's learned logit scale, so that logits are 100 x cosine for most models. Sentences and
class names are OpenAI's as open_clip ships them. Fine-tuning trains tower and head alike; stored weights are the
tower's own keys under ``visual.`` and ``head.weight`` (K, D), without a bias.

The text tower makes the head and is not needed again: the head is kept in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.errors import RibError
from rib.models.weights import keep, kept
from rib.runtime.files import digest_of, file_digest
from rib.runtime.locks import hold_while_making

if TYPE_CHECKING:
    from rib.models.start import Start
    from rib.runtime.progress import Advance

BATCH = 256
"""Sentences at once; with the shortest first, a batch is as wide as its longest sentence."""


class ZeroShot(nn.Module):
    """Image tower, unit length, head.

    Args:
        visual: open_clip's image tower, normalised images (B, 3, H, W) to features (B, D).
        width: D.
        num_outputs: K.
    """

    def __init__(self, visual: nn.Module, width: int, num_outputs: int) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, num_outputs, bias=False)

    @property
    def num_classes(self) -> int:
        """K, under timm's name for it."""
        return self.head.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        return cast("Tensor", self.head(F.normalize(self.visual(images), dim=-1)))


@cache
def sentences() -> tuple[tuple[str, ...], ...]:
    """The 80 sentences of each of the 1000 classes, in the order of ImageNet's outputs."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    return tuple(tuple(template(name) for template in OPENAI_IMAGENET_TEMPLATES) for name in IMAGENET_CLASSNAMES)


def make_head(
    clip: Any, tokenize: Callable[[Sequence[str]], Tensor], texts: Sequence[Sequence[str]], advance: Advance
) -> Tensor:
    """The head of a CLIP model.

    Args:
        clip: Of open_clip, with its weights, on any device.
        tokenize: Its tokenizer, texts to ids (N, context).
        texts: The sentences of each class, equally many.
        advance: Told the sentences done.

    Returns:
        Weights (K, D) in float32, the logit scale in them.
    """
    device = clip.logit_scale.device
    tokens = torch.cat([tokenize(list(of_class)) for of_class in texts])
    lengths = (tokens != 0).sum(dim=1)
    order = lengths.argsort(stable=True)
    shorten = _shortener(clip)
    features = []
    with torch.inference_mode():
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            batch = tokens[rows]
            if shorten is not None:
                width = int(lengths[rows].max())
                shorten(width)
                batch = batch[:, :width]
            features.append(clip.encode_text(batch.to(device), normalize=True).float().cpu())
            advance(len(rows), "")
        in_order = torch.cat(features)[order.argsort()]
        mean = in_order.reshape(len(texts), len(texts[0]), -1).mean(dim=1)
        scale = cast("Tensor", clip.logit_scale).exp().float().cpu()
        return (F.normalize(mean, dim=-1) * scale).clone()


def _shortener(clip: Any) -> Callable[[int], None] | None:
    """Sets how many tokens the text tower looks at, where that changes nothing.

    A causal tower read at the end of the sentence does not see the padding behind it: 77 tokens and the sentence's
    own dozen give the same features, at six times the speed.
    """
    mask = getattr(clip, "attn_mask", None)
    if mask is None or getattr(clip, "text_pool_type", None) != "argmax":
        return None
    positions = clip.positional_embedding.detach()

    def shorten(width: int) -> None:
        clip.positional_embedding = nn.Parameter(positions[:width], requires_grad=False)
        clip.attn_mask = mask[:width, :width]

    return shorten


def head_of(start: Start, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP checkpoint's head, as stored: ``head.weight`` (K, D).

    It is read from ``start.heads``, or made by the text tower and kept there: once for all runs and processes.

    Args:
        start: The model; ``weights`` is the checkpoint.
        state: Weights of both towers, under open_clip's names.

    Raises:
        RibError: If the weights do not fit the architecture.
    """
    if start.heads is None:
        return {"head.weight": _head(start, state)}
    # By the file that is read: with weights from elsewhere, the start's digest is another file's.
    digest = digest_of([file_digest(start.weights)[:16], start.architecture, sentences()])
    file = start.heads / f"{digest}.safetensors"
    if (head := kept(file)) is not None:
        return head
    with hold_while_making(file):
        if (head := kept(file)) is None:  # else another process made it while this one waited
            head = {"head.weight": _head(start, state)}
            keep(head, file)
    return head


def build_clip(architecture: str, size: int | None = None) -> Any:
    """Both towers, untrained, for images of the architecture's size or of another, pixels."""
    import open_clip

    config = dict(open_clip.get_model_config(architecture))
    if size is not None:
        config["vision_cfg"] = {**config["vision_cfg"], "image_size": size}
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)


def build_zero_shot(architecture: str, num_outputs: int, size: int | None = None) -> ZeroShot:
    """The image tower with a head of ``num_outputs`` rows, both untrained; the text tower is left behind."""
    import open_clip

    width = open_clip.get_model_config(architecture)["embed_dim"]
    return ZeroShot(build_clip(architecture, size).visual, width, num_outputs)


def _head(start: Start, state: Mapping[str, Tensor]) -> Tensor:
    import open_clip

    from rib.runtime.progress import progress

    clip = build_clip(start.architecture).eval()
    try:
        clip.load_state_dict(_names_of(clip, state))
    except RuntimeError as error:
        wrong = (str(error).split("\n", 2)[1:2] or [str(error)])[0].strip()
        raise RibError(f"model.weights: {start.weights} does not fit {start.architecture}: {wrong}") from error
    clip.to("cuda" if torch.cuda.is_available() else "cpu")
    texts = sentences()
    with progress(f"{start.name}: zero-shot head, once", len(texts) * len(texts[0]), "sentences") as advance:
        return make_head(clip, open_clip.get_tokenizer(start.architecture), texts, advance)


def _names_of(clip: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both towers under the model's own names, nothing resized: what open_clip converts of its own older files."""
    from open_clip.model import convert_to_custom_text_state_dict

    named = dict(state)
    if "positional_embedding" in named and not hasattr(clip, "positional_embedding"):
        named = convert_to_custom_text_state_dict(named)
    for name in ("logit_scale", "logit_bias"):
        if name in named and getattr(clip, name, None) is not None:
            named[name] = named[name].reshape(getattr(clip, name).shape)
    if getattr(clip, "logit_bias", None) is not None:
        named.setdefault("logit_bias", torch.zeros_like(clip.logit_bias))  # in no head's weights
    return named
