"""Files of weights as they come, read: what kind of file it is, where in it the weights are, whether they are numbers.

No code of a file is run. The kind is told by the first bytes and not by the name, since people rename what they
download. Names are not looked at here: `rib.models.convert` compares them with the network's.
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
from rib.runtime.console import say_once

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "state")
"""Under which names training scripts keep a model's weights beside an optimizer's state."""

AVERAGED = re.compile(r"(^|[_.])(ema|swa|averaged?)([_.]|$)")
"""In the name of a second copy of the weights, averaged over training."""

BESIDE = re.compile(r"optim|sched|scaler|callback|hyper_?param|config|args|loop|rng")
"""In the names of what lies beside the weights and is none."""

FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

WHOLE = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}

BY_START = {
    b"version https://git-lfs": "a pointer of git-lfs in place of the weights; run git lfs pull where it came from",
    b"<": "a web page; the download asked for a login, or its address was that of the page about the file",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed; unpack it",
}

BY_SUFFIX = {
    ".onnx": "an ONNX file",
    ".msgpack": "a Flax file",
    ".npz": "an archive of NumPy arrays, as Flax and big_vision write",
    ".npy": "a NumPy array",
    ".json": "a JSON file; of a model in shards, the index",
    ".distcp": "one shard of a distributed checkpoint; put the shards together first",
}

READS = "rib reads safetensors, and PyTorch files that hold tensors"


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file, under the file's own names.

    Where a training script kept more beside them, they are looked for under the names that such scripts use; which were
    taken is said if there was a choice.

    Args:
        file: safetensors, or a PyTorch file that needs no code to be read.

    Raises:
        RibError: If it is none of these, is damaged, or holds tensors that no network of rib can take.
    """
    content = _content(file)
    state = _weights_in(content, file)
    for name, tensor in state.items():
        if (kind := _kind(tensor)) is not None:
            raise RibError(
                f"model.weights: {name} of {file} is {kind}; expected ordinary tensors of float32, float16 or bfloat16"
            )
    return state


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights that are no finite numbers, before anything is trained or scored with them.

    Raises:
        RibError: If there are any, with the first one's name.
    """
    lost = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if lost:
        others = f" and of {len(lost) - 1} more tensors" if len(lost) > 1 else ""
        raise RibError(
            f"model.weights: {file} holds NaN or infinite values in {lost[0]}{others}; the training that wrote it "
            "diverged, or the file is damaged"
        )


def _content(file: Path) -> Any:
    """What a file holds, as its library gives it."""
    from safetensors.torch import load_file

    if file.is_dir():
        raise RibError(f"model.weights: {file} is a folder; expected one file of weights, not its shards")
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
        is_safetensors = start[8:9] == b"{"  # behind eight bytes of length
        if not is_safetensors and (kind := _other_kind(file, start)) is not None:
            raise RibError(f"model.weights: {file} is {kind}; {READS}")
        if (shard := re.search(r"-\d+-of-(\d+)\.\w+$", file.name)) and int(shard[1]) > 1:
            raise RibError(f"model.weights: {file} is one of {int(shard[1])} shards; put them together in one file")
        if is_safetensors or (file.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))):
            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]), file.open("rb") as stream:  # timm's arguments
            return torch.load(stream, map_location="cpu", weights_only=True)  # given a name, it goes by its ending
    except RibError:
        raise
    except Exception as error:
        raise RibError(f"model.weights: cannot read {file} as weights: {_why(file, error)}") from error


def _other_kind(file: Path, start: bytes) -> str | None:
    """What a file is, where it is none that rib reads."""
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
            return "a TorchScript archive, which is a program; save its state_dict()"
        if "data.pkl" not in inside:
            return "a zip archive of something else"
    return None


def _why(file: Path, error: Exception) -> str:
    """The reason in a few words."""
    try:
        needs = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:
        needs = []
    if needs:
        more = f" and {len(needs) - 1} more" if len(needs) > 1 else ""
        return (
            f"it holds Python objects ({sorted(needs)[0]}{more}), and no code of a file is run; where you trust it, "
            "save model.state_dict() alone"
        )
    return f"it is damaged, or of another kind ({' '.join(str(error).split())[:120]})"


def _weights_in(content: Any, file: Path) -> dict[str, Tensor]:
    """The one dictionary of tensors that is a model's weights."""
    if _is_state(content):
        return dict(content)
    if isinstance(content, Mapping) and "ds_version" in content:
        raise RibError(f"model.weights: {file} is a part of a DeepSpeed checkpoint; its zero_to_fp32.py makes one file")
    found = _states(content)
    plain = [name for name in found if not AVERAGED.search(name)]
    usual = [name for name in plain if name.rpartition(".")[2] in WRAPPERS]
    for choice in (usual, plain, [] if plain else list(found)):
        if len(choice) == 1:
            _say_taken(choice[0], [name for name in found if name != choice[0]], file)
            return dict(found[choice[0]])
    if found:
        raise RibError(
            f"model.weights: {file} holds several models ({', '.join(found)}); save the one that is meant in a file "
            "of its own"
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
    """Dictionaries of tensors by name, dotted where one lies in a wrapper in a wrapper."""
    found: dict[str, Mapping[str, Tensor]] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if not isinstance(name, str) or BESIDE.search(name.lower()):
            continue
        if _is_state(value):
            found[inside + name] = value
        elif name in WRAPPERS or AVERAGED.search(name):
            found |= _states(value, f"{inside}{name}.")
    return found


def _say_taken(taken: str, beside: list[str], file: Path) -> None:
    """Which of several, and that an averaged copy is there."""
    if not beside:
        if taken not in WRAPPERS:
            say_once(f"{file.name}: weights taken from {taken!r}")
        return
    averaged = [name for name in beside if AVERAGED.search(name)]
    what = f"an averaged copy of the weights lies beside them ({', '.join(averaged)})" if averaged else ""
    others = ", ".join(name for name in beside if name not in averaged)
    also = "; ".join(filter(None, (what, f"not looked at: {others}" if others else "")))
    say_once(f"{file.name}: weights taken from {taken!r}; {also}. To use another, save it in a file of its own")


def _kind(tensor: Tensor) -> str | None:
    """What keeps a tensor from being a network's weight or buffer; None: nothing."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.dtype not in FLOATS | WHOLE:
        return f"of {str(tensor.dtype).removeprefix('torch.')}"
    return None
