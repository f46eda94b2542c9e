"""Single flight: one piece of work for all callers of the process that need the same result.

With a lock per event loop, each loop and the worker threads would fetch separately, and a lock that is bound to one
loop fails in a second loop. Here a waiter registers a function that is called when the flight ends: that of a thread
sets an event, that of a task wakes the task in its own loop.
"""

from __future__ import annotations

from collections.abc import Callable

from scopeguard.state.fork import Locked

Wake = Callable[..., None]
"""Called without an argument when the flight has ended, or with an exception that ends the wait."""


class _Flight:
    __slots__ = ("leader", "waiting")

    def __init__(self, leader: Wake) -> None:
        self.leader: Wake | None = leader
        self.waiting: list[Wake] = []


class Flights(Locked):
    """The running flights by key, and the callers that wait for each. A key is removed when its flight ends."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, _Flight] = {}

    def after_fork(self) -> None:
        """Replace the lock and drop the flights of threads that do not exist in the child process."""
        super().after_fork()
        self._running = {}

    def join(self, key: str, wake: Wake) -> bool:
        """Join the flight *key* or start it. Return whether the caller starts it, and must :meth:`finish` it.

        Otherwise *wake* is called once, from any thread, when the running flight ends. The caller then checks again
        whether the work is needed.
        """
        with self._lock:
            flight = self._running.get(key)
            if flight is None:
                self._running[key] = _Flight(wake)
                return True
            flight.waiting.append(wake)
            return False

    def leave(self, key: str, wake: Wake) -> bool:
        """Remove the caller that joined with *wake*. Return whether it was the last one."""
        with self._lock:
            flight = self._running.get(key)
            if flight is None:
                return False
            if flight.leader == wake:
                flight.leader = None
            elif wake in flight.waiting:
                flight.waiting.remove(wake)
            else:
                return False
            return flight.leader is None and not flight.waiting

    def finish(self, key: str) -> None:
        """End the flight *key* and wake the callers that wait for it, except the one that started it."""
        with self._lock:
            flight = self._running.pop(key, None)
        for wake in () if flight is None else flight.waiting:
            wake()

    def dismiss(self, reason: Callable[[], Exception]) -> None:
        """Wake all callers, each with its own *reason*. Running flights continue."""
        with self._lock:
            woken: list[Wake] = []
            for flight in self._running.values():
                woken += flight.waiting if flight.leader is None else [flight.leader, *flight.waiting]
                flight.leader = None
                flight.waiting = []
        for wake in woken:
            wake(reason())

    def __len__(self) -> int:
        return len(self._running)
