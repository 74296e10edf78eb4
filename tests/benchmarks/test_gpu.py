"""The GPU's benchmark runs on a CPU with a tiny network, so that a GPU's time is not spent on its mistakes."""

from __future__ import annotations

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_the_gpu_benchmark_prints_every_row(capsys):
    gpu.main(["--tiny"])
    table = capsys.readouterr().out.partition("| on one GPU |")[2]
    assert "failed" not in table
    for claim in ("first epoch", "cache, eager", "cache, compiled", *gpu.METHODS, "peak memory", "bf16", "verified"):
        assert claim in table
