"""Elastic weight consolidation in one process and in two."""

from __future__ import annotations

import pytest

from rib.methods.ewc import EWC
from tests.fitting import fit, fit_in_pool, furthest, plain, same
from tests.nets import NETS


def ewc():
    return [EWC(5.0, samples=16)]


@pytest.mark.parametrize("net", NETS)
def test_strength_zero_is_plain_fine_tuning(net):
    assert same(fit(NETS[net](), EWC(0.0, fisher="identity")).state_dict(), plain(net))


@pytest.mark.parametrize("net", NETS)
def test_two_processes_are_one(net, gloo_pool):
    one = fit(NETS[net](), *ewc()).state_dict()
    first, second = gloo_pool.run(fit_in_pool, net, ewc, {})
    assert same(first, second)
    assert furthest(one, first) < 1e-5  # gradients are summed in another order
    assert not same(one, plain(net))
