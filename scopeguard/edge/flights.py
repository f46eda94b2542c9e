"""Single flight: one piece of work for everybody in the process who wants the same, threads and event loops alike.

A lock per event loop would let every loop and the worker threads fetch for themselves, and a loop-bound lock breaks
on the second loop. Here a waiter leaves a function to be called when the flight lands; a thread leaves
``Event.set``, a task leaves whatever wakes it in its own loop.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class Flights:
    """Who is flying under which key, and whom to wake when it lands. A key is forgotten when its flight lands."""

    def __init__(self) -> None:
        self._reset()
        _every.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def board(self, key: str, wake: Callable[[], None]) -> bool:
        """``True``: the flight is yours, and you must :meth:`land` it whatever happens. ``False``: *wake* will be
        called, once, from any thread, when the one in the air lands; look again then whether you still need it."""
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = []
                return True
            waiting.append(wake)
            return False

    def land(self, key: str) -> None:
        """End the flight under *key* and wake everybody who waited for it."""
        with self._lock:
            waiting = self._waiting.pop(key, ())
        for wake in waiting:
            wake()

    def __len__(self) -> int:
        return len(self._waiting)


_every: weakref.WeakSet[Flights] = weakref.WeakSet()


def _forget_flights_of_the_parent() -> None:
    for flights in _every:
        flights._reset()


# A child process has none of the threads that would land the parent's flights.
os.register_at_fork(after_in_child=_forget_flights_of_the_parent)
