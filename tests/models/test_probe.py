"""The regression of a probe: scikit-learn's minimum, the choice of the penalty, the same bits every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import rib.models.probe as probes
from rib.models.probe import fit_probe, held_out_images

GRID = (1e-4, 1e-2, 1.0)


def clusters(count: int, width: int, classes: int, unit: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of overlapping classes, of unequal variance per dimension and off centre, unless of unit length."""
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator) / 2
    features = centres[labels] + torch.randn(count, width, generator=generator)
    if unit:
        return torch.nn.functional.normalize(features, dim=1), labels
    return (features * torch.logspace(0, -1, width) + 1).float(), labels


def probabilities(probe: probes.Probe, features: torch.Tensor) -> np.ndarray:
    return (features.double() @ probe.weight.T + probe.bias).softmax(dim=1).numpy()


@pytest.mark.parametrize("l2", GRID)
@pytest.mark.parametrize("unit", [False, True])
def test_it_is_scikit_learn_s_regression(l2, unit):
    features, labels = clusters(210, 24, 7, unit)
    ours = fit_probe(features, labels, 7, [l2])
    theirs = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=20_000)
    theirs.fit(features.double().numpy(), labels.numpy())
    mine, wanted = probabilities(ours, features), theirs.predict_proba(features.double().numpy())
    assert np.abs(mine - wanted).max() < 1e-3
    accuracy = (mine.argmax(axis=1) == labels.numpy()).mean()
    assert accuracy == pytest.approx(theirs.score(features.numpy(), labels.numpy()), abs=1e-3)
    assert ours.converged and ours.held_out == {}


def test_the_penalty_is_the_one_that_is_best_on_held_out_images():
    features, labels = clusters(280, 96, 7)
    probe = fit_probe(features, labels, 7, GRID, seed=3)
    held = held_out_images(labels, 0.1, 3)
    for l2, accuracy in probe.held_out.items():
        alone = fit_probe(features[~held], labels[~held], 7, [l2])
        right = (features[held].double() @ alone.weight.T + alone.bias).argmax(dim=1) == labels[held]
        assert accuracy == float(right.double().mean())
    assert probe.held_out[probe.l2] == max(probe.held_out.values())
    assert len(set(probe.held_out.values())) > 1
    assert (
        probabilities(probe, features) - probabilities(fit_probe(features, labels, 7, [probe.l2]), features)
    ).max() < 1e-4


def test_of_equally_good_penalties_the_strongest_is_chosen():
    features = torch.eye(3).repeat(20, 1)
    assert fit_probe(features, torch.arange(60) % 3, 3, [1e-3, 0.1, 1e-2]).l2 == 0.1


def test_it_gives_the_same_bits_again_and_does_not_depend_on_chunks(monkeypatch):
    features, labels = clusters(120, 16, 5)
    first, again = (fit_probe(features, labels, 5, GRID) for _ in range(2))
    assert torch.equal(first.weight, again.weight) and torch.equal(first.bias, again.bias)
    other_order = fit_probe(features, labels, 5, tuple(reversed(GRID)))
    assert torch.equal(first.weight, other_order.weight)
    monkeypatch.setattr(probes, "ENTRIES", 16 * 7)
    monkeypatch.setattr(probes, "KEPT", 0)
    in_chunks = fit_probe(features, labels, 5, GRID)
    assert in_chunks.l2 == first.l2
    assert torch.allclose(in_chunks.weight, first.weight, atol=1e-5)


def test_the_held_out_tenth_is_balanced_and_leaves_every_class_an_image():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 4 + [3])
    held = held_out_images(labels, 0.1, 0)
    assert torch.bincount(labels[held], minlength=4).tolist() == [4, 2, 0, 0]
    assert not torch.equal(held, held_out_images(labels, 0.1, 1))
    assert held_out_images(torch.tensor([0, 0, 1, 1, 2]), 0.1, 0).sum() == 2  # a tenth of two is none: one of each
    assert not held_out_images(torch.arange(4), 0.1, 0).any()


def test_where_nothing_can_be_held_out_the_middle_penalty_is_taken():
    assert fit_probe(torch.eye(3), torch.arange(3), 3, [0.1]).l2 == 0.1
    probe = fit_probe(torch.eye(3), torch.arange(3), 3, [1e-3, 0.1, 1e-2])
    assert probe.l2 == 1e-2 and probe.held_out == {}
