r"""Elastic weight consolidation (EWC): a penalty that keeps important weights near their pretrained values.

    L(theta) = L_task(theta) + strength/2 * sum_i min(F_i, 1 / (lr * strength)) (theta_i - theta0_i)^2

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3, arXiv 1612.00796. F is the
diagonal Fisher at the start weights theta0, divided by its mean over weights: their lambda is strength over that mean,
and both are in the run's metrics.json.

Differs from the paper (there is no official code): its Fisher is estimated on images of the *old* task. Those of a
pretrained model are rarely available, so this one uses the source's images, those of the new task: it measures what the
pretrained model's predictions there depend on. The same strength therefore means another lambda on another source (191,
140 and 331 for mini_small on R, Sketch and V2).

Why the cap: a real Fisher has a heavy tail (mean 1, median 0.06, largest 6,100 on an EfficientNet). On a parabola of
curvature h, SGD of step lr is stable only for h below 2 / lr; with momentum m below 2 (1 + m) / lr; with Nesterov's
below 2 (1 + m) / (1 + 2 m) / lr, which is 1.36 / lr at m = .9 and never less than 1.33 / lr. So the plain penalty at
strength 1 makes the loss infinite in a dozen steps even at a small lr. The cap, strength * F = 1 / lr at the peak rate,
is below all of them and leaves a quarter of the tightest to the loss's own curvature and weight decay. At the cap one
step without momentum undoes a weight's whole displacement, and two steps with Nesterov's, which is all that a larger F
could do; with plain momentum the weight swings to the other side, and the swing shrinks by sqrt(m) per step. AdamW,
whose steps are about lr whatever the gradient, needs no cap but has the same one. The share of capped weights is in the
run's metrics.json; at 1, the cap has turned every Fisher into the identity.

The alternative is a proximal step after the optimizer's, which is stable for any strength without a cap:

    theta <- theta0 + (theta - theta0) / (1 + lr / (1 - momentum) * strength * F)

with the lr of that very step. It rests where the penalty does, at strength * F_i (theta_i - theta0_i) = -dL_task,
wherever both work: SGD with momentum moves lr / (1 - momentum) times the gradient in the long run. (An optimizer
without a momentum option, such as AdamW, counts as momentum 0; its steps are not gradients, so that its two equilibria
differ.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, get_args

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rib.errors import RibError
from rib.methods.anchor import KeepOn, check_keep_on, groups, kept
from rib.methods.base import Batch, Method, Step, Tuned, trained_parameters
from rib.methods.chunks import Chunks
from rib.methods.fisher import (
    Labels,
    Way,
    dataset_labels,
    fisher_diagonal,
    moments,
    normalise,
    normalise_tensors,
    rank_and_world,
    relative_error,
)
from rib.methods.foreign import Foreign
from rib.methods.quadratic_penalty import quadratic
from rib.methods.selection import select_images
from rib.models.weights import load_cached, save_cached
from rib.runtime.precision import exact_float32
from rib.runtime.progress import track

ERROR, MEAN = "relative_error", "mean"
"""Keys of the Fisher's standard error and mean beside its tensors, whose names begin with ``backbone.``."""


