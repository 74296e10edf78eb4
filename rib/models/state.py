"""Read a file of weights in any common format: recognise its format, find the model's tensors in it, check their types.

No code in a file is executed. The format is recognised by the first bytes and not by the suffix, since people rename
downloads. The names of the tensors are handled by `rib.models.convert`.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rib.errors import RibError
from rib.models.pickles import conversion_hint, pickled_objects
from rib.runtime.console import say_once
from rib.runtime.weights_file import INDEX, is_index, shards

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "state")
"""Names under which training scripts save a model's weights in a larger dictionary."""

AVERAGED = re.compile(r"(^|[_.])(ema|swa|averaged?)([_.]|$)")
"""Pattern of the names of a second copy of the weights, averaged over training."""

NOT_WEIGHTS = re.compile(r"optim|sched|scaler|callback|hyper_?param|config|args|loop|rng")
"""Pattern of the names of a checkpoint's other entries, such as an optimizer's state."""

FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}

BY_START = {
    b"version https://git-lfs": "a git-lfs pointer in place of the weights; run git lfs pull where it came from",
    b"<": "a web page; the download needed a login, or its address was that of the page about the file",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed; unpack it",
}
"""Kinds of files that are not supported, by their first bytes."""

BY_SUFFIX = {
    ".onnx": "an ONNX file",
    ".msgpack": "a Flax file",
    ".npz": "an archive of NumPy arrays, as Flax and big_vision write",
    ".npy": "a NumPy array",
    ".json": "a JSON file",
    ".distcp": "one shard of a distributed checkpoint; merge the shards first",
}
"""Kinds of files that are not supported, by their suffix."""

READS = "rib reads safetensors, and PyTorch files that hold only tensors"


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a model's weights from a file of any supported format, under the file's own parameter names.

    In a training script's checkpoint they are looked for under the names that such scripts use; if there was a choice,
    a notice says which were used.

    Args:
        file: safetensors, or a PyTorch file that can be read without executing code.

    Raises:
        RibError: If the file has another format, is damaged, or holds quantised, sparse or other special tensors.
    """
    content = _load(file)
    state = _select_weights(content, file)
    for name, tensor in state.items():
        if (kind := _unsupported_kind(tensor)) is not None:
            raise RibError(
                f"model.weights: {name} of {file} is {kind}; expected ordinary tensors of float32, float16 or bfloat16"
            )
    return state


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Check that weights hold no NaN or infinite values.

    Args:
        state: The weights.
        file: File that they come from, for the message.

    Raises:
        RibError: If there are any; the message names the first tensor.
    """
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        others = f" and in {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise RibError(
            f"model.weights: {file} holds NaN or infinite values in {broken[0]}{others}; the training that wrote it "
            "diverged, or the file is damaged; use another file"
        )


def _load(file: Path) -> Any:
    """Return the content of a weights file, or the tensors of all shards that an index lists."""
    if not is_index(file):
        return _load_file(file)
    say_once(f"{file.name}: {len(shards(file))} shards read as one file")
    return {name: tensor for shard in shards(file) for name, tensor in _load_file(shard, one_of_many=True).items()}


def _load_file(file: Path, one_of_many: bool = False) -> Any:
    """Return the content of one file, loaded with safetensors or torch."""
    from safetensors.torch import load_file

    if file.is_dir():
        raise RibError(f"model.weights: {file} is a folder; expected one file that holds all weights")
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
        is_safetensors = start[8:9] == b"{"  # the JSON header follows eight bytes that hold its length
        if not is_safetensors and (kind := _unsupported_format(file, start)) is not None:
            raise RibError(f"model.weights: {file} is {kind}; {READS}")
        shard = re.search(r"-\d+-of-(\d+)\.\w+$", file.name)
        if shard and int(shard[1]) > 1 and not one_of_many:
            index = file.name.replace(shard[0], f"{file.suffix}{INDEX}")
            raise RibError(f"model.weights: {file} is one of {int(shard[1])} shards; give their index, {index}")
        if is_safetensors or (file.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))):
            return load_file(file)
        # timm's training script saves its arguments, a Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), file.open("rb") as stream:
            # A stream, since torch.load with a file name decides by its suffix.
            return torch.load(stream, map_location="cpu", weights_only=True)
    except RibError:
        raise
    except Exception as error:
        raise RibError(f"model.weights: cannot read {file} as weights: {_reason(file, error)}") from error


