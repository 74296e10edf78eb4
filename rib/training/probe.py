"""Fit the head of a model without one: extract the features of the probe's images, and solve the regression.

The features are kept in the run's folder until the weights are written, so that a run that is killed in the regression
does not look at the images again. With several processes each looks at its share, batch by batch, and all of them solve
the same regression, so that none waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.filesize import decimal
from torch import Tensor
from torch.nn import functional as F

from rib.data.loader import chunks
from rib.errors import RibError
from rib.models.features import head_input
from rib.models.layers import linear_head
from rib.models.probe import Probe, fit_probe
from rib.models.weights import load_cached, save_cached
from rib.runs.images import data_of
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runtime.console import say
from rib.runtime.memory import free_memory
from rib.runtime.precision import exact_float32
from rib.runtime.processes import launch_processes
from rib.runtime.progress import progress

if TYPE_CHECKING:
    from rib.models.classifier import Classifier
    from rib.runtime.one_process import Processes

LARGE = 10**9
"""Size of features above which it is said how much memory and disk they take, bytes."""

ABSENT = -100.0
"""Bias of an output without an image, where the model has outputs of no class: it never wins, and takes no share."""


def fit_head(spec: RunSpec, run: Run, model: Classifier) -> dict[str, float]:
    """Fit a model's head to the images of its probe, in place.

    Args:
        spec: The `pretrained` run of a model without a head; its ``head_images`` are the N images.
        run: Its folder, where the features are kept.
        model: The model, whose head is replaced.

    Returns:
        Notes: the chosen strength of the penalty, the accuracy on the images that it was chosen by, and N.

    Raises:
        RibError: If the network does not end in one linear layer, or the features are not finite.
    """
    tree, options = spec.head_images, spec.config.head
    assert tree is not None, "a start without a head has images for its probe"
    head = linear_head(model.backbone)
    processes = launch_processes(spec.config)
    features = _stored_features(spec, run, model, processes)
    if not features.isfinite().all():
        raise RibError(f"head=probe: {spec.start.name} gives features that are not finite; check its weights")
    present, labels = np.unique(tree.labels, return_inverse=True)
    # Only CUDA has float64; on a GPU the features fit if there is room for their copy in float64 as well.
    on_gpu = processes.device.type == "cuda" and 4 * features.nbytes < free_memory(processes)
    on = processes.device if on_gpu else torch.device("cpu")
    title = f"{spec.start.name}: fitting the probe to {len(tree):,} images of {tree.spec.title}"
    with progress(title, len(set(options.l2)) + 1, "fits") as advance:
        probe = fit_probe(
            features.to(on),
            torch.from_numpy(labels),
            len(present),
            options.l2,
            options.seed,
            options.holdout,
            lambda note: advance(1, note),
        )
    if not probe.held_out and len(set(options.l2)) > 1:
        say(
            "every class has a single image for the probe, so its penalty is not chosen but the middle one of head.l2, "
            f"{probe.l2:g}; give more images, or a larger head.share"
        )
    if not probe.converged:
        say(f"the probe's regression ended after {probe.steps:,} steps, before it had converged; try larger head.l2")
    outputs = [tree.spec.groups[label][0] for label in present.tolist()]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(ABSENT)
        head.weight[outputs] = probe.weight.to(head.weight)
        head.bias[outputs] = probe.bias.to(head.bias)
    return _notes(probe, len(tree))


def _notes(probe: Probe, count: int) -> dict[str, float]:
    chosen = {} if not probe.held_out else {"probe.held_out": probe.held_out[probe.l2]}
    return {"probe.l2": probe.l2, **chosen, "probe.images": float(count)}


def _stored_features(spec: RunSpec, run: Run, model: Classifier, processes: Processes) -> Tensor:
    """Return the features of the probe's images, float32 (N, D) on the CPU: from the run's folder, or extracted."""
    file = run.features_file
    known = load_cached(file) if processes.is_global_zero else None
    if processes.broadcast(known is not None):
        known = load_cached(file) if known is None else known
        if known is None:
            raise RibError(f"head=probe: {file} cannot be read by every process; delete it and run the command again")
        return known["features"]
    features = _extract(spec, model, processes)
    if processes.is_global_zero:
        save_cached({"features": features}, file)
    return features


def _extract(spec: RunSpec, model: Classifier, processes: Processes) -> Tensor:
    """Pass the probe's images through the network, and return what enters its head, float32 (N, D) on the CPU."""
    tree = spec.head_images
    assert tree is not None, "a start without a head has images for its probe"
    head, width = linear_head(model.backbone), linear_head(model.backbone).in_features
    if (size := 4 * len(tree) * width) > LARGE:
        say(f"the features of {len(tree):,} images take {decimal(size)} of memory, and of the disk for a while")
    model.to(processes.device)
    features = torch.empty(len(tree), width)
    with torch.no_grad():  # any head that is not zero, by which `_check_last` sees whether anything comes after it
        head.weight.copy_(torch.linspace(-1, 1, head.weight.numel()).view_as(head.weight))
    title = f"{spec.start.name}: features of {tree.spec.title} for the probe"
    first = True
    with progress(title, len(tree)) as advance, torch.no_grad(), exact_float32():
        for images, places in _shares(spec, processes):
            taken: list[Tensor] = []
            with head_input(model.backbone, taken.append):
                logits = model(images.to(processes.device, non_blocking=True)) if len(images) else None
            if first and logits is not None:
                _check_last(spec, taken, logits, F.linear(taken[0], head.weight, head.bias))
                first = False
            own = taken[0].float() if taken else torch.empty(0, width, device=processes.device)
            for rows, at in _gathered(own, places.to(processes.device), processes, spec.config.evaluation.batch_size):
                features[at.cpu()] = rows.cpu()
                advance(len(at), "")
    return features


def _check_last(spec: RunSpec, taken: list[Tensor], logits: Tensor, expected: Tensor) -> None:
    """Check that the logits are what the linear layer makes of its input, and that it is used once."""
    if len(taken) != 1 or not torch.allclose(logits, expected, rtol=1e-4, atol=1e-4):
        raise RibError(
            "head=probe: expected a network whose logits are the output of its last linear layer, and "
            f"{spec.start.name} computes something more; choose another model"
        )


def _shares(spec: RunSpec, processes: Processes) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's batches of images and their places; empty ones where other processes have one more.

    A batch has the same images for any number of processes, so that features do not depend on it.
    """
    tree, data = spec.head_images, data_of(spec)
    assert tree is not None, "a start without a head has images for its probe"
    batches = chunks(range(len(tree)), spec.config.evaluation.batch_size)
    own = batches[processes.global_rank :: processes.world_size]
    for images, _, places in data.batches_of(tree, own):
        yield images, places
    for _ in range(-(-len(batches) // processes.world_size) - len(own)):
        yield torch.empty(0), torch.empty(0, dtype=torch.long)


def _gathered(rows: Tensor, places: Tensor, processes: Processes, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the features and places of one batch of each process."""
    if processes.world_size == 1:
        yield rows, places
        return
    missing = size - len(rows)
    padded = processes.all_gather((F.pad(rows, (0, 0, 0, missing)), F.pad(places, (0, missing), value=-1)))
    for of_rank, at in zip(*padded, strict=True):
        yield of_rank[at >= 0], at[at >= 0]
