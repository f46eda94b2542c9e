"""A budget for work that a stranger can cause, as a token bucket: a burst, then one unit per interval."""

from __future__ import annotations


class Budget:
    """*burst* units at once, then one per *interval* seconds, which are monotonic. The owner holds a lock during each
    call.

    The only state is the time at which the budget is full again. Calls with times out of order cannot refill it twice.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at = float("-inf")

    def shortfall(self, now: float, units: int = 1) -> float:
        """Return the seconds until *units* are available, or the whole burst if that is less."""
        spare = self._burst - min(units, self._burst)
        return max(0.0, self._full_at - now - spare * self._interval)

    def spend(self, now: float) -> None:
        """Take one unit, which must be available."""
        self._full_at = max(self._full_at, now) + self._interval

    def refund(self) -> None:
        """Give one unit back that was spent."""
        self._full_at -= self._interval
