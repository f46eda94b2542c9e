"""The clock of a machine that may be frozen between two requests.

AWS Lambda freezes an instance after each event, for seconds or hours, and with SnapStart it starts from a snapshot that
may be weeks old. The monotonic clock may stand still meanwhile, so that keys, answers and proofs would look fresher
than they are. The wall clock is correct afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from scopeguard.edge.runtime import SystemClock
from scopeguard.flow.effects import Clock

# A smaller difference may come from setting the clock.
_NOTICEABLE: Final = 2.0


class SuspendableClock:
    """The clocks of the machine. ``monotonic`` advances by the time for which the machine was frozen.

    The wall clock shows how long that was: if it has advanced further than the monotonic clock, the difference is
    added. So setting the wall clock forward makes caches look older than they are. Setting it back changes nothing.
    """

    __slots__ = ("_ahead", "_monotonic", "_slept", "wall")

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wall: Callable[[], float] = wall
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()
        self._slept = 0.0

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        now = self._monotonic()
        change = self.wall() - now - self._ahead - self._slept
        if change > _NOTICEABLE:
            self._slept += change
        elif change < -_NOTICEABLE:
            self._ahead += change
        return now + self._slept


def choose_clock() -> Clock:
    """Return the clock for this machine. On AWS Lambda it is a :class:`SuspendableClock`, which costs more to read."""
    return SuspendableClock() if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else SystemClock()
