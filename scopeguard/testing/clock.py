"""A clock that only tests move."""

from __future__ import annotations

import threading
import time
from typing import Final

from scopeguard.config.checks import number

_MOST: Final = 1e12  # seconds: more than 30,000 years


class FakeClock:
    """A wall clock and a monotonic clock, in seconds, that stand still until a test moves them.

    Implements :class:`~scopeguard.flow.effects.Clock`. By default the wall clock starts at the current second of the
    machine. Safe to share between threads.

    >>> clock = FakeClock(wall=1_800_000_000)
    >>> clock.advance(90)
    >>> clock.wall()
    1800000090.0
    """

    def __init__(self, wall: float | None = None, *, monotonic: float = 1000.0) -> None:
        if wall is not None:
            number(wall, "wall", most=_MOST)
        number(monotonic, "monotonic", most=_MOST)
        self._lock = threading.Lock()
        self._wall = float(int(time.time()) if wall is None else wall)
        self._monotonic = float(monotonic)

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by *seconds*. Raises :class:`ValueError` for a negative number."""
        if seconds < 0:
            raise ValueError("advance: must not be negative; set_wall() moves the wall clock in any direction")
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock alone, forward or back, as an administrator or NTP does."""
        with self._lock:
            self._wall = float(seconds)
