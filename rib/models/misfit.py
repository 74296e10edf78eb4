"""Explain why a file's weights do not fit a network: the tensors that differ, the likely reason, and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from rib.errors import RibError
from rib.models.foreign_formats import FORMATS
from rib.models.head import imagenet_head
from rib.models.renaming import rename

if TYPE_CHECKING:
    from rib.models.start import Start

State = Mapping[str, Tensor]

COUNTER = re.compile(r"(^|\.)num_batches_tracked$")
"""BatchNorm's counter of batches, which rib's computations do not use; 0 if a file lacks it, as in torch."""

IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|total_ops|total_params|n_averaged)$|^AuxLogits\.|^level\d(\.tree\d)*\.project\."
)
"""Tensors that a file may have in addition to the network's: counters of BatchNorm, profilers and weight averaging, the
auxiliary head that Inception v3 was trained with, and layers of DLA that its authors never used."""

OTHER_TRANSFORMERS = re.compile(
    r"(?:.*\.)?(\w+)\.(?:embeddings\.(?:patch_embeddings|norm)|embedder|encoder\.stages)\..*"
)
"""Names that a model of Hugging Face's transformers has; the group is the kind of model."""


def differences(state: State, expected: State) -> tuple[list[str], list[str], list[str]]:
    """Return the names of tensors that a file lacks, has in another shape, or has though the network does not."""
    missing = [name for name in expected if name not in state and not COUNTER.search(name)]
    other = [name for name, tensor in expected.items() if name in state and state[name].shape != tensor.shape]
    extra = [name for name in state if name not in expected and not IGNORED.search(name)]
    return missing, other, extra


def misfit_error(start: Start, given: State, nearest: State, expected: State) -> RibError:
    """Create the error for a file that does not fit, naming the first tensor that differs in the nearest conversion.

    Args:
        start: The pretrained model, whose ``weights`` is the file.
        given: The file's tensors under its own names.
        nearest: Its tensors under the names that fit best.
        expected: The network's tensors.
    """
    file, outputs = start.weights, start.outputs
    scales = [any(name.endswith("logit_scale") for name in names) for names in (given, expected)]
    if scales == [True, False] and start.library != "open_clip":
        return RibError(
            f"model.weights: {file} does not fit {start.architecture}: it is a CLIP model without an ImageNet head: "
            "use model=open_clip"
        )
    missing, other, extra = differences(nearest, expected)
    heads = {name for name, tensor in expected.items() if tensor.ndim and tensor.shape[0] == outputs}
    if start.headless:  # the head is a new one, whatever else has as many rows
        heads = set()
    if heads.issuperset(missing + other) and not extra:
        return _head_error(start, nearest, missing, other)
    if {*missing, *other} - heads:
        missing = [name for name in missing if name not in heads]
    wrong = [*other, *missing, *extra]
    name, more = wrong[0], f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    should, actual = (tuple(names[name].shape) if name in names else "absent" for names in (expected, nearest))
    also = f" (it also holds {', '.join(extra[:3])})" if extra and name not in extra else ""
    reason = next(_reasons(start, given, nearest, expected), "")
    return RibError(
        f"model.weights: {file} does not fit {start.architecture}: {name} should be {should}, is {actual}{more}{also}"
        f"{reason and f'; {reason}'}"
    )


def _head_error(start: Start, nearest: State, missing: list[str], other: list[str]) -> RibError:
    """Create the error for a file that differs from the network only in the head."""
    if start.library == "open_clip" and missing:
        return RibError(
            f"model.weights: {start.weights} has no head and no text tower to make one from; give a file of the whole "
            f"CLIP model, or one that also has {missing[0]}"
        )
    sizes = {nearest[name].shape[0] for name in other if nearest[name].ndim}
    got = f"a head of {' and '.join(map(str, sorted(sizes)))} outputs" if sizes else f"no head ({', '.join(missing)})"
    whose = (
        "ImageNet-1K's classes in their order" if start.outputs == imagenet_head().outputs else "the suite's classes"
    )
    return RibError(
        f"model.weights: {start.weights} has {got}; rib needs {start.outputs} outputs, {whose}; give weights that were "
        "trained with them, or fit a new head with head=probe"
    )


def _reasons(start: Start, given: State, nearest: State, expected: State) -> Iterator[str]:
    """Yield likely reasons why a file does not fit, each with what to do, the best first."""
    known = rename(given, FORMATS)
    if known is not None and (known.format.library == "open_clip") != (start.library == "open_clip"):
        yield f"it is {known.format.title}: use model={known.format.library}"
    if known is not None and known.format.library == "open_clip" and "classifier.weight" in known.state:
        yield "it is a CLIPForImageClassification, whose head open_clip does not have: save a CLIPModel"
    if known is None and (kind := next(filter(None, map(OTHER_TRANSFORMERS.fullmatch, given)), None)):
        yield (
            f"it looks like the model {kind[1]} of transformers; of these rib reads CLIP, ViT, DeiT, ConvNeXT and "
            "ResNet: save the weights under the names of timm"
        )
    file, network = _shape(nearest), _shape(expected)
    if differing := [key for key in ("layers", "width", "patch") if key in file and file[key] != network.get(key)]:
        found = ", ".join(WORDS[key].format(file[key], network.get(key, "none")) for key in differing)
        yield f"it is another architecture ({found}): give the name of the architecture that it was made with"
    if file.get("size") and file.get("size") != network.get("size"):
        yield f"it is for images of {file['size']} pixels: add model.transform.size={file['size']}"
    missing, other, _ = differences(nearest, expected)
    if len(missing) + len(other) > len(expected) / 2:
        yield "most names differ: it is another architecture, or another library's names; check model.name"


WORDS = {"layers": "{} layers, not {}", "width": "width {}, not {}", "patch": "patches of {} pixels, not {}"}


def _shape(state: State) -> dict[str, int]:
    """Return the number of layers, width, patch size and image size of a ViT; empty for other networks."""
    found = {name.removeprefix("visual.").removeprefix("trunk."): tensor for name, tensor in state.items()}
    patches = found.get("patch_embed.proj.weight", found.get("conv1.weight"))
    numbers = [
        int(match[1]) for name in found if (match := re.match(r"(?:blocks|transformer\.resblocks)\.(\d+)\.", name))
    ]
    if patches is None or patches.ndim != 4 or not numbers:
        return {}
    shape = {"layers": max(numbers) + 1, "width": patches.shape[0], "patch": patches.shape[-1]}
    positions = found.get("pos_embed", found.get("positional_embedding"))
    if positions is not None and positions.ndim > 1:
        shape["size"] = math.isqrt(positions.shape[-2]) * patches.shape[-1]
    return shape
