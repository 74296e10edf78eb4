"""Projection from model outputs to classes, against a plain loop."""

from __future__ import annotations

import pytest
import torch

from rib.data.catalog import real, with_label_rule
from rib.data.labels import LabelSpace

SPACES = {
    "all": tuple((i,) for i in range(7)),
    "some": ((0,), (2,), (5,)),
    "shuffled": ((3,), (1,), (6,)),
    "consecutive but not from 0": ((2,), (3,), (4,)),
    "reversed": tuple((i,) for i in reversed(range(7))),
    "several": ((0,), (6, 2), (5,), (1, 3, 4)),
    "one class": ((1, 2),),
}


def by_hand(logits, groups):
    return torch.stack([torch.stack([max(row[i] for i in group) for group in groups]) for row in logits])


@pytest.mark.parametrize("groups", SPACES.values(), ids=SPACES)
def test_project_is_the_largest_logit_of_each_group(groups):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LabelSpace(groups).project(logits), by_hand(logits, groups))


@pytest.mark.parametrize("groups", SPACES.values(), ids=SPACES)
def test_gradients_flow_to_the_largest_logit_of_each_group_alone(groups):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.randn(5, len(groups), generator=torch.Generator().manual_seed(2))
    (ours,) = torch.autograd.grad((LabelSpace(groups).project(logits) * weight).sum(), logits)
    (theirs,) = torch.autograd.grad((by_hand(logits, groups) * weight).sum(), logits)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", ["max", "first", "authors"])
def test_objectnet_projects_1000_outputs_onto_its_classes(rule):
    groups = with_label_rule(real()["objectnet"], rule).groups
    logits = torch.randn(2, 1000, generator=torch.Generator().manual_seed(3))
    assert torch.equal(LabelSpace(groups).project(logits), by_hand(logits, groups))


def test_200_classes_are_not_scored_among_1000():
    space = LabelSpace(real()["imagenet_a"].groups)
    outside = next(i for i in range(1000) if (i,) not in space.groups)
    logits = torch.zeros(1, 1000)
    logits[0, outside], logits[0, space.groups[7][0]] = 9, 1
    assert space.project(logits).shape == (1, 200)
    assert space.project(logits).argmax() == 7


def test_of_ids_is_a_class_an_output():
    assert LabelSpace.of_ids([4, 2]) == LabelSpace(((4,), (2,)))
    assert len(LabelSpace.of_ids([4, 2])) == 2


@pytest.mark.parametrize("groups", [(), ((1,), ()), ((1,), (-1,))])
def test_no_class_an_empty_class_and_a_negative_output_are_errors(groups):
    with pytest.raises(ValueError, match="expected"):
        LabelSpace(groups)


@pytest.mark.parametrize("shape", [(2, 5), (6,), (1, 2, 6)])
def test_logits_of_another_model_are_an_error(shape):
    with pytest.raises(ValueError, match=r"expected logits \(B, K\) with K > 5, got shape"):
        LabelSpace(((5,),)).project(torch.zeros(shape))
