"""The protocol as one writes it in an afternoon: fine-tune on each source, score on every target, print the change.

Plain PyTorch, timm's PIL transform, a DataLoader with workers, no caches, one evaluation a run and dataset. LP-FT,
WiSE-FT and soup take the weights that are there already. It imports nothing of rib; only the order of images, and the
choice of images and labels for EWC's Fisher, are made as rib documents them, so that accuracies can be equal.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset, Subset

METHODS = ("finetune", "linear_probe", "lp_ft", "ewc", "lwf", "wise_ft", "soup")
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Domain(Dataset[tuple[Tensor, int]]):
    """The images of a domain: files, labels, the model's outputs of each class, and a border that is cut off."""

    files: Sequence[str]
    labels: Sequence[int]
    groups: Sequence[Sequence[int]]
    transform: Callable[[Image.Image], Tensor]
    border: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image, b = Image.open(self.files[number]).convert("RGB"), self.border
        return self.transform(image.crop((b, b, image.width - b, image.height - b))), self.labels[number]

    def classes(self, outputs: Tensor) -> Tensor:
        """Logits of the domain's classes, (B, C); of a class with several outputs the largest counts."""
        width = max(map(len, self.groups))
        return outputs[:, torch.tensor([[*g, *[g[0]] * (width - len(g))] for g in self.groups])].amax(2)


@dataclass
class Order:
    """Batches of an epoch: a permutation that depends on the seed, 0, and the epoch."""

    images: int
    batch: int
    epoch: int = 0

    def __iter__(self) -> Iterator[list[int]]:
        text = f'["order",0,{self.epoch}]'
        generator = torch.Generator().manual_seed(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))
        self.epoch += 1
        return iter([part.tolist() for part in torch.randperm(self.images, generator=generator).split(self.batch)])

    def __len__(self) -> int:
        return math.ceil(self.images / self.batch)


