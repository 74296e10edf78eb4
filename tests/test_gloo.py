"""The two-process pool itself: ranks, seeding, and errors that come back instead of hanging."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, distributed

from tests.support.gloo import GlooPool


def rank_and_sum(start: int) -> tuple[int, int, int]:
    total = torch.tensor(start + distributed.get_rank())
    distributed.all_reduce(total)
    return distributed.get_rank(), int(total), os.getpid()


def random_numbers() -> Tensor:
    return torch.rand(3)


def fail_on_rank_1() -> None:
    if distributed.get_rank() == 1:
        raise ValueError("on purpose")
    distributed.barrier()


def die_on_rank_0() -> None:
    if distributed.get_rank() == 0:
        os._exit(3)
    distributed.barrier()


def never_answer() -> None:
    torch.multiprocessing.get_context("spawn").Event().wait()


def test_both_ranks_run_and_persist(gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(rank_and_sum, 10), gloo_pool.run(rank_and_sum, 10)
    assert [(rank, total) for rank, total, _ in first] == [(0, 21), (1, 21)]
    assert first == second


def test_each_call_is_seeded(gloo_pool: GlooPool) -> None:
    numbers = gloo_pool.run(random_numbers) + gloo_pool.run(random_numbers)
    assert all(torch.equal(numbers[0], other) for other in numbers)


@pytest.mark.slow
def test_failures_come_back_and_the_pool_starts_afresh() -> None:
    pool = GlooPool()
    try:
        with pytest.raises(RuntimeError, match=r"(?s)fail_on_rank_1 failed on rank 1.*ValueError: on purpose"):
            pool.run(fail_on_rank_1)
        assert pool.run(rank_and_sum, 0)[0][1] == 1
        with pytest.raises(RuntimeError, match=r"(?s)die_on_rank_0 failed on rank"):
            pool.run(die_on_rank_0)
        with pytest.raises(TimeoutError, match=r"never_answer.*\[0, 1\]"):
            pool.run(never_answer, timeout_s=0.5)
    finally:
        pool.close()