class EWC(Method):
    """Elastic weight consolidation (Kirkpatrick et al. 2017); the formula is in the module's docstring.

    In a config::

        ewc:
          _target_: rib.methods.ewc.EWC
          strength: 1.0
          fisher: diagonal
          labels: sampled
          normalise: all
          form: penalty
          samples: 1000
          seed: 0
          keep_on: device

    In your own Trainer the Fisher is of ``images``, estimated before the first step; lr is the optimizer's peak rate.

    Cost: a backward pass for each of `samples` images before training (K of them, one for each output, with
    ``labels=expected``), kept in the store; then one pass over the weights per step, and two more copies of them. Does
    not stack with lora or visual_prompt, which do not train the weights themselves; with l2sp the two penalties add up.

    Args:
        strength: Weight of the penalty, 0 or more; 0 is plain fine-tuning bit for bit.
        fisher: ``diagonal`` of the start model on source images, or ``identity``, which with strength 2 is the L2-SP
            that the ImageNet-RIB paper's code calls EWC.
        samples: Number of source images for the Fisher (all, if there are fewer).
        seed: Seed of the choice of images and of sampled labels.
        labels: Labels for the Fisher: ``sampled`` from the model's softmax over all outputs; the ``dataset``'s own (of
            a class with several outputs the likeliest; the gradient is still that of log p over all outputs);
            ``expected``, exactly over all K outputs, which costs K backward passes per image.
        normalise: Divide the Fisher by its mean over ``all`` weights, or each ``tensor`` by its own.
        form: ``penalty`` in the loss, with the cap, or ``proximal`` step, without.
        images: In your own Trainer: a loader of the Fisher's images, with batches (images, labels, ...). Of a
            DataLoader over a dataset with a length a seeded selection is taken, of anything else the first `samples`
            images. None: the Trainer's own training loader, whose order this does not change.
        keep_on: Where the start weights and the Fisher are kept: on the ``device`` that trains, or in the ``host``'s
            memory, from where they are copied at every step. Numbers are the same.

    Raises:
        RibError: For a negative strength, no samples, or an unknown value of another option.
    """

    def __init__(
        self,
        strength: float = 1.0,
        fisher: Literal["diagonal", "identity"] = "diagonal",
        samples: int = 1000,
        seed: int = 0,
        labels: Labels = "sampled",
        normalise: Literal["all", "tensor"] = "all",
        form: Literal["penalty", "proximal"] = "penalty",
        images: Iterable[Any] | None = None,
        keep_on: KeepOn = "device",
    ) -> None:
        if not 0 <= strength < float("inf"):
            raise RibError(f"method.ewc.strength: expected a finite number of 0 or more, got {strength}")
        if fisher not in ("diagonal", "identity"):
            raise RibError(f"method.ewc.fisher: expected diagonal or identity, got {fisher!r}")
        if samples < 1:
            raise RibError(f"method.ewc.samples: expected at least 1 image, got {samples}")
        if labels not in get_args(Labels):
            raise RibError(f"method.ewc.labels: expected {', '.join(get_args(Labels))}, got {labels!r}")
        if normalise not in ("all", "tensor"):
            raise RibError(f"method.ewc.normalise: expected all or tensor, got {normalise!r}")
        if form not in ("penalty", "proximal"):
            raise RibError(f"method.ewc.form: expected penalty or proximal, got {form!r}")
        self.strength = strength
        self.fisher = fisher
        self.samples = samples
        self.seed = seed
        self.labels: Labels = labels
        self.normalise = normalise
        self.form = form
        self.images = images
        self.keep_on: KeepOn = check_keep_on("ewc", keep_on)
        self.capped_share = 0.0
        self.fisher_error = math.nan
        self.fisher_mean = math.nan
        self._anchor: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        # The square root of strength times F, as `quadratic` takes it.
        self._root: list[Tensor] = []

    def prepare(self, module: Tuned) -> None:
        """Store a copy of the start weights."""
        self._anchor = kept(trained_parameters(module), module.trainer.strategy.root_device, self.keep_on)
        self._buffers = {name: tensor.detach().clone() for name, tensor in module.model.named_buffers()}

    def begin(self, module: Tuned) -> None:
        """Estimate the Fisher at the start weights, and cap it at 1 / (lr * strength), lr being the peak rate."""
        device = module.trainer.strategy.root_device
        fisher = self._diagonal(module, device) if self.fisher == "diagonal" else None
        self._buffers = {}
        cap = 1 / module.lr if module.lr > 0 and self.form == "penalty" else float("inf")
        capped = 0
        self._root = []
        trained = [(name, p) for name, p in module.model.named_parameters() if p.requires_grad]
        for name, p in trained:
            f = torch.ones_like(p, device=device) if fisher is None else fisher[name].to(device)
            # In float64, where no strength that a float can hold overflows.
            pull = self.strength * f.double()
            capped += int((pull > cap).sum())
            root = torch.empty_like(p, device=device).copy_(pull.clamp_(max=cap).sqrt_())  # in the order of p's numbers
            self._root += kept([root], device, self.keep_on)
        self.capped_share = capped / sum(p.numel() for _, p in trained)

    def has_penalty(self) -> bool:
        """True with ``form=penalty``; False with ``form=proximal``, which acts after each step instead."""
        return self.form == "penalty"

    def reads_images(self) -> bool:
        """False: the penalty is a function of the weights."""
        return False

    def penalty(self, module: Tuned, step: Step) -> Tensor | None:
        """Return strength/2 * sum_i F_i (theta_i - theta0_i)^2, float32, in nats; None with ``form=proximal``."""
        if self.form != "penalty":
            return None
        return quadratic(trained_parameters(module), self._anchor, self._root)

    @torch.no_grad()
    def after_step(self, module: Tuned) -> None:
        """Take the proximal step with ``form=proximal`` (formula in the module's docstring); else do nothing.

        At strength or lr 0 the step changes no weight.
        """
        if self.form != "proximal":
            return
        rates = {
            p: group["lr"] / (1 - group.get("momentum", 0.0))
            for group in module.trainer.optimizers[0].param_groups
            for p in group["params"]
        }
        trained = trained_parameters(module)
        factors = iter([rates.get(p, 0.0) for p in trained])
        for some, anchors, roots in groups(trained, self._anchor, self._root):
            # A share x / (1 + x) of the way back to the anchor, in a form that is exact at 0 and at infinity.
            share = torch._foreach_mul(roots, roots)
            torch._foreach_mul_(share, list(islice(factors, len(some))))
            torch._foreach_reciprocal_(share)
            torch._foreach_add_(share, 1)
            torch._foreach_reciprocal_(share)
            torch._foreach_lerp_(some, anchors, share)

    def report(self) -> dict[str, float]:
        """Return the share of capped weights, and the mean of a diagonal Fisher before normalisation with its error.

        ``ewc.capped_share``: a fraction of the weights. ``ewc.fisher_mean``: the Fisher's mean over weights, per image.
        ``ewc.lambda``: strength over that mean, the lambda of Kirkpatrick et al.'s eq. 3 for the weights below the cap
        (not with ``normalise=tensor``, where each tensor has another). ``ewc.fisher_error``: the relative standard
        error of that mean, sd / sqrt(N) / mean over the N images' mean squared gradients; that of a single weight is
        larger, and one image has none.
        """
        found = {"ewc.fisher_error": self.fisher_error, "ewc.fisher_mean": self.fisher_mean}
        if self.normalise == "all":
            found["ewc.lambda"] = self.strength / self.fisher_mean
        known = {name: value for name, value in found.items() if not math.isnan(value)}
        return {"ewc.capped_share": self.capped_share, **known}

    def _diagonal(self, module: Tuned, device: torch.device) -> dict[str, Tensor]:
        """Return the normalised Fisher diagonal at the start weights, from the cache if it was computed before."""
        facts = {"samples": self.samples, "seed": self.seed, "labels": self.labels}
        trainer, memo = module.trainer, module.memo
        if memo is None or self.images is not None:
            fisher = self._estimate(module, device)
        else:
            file = memo.file("fisher", **facts)
            with memo.making(file):
                found = load_cached(file)
                # Rank zero decides for all: on a network disk another rank may see the file later.
                if trainer.strategy.broadcast(found is not None):
                    if found is None:
                        raise RibError(
                            f"method.ewc: expected {file} (the Fisher) on a file system that all processes can read"
                        )
                    fisher = found
                else:
                    fisher = self._estimate(module, device)
                    if trainer.is_global_zero:
                        save_cached(fisher, file)
        # A file of an older version may lack an entry.
        self.fisher_error, self.fisher_mean = (float(fisher.pop(key, math.nan)) for key in (ERROR, MEAN))
        return normalise_tensors(fisher) if self.normalise == "tensor" else fisher

    def _estimate(self, module: Tuned, device: torch.device) -> dict[str, Tensor]:
        """Estimate the Fisher diagonal; return it scaled to mean 1, its relative error and its unscaled mean (CPU)."""
        model = self._start_model(module, device)
        rank, world = rank_and_world()
        loader, number = self._selection(module, rank, world)
        # One number per image, drawn for all images on every rank, so that labels do not depend on the processes.
        uniforms = torch.rand(number, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            shown = track(loader, "estimating the Fisher information", number, lambda batch: world * len(batch[0]))
            for images, labels, place in shown:
                there = images.to(device)
                if self.labels == "dataset":
                    yield there, dataset_labels(model, there, labels.to(device), module.space)
                else:
                    yield there, uniforms[place].to(device)

        way: Way = "loop" if device.type == "cpu" else "vmap"
        chunks = _chunks(module.trainer, device) if device.type == "cuda" else None
        with exact_float32():
            total, each = fisher_diagonal(model, batches(), way, self.labels, chunks)
        seen = moments(each).to(device)
        if world > 1:
            for tensor in (*total.values(), seen):
                dist.all_reduce(tensor)
        try:
            fisher = {name: value.cpu() for name, value in normalise(total).items()}
        except ValueError as error:
            raise RibError(f"method.ewc: {error}; try method.ewc.fisher=identity") from error
        count, squares, _ = seen.tolist()
        mean = squares / count / sum(f.numel() for f in fisher.values())
        return {**fisher, ERROR: torch.tensor(relative_error(seen)), MEAN: torch.tensor(mean)}

    @torch.no_grad()
    def _start_model(self, module: Tuned, device: torch.device) -> nn.Module:
        """Return a copy of the model with its start weights and statistics, in eval mode, also in a resumed fit."""
        model = copy.deepcopy(module.model).to(device).eval()
        trained = [p for p in model.parameters() if p.requires_grad]
        for p, anchor in zip(trained, self._anchor, strict=True):
            p.copy_(anchor)
        for name, buffer in model.named_buffers():
            if name in self._buffers:
                buffer.copy_(self._buffers[name])
        return model

    def _selection(self, module: Tuned, rank: int, world: int) -> tuple[Iterable[Batch], int]:
        """Return batches of the images that the Fisher is estimated on, and the number of images."""
        if self.images is None:
            return module.source_images(self.samples, self.seed, rank, world)
        batches, number = select_images(self.images, self.samples, self.seed, rank, world, any_iterable=True)
        if isinstance(module, Foreign):
            return ((*module.transfer(batch), places) for batch, places in batches), number
        return ((batch[0], batch[1], places) for batch, places in batches), number


def _chunks(trainer: L.Trainer, device: torch.device) -> Chunks:
    """Return chunks within the memory of this Trainer's own steps; of steps of one image where that is not known."""
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    # rib's sampler counts the images of all processes, others those of one.
    images = getattr(sampler, "batch_size", None) or 1
    share = -(-images // getattr(sampler, "world", 1))
    return Chunks(device, share, trainer.precision_plugin.forward_context)
