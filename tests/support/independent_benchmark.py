"""What rib computes on a suite, once more and without rib: accuracies before and after one epoch of SGD, and RI.

Nothing here imports rib: formulas are written down again from papers and documentation, with PIL, torch, torchvision,
timm, open_clip and scikit-learn alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

Domain = tuple[list[str], Tensor, Tensor]
"""Paths, images (N, 3, S, S) and labels (N,) of a domain, in the order of the paths."""


def evaluation_transform(size: int, crop_pct: float, mean: Sequence[float], std: Sequence[float]) -> Callable:
    """The evaluation transform of timm and open_clip: shorter side, centre crop, mean and std."""
    resize = transforms.Resize(math.floor(size / crop_pct), transforms.InterpolationMode.BICUBIC)
    crop = transforms.CenterCrop(size)
    return transforms.Compose([resize, crop, transforms.ToTensor(), transforms.Normalize(mean, std)])


def read(folder: Path, classes: Sequence[str], transform: Callable) -> Domain:
    """Read a domain of class folders."""
    paths = sorted(str(file.relative_to(folder)) for name in classes for file in (folder / name).glob("*"))
    images = torch.stack([transform(Image.open(folder / path).convert("RGB")) for path in paths])
    return paths, images, torch.tensor([classes.index(path.split("/")[0]) for path in paths])


class ZeroShot(nn.Module):
    """An open_clip image tower with a linear head made of sentences (Radford et al. 2021, section 3.1.4)."""

    def __init__(self, name: str, state: Mapping[str, Tensor], words: Sequence[str], templates: Sequence[str]) -> None:
        super().__init__()
        clip, tokenize = open_clip.create_model(name).eval(), open_clip.get_tokenizer(name)
        clip.load_state_dict(state)
        with torch.no_grad():
            texts = [clip.encode_text(tokenize([text.format(word) for text in templates])) for word in words]
            means = torch.stack([F.normalize(features, dim=1).mean(0) for features in texts])
            self.head = nn.Parameter(F.normalize(means, dim=1) * clip.logit_scale.exp())
        self.tower = clip.visual

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.tower(images), dim=1) @ self.head.T


class Subset(nn.Module):
    """A timm classifier whose classes are the largest among the outputs that count as each."""

    def __init__(self, name: str, state: Mapping[str, Tensor], groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network, self.groups = timm.create_model(name), groups
        self.network.load_state_dict(state)

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.network(images)
        return torch.stack([outputs[:, list(ids)].amax(1) for ids in self.groups], dim=1)


def probe(name: str, state: Mapping[str, Tensor], images: Tensor, labels: Tensor, l2: float) -> nn.Module:
    """A timm network with a new last layer: logistic regression on the features that enter it (C = 1 / (N l2))."""
    network = timm.create_model(name).eval()
    network.load_state_dict(state)
    with torch.no_grad():
        features = network.forward_head(network.forward_features(images), pre_logits=True).double().numpy()
    fitted = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-9, max_iter=10_000).fit(features, labels.numpy())
    network.reset_classifier(len(fitted.classes_))
    head = {"weight": torch.tensor(fitted.coef_), "bias": torch.tensor(fitted.intercept_)}
    network.get_classifier().load_state_dict(head)
    return network


def train_an_epoch(network: nn.Module, images: Tensor, labels: Tensor, lr: float, batch: int) -> None:
    """SGD with momentum 0.9, linear warm-up over a tenth of the steps, then a cosine; images as seed 0 orders them."""
    seed = int(hashlib.sha256(json.dumps(["order", 0, 0], separators=(",", ":")).encode()).hexdigest()[:15], 16)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).split(batch)
    warmup, optimizer = round(len(order) / 10), torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    network.train()
    for step, rows in enumerate(order):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, len(order) - warmup)))
        optimizer.param_groups[0]["lr"] = lr * ((step + 1) / warmup if step < warmup else cosine)
        optimizer.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()


def score(network: nn.Module, domains: Mapping[str, Domain]) -> dict[str, Tensor]:
    """The logits (N, C) of every domain, 50 images at a time."""
    network.eval()
    with torch.no_grad():
        return {
            name: torch.cat([network(part) for part in images.split(50)]) for name, (_, images, _) in domains.items()
        }


def accuracies(logits: Mapping[str, Tensor], domains: Mapping[str, Domain]) -> dict[str, float]:
    """By domain the fraction of images whose largest logit is that of their label."""
    return {name: float((logits[name].argmax(1) == domains[name][2]).double().mean()) for name in logits}


def improvement(before: Mapping[str, float], after: Mapping[str, float], source: str) -> float:
    """RI: the mean change in accuracy on the domains other than the source, in percentage points."""
    return 100 * float(np.mean([after[name] - before[name] for name in before if name != source]))
