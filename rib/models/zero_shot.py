"""Zero-shot CLIP classifier: the image tower, with a head made from class names.

Radford et al. 2021, "Learning transferable visual models from natural language supervision", arXiv 2103.00020. The
head's row for a class is the mean of the text features, scaled to unit length, of 80 sentences ("a photo of a
goldfish", ...). The mean is scaled to unit length and multiplied by the model's learned logit scale, so logits are 100
x cosine for most models. Sentences and class names are OpenAI's, as shipped in open_clip. Fine-tuning trains both tower
and head. Stored weights have the tower's own keys under ``visual.``, and ``head.weight`` (K, D) without a bias.

The text tower is needed only to make the head, which is cached in a file. A file with a head of its own (a classifier
of WiSE-FT's code) needs none, and may give the head a bias, ``head.bias``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.errors import RibError
from rib.models.head import ClassTexts
from rib.models.weights import load_cached, save_cached
from rib.runtime.files import digest_of
from rib.runtime.locks import hold_while_making
from rib.runtime.weights_file import weights_file_digest

if TYPE_CHECKING:
    from rib.models.start import Start
    from rib.runtime.progress import Advance

BATCH = 256
"""Sentences per batch of the text tower; they are sorted by length, so that batches are as narrow as possible."""

HEAD_BIAS = re.compile(r"(?:.*\.)?classification_head\.bias|(?:(?:module|model|backbone|_orig_mod)\.)*head\.bias")
"""Names of a head's bias in files of whole classifiers."""