def _unsupported_format(file: Path, start: bytes) -> str | None:
    """Describe the format of a file from its first bytes, if it is one that rib does not read; else None."""
    if not start:
        return "empty; copy or download it again"
    for first, kind in BY_START.items():
        if start.lstrip().startswith(first):
            return kind
    if file.suffix in BY_SUFFIX:
        return BY_SUFFIX[file.suffix]
    if start.startswith(b"PK") and zipfile.is_zipfile(file):
        inside = [Path(name).name for name in zipfile.ZipFile(file).namelist()]
        if any(name.endswith(".npy") for name in inside):
            return BY_SUFFIX[".npz"]
        if "constants.pkl" in inside:
            return "a TorchScript archive, which contains code; save its state_dict()"
        if "data.pkl" not in inside:
            return "a zip archive without PyTorch data"
    return None


def _reason(file: Path, error: Exception) -> str:
    """Describe in a few words why a file could not be loaded."""
    if needs := pickled_objects(file):
        more = f" and {len(needs) - 1} more" if len(needs) > 1 else ""
        hint = conversion_hint(file, needs)
        return f"it holds Python objects ({needs[0]}{more}), whose code rib does not execute; {hint}"
    return f"it is damaged, or has another format ({' '.join(str(error).split())[:120]})"


def _select_weights(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the dictionary of weights in a checkpoint, that of an averaged copy only if there is no other."""
    if _is_state(content):
        return dict(content)
    if isinstance(content, Mapping) and "ds_version" in content:
        raise RibError(
            f"model.weights: {file} is a part of a DeepSpeed checkpoint; make one file with its zero_to_fp32.py"
        )
    states = _states(content)
    plain = [name for name in states if not AVERAGED.search(name)]
    usual = [name for name in plain if name.rpartition(".")[2] in WRAPPERS]
    for choice in (usual, plain, [] if plain else list(states)):
        if len(choice) == 1:
            _say_selected(choice[0], [name for name in states if name != choice[0]], file)
            return dict(states[choice[0]])
    if states:
        raise RibError(
            f"model.weights: {file} holds several models ({', '.join(states)}); save the one to use in a file of its "
            "own"
        )
    got = f"one of type {type(content).__name__}"
    if isinstance(content, Mapping):
        odd = [str(name) for name, tensor in content.items() if not isinstance(tensor, Tensor)]
        got = f"one with {', '.join(odd[:3])} in it" if odd else "an empty one"
    raise RibError(f"model.weights: expected a dictionary of tensors in {file}, got {got}")


def _is_state(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())


def _states(content: Any, inside: str = "") -> dict[str, Mapping[str, Tensor]]:
    """Return all dictionaries of tensors in a checkpoint, by name; nested names have dots (``model.state_dict``)."""
    found: dict[str, Mapping[str, Tensor]] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if not isinstance(name, str) or NOT_WEIGHTS.search(name.lower()):
            continue
        if _is_state(value):
            found[inside + name] = value
        elif name in WRAPPERS or AVERAGED.search(name):
            found |= _states(value, f"{inside}{name}.")
    return found


def _say_selected(selected: str, others: list[str], file: Path) -> None:
    """Tell the user which dictionary of weights is used if there are several, or if its name is unusual."""
    if not others:
        if selected not in WRAPPERS:
            say_once(f"{file.name}: weights taken from {selected!r}")
        return
    averaged = [name for name in others if AVERAGED.search(name)]
    copy = f"it also holds an averaged copy of the weights ({', '.join(averaged)})" if averaged else ""
    rest = ", ".join(name for name in others if name not in averaged)
    also = "; ".join(filter(None, (copy, f"not used: {rest}" if rest else "")))
    entry = "".join(f"[{name!r}]" for name in others[0].split("."))
    command = f"torch.save(torch.load({file.name!r}, weights_only=False){entry}, 'other.pt')"
    say_once(
        f"{file.name}: weights taken from {selected!r}; {also}. To use another, save it in a file of its own: {command}"
    )


def _unsupported_kind(tensor: Tensor) -> str | None:
    """Describe why a tensor cannot be a network's weight or buffer; None if it can."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.dtype not in FLOATS | INTEGERS:
        return f"of {str(tensor.dtype).removeprefix('torch.')}"
    return None
