"""A budget for work that anybody can cause: so much at once, then one per interval."""

from __future__ import annotations


class Budget:
    """*burst* units at once, then one per *interval* seconds. Not locked: its owner has a lock. Seconds are monotonic.

    Kept is the time at which the budget is full again. A clock that is read out of order refills nothing twice.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at = float("-inf")

    def shortfall(self, now: float, units: int = 1) -> float:
        """The seconds until the budget affords *units*, or as many as it has when it is full."""
        spare = self._burst - min(units, self._burst)
        return max(0.0, self._full_at - now - spare * self._interval)

    def spend(self, now: float) -> None:
        """Take one unit, which must be affordable."""
        self._full_at = max(self._full_at, now) + self._interval