@dataclass
class Naive:
    """The whole protocol with one pretrained model: ``make`` returns the network, ``weights`` are the pretrained."""

    make: Callable[[], nn.Module]
    weights: Weights
    domains: Mapping[str, Domain]
    epochs: int = 10
    lr: float = 1e-3
    warmup: int = 0
    batch: int = 64
    workers: int = 2
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def model(self, weights: Weights) -> nn.Module:
        """The network with the given weights."""
        model = self.make()
        model.load_state_dict(dict(weights))
        return model.to(self.device)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at a step: warm-up, then a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, steps - self.warmup)))
        return self.lr * ((step + 1) / self.warmup if step < self.warmup else cosine)

    def loader(self, images: Dataset[Any], **options: Any) -> DataLoader[Any]:
        """A DataLoader with workers."""
        return DataLoader(images, num_workers=self.workers, persistent_workers=self.workers > 0, **options)

    def selected(self, source: Domain, count: int) -> Subset[Any]:
        """Images of the source chosen at random, in their own order."""
        chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:count]
        return Subset(source, sorted(chosen.tolist()))

    def fine_tune(self, source: Domain, method: str, start: Weights | None = None) -> Weights:
        """Fine-tune with ``finetune``, ``linear_probe``, ``ewc`` or ``lwf`` and return the weights."""
        model = self.model(self.weights if start is None else start)
        if method == "linear_probe":
            model.requires_grad_(False)
            model.get_classifier().requires_grad_(True)
        penalty = {"ewc": self.ewc, "lwf": self.lwf}.get(method, lambda *_: lambda *_: 0)(model, source)
        optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=self.lr, momentum=0.9)
        loader = self.loader(source, batch_sampler=Order(len(source), self.batch))
        step, steps = 0, self.epochs * len(loader)
        model.train(method != "linear_probe")
        for _ in range(self.epochs):
            for images, labels in loader:
                optimizer.param_groups[0]["lr"] = self.rate(step, steps)
                images, labels = images.to(self.device), labels.to(self.device)
                outputs = model(images)
                optimizer.zero_grad()
                (F.cross_entropy(source.classes(outputs), labels) + penalty(images, outputs)).backward()
                optimizer.step()
                step += 1
        return model.state_dict()

    def ewc(self, model: nn.Module, source: Domain) -> Callable[[Tensor, Tensor], Tensor]:
        """1/2 sum_i min(F_i, 1 / lr) (theta_i - theta0_i)^2 (Kirkpatrick et al. 2017), F of mean 1."""
        model.eval()
        anchor = [p.detach().clone() for p in model.parameters()]
        fisher = [torch.zeros_like(p) for p in anchor]
        images = self.selected(source, 1000)
        uniforms = torch.rand(len(images), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for number, (image, _) in enumerate(self.loader(images)):
            outputs = model(image.to(self.device))
            sums = outputs.detach().double().softmax(1).cumsum(1)
            drawn = torch.searchsorted(sums, uniforms[number].to(sums).view(1, 1), right=True)[:, 0]
            loss = F.cross_entropy(outputs, drawn.clamp(max=outputs.shape[1] - 1))
            for f, gradient in zip(fisher, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                f += gradient.square()
        mean = sum(float(f.double().sum()) for f in fisher) / sum(f.numel() for f in fisher)
        importance = [(f / mean).clamp(max=1 / self.lr) for f in fisher]

        def penalty(images: Tensor, outputs: Tensor) -> Tensor:
            terms = zip(importance, model.parameters(), anchor, strict=True)
            return sum(((f * (p - a).square()).sum() for f, p, a in terms), outputs.new_zeros(())) / 2

        return penalty

    def lwf(self, model: nn.Module, source: Domain) -> Callable[[Tensor, Tensor], Tensor]:
        """KL(softmax(z0 / T) || softmax(z / T)), T = 2 (Li & Hoiem 2017)."""
        teacher = copy.deepcopy(model).eval()

        def penalty(images: Tensor, outputs: Tensor) -> Tensor:
            with torch.no_grad():
                before = (teacher(images) / 2).log_softmax(1)
            return F.kl_div((outputs / 2).log_softmax(1), before, reduction="batchmean", log_target=True)

        return penalty

    def averaged(self, source: Domain, *parts: Weights) -> Weights:
        """The mean of several models' weights, with BatchNorm's statistics estimated again."""
        mean = {name: torch.stack([p[name].float() for p in parts]).mean(0).to(t.dtype) for name, t in parts[0].items()}
        model = self.model(mean)
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
            update_bn(self.loader(self.selected(source, 1024), batch_size=64), model, device=self.device)
        return model.state_dict()

    def train(self, source: Domain, method: str, made: Mapping[str, Weights]) -> Weights:
        """The weights of a method; ``made`` holds those of the methods before it."""
        if method == "lp_ft":
            return self.fine_tune(source, "finetune", made["linear_probe"])
        if method == "wise_ft":
            return self.averaged(source, self.weights, made["finetune"])
        if method == "soup":
            return self.averaged(source, self.weights, made["finetune"], made["ewc"], made["lwf"])
        return self.fine_tune(source, method)

    @torch.no_grad()
    def accuracy(self, model: nn.Module, domain: Domain) -> float:
        """Fraction of images whose largest logit is that of their label."""
        model.eval()
        right = 0
        for images, labels in self.loader(domain, batch_size=256):
            right += int((domain.classes(model(images.to(self.device))).argmax(1).cpu() == labels).sum())
        return right / len(domain)

    def score(self, weights: Weights) -> dict[str, float]:
        """Accuracy on every domain."""
        return {name: self.accuracy(self.model(weights), domain) for name, domain in self.domains.items()}

    def run(self, sources: Sequence[str], methods: Sequence[str] = METHODS, val: str = "imagenet_val") -> list[Any]:
        """Every source with every method: rows with source, method, accuracy by target, and RI in points."""
        before, rows = self.score(self.weights), []
        for source in sources:
            made, targets = {}, [name for name in self.domains if name not in (source, val)]
            for method in methods:
                made[method] = self.train(self.domains[source], method, made)
                after = self.score(made[method])
                change = 100 * sum(after[name] - before[name] for name in targets) / len(targets)
                rows.append({"source": source, "method": method, "accuracy": after, "before": before, "ri": change})
        return rows
