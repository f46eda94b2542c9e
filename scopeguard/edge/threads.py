"""Threads for flights. They are reused, because starting a thread costs as much as the rest of an exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from scopeguard.state.fork import Locked

# The seconds for which a thread waits for more work before it ends.
_IDLE_TIMEOUT: Final = 5.0


class Threads(Locked):
    """Runs each piece of work at once, in an idle thread or a new one. The lanes bound the number of threads.

    The threads are daemons: the end of the process does not wait for a hanging authorization server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def after_fork(self) -> None:
        """Replace the lock and forget the threads, which do not exist in the child process."""
        super().after_fork()
        self._reset()

    def _reset(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = 0  # waiting threads, minus the pieces of work in the queue
        self._ended = 0  # counts the calls of end()

    def run(self, work: Callable[[], None]) -> None:
        """Run *work*, which must not raise. Raises :class:`RuntimeError` if no thread can be started."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._work.put(work)
                return
            begun = self._ended
        threading.Thread(target=self._run, args=(work, begun), name="scopeguard", daemon=True).start()

    def end(self) -> None:
        """End the idle threads now, and the others after their current work."""
        with self._lock:
            self._ended += 1
            idle, self._idle = self._idle, 0
            for _ in range(idle):
                self._work.put(None)

    def _run(self, work: Callable[[], None] | None, begun: int) -> None:
        while work is not None:
            work()
            del work  # it refers to a token, which an idle thread must not keep
            work = self._next_work(begun)

    def _next_work(self, begun: int) -> Callable[[], None] | None:
        with self._lock:
            if begun != self._ended:
                return None
            self._idle += 1
            waiting = self._work
        try:
            return waiting.get(timeout=_IDLE_TIMEOUT)
        except Empty:
            with self._lock:
                if self._idle:
                    self._idle -= 1
                    return None
        return waiting.get()  # run() counted this thread as idle and has put work there
