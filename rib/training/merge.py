"""One run that is made from others: its ingredients as weights, what chooses, and BatchNorm's statistics afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from rib.config.schema import BatchNorm
from rib.data.datamodule import SOURCE_BATCH, RIBDataModule
from rib.data.labels import LabelSpace
from rib.errors import RibError
from rib.methods.fisher import fisher_diagonal
from rib.methods.merge import Ingredients, Merge
from rib.methods.output_ensemble import OutputEnsemble
from rib.metrics import family_of
from rib.models.build import build
from rib.models.classifier import Classifier
from rib.models.layers import depths, head_names
from rib.models.weights import StateDict, StoredWeights, equal, save_weights
from rib.runs import method_stack
from rib.runs.run import Run
from rib.runs.spec import RunSpec
from rib.runs.store import fit_of
from rib.runtime.console import rank
from rib.runtime.files import file_digest
from rib.runtime.precision import exact_float32
from rib.scoring.score import score

if TYPE_CHECKING:
    from lightning.fabric import Fabric

STATISTICS_IMAGES = 1024
"""Source images that BatchNorm's statistics are estimated on after averaging, or all if there are fewer."""


class Merging:
    """Makes merged weights; the same on every process.

    Args:
        spec: What is asked.
        before: The `pretrained` run.
        parts: Finished runs, in the order of the question's ingredients.
        data: Serves the source and what is held out of it.
        fabric: The devices.
    """

    def __init__(self, spec: RunSpec, before: Run, parts: Sequence[Run], data: RIBDataModule, fabric: Fabric) -> None:
        assert spec.merged is not None, "a merged run has a method that merges"
        self.spec = spec
        self.parts = parts
        self.data = data
        self.fabric = fabric
        self.method: Merge = method_stack.build_method(spec.config, spec.merged, probe=None)
        self._before = before

    @cached_property
    def given(self) -> Ingredients:
        """What the method works on; weights are read tensor by tensor."""
        specs = self.spec.catalog.specs
        derived_from = {name: spec.derived_from for name, spec in specs.items()}
        backbone = self._model.backbone
        names = list(backbone.state_dict())
        return Ingredients(
            start=StoredWeights(self._before.weights_file),
            parts=[StoredWeights(part.weights_file) for part in self.parts],
            labels=[part.label for part in self.spec.ingredients],
            sources=[part.source for part in self.spec.ingredients],
            depth=depths(names, head_names(backbone)),
            accuracy=self._accuracy if self.spec.held_out is not None else None,
            fisher=self._fisher,
            parameters=frozenset(name for name, _ in backbone.named_parameters()),
            family={name: family_of(name, derived_from) for name in specs},
        )

    def weights(self) -> dict[str, Tensor]:
        """The run's weights."""
        return self._settled(self.method.merge(self.given))

    def variants(self) -> dict[str, Classifier]:
        """Models of the curve, by label."""
        return {label: self._build(self._settled(w)) for label, w in self.method.variants(self.given).items()}

    def model_for(self, dataset: str) -> Classifier | None:
        """The model of one dataset where it is not the run's own."""
        weights = self.method.merge_for(dataset, self.given)
        return None if weights is None else self._build(self._settled(weights))

    def models(self) -> list[Classifier]:
        """The ingredients themselves."""
        return [self._build(weights) for weights in self.given.parts]

    @property
    def together(self) -> Callable[[Sequence[Tensor]], Tensor] | None:
        """From each ingredient's logits to the ensemble's, where outputs are merged and not weights."""
        return self.method.together if isinstance(self.method, OutputEnsemble) else None

    def statistics_images(self) -> int:
        """Source images behind new BatchNorm statistics; 0 where they are as they were."""
        if not self._reestimates or self.spec.source is None:
            return 0
        count = min(STATISTICS_IMAGES, len(self.spec.source))
        return count - (count % SOURCE_BATCH == 1)

    @cached_property
    def _model(self) -> Classifier:
        start = replace(self.spec.start, weights=self._before.weights_file)
        return build(start, len(self.spec.catalog.wnids))

    def _build(self, weights: StateDict) -> Classifier:
        model = build(replace(self.spec.start, weights=self._before.weights_file), len(self.spec.catalog.wnids))
        model.load_stored(dict(weights))
        return model.to(self.fabric.device)

    @property
    def _reestimates(self) -> bool:
        config = self.spec.config
        has_any = any(isinstance(layer, _BatchNorm) for layer in self._model.modules())
        wanted = config.method[str(self.spec.merged)].get("reestimate", True)
        source = self.spec.source
        alone = source is not None and len(source) == 1
        return has_any and config.batch_norm == BatchNorm.update and wanted and not alone

    def _settled(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """With BatchNorm's statistics estimated anew, unless these are the weights of one of the models themselves."""
        if not self._reestimates or any(equal(weights, end) for end in (self.given.start, *self.given.parts)):
            return weights
        model = self._build(weights)
        batches, _ = self.data.source_images(STATISTICS_IMAGES, seed=0)
        # A last batch of one image would count as much as 64, and has no statistics behind a global pooling.
        update_bn((batch for batch in batches if len(batch[0]) > 1), model, device=self.fabric.device)
        return {name: tensor.cpu() for name, tensor in model.backbone.state_dict().items()}

    def _accuracy(self, weights: StateDict) -> float:
        tree = self.spec.held_out
        assert tree is not None
        predictions = score(
            self._build(self._settled(dict(weights))),
            self.data.loader_of(tree, self.fabric.global_rank, self.fabric.world_size),
            LabelSpace(tree.spec.groups),
            len(tree),
            device=self.fabric.device,
            precision=self.spec.config.evaluation.precision,
        )
        return float(self.fabric.broadcast(0.0 if predictions is None else predictions.accuracy))

    def _fisher(self, weights: StateDict) -> StateDict:
        """Fisher's diagonal on source images, for methods that have ``samples`` and ``seed``."""
        samples, seed = getattr(self.method, "samples", 1000), getattr(self.method, "seed", 0)
        model = self._build(weights)
        loader, count = self.data.source_images(samples, seed)
        uniforms = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        device = self.fabric.device
        batches = ((images.to(device), uniforms[places].to(device)) for images, _, places in loader)
        with exact_float32():
            total, _ = fisher_diagonal(model, batches, "loop" if device.type == "cpu" else "vmap")
        return {name.removeprefix("backbone."): value.cpu() / count for name, value in total.items()}


def save_merged(merging: Merging, run: Run) -> None:
    """Put finished runs together and leave weights.safetensors (but for an ensemble of outputs) and fit.json."""
    begun = time.perf_counter()
    weights = None if merging.together else merging.weights()
    if rank() == 0:
        if weights is not None:
            save_weights(weights, run.weights_file)
        each = [fit_of(part)["num_parameters"] for part in merging.parts]
        images = merging.statistics_images()
        notes = merging.method.report() | ({"batch_norm.images": images} if images else {})
        run.write_json(
            "fit.json",
            {
                "seconds": time.perf_counter() - begun,
                "num_parameters": sum(each) if weights is None else each[0],
                "notes": notes,
                "weights": None if weights is None else file_digest(run.weights_file),
            },
        )


def check_methods(spec: RunSpec) -> None:
    """See, before anything is trained, that every method takes its options and can choose what it is to choose.

    Raises:
        RibError: In one sentence.
    """
    for name in spec.config.method:
        if not spec.config.method[name]:
            continue
        method = method_stack.build_method(spec.config, name, probe=None)
        if getattr(method, "chooses", False) and spec.held_out is None:
            raise RibError(
                f"method.{name}: nothing may be chosen on images that were trained on, and targets never choose; keep "
                "a part of the source out of training with data.holdout=0.1"
            )
