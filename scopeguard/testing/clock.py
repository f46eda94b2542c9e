"""Time that stands still until a test moves it."""

from __future__ import annotations

import threading
import time
from typing import Final

from scopeguard.config.checks import number

_MOST: Final = 1e12  # a date in the distant future


class FakeClock:
    """Both clocks of :class:`~scopeguard.flow.effects.Clock`, in seconds. Safe to share between threads.

    The wall clock starts at the whole second of the machine's, unless ``wall`` is given; the monotonic one anywhere.

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
        """Let *seconds* pass on both clocks; time does not run backwards."""
        if seconds < 0:
            raise ValueError("advance: time does not run backwards; set_wall() moves the wall clock alone")
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Move the wall clock alone, in any direction, as an administrator or NTP does."""
        with self._lock:
            self._wall = float(seconds)
