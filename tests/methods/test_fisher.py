"""The Fisher against a plain loop, and against a model whose Fisher is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rib.methods.fisher import fisher_diagonal, normalise, sample_labels, squared_gradients
from tests.support.nets import NETS, random_images


def reference(model, images, labels):
    """Batch size 1, .backward(), squares added up."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(images)):
        model.zero_grad()
        (-model(images[i : i + 1]).log_softmax(1)[0, labels[i]]).backward()
        for name, p in model.named_parameters():
            total[name] += p.grad**2
    return total


@pytest.mark.parametrize("way", ["loop", "vmap"])
@pytest.mark.parametrize("net", NETS)
def test_squared_gradients_equal_a_loop_with_batch_size_one(net, way):
    model, images = NETS[net](), random_images(12)
    labels = torch.arange(12)
    expected = reference(model, images, labels)
    found, each = squared_gradients(model, images, labels, way)
    assert found.keys() == expected.keys()
    for i in range(len(images)):
        alone = reference(model, images[i : i + 1], labels[i : i + 1])
        assert float(each[i]) == pytest.approx(sum(float(v.sum()) for v in alone.values()), rel=1e-4)
    for name, value in expected.items():
        assert torch.linalg.norm(found[name] - value) <= 1e-5 * torch.linalg.norm(value), name


@pytest.mark.parametrize("net", NETS)
def test_it_does_not_depend_on_the_batches_or_change_the_model(net):
    model, images = NETS[net](), random_images(12)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    uniforms = torch.rand(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, each = fisher_diagonal(model, [(images, uniforms)])
    parts, each_of_parts = fisher_diagonal(model, [(images[:5], uniforms[:5]), (images[5:], uniforms[5:])])
    assert torch.allclose(each, each_of_parts, rtol=1e-4)
    for name, value in whole.items():
        assert torch.linalg.norm(parts[name] - value) <= 1e-5 * torch.linalg.norm(value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_for_a_linear_softmax_model_it_is_the_closed_form():
    """With expected labels, F_kd = E_x p_k (1 - p_k) x_d^2, exactly; sampled labels come near it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x = torch.randn(20000, 4, dtype=torch.float64)
    p = model(x).softmax(1)
    expected = torch.einsum("nk,nd->kd", p * (1 - p), x**2) / len(x)
    total, _ = fisher_diagonal(model, [(x, torch.rand(len(x), dtype=torch.float64))], "vmap")
    assert torch.allclose(total["weight"] / len(x), expected, rtol=0.1)
    for way, count in (("vmap", len(x)), ("loop", 200)):
        few = torch.einsum("nk,nd->kd", (p * (1 - p))[:count], x[:count] ** 2)
        exact, _ = fisher_diagonal(model, [(x[:count], torch.zeros(count))], way, "expected")
        assert torch.allclose(exact["weight"], few, rtol=1e-5)


def test_labels_follow_the_models_softmax():
    torch.manual_seed(0)
    model = nn.Linear(4, 5)
    x = torch.randn(1, 4).expand(40000, 4)
    drawn = sample_labels(model, x, torch.rand(40000)).bincount(minlength=5) / 40000
    assert torch.allclose(drawn, model(x[:1]).softmax(1)[0], atol=0.01)
    assert sample_labels(model, x[:2], torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)).max() <= 4


def test_normalised_has_mean_one_and_refuses_what_says_nothing():
    fisher = normalise({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([8.0])})
    assert sum(f.sum() for f in fisher.values()) / 3 == pytest.approx(1)
    for useless in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite mean above 0"):
            normalise({"a": torch.tensor([useless])})
