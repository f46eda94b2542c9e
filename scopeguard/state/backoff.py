"""Exponential back-off: pauses that double with each failure in a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Backoff:
    """Pauses of *first* seconds after the first failure, doubled with each further one, up to *longest* seconds."""

    first: float
    longest: float

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after *failures* failures in a row, which is 1 or more.

        *retry_after*: the seconds that the server asked for. A longer ``retry_after`` is used, up to ``longest``.
        """
        doubled = self.first * 2.0 ** min(failures - 1, 30)  # a bound, so that the power does not overflow
        return min(max(doubled, retry_after or 0.0), self.longest)

    def next_pause(self, pause: float) -> float:
        """Return the seconds to wait when *pause* did not help."""
        return min(max(2.0 * pause, self.first), self.longest)
