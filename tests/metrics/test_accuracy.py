"""The torchmetrics classes against short independent formulas, in one process and in two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributed

from rib.data.labels import LabelSpace
from rib.metrics import RobustnessImprovement, SubspaceAccuracy
from tests.support.gloo import GlooPool

SPACE = LabelSpace(((7,), (2, 5), (0,), (9, 3, 4)))
UNITS = ("imagenet_v2", "imagenet_a", "imagenet_c/fog/1", "imagenet_c/fog/2", "imagenet_c/snow/1")


def scored(num_images: int = 101) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_images, 10, generator=generator), torch.randint(4, (num_images,), generator=generator)


def correct(index: int, num_images: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    before, after = torch.rand(2, num_images + 7 * index, generator=generator)
    return before < 0.6, after < 0.4 + 0.1 * index


def accuracy_of_share(rank: int, size: int, batch_size: int) -> Tensor:
    metric = SubspaceAccuracy(SPACE)
    logits, labels = (whole[rank::size] for whole in scored())
    for some, theirs in zip(logits.split(batch_size), labels.split(batch_size), strict=True):
        metric.update(some, theirs)
    return metric.compute()


def improvement_of_share(rank: int, size: int, batch_size: int) -> Tensor:
    metric = RobustnessImprovement(UNITS)
    for index in range(len(UNITS)):
        before, after = (whole[rank::size] for whole in correct(index))
        for some, theirs in zip(before.split(batch_size), after.split(batch_size), strict=True):
            metric.update(index, some, theirs)
    return metric.compute()


def accuracy_of_rank(batch_size: int) -> Tensor:
    return accuracy_of_share(distributed.get_rank(), 2, batch_size)


def improvement_of_rank(batch_size: int) -> Tensor:
    return improvement_of_share(distributed.get_rank(), 2, batch_size)


def test_accuracy_is_the_formula() -> None:
    logits, labels = scored()
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        best = max((row[i], j) for j, group in enumerate(SPACE.groups) for i in group)[1]
        right += best == label
    assert accuracy_of_share(0, 1, 16).item() == pytest.approx(right / len(labels), abs=1e-7)


def test_improvement_is_the_formula() -> None:
    gains = []
    for index in range(len(UNITS)):
        before, after = correct(index)
        gains.append(100 * (after.double().mean() - before.double().mean()).item())
    expected = (gains[0] + gains[1] + ((gains[2] + gains[3]) / 2 + gains[4]) / 2) / 3
    assert improvement_of_share(0, 1, 16).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    assert torch.equal(accuracy_of_share(0, 1, batch_size), accuracy_of_share(0, 1, 1000))
    assert torch.equal(improvement_of_share(0, 1, batch_size), improvement_of_share(0, 1, 1000))


def test_two_processes_equal_one(gloo_pool: GlooPool) -> None:
    one = accuracy_of_share(0, 1, 16)
    assert [value.item() for value in gloo_pool.run(accuracy_of_rank, 16)] == [one.item()] * 2
    one = improvement_of_share(0, 1, 16)
    assert [value.item() for value in gloo_pool.run(improvement_of_rank, 16)] == [one.item()] * 2


def test_identical_predictions_improve_by_exactly_nothing() -> None:
    metric = RobustnessImprovement(UNITS)
    for index in range(len(UNITS)):
        metric.update(index, correct(index)[0], correct(index)[0])
    assert metric.compute().item() == 0.0


def test_unscored_targets_are_nan_and_reset_starts_over() -> None:
    metric = RobustnessImprovement(("imagenet_v2", "imagenet_a"))
    metric.update(0, *correct(0))
    assert metric.compute().isnan()
    metric.update(1, *correct(1))
    assert metric.compute().isfinite()
    metric.reset()
    assert metric.total.tolist() == [0, 0]


def test_arguments_that_do_not_belong_together_are_refused() -> None:
    accuracy, improvement = SubspaceAccuracy(SPACE), RobustnessImprovement(("imagenet_v2",))
    with pytest.raises(ValueError, match="expected labels of shape"):
        accuracy.update(torch.zeros(3, 10), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="expected logits"):
        accuracy.update(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="the same images before and after"):
        improvement.update(0, torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="a target from 0 to 0, got 1"):
        improvement.update(1, torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="at least one target"):
        RobustnessImprovement(())
