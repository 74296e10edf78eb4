"""Phases of `rib.runtime.stopwatch` add up to the whole time, and inner phases are not counted twice."""

import threading

import pytest

from rib.runtime import stopwatch
from rib.runtime.stopwatch import TimedItems, measured, running, timed


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on by itself."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_an_inner_phase_is_not_counted_twice(clock):
    def batches():
        for _ in range(2):
            clock(1)
            yield None

    with measured("rest") as watch:
        clock(5)
        with timed("scoring"):
            for _ in TimedItems(batches(), "waiting"):
                clock(10)
        with pytest.raises(ValueError), timed("failing"):
            clock(3)
            raise ValueError
        thread = threading.Thread(target=watch.start, args=("elsewhere",))
        thread.start()
        thread.join()
        clock(7)
    assert watch.seconds == {"rest": 12, "scoring": 20, "waiting": 2, "failing": 3}


def test_nothing_is_measured_without_being_asked():
    with timed("scoring"):
        assert running() is None
    assert list(TimedItems([1, 2], "waiting")) == [1, 2]