class ZeroShot(nn.Module):
    """CLIP's image tower with a linear head on features of unit length.

    Args:
        visual: open_clip's image tower from normalised images (B, 3, H, W) to features (B, D).
        width: D, the number of features.
        num_outputs: K, the number of classes.
        bias: True for a head with a bias, such as a probe; one made from sentences has none.
    """

    def __init__(self, visual: nn.Module, width: int, num_outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(width, num_outputs, bias=bias)

    def match_head(self, state: Mapping[str, Tensor]) -> None:
        """Give the head a bias if a file's head has one that is not zero.

        Args:
            state: Tensors under the file's names.
        """
        biases = [tensor for name, tensor in state.items() if HEAD_BIAS.fullmatch(name)]
        if any(bias.any() for bias in biases):
            self.head.bias = nn.Parameter(torch.zeros(self.head.out_features))

    @property
    def num_classes(self) -> int:
        """Number of outputs K, under the name that timm's networks use for it."""
        return self.head.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of normalised images (B, 3, H, W)."""
        return cast("Tensor", self.head(F.normalize(self.visual(images), dim=-1)))


@cache
def sentences(texts: ClassTexts | None = None) -> tuple[tuple[str, ...], ...]:
    """Return the sentences for each class, in the order of outputs: "a photo of a goldfish", and so on.

    Args:
        texts: Words of the classes, and templates; None: 80 sentences for each of ImageNet's 1000 classes.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    names = IMAGENET_CLASSNAMES if texts is None else texts.names
    own = () if texts is None else texts.templates
    make = [partial(_fill, template) for template in own] or OPENAI_IMAGENET_TEMPLATES
    # As a tuple of strings, since it enters the digest of the head.
    return tuple(tuple(template(name) for template in make) for name in names)


def _fill(template: str, words: str) -> str:
    return template.replace("{}", words)


def make_head(
    clip: Any, tokenize: Callable[[Sequence[str]], Tensor], texts: Sequence[Sequence[str]], advance: Advance
) -> Tensor:
    """Compute the zero-shot head of a CLIP model.

    Radford et al. 2021, section 3.1.4, arXiv 2103.00020.

    Args:
        clip: open_clip model with its weights, on any device.
        tokenize: The model's tokenizer, from texts to ids (N, context).
        texts: The sentences of each of the K classes, equally many per class.
        advance: Called with the number of sentences done, for the progress bar.

    Returns:
        Weights (K, D) in float32 on the CPU, including the logit scale.
    """
    device = clip.logit_scale.device
    tokens = torch.cat([tokenize(list(class_texts)) for class_texts in texts])
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
    """Return a function that sets the text tower's number of tokens; None if padding changes the tower's features.

    A causal text tower whose feature is the last token's never attends to the padding after it. So 77 tokens and the
    sentence's own dozen give the same features, the latter six times as fast.
    """
    mask = getattr(clip, "attn_mask", None)  # None in towers that are not causal (SigLIP's)
    if mask is None or getattr(clip, "text_pool_type", None) != "argmax":
        return None
    positions = clip.positional_embedding.detach()

    def shorten(width: int) -> None:
        clip.positional_embedding = nn.Parameter(positions[:width], requires_grad=False)
        clip.attn_mask = mask[:width, :width]

    return shorten


def zero_shot_head(start: Start, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP checkpoint's zero-shot head as a state dict, ``head.weight`` (K, D).

    It is read from the cache ``start.heads``, or made with the text tower and saved there, once for all runs and
    processes.

    Args:
        start: The pretrained model, whose ``weights`` is the checkpoint.
        state: Weights of both towers, under open_clip's names.

    Raises:
        RibError: If the weights do not fit the architecture.
    """
    if start.heads is None:
        return {"head.weight": _compute_head(start, state)}
    # The digest of the file that is read, not start.digest: with replaced weights that is another file's.
    digest = digest_of([weights_file_digest(start.weights)[:16], start.architecture, sentences(start.texts)])
    file = start.heads / f"{digest}.safetensors"
    if (head := load_cached(file)) is not None:
        return head
    with hold_while_making(file):
        if (head := load_cached(file)) is None:  # else another process made it while this one waited
            head = {"head.weight": _compute_head(start, state)}
            save_cached(head, file)
    return head


def build_clip(architecture: str, size: int | None = None) -> Any:
    """Build both towers of a CLIP model, untrained.

    Args:
        architecture: open_clip's name for the model.
        size: Side of the images, pixels; None: the architecture's own.
    """
    import open_clip

    config = dict(open_clip.get_model_config(architecture))
    if size is not None:
        config["vision_cfg"] = {**config["vision_cfg"], "image_size": size}
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)


def build_zero_shot(architecture: str, num_outputs: int, size: int | None = None, bias: bool = False) -> ZeroShot:
    """Build the image tower of a CLIP model with a head, both untrained.

    Args:
        architecture: open_clip's name for the model.
        num_outputs: K, the number of classes.
        size: Side of the images, pixels; None: the architecture's own.
        bias: True for a head with a bias.
    """
    import open_clip

    width = open_clip.get_model_config(architecture)["embed_dim"]
    return ZeroShot(build_clip(architecture, size).visual, width, num_outputs, bias)


def _compute_head(start: Start, state: Mapping[str, Tensor]) -> Tensor:
    import open_clip

    from rib.runtime.progress import progress

    clip = build_clip(start.architecture).eval()
    named = _convert_names(clip, state)
    if missing := [name for name in clip.state_dict() if name not in named and not name.startswith("visual.")]:
        raise RibError(
            f"model.weights: {start.weights} does not fit {start.architecture}: it has no head, and its text tower, "
            f"which would make one, lacks {missing[0]}; give the whole CLIP model, or the image tower with its head"
        )
    try:
        clip.load_state_dict(named)
    except RuntimeError as error:
        # torch lists every difference on a line of its own; the first is enough.
        reason = (str(error).split("\n", 2)[1:2] or [str(error)])[0].strip()
        raise RibError(f"model.weights: {start.weights} does not fit {start.architecture}: {reason}") from error
    clip.to("cuda" if torch.cuda.is_available() else "cpu")
    texts = sentences(start.texts)
    title = f"{start.name}: computing the zero-shot head (first use only)"
    with progress(title, len(texts) * len(texts[0]), "sentences") as advance:
        return make_head(clip, open_clip.get_tokenizer(start.architecture), texts, advance)


def _convert_names(clip: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the names of open_clip's older files to the model's own, without resizing any tensor."""
    from open_clip.model import convert_to_custom_text_state_dict

    named = dict(state)
    if "positional_embedding" in named and not hasattr(clip, "positional_embedding"):
        named = convert_to_custom_text_state_dict(named)
    for name in ("logit_scale", "logit_bias"):
        if name in named and getattr(clip, name, None) is not None:
            named[name] = named[name].reshape(getattr(clip, name).shape)
    if getattr(clip, "logit_bias", None) is not None:
        named.setdefault("logit_bias", torch.zeros_like(clip.logit_bias))  # it shifts all logits equally
    return named
