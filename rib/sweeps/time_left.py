"""Expected time that is left of a sweep, from the jobs that have ended."""

from __future__ import annotations

from time import monotonic

from rib.schemas.files import Job


class JobsLeft:
    """Expected time that is left of a sweep whose jobs take about the same time.

    Results that were in the store already take no time, and tell how long a job takes only until one has been made.

    Args:
        total: Number of jobs; 0 if unknown.
    """

    def __init__(self, total: int) -> None:
        self._ahead, self._made = total, 0
        self._stored: list[float] = []
        self._begun = self._last = monotonic()

    def end(self, job: Job) -> None:
        """Count a job as done or failed."""
        self._ahead -= 1
        if "folder" not in job:  # how long it would have taken is unknown
            return
        if not job.get("in_store"):
            self._made += 1
            self._last = monotonic()
            return
        self._stored.append(job.get("seconds", 0.0))
        if not self._made:
            self._begun = self._last = monotonic()

    def seconds(self) -> float | None:
        """Return the expected seconds that are left; None if they are unknown, or over already."""
        if self._ahead <= 0 or not (self._made or self._stored):
            return None
        usual = sum(self._stored) / max(1, len(self._stored))
        each = (self._last - self._begun) / self._made if self._made else usual
        left = self._ahead * each - (monotonic() - self._last)
        return left if left > 0 else None
