"""Single flight: one piece of work for every caller in the process that wants the same, in threads and event loops.

A lock per event loop would let every loop and the worker threads fetch for themselves, and a loop-bound lock breaks
on the second loop. Here a waiter leaves a function to be called when the flight lands; a thread leaves one that sets
an event, a task one that wakes it in its own loop.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

Wake = Callable[..., None]
"""Called without an argument when the flight has landed, with an exception when waiting for it makes no sense."""


class _Flight:
    __slots__ = ("leader", "waiting")

    def __init__(self, leader: Wake) -> None:
        self.leader: Wake | None = leader
        self.waiting: list[Wake] = []


class Flights:
    """The flights in the air, by key, and the callers that wait for each. A key is forgotten when its flight lands."""

    def __init__(self) -> None:
        self._reset()
        _every.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._aloft: dict[str, _Flight] = {}

    def board(self, key: str, wake: Wake) -> bool:
        """``True``: the flight is the caller's, which must :meth:`land` it whatever happens. ``False``: *wake* will be
        called, once, from any thread, when the one in the air lands; look again then whether it is still needed."""
        with self._lock:
            flight = self._aloft.get(key)
            if flight is None:
                self._aloft[key] = _Flight(wake)
                return True
            flight.waiting.append(wake)
            return False

    def leave(self, key: str, wake: Wake) -> bool:
        """The caller that boarded with *wake* waits no longer. ``True``: it was the last one."""
        with self._lock:
            flight = self._aloft.get(key)
            if flight is None:
                return False
            if flight.leader == wake:
                flight.leader = None
            elif wake in flight.waiting:
                flight.waiting.remove(wake)
            else:
                return False
            return flight.leader is None and not flight.waiting

    def land(self, key: str) -> None:
        """End the flight under *key* and wake every caller that waited for it; its leader knows."""
        with self._lock:
            flight = self._aloft.pop(key, None)
        for wake in () if flight is None else flight.waiting:
            wake()

    def dismiss(self, reason: Callable[[], Exception]) -> None:
        """Wake all who wait, leaders too, each with a *reason* of its own. What is in the air goes on."""
        with self._lock:
            woken: list[Wake] = []
            for flight in self._aloft.values():
                woken += flight.waiting if flight.leader is None else [flight.leader, *flight.waiting]
                flight.leader = None
                flight.waiting = []
        for wake in woken:
            wake(reason())

    def __len__(self) -> int:
        return len(self._aloft)


_every: weakref.WeakSet[Flights] = weakref.WeakSet()


def _forget_flights_of_the_parent() -> None:
    for flights in _every:
        flights._reset()


# A child process has none of the threads that would land the parent's flights.
os.register_at_fork(after_in_child=_forget_flights_of_the_parent)
