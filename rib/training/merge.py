"""Make a merged run: load the runs to merge (ingredients), merge them, and estimate BatchNorm statistics again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from rib.config.schema import BatchNorm
from rib.data.datamodule import SOURCE_BATCH, RIBDataModule
from rib.data.labels import LabelSpace
from rib.errors import RibError
from rib.methods.chunks import Chunks
from rib.methods.fisher import Way, fisher_diagonal
from rib.methods.merge import Ingredients, Merge
from rib.methods.output_ensemble import OutputEnsemble
from rib.metrics import family_of
from rib.models.build import build
from rib.models.classifier import Classifier
from rib.models.layers import depths, head_names
from rib.models.memory_format import prefer_channels_last
from rib.models.weights import StateDict, StoredWeights, equal, save_weights
from rib.runs import method_stack
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runs.store import fit_of
from rib.runs.weights_metadata import weights_metadata
from rib.runtime.console import rank
from rib.runtime.precision import exact_float32
from rib.runtime.processes import device_name
from rib.runtime.progress import track
from rib.runtime.weights_file import weights_file_digest
from rib.scoring.score import score

if TYPE_CHECKING:
    from rib.runtime.one_process import Processes

STATISTICS_IMAGES = 1024
"""Number of source images on which BatchNorm statistics are estimated after averaging; all if there are fewer."""


class Merging:
    """Merging of finished runs into one model (or an ensemble); all processes compute the same weights.

    Args:
        spec: The merged run's configuration, with all options filled in.
        pretrained: The finished `pretrained` run.
        runs: The finished ingredients, in the order of ``spec.ingredients``.
        data: Serves the source and its held-out part.
        processes: The processes.
    """

    def __init__(
        self, spec: RunSpec, pretrained: Run, runs: Sequence[Run], data: RIBDataModule, processes: Processes
    ) -> None:
        assert spec.merged is not None, "a merged run has a merging method"
        self.spec = spec
        self.runs = runs
        self.data = data
        self.processes = processes
        self.method: Merge = method_stack.build_method(spec.config, spec.merged, probe=None)
        self._pretrained = pretrained

    @cached_property
    def ingredients(self) -> Ingredients:
        """Weights and metadata of the ingredients, in the form that methods take; tensors are read when needed."""
        specs = self.spec.catalog.specs
        derived_from = {name: spec.derived_from for name, spec in specs.items()}
        backbone = self._model.backbone
        names = list(backbone.state_dict())
        return Ingredients(
            start=StoredWeights(self._pretrained.weights_file),
            parts=[StoredWeights(run.weights_file) for run in self.runs],
            labels=[ingredient.label for ingredient in self.spec.ingredients],
            sources=[ingredient.source for ingredient in self.spec.ingredients],
            depth=depths(names, head_names(backbone)),
            accuracy=self._accuracy if self.spec.held_out is not None else None,
            fisher=self._fisher,
            parameters=frozenset(name for name, _ in backbone.named_parameters()),
            family={name: family_of(name, derived_from) for name in specs},
        )

    def weights(self) -> dict[str, Tensor]:
        """Return the merged weights, by parameter name."""
        return self._reestimate(self.method.merge(self.ingredients))

    def curve(self) -> dict[str, Classifier]:
        """Return the models at the points of the run's interpolation curve (WiSE-FT), by label, if it has one."""
        points = self.method.variants(self.ingredients)
        return {label: self._build(self._reestimate(weights)) for label, weights in points.items()}

    def model_for(self, dataset: str) -> Classifier | None:
        """Return the model made for scoring one dataset (RIB soup); None if that is scored by the run's own model."""
        weights = self.method.merge_for(dataset, self.ingredients)
        return None if weights is None else self._build(self._reestimate(weights))

    def models(self) -> list[Classifier]:
        """Return the models of the ingredients, for an output ensemble."""
        return [self._build(weights) for weights in self.ingredients.parts]

    @property
    def combine(self) -> Callable[[Sequence[Tensor]], Tensor] | None:
        """Function that combines the ingredients' logits to an ensemble's; None where weights are merged."""
        return self.method.combine if isinstance(self.method, OutputEnsemble) else None

    def statistics_images(self) -> int:
        """Return the number of source images on which BatchNorm statistics are estimated again; 0 if they are not."""
        if not self._needs_statistics or self.spec.source is None:
            return 0
        count = min(STATISTICS_IMAGES, len(self.spec.source))
        return count - (count % SOURCE_BATCH == 1)  # a last batch of one image is left out, see `_reestimate`

    @cached_property
    def _model(self) -> Classifier:
        return build(self.spec.start.with_weights(self._pretrained.weights_file))

    def _build(self, weights: StateDict) -> Classifier:
        model = prefer_channels_last(build(self.spec.start.with_weights(self._pretrained.weights_file)))
        model.load_stored(dict(weights))
        return model.to(self.processes.device)

    @property
    def _needs_statistics(self) -> bool:
        """True if BatchNorm statistics have to be estimated after averaging."""
        config = self.spec.config
        has_any = any(isinstance(layer, _BatchNorm) for layer in self._model.modules())
        wanted = config.method[str(self.spec.merged)].get("reestimate", True)
        source = self.spec.source
        single_image = source is not None and len(source) == 1
        return has_any and config.batch_norm == BatchNorm.update and wanted and not single_image

    def _reestimate(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights with BatchNorm statistics estimated again on source images; unchanged where none are needed.

        Izmailov et al. 2018, arXiv 1803.05407, section 3.2.
        """
        # Averaged statistics fit no averaged weights. Weights equal to an ingredient's keep theirs, so that the ends of
        # a curve are exactly the runs that it interpolates.
        ends = (self.ingredients.start, *self.ingredients.parts)
        if not self._needs_statistics or any(equal(weights, end) for end in ends):
            return weights
        model = self._build(weights)
        batches, _ = self.data.source_images(STATISTICS_IMAGES, seed=0)
        # A last batch of one image would count as much as one of 64, and has no variance after global pooling.
        update_bn((batch for batch in batches if len(batch[0]) > 1), model, device=self.processes.device)
        return {name: tensor.cpu() for name, tensor in model.backbone.state_dict().items()}

    def _accuracy(self, weights: StateDict) -> float:
        """Return the accuracy of a model with given weights on the held-out images, as a fraction."""
        tree = self.spec.held_out
        assert tree is not None
        predictions = score(
            self._build(self._reestimate(dict(weights))),
            self.data.loader_of(tree, self.processes.global_rank, self.processes.world_size),
            LabelSpace(tree.spec.groups),
            len(tree),
            device=self.processes.device,
            precision=self.spec.config.evaluation.precision,
            read=partial(self.data.batches_of, tree),
        )
        return float(self.processes.broadcast(0.0 if predictions is None else predictions.accuracy))

    def _fisher(self, weights: StateDict) -> StateDict:
        """Return the diagonal of the Fisher information at given weights, a mean over source images.

        The method's option ``samples`` sets the number of images.
        """
        samples, seed = getattr(self.method, "samples", 1000), getattr(self.method, "seed", 0)
        model = self._build(weights)
        loader, count = self.data.source_images(samples, seed)
        # One number for each image decides the label drawn for it, so that batches have no influence.
        uniforms = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        device = self.processes.device
        shown = track(loader, "estimating the Fisher information", count, lambda batch: len(batch[0]))
        batches = ((images.to(device), uniforms[places].to(device)) for images, _, places in shown)
        way: Way = "loop" if device.type == "cpu" else "vmap"
        chunks = Chunks(device, SOURCE_BATCH) if device.type == "cuda" else None
        with exact_float32():
            total, _ = fisher_diagonal(model, batches, way, chunks=chunks)
        return {name.removeprefix("backbone."): value.cpu() / count for name, value in total.items()}


def save_merged(merging: Merging, run: Run) -> None:
    """Merge finished runs and write weights.safetensors (none for an output ensemble) and fit.json.

    Args:
        merging: The finished runs and how to merge them.
        run: The folder to write to.
    """
    start = time.perf_counter()
    weights = None if merging.combine else merging.weights()
    if rank() == 0:
        if weights is not None:
            save_weights(weights, run.weights_file, weights_metadata(merging.spec))
        num_parameters = [fit_of(ingredient)["num_parameters"] for ingredient in merging.runs]
        images = merging.statistics_images()
        notes = merging.method.report() | ({"batch_norm.images": images} if images else {})
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - start,
                "num_parameters": sum(num_parameters) if weights is None else num_parameters[0],
                "notes": notes,
                "weights": None if weights is None else weights_file_digest(run.weights_file),
                "device": device_name(str(merging.spec.config.trainer.get("accelerator", "auto"))),
            },
        )


def check_methods(spec: RunSpec) -> None:
    """Check the options of all methods of a run before anything is trained.

    Raises:
        RibError: If a method refuses an option, or chooses by held-out images and there are none.
    """
    for name in spec.config.method:
        if not spec.config.method[name]:  # `finetune` and `pretrained` have no class
            continue
        method = method_stack.build_method(spec.config, name, probe=None)
        if getattr(method, "chooses", False) and spec.held_out is None:
            raise RibError(
                f"method.{name}: expected held-out images, by the accuracy on which this method chooses how to merge "
                "(training images and targets may not be used for that); hold out a part of the source with "
                "data.holdout=0.1"
            )
