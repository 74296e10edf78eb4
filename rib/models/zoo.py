"""From a model's config to its start (weights file, digest, transform) and from there to a module.

The only importer of timm and open_clip; both are imported where they are needed, so that finding a finished run in
the store does not wait for them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rib.data.transform import Transform
from rib.errors import RibError
from rib.models.mini_weights import NAMES, weights_file
from rib.schema import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rib.models.classifier import Classifier


@dataclass(frozen=True)
class Start:
    """A pretrained model before it is built: what fine-tuning starts from.

    Attributes:
        name: As in commands, tables and the store's folders.
        library: ``mini`` or ``timm``.
        architecture: The library's name for the network, without the checkpoint's tag.
        weights: File of weights, safetensors or a torch file of tensors alone.
        digest: SHA-256 of that file, 16 hex digits.
        transform: The checkpoint's own evaluation transform.
    """

    name: str
    library: str
    architecture: str
    weights: Path
    digest: str
    transform: Transform


def find_start(model: ModelConfig) -> Start:
    """Resolve a model's config without building the model.

    Raises:
        RibError: If the model is unknown, or its weights are not there.
    """
    if model.library == "mini":
        if model.weights is None and model.name not in NAMES:
            raise RibError(f"model.name: expected one of {', '.join(NAMES)}, got {model.name!r}")
        weights = Path(model.weights) if model.weights else weights_file(model.name)
        own: dict[str, Any] = {}
        architecture = "vit_mini"
    elif model.library == "timm":
        own = _timm_transform(model.name)
        architecture = model.name.partition(".")[0]
        if model.weights is None:
            raise RibError(f"model={model.name}: expected a local file of weights, got none; give model.weights=FILE")
        weights = Path(model.weights)
    else:
        raise RibError(f"model.library: expected mini or timm, got {model.library!r}")
    if not weights.is_file():
        raise RibError(f"model.weights: there is no file {weights}")
    given = {key: value for key, value in vars(model.transform).items() if value is not None}
    settled = {**own, **given}
    if missing := {"size", "crop_pct", "interpolation", "mean", "std"} - settled.keys():
        raise RibError(f"model.transform: nothing known about {', '.join(sorted(missing))} of {model.name}; give them")
    transform = Transform(
        size=settled["size"],
        crop_pct=settled["crop_pct"],
        interpolation=settled["interpolation"],
        mean=tuple(settled["mean"]),
        std=tuple(settled["std"]),
    )
    return Start(model.name, model.library, architecture, weights, _file_digest(weights), transform)


def build(start: Start, num_outputs: int) -> Classifier:
    """The model with its pretrained weights, in float32, in eval mode.

    Args:
        start: From `find_start`.
        num_outputs: K, the outputs that the data's catalog expects.

    Raises:
        RibError: If the file does not fit the network, or the network has another number of outputs.
    """
    from rib.models.classifier import Classifier

    backbone = build_backbone(start)
    state = load_weights(start.weights)
    expected = {name: tuple(t.shape) for name, t in backbone.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    if expected != found:
        wrong = sorted(expected.items() ^ found.items())[0][0]
        raise RibError(
            f"model.weights: {start.weights} does not fit {start.architecture}: "
            f"{wrong} should be {expected.get(wrong, 'absent')}, is {found.get(wrong, 'absent')}"
        )
    outputs = int(getattr(backbone, "num_classes", num_outputs))
    if outputs != num_outputs:
        raise RibError(f"model={start.name}: expected {num_outputs} outputs, the checkpoint has {outputs}")
    backbone.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    return Classifier(backbone, start.transform.mean, start.transform.std).eval()


def build_backbone(start: Start) -> nn.Module:
    """The network alone, with whatever weights the library gives it before a checkpoint is loaded."""
    if start.library == "mini":
        from rib.models.mini import build_mini

        return build_mini()
    import timm

    return timm.create_model(start.architecture, pretrained=False)


def load_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a torch file that holds nothing but tensors (no pickled code is run).

    Raises:
        RibError: If the file is damaged or holds anything else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RibError(f"model.weights: cannot read {file} as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise RibError(f"model.weights: expected a dictionary of tensors in {file}, got {type(state).__name__}")
    return state


def _timm_transform(name: str) -> dict[str, Any]:
    """What timm's own record of a checkpoint says about its images."""
    import timm

    known: Sequence[str] = (*timm.list_pretrained(), *timm.list_models())
    cfg = timm.get_pretrained_cfg(name) if name in known else None
    if cfg is None:
        close = difflib.get_close_matches(name, known, n=1)
        raise RibError(f"model.name: timm has no {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return {
        "size": cfg.input_size[-1],
        "crop_pct": cfg.crop_pct,
        "interpolation": cfg.interpolation,
        "mean": cfg.mean,
        "std": cfg.std,
    }


@cache
def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
