# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Methods in your own Trainer
#
# rib's methods are Lightning callbacks. They work with your own `LightningModule` and `Trainer`, without rib's configs,
# store or commands. In this example, a small network is pretrained on ten classes of stripes and fine-tuned on six of
# them in a new domain, then tested on both domains. Fine-tuning is plain, with EWC, with WiSE-FT, and with both.

# %%
import lightning.pytorch as L
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import rib.methods
from rib.methods.ewc import EWC
from rib.methods.wise_ft import WiseFT

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

# %% [markdown]
# ## Data
#
# Ten classes of 16 x 16 images: stripes at ten angles, with random phase. In the *new* domain they are rotated by 0.6
# of the angle between two classes, inverted and noisier, and four of the ten classes are missing.


# %%
def pictures(count: int, classes: int, new: bool, seed: int) -> TensorDataset:
    """Make images of stripes with random phases, float (N, 1, 16, 16), and their labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    angle = ((labels + 0.6 * new) * torch.pi / 10).view(-1, 1, 1)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    images = torch.sin(0.9 * (x * angle.cos() + y * angle.sin()) + phase)
    noise = torch.randn(images.shape, generator=generator)
    images = 0.6 - images + 0.8 * noise if new else images + 0.3 * noise
    return TensorDataset(images[:, None], labels)


old, new = pictures(1000, 10, False, 0), pictures(240, 6, True, 1)
old_test, new_test = pictures(1000, 10, False, 2), pictures(600, 6, True, 3)
figure, axes = plt.subplots(2, 6, figsize=(6, 2.2), layout="constrained")
for row, (domain, name) in zip(axes, ((old, "old"), (new, "new")), strict=True):
    row[0].set_ylabel(name)
    for ax, (image, _) in zip(row, domain, strict=False):
        ax.imshow(image[0], cmap="gray")
        ax.set(xticks=[], yticks=[])

# %% [markdown]
# ## The module
#
# An ordinary `LightningModule`. The network is built in `__init__`, `forward` returns logits, and one line of
# `training_step` adds the penalties of the Trainer's methods to the loss.


# %%
class Stripes(L.LightningModule):
    """Classifier of ten classes of stripes; `weights` are pretrained weights to start from."""

    def __init__(self, lr: float, weights: dict[str, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.lr = lr
        layers = [nn.Conv2d(1, 16, 5, stride=2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))
        if weights is not None:
            self.load_state_dict(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 10) of images (B, 1, 16, 16)."""
        return self.net(images)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy plus the penalties of the Trainer's methods."""
        images, labels = batch
        outputs = self(images)
        loss = F.cross_entropy(outputs, labels)
        return loss + rib.methods.penalties(self, images, outputs, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD over all parameters."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def train(module: Stripes, data: TensorDataset, epochs: int, *methods: L.Callback) -> Stripes:
    """Train a module with methods as callbacks."""
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=epochs, callbacks=list(methods), **QUIET)
    trainer.fit(module.train(), DataLoader(data, batch_size=40, shuffle=True))
    return module.eval()


@torch.no_grad()
def accuracy(module: Stripes, data: TensorDataset) -> float:
    """Return the accuracy on a dataset in percent."""
    images, labels = data.tensors
    return 100 * float((module(images).argmax(1) == labels).float().mean())


L.seed_everything(0, verbose=False)
pretrained = train(Stripes(0.05), old, 6)
start = pretrained.state_dict()

# %% [markdown]
# ## Fine-tuning with methods as callbacks
#
# EWC estimates the Fisher information on the Trainer's own images unless `EWC(images=loader)` is given. Here it gets
# the old images, as in Kirkpatrick et al. 2017. At the end of training, WiSE-FT replaces the weights by the average of
# the pretrained and the fine-tuned weights. Callbacks that average must come last.

# %%
LOADER = DataLoader(old, batch_size=40)
STACKS = {
    "fine-tuning": list,
    "EWC": lambda: [EWC(strength=1.0, samples=500, images=LOADER)],
    "WiSE-FT": lambda: [WiseFT(alpha=0.5)],
    "EWC + WiSE-FT": lambda: [EWC(strength=1.0, samples=500, images=LOADER), WiseFT(alpha=0.5)],
}
tuned = {name: train(Stripes(0.02, start), new, 8, *stack()) for name, stack in STACKS.items()}
models = {"pretrained": pretrained, **tuned}
table = pd.DataFrame(
    {name: {"old %": accuracy(m, old_test), "new %": accuracy(m, new_test)} for name, m in models.items()}
).T
table.round(1)

# %%
figure, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
for name, (x, y) in table[["new %", "old %"]].iterrows():
    ax.plot(x, y, "o", label=name)
ax.set(xlabel="accuracy on the new domain, %", ylabel="accuracy on the old domain, %")
ax.legend(fontsize=8)
plt.show()
